"""An index on disk: the only owner of its file names, and what its manifests say. indexer/storage/draft.py writes versions.

<index>/versions/<n>/       manifest.json  deleted.npy  rejects.jsonl  autoencoder.safetensors  principal.safetensors
                            shortlist.faiss  pixels.safetensors
<index>/versions/<n>/<m>/   a segment: ids.npy  vectors.npy  codes.npy  components.npy  lengths.npy  catalog.sqlite
                            thumbnails.bin  pixels.npy  pixel-codes.npy
<index>/current             -> versions/<n>
<index>/work                what a build that was interrupted has done
<index>/uploads             files that came over HTTP

A segment never changes. The next version takes over what is the same by hard links, so that a change costs what it changes.
"""

import json
import os
from pathlib import Path
from typing import Final, Literal, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from training.errors import Mismatch, NotReady
from training.files import verify
from training.images.folders import Part, Reject
from training.images.preprocess import ImageLimits

FORMAT: Final = 3
CURRENT: Final = "current"
VERSIONS: Final = "versions"
MANIFEST: Final = "manifest.json"
DELETED: Final = "deleted.npy"
REJECTS: Final = "rejects.jsonl"
AUTOENCODER: Final = "autoencoder.safetensors"
PIXEL_AUTOENCODER: Final = "pixels.safetensors"
PRINCIPAL: Final = "principal.safetensors"
FAISS: Final = "shortlist.faiss"
IDS: Final = "ids.npy"
VECTORS: Final = "vectors.npy"
CODES: Final = "codes.npy"
COMPONENTS: Final = "components.npy"
LENGTHS: Final = "lengths.npy"
PIXELS: Final = "pixels.npy"
PIXEL_CODES: Final = "pixel-codes.npy"
CATALOG: Final = "catalog.sqlite"
THUMBNAILS: Final = "thumbnails.bin"
WORK: Final = "work"
UPLOADS: Final = "uploads"
_SEGMENT: Final = (IDS, VECTORS, CATALOG, THUMBNAILS)


class FileRecord(BaseModel):
    """What a file of a version must be."""

    bytes: int
    sha256: str


class ShortlistRecord(BaseModel):
    """The first of the two stages, and how long a list it needs."""

    kind: str  # "codes", "principal" or a string of FAISS's index_factory
    length: int  # rows whose distances are then taken exactly
    recall_at_10: float  # leave-one-out, of both stages against exact search, at the time of building


class MilvusRecord(BaseModel):
    """Where the items are, if not here."""

    uri: str
    collection: str


class BuildConfiguration(BaseModel):
    """The settings of a build that what it made does not tell."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    part: Part = "all"  # of the data set
    seed: int = 0  # of the autoencoder and of the samples that it is trained and measured on
    max_bad_fraction: float = 1.0  # of files that might have been rejected


class Manifest(BaseModel):
    """What `manifest.json` holds: what made this version, and what is in it."""

    model_config = ConfigDict(extra="forbid")

    format: int = FORMAT
    created: str = ""  # ISO 8601, UTC; known from publishing on
    fingerprint: str  # of the model: weights, preprocessing, layer
    metric: Literal["euclidean"] = "euclidean"  # of the vectors
    width: int  # components of a vector
    bits: int = 0  # of a code; 0 for none
    bit_order: Literal["little"] = "little"  # bit i of a code is bit i % 8 of byte i // 8
    pixel_bits: int = 0  # of the codes of raw pixels that are kept for comparison
    kept: int  # items that can be found
    rejected: int
    deleted: int = 0  # rows of segments whose items have been removed
    next_id: int  # the first id that was never given
    limits: ImageLimits  # what decoding one image might cost
    segments: list[int]  # rows of each
    shortlist: ShortlistRecord | None = None
    recall: dict[str, float] = {}  # leave-one-out recall@10 of codes and of two stages against exact search, by name
    configuration: BuildConfiguration = BuildConfiguration()
    milvus: MilvusRecord | None = None
    files: dict[str, FileRecord] = {}  # by path below the version's folder; known from publishing on


class _Format(BaseModel):
    format: int


class WithManifest(Protocol):
    """Anything with a manifest."""

    @property
    def folder(self) -> Path:
        """The version's folder."""

    @property
    def manifest(self) -> Manifest:
        """Its description."""


def segment(number: int) -> str:
    """The folder of a segment, below its version's."""
    return str(number)


