"""Measures what FC7, its code and its neighbours ignore: `python -m training.invariance --model DIR --data DIR --out DIR`."""

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict
from torch import Tensor
from tqdm import tqdm

from indexer.opening import OpenStore, open_store
from indexer.search.others import other_items
from indexer.storage import artifact
from indexer.storage.version import load_autoencoder
from indexer.store import Query
from training import checkpoint
from training.analysis import curves, invariance, invariance_report
from training.analysis.invariance import Features, Floats, Ids, K, Measure, Space
from training.analysis.invariance_report import InvarianceRecord, Networks
from training.analysis.perturbations import POINTS, Variant, colour_step, variants
from training.checkpoint import Model
from training.errors import NotReady
from training.files import exclusively, replacing
from training.images.folders import Example, Part, list_examples, read_photographs
from training.images.prefetch import ahead
from training.images.preprocess import ImageLimits, Photograph, centre_view
from training.images.statistics import Statistics
from training.program import Settings, commit, keep_freed_memory, machine, progress, run_program

REPORT: Final = "report.json"
TABLE: Final = "report.md"
BATCH: Final = 64
_PICTURED: Final[tuple[Measure, ...]] = ("share", "angle", "bits", "overlap")
_LOOKED_AT: Final = 32  # photographs, for what LRN adds


class InvarianceSettings(Settings):
    """Measure how far FC7, its code and its ten neighbours move under gain, bias, colour, mirror, shift, scale, turn, JPEG, blur.

    Every photograph, as the square of 256 pixels before the crop, is compared with itself unperturbed. Beside each move stands
    how far different photographs of a class, and of different classes, are from each other. OUT gets report.json, report.md and
    a picture for every measure.

    With --index the features are of the index's layer, the neighbours among its items and the codes its own; the index keeps the
    report for the service and its page. Without one, features are FC7, and neighbours among the photographs themselves.

    --beside measures other networks on the same photographs, and the difference, paired: for instance networks trained without
    LRN by the same recipe and seeds. To leave LRN out of a network that was trained with it would show nothing but that: what
    follows was trained on normalised values. Several models, a,b,c, are taken as seeds of one recipe.
    """

    model_config = SettingsConfigDict(cli_prog_name="python -m training.invariance")

    model: tuple[Path, ...] = Field((Path("var/model"),), min_length=1, max_length=100, description="model folders")
    data: Path = Field(Path("var/images"), description="image folder, or one photograph")
    part: Part = Field("test", description="part of the data set to measure on")
    out: Path = Field(Path("var/invariance"), description="folder for report and pictures")
    index: Path | None = Field(None, description="index folder, made with the model")
    beside: tuple[Path, ...] = Field((), max_length=100, description="model folders to measure beside, as many as models")
    photographs: int = Field(200, ge=1, le=500, description="how many photographs, drawn at random")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="of the photographs drawn, and of their colour noise")

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if self.beside and len(self.beside) != len(self.model):
            raise ValueError(f"beside must name as many folders as model, {len(self.model)}, got {len(self.beside)}")
        if self.index and (len(self.model) > 1 or self.beside):
            raise ValueError("index goes with one model alone: it was made with one")
        return self


@dataclass(frozen=True)
class _Collection:
    """The photographs that are measured."""

    pixels: list[Tensor]  # uint8 (3, 256, 256) each
    labels: list[str]
    sha256s: list[str]
    covariance_33: NDArray[np.float64]  # of their red, green and blue

    def without(self, numbers: Sequence[int]) -> Self:
        """All but some of them."""
        kept = [i for i in range(len(self.pixels)) if i not in set(numbers)]
        return replace(
            self,
            pixels=[self.pixels[i] for i in kept],
            labels=[self.labels[i] for i in kept],
            sha256s=[self.sha256s[i] for i in kept],
        )

    def batches(self) -> Iterator[Tensor]:
        """Their squares, uint8 (B, 3, 256, 256)."""
        for start in range(0, len(self.pixels), BATCH):
            yield torch.stack(self.pixels[start : start + BATCH])


@dataclass(frozen=True)
class _Network:
    """One network, its features of the photographs, and what they are compared in."""

    model: Model
    features_ND: Features
    space: Space


