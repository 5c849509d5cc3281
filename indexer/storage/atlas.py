"""The unit atlas of an index: for each unit of every layer, the photographs that excite it most, and where in them.

Legend: U units of a layer, column 0's then column 1's; K photographs of a unit, the most exciting first.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open

from indexer.arrays import Ids, Vectors
from training.errors import Mismatch
from training.files import first_of, write_tensors

FORMAT: Final[Literal[1]] = 1
REMEDY: Final = "`python -m indexer.build --atlas`"
_TYPES: Final = {
    "ids": np.dtype(np.int64),
    "activations": np.dtype(np.float32),
    "positions": np.dtype(np.int16),
    "labels": np.dtype(np.int32),
    "active": np.dtype(np.int64),
    "mean": np.dtype(np.float32),
    "maximum": np.dtype(np.float32),
}
_OF_UNITS: Final = ("active", "mean", "maximum")
_Count = Annotated[int, Field(ge=0, le=2**53)]


class LayerRecord(BaseModel):
    """The shape of a layer in an atlas."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    columns: int = Field(ge=1, le=2)
    units: int = Field(ge=1, le=100_000)  # of a column
    side: int = Field(ge=0, le=256)  # of its maps; 0 where it has none


class AtlasRecord(BaseModel):
    """What the header of an atlas holds."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    format: Literal[1] = FORMAT
    fingerprint: str = Field(min_length=1, max_length=128)  # of the model
    photographs: _Count  # that were looked at; their ids are below it
    kept: int = Field(ge=1, le=1000)  # photographs of a unit at most
    labels: list[str]  # of the photographs that are kept
    layers: dict[str, LayerRecord]  # from the image on


@dataclass(frozen=True, eq=False)
class LayerAtlas:
    """What excites the units of a layer."""

    ids_UK: Ids  # equal activations by id; -1 where fewer photographs excite a unit
    activations_UK: Vectors
    positions_UK: NDArray[np.int16] | None  # in the unit's map, row by row; None where the layer has no maps
    labels_UK: NDArray[np.int32]  # by their places in Atlas.labels; -1 where the id is
    active_U: NDArray[np.int64]  # photographs that excite it above 0
    mean_U: Vectors  # of what each photograph excites it to at most
    maximum_U: Vectors


@dataclass(frozen=True, eq=False)
class Atlas:
    """What excites the units of every layer, as of the build."""

    record: AtlasRecord
    layers: Mapping[str, LayerAtlas]


def save(atlas: Atlas, path: Path) -> None:
    """Writes a safetensors file."""
    tensors = {}
    for name, layer in atlas.layers.items():
        for kind in _TYPES:
            array = _array(layer, kind)
            if array is not None:
                tensors[f"{name}.{kind}"] = torch.from_numpy(array)
    write_tensors(path, tensors, {"atlas": atlas.record.model_dump_json()})


def load(path: Path, fingerprint: str, next_id: int) -> Atlas:
    """Reads what `save` wrote, for an index of this model and of ids below `next_id`.

    Raises Mismatch, naming the file, where it is damaged, of another model or something else.
    """
    try:
        with safe_open(path, "numpy") as file:
            record = _record(path, (file.metadata() or {}).get("atlas", "{}"))
            if record.fingerprint != fingerprint:
                raise Mismatch(
                    f"{path} is of the model {record.fingerprint[:12]}, the index of {fingerprint[:12]}; {REMEDY} makes it anew"
                )
            if record.photographs > next_id:
                raise Mismatch(f"{path} is of {record.photographs} photographs, the index has given {next_id} ids")
            expected = _shapes(record)
            if set(file.keys()) != set(expected):
                raise Mismatch(f"{path} has other arrays than its header names; {REMEDY} makes it anew")
            for name, shape in expected.items():
                entry = file.get_slice(name)
                if tuple(entry.get_shape()) != shape:
                    raise Mismatch(f"{name} of {path} has the shape {tuple(entry.get_shape())}, expected {shape}")
            arrays = {name: file.get_tensor(name) for name in expected}
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError) as error:
        raise Mismatch(f"{path} is not an atlas of units, or a damaged one: {error}; {REMEDY} makes it anew") from error
    for name, array in arrays.items():
        if array.dtype != _TYPES[name.rpartition(".")[2]]:
            raise Mismatch(f"{name} of {path} is {array.dtype}, expected {_TYPES[name.rpartition('.')[2]]}")
    layers = {}
    for name in record.layers:
        layers[name] = _layer({kind: arrays.get(f"{name}.{kind}") for kind in _TYPES})
        _check(f"{name} of {path}", layers[name], record, record.layers[name])
    return Atlas(record, layers)


def _layer(arrays: Mapping[str, Any]) -> LayerAtlas:
    return LayerAtlas(*(arrays[kind] for kind in _TYPES))


def _array(layer: LayerAtlas, kind: str) -> NDArray[np.generic] | None:
    array: NDArray[np.generic] | None = getattr(layer, f"{kind}_{'U' if kind in _OF_UNITS else 'UK'}")
    return array


def _record(path: Path, text: str) -> AtlasRecord:
    try:
        return AtlasRecord.model_validate_json(text)
    except ValidationError as error:
        raise Mismatch(
            f"{path} is not an atlas of units, or of another format: {first_of(error)}; {REMEDY} makes it anew"
        ) from error


def _shapes(record: AtlasRecord) -> dict[str, tuple[int, ...]]:
    """The shape of every array of the file."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, layer in record.layers.items():
        units = layer.columns * layer.units
        for kind in _TYPES:
            if kind != "positions" or layer.side:
                shapes[f"{name}.{kind}"] = (units,) if kind in _OF_UNITS else (units, record.kept)
    return shapes


def _check(what: str, layer: LayerAtlas, record: AtlasRecord, shape: LayerRecord) -> None:
    """Raises Mismatch for values that no build writes."""
    here_UK = layer.ids_UK >= 0
    wrong = [
        *["ids out of bounds"] * bool(((layer.ids_UK < -1) | (layer.ids_UK >= record.photographs)).any()),
        *["ids behind none"] * bool((here_UK[:, 1:] & ~here_UK[:, :-1]).any()),
        *["labels out of bounds"]
        * bool(((layer.labels_UK < 0) == here_UK).any() or (layer.labels_UK >= len(record.labels)).any()),
        *["activations that are not finite"]
        * (not all(np.isfinite(a).all() for a in (layer.activations_UK, layer.mean_U, layer.maximum_U))),
        *["counts out of bounds"] * bool(((layer.active_U < 0) | (layer.active_U > record.photographs)).any()),
    ]
    later, earlier = layer.activations_UK[:, 1:], layer.activations_UK[:, :-1]
    rises = (later > earlier) | ((later == earlier) & (layer.ids_UK[:, 1:] <= layer.ids_UK[:, :-1]))
    wrong += ["photographs out of order"] * bool((rises & here_UK[:, 1:]).any())
    if layer.positions_UK is not None:
        outside = (layer.positions_UK < 0) | (layer.positions_UK >= shape.side**2)
        wrong += ["positions outside the maps"] * bool(outside.any())
    if wrong:
        raise Mismatch(f"{what} has {wrong[0]}; {REMEDY} makes it anew")
