"""A version of an index, opened: verified against its manifest, its arrays mapped into memory.

Legend: N rows.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from indexer.arrays import Ids
from indexer.codes import autoencoder, principal
from indexer.codes.autoencoder import Autoencoder
from indexer.codes.principal import Principal
from indexer.storage import artifact, atlas
from indexer.storage.artifact import Manifest
from indexer.storage.atlas import Atlas
from indexer.storage.catalog import Catalog
from indexer.storage.rows import check_ascending, open_rows
from indexer.storage.segment import PIXELS, Segment, code_bytes, open_segment
from training.errors import Mismatch


@dataclass(frozen=True, eq=False)
class Version:
    """A verified version. Its files are held open: it may be deleted while it is in use."""

    index: Path  # the folder whose `current` it was
    folder: Path
    manifest: Manifest
    segments: list[Segment]
    deleted: Ids  # ascending
    autoencoder: Autoencoder | None
    principal: Principal | None
    pixel_autoencoder: Autoencoder | None
    atlas: Atlas | None

    @property
    def number(self) -> int:
        """Rises with every change of the index."""
        return int(self.folder.name)

    @property
    def faiss_file(self) -> Path:
        """The short-list by FAISS, where there is one."""
        return self.folder / artifact.FAISS

    def close(self) -> None:
        """Closes the catalogues; the maps go with the last reference to them."""
        for segment in self.segments:
            segment.catalog.close()


def open_version(index: Path, known: Version | None = None, contents: bool = True) -> Version:
    """Opens the current version after verifying it. Raises NotReady or Mismatch, naming what disagrees.

    Files that `known`, an earlier version, has too are not read again. Without `contents` only sizes are compared, which is for
    those who change an index and must not cost more than their change.
    """
    folder = artifact.current(index)
    manifest = artifact.read_manifest(folder)
    if manifest.milvus:
        raise Mismatch(f"the items of {folder} are in Milvus at {manifest.milvus.uri}, which keeps itself compact")
    old = known.manifest.files if known else {}
    changed = {name: record for name, record in manifest.files.items() if old.get(name) != record}
    artifact.verify_files(folder, manifest if not known else manifest.model_copy(update={"files": changed}), contents)
    basis = principal.load(folder / artifact.PRINCIPAL, manifest.width) if artifact.PRINCIPAL in manifest.files else None
    components = basis.basis_DP.shape[1] if basis else 0
    widths = (manifest.width, code_bytes(manifest.bits), components, code_bytes(manifest.pixel_bits))
    segments, first = [], 0
    for number, rows in enumerate(manifest.segments):
        if known and number < len(known.segments) and not any(artifact.segment_of(name) == number for name in changed):
            catalog = Catalog(folder / artifact.segment(number) / artifact.CATALOG)
            segments.append(replace(known.segments[number], catalog=catalog))
        else:
            segments.append(open_segment(folder / artifact.segment(number), *widths, contents))
        if len(segments[-1]) != rows:
            raise Mismatch(f"segment {number} of {folder} holds {len(segments[-1])} items, {artifact.MANIFEST} says {rows}")
        vectors = folder / artifact.segment(number) / artifact.VECTORS
        check_ascending(vectors, segments[-1].ids_N, first, manifest.next_id)
        first = int(segments[-1].ids_N[-1]) + 1
    deleted = np.array(open_rows(folder / artifact.DELETED, np.int64, None))
    check_ascending(folder / artifact.DELETED, deleted, 0, manifest.next_id)
    if len(deleted) != manifest.deleted or sum(len(segment.rows_of(deleted)) for segment in segments) != len(deleted):
        raise Mismatch(f"{folder / artifact.DELETED} holds {len(deleted)} ids, not {manifest.deleted} that are items")
    if sum(manifest.segments) - len(deleted) != manifest.kept:
        raise Mismatch(
            f"{folder} holds {sum(manifest.segments)} items of which {len(deleted)} are removed, "
            f"{artifact.MANIFEST} says {manifest.kept} are kept"
        )
    return Version(
        index,
        folder,
        manifest,
        segments,
        deleted,
        load_autoencoder(folder, manifest),
        basis,
        load_pixel_autoencoder(folder, manifest),
        known.atlas if known and artifact.ATLAS not in changed else load_atlas(folder, manifest),
    )


def load_autoencoder(folder: Path, manifest: Manifest) -> Autoencoder | None:
    """What makes the codes of a version; None where it has none. Raises Mismatch where it is not as the manifest says."""
    return _autoencoder(folder / artifact.AUTOENCODER, manifest.bits, manifest.width)


def load_pixel_autoencoder(folder: Path, manifest: Manifest) -> Autoencoder | None:
    """What makes the codes of raw pixels of a version; like `load_autoencoder`."""
    return _autoencoder(folder / artifact.PIXEL_AUTOENCODER, manifest.pixel_bits, PIXELS)


def load_atlas(folder: Path, manifest: Manifest) -> Atlas | None:
    """What excites each unit most, as of the build; None where a version has no atlas. Raises Mismatch like the others."""
    if artifact.ATLAS not in manifest.files:
        return None
    return atlas.load(folder / artifact.ATLAS, manifest.fingerprint, manifest.next_id)


def _autoencoder(path: Path, bits: int, width: int) -> Autoencoder | None:
    if not bits:
        return None
    loaded = autoencoder.load(path)
    if loaded.width != width:
        raise Mismatch(f"{path} is for vectors of {loaded.width} components, not {width}")
    if loaded.bits != bits:
        raise Mismatch(f"{path} makes codes of {loaded.bits} bits, {artifact.MANIFEST} says {bits}")
    return loaded
