"""What the endpoints share: the engine, the settings and the metrics of a request; problems, pictures and answers described."""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Final
from urllib.parse import parse_qsl

from fastapi import Path, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field

from indexer.store import LARGEST_ID, MOST_LABELS, Filter, Item, Store, time_of
from service import schemas
from service.engine import Engine
from service.metrics import Metrics
from service.settings import ServiceSettings
from training.errors import BadValue, NotFound

MOST_ERRORS: Final = 10  # that one answer names
ItemId = Annotated[schemas.Whole, Path(alias="id", ge=0, le=LARGEST_ID, description="an indexed photograph", examples=[17])]


class Filtered(BaseModel):
    """Which items an answer is about; what does is derived from this."""

    label: list[str] = Field(
        [], max_length=MOST_LABELS, description="only items of this label, or of any of several; empty: items without one"
    )
    exclude_label: list[str] = Field(
        [], max_length=MOST_LABELS, description="no items of this label, nor of any other of several; empty: none without one"
    )
    path_prefix: str = Field("", max_length=4096, description="only items whose path begins with these characters")
    added_after: schemas.Time | None = Field(None, description="only items added at this time or later: ISO 8601, with its zone")
    added_before: schemas.Time | None = Field(None, description="only items added before this time: ISO 8601, with its zone")

    def filter(self) -> Filter:
        """The conditions that an item has to meet."""
        return Filter(tuple(self.label), tuple(self.exclude_label), self.path_prefix, self.added_after, self.added_before)


class DescribedRoute(APIRoute):
    """A route that takes the query parameters that are described, each once but for lists, and names all others in a 422."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What answers its requests."""
        handle = super().get_route_handler()
        further = (self.openapi_extra or {}).get("parameters", ())
        names = {field.alias for field in self.dependant.query_params} | {parameter["name"] for parameter in further}
        lists = {parameter["name"] for parameter in further if parameter["schema"].get("type") == "array"}

        async def checked(request: Request) -> Response:
            if query := request.scope["query_string"]:
                _check_names(query, names, lists)
            return await handle(request)

        return checked


def _check_names(query: bytes, names: set[str], lists: set[str]) -> None:
    """Raises RequestValidationError for parameters of other names, given twice but for `lists`, or in bytes that are no UTF-8."""
    errors: list[dict[str, Any]] = []
    seen: set[str] = set()
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True, errors="surrogateescape"):
        readable, shown = (text.encode(errors="replace").decode() for text in (name, value))
        wrong = {"loc": ("query", readable), "input": shown}
        if name not in names:
            errors.append({**wrong, "type": "extra_forbidden"})
        elif name in seen and name not in lists:
            errors.append({**wrong, "type": "repeated", "msg": "Input should be given once"})
        elif shown != value:
            errors.append({**wrong, "type": "encoding", "msg": "Input should be UTF-8"})
        seen.add(name)
    if errors:
        raise RequestValidationError(errors[:MOST_ERRORS])


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The description of answers with these statuses."""
    return {status: {"model": schemas.Problem} for status in statuses}


def pictures(*types: str) -> dict[int | str, dict[str, Any]]:
    """The description of an answer that is a picture of one of these media types."""
    content = {name: {"schema": {"type": "string", "format": "binary"}} for name in types}
    part = {"description": "the part that Range asks for", "content": content}
    return {200: {"content": content}, 206: part, 304: {"description": "what If-None-Match names"}, **problems(412, 416)}


def engine_of(request: Request) -> Engine:
    """The engine that answers."""
    engine: Engine = request.app.state.engine
    return engine


def metrics_of(request: Request) -> Metrics:
    """The metrics of the service."""
    metrics: Metrics = request.app.state.metrics
    return metrics


def settings_of(request: Request) -> ServiceSettings:
    """The settings that the service was started with."""
    settings: ServiceSettings = request.app.state.settings
    return settings


def check_k(request: Request, k: int) -> None:
    """Raises BadValue for more than one page may have."""
    most = settings_of(request).max_neighbors
    if k > most:
        raise BadValue("k", k, f"at most {most}")


def as_json(answer: BaseModel) -> Response:
    """An answer that is known to be as it is described, and so is not checked again."""
    return Response(answer.model_dump_json(by_alias=True), media_type="application/json")


def indexed(store: Store, ids: list[int]) -> list[Item | None]:
    """Items by their ids, None for those that are indexed no more."""
    try:
        return list(store.items(ids))
    except NotFound:
        return [_indexed_one(store, id) for id in ids]


def _indexed_one(store: Store, id: int) -> Item | None:
    try:
        return store.items([id])[0]
    except NotFound:
        return None


def links(request: Request, item: int) -> dict[str, str]:
    """Where an item's pictures are served."""
    address = f"{settings_of(request).root_path}/items/{item}"
    return {"image": f"{address}/image", "thumbnail": f"{address}/thumbnail"}


def item_answer(request: Request, item: Item) -> schemas.ItemAnswer:
    """What the catalogue knows of an item."""
    return schemas.ItemAnswer(
        id=item.id,
        path=item.path,
        label=item.label,
        width=item.width,
        height=item.height,
        size=item.size,
        format=item.format,
        sha256=item.sha256,
        added=time_of(item.added),
        **links(request, item.id),
    )


def neighbor(
    request: Request,
    item: int,
    distance: float,
    label: str,
    path: str,
    percentile: float | None = None,
    same_class: float | None = None,
) -> schemas.Neighbor:
    """An item as a neighbour of another, with where its pictures are served, and what its distance means where that is known."""
    return schemas.Neighbor(
        id=item, distance=distance, percentile=percentile, same_class=same_class, label=label, path=path, **links(request, item)
    )
