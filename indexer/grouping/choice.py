"""The threshold for near-duplicates where nobody gives one: from the distances in the index itself, whatever model made it.

Precision comes first. The threshold is below the distance at which more than WRONG of the photographs would be linked to one
that shows something else, which their thumbnails tell (alike.py). So chains of links cannot run through a collection: all but
WRONG of it have no wrong link to be chained by. Nor is it larger than copies need: ENOUGH of those that are made of some of the
photographs (copies.py) are within it. That asks for the model; without it the first rule stands alone.
"""

from dataclasses import dataclass
from functools import lru_cache
from heapq import heapify, heappop, heappush
from typing import Final

import numpy as np

from indexer.arrays import blocks
from indexer.grouping import alike, copies
from indexer.grouping.alike import Look
from indexer.grouping.groups import Threshold, ids_of
from indexer.store import Query, Store
from training.checkpoint import Model
from training.images.preprocess import ImageLimits
from training.program import progress

WRONG: Final = 0.01  # of the photographs may be linked to one that shows something else
ENOUGH: Final = 0.99  # of the copies
SAMPLE: Final = 1000  # photographs whose neighbours are looked at
COPIED: Final = 50  # photographs that are copied in every way
_NEIGHBORS: Final = 8  # of each: as many copies of one photograph are seen through
_QUERIES: Final = 128  # searched for together


@dataclass(frozen=True)
class Choice:
    """A threshold, and how it was chosen, in a sentence."""

    threshold: Threshold
    how: str


@dataclass(frozen=True)
class _Limit:
    """The largest distance at which at most `allowed` of `looked` photographs are linked to one that shows something else."""

    most: float
    allowed: int
    looked: int


def choose(store: Store, model: Model | None, limits: ImageLimits) -> Choice:
    """The default threshold of a store, by its metric. Raises NotReady for a store without items."""
    limit = _limit(store)
    if model is None:
        return Choice(Threshold(store.metric, limit.most), _by(limit))
    ids_N = np.random.default_rng(1).permutation(ids_of(store))[:COPIED]
    apart = copies.distances(store, model, store.items(np.sort(ids_N).tolist()), limits)
    need = float(np.quantile(np.concatenate(list(apart.values())), ENOUGH, method="higher"))
    most = min(limit.most, need)
    reached = ", ".join(f"{name} {np.mean(distances_N <= most):.0%}" for name, distances_N in apart.items())
    how = f"{_by(limit)}, but no larger than {ENOUGH:.0%} of copies ask for" if need <= limit.most else _by(limit)
    return Choice(Threshold(store.metric, most), f"{how}; of copies of {len(ids_N)} photographs it reaches: {reached}")


def _by(limit: _Limit) -> str:
    return (
        f"chosen so that at most {WRONG:.0%} are linked to one that shows something else, which is {limit.allowed} of "
        f"{limit.looked} photographs looked at"
    )


def _limit(store: Store) -> _Limit:
    ids_N = ids_of(store)
    chosen: list[int] = np.sort(np.random.default_rng(0).permutation(ids_N)[:SAMPLE]).tolist()
    neighbors: list[list[tuple[float, int]]] = []
    steps = list(blocks(len(chosen), _QUERIES))
    for block in progress(steps, len(steps), "nearest neighbours", "blocks"):
        hits = store.search(store.vectors(chosen[block]), Query(1 + _NEIGHBORS))
        neighbors += [
            [(distance, item) for item, distance, _ in hits.of(i) if item != own] for i, own in enumerate(chosen[block])
        ]

    @lru_cache(maxsize=2 * SAMPLE)
    def look(item: int) -> Look:
        return alike.look_of(store.thumbnail(store.items([item])[0]))

    allowed, wrong, most = int(WRONG * len(chosen)), 0, 0.0
    waiting = [(*those[0], number, 0) for number, those in enumerate(neighbors) if those]
    heapify(waiting)
    while waiting:  # nearest pairs first; one of copies leads to the photograph's next neighbour
        most, item, number, place = heappop(waiting)
        if alike.correlation(look(chosen[number]), look(item)) >= alike.ALIKE:
            if place + 1 < len(neighbors[number]):
                heappush(waiting, (*neighbors[number][place + 1], number, place + 1))
            continue
        wrong += 1
        if wrong > allowed:
            return _Limit(max(0.0, float(np.nextafter(np.float32(most), np.float32(-1)))), allowed, len(chosen))
    return _Limit(most, allowed, len(chosen))
