"""Builds a searchable index of an image folder: `python -m indexer.build --model DIR --data DIR --index DIR`."""

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist
from pydantic import Field
from pydantic_settings import SettingsConfigDict

from indexer.analysis import layout
from indexer.analysis.atlas import KEPT
from indexer.assembly import BuildResult, Plan, Source, assemble
from indexer.codes.autoencoder import BITS
from indexer.features import Extraction, FeatureBlock
from indexer.metric import Metric
from indexer.milvus import connection
from indexer.opening import open_store
from indexer.search import shortlists
from indexer.search.shortlists import CODES
from indexer.storage import artifact
from indexer.storage.artifact import BuildConfiguration
from indexer.storage.atlas import LayerRecord
from indexer.storage.originals import count_uploads, uploads_of
from training import checkpoint
from training.checkpoint import FeatureLayer, Model
from training.errors import BadSettings, BadValue, FC7Error, NotReady
from training.files import patiently, printable
from training.images.folders import Example, Part, check_outside, list_examples
from training.images.preprocess import ImageLimits, MaxImageBytes, MaxImagePixels
from training.program import Settings, keep_freed_memory, run_program

_PATIENCE = timedelta(days=7)  # of ranks that are done, for those that are not


class BuildSettings(Settings):
    """Index every photograph of a folder by its feature, FC7 or another layer's.

    An autoencoder is trained that makes short binary codes of the features.

    The new version is written beside the one in use and takes its place in one step when it is complete. Items are numbered from
    0 on; photographs that came over HTTP follow those of the folder, with their labels. Of equal files the first is indexed, and
    the others are named as rejects. Interrupted, the same command goes on where it was. `torchrun --nproc-per-node N -m
    indexer.build` computes the features in N processes.
    """

    model_config = SettingsConfigDict(cli_prog_name="python -m indexer.build")
    resumes = True

    model: Path = Field(Path("var/model"), description="model folder, made by training.train")
    data: Path = Field(Path("var/images"), description="folder of photographs; subfolders are labels")
    index: Path = Field(Path("var/index"), description="index folder to publish into")
    part: Part = Field("all", description="part of the data set to index")
    bits: int = Field(
        128,
        description=f"bits of the codes: {', '.join(map(str, BITS))}; 0 for no codes, and exact search alone. The codes' "
        "autoencoder is trained by reconstruction of a row's neighbourhood and by a contrast between neighbours and other rows",
    )
    raw_pixel_codes: bool = Field(False, description="keep raw 32 x 32 pixels and codes of them too, to compare with")
    atlas: bool = Field(
        False,
        description=f"find, for each unit of every layer, the {KEPT} photographs that excite it most, and where in them, in the "
        "same pass as the features",
    )
    metric: Metric = Field(
        "euclidean",
        description="what is near: euclidean, by the distance of features, or cosine, by the angle between them, whatever their "
        "lengths; cosine rejects features of zeros",
    )
    layer: FeatureLayer = Field(
        "fc7",
        description="whose values are the features: fc7; fc6; or conv5, the mean of each of its maps after pooling",
    )
    shortlist: str = Field(
        "principal",
        description="first of the two stages: principal (components in a byte each), codes, or a string of FAISS's "
        "index_factory or index_binary_factory, such as PCA128,HNSW32 or BIVF256",
    )
    store: str = Field(
        "", description="Milvus to put the items into: milvus://host:port, or a file that ends in .db (extra milvus); empty: disk"
    )
    map: bool = Field(False, description="place the items on a plane, near what is like them: a map to look at (extra map)")
    seed: int = Field(0, ge=0, description="seed of the autoencoder, of its samples for training and measuring, and of the map")
    max_bad_fraction: float = Field(1.0, ge=0, le=1, description="share of files that may be rejected before the build gives up")
    max_image_bytes: MaxImageBytes = ImageLimits().max_image_bytes
    max_image_pixels: MaxImagePixels = ImageLimits().max_image_pixels

    def plan(self) -> Plan:
        """What the index is to hold beside the vectors."""
        shortlist = CODES if self.store else self.shortlist
        configuration = BuildConfiguration(part=self.part, seed=self.seed, max_bad_fraction=self.max_bad_fraction)
        return Plan(self.bits, self.metric, self.raw_pixel_codes, shortlist, self.store, self.map, configuration)

    def limits(self) -> ImageLimits:
        """What decoding one image may cost."""
        return ImageLimits.model_validate(self, from_attributes=True)


