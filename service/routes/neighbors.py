"""The endpoints that search: neighbours of uploaded and of indexed photographs, near-duplicates, page after page."""

import asyncio
import hashlib
import time
from typing import Final, Literal

import numpy as np
from fastapi import APIRouter, Request, Response
from pydantic import Field

from indexer import store as search
from indexer.arrays import Vectors
from indexer.metric import vectors_of
from indexer.opening import OpenStore
from indexer.search.feedback import query_of
from indexer.store import LARGEST_ID, Columns, Mode
from service import cursor, schemas
from service.cursor import LONGEST, MOST_GIVEN, Cursor, Question
from service.engine import Engine, Page, Subject
from service.pair import Pair
from service.routes import inputs
from service.routes.common import (
    DescribedRoute,
    Filtered,
    ItemId,
    as_json,
    check_k,
    engine_of,
    metrics_of,
    neighbor,
    problems,
)
from service.routes.duplicates import default_distance
from service.routes.inputs import ParsedInput
from service.stages import Stages
from training.checkpoint import name_of
from training.errors import BadImage, BadValue, FC7Error, ImageTooLarge, NotFound

_LARGEST: Final = 1e6  # of a vector's components: beyond it squared distances overflow float32
_MANY: Final = 1000  # neighbours that take a few milliseconds to be put into words
_COLUMNS: Final[dict[str, Columns]] = {"0": 0, "1": 1, "both": "both"}
router = APIRouter(route_class=DescribedRoute)


class Paging(Filtered):
    """What every search takes."""

    k: schemas.Whole = Field(10, ge=1, description="neighbours a page, at most max_neighbors", examples=[5])
    max_distance: schemas.Number | None = Field(
        None, ge=0, le=1e9, allow_inf_nan=False, description="leave out what is farther away"
    )
    cursor: str | None = Field(
        None, max_length=LONGEST, description="`next` of an answer to this same question: what comes after it; k may be another"
    )


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
    columns: Literal["0", "1", "both"] = Field(
        "both",
        description="of a network of two columns: 0 or 1 compares that column's half of the features alone, by exact search; by "
        "cosine, the angle between the halves themselves",
    )
    timings: bool = Field(False, description="say how long each stage took")