def main(settings: InvarianceSettings) -> None:
    """Measures, prints where the results are, and writes them."""
    keep_freed_memory()
    began = time.monotonic()
    with exclusively(settings.out):
        store = open_store(settings.index) if settings.index else None
        models = [checkpoint.load(folder) for folder in (*settings.model, *settings.beside)]
        if store:
            models = [model.at(store.manifest.layer) for model in models]
            artifact.check_pair(store, models[0].fingerprint, models[0].width)
        collection = _read(settings)
        features = [_features(model, collection) for model in models]
        zeros = sorted({i for features_ND in features for i in np.flatnonzero(~features_ND.any(1)).tolist()})
        if zeros:
            tqdm.write(f"left out {len(zeros)} photographs whose feature is zero in every component")
            features = [np.delete(features_ND, zeros, 0) for features_ND in features]
            collection = collection.without(zeros)
        if not collection.pixels:
            raise NotReady(f"no photograph of the part {settings.part!r} of {settings.data} has a feature that can be compared")
        spaces = [_space(features_ND, collection, store) for features_ND in features]
        networks = [_Network(*row) for row in zip(models, features, spaces, strict=True)]
        record = _record(settings, collection, networks, store)
        _write(settings, record.model_copy(update={"seconds": round(time.monotonic() - began, 1)}))


def _read(settings: InvarianceSettings) -> _Collection:
    """Some photographs, drawn at random. Raises NotReady where none can be read."""
    if settings.data.is_file():
        root, examples = settings.data.parent, [Example(settings.data.name, "")]
    else:
        root, listed = settings.data, list_examples(settings.data, settings.part)
        drawn = np.random.default_rng(settings.seed).permutation(len(listed))[: settings.photographs]
        examples = [listed[i] for i in sorted(drawn.tolist())]
    statistics = Statistics()
    collection = _Collection([], [], [], np.empty((3, 3)))
    for read in progress(read_photographs(root, examples, ImageLimits()), len(examples), "reading"):
        if isinstance(read.outcome, Photograph):
            collection.pixels.append(read.outcome.pixels_CHW)
            collection.labels.append(read.example.label)
            collection.sha256s.append(read.sha256)
            statistics.add(read.outcome.pixels_CHW)
        else:
            tqdm.write(f"left out {read.example.shown}: {read.outcome}")
    if not collection.pixels:
        raise NotReady(f"no photograph of {settings.data} can be read")
    return replace(collection, covariance_33=statistics.covariance_33)


def _features(model: Model, collection: _Collection) -> Features:
    return np.concatenate([model.features(pixels_BCHW).numpy() for pixels_BCHW in collection.batches()])


def _space(features_ND: Features, collection: _Collection, store: OpenStore | None) -> Space:
    if store is None:
        others = len(features_ND) - 1
        return Space(neighbors=_among(features_ND) if others > K else None)
    autoencoder = load_autoencoder(store.folder, store.manifest)
    neighbors = _neighbors_in(store, collection.sha256s) if len(store) > K + 1 else None
    return Space(autoencoder.encode if autoencoder else None, neighbors)


def _among(features_ND: Features) -> Callable[[Features, int], Ids]:
    return lambda queries_QD, number: invariance.nearest(features_ND, queries_QD, number)


def _neighbors_in(store: OpenStore, sha256s: Sequence[str]) -> Callable[[Features, int], Ids]:
    """The ten nearest items of a store by exact search, without the photograph itself where it is an item."""
    own = store.holding(sha256s)
    return lambda queries_QD, number: other_items(store, queries_QD, Query(K), own.get(sha256s[number]))