def segment_of(name: str) -> int | None:
    """The segment that a file of a version is of; None for a file of the version's own."""
    folder, slash, _ = name.partition("/")
    return int(folder) if slash else None


def rejects_file(index: Path) -> Path:
    """Where the files left out of the current version are listed."""
    return index / CURRENT / REJECTS


def version_folders(index: Path) -> list[Path]:
    """The folders of the versions that are there, oldest first."""
    folders = [path for path in (index / VERSIONS).glob("*") if path.name.isdecimal() and path.is_dir()]
    return sorted(folders, key=lambda path: int(path.name))


def current(index: Path) -> Path:
    """The folder of the current version. Raises NotReady where there is none, Mismatch for a copy that followed links."""
    if not (index / CURRENT).is_dir():
        raise NotReady(f"no index at {index}; `python -m indexer.build --index {index}` makes one")
    folder = (index / CURRENT).resolve()
    check_current(index)
    return folder


def check_current(index: Path) -> None:
    """Raises Mismatch where `current` is not a link to a version, as in a copy that followed links."""
    current = index / CURRENT
    if current.exists() and not (current.is_symlink() and current.resolve().name.isdecimal()):
        raise Mismatch(f"{current} is not a link to versions/<n>, as after a copy that followed links; link it, or remove it")


def read_manifest(folder: Path) -> Manifest:
    """Reads and checks the manifest of a version. Raises Mismatch."""
    path = folder / MANIFEST
    try:
        data = path.read_bytes()
        version = _Format.model_validate_json(data).format
        if version != FORMAT:
            raise Mismatch(
                f"{path} has format {version}, this program reads format {FORMAT}; `python -m indexer.build` makes it anew"
            )
        manifest = Manifest.model_validate_json(data)
    except FileNotFoundError as error:
        raise Mismatch(f"{folder} has no {MANIFEST}: not a version of an index, or a damaged one") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise Mismatch(_not_a_manifest(path, first["loc"], first["msg"])) from error
    for name in _needed(manifest):
        if name not in manifest.files:
            raise Mismatch(f"{path} does not list {name}")
    return manifest


def verify_files(folder: Path, manifest: Manifest, contents: bool = True) -> None:
    """Raises Mismatch for the first file that is not as described: by its size and, where `contents`, by its SHA-256."""
    for name, record in manifest.files.items():
        if contents:
            verify(folder / name, record.bytes, record.sha256, MANIFEST)
            continue
        size = os.stat(folder / name).st_size if (folder / name).is_file() else 0  # noqa: PTH116
        if size != record.bytes:
            raise Mismatch(f"{folder / name} has {size} bytes, {MANIFEST} says {record.bytes}")


def check_pair(index: WithManifest, fingerprint: str) -> None:
    """Raises Mismatch where the index was not made with the model of this fingerprint."""
    if index.manifest.fingerprint != fingerprint:
        raise Mismatch(
            f"the index {index.folder} was made with the model {index.manifest.fingerprint[:12]}, "
            f"the model at hand is {fingerprint[:12]}; build the index again, or give the model it was made with"
        )


def rejects(index: WithManifest) -> list[Reject]:
    """The files left out of the index."""
    rows = map(json.loads, (index.folder / REJECTS).read_text().splitlines())
    return [Reject(row["path"], row["reason"]) for row in rows]


def _not_a_manifest(path: Path, field: tuple[int | str, ...], reason: str) -> str:
    return f"{path} is not a manifest: {'.'.join(map(str, field))} {reason}"


def _needed(manifest: Manifest) -> list[str]:
    names = [DELETED, REJECTS]
    names += [AUTOENCODER] * bool(manifest.bits) + [PIXEL_AUTOENCODER] * bool(manifest.pixel_bits)
    in_segment = [*_SEGMENT, *[CODES] * bool(manifest.bits), *[PIXELS, PIXEL_CODES] * bool(manifest.pixel_bits)]
    if manifest.milvus:
        return names
    kind = manifest.shortlist.kind if manifest.shortlist else "codes"
    if kind == "principal":
        names.append(PRINCIPAL)
        in_segment += [COMPONENTS, LENGTHS]
    elif kind != "codes":
        names.append(FAISS)
    return names + [f"{segment(number)}/{name}" for number in range(len(manifest.segments)) for name in in_segment]
