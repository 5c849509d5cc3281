"""Near-duplicates of a collection: groups of items, each linked to another of its group by a distance up to a threshold.

A group is a chain (single linkage): its ends may be farther from each other than the threshold. So each group says how far its
farthest item is from its representative, which is the largest photograph of it: the one to keep.

Legend: N items, D width of a vector.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from indexer.arrays import Floats, Ids, blocks
from indexer.grouping import near
from indexer.metric import Metric, distances_of, most_squared
from indexer.store import Item, Store
from training.errors import BadValue, NotReady
from training.program import progress


@dataclass(frozen=True)
class Threshold:
    """How far two items may be from each other to be linked."""

    metric: Metric | Literal["hamming"]  # hamming: of codes; else the index's own
    most: float


@dataclass(frozen=True)
class Group:
    """Items that are linked: the representative first, then the nearest to it first, equals by id."""

    items: list[Item]
    distances: Floats  # from the representative, by the threshold's metric

    @property
    def farthest(self) -> float:
        """How far the farthest item is from the representative."""
        return float(self.distances[-1])


def find(store: Store, threshold: Threshold) -> list[Group]:
    """All groups of two items and more, largest first, equals by the representative's id.

    Raises BadValue for a radius beyond the codes, NotFound where codes are asked for and there are none, NotReady for a store
    without items.
    """
    if threshold.metric == "hamming" and store.bits and threshold.most > store.bits:
        raise BadValue("radius", int(threshold.most), f"at most {store.bits}, the bits of a code of this index")
    ids_N = ids_of(store)
    if threshold.metric == "hamming":
        first_N = near.by_codes(store, ids_N, int(threshold.most))
    else:
        squared = most_squared(threshold.most, threshold.metric)
        first_N = near.by_distance(store, ids_N, np.inf if squared is None else squared)
    members = list(_members(ids_N, first_N))
    groups = [_group(store, threshold, ids) for ids in progress(members, len(members), "groups", "groups")]
    return sorted(groups, key=lambda group: (-len(group.items), group.items[0].id))


def ids_of(store: Store) -> Ids:
    """The ids of all items. Raises NotReady for a store without items."""
    ids_N = store.ids()
    if not len(ids_N):
        raise NotReady("the index holds no items; there is nothing to compare")
    return ids_N


def _members(ids_N: Ids, first_N: Ids) -> Iterator[Ids]:
    """The ids of each component of two rows and more."""
    order = np.argsort(first_N, kind="stable")
    starts = np.flatnonzero(np.diff(first_N[order], prepend=-1))
    return (part for part in np.split(ids_N[order], starts[1:]) if len(part) > 1)


def _group(store: Store, threshold: Threshold, ids: Ids) -> Group:
    items = store.items(ids.tolist())
    place = min(range(len(items)), key=lambda i: (-items[i].width * items[i].height, -items[i].size, items[i].id))
    parts = [_distances(store, threshold, ids[place], ids[block]) for block in blocks(len(ids))]
    distances = np.concatenate(parts)
    order: Sequence[int] = np.lexsort((ids, distances, np.arange(len(ids)) != place)).tolist()
    return Group([items[i] for i in order], distances[order])


def _distances(store: Store, threshold: Threshold, representative: int, ids: Ids) -> Floats:
    """How far items are from one, as a search says it."""
    wanted = [int(representative), *ids.tolist()]
    if threshold.metric == "hamming":
        codes_NW = store.codes(wanted)
        bits: Floats = np.bitwise_count(codes_NW[1:] ^ codes_NW[0]).sum(1, dtype=np.float64)
        return bits
    squared = near.distances(store.vectors(wanted), np.zeros(len(ids), np.int64), np.arange(1, len(wanted)))
    return distances_of(squared, threshold.metric).astype(np.float64)
