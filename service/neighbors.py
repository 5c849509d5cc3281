"""The endpoints that search: neighbours of uploaded and of indexed photographs, near-duplicates, page after page."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, File, Query, Request, UploadFile
from pydantic import BaseModel, Field

from indexer import store as search
from indexer.store import Mode, Vectors
from service import cursor, schemas
from service.collection import Opened
from service.common import LARGEST_ID, ItemId, decode, engine_of, links, name_of, problems, settings_of
from service.engine import DUPLICATE_SHARE, Engine, Page, Upload
from service.errors import problem
from training.errors import BadValue, FC7Error

router = APIRouter()


class Paging(BaseModel):
    """What every search takes."""

    k: int = Field(10, ge=1, description="neighbours a page, at most max_neighbors", examples=[5])
    label: str | None = Field(None, description="only items of this label; empty: only items without one")
    max_distance: float | None = Field(None, ge=0, le=1e9, allow_inf_nan=False, description="leave out what is farther away")
    cursor: str | None = Field(
        None, max_length=100, description="`next` of an answer to this same question: what comes after it; k may be another"
    )


class Search(Paging):
    """What POST /neighbors takes beside the photographs."""

    id: int | None = Field(None, ge=0, le=LARGEST_ID, description="an indexed photograph to start from")
    mode: Mode | Literal["auto"] | None = Field(
        None,
        description="exact: every feature is compared, by Euclidean distance. code: every short code, by Hamming distance. "
        "two-stage: a short-list, then exact Euclidean distances. ball: all codes within `radius` bits. "
        "auto: exact or two-stage, by size. Left out: as the service is set",
    )
    radius: int | None = Field(None, ge=0, le=256, description="bits; with mode=ball, and with it alone")


class Duplicates(Paging):
    """What GET /items/{id}/duplicates takes."""

    max_distance: float | None = Field(
        None,
        ge=0,
        le=1e9,
        allow_inf_nan=False,
        description=f"largest Euclidean distance; left out: {DUPLICATE_SHARE} of the length of the item's own feature",
    )
    mode: Literal["exact", "two-stage", "auto"] = Field("auto", description="as in POST /neighbors")


@router.post("/neighbors", responses=problems(404, 413, 415, 422, 503), tags=["search"])
async def neighbors(
    request: Request,
    asked: Annotated[Search, Query()],
    image: Annotated[list[UploadFile] | None, File(description="one photograph or several; or give an id")] = None,
) -> schemas.NeighborsAnswer:
    """Finds the indexed photographs nearest to uploaded ones, or to an indexed one, by their FC7 features or by short codes.

    Pages that follow `next` go through the whole collection; an answer without one is the last.
    """
    engine = engine_of(request)
    store, model = engine.store, engine.model
    _check_k(request, asked.k)
    if (image is None) == (asked.id is None):
        got = "neither an image nor an id" if image is None else "both an image and an id"
        raise BadValue("image", got, "uploaded or, instead, an id given")
    if asked.cursor and image and len(image) > 1:
        raise BadValue("cursor", asked.cursor, f"given with one photograph, not with {len(image)}")
    sent = await decode(request, image or [])
    good = [item for item in sent if isinstance(item, Upload)]
    if asked.id is not None:
        subjects, queries_QD = [f"item {asked.id}"], await engine.vector(store, asked.id)
    else:
        subjects = [f"image {upload.sha256}" for upload in good]
        queries_QD = await engine.features([upload.photograph for upload in good])
    question = _Question(asked, subjects, asked.mode, asked.radius)
    mode, pages = await question.answer(engine, store, queries_QD)
    if asked.id is not None:
        results = [schemas.NeighborsOfOne(name=str(asked.id), **pages[0])]
    else:
        found = iter(pages)
        results = [
            schemas.NeighborsOfOne(name=name_of(upload), error=problem(item))
            if isinstance(item, FC7Error)
            else schemas.NeighborsOfOne(name=name_of(upload), **next(found))
            for upload, item in zip(image or [], sent, strict=True)
        ]
    return schemas.NeighborsAnswer(
        model=model.fingerprint, index_version=store.version, mode=mode, metric=_metric(mode), results=results
    )


@router.get("/items/{id}/duplicates", responses=problems(404, 422, 503), tags=["search"])
async def duplicates(request: Request, item_id: ItemId, asked: Annotated[Duplicates, Query()]) -> schemas.DuplicatesAnswer:
    """Finds near-duplicates: the items within a Euclidean distance of an indexed one, which is itself left out."""
    engine = engine_of(request)
    store, model = engine.store, engine.model
    _check_k(request, asked.k)
    query_1D = await engine.vector(store, item_id)
    if asked.max_distance is None:
        asked = asked.model_copy(update={"max_distance": DUPLICATE_SHARE * float(np.linalg.norm(query_1D))})
    question = _Question(asked, [f"duplicates of {item_id}"], asked.mode, leave_out=item_id)
    mode, [page] = await question.answer(engine, store, query_1D)
    return schemas.DuplicatesAnswer(
        model=model.fingerprint, index_version=store.version, mode=mode, id=item_id, max_distance=asked.max_distance, **page
    )


@dataclass(frozen=True)
class _Question:
    """A search of one or more queries, as it was asked; cursors are bound to it."""

    asked: Paging
    subjects: list[str]  # what is searched for, a text for each query
    mode: Mode | Literal["auto"] | None
    radius: int | None = None
    leave_out: int | None = None

    async def answer(self, engine: Engine, store: Opened, queries_QD: Vectors) -> tuple[Mode, list[dict[str, Any]]]:
        """The mode of the search, and a page for each query as the fields of an answer."""
        asked, after, mode = self.asked, None, engine.mode(store, self.mode)[0]
        if asked.cursor:
            place = cursor.read(asked.cursor, self._facts(store, self.subjects[0]))
            if self.mode not in (None, "auto", place.mode):
                raise BadValue("mode", self.mode, f"{place.mode}, as in the answer that the cursor is from, or left out")
            mode, after = place.mode, (place.key, place.id)
        query = search.Query(asked.k, mode, asked.label, asked.max_distance, self.radius, after)
        found = await engine.search(store, queries_QD, query, self.leave_out) if self.subjects else []
        pages = zip(self.subjects, found, strict=True)
        return mode, [self._fields(page, self._facts(store, subject)) for subject, page in pages]

    def _facts(self, store: Opened, subject: str) -> dict[str, object]:
        asked = self.asked
        return {
            "model": store.model,
            "subject": subject,
            "label": asked.label,
            "max_distance": asked.max_distance,
            "radius": self.radius,
        }

    def _fields(self, page: Page, facts: dict[str, object]) -> dict[str, Any]:
        found = [
            schemas.Neighbor(id=item.id, distance=distance, label=item.label, path=item.path, **links(item))
            for item, distance in page.neighbours
        ]
        return {"neighbors": found, "buckets": page.buckets, "next": page.next and page.next.text(facts)}


def _check_k(request: Request, k: int) -> None:
    most = settings_of(request).max_neighbors
    if k > most:
        raise BadValue("k", k, f"at most {most}")


def _metric(mode: Mode) -> Literal["euclidean", "hamming"]:
    return "hamming" if mode in ("code", "ball") else "euclidean"
