"""The units of every layer: what excites them most, by the atlas of the index, and the first layer's kernels one by one."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Final
from weakref import WeakKeyDictionary

import numpy as np
from fastapi import APIRouter, Path, Query, Request, Response
from numpy.typing import NDArray

from indexer.analysis.selectivity import LayerSelectivity, Selectivity, selectivity
from indexer.arrays import Floats
from indexer.opening import OpenStore
from indexer.storage.atlas import REMEDY, Atlas
from indexer.store import Item
from service import schemas
from service.engine import Engine
from service.routes import crops, files
from service.routes.common import DescribedRoute, as_json, engine_of, indexed, links, problems, settings_of
from service.routes.common import pictures as picture_answers
from service.routes.crops import Crop, Picture
from service.routes.kept import Kept
from service.routes.layers import KERNEL_PATH, Channel, Scale, conv1_of, kernel_answer, measured
from training.analysis import pictures
from training.analysis.units import field as field_of
from training.checkpoint import Model
from training.errors import Mismatch, NotFound, NotReady
from training.images.preprocess import SIZE

_SELECTIVE: Final = 6  # of a layer's units that are named
_SHEETS_KEPT: Final = 512
_SQUARES_KEPT: Final = 64  # 0.2 MB each
_TILE: Final = 72  # pixels of a sheet
_UNIT_PATH: Final = "/units/{layer}/{column}/{unit}"
LayerName = Annotated[schemas.Layer, Path(description="from the image on: conv1 to conv5, fc6 to fc8", examples=["conv5"])]
Column = Annotated[schemas.Whole, Path(ge=0, le=1, description="0 is the first GPU's", examples=[0])]
Unit = Annotated[schemas.Whole, Path(ge=0, le=99_999, description="a unit's place in its column", examples=[17])]
Kernel = Annotated[schemas.Whole, Path(ge=0, le=1023, description="a kernel's place in its column", examples=[17])]
Place = Annotated[schemas.Whole, Path(ge=0, le=999, description="of a photograph among the unit's, from 0", examples=[0])]
Order = Annotated[
    schemas.UnitOrder,
    Query(description="selectivity: first those whose photographs have the fewest labels; active, maximum: first the largest"),
]
router = APIRouter(route_class=DescribedRoute)


@dataclass(frozen=True, eq=False)
class _Seen:
    """What is kept of a store: nothing of it outlives the store, and with it the items that are there."""

    state: Kept[Selectivity] = field(default_factory=lambda: Kept("look", 1))
    sheets: Kept[bytes] = field(default_factory=lambda: Kept("look", _SHEETS_KEPT))
    squares: Kept[Picture] = field(default_factory=lambda: Kept("look", _SQUARES_KEPT))


_SEEN: Final[WeakKeyDictionary[OpenStore, _Seen]] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class _Units:
    """A model, the index, and what its atlas says of the items that are there."""

    model: Model
    store: OpenStore
    seen: _Seen
    now: Selectivity

    def index(self, layer: schemas.Layer, column: int, unit: int) -> int:
        """Where in its layer a unit is. Raises NotFound."""
        return _index(self.model, layer, column, unit)

    def crop(self, layer: schemas.Layer, index: int, place: int, item: Item) -> Crop:
        """What a unit sees of the photograph that has this place among the K of the atlas."""
        positions_UK = self.now.layers[layer].atlas.positions_UK
        box = field_of(self.model.net.config, layer, 0 if positions_UK is None else int(positions_UK[index, place]))
        left, top, right, bottom = (edge * SIZE // self.model.net.config.square_size for edge in box)
        return Crop(item, (left, top, right, bottom))

    def crops(self, layer: schemas.Layer, index: int) -> list[tuple[int, Crop]]:
        """Those of all photographs that are there, each with its place among the K."""
        of_layer = self.now.layers[layer]
        places = of_layer.places(index)
        items = indexed(self.store, of_layer.atlas.ids_UK[index, places].tolist())
        return [(place, self.crop(layer, index, place, item)) for place, item in zip(places, items, strict=True) if item]


@router.get("/units", response_model=schemas.UnitsAnswer, responses=problems(422, 503), tags=["units"])
async def layers(request: Request) -> Response:
    """The layers with their columns and units; with an atlas, those of their units whose photographs have most in common."""
    engine = engine_of(request)
    model = engine.model
    try:
        units = await _units(engine)
    except (NotFound, NotReady) as error:
        store = await _store(engine)
        return as_json(
            schemas.UnitsAnswer(
                model=model.fingerprint,
                index_version=store.version_number if store else None,
                atlas=None,
                note=str(error),
                layers=[_layer(request, model, name, None) for name in model.units],
            )
        )

    def answer() -> Response:
        return as_json(
            schemas.UnitsAnswer(
                model=units.model.fingerprint,
                index_version=units.store.version_number,
                atlas=_atlas(units.now),
                note=None,
                layers=[_layer(request, units.model, name, units.now) for name in units.model.units],
            )
        )

    return await engine.form(answer)


@router.get("/units/{layer}/{column}", response_model=schemas.UnitListAnswer, responses=problems(404, 422, 503), tags=["units"])
async def units_of_column(
    request: Request,
    layer: LayerName,
    column: Column,
    order: Order = "index",
    start: Annotated[schemas.Whole, Query(ge=0, le=99_999, description="units to leave out")] = 0,
    k: Annotated[schemas.Whole, Query(ge=1, le=200, description="units at most")] = 48,
) -> Response:
    """The units of a column, some at a time, each with what its photographs have in common."""
    engine = engine_of(request)
    units = await _units(engine)
    count = units.model.units[layer].units
    first = units.index(layer, column, 0)
    of_layer = units.now.layers[layer]

    def answer() -> Response:
        ordered = first + np.argsort(_keys(of_layer, order)[first : first + count], kind="stable")
        shown = ordered[start : start + k].tolist()
        return as_json(
            schemas.UnitListAnswer(
                model=units.model.fingerprint,
                index_version=units.store.version_number,
                layer=layer,
                column=column,
                order=order,
                atlas=_atlas(units.now),
                units=[_activity(request, units.model, layer, units.now, index) for index in shown],
                of=count,
                next=start + k if start + k < count else None,
            )
        )

    return await engine.form(answer)


@router.get(
    f"{KERNEL_PATH}.png",
    response_class=Response,
    responses=problems(404, 422, 503) | picture_answers("image/png"),
    tags=["units"],
)
def kernel_picture(request: Request, column: Column, unit: Kernel, channel: Channel = None, scale: Scale = 16) -> Response:
    """One kernel of the first layer, scaled by its own largest weight."""
    model = engine_of(request).model
    index = _index(model, "conv1", column, unit)
    [tile_HWC] = pictures.tiles(model.net.conv1.weight[index : index + 1], "own", channel)
    return files.answer(request, pictures.png(pictures.enlarged(tile_HWC, scale)), "image/png")


@router.get(
    f"{KERNEL_PATH}/spectrum.png",
    response_class=Response,
    responses=problems(404, 422, 503) | picture_answers("image/png"),
    tags=["units"],
)
def kernel_spectrum(request: Request, column: Column, unit: Kernel, scale: Scale = 3) -> Response:
    """The amplitude of its Fourier transform, frequency 0 in the middle, with rings at 0.25 and 0.5 cycles a pixel."""
    model = engine_of(request).model
    spectrum = pictures.spectrum(model.net.conv1.weight[_index(model, "conv1", column, unit)], scale)
    return files.answer(request, pictures.png(spectrum), "image/png")


@router.get(_UNIT_PATH, responses=problems(404, 422, 503), tags=["units"])
async def unit(request: Request, layer: LayerName, column: Column, unit: Unit) -> schemas.UnitAnswer:
    """One unit: the indexed photographs that excite it most, and of conv1 its kernel in figures, beside those of white noise.

    Without an atlas the answer is 404, but of conv1 it is the kernel alone.
    """
    engine = engine_of(request)
    _index(engine.model, layer, column, unit)
    units, note = None, None
    try:
        units = await _units(engine)
    except (NotFound, NotReady) as error:
        if layer != "conv1":
            raise
        note = str(error)
    model = units.model if units else engine.model
    store = units.store if units else await _store(engine)
    index = _index(model, layer, column, unit)
    answer = schemas.UnitAnswer(
        model=model.fingerprint,
        index_version=store.version_number if store else None,
        layer=layer,
        column=column,
        unit=unit,
        atlas=_atlas(units.now) if units else None,
        note=note,
        activity=_activity(request, model, layer, units.now, index) if units else None,
        photographs=await engine.form(lambda: _photographs(request, units, layer, column, unit)) if units else [],
        kernel=None,
        noise=None,
        picture=None,
        spectrum=None,
    )
    return await _with_kernel(request, model, answer, index) if layer == "conv1" else answer


@router.get(
    f"{_UNIT_PATH}/crops.jpg",
    response_class=Response,
    responses=problems(404, 422, 503) | picture_answers("image/jpeg"),
    tags=["units"],
)
async def unit_crops(
    request: Request,
    layer: LayerName,
    column: Column,
    unit: Unit,
    across: Annotated[schemas.Whole, Query(ge=1, le=4, description="crops beside each other, and below each other")] = 3,
) -> Response:
    """What a unit sees in the photographs that excite it most, in one picture, the best at the top left."""
    units = await _units(engine_of(request))
    index = units.index(layer, column, unit)
    square = _square_of(request, units)

    def draw() -> bytes:
        return crops.sheet([crop for _, crop in units.crops(layer, index)], across, _TILE, square)

    sheet = await units.seen.sheets.result(engine_of(request), (layer, index, across), draw)
    return files.answer(request, sheet, "image/jpeg")


@router.get(
    f"{_UNIT_PATH}/photographs/{{place}}.png",
    response_class=Response,
    responses=problems(404, 422, 503) | picture_answers("image/png"),
    tags=["units"],
)
async def unit_photograph(request: Request, layer: LayerName, column: Column, unit: Unit, place: Place) -> Response:
    """What a unit sees in one of the photographs that excite it most, as the network saw it: cut from the photograph's own file.

    Where the file is not there any more it is cut from the thumbnail. Small crops are enlarged, each pixel a square.
    """
    units = await _units(engine_of(request))
    index = units.index(layer, column, unit)
    limits = settings_of(request).limits()

    def cut() -> bytes:
        found = dict(units.crops(layer, index))
        if place not in found:
            raise NotFound(f"unit {unit} of column {column} of {layer} has no photograph {place} that is still in the index")
        crop = found[place]
        square = units.seen.squares.on_thread(crop.item.id, lambda: crops.square(units.store, crop.item, limits))
        return crops.as_png(square, crop.box)

    picture = await units.seen.sheets.result(engine_of(request), (layer, index, "photograph", place), cut)
    return files.answer(request, picture, "image/png")


def _square_of(request: Request, units: _Units) -> Callable[[Crop], Picture]:
    """Where a crop is cut from: the thumbnail has enough of large ones."""
    limits = settings_of(request).limits()

    def square(crop: Crop) -> Picture:
        if crop.box[2] - crop.box[0] >= crops.THUMBNAIL_DOES:
            return crops.thumbnail_square(units.store, crop.item)
        return units.seen.squares.on_thread(crop.item.id, lambda: crops.square(units.store, crop.item, limits))

    return square


async def _units(engine: Engine) -> _Units:
    """The atlas of the index that answers. Raises NotFound where it has none, NotReady where no index answers."""
    pair = await engine.current.followed()
    atlas = pair.store.atlas
    if atlas is None:
        raise NotFound(f"this index has no atlas of its units; {REMEDY} makes one")
    seen = _SEEN.setdefault(pair.store, _Seen())
    now = await seen.state.result(engine, "state", lambda: selectivity(_fitting(atlas, pair.model), pair.store.ids()))
    return _Units(pair.model, pair.store, seen, now)


def _fitting(atlas: Atlas, model: Model) -> Atlas:
    """The atlas. Raises Mismatch where it has other layers than the model."""
    for name, shape in model.units.items():
        record = atlas.record.layers.get(name)
        if not record or (record.columns, record.units, record.side) != (shape.columns, shape.units, shape.side):
            raise Mismatch(f"the atlas of the index has another {name} than the model; {REMEDY} makes it anew")
    return atlas


async def _store(engine: Engine) -> OpenStore | None:
    try:
        return (await engine.current.followed()).store
    except NotReady:
        return None


def _index(model: Model, layer: schemas.Layer, column: int, unit: int) -> int:
    """Where among all units of a layer that of this column and place is. Raises NotFound."""
    shape = model.units[layer]
    if column >= shape.columns or unit >= shape.units:
        what = "kernel" if layer == "conv1" else "unit"
        has = f"{shape.columns} column(s) of {shape.units} {what}s"
        raise NotFound(f"{layer} has no {what} {unit} in column {column}: it has {has}, each counted from 0")
    return column * shape.units + unit


def _keys(of_layer: LayerSelectivity, order: schemas.UnitOrder) -> Floats:
    """What units are ordered by, the least first; those without photographs are the last but by index."""
    match order:
        case "index":
            keys = np.zeros(len(of_layer.count_U))
        case "selectivity":
            keys = np.where(of_layer.count_U > 0, of_layer.entropy_U - of_layer.count_U * 1e-6, np.inf)
        case "active":
            keys = -of_layer.atlas.active_U.astype(np.float64)
        case "maximum":
            keys = -of_layer.atlas.maximum_U.astype(np.float64)
    return keys


def _atlas(now: Selectivity) -> schemas.AtlasInfo:
    record = now.atlas.record
    return schemas.AtlasInfo(photographs=record.photographs, kept=record.kept, removed=now.removed, since=now.since)


def _layer(request: Request, model: Model, layer: schemas.Layer, now: Selectivity | None) -> schemas.LayerUnits:
    shape, config = model.units[layer], model.net.config
    left, _, right, _ = field_of(config, layer, shape.side // 2 * (shape.side + 1))
    most: list[int] = []
    least: list[int] = []
    if now:
        keys = _keys(now.layers[layer], "selectivity")
        ordered = np.argsort(keys, kind="stable")
        ordered = ordered[np.isfinite(keys[ordered])]
        most, least = ordered[:_SELECTIVE].tolist(), ordered[_SELECTIVE:][::-1][:_SELECTIVE].tolist()
    return schemas.LayerUnits(
        layer=layer,
        columns=shape.columns,
        units=shape.units,
        side=shape.side,
        field=right - left,
        square=config.square_size,
        nonlinearity=None if layer == "fc8" else config.nonlinearity,
        dead=int(_dead(now.layers[layer], layer).sum()) if now else None,
        most_selective=[_activity(request, model, layer, now, index) for index in most] if now else [],
        least_selective=[_activity(request, model, layer, now, index) for index in least] if now else [],
    )


def _dead(of_layer: LayerSelectivity, layer: schemas.Layer) -> NDArray[np.bool_]:
    dead_U: NDArray[np.bool_] = (of_layer.atlas.active_U == 0) & (layer != "fc8")
    return dead_U


def _activity(request: Request, model: Model, layer: schemas.Layer, now: Selectivity, index: int) -> schemas.UnitActivity:
    of_layer, record = now.layers[layer], now.atlas.record
    column, unit = divmod(index, model.units[layer].units)
    label = int(of_layer.label_U[index])
    path, root = _UNIT_PATH.format(layer=layer, column=column, unit=unit), settings_of(request).root_path
    return schemas.UnitActivity(
        column=column,
        unit=unit,
        stands_for=model.classes[unit] if layer == "fc8" else None,
        dead=bool(_dead(of_layer, layer)[index]),
        active=float(of_layer.atlas.active_U[index]) / record.photographs,
        mean=float(of_layer.atlas.mean_U[index]),
        maximum=float(of_layer.atlas.maximum_U[index]),
        photographs=int(of_layer.count_U[index]),
        label=record.labels[label] if label >= 0 else None,
        label_share=float(of_layer.share_U[index]),
        label_entropy=float(of_layer.entropy_U[index]),
        crops=f"{root}{path}/crops.jpg",
        page=f"{root}/#{path}",
    )


def _photographs(request: Request, units: _Units, layer: schemas.Layer, column: int, unit: int) -> list[schemas.ExcitedAnswer]:
    index = units.index(layer, column, unit)
    activations_K = units.now.layers[layer].atlas.activations_UK[index]
    path = settings_of(request).root_path + _UNIT_PATH.format(layer=layer, column=column, unit=unit)
    return [
        schemas.ExcitedAnswer(
            id=crop.item.id,
            label=crop.item.label,
            path=crop.item.path,
            activation=float(activations_K[place]),
            box=[edge / SIZE for edge in crop.box],
            crop=f"{path}/photographs/{place}.png",
            **links(request, crop.item.id),
        )
        for place, crop in units.crops(layer, index)
    ]


async def _with_kernel(request: Request, model: Model, answer: schemas.UnitAnswer, index: int) -> schemas.UnitAnswer:
    """The answer with the figures of a kernel of the first layer."""
    conv1 = conv1_of(model)
    layer, places = await measured(request, conv1), pictures.layout(conv1.weight_KCHW, conv1.columns)
    address = settings_of(request).root_path + KERNEL_PATH.format(column=answer.column, unit=answer.unit)
    return answer.model_copy(
        update={
            "kernel": kernel_answer(request, layer.kernels[index], places, places.corners()[index]),
            "noise": schemas.NoiseAnswer.model_validate(layer.noise, from_attributes=True),
            "picture": f"{address}.png",
            "spectrum": f"{address}/spectrum.png",
        }
    )
