"""The endpoints that search: neighbours of uploaded and of indexed photographs, near-duplicates, page after page."""

import hashlib
import time
from typing import Final, Literal

import numpy as np
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from indexer import store as search
from indexer.metric import distances_of, vectors_of
from indexer.opening import OpenStore
from indexer.store import MOST_LABELS, Filter, Mode
from service import cursor, schemas
from service.cursor import Cursor, Question
from service.engine import DUPLICATE_SHARE, Engine, Page, Subject
from service.pair import Pair
from service.routes import inputs
from service.routes.common import (
    LARGEST_ID,
    DescribedRoute,
    ItemId,
    as_json,
    engine_of,
    links,
    metrics_of,
    problems,
    settings_of,
)
from service.routes.inputs import ParsedInput
from service.stages import Stages
from training.errors import BadValue, FC7Error

_LARGEST: Final = 1e6  # of a vector's components: beyond it squared distances overflow float32
_MANY: Final = 1000  # neighbours that take a few milliseconds to be put into words
router = APIRouter(route_class=DescribedRoute)


class Paging(BaseModel):
    """What every search takes."""

    k: schemas.Whole = Field(10, ge=1, description="neighbours a page, at most max_neighbors", examples=[5])
    label: list[str] = Field(
        [], max_length=MOST_LABELS, description="only items of this label, or of any of several; empty: items without one"
    )
    exclude_label: list[str] = Field(
        [], max_length=MOST_LABELS, description="no items of this label, nor of any other of several; empty: none without one"
    )
    path_prefix: str = Field("", max_length=4096, description="only items whose path begins with these characters")
    max_distance: schemas.Number | None = Field(
        None, ge=0, le=1e9, allow_inf_nan=False, description="leave out what is farther away"
    )
    cursor: str | None = Field(
        None, max_length=100, description="`next` of an answer to this same question: what comes after it; k may be another"
    )

    def filter(self) -> Filter:
        """Which items are searched."""
        return Filter(tuple(self.label), tuple(self.exclude_label), self.path_prefix)


class Search(Paging):
    """What POST /neighbors takes beside the photographs."""

    id: schemas.Whole | None = Field(None, ge=0, le=LARGEST_ID, description="an indexed photograph to start from")
    mode: Mode | Literal["auto"] | None = Field(
        None,
        description="exact: every feature is compared, by the index's metric. code: every short code, by Hamming distance. "
        "two-stage: a short-list, then exact distances by the metric. ball: all codes within `radius` bits. "
        "auto: exact or two-stage, by size. Left out: as the service is set",
    )
    radius: schemas.Whole | None = Field(None, ge=0, le=256, description="bits; with mode=ball, and with it alone")
    timings: bool = Field(False, description="say how long each stage took")


class Duplicates(Paging):
    """What GET /items/{id}/duplicates takes."""

    max_distance: schemas.Number | None = Field(
        None,
        ge=0,
        le=1e9,
        allow_inf_nan=False,
        description=f"largest distance by the index's metric; left out: {DUPLICATE_SHARE} of the length of the item's feature; "
        f"where the metric is cosine, {DUPLICATE_SHARE**2 / 2}, which is the same for features of one length",
    )
    mode: Literal["exact", "two-stage", "auto"] = Field("auto", description="as in POST /neighbors")


@router.post(
    "/neighbors",
    response_model=schemas.NeighborsAnswer,
    responses=problems(404, 413, 415, 422, 503),
    openapi_extra={**inputs.body_description(photographs_only=False), "parameters": inputs.parameter_descriptions(Search)},
    tags=["search"],
)
async def neighbors(request: Request) -> Response:
    """Finds the indexed photographs nearest to uploaded ones, to indexed ones or to vectors, by FC7 features or by short codes.

    Pages that follow `next` go through the whole collection; an answer without one is the last.
    """
    params, engine, stages = inputs.query_string(request, Search), engine_of(request), Stages(metrics_of(request))
    pair = await engine.current.followed()
    _check_k(request, params.k)
    parsed = await inputs.read(request)
    if bool(parsed) == (params.id is not None):
        raise BadValue(
            "image", "both an image and an id" if parsed else "neither an image nor an id", "uploaded or, instead, an id given"
        )
    if params.id is not None:
        parsed = [ParsedInput(str(params.id), item=params.id)]
    if params.cursor and len(parsed) > 1:
        raise BadValue("cursor", params.cursor, f"given with one photograph, not with {len(parsed)}")
    photographs = sum(input.data is not None for input in parsed)
    engine.check_room(photographs, len(parsed) - photographs)  # before there is a task for each
    default = engine.mode(pair.store, params.mode)[0]
    mode = _query(params, default, None).mode

    async def of_one(input: ParsedInput) -> tuple[str, Page, Question]:
        nonlocal mode
        name, subject = await _subject(engine, pair, input, stages, paged=params.cursor is not None)
        question = _question(params, pair.store, name)
        after = cursor.read(params.cursor, question) if params.cursor else None
        query = _query(params, default, after)
        mode = query.mode
        page = await engine.search(pair.store, subject, query, stages)
        if page.next and subject.inexact and subject.vector_D is not None:
            engine.keep_feature(pair.model, name, subject.vector_D)
        return input.name, page, question

    answers = await inputs.each(request, parsed, of_one)

    def response_of_all() -> Response:
        results = inputs.results(
            request,
            schemas.NeighborsOfOne,
            parsed,
            [answer if isinstance(answer, FC7Error) else _of_one(request, *answer) for answer in answers],
        )
        answer = schemas.NeighborsAnswer(
            model=pair.model.fingerprint,
            index_version=pair.store.version_number,
            mode=mode,
            metric=_metric(mode, pair.store),
            results=results,
            timings_ms=schemas.Timings.model_validate(stages.ms()) if params.timings else None,
        )
        return as_json(answer)

    began = time.perf_counter()
    large = sum(0 if isinstance(answer, FC7Error) else len(answer[1].neighbors) for answer in answers) > _MANY
    response = await engine.form(response_of_all) if large else response_of_all()
    stages.record("answer", time.perf_counter() - began)
    return response