def main(settings: BuildSettings) -> None:
    """Builds and publishes one version. Raises FC7Error where not one photograph is left; the version in use then stays."""
    keep_freed_memory()
    started = time.monotonic()
    checkpoint.read_description(settings.model)
    check_outside("index", settings.index, settings.data)
    examples = list_examples(settings.data, settings.part)
    rank, ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    with nullcontext() if rank else patiently(settings.index), _together(ranks):
        model = _preflight(settings, examples)
        limits, work = settings.limits(), settings.index / artifact.WORK
        uploads = _uploads(settings.index)
        extraction = Extraction(
            model, settings.data, examples, limits, settings.raw_pixel_codes, work, settings.max_bad_fraction, settings.atlas
        )
        of_uploads = replace(extraction, root=settings.index / artifact.UPLOADS, examples=uploads, max_bad_fraction=1.0)
        extraction.run(rank, ranks)
        if uploads:
            of_uploads.run(rank, ranks)
        if ranks > 1:
            dist.barrier()
        if rank:
            return
        layers: dict[str, LayerRecord] | None = None
        if settings.atlas:
            layers = {name: LayerRecord(**asdict(shape)) for name, shape in model.units.items()}
        source = Source(settings.data, model.fingerprint, model.width, limits, layers, model.layer)
        result = assemble(settings.index, _Both(extraction, of_uploads), source, settings.plan())
        if result.kept:
            shutil.rmtree(work)
    _report(settings, result, time.monotonic() - started)


@dataclass(frozen=True)
class _Both:
    """The blocks of the photographs, then those of the uploads."""

    photographs: Extraction
    uploads: Extraction

    def __iter__(self) -> Iterator[FeatureBlock]:
        yield from self.photographs
        for block in self.uploads:
            yield replace(block, folder=self.uploads.root)


def _uploads(index: Path) -> list[Example]:
    """What came over HTTP into the version that is replaced, which the new one keeps: it is indexed again, with its labels.

    Raises NotReady where there are uploads, and the version that says what they are cannot be read.
    """
    count = count_uploads(index)
    if not count:
        return []
    try:
        store = open_store(index, contents=False)
    except FC7Error as error:
        raise NotReady(
            f"{index / artifact.UPLOADS} holds {count} uploaded photographs, and the version that says what they are cannot be "
            f"read ({error}); move them out of the index, and give them back with `python -m indexer.add --data`"
        ) from error
    try:
        return [Example(item.path, item.label) for item in uploads_of(index, store)]
    finally:
        store.close()


@contextmanager
def _together(ranks: int) -> Iterator[None]:
    if ranks == 1:
        yield
        return
    dist.init_process_group("gloo", timeout=_PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


def _preflight(settings: BuildSettings, examples: Sequence[Example]) -> Model:
    """Raises FC7Error for what would stop the build later: before the first photograph is read."""
    if settings.bits not in (0, *BITS):
        raise BadValue("bits", settings.bits, f"0 or one of {', '.join(map(str, BITS))}")
    if settings.raw_pixel_codes and not settings.bits:
        raise BadValue("raw_pixel_codes", True, "given with --bits: it is the length of those codes too")
    if settings.store and (not settings.bits or settings.raw_pixel_codes):
        raise BadSettings("store needs bits, and goes without raw_pixel_codes: Milvus searches by the codes of FC7")
    if settings.map:
        layout.check()
    if settings.store:
        with connection.connected(connection.parse(settings.store)):
            pass
    model = checkpoint.load(settings.model).at(settings.layer)
    shortlists.check(settings.plan().shortlist, model.width, settings.bits)
    settings.index.mkdir(parents=True, exist_ok=True)
    if not os.access(settings.index, os.W_OK | os.X_OK):
        raise BadValue("index", str(settings.index), "a folder that can be written to")
    # twice, in feature blocks and in the version; thumbnails are about 5 kB
    needed = len(examples) * (model.width * 4 + 6000) * 2
    if settings.atlas:  # in feature blocks alone
        sizes = [shape.columns * shape.units * (6 if shape.side else 4) for shape in model.units.values()]
        needed += len(examples) * sum(sizes)
    free = shutil.disk_usage(settings.index).free
    if needed > free:
        raise FC7Error(
            f"the index needs up to {needed / 1e9:.1f} GB while it is built, {settings.index} has {free / 1e9:.1f} GB left"
        )
    return model


def _report(settings: BuildSettings, result: BuildResult, seconds: float) -> None:
    for reject in result.rejects[:20]:
        print(f"rejected {reject.path}: {reject.reason}")
    rejected = len(result.rejects)
    files = result.kept + rejected
    if not result.kept:
        raise NotReady(f"none of the {files} files below {settings.data} is a photograph that can be indexed")
    if rejected:
        print(f"all rejected files and their reasons: {artifact.rejects_file(settings.index)}")
    manifest = artifact.read_manifest(artifact.current(settings.index))
    for folder in manifest.linked:
        print(f"links lead to photographs in {printable(folder)}; the service gives them out too")
    for name, value in manifest.recall.items():
        print(f"leave-one-out recall@10 of {name} against exact search: {value:.4f}")
    print(
        f"{result.kept} photographs indexed, {rejected} rejected, in {seconds:.0f} s ({files / seconds:.0f} images/s): "
        f"version {result.version_number}, {settings.index / artifact.CURRENT}"
    )


if __name__ == "__main__":
    run_program(BuildSettings, main)
