"""What the units of a layer say of one photograph: their maps, how strong they are, and all of them as a picture.

Legend: U units, C channels (RGB), H height, W width.
"""

import threading
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from training.network.alexnet import AlexNet

MapLayer = Literal["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7"]
Scaling = Literal["own", "together"]
MAP_LAYERS: Final[tuple[MapLayer, ...]] = get_args(MapLayer)
LARGEST_SCALE: Final = 4
GAP: Final = 1  # pixels between two maps; units of one value stand side by side
_PER_ROW: Final = {"conv": 16, "fc": 64}
_GREY: Final = 96  # between the maps

Maps = NDArray[np.float32]


@dataclass(frozen=True)
class UnitActivity:
    """What one unit says of a photograph."""

    unit: int  # its place in its column
    largest: float
    mean: float
    active: float  # share of its map above 0
    peak: tuple[int, int]  # row and column of the largest, in the map; the first of equals


@dataclass(frozen=True)
class Activity:
    """What the units of one column of a layer say of a photograph."""

    units: int
    side: int  # height and width of a map; 1 where the layer is fully connected
    mean: float
    active: float  # share of all values above 0
    silent: int  # units that are nowhere above 0
    strongest: list[UnitActivity]  # by the largest value, downwards; equals by unit


@torch.inference_mode()
def activations(net: AlexNet, x_CHW: Tensor, layer: MapLayer) -> list[Maps]:
    """The maps of each column for one view, float32 (U, H, W), after the nonlinearity and before LRN and pooling.

    With `conv1_nonlinearity_last`, too, conv1 is looked at before pooling. Units of fc6 and fc7 have maps of 1 x 1.
    """
    found: list[Tensor] = []
    here = threading.get_ident()

    def look(_layer: nn.Module, _input: Any, sums: Tensor) -> None:
        if threading.get_ident() == here:  # another thread's pass of the same network is none of ours
            found.append(net.activate(sums).float())

    with net.get_submodule(layer).register_forward_hook(look):
        net.features(x_CHW[None].contiguous(memory_format=torch.channels_last))
    [maps_UHW] = found[0].view(1, found[0].shape[1], *(found[0].shape[2:] or (1, 1)))
    return [column_UHW.contiguous().numpy() for column_UHW in maps_UHW.chunk(net.here)]


def activity(maps_UHW: Maps, top: int) -> Activity:
    """What one column says of a photograph, and its `top` strongest units."""
    flat_UX = maps_UHW.reshape(len(maps_UHW), -1)
    largest_U, active_U = flat_UX.max(1), (flat_UX > 0).mean(1)
    side = maps_UHW.shape[2]
    strongest = np.argsort(-largest_U, kind="stable")[:top]
    at_U = flat_UX.argmax(1)
    return Activity(
        units=len(maps_UHW),
        side=side,
        mean=float(flat_UX.mean()),
        active=float(active_U.mean()),
        silent=int((largest_U <= 0).sum()),
        strongest=[
            UnitActivity(
                unit=int(unit),
                largest=float(largest_U[unit]),
                mean=float(flat_UX[unit].mean()),
                active=float(active_U[unit]),
                peak=divmod(int(at_U[unit]), side),
            )
            for unit in strongest
        ],
    )


@dataclass(frozen=True)
class Mosaic:
    """Where the maps of a column stand in its picture, left to right and top to bottom."""

    units: int
    side: int  # of a map
    per_row: int
    scale: int  # pixels of the picture for each of a map

    @classmethod
    def of(cls, maps_UHW: Maps, layer: MapLayer, scale: int) -> "Mosaic":
        """That of a column of a layer."""
        return cls(len(maps_UHW), maps_UHW.shape[2], _PER_ROW[layer[:-1]], scale)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, pixels."""
        rows, across = -(-self.units // self.per_row), min(self.units, self.per_row)
        return rows * self._step + self._gap, across * self._step + self._gap

    def box(self, unit: int) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of a unit's map, pixels."""
        left, top = (self._gap + place * self._step for place in (unit % self.per_row, unit // self.per_row))
        edge = self.side * self.scale
        return left, top, left + edge, top + edge

    @property
    def _gap(self) -> int:
        return 0 if self.side == 1 else GAP

    @property
    def _step(self) -> int:
        return self.side * self.scale + self._gap


def mosaic(maps_UHW: Maps, places: Mosaic, scaling: Scaling) -> Image.Image:
    """The maps of a column as a picture: black is 0 and what is below, white the largest, of each map or of all together."""
    own_U = maps_UHW.max((1, 2))
    largest_U = own_U if scaling == "own" else np.full_like(own_U, own_U.max())
    shares_UHW = maps_UHW / np.maximum(largest_U, np.finfo(np.float32).tiny)[:, None, None]
    pixels_UHW = (shares_UHW.clip(0, 1) * 255).round().astype(np.uint8)
    canvas = np.full(places.size, _GREY, np.uint8)
    for unit, tile in enumerate(pixels_UHW.repeat(places.scale, 1).repeat(places.scale, 2)):
        left, top, right, bottom = places.box(unit)
        canvas[top:bottom, left:right] = tile
    return Image.fromarray(canvas)
