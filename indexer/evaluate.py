"""Measures an index with photographs that are not in it: `python -m indexer.evaluate`."""

from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode, SettingsConfigDict

from indexer.codes.autoencoder import BITS
from indexer.evaluation import splits
from indexer.evaluation.methods import Choice, compare, latencies
from indexer.evaluation.queries import Database, Others, read_database, read_queries
from indexer.evaluation.report import Report
from indexer.opening import OpenStore, fitted, open_store
from training import checkpoint
from training.checkpoint import FeatureLayer, Model, name_of
from training.errors import BadValue, Mismatch
from training.images.folders import Examples, Part, list_examples
from training.images.preprocess import ImageLimits
from training.program import Settings, keep_freed_memory, machine, run_program


def _comma_separated(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


class EvaluateSettings(Settings):
    """Query an index with labelled photographs that it does not hold: by FC7, by its codes, and by codes as others make them.

    The autoencoder is trained by reconstruction of a row's neighbourhood and by a contrast between neighbours and other rows.
    Codes of reconstruction alone, and of the neighbourhood without the contrast, are compared with it; so are ITQ, LSH and the
    signs of principal components on rows of the same scaling, a colour histogram and raw pixels. What has chance in it is
    measured with several seeds. Figures come with intervals of 95 % over the queries (bootstrap) and over the seeds (Student's
    t); a difference within either is not called better or worse.

    Writes evaluation.json, evaluation.md, evaluation.png, and the splits: which photographs took part, by their SHA-256.
    """

    model_config = SettingsConfigDict(cli_prog_name="python -m indexer.evaluate")

    model: Path = Field(Path("var/model"), description="model folder")
    data: Path = Field(Path("var/images"), description="image folder the queries come from")
    index: Path = Field(Path("var/index"), description="index folder")
    part: Part = Field("test", description="part of the data set to query with")
    splits: Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_comma_separated)] = Field(
        (),
        max_length=2,
        description="instead of a part: a split of the queries and, after a comma, one of what the index must hold",
    )
    bits: Annotated[tuple[int, ...], NoDecode, BeforeValidator(_comma_separated)] = Field(
        (),
        description="lengths of codes to compare, as in 16,28,128; the index's own where not given. An autoencoder is trained on "
        "what the index holds, for each length that it has not",
    )
    seeds: int = Field(
        3, ge=1, le=100, description="how many seeds what has chance in it is trained with; of 1 nothing is called better"
    )
    untrained: bool = Field(
        False, description="compare the network before training too; FC7 of all photographs is then computed again"
    )
    raw_pixel_codes: bool = Field(False, description="compare codes of raw 32 x 32 pixels too, at every length")
    layers: Annotated[tuple[FeatureLayer, ...], NoDecode, BeforeValidator(_comma_separated)] = Field(
        (), description="other layers to compare, as in fc6,conv5; features of all photographs are then computed again"
    )
    out: Path | None = Field(None, description="folder to write to; the index folder where not given")


def main(settings: EvaluateSettings) -> None:
    """Prints the report and writes it."""
    keep_freed_memory()
    store = open_store(settings.index)
    model = fitted(store, checkpoint.load(settings.model))
    report = evaluate(model, store, settings)
    print(f"{report.table()}\n\n{report.speed()}\nall figures: {settings.out or settings.index}/evaluation.md")


def evaluate(model: Model, store: OpenStore, settings: EvaluateSettings) -> Report:
    """Measures, and writes what was found and the splits. Raises NotReady where no query is left, BadValue for a wrong length."""
    for bits in settings.bits:
        if bits not in (0, *BITS):  # 0 as in the settings of a build: no codes
            raise BadValue("bits", bits, f"of {', '.join(map(str, BITS))}")
    limits = store.manifest.limits
    examples = _examples(settings, store, limits)
    others = Others(
        checkpoint.untrained(model, seed=0) if settings.untrained else None,
        [model.at(layer) for layer in dict.fromkeys(settings.layers) if layer != model.layer],
    )
    database = read_database(store, others)
    queries = read_queries(model, others, database, settings.data, examples, limits)
    if settings.splits and len(queries.sha256s) < len(examples):
        raise Mismatch(
            f"{len(examples) - len(queries.sha256s)} of the {len(examples)} photographs of {settings.splits[0]} cannot be "
            "queries: the index holds them, or none with their label"
        )
    lengths = [bits for bits in settings.bits or (store.bits,) if bits]
    labels_seen = _labels_seen(settings.model, database)
    choice = Choice(lengths, settings.raw_pixel_codes, settings.seeds, model.net.config.columns == 2)
    out = settings.out or settings.index
    out.mkdir(parents=True, exist_ok=True)
    report = Report(
        index_version=store.version_number,
        layer=name_of(model.layer),
        metric=store.metric,
        queries=len(queries.sha256s),
        database=len(database.items),
        classifier_top1=float((queries.predictions_Q == queries.labels_Q).mean()),
        labels_seen=labels_seen,
        configuration=settings.model_dump(mode="json"),
        machine=machine(),
        splits={
            "queries": splits.write_split(out / "split-queries.txt", queries.sha256s),
            "database": splits.write_split(out / "split-database.txt", [item.sha256 for item in database.items]),
        },
        methods=compare(store, database, queries, choice, labels_seen),
        latencies=list(latencies(store, queries.features_QD)),
    )
    report.write(out)
    return report


def _labels_seen(model: Path, database: Database) -> float | None:
    """The share of the database that the model was trained on, with its labels; None where the model does not say."""
    trained_on = checkpoint.trained_on(model)
    return None if trained_on is None else float(np.mean([item.sha256 in trained_on for item in database.items]))


def _examples(settings: EvaluateSettings, store: OpenStore, limits: ImageLimits) -> Examples:
    if not settings.splits:
        return list_examples(settings.data, settings.part)
    wanted = splits.read_split(settings.splits[0])
    for path in settings.splits[1:]:
        splits.check_same(path, [item.sha256 for item in store.items(store.ids().tolist())])
    return splits.select(settings.data, list_examples(settings.data, "all"), wanted, limits)


if __name__ == "__main__":
    run_program(EvaluateSettings, main)
