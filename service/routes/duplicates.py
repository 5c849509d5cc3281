"""The near-duplicates of the whole collection, as `python -m indexer.duplicates` left them in the index folder, by pages."""

import hashlib
import os
from functools import lru_cache
from pathlib import Path

from fastapi import APIRouter, Request
from pydantic import Field

from indexer.opening import OpenStore
from indexer.storage import artifact, duplicates
from indexer.storage.duplicates import DuplicatesRecord, GroupRecord
from indexer.store import ALL, Filter
from service import cursor, schemas
from service.cursor import Cursor, Question
from service.engine import note_of
from service.routes import inputs
from service.routes.common import DescribedRoute, Filtered, check_k, engine_of, indexed, neighbor, problems, settings_of
from training.errors import NotFound

router = APIRouter(route_class=DescribedRoute)


class Groups(Filtered):
    """What GET /duplicates takes."""

    k: schemas.Whole = Field(10, ge=1, description="groups a page, at most max_neighbors", examples=[5])
    cursor: str | None = Field(None, max_length=100, description="`next` of an answer: the groups that follow")


@router.get(
    "/duplicates",
    responses=problems(404, 422, 503),
    openapi_extra={"parameters": inputs.parameter_descriptions(Groups)},
    tags=["search"],
)
def groups(request: Request) -> schemas.GroupsAnswer:
    """The groups that were last looked for. Items that are removed or pass no filter are left out, and groups of less than two.

    A page has k groups, or fewer where they hold max_neighbors items; of a larger group it has the first so many.
    """
    params = inputs.query_string(request, Groups)
    check_k(request, params.k)
    pair = engine_of(request).current.newest()
    store, most = pair.store, settings_of(request).max_neighbors
    record, digest = record_of(store)
    filter = params.filter()
    question = Question(store.fingerprint, store.metric, f"duplicates {digest}", filter, None, None)
    number = cursor.read(params.cursor, question).id + 1 if params.cursor is not None else 0
    shown: list[schemas.Group] = []
    looked = 0
    while number < len(record.groups) and len(shown) < params.k and looked < most:
        looked += len(record.groups[number].ids)
        if shown and looked > most:
            break
        if group := _group(request, store, record.groups[number], most, filter):
            shown.append(group)
        number += 1
    last = Cursor("exact", 0.0, number - 1) if number < len(record.groups) else None
    return schemas.GroupsAnswer(
        model=store.fingerprint,
        layer=store.manifest.layer,
        index_version=store.version_number,
        compared_version=record.index_version,
        compared=record.compared,
        created=record.created,
        metric=record.metric,
        threshold=record.threshold,
        chosen=record.chosen,
        found=record.found,
        groups=shown,
        next=last.text(question) if last else None,
        note=note_of(store, filter, bool(shown)),
    )


def default_distance(store: OpenStore) -> float:
    """How far a near-duplicate of an item may be where nobody says: as in the groups that were last looked for.

    Raises NotFound where there are none, or none by the store's distance.
    """
    try:
        record, _ = record_of(store)
    except NotFound as error:
        raise NotFound(f"{error}, and chooses how far they may be; or give max_distance") from error
    if record.metric != store.metric:
        raise NotFound(
            f"near-duplicates were last looked for by {record.metric} distance, and the index's is {store.metric}; "
            f"{duplicates.REMEDY} chooses how far they may be; or give max_distance"
        )
    return record.threshold


def record_of(store: OpenStore) -> tuple[DuplicatesRecord, str]:
    """The record of a store's index folder, and what tells it from every other. Raises NotFound where it is another model's."""
    index = store.folder.parents[1]
    try:
        status = os.stat(index / artifact.DUPLICATES)  # noqa: PTH116
    except OSError:
        return duplicates.read(index), ""  # which says why not
    record, digest = _parsed(index, status.st_ino, status.st_mtime_ns, status.st_size)
    if record.fingerprint != store.fingerprint:
        raise NotFound(f"near-duplicates were looked for in an index of another model; {duplicates.REMEDY} looks in this one")
    return record, digest


@lru_cache(maxsize=2)
def _parsed(index: Path, *_state: int) -> tuple[DuplicatesRecord, str]:
    record = duplicates.read(index)
    return record, hashlib.sha256(f"{record.created} {_state}".encode()).hexdigest()


def _group(request: Request, store: OpenStore, record: GroupRecord, most: int, filter: Filter) -> schemas.Group | None:
    """What passes of a group, of which `most` items are looked at; None for less than two."""
    items = indexed(store, record.ids[:most])
    found = zip(items, record.sha256s, record.distances, strict=False)
    left = [(item, distance) for item, sha256, distance in found if item and item.sha256 == sha256 and filter.passes(item)]
    if len(left) < 2:
        return None
    further = record.distances[most:] if filter == ALL else []
    neighbors = [neighbor(request, item.id, distance, item.label, item.path) for item, distance in left]
    return schemas.Group(size=len(left) + len(further), farthest=further[-1] if further else left[-1][1], items=neighbors)
