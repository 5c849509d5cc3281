"""A part of an index that never changes: rows of vectors and codes, and the catalogue and thumbnails beside them.

Rows are in order of id. Legend: N rows, D feature width, W bytes of a code, P raw pixels (32 x 32 RGB).
"""

import shutil
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from indexer.arrays import Codes, Ids, Mask, Rows, Vectors, blocks
from indexer.codes.autoencoder import Autoencoder
from indexer.codes.principal import Principal
from indexer.features import RAW_SIZE
from indexer.storage import artifact, flat
from indexer.storage.catalog import Catalog, CatalogWriter
from indexer.storage.flat import FlatWriter, open_flat
from indexer.storage.rows import RowWriter, open_rows
from indexer.store import Filter, Item
from training.errors import BadValue, Mismatch

PIXELS: Final = 3 * RAW_SIZE**2


@dataclass(frozen=True, eq=False)
class Segment:
    """An opened segment; its arrays are memory maps, but for the ids."""

    ids_N: Ids  # ascending
    vectors_ND: Vectors
    codes_NW: Codes | None
    components_NP: NDArray[np.uint8] | None  # of the short-list "principal"
    lengths_N2: Vectors | None
    pixels_NP: NDArray[np.uint8] | None
    pixel_codes_NW: Codes | None
    catalog: Catalog
    thumbnails: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.ids_N)

    def thumbnail(self, item: Item) -> bytes:
        """The item's thumbnail, a JPEG file's bytes."""
        return self.thumbnails[item.thumbnail_start : item.thumbnail_start + item.thumbnail_size].tobytes()

    def passing(self, filter: Filter) -> Mask:
        """The rows that pass a filter."""
        mask = np.ones(len(self), np.uint8)
        if filter.labels:
            mask &= self._mask(self.catalog.ids_of_labels(filter.labels))
        if filter.exclude_labels:
            mask &= 1 - self._mask(self.catalog.ids_of_labels(filter.exclude_labels))
        if filter.path_prefix:
            mask &= self._mask(self.catalog.ids_of_paths(filter.path_prefix))
        if filter.added != (None, None):
            mask &= self._mask(self.catalog.ids_of_times(*filter.added))
        return mask

    def _mask(self, ids: Ids) -> Mask:
        mask = np.zeros(len(self), np.uint8)
        mask[self.rows_of(ids)] = 1
        return mask

    def rows_of(self, ids: Ids) -> Rows:
        """The rows of those of these ids that are here."""
        rows: Rows = np.searchsorted(self.ids_N, ids)
        inside = rows < len(self)
        rows = rows[inside]
        here: Rows = rows[self.ids_N[rows] == ids[inside]]
        return here


