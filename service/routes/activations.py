"""A photograph seen through the network: the maps of each layer, and the ten views with what each alone says."""

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from service import schemas
from service.engine import Best
from service.routes import subjects
from service.routes.common import DescribedRoute, engine_of, metrics_of, problems
from service.routes.common import pictures as picture_answers
from service.routes.subjects import BODY, Subject, SubjectId
from service.stages import Stages
from training.analysis import activations, overlays, pictures
from training.analysis.activations import Activity, MapLayer, Maps, Mosaic, Scaling
from training.checkpoint import Model
from training.errors import NotFound
from training.images.preprocess import TEN_VIEWS, Photograph

MapsOf = Annotated[MapLayer, Query(description="after its nonlinearity, before LRN and pooling")]
router = APIRouter(route_class=DescribedRoute)


@router.post("/activations", responses=problems(404, 410, 413, 415, 422, 503), openapi_extra=BODY, tags=["photograph"])
async def activations_in_figures(
    request: Request,
    layer: MapsOf = "conv1",
    top: Annotated[schemas.Whole, Query(ge=1, le=100, description="units to name in each column, the strongest first")] = 8,
    item_id: SubjectId = None,
) -> schemas.ActivationsAnswer:
    """What the units of a layer say of one photograph's centre view, column by column."""
    subject = await subjects.read(request, item_id, Stages(metrics_of(request)))
    columns = await _maps(request, subject, layer)
    found = await engine_of(request).read(lambda: [activations.activity(maps_UHW, top) for maps_UHW in columns])
    return schemas.ActivationsAnswer(
        model=subject.model.fingerprint,
        layer=layer,
        index_version=subject.index_version,
        name=subject.name,
        columns=[
            _column(number, column, Mosaic.of(maps_UHW, layer, 1))
            for number, (column, maps_UHW) in enumerate(zip(found, columns, strict=True))
        ],
    )


@router.post(
    "/activations.png",
    response_class=Response,
    responses=problems(404, 410, 413, 415, 422, 503) | picture_answers("image/png"),
    openapi_extra=BODY,
    tags=["photograph"],
)
async def activations_as_picture(
    request: Request,
    layer: MapsOf = "conv1",
    column: Annotated[schemas.Whole, Query(ge=0, le=1, description="0 is the first GPU's")] = 0,
    scaling: Annotated[Scaling, Query(description="each map by its own largest value, or all together by the largest")] = "own",
    scale: Annotated[schemas.Whole, Query(ge=1, le=activations.LARGEST_SCALE, description="pixels for each of a map")] = 1,
    item_id: SubjectId = None,
) -> Response:
    """The maps of all units of one column, unit by unit: black is 0, white the largest. fc6 and fc7 are one pixel a unit."""
    subject = await subjects.read(request, item_id, Stages(metrics_of(request)))
    columns = await _maps(request, subject, layer)
    if column >= len(columns):
        raise NotFound(f"the model has no column {column}: it has {len(columns)}, counted from 0")

    def draw() -> bytes:
        maps_UHW = columns[column]
        return pictures.png(activations.mosaic(maps_UHW, Mosaic.of(maps_UHW, layer, scale), scaling))

    return Response(await engine_of(request).form(draw), media_type="image/png")


@router.post("/views", responses=problems(404, 410, 413, 415, 422, 503), openapi_extra=BODY, tags=["photograph"])
async def views(
    request: Request,
    top: Annotated[schemas.Whole, Query(ge=1, le=1000, description="classes to name, most probable first")] = 3,
    item_id: SubjectId = None,
) -> schemas.ViewsAnswer:
    """The classes of one photograph by each of the paper's ten views alone, and by their mean."""
    stages = Stages(metrics_of(request))
    subject = await subjects.read(request, item_id, stages)
    model, size = subject.model, subject.model.net.config.input_size
    photograph = Photograph(subject.pixels_CHW, "", 0, 0)
    mean, *of_views = await engine_of(request).classify(model, photograph, len(TEN_VIEWS), top, stages)
    return schemas.ViewsAnswer(
        model=model.fingerprint,
        index_version=subject.index_version,
        name=subject.name,
        classes=classes(model, mean),
        views=[
            schemas.ViewAnswer(
                corner=corner, mirrored=mirrored, classes=classes(model, best), box=list(overlays.crop_box(number, size))
            )
            for number, ((corner, mirrored), best) in enumerate(zip(TEN_VIEWS, of_views, strict=True))
        ],
    )


@router.post(
    "/views.png",
    response_class=Response,
    responses=problems(404, 410, 413, 415, 422, 503) | picture_answers("image/png"),
    openapi_extra=BODY,
    tags=["photograph"],
)
async def views_as_picture(request: Request, item_id: SubjectId = None) -> Response:
    """The ten views as the network gets them: corners and centre from left to right, and below each its mirror image."""
    subject = await subjects.read(request, item_id, Stages(metrics_of(request)))
    config = subject.model.net.config

    def draw() -> bytes:
        return pictures.png(overlays.ten_crops(subject.pixels_CHW, config.input_size, config.square_size))

    return Response(await engine_of(request).form(draw), media_type="image/png")


def classes(model: Model, best: Best) -> list[schemas.ClassProbability]:
    """Classes and their probabilities, by name."""
    return [schemas.ClassProbability(label=model.classes[number], probability=chance) for number, chance in best]


async def _maps(request: Request, subject: Subject, layer: MapLayer) -> list[Maps]:
    model = subject.model
    return await engine_of(request).network(lambda: activations.activations(model.net, model.view(subject.pixels_CHW), layer))


def _column(number: int, column: Activity, places: Mosaic) -> schemas.ColumnActivityAnswer:
    height, width = places.size
    return schemas.ColumnActivityAnswer(
        column=number,
        units=column.units,
        side=column.side,
        mean=column.mean,
        active=column.active,
        silent=column.silent,
        size=[width, height],
        strongest=[schemas.UnitActivityAnswer(**asdict(unit), box=list(places.box(unit.unit))) for unit in column.strongest],
    )
