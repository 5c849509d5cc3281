"""Measures how faithful the explanations of neighbours are: `python -m indexer.fidelity`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from pydantic_settings import SettingsConfigDict
from torch import Tensor

from indexer.arrays import Vectors
from indexer.evaluation.intervals import Resamples
from indexer.metric import Metric, distances_between, have_vectors, vectors_of
from indexer.opening import OpenStore, fitted, open_store
from indexer.search import nearness
from indexer.store import Query
from training import checkpoint
from training.analysis import deletion, occlusion
from training.analysis.occlusion import GRID, Cells, Covering, Heat
from training.checkpoint import Model
from training.errors import NotReady
from training.images.folders import Example, Part, list_examples, read_photographs
from training.images.preprocess import Photograph, decode
from training.program import Settings, machine, progress, run_program

NEAREST: Final = 10  # of which one is drawn for each photograph
_RANDOM: Final = 3  # orders of chance
_LEAST: Final = 2  # items
_MOST_COMPARED: Final = 5000  # items that a covered photograph is compared with, evenly spread
_MEASURES: Final = ("distance grown", "beyond the rest", "items nearer")
_ORDERS: Final = ("heat", "random", "centre first", "another's heat")

Curves = NDArray[np.float64]  # (orders, measures, steps)


class FidelitySettings(Settings):
    """Take away first what explanations call worth most, and see whether two neighbours part sooner than in other orders.

    Photographs that the index does not hold are explained with one of their ten nearest items, drawn by chance, as POST /explain
    does it. Then cells of 1/64 of the view are blurred, the most worthy first, in the photograph and by itself in the item. Other
    orders: at random, from the centre outwards, and by the heat of another pair, whose regions are as large and as compact.

    Figures are the mean over the steps of the curve, over both sides and all pairs: by how much the distance grows, as a share of
    the mean distance between items; the same less the growth of distances from the rest of the collection; and the share of the
    collection that is nearer than the other of the pair. Intervals of 95 % by the bootstrap over pairs.
    """

    model_config = SettingsConfigDict(cli_prog_name="python -m indexer.fidelity")

    model: Path = Field(Path("var/model"), description="model folder")
    data: Path = Field(Path("var/images"), description="image folder the photographs come from")
    index: Path = Field(Path("var/index"), description="index folder")
    part: Part = Field("test", description="part of the data set that the photographs come from")
    pairs: int = Field(100, ge=2, le=10_000, description="photographs, each with one neighbour")
    seed: int = Field(0, ge=0, description="of what is drawn by chance")


@dataclass(frozen=True)
class _Side:
    """One photograph of a pair, of which parts are covered, and the vector of the other, which stays whole."""

    view_CHW: Tensor
    other_D: Vectors
    heat_GG: Heat


@dataclass(frozen=True)
class _Collection:
    """What an index holds, to compare with."""

    vectors_ND: Vectors  # without the pair's
    rest_RD: Vectors  # a part of them
    metric: Metric
    scale: float  # mean distance between items

    def measured(self, covered_SD: Vectors, other_D: Vectors) -> NDArray[np.float64]:
        """The three measures (3, S - 1) of features of one photograph, the first of them whole."""
        distances_S = distances_between(covered_SD, other_D[None], self.metric)[:, 0]
        beyond_S = nearness.growth(covered_SD, other_D, self.rest_RD, self.metric)
        nearer_S = (distances_between(covered_SD, self.vectors_ND, self.metric) < distances_S[:, None]).mean(1)
        return np.stack([(distances_S - distances_S[0]) / self.scale, beyond_S / self.scale, nearer_S])[:, 1:]


def main(settings: FidelitySettings) -> None:
    """Prints the curves, and the margins with their intervals."""
    store = open_store(settings.index)
    model = fitted(store, checkpoint.load(settings.model))
    found = list(_of_pairs(model, store, settings))
    if len(found) < 2:
        raise NotReady(f"below {settings.data} there are no three photographs that the index does not hold")
    curves = np.stack(found)
    print(f"{table(curves)}\n\n{len(curves)} pairs, {store.metric}, on {machine()}")


def table(curves: Curves) -> str:
    """The curves (pairs, orders, measures, steps) in words: each order's means, and the heat's margins over the others."""
    steps = [f"{count / GRID**2:.0%}" for count in deletion.COUNTS]
    lines = []
    for number, measure in enumerate(_MEASURES):
        lines.append(f"{measure:16}" + "".join(f"{f'{step} gone':>10}" for step in steps) + "      mean   heat is ahead by")
        for order, name in enumerate(_ORDERS):
            own = curves[:, order, number]
            cells = "".join(f"{value:10.3f}" for value in (*own.mean(0), own.mean()))
            lines.append(f"  {name:14}{cells}" + (_margin(curves[:, 0, number] - own) if order else ""))
    return "\n".join(lines)


def _margin(ahead: NDArray[np.float64]) -> str:
    of_pairs = ahead.mean(1)
    low, high = Resamples.of(len(of_pairs)).interval(of_pairs)
    return f"   {of_pairs.mean():.3f} ({low:.3f} to {high:.3f})"


def _of_pairs(model: Model, store: OpenStore, settings: FidelitySettings) -> Iterator[Curves]:
    """The curves of each pair: (orders, measures, steps), the mean over its two sides."""
    rng = np.random.default_rng(settings.seed)
    ids = store.ids()
    if len(ids) < _LEAST:
        raise NotReady(f"the index {store.folder} holds {len(ids)} items; at least {_LEAST} are needed: others to compare with")
    ids = ids[np.linspace(0, len(ids) - 1, min(len(ids), _MOST_COMPARED)).round().astype(np.int64)]
    vectors_ND = store.vectors(ids.tolist())
    scale = float(distances_between(vectors_ND, vectors_ND[:: -(-len(ids) // 100)], store.metric).mean())
    if not scale:
        raise NotReady(f"all items that the index {store.folder} holds have the same features; no pair is nearer than others")
    examples = list_examples(settings.data, settings.part)
    most = min(settings.pairs + 1, len(examples))  # of the first only the heat is used
    before: list[Heat] = []
    new = islice(_new(model, store, settings.data, examples.take(rng.permutation(len(examples)))), most)
    for view_CHW, query_D in progress(new, most, "pairs"):
        hits = store.search(query_D[None], Query(NEAREST)).of(0)
        item = hits[int(rng.integers(len(hits)))][0]
        collection = _Collection(vectors_ND[ids != item], nearness.rest(store, [item]), store.metric, scale)
        [neighbor_D] = store.vectors([item])
        sides = [
            _Side(view, vector_D, _explained(model, view, vector_D, collection))
            for view, vector_D in ((view_CHW, neighbor_D), (_item_view(model, store, item), query_D))
        ]
        if before:
            yield np.mean([_curves(model, side, old, collection, rng) for side, old in zip(sides, before, strict=True)], 0)
        before = [side.heat_GG for side in sides]


def _explained(model: Model, view_CHW: Tensor, other_D: Vectors, collection: _Collection) -> Heat:
    cells_WGG = occlusion.windows(occlusion.SMALL)
    covered_WD = _features(model, Covering(view_CHW), cells_WGG)
    growth_W = nearness.growth(covered_WD, other_D, collection.rest_RD, collection.metric)
    return occlusion.worth(growth_W[1:], cells_WGG)


def _curves(
    model: Model,
    side: _Side,
    another_GG: Heat,
    collection: _Collection,
    rng: np.random.Generator,
) -> Curves:
    by_chance = [rng.random((GRID, GRID)) for _ in range(_RANDOM)]
    orders = [side.heat_GG, *by_chance, deletion.centre_first(), another_GG]
    covering = Covering(side.view_CHW, deletion.blurred(side.view_CHW))
    cells_SGG = np.concatenate([deletion.taken_away(worth_GG) for worth_GG in orders])
    covered_SD = _features(model, covering, cells_SGG)
    measured = collection.measured(covered_SD, side.other_D)
    heat, *random, centre, another = np.split(measured, len(orders), axis=1)
    return np.stack([heat, np.mean(random, 0), centre, another])


def _features(model: Model, covering: Covering, cells_WGG: Cells) -> Vectors:
    """Of the view as it is, and then with each set of cells covered."""
    every_WGG = np.concatenate([np.zeros((1, GRID, GRID), np.bool_), cells_WGG])
    features: Vectors = torch.cat([model.answers_of_views(x_BCHW)[0] for x_BCHW in covering.views(every_WGG)]).numpy()
    return features


def _new(model: Model, store: OpenStore, root: Path, examples: Sequence[Example]) -> Iterator[tuple[Tensor, Vectors]]:
    """Those photographs that the index does not hold: the view of each, and its vector."""
    for read in read_photographs(root, examples, store.manifest.limits):
        if isinstance(read.outcome, Photograph) and not store.holding([read.sha256]):
            view_CHW = model.view(read.outcome.pixels_CHW)
            feature_1D = model.answers_of_views(view_CHW[None])[0].numpy()
            if have_vectors(feature_1D, store.metric).all():
                yield view_CHW, vectors_of(feature_1D, store.metric)[0]


def _item_view(model: Model, store: OpenStore, item: int) -> Tensor:
    [entry] = store.items([item])
    original = store.original(entry)
    data = original if isinstance(original, bytes) else original.read_bytes()
    return model.view(decode(data, store.manifest.limits).pixels_CHW)


if __name__ == "__main__":
    run_program(FidelitySettings, main)
