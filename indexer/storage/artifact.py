"""An index on disk: the only owner of its file names, and what its manifests say. indexer/storage/draft.py writes versions.

<index>/versions/<n>/       manifest.json  manifest.sha256  deleted.npy  rejects.jsonl  autoencoder.safetensors
                            principal.safetensors  shortlist.faiss  pixels.safetensors  atlas.safetensors  map.safetensors
                            calibration.json  calibration.png
<index>/versions/<n>/<m>/   a segment: vectors.faiss  codes.faiss  components.npy  lengths.npy  catalog.sqlite  thumbnails.bin
                            pixels.npy  pixel-codes.npy
<index>/current             -> versions/<n>
<index>/duplicates.json     the near-duplicates that were last looked for
<index>/invariance.json     how far features, codes and neighbours were last seen to move when photographs are perturbed
<index>/work                what a build that was interrupted has done
<index>/uploads             files that came over HTTP

A segment never changes. The next version takes over what is the same by hard links, so that a change costs what it changes.
"""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple, Protocol

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from indexer.codes.autoencoder import BITS
from indexer.metric import Metric
from training.checkpoint import FeatureLayer
from training.errors import Mismatch, NotReady
from training.files import verify, write_text
from training.images.folders import Part, Reject
from training.images.preprocess import ImageLimits

FORMAT: Final[Literal[4]] = 4
CURRENT: Final = "current"
VERSIONS: Final = "versions"
MANIFEST: Final = "manifest.json"
SIGNATURE: Final = "manifest.sha256"
DELETED: Final = "deleted.npy"
REJECTS: Final = "rejects.jsonl"
AUTOENCODER: Final = "autoencoder.safetensors"
PIXEL_AUTOENCODER: Final = "pixels.safetensors"
PRINCIPAL: Final = "principal.safetensors"
FAISS: Final = "shortlist.faiss"
ATLAS: Final = "atlas.safetensors"
CALIBRATION: Final = "calibration.json"
RELIABILITY: Final = "calibration.png"
MAP: Final = "map.safetensors"
VECTORS: Final = "vectors.faiss"
CODES: Final = "codes.faiss"
COMPONENTS: Final = "components.npy"
LENGTHS: Final = "lengths.npy"
PIXELS: Final = "pixels.npy"
PIXEL_CODES: Final = "pixel-codes.npy"
CATALOG: Final = "catalog.sqlite"
THUMBNAILS: Final = "thumbnails.bin"
DUPLICATES: Final = "duplicates.json"
INVARIANCE: Final = "invariance.json"
WORK: Final = "work"
UPLOADS: Final = "uploads"
MOST_LINKED: Final = 100  # folders that the links of an index may lead to
_SEGMENT: Final = (VECTORS, CATALOG, THUMBNAILS)
_OF_VERSION: Final = (
    DELETED,
    REJECTS,
    AUTOENCODER,
    PIXEL_AUTOENCODER,
    PRINCIPAL,
    FAISS,
    ATLAS,
    MAP,
    CALIBRATION,
    RELIABILITY,
)
_OF_SEGMENT: Final = (*_SEGMENT, CODES, COMPONENTS, LENGTHS, PIXELS, PIXEL_CODES)
_NUMBER: Final = re.compile("0|[1-9][0-9]{0,5}")


def _length_of_a_code(bits: int) -> int:
    if bits not in (0, *BITS):
        raise ValueError(f"should be 0 or one of {', '.join(map(str, BITS))}")
    return bits


def _name_of_a_file(name: str) -> str:
    folder, slash, file = name.rpartition("/")
    if file not in (_OF_SEGMENT if slash else _OF_VERSION) or (slash and not _NUMBER.fullmatch(folder)):
        raise ValueError("should be the name of a file of a version")
    return name


