"""Measures an index with photographs that are not in it: `python -m indexer.evaluate`.

Legend: Q queries, N database, D feature width, K neighbours.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, Field
from pydantic_settings import SettingsConfigDict
from sklearn.neighbors import NearestNeighbors
from torch import Tensor
from torch.nn import functional as F

from indexer import artifact
from training import checkpoint
from training.data import Example, Part, list_examples, read_photographs
from training.errors import FC7Error, NotReady
from training.files import replacing
from training.preprocess import ImageLimits, Photograph
from training.program import Settings, keep_freed_memory, progress, run_program

K = 5
RAW_SIZE = 32
BATCH = 64


class EvaluateSettings(Settings):
    """Query an index with labelled photographs that it does not hold, beside nearest neighbours on raw 32 x 32 pixels."""

    model_config = SettingsConfigDict(cli_prog_name="python -m indexer.evaluate")

    model: Path = Field(Path("var/model"), description="model folder")
    data: Path = Field(Path("var/images"), description="image folder the queries come from")
    index: Path = Field(Path("var/index"), description="index folder")
    part: Part = Field("test", description="part of the data set to query with")


class Report(BaseModel):
    """Shares of right answers over the queries: of the single best class, and of the five nearest neighbours."""

    index_version: int
    queries: int
    database: int
    classifier_top1: float
    fc7_nearest_top1: float
    fc7_precision_at_5: float
    raw_nearest_top1: float
    raw_precision_at_5: float

    def table(self) -> str:
        """The report for a terminal, with ratios to the baseline."""
        top1, precision = self.raw_nearest_top1 or np.nan, self.raw_precision_at_5 or np.nan
        rows = [
            ("AlexNet, centre view", f"{self.classifier_top1:.3f} {self.classifier_top1 / top1:6.2f}x", ""),
            (
                "FC7, Euclidean neighbours",
                f"{self.fc7_nearest_top1:.3f} {self.fc7_nearest_top1 / top1:6.2f}x",
                f"{self.fc7_precision_at_5:.3f} {self.fc7_precision_at_5 / precision:6.2f}x",
            ),
            ("raw 32 x 32 pixels, neighbours", f"{self.raw_nearest_top1:.3f}   1.00x", f"{self.raw_precision_at_5:.3f}   1.00x"),
        ]
        head = f"{self.queries} queries, none of them indexed, against {self.database} photographs (x: times the raw pixels)"
        lines = [f"{name:32s}{top:18s}{p5:18s}".rstrip() for name, top, p5 in [("", "top-1 accuracy", "P@5"), *rows]]
        return "\n".join([head, *lines])


def main(settings: EvaluateSettings) -> None:
    """Prints the report and writes it beside the index."""
    keep_freed_memory()
    model = checkpoint.load(settings.model)
    index = artifact.open_index(settings.index)
    artifact.check_pair(index, model.fingerprint)
    report = evaluate(model, index, settings.data, settings.part)
    with replacing(settings.index / "evaluation.json") as path:
        path.write_text(report.model_dump_json(indent=2) + "\n")
    print(report.table())


def evaluate(model: checkpoint.Model, index: artifact.OpenIndex, data: Path, part: Part) -> Report:
    """Queries `index` with one part of a data set; photographs whose bytes are indexed are left out.

    Raises NotReady where no query is left.
    """
    indexed = set(index.catalog.column("sha256"))
    limits = ImageLimits.model_validate(index.manifest.limits)
    pixels_QCHW, labels = _read(data, list_examples(data, part), limits, indexed)
    database_labels = np.array(index.catalog.column("label"))
    features_QD, logits_QK = _forward(model, pixels_QCHW)
    guesses = np.array(model.classes)[logits_QK.argmax(1)]
    neighbours = index.vectors.search(features_QD, K).ids_QK
    raw = _raw_neighbours(index, limits, pixels_QCHW)
    return Report(
        index_version=index.version,
        queries=len(labels),
        database=len(index.vectors),
        classifier_top1=float((guesses == labels).mean()),
        fc7_nearest_top1=precision(database_labels[neighbours[:, :1]], labels),
        fc7_precision_at_5=precision(database_labels[neighbours], labels),
        raw_nearest_top1=precision(database_labels[raw[:, :1]], labels),
        raw_precision_at_5=precision(database_labels[raw], labels),
    )


def precision(found_QK: NDArray[np.str_], labels_Q: NDArray[np.str_]) -> float:
    """Mean share of the K labels found that are the query's own."""
    return float((found_QK == labels_Q[:, None]).mean())


def _read(root: Path, examples: Sequence[Example], limits: ImageLimits, indexed: set[str]) -> tuple[Tensor, NDArray[np.str_]]:
    pixels, labels = [], []
    for read in progress(read_photographs(root, examples, limits), len(examples), "reading queries"):
        if isinstance(read.outcome, Photograph) and read.sha256 not in indexed:
            pixels.append(read.outcome.pixels_CHW)
            labels.append(read.example.label)
    if not labels:
        raise NotReady(f"below {root} there is no photograph that the index does not hold; queries must be new to it")
    return torch.stack(pixels), np.array(labels)


def _forward(model: checkpoint.Model, pixels_QCHW: Tensor) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    batches = pixels_QCHW.split(BATCH)
    features_QD = torch.cat([model.fc7(batch) for batch in progress(batches, len(batches), "FC7 features", "batches")])
    with torch.inference_mode():
        return features_QD.numpy(), model.net.fc8(features_QD).numpy()


def _raw_neighbours(index: artifact.OpenIndex, limits: ImageLimits, pixels_QCHW: Tensor) -> NDArray[np.int64]:
    """The baseline: (Q, 5) ids of the nearest by Euclidean distance of 32 x 32 RGB pixels, by scikit-learn."""
    root = Path(index.manifest.collection)
    examples = [Example(path, "") for path in index.catalog.column("path")]
    database = []
    for read in progress(read_photographs(root, examples, limits), len(examples), "raw pixels"):
        if not isinstance(read.outcome, Photograph):
            raise FC7Error(f"{root / read.example.path} was indexed and does not decode any more: {read.outcome}")
        database.append(_raw(read.outcome.pixels_CHW[None]))
    nearest = NearestNeighbors(n_neighbors=min(K, len(database)), algorithm="brute").fit(np.concatenate(database))
    ids: NDArray[np.int64] = nearest.kneighbors(_raw(pixels_QCHW), return_distance=False)
    return ids


def _raw(pixels_QCHW: Tensor) -> NDArray[np.float32]:
    small: NDArray[np.float32] = F.adaptive_avg_pool2d(pixels_QCHW.float(), RAW_SIZE).flatten(1).numpy()
    return small


if __name__ == "__main__":
    run_program(EvaluateSettings, main)
