"""One query by every way of finding neighbours, side by side."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal
from weakref import WeakKeyDictionary

import numpy as np
from fastapi import APIRouter, Request, Response
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from indexer import store as search
from indexer.features import raw_pixels, thumbnail_of
from indexer.metric import vectors_of
from indexer.opening import OpenStore
from indexer.search import plain, ways
from indexer.search.plain import Colours, Found
from indexer.search.ways import WAYS, Way
from indexer.store import LARGEST_ID, Item
from service import schemas
from service.engine import Engine, Neighbor, Subject
from service.pair import Pair
from service.routes import inputs
from service.routes.common import DescribedRoute, as_json, check_k, engine_of, metrics_of, neighbor, problems, settings_of
from service.routes.inputs import ParsedInput
from service.stages import Stages
from training.errors import BadValue, FC7Error
from training.images.preprocess import Photograph

RANKED: Final = 100  # neighbours by the first way that ranks are told among, at least
_PATIENCE_S: Final = 2.0  # that the rows wait for one that is slow: colours are counted at the first question
_COLOURS: Final[WeakKeyDictionary[Engine, Colours]] = WeakKeyDictionary()
Metric = Literal["euclidean", "cosine", "hamming", "hellinger"]
_METRICS: Final[dict[Way, Metric]] = {
    "euclidean": "euclidean",
    "angle": "cosine",
    "code": "hamming",
    "pixel-code": "hamming",
    "pixels": "euclidean",
    "colours": "hellinger",
}
router = APIRouter(route_class=DescribedRoute)


class Comparison(BaseModel):
    """What POST /compare takes beside the photograph."""

    id: schemas.Whole | None = Field(
        None, ge=0, le=LARGEST_ID, description="an indexed photograph, which is left out of the rows"
    )
    k: schemas.Whole = Field(10, ge=1, description="neighbours of each way, at most max_neighbors", examples=[5])


@dataclass(frozen=True)
class _Asked:
    """What neighbours are looked for of."""

    name: str
    subject: Subject
    item: Item | None
    photograph: Photograph | None  # instead of an item

    @property
    def without(self) -> tuple[int, ...]:
        return () if self.item is None else (self.item.id,)


@dataclass(frozen=True)
class _Row:
    """The neighbours of one way, or why there are none."""

    neighbors: list[Neighbor]
    reason: str | None = None


@router.post(
    "/compare",
    response_model=schemas.CompareAnswer,
    responses=problems(404, 413, 415, 422, 503),
    openapi_extra={**inputs.body_description(photographs_only=True), "parameters": inputs.parameter_descriptions(Comparison)},
    tags=["search"],
)
async def compare(request: Request) -> Response:
    """Finds the neighbours of one photograph by every way: by features, by codes, by one column, and without the network.

    Each row says how much of the first it has, and where its neighbours are in that. What an index was built without is told in
    the row that needs it.
    """
    params, engine, stages = inputs.query_string(request, Comparison), engine_of(request), Stages(metrics_of(request))
    pair = await engine.current.followed()
    check_k(request, params.k)
    asked = await _asked(engine, pair, await _input(request, params), stages)
    depth = min(max(params.k, RANKED), settings_of(request).max_neighbors)
    rows = dict(zip(WAYS, await asyncio.gather(*(_row(engine, pair, asked, way, depth, stages) for way in WAYS)), strict=True))
    first = next(way for way in WAYS if rows[way].reason is None)

    def response() -> Response:
        answer = schemas.CompareAnswer(
            model=pair.model.fingerprint,
            layer=pair.model.layer,
            index_version=pair.store.version_number,
            name=asked.name,
            k=params.k,
            reference=first,
            ranked=depth,
            ways=[_compared(request, pair, way, rows[way], rows[first], params.k) for way in WAYS],
        )
        return as_json(answer)

    return await engine.form(response)


async def _input(request: Request, params: Comparison) -> ParsedInput:
    parsed = await inputs.read(request)
    if bool(parsed) == (params.id is not None):
        got = "both an image and an id" if parsed else "neither an image nor an id"
        raise BadValue("image", got, "uploaded or, instead, an id given")
    if params.id is not None:
        return ParsedInput(str(params.id), item=params.id)
    if len(parsed) > 1:
        raise BadValue("image", f"{len(parsed)} inputs", "one photograph, which all ways are asked about")
    parsed[0].check()
    if parsed[0].data is None and parsed[0].item is None:
        raise BadValue("inputs.0", "a vector or examples", "a photograph or an id: other ways than features need pixels")
    return parsed[0]


async def _asked(engine: Engine, pair: Pair, given: ParsedInput, stages: Stages) -> _Asked:
    engine.check_room(given.photographs, 1)
    if given.data is None:
        assert given.item is not None  # noqa: S101
        id = given.item
        [item] = await engine.read(lambda: pair.store.items([id]))
        return _Asked(given.name, Subject(id), item, None)
    photograph = (await engine.decode(given.data, stages)).photograph
    feature_D = await engine.feature(pair.model, photograph, stages)
    [compared_D] = vectors_of(feature_D[None], pair.store.metric, "image")
    return _Asked(given.name, Subject(vector_D=compared_D), None, photograph)


async def _row(engine: Engine, pair: Pair, asked: _Asked, way: Way, k: int, stages: Stages) -> _Row:
    """The neighbours of one way. What is wrong with this way alone is its reason."""
    store = pair.store
    if reason := ways.lacking(way, store, store.version, pair.model.net.config.columns):
        return _Row([], reason)
    try:
        if query := ways.query_of(way, k, asked.without):
            page = await engine.search(store, asked.subject, query, stages)
            return _Row(page.neighbors)
        return await _without_the_network(engine, store, asked, way, k)
    except BadValue as error:  # as of a half without a direction
        return _Row([], str(error))


async def _without_the_network(engine: Engine, store: OpenStore, asked: _Asked, way: Way, k: int) -> _Row:
    colours = _COLOURS.setdefault(engine, Colours())
    query = search.Query(k, without=asked.without)
    work: Callable[[], Found]
    if way == "colours":

        def work() -> Found:
            [colours_L] = plain.colours_of([_thumbnail(store, asked)])
            return colours.nearest(store, colours_L, query)
    else:
        by = plain.by_pixels if way == "pixels" else plain.by_pixel_codes

        def work() -> Found:
            assert store.version is not None  # noqa: S101
            return by(store.version, _pixels(store, asked), query)

    def described() -> list[Neighbor]:
        found = work()
        items = {item.id: item for item in store.items([item for item, _ in found])}
        return [(item, distance, items[item].label, items[item].path, None, None) for item, distance in found]

    counts = way == "colours"  # which takes minutes the first time, and nobody else's work is to wait so long
    job = asyncio.ensure_future(engine.slowly("measure" if counts else "look", described))
    job.add_done_callback(lambda job: job.cancelled() or job.exception())  # which nobody may be waiting for any more
    try:
        done, _ = await asyncio.wait([job], timeout=_PATIENCE_S)
    finally:
        if not counts:
            job.cancel()
    if not done and counts:
        return _Row([], f"colours of {len(store)} thumbnails are being counted, once for this index; ask again in a moment")
    if not done:
        return _Row([], "pictures for others are being made; ask again in a moment")
    try:
        return _Row(job.result())
    except FC7Error as error:
        return _Row([], str(error))


def _pixels(store: OpenStore, asked: _Asked) -> NDArray[np.uint8]:
    if asked.photograph is not None:
        pixels_P: NDArray[np.uint8] = raw_pixels(asked.photograph.pixels_CHW[None])[0]
        return pixels_P
    assert store.version is not None  # noqa: S101
    assert asked.item is not None  # noqa: S101
    return plain.pixels_of(store.version, asked.item.id)


def _thumbnail(store: OpenStore, asked: _Asked) -> bytes:
    if asked.photograph is not None:
        return thumbnail_of(asked.photograph)
    assert asked.item is not None  # noqa: S101
    return store.thumbnail(asked.item)


def _compared(request: Request, pair: Pair, way: Way, row: _Row, first: _Row, k: int) -> schemas.ComparedWay:
    ranks = {item: rank for rank, (item, *_) in enumerate(first.neighbors, 1)}
    neighbors = [
        schemas.ComparedNeighbor(
            **neighbor(request, *found).model_dump(),
            rank=ranks.get(found[0]),
            move=ranks[found[0]] - place if found[0] in ranks else None,
        )
        for place, found in enumerate(row.neighbors[:k], 1)
    ]
    ids = {item for item, *_ in first.neighbors[:k]}
    return schemas.ComparedWay(
        way=way,
        name=ways.title(way, pair.model.layer),
        metric=_METRICS.get(way, pair.store.metric),
        neighbors=None if row.reason else neighbors,
        overlap=sum(hit.id in ids for hit in neighbors) / len(ids) if ids and not row.reason else None,
        reason=row.reason,
    )
