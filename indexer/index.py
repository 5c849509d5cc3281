"""An index on disk as a store: a version, searched over all its segments. See indexer/store.py for what the methods promise.

Legend: N rows, Q queries, D feature width, W bytes of a code.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from indexer import changes
from indexer.arrays import Codes, Ids, Vectors
from indexer.features import FeatureBlock
from indexer.metric import Metric, vectors_of
from indexer.search.ranking import key_of
from indexer.search.searcher import Searcher
from indexer.search.shortlists import open_shortlists
from indexer.storage import artifact
from indexer.storage.artifact import Manifest
from indexer.storage.atlas import Atlas
from indexer.storage.originals import read_original, sweep_uploads
from indexer.storage.segment import code_bytes
from indexer.storage.version import Version, open_version
from indexer.store import Filter, Hits, Item, Query, check_mode, metric_of, without_codes
from training.errors import BadValue, NotFound


class Index:
    """One version of an index on disk."""

    def __init__(self, version: Version) -> None:
        self._version = version
        self._is_swept = False
        self._segments, self._deleted = version.segments, version.deleted
        shortlists = open_shortlists(version)
        length = version.manifest.shortlist.length if version.manifest.shortlist else 0
        manifest = version.manifest
        self._searcher = Searcher(version.segments, shortlists, length, manifest.bits, version.deleted, manifest.metric)

    @property
    def version(self) -> Version:
        """The version on disk."""
        return self._version

    @property
    def folder(self) -> Path:
        """The version's folder."""
        return self._version.folder

    @property
    def manifest(self) -> Manifest:
        """What made it, and what is in it."""
        return self._version.manifest

    @property
    def version_number(self) -> int:
        """Rises with every change."""
        return self._version.number

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the model that made the vectors."""
        return self.manifest.fingerprint

    @property
    def metric(self) -> Metric:
        """What the distance between two vectors is."""
        return self.manifest.metric

    @property
    def width(self) -> int:
        """Components of a vector."""
        return self.manifest.width

    @property
    def bits(self) -> int:
        """Bits of a code; 0 where there are none."""
        return self.manifest.bits

    @property
    def atlas(self) -> Atlas | None:
        """What excites each unit most, as of the build; None where that made no atlas."""
        return self._version.atlas

    def __len__(self) -> int:
        return self.manifest.kept

    def search(self, queries_QD: Vectors, query: Query) -> Hits:
        """The nearest items of each float32 (Q, D) feature. Raises BadValue; see Store.search."""
        check_mode(query.mode, self.bits)
        if queries_QD.ndim != 2 or queries_QD.shape[1] != self.width:
            raise BadValue("queries", queries_QD.shape, f"a table of {self.width} columns")
        queries_QD = query.compared(vectors_of(queries_QD, self.metric), metric_of(query, self.metric))
        autoencoder = self._version.autoencoder if self._searcher.needs_codes(query) else None
        codes_QW = autoencoder.encode(queries_QD) if autoencoder else None
        return self._searcher.search(queries_QD, codes_QW, query)

    def key(self, query_D: Vectors, item: int, query: Query) -> float:
        """What `search` orders this item by; see Hits. Raises NotFound."""
        return key_of(self, self._version.autoencoder, query_D, item, query)

    def count(self, filter: Filter) -> int:
        """Items that pass a filter."""
        return self._searcher.count(filter)

    def labels(self) -> dict[str, int]:
        """How many items each label has; see Store.labels."""
        counts: Counter[str] = Counter()
        for segment in self._segments:
            counts.update(segment.catalog.labels())
            counts.subtract(item.label for item in segment.catalog.items(self._deleted.tolist()).values())
        return {label: count for label, count in sorted(counts.items()) if count}

    def first(self, most: int, filter: Filter, after: int) -> list[Item]:
        """The first items that pass a filter; see Store.first."""
        ids: list[int] = []
        for segment, mask in zip(self._segments, self._searcher.passing(filter), strict=True):
            start = int(np.searchsorted(segment.ids_N, after, side="right"))
            left = segment.ids_N[start:] if mask is None else segment.ids_N[start:][mask[start:] != 0]
            ids += left[: most - len(ids)].tolist()
        return self.items(ids)

    def ids(self) -> Ids:
        """The ids of all items, ascending."""
        ids = np.concatenate([np.empty(0, np.int64), *(segment.ids_N for segment in self._segments)])
        return ids[~np.isin(ids, self._deleted)]

    def vectors(self, ids: Sequence[int]) -> Vectors:
        """The stored vectors, float32 (n, D); see Store.vectors. Raises NotFound for the first id that is not there."""
        if not len(ids):
            return np.empty((0, self.width), np.float32)
        return self._gather(ids, [segment.vectors_ND for segment in self._segments])

    def codes(self, ids: Sequence[int]) -> Codes:
        """The stored codes, uint8 (n, W). Raises NotFound like `vectors`."""
        if not self.bits:
            raise NotFound(without_codes(f"the index {self.folder}"))
        if not len(ids):
            return np.empty((0, code_bytes(self.bits)), np.uint8)
        return self._gather(ids, [segment.codes_NW for segment in self._segments])

    def items(self, ids: Sequence[int]) -> list[Item]:
        """What the catalogue knows of them. Raises NotFound like `vectors`."""
        entries: dict[int, Item] = {}
        for segment in self._segments:
            if len(entries) < len(ids):
                entries |= segment.catalog.items(ids)
        for item in ids:
            if item not in entries or self._is_deleted(item):
                raise self._not_found(item)
        return [entries[item] for item in ids]

    def thumbnail(self, item: Item) -> bytes:
        """The item's thumbnail, a JPEG file's bytes. Raises NotFound."""
        return self._segments[self._find(item.id)[0]].thumbnail(item)

    def original(self, item: Item) -> Path | bytes:
        """The item's own file, or its bytes where it lies in a tar file. Raises Gone and NotFound; see read_original."""
        return read_original(self._version.index, self.manifest, item, self.manifest.limits)

    def holding(self, sha256s: Iterable[str]) -> dict[str, int]:
        """Which of these files are among the items: SHA-256 -> the item's id."""
        return changes.holding(self._version, list(sha256s))

    def add(self, feature_blocks: Iterable[FeatureBlock], root: Path) -> tuple[Self, list[int]]:
        """The index with these items too, published, and the ids they got."""
        ids, changed = changes.add(self._version, feature_blocks, root)
        return (self._after_change() if changed else self), ids

    def remove(self, ids: Sequence[int]) -> Self:
        """The index without these items, published. Raises NotFound, and then removes none."""
        for item in ids:
            self._find(item)
        changes.remove(self._version, ids)
        return self._after_change()

    def renewed(self) -> Self:
        """The current version; what this one has of it is not read again. Raises Mismatch where the rest does not verify."""
        index = type(self)(open_version(self._version.index, self._version))
        index._is_swept = self._is_swept
        return index

    def close(self) -> None:
        """Closes the catalogues; the arrays go with the last reference to them."""
        self._version.close()

    def _after_change(self) -> Self:
        index = self.renewed()
        if not self._is_swept:  # once in a process: what was left was left by processes before it
            sweep_uploads(self._version.index, index, artifact.reject_records(index.folder))
            index._is_swept = True
        return index

    def _gather(self, ids: Sequence[int], arrays: Sequence[NDArray[Any] | None]) -> NDArray[Any]:
        rows = []
        for item in ids:
            segment, row = self._find(item)
            array = arrays[segment]
            assert array is not None  # noqa: S101  every segment has what the manifest says
            rows.append(array[row])
        return np.stack(rows)

    def _find(self, item: int) -> tuple[int, int]:
        """Segment and row of an item."""
        for number, segment in enumerate(self._segments):
            row = int(np.searchsorted(segment.ids_N, item))
            if row < len(segment) and segment.ids_N[row] == item and not self._is_deleted(item):
                return number, row
        raise self._not_found(item)

    def _is_deleted(self, item: int) -> bool:
        row = int(np.searchsorted(self._deleted, item))
        return row < len(self._deleted) and bool(self._deleted[row] == item)

    def _not_found(self, item: int) -> NotFound:
        return NotFound(f"no item has the id {item}; the index holds {len(self)} items with ids below {self.manifest.next_id}")


def open_index(index: Path, contents: bool = True) -> Index:
    """Opens the current version of an index folder; see storage/version.py."""
    return Index(open_version(index, contents=contents))