_Count = Annotated[int, Field(ge=0, le=2**53)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Text = Annotated[str, Field(min_length=1, max_length=4096)]
_Bits = Annotated[int, AfterValidator(_length_of_a_code)]
_Name = Annotated[str, AfterValidator(_name_of_a_file)]
_OURS: Final = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class FileRecord(BaseModel):
    """What a file of a version must be."""

    model_config = _OURS

    bytes: _Count
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class ShortlistRecord(BaseModel):
    """The first of the two stages, and how long a list it needs."""

    model_config = _OURS

    kind: str = Field(min_length=1, max_length=200)  # "codes", "principal" or a string of FAISS's index_factory
    length: int = Field(ge=1, le=2**31)  # rows whose distances are then taken exactly
    recall_at_10: _Share  # leave-one-out, of both stages against exact search, at the time of building


class MilvusRecord(BaseModel):
    """Where the items are, if not here."""

    model_config = _OURS

    uri: _Text
    collection: str = Field(pattern="^[A-Za-z_][A-Za-z0-9_]{0,240}$")


class BuildConfiguration(BaseModel):
    """The settings of a build that what it made does not tell."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    part: Part = "all"  # of the data set
    seed: int = Field(0, ge=0)  # of the autoencoder and of the samples that it is trained and measured on
    max_bad_fraction: _Share = 1.0  # of files that might have been rejected


class Manifest(BaseModel):
    """What `manifest.json` holds: what made this version, and what is in it.

    Every field has bounds, because sizes from here go to native code; `manifest.sha256` tells whether a byte of it is another.
    """

    model_config = _OURS

    format: Literal[4] = FORMAT
    created: str = Field("", max_length=40)  # ISO 8601, UTC; known from publishing on
    fingerprint: str = Field(min_length=1, max_length=128)  # of the model: weights, preprocessing, layer
    layer: FeatureLayer = "fc7"  # of the model, whose values the vectors are
    metric: Metric = "euclidean"  # of the vectors, which lie at length 1 where it is cosine
    width: int = Field(ge=1, le=2**15)  # components of a vector
    bits: _Bits = 0  # of a code; 0 for none
    bit_order: Literal["little"] = "little"  # bit i of a code is bit i % 8 of byte i // 8
    pixel_bits: _Bits = 0  # of the codes of raw pixels that are kept for comparison
    kept: _Count  # items that can be found
    rejected: _Count
    deleted: _Count = 0  # rows of segments whose items have been removed
    next_id: _Count  # the first id that was never given
    limits: ImageLimits  # what decoding one image might cost
    sources: list[_Text] = Field([], max_length=10_000)  # folders, absolute, that items' files lie below, but for uploads
    linked: list[_Text] = Field([], max_length=MOST_LINKED)  # and those that links below these led to, absolute
    segments: list[Annotated[int, Field(ge=1, le=2**53)]] = Field(max_length=10_000)  # rows of each
    shortlist: ShortlistRecord | None = None
    # leave-one-out recall@10 of codes and of two stages against exact search, by name
    recall: dict[_Text, _Share] = {}
    configuration: BuildConfiguration = BuildConfiguration()
    milvus: MilvusRecord | None = None
    files: dict[_Name, FileRecord] = {}  # by path below the version's folder; known from publishing on


class RejectRecord(NamedTuple):
    """A line of `rejects.jsonl`: a file that is left out."""

    folder: str  # that the path is below
    path: str  # as one line of printable text
    reason: str
    sha256: str  # of a copy of an item, or ""


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
    if not current.exists():
        return
    folder = current.resolve()
    if not current.is_symlink() or not folder.name.isdecimal() or folder.parent != (index / VERSIONS).resolve():
        raise Mismatch(f"{current} is not a link to versions/<n>, as after a copy that followed links; link it, or remove it")


def write_manifest(folder: Path, text: str) -> None:
    """Writes the manifest of a version, and the SHA-256 that vouches for every byte of it, as `sha256sum` does."""
    write_text(folder / MANIFEST, text)
    write_text(folder / SIGNATURE, _signature(text.encode()))


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
        if not _is_signed(folder, data):
            raise Mismatch(f"{path} is not the file that {SIGNATURE} beside it describes: its SHA-256 differs")
        manifest = Manifest.model_validate_json(data)
    except FileNotFoundError as error:
        raise Mismatch(f"{folder} has no {MANIFEST}: not a version of an index, or a damaged one") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise Mismatch(_not_a_manifest(path, first["loc"], first["msg"])) from error
    _check_manifest(path, manifest)
    return manifest


def verify_files(folder: Path, manifest: Manifest, contents: bool = True) -> None:
    """Raises Mismatch for the first file that is not as described: by its size and, where `contents`, by its SHA-256.

    Small files of the version itself, from which whatever is added gets its codes, are always read.
    """
    for name, record in manifest.files.items():
        if contents or (segment_of(name) is None and name != FAISS):
            verify(folder / name, record.bytes, record.sha256, MANIFEST)
            continue
        size = os.stat(folder / name).st_size if (folder / name).is_file() else 0  # noqa: PTH116
        if size != record.bytes:
            raise Mismatch(f"{folder / name} has {size} bytes, {MANIFEST} says {record.bytes}")


def verify_segments(folder: Path, manifest: Manifest, first: int) -> None:
    """Reads the files of the segments from `first` on. Raises Mismatch like `verify_files`."""
    for name, record in manifest.files.items():
        number = segment_of(name)
        if number is not None and number >= first:
            verify(folder / name, record.bytes, record.sha256, MANIFEST)


def check_pair(index: WithManifest, fingerprint: str, width: int) -> None:
    """Raises Mismatch where the index was not made with the model of this fingerprint, or is for vectors of another width."""
    if index.manifest.fingerprint == fingerprint and index.manifest.width != width:
        raise Mismatch(
            f"the index {index.folder} is for vectors of {index.manifest.width} components, the model at hand makes {width}"
        )
    if index.manifest.fingerprint != fingerprint:
        raise Mismatch(
            f"the index {index.folder} was made with the model {index.manifest.fingerprint[:12]}, "
            f"the model at hand is {fingerprint[:12]}; build the index again, or give the model it was made with"
        )


def rejects(index: WithManifest) -> list[Reject]:
    """The files left out of the index."""
    return [Reject(record.path, record.reason) for record in reject_records(index.folder)]


def reject_records(folder: Path) -> list[RejectRecord]:
    """The files left out of a version, and the folders that they lie below. Raises Mismatch."""
    try:
        rows = map(json.loads, (folder / REJECTS).read_text().splitlines())
        return [RejectRecord(*(str(row[name]) for name in RejectRecord._fields)) for row in rows]
    except (ValueError, TypeError, KeyError) as error:
        raise Mismatch(f"{folder / REJECTS} is not a list of files left out: {error!r}") from error


def _signature(data: bytes) -> str:
    return f"{hashlib.sha256(data).hexdigest()}  {MANIFEST}\n"


def _is_signed(folder: Path, data: bytes) -> bool:
    try:
        return (folder / SIGNATURE).read_bytes() == _signature(data).encode()
    except FileNotFoundError:
        return False


def _check_manifest(path: Path, manifest: Manifest) -> None:
    """Raises Mismatch where fields do not go together."""
    for name in _needed(manifest):
        if name not in manifest.files:
            raise Mismatch(f"{path} does not list {name}")
    beyond = [name for name in manifest.files if (segment_of(name) or 0) >= max(1, len(manifest.segments))]
    if beyond:
        raise Mismatch(f"{path} lists {beyond[0]}, of more segments than there are")
    if manifest.pixel_bits not in (0, manifest.bits):
        raise Mismatch(f"{path} has pixel_bits {manifest.pixel_bits} beside bits {manifest.bits}")
    if sum(manifest.segments) > manifest.next_id:
        raise Mismatch(f"{path} has {sum(manifest.segments)} rows with ids below {manifest.next_id}")
    if wrong := [folder for folder in (*manifest.sources, *manifest.linked) if not folder.startswith("/")]:
        raise Mismatch(f"{path} names the source {wrong[0]}, which is not absolute")
    if wrong := [folder for folder in manifest.linked if os.path.normpath(folder) != folder or folder == "/"]:
        raise Mismatch(f"{path} says that links lead to {wrong[0]}, which is no folder of photographs")


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
