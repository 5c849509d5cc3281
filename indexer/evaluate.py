"""Measures an index with photographs that are not in it: `python -m indexer.evaluate`.

Legend: Q queries, D feature width, K neighbours.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode, SettingsConfigDict

from indexer.arrays import Vectors
from indexer.codes import autoencoder, baselines
from indexer.codes.autoencoder import BITS
from indexer.evaluation import report, splits
from indexer.evaluation.protocol import LISTED, Latency, Task, Way, latency
from indexer.evaluation.queries import Held, Labels, Queries, ask, hold
from indexer.evaluation.report import Report
from indexer.opening import OpenStore, open_store
from indexer.storage import artifact
from indexer.storage.segment import code_bytes
from indexer.store import Mode, Query
from training import checkpoint
from training.checkpoint import Model
from training.errors import BadValue, Mismatch
from training.images.folders import Examples, Part, list_examples
from training.images.preprocess import ImageLimits
from training.program import Settings, keep_freed_memory, machine, progress, run_program

K = 5
_BLOCK: Final = 256
_BALL_BITS: Final = 32  # the longest codes whose bits are all an address
_BALL_RADIUS: Final = 2


def _listed(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


class EvaluateSettings(Settings):
    """Query an index with labelled photographs that it does not hold: by FC7, by its codes, and by codes as others make them.

    Writes evaluation.json, evaluation.md, evaluation.png, and the splits: which photographs took part, by their SHA-256.
    """

    model_config = SettingsConfigDict(cli_prog_name="python -m indexer.evaluate")

    model: Path = Field(Path("var/model"), description="model folder")
    data: Path = Field(Path("var/images"), description="image folder the queries come from")
    index: Path = Field(Path("var/index"), description="index folder")
    part: Part = Field("test", description="part of the data set to query with")
    splits: Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_listed)] = Field(
        (),
        max_length=2,
        description="instead of a part: a split of the queries and, after a comma, one of what the index must hold",
    )
    bits: Annotated[tuple[int, ...], NoDecode, BeforeValidator(_listed)] = Field(
        (),
        description="lengths of codes to compare, as in 16,28,128; the index's own where not given. An autoencoder is trained on "
        "what the index holds, for each length that it has not",
    )
    raw_pixel_codes: bool = Field(False, description="compare codes of raw 32 x 32 pixels too, at every length")
    out: Path | None = Field(None, description="folder to write to; the index folder where not given")


def main(settings: EvaluateSettings) -> None:
    """Prints the report and writes it."""
    keep_freed_memory()
    model = checkpoint.load(settings.model)
    store = open_store(settings.index)
    artifact.check_pair(store, model.fingerprint)
    measured = evaluate(model, store, settings)
    print(f"{measured.table()}\n\n{measured.summary()}\nall figures: {settings.out or settings.index}/evaluation.md")


def evaluate(model: Model, store: OpenStore, settings: EvaluateSettings) -> Report:
    """Measures, and writes what was found and the splits. Raises NotReady where no query is left, BadValue for a wrong length."""
    for bits in settings.bits:
        if bits not in (0, *BITS):  # 0 as in the settings of a build: no codes
            raise BadValue("bits", bits, f"of {', '.join(map(str, BITS))}")
    limits = ImageLimits.model_validate(store.manifest.limits)
    examples = _examples(settings, store, limits)
    held = hold(store)
    queries = ask(model, held, settings.data, examples, limits)
    if settings.splits and len(queries.sha256s) < len(examples):
        raise Mismatch(
            f"{len(examples) - len(queries.sha256s)} of the {len(examples)} photographs of {settings.splits[0]} cannot be "
            "queries: the index holds them, or none with their label"
        )
    ways, nearest, raw_nearest = _measure(store, held, queries, settings)
    out = settings.out or settings.index
    out.mkdir(parents=True, exist_ok=True)
    measured = Report(
        index_version=store.version_number,
        queries=len(queries.sha256s),
        database=len(held.items),
        classifier_top1=float((queries.guesses_Q == queries.labels_Q).mean()),
        fc7_nearest_top1=precision(nearest[:, :1], queries.labels_Q),
        fc7_precision_at_5=precision(nearest, queries.labels_Q),
        raw_nearest_top1=precision(raw_nearest[:, :1], queries.labels_Q),
        raw_precision_at_5=precision(raw_nearest, queries.labels_Q),
        configuration=settings.model_dump(mode="json"),
        machine=machine(),
        splits={
            "queries": splits.write_split(out / "split-queries.txt", queries.sha256s),
            "database": splits.write_split(out / "split-database.txt", [item.sha256 for item in held.items]),
        },
        ways=ways,
        latencies=list(_latencies(store, queries.features_QD)),
    )
    measured.write(out)
    return measured


def precision(found_QK: Labels, labels_Q: Labels) -> float:
    """Mean share of the K labels found that are the query's own."""
    return float((found_QK == labels_Q[:, None]).mean())


