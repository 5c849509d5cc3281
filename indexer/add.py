"""Adds photographs to an index: `python -m indexer.add --data DIR`."""

import time
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from indexer.features import FeatureBlock, feature_blocks
from indexer.opening import fitted, open_store
from training import checkpoint
from training.checkpoint import name_of
from training.files import patiently, printable
from training.images.folders import Part, Reject, check_outside, list_examples
from training.program import Settings, keep_freed_memory, run_program


class AddSettings(Settings):
    """Add the photographs of a folder to an index; those that it holds already, by their bytes, stay as they are.

    The work is in proportion to what is added. The metric is the index's own, and its autoencoder makes the codes. Interrupted,
    nothing is added.
    """

    model_config = SettingsConfigDict(cli_prog_name="python -m indexer.add")

    model: Path = Field(Path("var/model"), description="model folder, the one that the index was made with")
    data: Path = Field(description="folder of photographs to add; subfolders are labels")
    index: Path = Field(Path("var/index"), description="index folder")
    part: Part = Field("all", description="part of the data set to add")


def main(settings: AddSettings) -> None:
    """Adds, publishes and reports."""
    keep_freed_memory()
    started = time.monotonic()
    check_outside("index", settings.index, settings.data)
    examples = list_examples(settings.data, settings.part)
    with patiently(settings.index):
        store = open_store(settings.index, contents=False)
        before, linked = len(store), store.manifest.linked
        model = fitted(store, checkpoint.load(settings.model))
        limits, with_pixels = store.manifest.limits, store.manifest.pixel_bits > 0
        rejects: list[Reject] = []

        def comparable() -> Iterator[FeatureBlock]:
            what = f"{name_of(model.layer)} features"
            for block in feature_blocks(model, settings.data, examples, limits, what, with_pixels):
                block = block.in_metric(store.metric)
                rejects.extend(block.rejects)
                yield block

        after, ids = store.add(comparable(), settings.data)
    for reject in rejects[:20]:
        print(f"rejected {reject.path}: {reject.reason}")
    for folder in after.manifest.linked:
        if folder not in linked:
            print(f"links lead to photographs in {printable(folder)}; the service gives them out too")
    added = len(after) - before
    seconds = time.monotonic() - started
    print(
        f"{added} photographs added, {len(ids) - added} there already, {len(rejects)} rejected, in {seconds:.1f} s: "
        f"version {after.version_number} holds {len(after)}"
    )


if __name__ == "__main__":
    run_program(AddSettings, main)
