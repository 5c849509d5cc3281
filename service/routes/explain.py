"""What parts of a photograph decide: its class, and that it is near another."""

import base64
from itertools import chain
from typing import Annotated, Final

import numpy as np
from fastapi import APIRouter, Query, Request

from indexer.metric import distances_between, vectors_of
from indexer.search import nearness
from indexer.store import LARGEST_ID
from service import schemas
from service.routes import subjects
from service.routes.activations import classes
from service.routes.common import DescribedRoute, engine_of, metrics_of, problems
from service.routes.subjects import BODY, Subject, SubjectId
from service.stages import Stages
from training.analysis import occlusion, overlays, pictures
from training.analysis.occlusion import GRID, Cells, Covering, Heat
from training.checkpoint import Model
from training.errors import NotFound

_SHOWN: Final = 5  # classes that are named
router = APIRouter(route_class=DescribedRoute)


@router.post("/occlusion", responses=problems(404, 410, 413, 415, 422, 503), openapi_extra=BODY, tags=["photograph"])
async def occlude(
    request: Request,
    label: Annotated[
        str | None,
        Query(alias="class", max_length=1000, description="whose probability is looked at; left out: the most probable"),
    ] = None,
    item_id: SubjectId = None,
) -> schemas.OcclusionAnswer:
    """By how much a class's probability falls when parts of one photograph are covered with the training mean."""
    engine, stages = engine_of(request), Stages(metrics_of(request))
    with engine.long():
        subject = await subjects.read(request, item_id, stages)
        model = subject.model
        if label is not None and label not in model.classes:
            raise NotFound(f"the model has no class {label!r:.100}; GET /info names those it has")
        cells_WGG = occlusion.windows(occlusion.LARGE)
        batches = Covering(model.view(subject.pixels_CHW)).views(_with_none(cells_WGG))
        _, chances_WK = await engine_of(request).each_view(model, batches, stages)
    number = int(chances_WK[0].argmax()) if label is None else model.classes.index(label)
    chances_W = chances_WK[:, number].astype(np.float64)
    worst = int(chances_W[1:].argmin())
    best = np.argsort(-chances_WK[1 + worst], kind="stable")[:_SHOWN].tolist()
    drops_GG = occlusion.mean_changes(chances_W[0] - chances_W[1:], cells_WGG)
    return schemas.OcclusionAnswer(
        model=model.fingerprint,
        index_version=subject.index_version,
        label=model.classes[number],
        probability=float(chances_W[0]),
        lowest=float(chances_W[1 + worst]),
        classes=classes(model, [(k, float(chances_WK[1 + worst, k])) for k in best]),
        covered=_covered(model, cells_WGG[worst]),
        windows=len(cells_WGG),
        heat=await engine.form(lambda: _heat(subject, drops_GG)),
    )


@router.post("/explain", responses=problems(404, 410, 413, 415, 422, 503), openapi_extra=BODY, tags=["photograph"])
async def explain(
    request: Request,
    neighbor: Annotated[
        schemas.Whole, Query(ge=0, le=LARGEST_ID, description="the indexed photograph that the query is near", examples=[441])
    ],
    item_id: SubjectId = None,
) -> schemas.ExplainAnswer:
    """Why a photograph and an indexed one are near: which parts of either bring them together.

    Parts of one are covered with the training mean while the other is whole, and the other way round. A part is worth as much as
    the distance of the two grows by, less the mean growth of the distances from 256 items spread over the collection.
    """
    engine, stages = engine_of(request), Stages(metrics_of(request))
    engine.check_room(2)
    pair = await engine.current.followed()
    model, store = pair.model, pair.store
    with engine.long():
        input = await subjects.one_input(request, item_id)
        other = await subjects.of_item(engine, model, store, neighbor, stages)
        query = await subjects.of(engine, pair, input, stages)
        cells_WGG = _with_none(occlusion.windows(occlusion.SMALL))
        batches = chain.from_iterable(Covering(model.view(subject.pixels_CHW)).views(cells_WGG) for subject in (query, other))
        features_VD, _ = await engine.each_view(model, batches, stages)
    of_query_WD, of_neighbor_WD = np.split(features_VD, 2)
    [query_D] = vectors_of(of_query_WD[:1], store.metric, "image")
    [neighbor_D] = vectors_of(of_neighbor_WD[:1], store.metric, "neighbor")

    def heats() -> tuple[schemas.HeatAnswer, schemas.HeatAnswer]:
        rest_RD = nearness.rest(store, [subject.item for subject in (query, other) if subject.item is not None])
        of_query_W = nearness.growth(of_query_WD, neighbor_D, rest_RD, store.metric)
        of_neighbor_W = nearness.growth(of_neighbor_WD, query_D, rest_RD, store.metric)
        return (
            _heat(query, occlusion.worth(of_query_W[1:], cells_WGG[1:])),
            _heat(other, occlusion.worth(of_neighbor_W[1:], cells_WGG[1:])),
        )

    of_query, of_neighbor = await engine.slowly("look", heats)
    return schemas.ExplainAnswer(
        model=model.fingerprint,
        layer=model.layer,
        index_version=store.version_number,
        metric=store.metric,
        distance=float(distances_between(of_query_WD[:1], neighbor_D[None], store.metric)[0, 0]),
        windows=len(cells_WGG) - 1,
        query=of_query,
        neighbor=of_neighbor,
    )


def _with_none(cells_WGG: Cells) -> Cells:
    """These sets of cells, and before them the empty one."""
    return np.concatenate([np.zeros_like(cells_WGG[:1]), cells_WGG])


def _heat(subject: Subject, heat_GG: Heat) -> schemas.HeatAnswer:
    box = subject.model.view_box
    return schemas.HeatAnswer(
        name=subject.name,
        id=subject.item,
        grid=heat_GG.tolist(),
        box=list(box),
        photograph=_data_address("image/jpeg", overlays.jpeg(overlays.square(subject.pixels_CHW))),
        overlay=_data_address("image/png", pictures.png(overlays.overlay(heat_GG, box))),
    )


def _data_address(media_type: str, content: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def _covered(model: Model, cells_GG: Cells) -> list[float]:
    """The square of these cells: left, top, right and bottom as shares of the photograph's square."""
    left, top, right, bottom = model.view_box
    rows, columns = np.flatnonzero(cells_GG.any(1)), np.flatnonzero(cells_GG.any(0))
    across, down = (right - left) / GRID, (bottom - top) / GRID
    return [
        left + float(columns[0]) * across,
        top + float(rows[0]) * down,
        left + float(columns[-1] + 1) * across,
        top + float(rows[-1] + 1) * down,
    ]
