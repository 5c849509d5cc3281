"""The next version of an index: written aside, described, and made current by one atomic rename."""

import json
import shutil
from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from indexer.arrays import Ids
from indexer.codes import autoencoder
from indexer.codes.autoencoder import Autoencoder
from indexer.codes.principal import Principal
from indexer.storage import artifact, atlas, layout
from indexer.storage.artifact import FileRecord, Manifest, RejectRecord, WithManifest
from indexer.storage.atlas import Atlas
from indexer.storage.layout import Layout
from indexer.storage.rows import write_rows
from indexer.storage.segment import SegmentDraft
from training.files import sha256_of, sync, verify

_KEPT_VERSIONS: Final = 2


class Draft:
    """A version in the making. Whoever makes one holds the index (training.files.exclusively)."""

    def __init__(self, index: Path) -> None:
        """Begins with an empty folder; an unfinished draft is removed. Raises Mismatch where `current` is not a link."""
        artifact.check_current(index)
        self._index = index
        self._folder = index / artifact.VERSIONS / ".partial"
        self._records: dict[str, FileRecord] = {}
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)

    def discard(self) -> None:
        """Removes what has been written."""
        shutil.rmtree(self._folder)

    def segment(self, number: int) -> SegmentDraft:
        """A segment, by its place in Manifest.segments."""
        return SegmentDraft(self._folder / artifact.segment(number))

    @property
    def faiss_file(self) -> Path:
        """Where a short-list by FAISS is written to."""
        return self._folder / artifact.FAISS

    def take_over(self, version: WithManifest, segments: int, without: Collection[str]) -> None:
        """Puts files of a version here too, but for those named in `without`: its own, and those of its first segments.

        They become hard links, which cost nothing and are not read again, or copies where there can be no links.
        """
        for name, record in version.manifest.files.items():
            number = artifact.segment_of(name)
            if Path(name).name in without or (number is not None and number >= segments):
                continue
            (self._folder / name).parent.mkdir(exist_ok=True)
            try:
                (self._folder / name).hardlink_to(version.folder / name)
            except OSError:
                shutil.copyfile(version.folder / name, self._folder / name)
                sync(self._folder / name)
                verify(self._folder / name, record.bytes, record.sha256, artifact.MANIFEST)
            self._records[name] = record

    def write_autoencoder(self, encoder: Autoencoder) -> None:
        """Writes what makes the codes."""
        autoencoder.save(encoder, self._folder / artifact.AUTOENCODER)

    def write_pixel_autoencoder(self, encoder: Autoencoder) -> None:
        """Writes what makes the codes of raw pixels."""
        autoencoder.save(encoder, self._folder / artifact.PIXEL_AUTOENCODER)

    def write_principal(self, principal: Principal) -> None:
        """Writes what makes the components of the short-list "principal"."""
        principal.save(self._folder / artifact.PRINCIPAL)

    def write_atlas(self, units: Atlas) -> None:
        """Writes which photographs excite each unit most."""
        atlas.save(units, self._folder / artifact.ATLAS)

    def write_layout(self, places: Layout) -> None:
        """Writes the map."""
        layout.write(self._folder / artifact.MAP, places)

    def write_deleted(self, ids_N: Ids) -> None:
        """Writes the list of removed items, int64 (N,), ascending."""
        write_rows(self._folder / artifact.DELETED, ids_N)

    def write_rejects(self, rejects: Iterable[RejectRecord]) -> None:
        """Writes the list of files left out."""
        lines = (json.dumps(reject._asdict()) + "\n" for reject in rejects)
        (self._folder / artifact.REJECTS).write_text("".join(lines))

    def write(self, name: str, data: bytes) -> None:
        """Writes a file of the version by its name."""
        (self._folder / name).write_bytes(data)

    def publish(self, manifest: Manifest) -> int:
        """Completes the manifest by `created` and `files`, names the version, makes it current, and drops versions too old.

        Returns its number. At every moment `current` is the old version or the new one.
        """
        manifest = manifest.model_copy()
        manifest.created = datetime.now(UTC).isoformat(timespec="seconds")
        manifest.files = {name: self._record(name) for name in self._names()}
        artifact.write_manifest(self._folder, manifest.model_dump_json(indent=2) + "\n")
        for folder in self._folder.iterdir():
            if folder.is_dir():
                sync(folder)
        number = max((int(folder.name) for folder in artifact.version_folders(self._index)), default=0) + 1
        self._folder.rename(self._folder.with_name(str(number)))
        sync(self._folder.parent)
        link = self._index / ".current.partial"
        link.unlink(missing_ok=True)
        link.symlink_to(Path(artifact.VERSIONS) / str(number))
        link.replace(self._index / artifact.CURRENT)
        sync(self._index)
        for old in artifact.version_folders(self._index)[:-_KEPT_VERSIONS]:
            shutil.rmtree(old, ignore_errors=True)
        return number

    def _names(self) -> list[str]:
        return sorted(path.relative_to(self._folder).as_posix() for path in self._folder.rglob("*") if path.is_file())

    def _record(self, name: str) -> FileRecord:
        """What a file is, flushed to the disk; those of another version keep theirs."""
        if name in self._records:
            return self._records[name]
        path = self._folder / name
        sync(path)
        return FileRecord(bytes=path.stat().st_size, sha256=sha256_of(path))