def _examples(settings: EvaluateSettings, store: OpenStore, limits: ImageLimits) -> Examples:
    if not settings.splits:
        return list_examples(settings.data, settings.part)
    wanted = splits.read_split(settings.splits[0])
    for path in settings.splits[1:]:
        splits.check_same(path, [item.sha256 for item in store.items(store.ids().tolist())])
    return splits.select(settings.data, list_examples(settings.data, "all"), wanted, limits)


def _measure(store: OpenStore, held: Held, queries: Queries, settings: EvaluateSettings) -> tuple[list[Way], Labels, Labels]:
    """Every way, and the labels of the five nearest by FC7 and by raw pixels."""
    numbers = np.unique(np.concatenate([held.labels_N, queries.labels_Q]), return_inverse=True)[1]
    task = Task(numbers[: len(held.items)], numbers[len(held.items) :])
    exact, nearest_QK = task.vectors(report.EXACT, held.vectors_ND, queries.features_QD, 4 * store.width)
    raw, raw_nearest_QK = task.vectors(report.RAW_EXACT, held.pixels_NP, queries.pixels_QP, held.pixels_NP.shape[1])
    codes = sorted(_code_ways(store, held, queries, task, nearest_QK, settings), key=lambda way: way.bits)
    ways = [exact, raw, *codes]
    return ways, held.labels_N[nearest_QK[:, :K]], held.labels_N[raw_nearest_QK[:, :K]]


def _code_ways(
    store: OpenStore, held: Held, queries: Queries, task: Task, nearest_QK: NDArray[np.int64], settings: EvaluateSettings
) -> Iterator[Way]:
    if _has_two_stages(store):
        rows_QK = _two_stage(store, held, queries)
        yield task.lists(report.TWO_STAGE, _shortlist_bits(store), rows_QK, nearest_QK, _bytes(store, "two-stage"))
    lengths = [bits for bits in settings.bits or (store.bits,) if bits]
    for bits in lengths:
        own = bits == store.bits
        coder = autoencoder.load(store.folder / artifact.AUTOENCODER) if own else autoencoder.train(held.vectors_ND, bits)
        codes_NW = store.codes(held.ids_N.tolist()) if own else coder.encode(held.vectors_ND)
        yield task.codes(report.AUTOENCODER, bits, codes_NW, coder.encode(queries.features_QD), nearest_QK)
    for name, bits, baseline in baselines.fit(held.vectors_ND, lengths):
        codes = baseline.encode(held.vectors_ND), baseline.encode(queries.features_QD)
        yield task.codes(name, bits, *codes, nearest_QK)
    for bits in lengths:
        own = bits == store.manifest.pixel_bits
        if own or settings.raw_pixel_codes:
            coder = (
                autoencoder.load(store.folder / artifact.PIXEL_AUTOENCODER) if own else autoencoder.train(held.pixels_NP, bits)
            )
            codes = coder.encode(held.pixels_NP), coder.encode(queries.pixels_QP)
            yield task.codes(report.RAW_AUTOENCODER, bits, *codes, nearest_QK)


def _two_stage(store: OpenStore, held: Held, queries: Queries) -> NDArray[np.int64]:
    query = Query(k=min(LISTED, len(store)), mode="two-stage")
    starts = range(0, len(queries.features_QD), _BLOCK)
    blocks = (queries.features_QD[start : start + _BLOCK] for start in starts)
    found = [held.rows(store.search(block, query)) for block in progress(blocks, len(starts), report.TWO_STAGE, "blocks")]
    return np.concatenate(found)


def _latencies(store: OpenStore, queries_QD: Vectors) -> Iterator[Latency]:
    modes: list[tuple[Mode, int | None]] = [("exact", None)]
    if store.bits:
        modes.append(("code", None))
    if _has_two_stages(store):
        modes.append(("two-stage", None))
    if 0 < store.bits <= _BALL_BITS:
        modes.append(("ball", _BALL_RADIUS))
    for mode, radius in modes:

        def search(asked_QD: Vectors, k: int, mode: Mode = mode, radius: int | None = radius) -> object:
            return store.search(asked_QD, Query(k, mode, radius=radius))

        yield latency(search, queries_QD, mode if radius is None else f"{mode}, radius {radius}", _bytes(store, mode))


def _has_two_stages(store: OpenStore) -> bool:
    return store.bits > 0 or store.manifest.shortlist is not None


def _shortlist_bits(store: OpenStore) -> int:
    """Bits of the codes that the short-list is made of; 0 where it is made of something else."""
    made = store.manifest.shortlist
    return store.bits if made is None or made.kind == "codes" else 0


def _bytes(store: OpenStore, mode: Mode) -> int:
    """Bytes an item of what a search in this mode looks through: not of the vectors that a short-list then needs."""
    if mode == "two-stage" and not _shortlist_bits(store):
        parts = (artifact.FAISS, artifact.COMPONENTS, artifact.LENGTHS)
        size = sum(record.bytes for name, record in store.manifest.files.items() if name.endswith(parts))
        return round(size / len(store))
    return 4 * store.width if mode == "exact" else code_bytes(store.bits)


if __name__ == "__main__":
    run_program(EvaluateSettings, main)