def code_bytes(bits: int) -> int:
    """Bytes of a stored code; 0 for no code."""
    return -(-bits // 8)


class SegmentWriter:
    """Writes the files of a segment, some items at a time; `finish` completes them."""

    def __init__(self, folder: Path, width: int, with_pixels: bool) -> None:
        folder.mkdir()
        self._folder = folder
        self._vectors = FlatWriter(folder / artifact.VECTORS, flat.VECTORS, width)
        self._pixels = RowWriter(folder / artifact.PIXELS, np.uint8, PIXELS) if with_pixels else None
        self._catalog = CatalogWriter(folder / artifact.CATALOG)
        self._thumbnails: BinaryIO = (folder / artifact.THUMBNAILS).open("wb")

    @property
    def rows(self) -> int:
        """Items written so far."""
        return self._vectors.rows

    def add(
        self, items: Sequence[Item], vectors_ND: Vectors, pixels_NP: NDArray[np.uint8] | None, thumbnails: Sequence[bytes]
    ) -> None:
        """Appends items whose ids rise, with their thumbnails, wherever these lay before."""
        if not np.isfinite(vectors_ND).all():
            raise BadValue("features", "NaN or infinity", "finite; the model's weights are damaged, or too large")
        start, rows = self._thumbnails.tell(), []
        for item in items:
            rows.append(replace(item, thumbnail_start=start))
            start += item.thumbnail_size
        self._vectors.write(np.array([item.id for item in items], np.int64), vectors_ND)
        if self._pixels is not None and pixels_NP is not None:
            self._pixels.write(pixels_NP)
        self._catalog.add(rows)
        self._thumbnails.write(b"".join(thumbnails))

    def copy(self, segment: Segment, deleted: Ids) -> None:
        """Appends the rows of a segment, but for those that have been removed."""
        for block in blocks(len(segment)):
            rows = np.arange(block.start, block.stop)
            rows = rows[~np.isin(segment.ids_N[block], deleted)]
            entries = segment.catalog.items(segment.ids_N[rows].tolist())
            if len(entries) != len(rows):
                raise Mismatch(f"{artifact.CATALOG} describes {len(entries)} of {len(rows)} items; build the index again")
            items = [entries[item] for item in segment.ids_N[rows].tolist()]
            pixels = None if segment.pixels_NP is None else segment.pixels_NP[rows]
            self.add(items, segment.vectors_ND[rows], pixels, list(map(segment.thumbnail, items)))

    def finish(self) -> int:
        """Completes the files; returns how many rows they have."""
        self._vectors.close()
        if self._pixels is not None:
            self._pixels.close()
        self._catalog.close()
        self._thumbnails.close()
        return self.rows


class SegmentDraft:
    """A segment in the making: a folder for its items, and for what is then made of their vectors."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def writer(self, width: int, with_pixels: bool) -> SegmentWriter:
        """Makes the folder, and writes its items."""
        return SegmentWriter(self._folder, width, with_pixels)

    def discard(self) -> None:
        """Removes what has been written."""
        shutil.rmtree(self._folder)

    def open(self, width: int) -> Segment:
        """The items that were written, without what has been made of them."""
        return open_segment(self._folder, width, 0, 0, 0)

    def vectors(self) -> Vectors:
        """A memory map of the vectors, float32 (N, D)."""
        return open_flat(self._folder / artifact.VECTORS, flat.VECTORS, None)[1]

    def codes(self) -> Codes:
        """A memory map of the codes, uint8 (N, W)."""
        return open_flat(self._folder / artifact.CODES, flat.CODES, None)[1]

    def pixels(self) -> NDArray[Any]:
        """A memory map of the raw pixels, uint8 (N, P)."""
        return _map(self._folder / artifact.PIXELS)

    def components(self) -> tuple[NDArray[np.uint8], Vectors]:
        """Memory maps of what Principal.encode makes of the vectors."""
        return _map(self._folder / artifact.COMPONENTS), _map(self._folder / artifact.LENGTHS)

    def write_codes(self, autoencoder: Autoencoder) -> None:
        """Writes the codes of the vectors."""
        ids_N, rows_ND = open_flat(self._folder / artifact.VECTORS, flat.VECTORS, None)
        writer = FlatWriter(self._folder / artifact.CODES, flat.CODES, code_bytes(autoencoder.bits))
        for block in blocks(len(rows_ND)):
            writer.write(ids_N[block], autoencoder.encode(rows_ND[block]))
        writer.close()

    def write_pixel_codes(self, autoencoder: Autoencoder) -> None:
        """Writes the codes of the raw pixels."""
        rows_NP = self.pixels()
        writer = RowWriter(self._folder / artifact.PIXEL_CODES, np.uint8, code_bytes(autoencoder.bits))
        for block in blocks(len(rows_NP)):
            writer.write(autoencoder.encode(rows_NP[block].astype(np.float32)))
        writer.close()

    def write_components(self, principal: Principal) -> None:
        """Writes the principal components of the vectors."""
        rows_ND = self.vectors()
        components = RowWriter(self._folder / artifact.COMPONENTS, np.uint8, principal.basis_DP.shape[1])
        lengths = RowWriter(self._folder / artifact.LENGTHS, np.float32, 2)
        for block in blocks(len(rows_ND)):
            components_NP, lengths_N2 = principal.encode(rows_ND[block])
            components.write(components_NP)
            lengths.write(lengths_N2)
        components.close()
        lengths.close()


def _map(path: Path) -> NDArray[Any]:
    rows: NDArray[Any] = np.load(path, mmap_mode="r")
    return rows


def open_segment(
    folder: Path, width: int, code_bytes: int, components: int, pixel_code_bytes: int, contents: bool = False
) -> Segment:
    """Opens a segment whose files have been verified; 0 bytes: there are none. Raises Mismatch where they disagree.

    With `contents` every item of the catalogue is looked at.
    """
    try:
        catalog = Catalog(folder / artifact.CATALOG)
        items = len(catalog)
    except sqlite3.Error as error:
        raise Mismatch(f"{folder / artifact.CATALOG} is not a catalogue: {error}") from error
    ids_N, vectors_ND = open_flat(folder / artifact.VECTORS, flat.VECTORS, width)
    codes_NW = None
    if code_bytes:
        ids_of_codes_N, codes_NW = open_flat(folder / artifact.CODES, flat.CODES, code_bytes)
        if not np.array_equal(ids_of_codes_N, ids_N):
            raise Mismatch(f"{folder / artifact.CODES} has other ids than {artifact.VECTORS} beside it")
    thumbnails = folder / artifact.THUMBNAILS
    segment = Segment(
        ids_N,
        vectors_ND,
        codes_NW,
        open_rows(folder / artifact.COMPONENTS, np.uint8, components) if components else None,
        open_rows(folder / artifact.LENGTHS, np.float32, 2) if components else None,
        open_rows(folder / artifact.PIXELS, np.uint8, PIXELS) if pixel_code_bytes else None,
        open_rows(folder / artifact.PIXEL_CODES, np.uint8, pixel_code_bytes) if pixel_code_bytes else None,
        catalog,
        np.memmap(thumbnails, np.uint8, "r") if thumbnails.stat().st_size else np.empty(0, np.uint8),
    )
    for name, rows in (
        (artifact.VECTORS, segment.vectors_ND),
        (artifact.COMPONENTS, segment.components_NP),
        (artifact.LENGTHS, segment.lengths_N2),
        (artifact.PIXELS, segment.pixels_NP),
        (artifact.PIXEL_CODES, segment.pixel_codes_NW),
    ):
        if rows is not None and len(rows) != items:
            raise Mismatch(f"{name} of {folder} has {len(rows)} rows, {artifact.CATALOG} holds {items} items")
    if contents:
        try:
            catalog.check(folder / artifact.CATALOG, segment.ids_N, len(segment.thumbnails))
        except sqlite3.Error as error:
            raise Mismatch(f"{folder / artifact.CATALOG} is not a catalogue: {error}") from error
    return segment
