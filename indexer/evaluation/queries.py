"""What an evaluation compares: photographs to query with, and what the index holds.

Legend: N database, Q queries, D feature width, P raw pixels (32 x 32 RGB), L colours (4 x 4 x 4), B batch, K neighbours.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import compress, groupby, islice
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from indexer.arrays import Ids, Labels, Rows, Vectors
from indexer.features import RAW_SIZE, SHADES, colour_histogram, raw_pixels
from indexer.index import Index
from indexer.metric import Metric, have_vectors, vectors_of
from indexer.opening import OpenStore
from indexer.storage.originals import folder_of
from indexer.store import Hits, Item
from training.checkpoint import FeatureLayer, Model, name_of
from training.errors import FC7Error, NotReady
from training.images.folders import Example, ReadResult, read_photographs
from training.images.preprocess import ImageLimits, Photograph
from training.program import progress

_BATCH: Final = 64


@dataclass(frozen=True)
class Others:
    """Networks whose features are compared with the index's."""

    untrained: Model | None = None
    layers: Sequence[Model] = ()  # the trained one, by other layers


@dataclass(frozen=True)
class Plain:
    """Photographs by other means than the trained network, a row each."""

    pixels_NP: Vectors  # 0..255
    colours_NL: (
        Vectors  # histogram of 64 colours: square roots of shares, so that Euclidean distance is Hellinger's times sqrt(2)
    )
    untrained_ND: Vectors | None  # FC7 of the network with the weights that a run begins with, where it is asked for
    layers: dict[FeatureLayer, Vectors] = field(default_factory=dict)  # features of other layers of the trained network


@dataclass(frozen=True)
class Database:
    """What queries are compared with: everything that an index holds, row by row in order of id."""

    ids_N: Ids
    items: list[Item]
    labels_N: Labels
    metric: Metric
    vectors_ND: Vectors  # as the metric has them; a memory map where the index is one segment on disk
    plain: Plain

    def rows(self, hits: Hits) -> Rows:
        """The rows of hits, int64 (Q, K), -1 where there is none."""
        return np.where(hits.ids_QK < 0, -1, np.searchsorted(self.ids_N, hits.ids_QK))


@dataclass(frozen=True)
class Queries:
    """Photographs that are new to an index."""

    sha256s: list[str]
    labels_Q: Labels
    predictions_Q: Labels  # the classes that the network thinks most probable
    features_QD: Vectors
    plain: Plain


def read_database(store: OpenStore, others: Others) -> Database:
    """Everything that a store holds, its photographs read again. Raises FC7Error for one that is gone."""
    ids_N = store.ids()
    if not len(ids_N):
        raise NotReady(f"the index {store.folder} holds no items; there is nothing to compare queries with")
    items = store.items(ids_N.tolist())
    labels_N = np.array([item.label for item in items])
    return Database(ids_N, items, labels_N, store.metric, _vectors(store, ids_N), _plain(_photographs(store, items), others))


def read_queries(
    model: Model, others: Others, database: Database, root: Path, examples: Sequence[Example], limits: ImageLimits
) -> Queries:
    """Reads examples and computes their features, as the metric has them.

    Left out are photographs that the index holds, copies, labels that it has not, and features that its metric has not. Raises
    NotReady where none is left.
    """
    reads = progress(read_photographs(root, examples, limits), len(examples), f"{name_of(model.layer)} features of queries")
    new = _new(reads, {item.sha256 for item in database.items}, set(database.labels_N.tolist()))
    hashes: list[str] = []
    own: list[str] = []
    predictions: list[str] = []
    features: list[Vectors] = []

    def batches() -> Iterator[Tensor]:
        while batch := list(islice(new, _BATCH)):
            pixels_BCHW = torch.stack([photograph.pixels_CHW for _, photograph in batch])
            features_BD, chances_BK = model.answers(list(pixels_BCHW), [1] * len(pixels_BCHW))
            usable_B = have_vectors(features_BD.numpy(), database.metric)
            if not usable_B.any():
                continue
            batch = list(compress(batch, usable_B))
            pixels_BCHW, features_BD = pixels_BCHW[usable_B], features_BD[usable_B]
            predictions.extend(model.classes[best] for best in chances_BK[usable_B].argmax(1))
            hashes.extend(read.sha256 for read, _ in batch)
            own.extend(read.example.label for read, _ in batch)
            features.append(vectors_of(features_BD.numpy(), database.metric))
            yield pixels_BCHW

    plain = _plain(batches(), others)
    if not hashes:
        raise NotReady(
            f"below {root} there is no photograph with a label of the index that it does not hold; queries must be new to it"
        )
    return Queries(hashes, np.array(own), np.array(predictions), np.concatenate(features), plain)


def _new(reads: Iterable[ReadResult], known: set[str], labels: set[str]) -> Iterator[tuple[ReadResult, Photograph]]:
    for read in reads:
        if isinstance(read.outcome, Photograph) and read.sha256 not in known and read.example.label in labels:
            known.add(read.sha256)
            yield read, read.outcome


def _vectors(store: OpenStore, ids_N: Ids) -> Vectors:
    if isinstance(store, Index) and len(store.version.segments) == 1 and not len(store.version.deleted):
        return store.version.segments[0].vectors_ND
    return store.vectors(ids_N.tolist())


def _plain(batches: Iterable[Tensor], others: Others) -> Plain:
    pixels, colours, features = [np.empty((0, 3 * RAW_SIZE**2), np.float32)], [np.empty((0, SHADES**3), np.float32)], []
    of_layers: dict[FeatureLayer, list[Vectors]] = {model.layer: [] for model in others.layers}
    for pixels_BCHW in batches:
        pixels.append(raw_pixels(pixels_BCHW).astype(np.float32))
        colours.append(colour_histogram(pixels_BCHW))
        if others.untrained:
            features.append(others.untrained.features(pixels_BCHW).numpy())
        for model in others.layers:
            of_layers[model.layer].append(model.features(pixels_BCHW).numpy())
    layers = {layer: np.concatenate(parts) for layer, parts in of_layers.items() if parts}
    return Plain(np.concatenate(pixels), np.concatenate(colours), np.concatenate(features) if features else None, layers)


def _photographs(store: OpenStore, items: Sequence[Item]) -> Iterator[Tensor]:
    """The photographs of items, uint8 (B, 3, 256, 256)."""
    limits = store.manifest.limits
    for recorded, group in groupby(items, lambda item: item.root):
        root = folder_of(store.folder.parents[1], recorded)
        examples = [Example(item.path, "") for item in group]
        reads = iter(progress(read_photographs(root, examples, limits), len(examples), "indexed photographs"))
        while batch := list(islice(reads, _BATCH)):
            yield torch.stack([_photograph(root, read).pixels_CHW for read in batch])


def _photograph(root: Path, read: ReadResult) -> Photograph:
    if not isinstance(read.outcome, Photograph):
        raise FC7Error(f"{root}/{read.example.path} was indexed and does not decode any more: {read.outcome}")
    return read.outcome
