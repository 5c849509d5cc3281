"""The map of a collection: where its items lie on a plane, as a build leaves it among the files of a version.

Legend: N items on the map.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open

from indexer.arrays import Ids
from indexer.storage import artifact
from indexer.storage.artifact import WithManifest
from training.errors import Mismatch, NotFound
from training.files import first_of, write_tensors

FORMAT: Final[Literal[1]] = 1
LARGEST: Final = 2**16 - 1  # that a coordinate can be
REMEDY: Final = "`python -m indexer.build --map`"
_DESCRIPTION: Final = "map"
_UNREADABLE: Final = (SafetensorError, OSError, TypeError, AttributeError)  # the last two of numbers that NumPy has not
_OURS: Final = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
_Share = Annotated[float, Field(ge=0, le=1)]
_Count = Annotated[int, Field(ge=0, le=2**53)]

Places = NDArray[np.uint16]  # (N, 2): x to the right, y upwards, both from 0 to LARGEST by one scale
Numbers = NDArray[np.int32]  # (N,): of labels


class LayoutReport(BaseModel):
    """What made a map, and how true it is to the distances of the features."""

    model_config = _OURS

    format: Literal[1] = FORMAT
    fingerprint: str = Field(min_length=1, max_length=128)  # of the model that made the features
    method: Literal["t-SNE", "principal components"]
    library: str = Field("", max_length=100)  # with its version
    parameters: dict[str, _Count]
    seconds: float = Field(ge=0)
    sampled: _Count  # items that the next two are measured on, each among all
    neighbors: _Count  # of each; 0 where there are too few items to measure
    trustworthiness: _Share  # 1: no item is a neighbour on the map that is far away by features (Venna and Kaski 2001)
    neighbor_recall: _Share  # of the neighbours by features, those that are neighbours on the map
    labels: list[Annotated[str, Field(max_length=4096)]]  # commonest first, equals by name; "" for none


@dataclass(frozen=True, eq=False)
class Layout:
    """A map."""

    ids_N: Ids  # ascending
    places_N2: Places
    numbers_N: Numbers  # of each item's label among report.labels
    report: LayoutReport


def write(path: Path, layout: Layout) -> None:
    """Writes a safetensors file, whose metadata hold the report."""
    arrays = {"ids": layout.ids_N, "places": layout.places_N2, "numbers": layout.numbers_N}
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    write_tensors(path, tensors, {_DESCRIPTION: layout.report.model_dump_json()})


def has_layout(store: WithManifest) -> bool:
    """Whether a version was built with a map."""
    return artifact.MAP in store.manifest.files


def read(store: WithManifest) -> Layout:
    """The map of a version. Raises NotFound where it was built without one, Mismatch where the file is damaged or another's."""
    if not has_layout(store):
        raise NotFound(f"this index has no map; {REMEDY} makes one")
    path = store.folder / artifact.MAP
    try:
        with safe_open(path, "numpy") as file:
            report = LayoutReport.model_validate_json((file.metadata() or {}).get(_DESCRIPTION, ""))
            ids_N, places_N2, numbers_N = (file.get_tensor(name) for name in ("ids", "places", "numbers"))
    except ValidationError as error:
        raise Mismatch(f"{path} is not a map, or of another program: {first_of(error)}; {REMEDY} makes it anew") from error
    except _UNREADABLE as error:
        raise Mismatch(f"{path} is not a map, or a damaged one: {error}; {REMEDY} makes it anew") from error
    layout = Layout(ids_N, places_N2, numbers_N, report)
    if wrong := _wrong(layout, store):
        raise Mismatch(f"{path} {wrong}; {REMEDY} makes it anew")
    return layout


def _wrong(layout: Layout, store: WithManifest) -> str | None:
    """Which of a map's parts do not go together, or not with the version; None where all do."""
    ids_N, places_N2, numbers_N, report = layout.ids_N, layout.places_N2, layout.numbers_N, layout.report
    if report.fingerprint != store.manifest.fingerprint:
        return f"is of the model {report.fingerprint[:12]}, the index of {store.manifest.fingerprint[:12]}"
    kinds = ", ".join(str(array.dtype) for array in (ids_N, places_N2, numbers_N))
    if kinds != "int64, uint16, int32":
        return f"holds {kinds}, not int64, uint16, int32"
    shapes = (ids_N.shape, places_N2.shape, numbers_N.shape)
    if ids_N.ndim != 1 or shapes != (ids_N.shape, (*ids_N.shape, 2), ids_N.shape):
        return f"holds ids, places and labels of {shapes}, which are not of the same items"
    if not len(ids_N) or (ids_N[1:] <= ids_N[:-1]).any() or ids_N[0] < 0 or ids_N[-1] >= store.manifest.next_id:
        return f"has ids that do not rise from 0 on and below {store.manifest.next_id}"
    if numbers_N.min() < 0 or numbers_N.max() >= len(report.labels) or len(set(report.labels)) != len(report.labels):
        return f"has labels beyond the {len(report.labels)} that it names, or names one twice"
    return None
