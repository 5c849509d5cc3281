"""What the first layer has learned: in figures, as a picture, kernel by kernel."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from threading import Lock
from typing import Annotated, Final, Generic, Literal, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from fastapi import APIRouter, Path, Query, Request, Response
from torch import Tensor

from indexer.opening import OpenStore
from indexer.store import Item
from service import schemas
from service.engine import Engine
from service.routes import files
from service.routes.common import DescribedRoute, engine_of, links, problems, settings_of
from service.routes.common import pictures as picture_answers
from training.analysis import excitation, kernels, pictures
from training.analysis.kernels import FirstLayer, Kernel
from training.checkpoint import Model
from training.errors import NotFound
from training.images.preprocess import ImageLimits, decode

T = TypeVar("T")
_MODELS_KEPT: Final = 2
_PICTURES_KEPT: Final = 16
_PHOTOGRAPHS_SEEN: Final = 500  # so that looking takes about a second
_MOST_EXCITED: Final = 9
_BATCH: Final = 25
_UNIT_PATH: Final = "/units/conv1/{column}/{unit}"
Order = Annotated[pictures.Order, Query(description="of the kernels within each column; norm goes downwards")]
Scaling = Annotated[pictures.Scaling, Query(description="each kernel by its own largest weight, or all together by the largest")]
Channel = Annotated[pictures.Channel | None, Query(description="one channel in grey")]
Scale = Annotated[schemas.Whole, Query(ge=1, le=pictures.LARGEST_SCALE, description="pixels for each of a kernel")]
Column = Annotated[schemas.Whole, Path(ge=0, le=1, description="0 is the first GPU's", examples=[0])]
Unit = Annotated[schemas.Whole, Path(ge=0, le=1023, description="a kernel's place in its column", examples=[17])]
router = APIRouter(route_class=DescribedRoute)


@dataclass(frozen=True)
class _Conv1:
    """The first layer of the model that answers; its fingerprint tells it from others."""

    fingerprint: str
    weight_KCHW: Tensor = field(compare=False)
    columns: int = field(compare=False)


@dataclass(frozen=True)
class _Excited:
    """A photograph that excites a kernel."""

    activation: float
    item: Item
    box: tuple[int, int, int, int]  # left, top, right, bottom in the square that crops are cut from, pixels


class _Kept(Generic[T]):
    """The last results of work that is slow: a thread of the engine's does it, once however many ask together."""

    def __init__(self, thread: Literal["measure", "look"], most: int) -> None:
        self._thread, self._most = thread, most
        self._results: OrderedDict[Hashable, T] = OrderedDict()
        self._guard = Lock()

    async def result(self, engine: Engine, key: Hashable, work: Callable[[], T]) -> T:
        """What `work` gave for this key; it is kept too where whoever asked has gone meanwhile."""
        found = self._find(key)
        if found is None:
            found = await engine.slowly(self._thread, lambda: self._find(key) or self._add(key, work()))
        return found

    def _find(self, key: Hashable) -> T | None:
        with self._guard:
            if key in self._results:
                self._results.move_to_end(key)
            return self._results.get(key)

    def _add(self, key: Hashable, result: T) -> T:
        with self._guard:
            self._results[key] = result
            if len(self._results) > self._most:
                self._results.popitem(last=False)
        return result


_LAYERS: Final = _Kept[FirstLayer]("measure", _MODELS_KEPT)
_ANSWERS: Final = _Kept[bytes]("measure", _MODELS_KEPT)
_PICTURES: Final = _Kept[bytes]("measure", _PICTURES_KEPT)
_EXCITED: Final[WeakKeyDictionary[OpenStore, _Kept[tuple[_Excited, ...]]]] = WeakKeyDictionary()  # by kernel


@router.get("/filters", response_model=schemas.FiltersAnswer, responses=problems(422, 503), tags=["first layer"])
async def filters_in_figures(request: Request) -> Response:
    """The first layer's kernels in figures, beside those of white noise."""
    conv1 = _conv1_of(engine_of(request).model)
    layer = await _measured(request, conv1)
    key = conv1, settings_of(request).root_path
    body = await _ANSWERS.result(engine_of(request), key, lambda: _in_figures(request, conv1, layer).model_dump_json().encode())
    return Response(body, media_type="application/json")


def _in_figures(request: Request, conv1: _Conv1, layer: FirstLayer) -> schemas.FiltersAnswer:
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
        kernels=[_kernel_answer(request, kernel, places, corners[kernel.index]) for kernel in layer.kernels],
    )


@router.get(
    "/filters.png", response_class=Response, responses=problems(422, 503) | picture_answers("image/png"), tags=["first layer"]
)
async def filters_as_picture(
    request: Request, order: Order = "index", scaling: Scaling = "own", channel: Channel = None, scale: Scale = 5
) -> Response:
    """Figure 3 of the paper for this model: 96 kernels, those of the first GPU above, those of the second below."""
    conv1, style = _conv1_of(engine_of(request).model), pictures.Style(order, scaling, channel, scale)
    figures = () if order == "index" else (await _measured(request, conv1)).kernels

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
    conv1, style = _conv1_of(engine_of(request).model), pictures.Style(order, scaling, channel, scale)
    layer = await _measured(request, conv1)

    def draw() -> bytes:
        return pictures.figure3_svg(conv1.weight_KCHW, conv1.columns, layer.kernels, style, layer.verdict).encode()

    return files.answer(request, await _PICTURES.result(engine_of(request), (conv1, "svg", style), draw), "image/svg+xml")


