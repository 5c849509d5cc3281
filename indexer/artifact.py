"""An index on disk: the only owner of its file names. Written aside, verified, and made current by one atomic rename.

<index>/versions/<n>/   manifest.json  catalog.sqlite  float.faiss  thumbnails.bin  rejects.jsonl
<index>/current         -> versions/<n>
"""

import json
import shutil
import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from indexer.catalog import Catalog, Item
from indexer.search import FloatIndex, open_float_index
from training import shards
from training.data import read_bytes
from training.errors import FC7Error, Mismatch, NotReady
from training.files import replacing, sha256_of, sync, verify
from training.preprocess import ImageLimits

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
CATALOG: Final = "catalog.sqlite"
FLOAT: Final = "float.faiss"
THUMBNAILS: Final = "thumbnails.bin"
REJECTS: Final = "rejects.jsonl"
_KEPT_VERSIONS: Final = 2


class FileRecord(BaseModel):
    """What a file of a version must be."""

    bytes: int
    sha256: str


class Manifest(BaseModel):
    """What `manifest.json` holds: what made this version, and what is in it."""

    model_config = ConfigDict(extra="forbid")

    format: int = FORMAT
    created: str  # ISO 8601, UTC
    model: str  # fingerprint: weights, preprocessing, layer
    metric: str = "euclidean"
    width: int  # components of a vector
    kept: int
    rejected: int
    deleted: int = 0
    collection: str  # the folder that the catalogue's paths are below
    limits: dict[str, int]  # what decoding one image might cost; see ImageLimits
    files: dict[str, FileRecord]


@dataclass(frozen=True)
class OpenIndex:
    """A verified version, ready to be searched. Its files are held open: the version may be deleted while it is in use."""

    version: int
    folder: Path
    manifest: Manifest
    catalog: Catalog
    vectors: FloatIndex
    thumbnails: NDArray[np.uint8]  # every thumbnail, one after the other; memory-mapped

    def thumbnail(self, item: Item) -> bytes:
        """The item's thumbnail, a JPEG file's bytes."""
        return self.thumbnails[item.thumbnail_start : item.thumbnail_start + item.thumbnail_size].tobytes()

    def original(self, item: Item) -> Path | bytes | None:
        """The item's own file, or its bytes where it lies in a tar file.

        None where it is gone or its path would lead out of the collection.
        """
        root = Path(self.manifest.collection).resolve()
        place = shards.split(root, item.path)
        file = (place[0] if place else root / item.path).resolve()
        if not file.is_relative_to(root) or not file.is_file():
            return None
        if place is None:
            return file
        try:
            return read_bytes(root, item.path, ImageLimits.model_validate(self.manifest.limits))
        except (OSError, FC7Error):
            return None


def new_version(index: Path) -> Path:
    """An empty folder to write the next version's files to; unfinished ones from before are removed."""
    _check_current(index)
    partial = index / "versions" / ".partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial


def _check_current(index: Path) -> None:
    current = index / "current"
    if current.exists() and not (current.is_symlink() and current.resolve().name.isdecimal()):
        raise Mismatch(f"{current} is not a link to versions/<n>, as after a copy that followed links; link it, or remove it")


def publish(index: Path, partial: Path, **facts: Any) -> int:
    """Describes the files in `partial`, names the version, makes it current and drops versions too old to go back to.

    `facts` are the fields of Manifest that the files do not tell. At every moment `current` is the old version or the new one.
    """
    files = {}
    for path in sorted(partial.iterdir()):
        sync(path)
        files[path.name] = FileRecord(bytes=path.stat().st_size, sha256=sha256_of(path))
    manifest = Manifest(created=datetime.now(UTC).isoformat(timespec="seconds"), files=files, **facts)
    with replacing(partial / MANIFEST) as path:
        path.write_text(manifest.model_dump_json(indent=2) + "\n")
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


def open_index(index: Path) -> OpenIndex:
    """Opens the current version after verifying every file of it. Raises NotReady or Mismatch, naming what disagrees."""
    if not (index / "current").is_dir():
        raise NotReady(f"no index at {index}; `python -m indexer.build --index {index}` makes one")
    folder = (index / "current").resolve()
    _check_current(index)
    manifest = _read_manifest(folder)
    for name, record in manifest.files.items():
        verify(folder / name, record.bytes, record.sha256, MANIFEST)
    vectors = open_float_index(folder / FLOAT)
    try:
        catalog = Catalog(folder / CATALOG)
        counts = {CATALOG: len(catalog), FLOAT: len(vectors)}
    except sqlite3.Error as error:
        raise Mismatch(f"{folder / CATALOG} is not a catalogue: {error}") from error
    for name, count in counts.items():
        if count != manifest.kept:
            raise Mismatch(f"{name} of {folder} holds {count} items, {MANIFEST} says {manifest.kept}")
    if vectors.width != manifest.width:
        raise Mismatch(f"{FLOAT} of {folder} has vectors of {vectors.width} components, {MANIFEST} says {manifest.width}")
    return OpenIndex(int(folder.name), folder, manifest, catalog, vectors, np.memmap(folder / THUMBNAILS, np.uint8, "r"))


def check_pair(index: OpenIndex, fingerprint: str) -> None:
    """Raises Mismatch where the index was not made with the model of this fingerprint."""
    if index.manifest.model != fingerprint:
        raise Mismatch(
            f"the index {index.folder} was made with the model {index.manifest.model[:12]}, "
            f"the model at hand is {fingerprint[:12]}; build the index again, or give the model it was made with"
        )


def rejects(index: OpenIndex) -> list[dict[str, str]]:
    """The files left out of the index, each with its path and the reason."""
    return [json.loads(line) for line in (index.folder / REJECTS).read_text().splitlines()]


def _versions(index: Path) -> list[int]:
    return sorted(int(path.name) for path in (index / "versions").iterdir() if path.name.isdecimal() and path.is_dir())


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise Mismatch(f"{folder} has no {MANIFEST}: not a version of an index, or a damaged one") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise Mismatch(f"{path} is not a manifest: {'.'.join(map(str, first['loc']))} {first['msg']}") from error
    if manifest.format != FORMAT:
        raise Mismatch(f"{path} has format {manifest.format}, this program reads format {FORMAT}")
    for name in (CATALOG, FLOAT, THUMBNAILS, REJECTS):
        if name not in manifest.files:
            raise Mismatch(f"{path} does not list {name}")
    return manifest
