"""Neighbours by other means than the network: raw 32 x 32 pixels, codes of these, and the colours of thumbnails.

Legend: N rows, P raw pixels (32 x 32 RGB), L colours (4 x 4 x 4), W bytes of a code, K hits.
"""

import io
from collections.abc import Iterator, Sequence
from typing import Final
from weakref import ReferenceType, ref

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from indexer.arrays import Ids, Keys, Mask, Vectors, blocks
from indexer.features import colour_histogram
from indexer.scans import scan
from indexer.search.ranking import cut
from indexer.storage.segment import Segment
from indexer.storage.version import Version
from indexer.store import Query, Store
from training.errors import NotReady

MOST_COLOURS: Final = 100_000  # items whose histograms are kept: 26 MB
_BATCH: Final = 64
Found = list[tuple[int, float]]  # ids with their distances, nearest first


def by_pixels(version: Version, pixels_P: NDArray[np.uint8], query: Query) -> Found:
    """By the Euclidean distance of raw pixels, uint8 (P,)."""
    asked_1P, parts = pixels_P[None].astype(np.float32), []
    for segment in version.segments:
        assert segment.pixels_NP is not None  # noqa: S101
        mask = _mask(version, segment, query)
        for block in blocks(len(segment)):
            rows_NP = segment.pixels_NP[block].astype(np.float32)
            squared, rows = scan.exact(rows_NP, asked_1P, query.k, mask[block])
            parts.append(_hits(segment.ids_N[block], squared[0], rows[0]))
    return [(item, float(np.sqrt(key))) for item, key in _first(parts, query)]


def by_pixel_codes(version: Version, pixels_P: NDArray[np.uint8], query: Query) -> Found:
    """By the Hamming distance of codes of raw pixels."""
    assert version.pixel_autoencoder is not None  # noqa: S101
    code_1W, parts = version.pixel_autoencoder.encode(pixels_P[None].astype(np.float32)), []
    for segment in version.segments:
        assert segment.pixel_codes_NW is not None  # noqa: S101
        distances, rows = scan.hamming(segment.pixel_codes_NW, code_1W, query.k, _mask(version, segment, query))
        parts.append(_hits(segment.ids_N, distances[0].astype(np.float64), rows[0]))
    return list(_first(parts, query))


def pixels_of(version: Version, item: int) -> NDArray[np.uint8]:
    """The raw pixels of an item that is there, uint8 (P,)."""
    for segment in version.segments:
        for row in segment.rows_of(np.array([item], np.int64)):
            assert segment.pixels_NP is not None  # noqa: S101
            pixels_P: NDArray[np.uint8] = np.array(segment.pixels_NP[row])
            return pixels_P
    raise AssertionError(item)


def colours_of(jpegs: Sequence[bytes]) -> Vectors:
    """The colour histograms of thumbnails, float32 (N, L)."""
    squares = [torch.from_numpy(np.array(Image.open(io.BytesIO(jpeg)).convert("RGB"))).permute(2, 0, 1) for jpeg in jpegs]
    return colour_histogram(torch.stack(squares))


class Colours:
    """The colour histograms of an index's items, counted in their thumbnails at the first question, and kept by SHA-256.

    Those of what was added are counted at the next. Not for two threads at once.
    """

    def __init__(self) -> None:
        self._rows: dict[str, Vectors] = {}
        self._table: tuple[ReferenceType[Store], Ids, Vectors] | None = None

    def nearest(self, store: Store, colours_L: Vectors, query: Query) -> Found:
        """By Hellinger's distance, from 0 to 1, of float32 (L,). Raises NotReady where there are more items than are kept."""
        if self._table is None or self._table[0]() is not store:
            self._table = ref(store), *self._counted(store)
        _, ids_N, colours_NL = self._table
        mask = np.isin(ids_N, np.array(query.without, np.int64), invert=True).astype(np.uint8)
        squared, rows = scan.exact(colours_NL, colours_L[None], query.k, mask)
        return [(item, float(np.sqrt(key / 2))) for item, key in _first([_hits(ids_N, squared[0], rows[0])], query)]

    def _counted(self, store: Store) -> tuple[Ids, Vectors]:
        ids_N = store.ids()
        if len(ids_N) > MOST_COLOURS:
            raise NotReady(f"this index holds {len(ids_N)} items, and colours are counted of {MOST_COLOURS} at most")
        items = store.items(ids_N.tolist())
        new = [item for item in items if item.sha256 not in self._rows]
        for block in blocks(len(new), _BATCH):
            rows_BL = colours_of([store.thumbnail(item) for item in new[block]])
            self._rows |= {item.sha256: row_L for item, row_L in zip(new[block], rows_BL, strict=True)}
        self._rows = {item.sha256: self._rows[item.sha256] for item in items}
        return ids_N, np.array([self._rows[item.sha256] for item in items], np.float32).reshape(len(items), -1)


def _mask(version: Version, segment: Segment, query: Query) -> Mask:
    """The rows of a segment that are items, but for those that the query leaves out."""
    mask = np.ones(len(segment), np.uint8)
    for gone in (version.deleted, np.array(query.without, np.int64)):
        mask[segment.rows_of(gone)] = 0
    return mask


def _hits(ids_N: Ids, keys_K: Keys, rows_K: Ids) -> tuple[Keys, Ids]:
    here = rows_K >= 0
    return keys_K[here], ids_N[rows_K[here]]


def _first(parts: Sequence[tuple[Keys, Ids]], query: Query) -> Iterator[tuple[int, float]]:
    keys_K, ids_K = cut(parts, query)
    return zip(ids_K.tolist(), keys_K.tolist(), strict=True)
