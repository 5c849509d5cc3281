"""What the photographs that excite a unit have in common, of those that are still in the index.

Legend: U units of a layer, K photographs of a unit.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.arrays import Floats, Ids
from indexer.storage.atlas import Atlas, LayerAtlas


@dataclass(frozen=True, eq=False)
class LayerSelectivity:
    """The photographs of a layer's units that are there, and their labels."""

    atlas: LayerAtlas
    here_UK: NDArray[np.bool_]
    count_U: NDArray[np.int64]  # photographs that are there
    label_U: NDArray[np.int64]  # the most common label, of several that of the more exciting photograph; -1 where there is none
    share_U: Floats  # of the photographs that have it
    entropy_U: Floats  # of their labels, bits

    def places(self, unit: int) -> list[int]:
        """Where among the K the photographs that are there stand."""
        places: list[int] = np.flatnonzero(self.here_UK[unit]).tolist()
        return places


@dataclass(frozen=True, eq=False)
class Selectivity:
    """An atlas as of a state of its index."""

    atlas: Atlas
    removed: int  # photographs that it was made of and that are not there any more
    since: int  # items that came after it was made
    layers: Mapping[str, LayerSelectivity]


def selectivity(atlas: Atlas, ids_N: Ids) -> Selectivity:
    """What an atlas says of an index that now has these items, in ascending order."""
    before = int(np.searchsorted(ids_N, atlas.record.photographs))
    layers = {name: _of_layer(layer, ids_N) for name, layer in atlas.layers.items()}
    return Selectivity(atlas, atlas.record.photographs - before, len(ids_N) - before, layers)


def _of_layer(layer: LayerAtlas, ids_N: Ids) -> LayerSelectivity:
    here_UK = np.isin(layer.ids_UK, ids_N) & (layer.ids_UK >= 0)
    labels_UK = np.where(here_UK, layer.labels_UK, -1)
    alike_UK = ((labels_UK[:, :, None] == labels_UK[:, None, :]) & here_UK[:, None, :]).sum(2)
    alike_UK = np.where(here_UK, alike_UK, 0)  # photographs of the same label as this one, itself among them
    count_U = here_UK.sum(1)
    of_U = np.maximum(count_U, 1)
    most_U = alike_UK.argmax(1)
    shares_UK = np.where(here_UK, alike_UK / of_U[:, None], 1)
    entropy_U = np.abs(np.where(here_UK, np.log2(shares_UK), 0).sum(1) / of_U)
    rows = np.arange(len(labels_UK))
    return LayerSelectivity(layer, here_UK, count_U, labels_UK[rows, most_U], alike_UK[rows, most_U] / of_U, entropy_U)
