"""An index on disk: the only owner of its file names. Written aside, verified, and made current by one atomic rename.

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
import shutil
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from training.errors import Mismatch, NotReady
from training.files import replacing, sha256_of, sync, verify

FORMAT: Final = 3
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
_KEPT_VERSIONS: Final = 2


class FileRecord(BaseModel):
    """What a file of a version must be."""

    bytes: int
    sha256: str


class ShortlistRecord(BaseModel):
    """The first of the two stages, and how long a list it needs."""

    kind: str  # "codes", "principal" or a string of FAISS's index_factory
    length: int  # rows whose distances are then taken exactly
    recall_at_10: float  # of both stages against exact search, on held-out queries at the time of building


class MilvusRecord(BaseModel):
    """Where the items are, if not here."""

    uri: str
    collection: str


class Manifest(BaseModel):
    """What `manifest.json` holds: what made this version, and what is in it."""

    model_config = ConfigDict(extra="forbid")

    format: int = FORMAT
    created: str  # ISO 8601, UTC
    fingerprint: str  # of the model: weights, preprocessing, layer
    metric: str = "euclidean"
    width: int  # components of a vector
    bits: int = 0  # of a code; 0 for none
    bit_order: str = "little"  # bit i of a code is bit i % 8 of byte i // 8
    pixel_bits: int = 0  # of the codes of raw pixels that are kept for comparison
    kept: int  # items that can be found
    rejected: int
    deleted: int = 0  # rows of segments whose items have been removed
    next_id: int  # the first id that was never given
    source_folder: str  # that was built from
    limits: dict[str, int]  # what decoding one image might cost; see ImageLimits
    segments: list[int]  # rows of each
    shortlist: ShortlistRecord | None = None
    recall: dict[str, float] = {}  # of codes and of two stages against exact search, on held-out queries, by name
    configuration: dict[str, Any] = {}  # the settings of the build
    milvus: MilvusRecord | None = None
    files: dict[str, FileRecord]  # by path below the version's folder


class _Format(BaseModel):
    format: int


class Described(Protocol):
    """Anything with a manifest."""

    @property
    def folder(self) -> Path:
        """The version's folder."""

    @property
    def manifest(self) -> Manifest:
        """Its description."""


def new_version(index: Path) -> Path:
    """An empty folder to write the next version's files to; unfinished ones from before are removed."""
    _check_current(index)
    partial = index / "versions" / ".partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial


def take_over(old: Path, new: Path, names: Iterable[str]) -> None:
    """Puts files of one version into another under the same names: hard links, or copies where there can be none."""
    for name in names:
        (new / name).parent.mkdir(exist_ok=True)
        try:
            (new / name).hardlink_to(old / name)
        except OSError:
            shutil.copyfile(old / name, new / name)


def publish(index: Path, partial: Path, known: dict[str, FileRecord] | None = None, **facts: Any) -> int:
    """Describes the files in `partial`, names the version, makes it current and drops versions too old to go back to.

    `known` are files taken over, which are not read again; `facts` the fields of Manifest that the files do not tell. At every
    moment `current` is the old version or the new one.
    """
    files = {}
    for path in sorted(path for path in partial.rglob("*") if path.is_file()):
        name = path.relative_to(partial).as_posix()
        if known and name in known:
            files[name] = known[name]
        else:
            sync(path)
            files[name] = FileRecord(bytes=path.stat().st_size, sha256=sha256_of(path))
    manifest = Manifest(created=datetime.now(UTC).isoformat(timespec="seconds"), files=files, **facts)
    with replacing(partial / MANIFEST) as path:
        path.write_text(manifest.model_dump_json(indent=2) + "\n")
    for folder in partial.iterdir():
        if folder.is_dir():
            sync(folder)
    version = max(_versions(index), default=0) + 1
    partial.rename(index / "versions" / str(version))
    sync(index / "versions")
    link = index / ".current.partial"
    link.unlink(missing_ok=True)
    link.symlink_to(Path("versions") / str(version))
    link.replace(index / "current")
    sync(index)
    for old in _versions(index)[:-_KEPT_VERSIONS]:
        shutil.rmtree(index / "versions" / str(old), ignore_errors=True)
    return version


def current(index: Path) -> Path:
    """The folder of the current version. Raises NotReady where there is none, Mismatch for a copy that followed links."""
    if not (index / "current").is_dir():
        raise NotReady(f"no index at {index}; `python -m indexer.build --index {index}` makes one")
    folder = (index / "current").resolve()
    _check_current(index)
    return folder


def read_manifest(folder: Path) -> Manifest:
    """Reads and checks the manifest of a version. Raises Mismatch."""
    path = folder / MANIFEST
    try:
        data = path.read_bytes()
        found = _Format.model_validate_json(data).format
        if found != FORMAT:
            raise Mismatch(
                f"{path} has format {found}, this program reads format {FORMAT}; `python -m indexer.build` makes it anew"
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
        found = os.stat(folder / name).st_size if (folder / name).is_file() else 0  # noqa: PTH116
        if found != record.bytes:
            raise Mismatch(f"{folder / name} has {found} bytes, {MANIFEST} says {record.bytes}")


def check_pair(index: Described, fingerprint: str) -> None:
    """Raises Mismatch where the index was not made with the model of this fingerprint."""
    if index.manifest.fingerprint != fingerprint:
        raise Mismatch(
            f"the index {index.folder} was made with the model {index.manifest.fingerprint[:12]}, "
            f"the model at hand is {fingerprint[:12]}; build the index again, or give the model it was made with"
        )


def rejects(index: Described) -> list[dict[str, str]]:
    """The files left out of the index, each with its path and the reason."""
    return [json.loads(line) for line in (index.folder / REJECTS).read_text().splitlines()]


def _check_current(index: Path) -> None:
    current = index / "current"
    if current.exists() and not (current.is_symlink() and current.resolve().name.isdecimal()):
        raise Mismatch(f"{current} is not a link to versions/<n>, as after a copy that followed links; link it, or remove it")


def _versions(index: Path) -> list[int]:
    return sorted(int(path.name) for path in (index / "versions").iterdir() if path.name.isdecimal() and path.is_dir())


def _not_a_manifest(path: Path, where: tuple[int | str, ...], problem: str) -> str:
    return f"{path} is not a manifest: {'.'.join(map(str, where))} {problem}"


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
    return names + [f"{segment}/{name}" for segment in range(len(manifest.segments)) for name in in_segment]