@router.get(
    f"{_UNIT_PATH}.png",
    response_class=Response,
    responses=problems(404, 422, 503) | picture_answers("image/png"),
    tags=["first layer"],
)
def unit_picture(request: Request, column: Column, unit: Unit, channel: Channel = None, scale: Scale = 16) -> Response:
    """One kernel, scaled by its own largest weight."""
    conv1 = _conv1_of(engine_of(request).model)
    index = _index(conv1, column, unit)
    [tile_HWC] = pictures.tiles(conv1.weight_KCHW[index : index + 1], "own", channel)
    return files.answer(request, pictures.png(pictures.enlarged(tile_HWC, scale)), "image/png")


@router.get(
    f"{_UNIT_PATH}/spectrum.png",
    response_class=Response,
    responses=problems(404, 422, 503) | picture_answers("image/png"),
    tags=["first layer"],
)
def unit_spectrum(request: Request, column: Column, unit: Unit, scale: Scale = 3) -> Response:
    """The amplitude of its Fourier transform, frequency 0 in the middle, with rings at 0.25 and 0.5 cycles a pixel."""
    conv1 = _conv1_of(engine_of(request).model)
    spectrum = pictures.spectrum(conv1.weight_KCHW[_index(conv1, column, unit)], scale)
    return files.answer(request, pictures.png(spectrum), "image/png")


@router.get(_UNIT_PATH, responses=problems(404, 422, 503), tags=["first layer"])
async def unit(request: Request, column: Column, unit: Unit) -> schemas.UnitAnswer:
    """One first-layer kernel in figures, beside those of white noise."""
    conv1 = _conv1_of(engine_of(request).model)
    index = _index(conv1, column, unit)
    layer, places = await _measured(request, conv1), pictures.layout(conv1.weight_KCHW, conv1.columns)
    address = settings_of(request).root_path + _UNIT_PATH.format(column=column, unit=unit)
    return schemas.UnitAnswer(
        model=conv1.fingerprint,
        kernel=_kernel_answer(request, layer.kernels[index], places, places.corners()[index]),
        noise=schemas.NoiseAnswer.model_validate(layer.noise, from_attributes=True),
        picture=f"{address}.png",
        spectrum=f"{address}/spectrum.png",
    )


@router.get(f"{_UNIT_PATH}/photographs", responses=problems(404, 422, 503), tags=["first layer"])
async def unit_photographs(request: Request, column: Column, unit: Unit) -> schemas.UnitPhotographsAnswer:
    """The indexed photographs that excite a kernel most, and where in them.

    Thumbnails are looked at, enlarged to the squares that the network sees: of 256 pixels no frequency above 0.31 is in them.
    Of a large collection some are looked at, evenly spread.
    """
    engine = engine_of(request)
    pair = await engine.current.followed()
    index = _index(_conv1_of(pair.model), column, unit)
    kept = _EXCITED.setdefault(pair.store, _Kept("look", len(pair.model.net.conv1.weight)))
    found = await kept.result(engine, index, lambda: _most_excited(pair.model, pair.store, index))
    side = pair.model.net.config.square_size
    return schemas.UnitPhotographsAnswer(
        model=pair.model.fingerprint,
        index_version=pair.store.version_number,
        seen=min(len(pair.store), _PHOTOGRAPHS_SEEN),
        of=len(pair.store),
        photographs=[
            schemas.ExcitedAnswer(
                id=excited.item.id,
                label=excited.item.label,
                path=excited.item.path,
                activation=excited.activation,
                box=[place / side for place in excited.box],
                **links(request, excited.item.id),
            )
            for excited in found
        ],
    )


def _most_excited(model: Model, store: OpenStore, index: int) -> tuple[_Excited, ...]:
    ids = store.ids()
    ids = ids[np.linspace(0, len(ids) - 1, min(len(ids), _PHOTOGRAPHS_SEEN)).round().astype(np.int64)]
    side = model.net.conv1.weight.shape[-1]
    found: list[_Excited] = []
    for start in range(0, len(ids), _BATCH):
        items = store.items(ids[start : start + _BATCH].tolist())
        pixels_BCHW = torch.stack([decode(store.thumbnail(item), ImageLimits()).pixels_CHW for item in items])
        values, places = excitation.strongest(model.net, model.mean_CHW, pixels_BCHW, index)
        rows = zip(items, values.tolist(), places.tolist(), strict=True)
        found += [_Excited(value, item, (left, top, left + side, top + side)) for item, value, (top, left) in rows]
        found = sorted(found, key=lambda excited: (-excited.activation, excited.item.id))[:_MOST_EXCITED]
    return tuple(found)


def _conv1_of(model: Model) -> _Conv1:
    return _Conv1(model.fingerprint, model.net.conv1.weight, model.net.config.columns)


def _index(conv1: _Conv1, column: int, unit: int) -> int:
    """Where among all kernels that of this column and place is. Raises NotFound."""
    per_column = len(conv1.weight_KCHW) // conv1.columns
    if column >= conv1.columns or unit >= per_column:
        has = f"{conv1.columns} column(s) of {per_column} kernels"
        raise NotFound(f"conv1 has no kernel {unit} in column {column}: it has {has}, each counted from 0")
    return column * per_column + unit


def _kernel_answer(request: Request, kernel: Kernel, places: pictures.Layout, corner: tuple[int, int]) -> schemas.KernelAnswer:
    top, left = corner
    page = _UNIT_PATH.format(column=kernel.column, unit=kernel.unit)
    return schemas.KernelAnswer(
        **kernels.described(kernel),
        box=[left, top, left + places.width, top + places.height],
        page=f"{settings_of(request).root_path}/#{page}",
    )


async def _measured(request: Request, conv1: _Conv1) -> FirstLayer:
    return await _LAYERS.result(engine_of(request), conv1, lambda: kernels.first_layer(conv1.weight_KCHW, conv1.columns))