def _record(
    settings: InvarianceSettings, collection: _Collection, networks: Sequence[_Network], store: OpenStore | None
) -> InvarianceRecord:
    count = len(settings.model)
    moves, clipped_P = _measured(settings, collection, networks)
    groups: list[Networks] = []
    shares: list[Mapping[Measure, Floats]] = []
    for start in range(0, len(networks), count):
        group, found = networks[start : start + count], moves[start : start + count]
        of_all = [network.space.distances(network.features_ND, collection.labels) for network in group]
        distances = {measure: invariance.mean_distances([one[measure] for one in of_all]) for measure in of_all[0]}
        measures: dict[Measure, Floats] = {measure: np.stack([one[measure] for one in found]) for measure in found[0]}
        if "share" in distances:
            units = np.array([one["l2"].other for one in of_all])
            measures["share"] = measures["l2"] / units[:, None, None]
        spreads = {measure: invariance.spreads(values_SNP) for measure, values_SNP in measures.items()}
        groups.append(_networks(group, collection, distances, invariance_report.curves(spreads, clipped_P)))
        shares.append(measures)
    beside = groups[1] if len(groups) > 1 else None
    difference = invariance_report.curves(invariance.compared(*shares), None) if beside else None
    return InvarianceRecord(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        fingerprint=networks[0].model.fingerprint,
        layer=networks[0].model.layer,
        index_version=store.version_number if store else None,
        neighbors_among=len(store) if store else len(collection.pixels) - 1,
        data=settings.data.resolve().name,
        part="" if settings.data.is_file() else settings.part,
        photographs=len(collection.pixels),
        seed=settings.seed,
        covariance=collection.covariance_33.tolist(),
        machine=machine(),
        commit=commit(),
        seconds=0.0,
        networks=groups[0],
        beside=beside,
        difference=difference,
    )


def _networks(
    group: Sequence[_Network],
    collection: _Collection,
    distances: Mapping[Measure, invariance.Distances],
    of_networks: list[invariance_report.Curve],
) -> Networks:
    model = group[0].model
    config = model.net.config
    pixels_BCHW = torch.stack(collection.pixels[:_LOOKED_AT])
    x_BCHW = centre_view(pixels_BCHW, model.mean_CHW, config.input_size, config.square_size)
    return invariance_report.networks(
        [network.model.fingerprint for network in group],
        config.lrn_after,
        invariance.divisors(model.net, x_BCHW),
        distances,
        of_networks,
    )


def _measured(
    settings: InvarianceSettings, collection: _Collection, networks: Sequence[_Network]
) -> tuple[list[dict[Measure, Floats]], list[float]]:
    """Of every network the moves, float64 (N, P) each; and the share of values that was clipped at each point."""
    normals_N3 = np.random.default_rng([settings.seed, 1]).standard_normal((len(collection.pixels), 3))
    steps = [colour_step(collection.covariance_33, normals_3) for normals_3 in normals_N3]
    cores = os.cpu_count() or 1
    rows: list[dict[Measure, list[Floats]]] = [defaultdict(list) for _ in networks]
    clipped_P = np.zeros(len(POINTS))

    def made(number: int) -> list[Variant]:
        return list(variants(collection.pixels[number], steps[number]))

    numbers = range(len(collection.pixels))
    every = ahead(made, numbers, workers=cores, waiting=2 * cores, name="perturb")
    for number, perturbed in enumerate(progress(every, len(collection.pixels), "perturbing")):
        pixels_PCHW = torch.stack([collection.pixels[number], *(variant.pixels_CHW for variant in perturbed)])
        clipped_P += [variant.clipped for variant in perturbed]
        for network, found in zip(networks, rows, strict=True):
            for measure, values_P in network.space.moves(network.model.features(pixels_PCHW).numpy(), number).items():
                found[measure].append(values_P)
    moves: list[dict[Measure, Floats]] = [{measure: np.stack(values) for measure, values in found.items()} for found in rows]
    return moves, (clipped_P / len(collection.pixels)).tolist()


def _write(settings: InvarianceSettings, record: InvarianceRecord) -> None:
    invariance_report.write(settings.out / REPORT, record)
    if settings.index:
        invariance_report.write(settings.index / artifact.INVARIANCE, record)
    with replacing(settings.out / TABLE) as path:
        path.write_text(invariance_report.markdown(record))
    measures = record.networks.curves[0].points[0].measures
    pictured = [measure for measure in _PICTURED if measure in measures]
    for measure in pictured:
        with replacing(settings.out / f"{measure}.png") as path:
            curves.picture(record, measure).savefig(path, format="png", dpi=80)
    print(f"{record.photographs} photographs, {len(POINTS)} perturbations of each, {record.seconds:.0f} s")
    print(", ".join(str(settings.out / name) for name in (REPORT, TABLE, *(f"{measure}.png" for measure in pictured))))


if __name__ == "__main__":
    run_program(InvarianceSettings, main)
