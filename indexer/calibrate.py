"""Measures what the distances of an index mean: `python -m indexer.calibrate`."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
from pydantic import Field
from pydantic_settings import SettingsConfigDict

from indexer import changes
from indexer.analysis import reliability
from indexer.analysis.calibration import LEFT_OUT, Asked, Ruler, calibrate
from indexer.arrays import Rows
from indexer.features import FeatureBlock, feature_blocks
from indexer.milvus.index import collections, drop_unused
from indexer.opening import OpenStore, fitted, open_store
from indexer.storage import artifact
from indexer.storage.calibration import MOST_SAMPLED, CalibrationRecord
from indexer.store import Mode
from training import checkpoint
from training.checkpoint import Model, name_of
from training.errors import Mismatch, NotReady
from training.files import patiently, printable
from training.images.folders import Part, list_examples
from training.program import Settings, keep_freed_memory, run_program

LEAST: Final = 2  # queries in each half


class CalibrateSettings(Settings):
    """Measure how probable the same class is at which distance, with labelled photographs neither indexed nor trained on.

    The file's SHA-256 says which half of them a photograph is in. Each half is measured by the probabilities that are fitted to
    the other; what is kept is fitted to both. It becomes part of the index: every neighbour is then told with its percentile
    among random pairs and with that probability. Changes of the index take it over; another build drops it.
    """

    model_config = SettingsConfigDict(cli_prog_name="python -m indexer.calibrate")

    model: Path = Field(Path("var/model"), description="model folder, the one that the index was made with")
    data: Path = Field(Path("var/images"), description="folder of labelled photographs to ask with; subfolders are labels")
    index: Path = Field(Path("var/index"), description="index folder")
    part: Part = Field("test", description="part of the data set to ask with")


def main(settings: CalibrateSettings) -> None:
    """Measures, publishes and prints."""
    keep_freed_memory()
    store = open_store(settings.index)
    model = fitted(store, checkpoint.load(settings.model))
    record = measure(settings, store, model)
    files = {artifact.CALIBRATION: record.model_dump_json().encode() + b"\n", artifact.RELIABILITY: reliability.picture(record)}
    with patiently(settings.index):
        newest = open_store(settings.index, contents=False)
        same = [(one.manifest.fingerprint, one.manifest.metric, one.manifest.bits) for one in (store, newest)]
        if same[0] != same[1]:
            raise Mismatch(f"{settings.index} has been built anew meanwhile, otherwise; calibrate it again")
        before = collections(settings.index)
        number = changes.attach(settings.index, newest, files)
        drop_unused(settings.index, before)
        newest.close()
    store.close()
    print(f"{reliability.table(record)}\nversion {number}, {settings.index / artifact.CURRENT / artifact.RELIABILITY}")


def measure(settings: CalibrateSettings, store: OpenStore, model: Model) -> CalibrationRecord:
    """What distances in a store mean. Raises NotReady where too few photographs can be queries."""
    if len(store) < LEAST:
        raise NotReady(f"the index {store.folder} holds {len(store)} items; there are no pairs to measure")
    trained_on = checkpoint.trained_on(settings.model)
    asked, half_Q = _queries(settings, store, model, trained_on or set())
    counts = np.bincount(half_Q, minlength=2).tolist()
    if min(counts) < LEAST:
        raise NotReady(
            f"{len(half_Q)} photographs below {settings.data} have a label and are neither indexed nor trained on, {counts[0]} "
            f"in one half and {counts[1]} in the other, by their files' SHA-256; at least {LEAST} are needed in each"
        )
    ids = store.ids()
    labels = np.array([item.label for item in store.items(ids.tolist())])
    drawn: list[int] = np.random.default_rng(0).permutation(ids)[:MOST_SAMPLED].tolist()
    left_out = np.sort(drawn[:LEFT_OUT])
    seen = Asked(store.vectors(left_out.tolist()), labels[np.searchsorted(ids, left_out)], left_out)
    modes: list[Mode] = ["exact", "code"] if store.bits else ["exact"]
    return CalibrationRecord(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        fingerprint=store.fingerprint,
        index_version=store.version_number,
        items=len(store),
        next_id=int(ids[-1]) + 1,
        data=printable(str(settings.data.resolve()))[:4096],
        queries=(counts[0], counts[1]),
        unknown=int((~np.isin(asked.labels_Q, labels)).sum()),
        labels_seen=_labels_seen(store, trained_on),
        sample=drawn,
        distances=[calibrate(Ruler(store, mode, drawn), asked, half_Q, seen) for mode in modes],
    )


def _queries(settings: CalibrateSettings, store: OpenStore, model: Model, trained_on: set[str]) -> tuple[Asked, Rows]:
    """The photographs that can be queries, and which half each is in: 0 or 1."""
    vectors, labels, hashes = [], [], []
    known = set(trained_on)
    for block in _blocks(settings, store, model):
        known |= store.holding(file.sha256 for file in block.files).keys()
        for row, file in enumerate(block.files):
            if file.label and file.sha256 not in known:
                known.add(file.sha256)
                vectors.append(block.features_ND[row])
                labels.append(file.label)
                hashes.append(file.sha256)
    width = np.zeros((0, store.width), np.float32)
    asked = Asked(np.stack(vectors) if vectors else width, np.array(labels), np.full(len(labels), -1))
    return asked, np.array([int(sha256[:8], 16) % 2 for sha256 in hashes], np.int64)


def _blocks(settings: CalibrateSettings, store: OpenStore, model: Model) -> Iterator[FeatureBlock]:
    examples, limits = list_examples(settings.data, settings.part), store.manifest.limits
    for block in feature_blocks(model, settings.data, examples, limits, f"{name_of(model.layer)} features of queries"):
        yield block.in_metric(store.metric)


def _labels_seen(store: OpenStore, trained_on: set[str] | None) -> float | None:
    if trained_on is None:
        return None
    return float(np.mean([item.sha256 in trained_on for item in store.items(store.ids().tolist())]))


if __name__ == "__main__":
    run_program(CalibrateSettings, main)
