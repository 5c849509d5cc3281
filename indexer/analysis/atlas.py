"""Blocks of activations -> the unit atlas: of all photographs, those that excite each unit most.

Legend: N photographs of a block, U units of a layer, K photographs kept of a unit, C the two together that are chosen among.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from indexer.arrays import Vectors
from indexer.features import FeatureBlock
from indexer.storage.atlas import Atlas, AtlasRecord, LayerAtlas, LayerRecord
from indexer.store import normalised

KEPT: Final = 16  # photographs of a unit


class AtlasMaker:
    """Takes blocks in order of id and keeps, of each unit, the photographs that excite it most; equal ones by id.

    A photograph that does not excite a unit above 0 is none of its photographs, but for units of the last layer, which has no
    nonlinearity. Memory is that of a block.
    """

    def __init__(self, fingerprint: str, layers: Mapping[str, LayerRecord]) -> None:
        """Begins without a photograph, for the layers of a model, from the image on."""
        self._fingerprint = fingerprint
        self._layers = {name: _LayerMaker(record, any_sign=name == list(layers)[-1]) for name, record in layers.items()}
        self._labels: list[int] = []  # of every photograph
        self._names: dict[str, int] = {}

    def take(self, block: FeatureBlock) -> None:
        """Adds the photographs of a block, with the ids that follow."""
        assert block.activations  # noqa: S101  extraction was told to keep them
        first, start, map_start = len(self._labels), 0, 0
        self._labels += [self._names.setdefault(normalised(file.label), len(self._names)) for file in block.files]
        for layer in self._layers.values():
            values_NU = block.activations.values_NU[:, start : start + layer.count]
            start += layer.count
            positions_NU = None
            if layer.record.side:
                positions_NU = block.activations.positions_NM[:, map_start : map_start + layer.count]
                map_start += layer.count
            layer.take(values_NU, positions_NU, first)

    def atlas(self) -> Atlas:
        """What the blocks taken so far come to."""
        labels_N = np.array([*self._labels, -1], np.int32)  # where an id is -1, so is the label
        record = AtlasRecord(
            fingerprint=self._fingerprint,
            photographs=len(self._labels),
            kept=KEPT,
            labels=list(self._names),
            layers={name: layer.record for name, layer in self._layers.items()},
        )
        return Atlas(record, {name: layer.layer(labels_N) for name, layer in self._layers.items()})


class _LayerMaker:
    """The same for one layer."""

    def __init__(self, record: LayerRecord, any_sign: bool) -> None:
        self.record, self.count, self._any_sign = record, record.columns * record.units, any_sign
        self._values_UK = torch.full((self.count, KEPT), -torch.inf)
        self._ids_UK = torch.full((self.count, KEPT), -1, dtype=torch.int64)
        self._positions_UK = torch.zeros((self.count, KEPT), dtype=torch.int16)
        self._active_U = np.zeros(self.count, np.int64)
        self._sums_U = np.zeros(self.count)
        self._maximum_U = np.full(self.count, -np.inf, np.float32)
        self._photographs = 0

    def take(self, values_NU: Vectors, positions_NU: NDArray[np.int16] | None, first: int) -> None:
        """Adds photographs whose ids begin with `first`."""
        if not len(values_NU):
            return
        self._photographs += len(values_NU)
        self._active_U += (values_NU > 0).sum(0)
        self._sums_U += values_NU.sum(0, dtype=np.float64)
        self._maximum_U = np.maximum(self._maximum_U, values_NU.max(0))
        values_UN = torch.from_numpy(np.ascontiguousarray(values_NU.T))
        if not self._any_sign:
            values_UN = values_UN.masked_fill(values_UN <= 0, -torch.inf)
        values_UC = torch.cat([self._values_UK, values_UN], 1)
        chosen_UK = _keys(values_UC).topk(KEPT, 1).indices
        self._values_UK = values_UC.gather(1, chosen_UK)
        ids_UN = torch.arange(first, first + len(values_NU)).expand(self.count, -1)
        self._ids_UK = torch.cat([self._ids_UK, ids_UN], 1).gather(1, chosen_UK).masked_fill(self._values_UK == -torch.inf, -1)
        if positions_NU is not None:
            positions_UN = torch.from_numpy(np.ascontiguousarray(positions_NU.T))
            self._positions_UK = torch.cat([self._positions_UK, positions_UN], 1).gather(1, chosen_UK)

    def layer(self, labels_N: NDArray[np.int32]) -> LayerAtlas:
        """What the photographs so far come to; `labels_N` are theirs, with -1 behind them."""
        ids_UK = self._ids_UK.numpy()
        none_UK = ids_UK < 0
        return LayerAtlas(
            ids_UK,
            np.where(none_UK, np.float32(0), self._values_UK.numpy()),
            np.where(none_UK, np.int16(0), self._positions_UK.numpy()) if self.record.side else None,
            labels_N[ids_UK],
            self._active_U,
            (self._sums_U / max(1, self._photographs)).astype(np.float32),
            self._maximum_U,
        )


def _keys(values_UC: torch.Tensor) -> torch.Tensor:
    """Numbers, no two alike in a row, in the order of float32 values; of equal values the first has the largest: int64 (U, C)."""
    bits_UC = (values_UC + 0.0).view(torch.int32)  # so that -0.0 is 0.0
    order_UC = torch.where(bits_UC >= 0, bits_UC, bits_UC ^ 0x7FFFFFFF).to(torch.int64)
    columns = values_UC.shape[1]
    return (order_UC << 32) + torch.arange(columns - 1, -1, -1)
