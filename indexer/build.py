"""Builds a searchable index of an image folder: `python -m indexer.build --model DIR --data DIR --index DIR`."""

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic_settings import SettingsConfigDict

from indexer import artifact
from indexer.catalog import Item, write_catalog
from indexer.extract import Shard, extract
from indexer.search import write_float_index
from training import checkpoint
from training.data import Example, Part, list_examples
from training.errors import FC7Error, NotReady
from training.files import exclusively
from training.preprocess import ImageLimits
from training.program import Settings, keep_freed_memory, run_program


class BuildSettings(Settings):
    """Index every photograph of a folder by its FC7 feature, for exact Euclidean search.

    The new version is written beside the one in use and takes its place in one step when it is complete. Interrupted, the same
    command goes on where it was.
    """

    model_config = SettingsConfigDict(cli_prog_name="python -m indexer.build")

    model: Path = Field(Path("var/model"), description="model folder, made by training.train")
    data: Path = Field(Path("var/images"), description="folder of photographs; subfolders are labels")
    index: Path = Field(Path("var/index"), description="index folder to publish into")
    part: Part = Field("all", description="part of the data set to index")
    max_image_bytes: int = Field(ImageLimits().max_image_bytes, ge=1, description="largest image file indexed, bytes")
    max_image_pixels: int = Field(ImageLimits().max_image_pixels, ge=1, description="largest image indexed, width x height")


class _Collected:
    """Gathers what goes beside the vectors while the shards stream by."""

    def __init__(self, thumbnails: Path) -> None:
        self.items: list[Item] = []
        self.rejects: list[dict[str, str]] = []
        self._thumbnails = thumbnails

    def features(self, shards: Iterator[Shard]) -> Iterator[NDArray[np.float32]]:
        start = 0
        with self._thumbnails.open("wb") as file:
            for shard in shards:
                for fields in shard.items:
                    self.items.append(Item(id=len(self.items), thumbnail_start=start, **fields))
                    start += fields["thumbnail_size"]
                file.write(shard.thumbnails)
                self.rejects.extend(shard.rejects)
                yield shard.features_ND


def main(settings: BuildSettings) -> None:
    """Builds and publishes one version. Raises FC7Error where not one photograph is left; the version in use then stays."""
    keep_freed_memory()
    started = time.monotonic()
    checkpoint.read_description(settings.model)
    examples = list_examples(settings.data, settings.part)
    with exclusively(settings.index):
        version, kept, rejected = build(settings, examples)
    seconds = time.monotonic() - started
    print(
        f"{kept} photographs indexed, {rejected} rejected, in {seconds:.0f} s ({len(examples) / seconds:.0f} images/s): "
        f"version {version}, {settings.index / 'current'}"
    )


def build(settings: BuildSettings, examples: Sequence[Example]) -> tuple[int, int, int]:
    """Indexes `examples`; returns the version and how many were kept and rejected."""
    model = checkpoint.load(settings.model)
    width = model.net.config.fc7_width
    _check_room(settings.index, len(examples) * width * 4 * 2)
    limits = ImageLimits(max_image_bytes=settings.max_image_bytes, max_image_pixels=settings.max_image_pixels)
    work = settings.index / "work"
    partial = artifact.new_version(settings.index)
    collected = _Collected(partial / artifact.THUMBNAILS)
    shards = extract(model, settings.data, examples, limits, work)
    kept = write_float_index(partial / artifact.FLOAT, collected.features(shards), width)
    with (partial / artifact.REJECTS).open("w") as file:
        file.writelines(json.dumps(reject) + "\n" for reject in collected.rejects)
    for reject in collected.rejects[:20]:
        print(f"rejected {reject['path']}: {reject['reason']}")
    if not kept:
        raise NotReady(f"none of the {len(examples)} files below {settings.data} is a photograph that can be indexed")
    write_catalog(partial / artifact.CATALOG, collected.items)
    version = artifact.publish(
        settings.index,
        partial,
        model=model.fingerprint,
        width=width,
        kept=kept,
        rejected=len(collected.rejects),
        collection=str(settings.data.resolve()),
        limits=limits.model_dump(),
    )
    shutil.rmtree(work)
    if collected.rejects:
        print(f"all rejected files and their reasons: {settings.index / 'current' / artifact.REJECTS}")
    return version, kept, len(collected.rejects)


def _check_room(index: Path, needed: int) -> None:
    free = shutil.disk_usage(index).free
    if needed > free:
        raise FC7Error(f"the index needs up to {needed / 1e9:.1f} GB while it is built, {index} has {free / 1e9:.1f} GB left")


if __name__ == "__main__":
    run_program(BuildSettings, main)
