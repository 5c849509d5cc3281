"""The map of the collection that a build made: what it is, and where its items lie."""

import gzip
import hashlib
import re
from dataclasses import dataclass
from typing import Annotated, Final
from weakref import WeakKeyDictionary

import numpy as np
from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from indexer.opening import OpenStore
from indexer.storage import layout
from indexer.storage.layout import LayoutReport
from service import schemas
from service.routes import files
from service.routes.common import DescribedRoute, as_json, engine_of, pictures, problems, settings_of
from service.routes.kept import Kept
from training.errors import NotFound

MAGIC: Final = b"FC7P"
MEDIA_TYPE: Final = "application/octet-stream"
MOST_LABELS: Final = 1000  # that an answer names
LARGEST_NUMBER: Final = 2**16 - 1  # of a label among the points; this and those beyond
_FOR_EVER: Final = "private, max-age=31536000, immutable"  # private: who asks may have needed the key
_GZIP: Final = re.compile(r"gzip(\s*;\s*q=(?!0(\.0*)?$).+)?")
router = APIRouter(route_class=DescribedRoute)


@dataclass(frozen=True)
class _Map:
    """The map of a store, without the items that have been removed since."""

    report: LayoutReport
    labels: list[schemas.MapLabel]
    shown: int
    since: int  # items that came after it was made
    removed: int
    points: bytes
    compressed: bytes
    state: str  # what tells these points from others


_MAPS: Final[WeakKeyDictionary[OpenStore, Kept[_Map]]] = WeakKeyDictionary()  # by store: nothing of a map outlives its store
State = Annotated[str | None, Query(max_length=64, description="as in `points` of GET /map: these points alone, kept for ever")]


@router.get("/map", response_model=schemas.MapAnswer, responses=problems(404, 422, 503), tags=["map"])
async def described(request: Request) -> Response:
    """The map of the collection: how it was made, how true it is, its labels, and where its points are.

    Items that were removed since are left out; those that were added since are not on it.
    """
    store, places = await _newest(request)
    report = places.report
    answer = schemas.MapAnswer(
        model=store.fingerprint,
        layer=store.manifest.layer,
        index_version=store.version_number,
        items=len(store),
        shown=places.shown,
        since=places.since,
        removed=places.removed,
        method=report.method,
        library=report.library,
        parameters=report.parameters,
        sampled=report.sampled,
        neighbors=report.neighbors,
        trustworthiness=report.trustworthiness,
        neighbor_recall=report.neighbor_recall,
        labels=places.labels[:MOST_LABELS],
        more_labels=max(0, len(places.labels) - MOST_LABELS),
        points=f"{settings_of(request).root_path}/map/points?state={places.state}",
        bytes=len(places.points),
    )
    return as_json(answer)


@router.get("/map/points", response_class=Response, responses=problems(404, 422, 503) | pictures(MEDIA_TYPE), tags=["map"])
async def points(request: Request, state: State = None) -> Response:
    """Where the items lie, in little-endian order of bytes; N items in order of id, gzipped where that is accepted.

    "FC7P"; N, uint32; how far each id is above the one before, the first above 0, uint32 (N,); x, y and the place of the label in
    `labels` of GET /map, each uint16 (N,). x goes to the right and y upwards, from 0 to 65535. Labels from 65535 on are 65535.
    """
    _, places = await _newest(request)
    if state not in (None, places.state):
        raise NotFound(f"the map has no points {state!r} any more; GET /map says which it has")
    is_gzipped = _takes_gzip(request.headers.get("accept-encoding", ""))
    content = places.compressed if is_gzipped else places.points
    answer = await run_in_threadpool(files.answer, request, content, MEDIA_TYPE)  # which hashes it
    answer.headers["Vary"] = "Accept-Encoding"
    if is_gzipped:
        answer.headers["Content-Encoding"] = "gzip"
    if state:
        answer.headers["Cache-Control"] = _FOR_EVER
    return answer


def _takes_gzip(accepted: str) -> bool:
    """Whether an Accept-Encoding has gzip, and not with a weight of 0 (RFC 9110, section 12.5.3)."""
    return any(_GZIP.fullmatch(one.strip()) for one in accepted.lower().split(","))


async def _newest(request: Request) -> tuple[OpenStore, _Map]:
    """The newest store, and its map, which is formed once however many ask. Raises NotFound where it was built without one."""
    engine = engine_of(request)
    store = (await run_in_threadpool(engine.current.newest)).store
    kept = _MAPS.setdefault(store, Kept("look", 1))
    return store, await kept.result(engine, "map", lambda: _formed(store))


def _formed(store: OpenStore) -> _Map:
    whole, ids = layout.read(store), store.ids()
    here = np.isin(whole.ids_N, ids, assume_unique=True)
    numbers_N = whole.numbers_N[here]
    counts = np.bincount(numbers_N, minlength=len(whole.report.labels)).tolist()
    points = b"".join(
        [
            MAGIC,
            np.array([len(numbers_N)], "<u4").tobytes(),
            np.diff(whole.ids_N[here], prepend=0).astype("<u4").tobytes(),
            whole.places_N2[here].T.astype("<u2").tobytes(),
            numbers_N.clip(max=LARGEST_NUMBER).astype("<u2").tobytes(),
        ]
    )
    return _Map(
        report=whole.report,
        labels=[schemas.MapLabel(label=label, count=count) for label, count in zip(whole.report.labels, counts, strict=True)],
        shown=len(numbers_N),
        since=len(ids) - len(numbers_N),
        removed=len(here) - len(numbers_N),
        points=points,
        compressed=gzip.compress(points, 6, mtime=0),
        state=hashlib.sha256(points).hexdigest()[:32],
    )