class Duplicates(Paging):
    """What GET /items/{id}/duplicates takes."""

    max_distance: schemas.Number | None = Field(
        None,
        ge=0,
        le=1e9,
        allow_inf_nan=False,
        description="largest distance by the index's metric; left out: the threshold of GET /duplicates, which "
        "`python -m indexer.duplicates` chooses by the distances in the index",
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
    check_k(request, params.k)
    parsed = await inputs.read(request)
    if bool(parsed) == (params.id is not None):
        raise BadValue(
            "image", "both an image and an id" if parsed else "neither an image nor an id", "uploaded or, instead, an id given"
        )
    if params.id is not None:
        parsed = [ParsedInput(str(params.id), item=params.id)]
    if params.cursor is not None and len(parsed) > 1:
        raise BadValue("cursor", params.cursor, f"given with one photograph, not with {len(parsed)}")
    photographs = [input.photographs for input in parsed]
    engine.check_room(sum(photographs), photographs.count(0))  # before there is a task for each
    default = _default_mode(engine, pair, params)
    mode = _query(params, default, None).mode

    async def of_one(input: ParsedInput) -> tuple[str, Page, Question]:
        nonlocal mode
        name, subject = await _subject(engine, pair, input, stages, paged=params.cursor is not None)
        question = _question(params, pair.store, name)
        after = cursor.read(params.cursor, question) if params.cursor is not None else None
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
            layer=pair.model.layer,
            index_version=pair.store.version_number,
            mode=mode,
            columns=params.columns,
            metric=_metric(mode, pair.store),
            results=results,
            uncalibrated=next((answer[1].uncalibrated for answer in answers if not isinstance(answer, FC7Error)), None),
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
    check_k(request, params.k)
    if params.max_distance is None:
        await engine.vector(pair.store, item_id)  # which is there
        most = await engine.read(lambda: default_distance(pair.store))
        params = params.model_copy(update={"max_distance": most})
    question = _question(params, pair.store, f"duplicates of {item_id}")
    after = cursor.read(params.cursor, question) if params.cursor is not None else None
    query = _query(params, engine.mode(pair.store, params.mode)[0], after)
    page = await engine.search(pair.store, Subject(item_id, leave_out=frozenset([item_id])), query, stages)
    return schemas.DuplicatesAnswer(
        model=pair.model.fingerprint,
        layer=pair.model.layer,
        index_version=pair.store.version_number,
        mode=query.mode,
        metric=pair.store.metric,
        id=item_id,
        max_distance=params.max_distance,
        neighbors=_neighbors(request, page),
        next=_next(page, question),
        note=page.note,
        uncalibrated=page.uncalibrated,
    )


async def _subject(engine: Engine, pair: Pair, input: ParsedInput, stages: Stages, paged: bool) -> tuple[str, Subject]:
    """What an input is about, for a page after the first where `paged`, and a text that tells it from everything else."""
    if input.like:
        return await _of_examples(engine, pair, input, stages, paged)
    if input.item is not None:
        return f"item {input.item}", Subject(input.item)
    if input.vector is not None:
        width = pair.store.width
        if len(input.vector) != width:
            raise BadValue(
                "vector", f"{len(input.vector)} numbers", f"as long as {name_of(pair.model.layer)} of this index, {width} numbers"
            )
        numbers_D = np.array(input.vector)
        for number in numbers_D[~(np.abs(numbers_D) <= _LARGEST)][:1].tolist():
            raise BadValue("vector", number, f"of numbers between -{_LARGEST:g} and {_LARGEST:g}")
        vector_D = numbers_D.astype(np.float32)
        [compared_D] = vectors_of(vector_D[None], pair.store.metric, "vector")
        return f"vector {hashlib.sha256(vector_D.tobytes()).hexdigest()}", Subject(vector_D=compared_D)
    assert input.data is not None  # noqa: S101
    if paged:
        data = input.data
        name = f"image {await engine.read(lambda: hashlib.sha256(data).hexdigest())}"
        kept_D = engine.kept_feature(pair.model, name)
        if kept_D is not None:
            return name, Subject(vector_D=kept_D, inexact=True)
    upload = await engine.decode(input.data, stages)
    feature_D = await engine.feature(pair.model, upload.photograph, stages)
    [compared_D] = vectors_of(feature_D[None], pair.store.metric, "image")
    return f"image {upload.sha256}", Subject(vector_D=compared_D, inexact=True)


async def _of_examples(engine: Engine, pair: Pair, input: ParsedInput, stages: Stages, paged: bool) -> tuple[str, Subject]:
    """As _subject, of an input that has examples."""
    examples = (*input.like, *input.unlike)
    own = frozenset(example.item for example in examples if example.item is not None)
    name = await engine.read(lambda: _name_of_examples(input)) if input.photographs else _name_of_examples(input)
    if paged and (kept_D := engine.kept_feature(pair.model, name)) is not None:
        return name, Subject(vector_D=kept_D, leave_out=own, examples=len(examples), inexact=True)

    async def vector_of(example: ParsedInput) -> Vectors:
        try:
            if example.item is not None:
                return await engine.vector(pair.store, example.item)
            vector_D = (await _subject(engine, pair, example, stages, paged=False))[1].vector_D
        except (BadImage, ImageTooLarge, BadValue, NotFound) as error:  # which are of this example alone
            error.args = (f"{example.name}: {error}",)
            raise
        assert vector_D is not None  # noqa: S101
        return vector_D

    vectors: list[Vectors] = []
    for found in await asyncio.gather(*map(vector_of, examples), return_exceptions=True):
        if isinstance(found, BaseException):
            raise found
        vectors.append(found)
    like, width = len(input.like), pair.store.width
    query_D = query_of(np.stack(vectors[:like]), np.array(vectors[like:], np.float32).reshape(-1, width))
    [compared_D] = vectors_of(query_D[None], pair.store.metric, "like")
    return name, Subject(vector_D=compared_D, leave_out=own, examples=len(examples), inexact=input.photographs > 0)


def _name_of_examples(input: ParsedInput) -> str:
    names = []
    for kind, examples in (("like", input.like), ("unlike", input.unlike)):
        for example in examples:
            if example.item is not None:
                names.append(f"{kind} item {example.item}")
            elif example.data is not None:
                names.append(f"{kind} image {hashlib.sha256(example.data).hexdigest()}")
            else:
                names.append(f"{kind} vector {hashlib.sha256(np.array(example.vector).tobytes()).hexdigest()}")
    return ", ".join(names)


def _question(params: Search | Duplicates, store: OpenStore, subject: str) -> Question:
    columns = _columns(params)
    return Question(store.fingerprint, store.metric, subject, params.filter(), params.max_distance, _radius(params), columns)


def _default_mode(engine: Engine, pair: Pair, params: Search) -> Mode:
    """The mode of a search that goes on from no cursor. Raises BadValue for columns that the network has not."""
    columns = _columns(params)
    if columns == "both":
        return engine.mode(pair.store, params.mode)[0]
    if pair.model.net.config.columns == 1:
        raise BadValue("columns", columns, "both, or left out: the network of this index has one column")
    return "exact" if params.mode is None or params.mode == "auto" else params.mode


def _query(params: Search | Duplicates, default: Mode, after: Cursor | None) -> search.Query:
    """The search in the mode of the cursor, else in the default. Raises BadValue for what does not go together."""
    if after is None:
        mode = default
        if mode == "two-stage" and params.cursor is None and params.k > MOST_GIVEN:  # more than a cursor holds
            if params.mode == mode:
                raise BadValue("k", params.k, f"at most {MOST_GIVEN} on the first page with mode={mode}")
            mode = "exact"
        return search.Query(params.k, mode, params.filter(), params.max_distance, _radius(params), columns=_columns(params))
    if params.mode not in (None, "auto", after.mode):
        raise BadValue("mode", params.mode, f"{after.mode}, as in the answer that the cursor is from, or left out")
    hit = (after.key, after.id)
    bounds = params.filter(), params.max_distance, _radius(params)
    return search.Query(params.k, after.mode, *bounds, hit, after.given, _columns(params))


def _columns(params: Search | Duplicates) -> Columns:
    return _COLUMNS[params.columns] if isinstance(params, Search) else "both"


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
    return [neighbor(request, *found) for found in page.neighbors]


def _next(page: Page, question: Question) -> str | None:
    return page.next.text(question) if page.next else None


def _metric(mode: Mode, store: OpenStore) -> Literal["euclidean", "cosine", "hamming"]:
    return "hamming" if mode in ("code", "ball") else store.metric
