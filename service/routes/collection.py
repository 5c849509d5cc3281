"""What the index holds: its labels with their counts, and its items by label and path, by pages."""

from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from pydantic import Field

from indexer.opening import OpenStore
from indexer.store import ALL, Filter
from service import cursor, schemas
from service.cursor import Cursor, Question
from service.engine import note_of
from service.routes import inputs
from service.routes.common import DescribedRoute, Filtered, check_k, engine_of, item_answer, problems

_CURSOR: Final = 100  # characters
router = APIRouter(route_class=DescribedRoute)


class Items(Filtered):
    """What GET /items takes."""

    k: schemas.Whole = Field(10, ge=1, description="items a page, at most max_neighbors", examples=[5])
    cursor: str | None = Field(None, max_length=_CURSOR, description="`next` of an answer: the items that follow")


K = Annotated[schemas.Whole, Query(ge=1, description="labels a page, at most max_neighbors", examples=[5])]
Next = Annotated[str | None, Query(max_length=_CURSOR, description="`next` of an answer: the labels that follow")]


@router.get("/labels", responses=problems(422, 503), tags=["items"])
def labels(request: Request, k: K = 10, cursor: Next = None) -> schemas.LabelsAnswer:
    """How many items each label has, in order of the labels."""
    check_k(request, k)
    store = engine_of(request).current.newest().store
    counts = store.labels()
    start = _after(store, "labels", ALL, cursor) + 1
    page = list(counts.items())[start : start + k]
    more = start + len(page) < len(counts)
    return schemas.LabelsAnswer(
        model=store.fingerprint,
        index_version=store.version_number,
        items=sum(counts.values()),
        of=len(counts),
        labels=[schemas.LabelCount(label=label, items=count) for label, count in page],
        next=_next(store, "labels", ALL, start + len(page) - 1) if more else None,
    )


@router.get(
    "/items",
    responses=problems(422, 503),
    openapi_extra={"parameters": inputs.parameter_descriptions(Items)},
    tags=["items"],
)
def items(request: Request) -> schemas.ItemsAnswer:
    """The items that pass, in order of their ids, which is the order in which they came."""
    params = inputs.query_string(request, Items)
    check_k(request, params.k)
    store, filter = engine_of(request).current.newest().store, params.filter()
    found = store.first(params.k + 1, filter, _after(store, "items", filter, params.cursor))
    page = found[: params.k]
    return schemas.ItemsAnswer(
        model=store.fingerprint,
        index_version=store.version_number,
        of=store.count(filter),
        items=[item_answer(request, entry) for entry in page],
        next=_next(store, "items", filter, page[-1].id) if len(found) > params.k else None,
        note=note_of(store, filter, bool(page)),
    )


def _question(store: OpenStore, subject: str, filter: Filter) -> Question:
    return Question(store.fingerprint, store.metric, subject, filter, None, None)


def _after(store: OpenStore, subject: str, filter: Filter, text: str | None) -> int:
    """What the page comes after; -1 is before all. Raises BadValue."""
    return -1 if text is None else cursor.read(text, _question(store, subject, filter)).id


def _next(store: OpenStore, subject: str, filter: Filter, last: int) -> str:
    return Cursor("exact", 0.0, last).text(_question(store, subject, filter))
