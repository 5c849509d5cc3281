"""What the first layer has learned: in figures, and as a picture. Its kernels one by one are among the units."""

from dataclasses import dataclass, field
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response
from torch import Tensor

from service import schemas
from service.routes import files
from service.routes.common import DescribedRoute, engine_of, problems, settings_of
from service.routes.common import pictures as picture_answers
from service.routes.kept import Kept
from training.analysis import kernels, pictures
from training.analysis.kernels import FirstLayer, Kernel
from training.checkpoint import Model

_MODELS_KEPT: Final = 2
_PICTURES_KEPT: Final = 16
KERNEL_PATH: Final = "/units/conv1/{column}/{unit}"
Order = Annotated[pictures.Order, Query(description="of the kernels within each column; norm goes downwards")]
Scaling = Annotated[pictures.Scaling, Query(description="each kernel by its own largest weight, or all together by the largest")]
Channel = Annotated[pictures.Channel | None, Query(description="one channel in grey")]
Scale = Annotated[schemas.Whole, Query(ge=1, le=pictures.LARGEST_SCALE, description="pixels for each of a kernel")]
router = APIRouter(route_class=DescribedRoute)


@dataclass(frozen=True)
class Conv1:
    """The first layer of the model that answers; its fingerprint tells it from others."""

    fingerprint: str
    weight_KCHW: Tensor = field(compare=False)
    columns: int = field(compare=False)


_LAYERS: Final = Kept[FirstLayer]("measure", _MODELS_KEPT)
_ANSWERS: Final = Kept[bytes]("measure", _MODELS_KEPT)
_PICTURES: Final = Kept[bytes]("measure", _PICTURES_KEPT)


@router.get("/filters", response_model=schemas.FiltersAnswer, responses=problems(422, 503), tags=["first layer"])
async def filters_in_figures(request: Request) -> Response:
    """The first layer's kernels in figures, beside those of white noise."""
    conv1 = conv1_of(engine_of(request).model)
    layer = await measured(request, conv1)
    key = conv1, settings_of(request).root_path
    body = await _ANSWERS.result(engine_of(request), key, lambda: _in_figures(request, conv1, layer).model_dump_json().encode())
    return Response(body, media_type="application/json")


def _in_figures(request: Request, conv1: Conv1, layer: FirstLayer) -> schemas.FiltersAnswer:
    places = pictures.layout(conv1.weight_KCHW, conv1.columns)
    height, width = places.size()
    corners = places.corners()
    return schemas.FiltersAnswer(
        model=conv1.fingerprint,
        shape=list(conv1.weight_KCHW.shape),
        verdict=layer.verdict,
        noise_like=layer.noise_like,
        size=[width, height],
        columns=[schemas.SummaryAnswer.model_validate(column, from_attributes=True) for column in layer.columns],
        whole=schemas.SummaryAnswer.model_validate(layer.whole, from_attributes=True),
        noise=schemas.NoiseAnswer.model_validate(layer.noise, from_attributes=True),
        kernels=[kernel_answer(request, kernel, places, corners[kernel.index]) for kernel in layer.kernels],
    )


@router.get(
    "/filters.png", response_class=Response, responses=problems(422, 503) | picture_answers("image/png"), tags=["first layer"]
)
async def filters_as_picture(
    request: Request, order: Order = "index", scaling: Scaling = "own", channel: Channel = None, scale: Scale = 5
) -> Response:
    """Figure 3 of the paper for this model: 96 kernels, those of the first GPU above, those of the second below."""
    conv1, style = conv1_of(engine_of(request).model), pictures.Style(order, scaling, channel, scale)
    figures = () if order == "index" else (await measured(request, conv1)).kernels

    def draw() -> bytes:
        return pictures.png(pictures.figure3(conv1.weight_KCHW, conv1.columns, figures, style))

    return files.answer(request, await _PICTURES.result(engine_of(request), (conv1, "png", style), draw), "image/png")


@router.get(
    "/filters.svg",
    response_class=Response,
    responses=problems(422, 503) | picture_answers("image/svg+xml"),
    tags=["first layer"],
)
async def filters_as_drawing(
    request: Request, order: Order = "index", scaling: Scaling = "own", channel: Channel = None, scale: Scale = 5
) -> Response:
    """The same as SVG; each kernel has its index as title."""
    conv1, style = conv1_of(engine_of(request).model), pictures.Style(order, scaling, channel, scale)
    layer = await measured(request, conv1)

    def draw() -> bytes:
        return pictures.figure3_svg(conv1.weight_KCHW, conv1.columns, layer.kernels, style, layer.verdict).encode()

    return files.answer(request, await _PICTURES.result(engine_of(request), (conv1, "svg", style), draw), "image/svg+xml")


def conv1_of(model: Model) -> Conv1:
    """The first layer of a model."""
    return Conv1(model.fingerprint, model.net.conv1.weight, model.net.config.columns)


def kernel_answer(request: Request, kernel: Kernel, places: pictures.Layout, corner: tuple[int, int]) -> schemas.KernelAnswer:
    """A kernel in figures, which stands at this corner of figure 3."""
    top, left = corner
    page = KERNEL_PATH.format(column=kernel.column, unit=kernel.unit)
    return schemas.KernelAnswer(
        **kernels.described(kernel),
        box=[left, top, left + places.width, top + places.height],
        page=f"{settings_of(request).root_path}/#{page}",
    )


async def measured(request: Request, conv1: Conv1) -> FirstLayer:
    """The figures of all kernels, which take seconds the first time."""
    return await _LAYERS.result(engine_of(request), conv1, lambda: kernels.first_layer(conv1.weight_KCHW, conv1.columns))