@router.get(
    "/items/{id}/duplicates",
    responses=problems(404, 422, 503),
    openapi_extra={"parameters": inputs.parameter_descriptions(Duplicates)},
    tags=["search"],
)
async def duplicates(request: Request, item_id: ItemId) -> schemas.DuplicatesAnswer:
    """Finds near-duplicates: the items within a distance of an indexed one, which is itself left out."""
    params = inputs.query_string(request, Duplicates)
    engine, stages = engine_of(request), Stages(metrics_of(request))
    pair = await engine.current.followed()
    _check_k(request, params.k)
    if params.max_distance is None:
        length = np.linalg.norm((await engine.vector(pair.store, item_id)).astype(np.float64))
        [most] = distances_of(np.square(DUPLICATE_SHARE * length)[None], pair.store.metric).tolist()
        params = params.model_copy(update={"max_distance": most})
    question = _question(params, pair.store, f"duplicates of {item_id}")
    after = cursor.read(params.cursor, question) if params.cursor else None
    query = _query(params, engine.mode(pair.store, params.mode)[0], after)
    page = await engine.search(pair.store, Subject(item_id), query, stages, leave_out=item_id)
    return schemas.DuplicatesAnswer(
        model=pair.model.fingerprint,
        index_version=pair.store.version_number,
        mode=query.mode,
        metric=pair.store.metric,
        id=item_id,
        max_distance=params.max_distance,
        neighbors=_neighbors(request, page),
        next=_next(page, question),
        note=page.note,
    )


async def _subject(engine: Engine, pair: Pair, input: ParsedInput, stages: Stages, paged: bool) -> tuple[str, Subject]:
    """What an input is about, for a page after the first where `paged`, and a text that tells it from everything else."""
    if input.item is not None:
        return f"item {input.item}", Subject(input.item)
    if input.vector is not None:
        width = pair.store.width
        if len(input.vector) != width:
            raise BadValue("vector", f"{len(input.vector)} numbers", f"as long as FC7 of this index, {width} numbers")
        numbers_D = np.array(input.vector)
        for number in numbers_D[~(np.abs(numbers_D) <= _LARGEST)][:1].tolist():
            raise BadValue("vector", number, f"of numbers between -{_LARGEST:g} and {_LARGEST:g}")
        vector_D = numbers_D.astype(np.float32)
        [compared_D] = vectors_of(vector_D[None], pair.store.metric, "vector")
        return f"vector {hashlib.sha256(vector_D.tobytes()).hexdigest()}", Subject(vector_D=compared_D)
    assert input.data is not None  # noqa: S101
    if paged:
        name = f"image {hashlib.sha256(input.data).hexdigest()}"
        kept_D = engine.kept_feature(pair.model, name)
        if kept_D is not None:
            return name, Subject(vector_D=kept_D, inexact=True)
    upload = await engine.decode(input.data, stages)
    feature_D = await engine.feature(pair.model, upload.photograph, stages)
    [compared_D] = vectors_of(feature_D[None], pair.store.metric, "image")
    return f"image {upload.sha256}", Subject(vector_D=compared_D, inexact=True)


def _question(params: Search | Duplicates, store: OpenStore, subject: str) -> Question:
    return Question(store.fingerprint, store.metric, subject, params.filter(), params.max_distance, _radius(params))


def _query(params: Search | Duplicates, default: Mode, after: Cursor | None) -> search.Query:
    """The search in the mode of the cursor, else in the default. Raises BadValue for what does not go together."""
    mode, hit = (after.mode, (after.key, after.id)) if after else (default, None)
    if after and params.mode not in (None, "auto", mode):
        raise BadValue("mode", params.mode, f"{mode}, as in the answer that the cursor is from, or left out")
    return search.Query(params.k, mode, params.filter(), params.max_distance, _radius(params), hit)


def _radius(params: Search | Duplicates) -> int | None:
    return params.radius if isinstance(params, Search) else None


def _of_one(request: Request, name: str, page: Page, question: Question) -> schemas.NeighborsOfOne:
    return schemas.NeighborsOfOne(
        name=name,
        neighbors=_neighbors(request, page),
        buckets=page.buckets,
        next=_next(page, question),
        note=page.note,
    )


def _neighbors(request: Request, page: Page) -> list[schemas.Neighbor]:
    return [
        schemas.Neighbor(id=item.id, distance=distance, label=item.label, path=item.path, **links(request, item))
        for item, distance in page.neighbors
    ]


def _next(page: Page, question: Question) -> str | None:
    return page.next.text(question) if page.next else None


def _check_k(request: Request, k: int) -> None:
    most = settings_of(request).max_neighbors
    if k > most:
        raise BadValue("k", k, f"at most {most}")


def _metric(mode: Mode, store: OpenStore) -> Literal["euclidean", "cosine", "hamming"]:
    return "hamming" if mode in ("code", "ball") else store.metric
