"""A collection in Milvus as a store. See indexer/store.py for what the methods promise.

Milvus finds in float32; what it finds is fetched and compared again in float64, so that answers are those of an index on disk.
All stores of one collection see it as it is now, in whichever process: an item is there from the moment that Milvus has taken it.
One process at a time may change a collection (training.files.exclusively on the index folder).

Legend: N items, Q queries, D feature width, W bytes of a code.
"""

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Final, Self

import numpy as np

from indexer.arrays import Codes, Ids, Keys, Vectors
from indexer.codes.autoencoder import Autoencoder
from indexer.features import FeatureBlock
from indexer.metric import Metric, most_squared, vectors_of
from indexer.milvus import collection, connection
from indexer.milvus.collection import ITEM, Collection, State
from indexer.milvus.connection import Address
from indexer.scans import scan
from indexer.search.ranking import by_vector, cut, hamming, key_of, stack
from indexer.search.shortlist import length_for
from indexer.storage.originals import read_original, recorded_root
from indexer.storage.segment import code_bytes
from indexer.store import Filter, Hits, Item, Query, check_mode, metric_of, now, without_codes
from training.errors import BadValue, Mismatch, NotFound
from training.images.preprocess import ImageLimits

_SPARE: Final = 16  # hits asked for beyond k, so that one search mostly shows which k are nearest
_GROWTH: Final = 4
_SHORTLIST: Final = 200  # for NEIGHBORS, where nobody has measured
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


class MilvusStore:
    """One collection in Milvus, as it was when opened or changed by this store; what is in it is always as it is now."""

    def __init__(
        self,
        address: Address,
        name: str,
        autoencoder: Autoencoder | None,
        limits: ImageLimits,
        shortlist: int = _SHORTLIST,
        metric: Metric = "euclidean",
    ) -> None:
        """Connects. `autoencoder` makes the codes; None for no codes. `shortlist` is how many items two-stage search compares for
        NEIGHBORS. Raises NotReady where Milvus does not answer or is not installed, Busy for a file open elsewhere."""
        self._address, self._name, self._autoencoder, self._limits = address, name, autoencoder, limits
        self._shortlist, self.metric = shortlist, metric
        self._connection = connection.connect(address, self)
        self._collection = Collection(self._connection, name)
        self._state: State
        self._index_folder = Path()  # where uploads are below

    @classmethod
    def open(
        cls,
        uri: str | Address,
        name: str,
        autoencoder: Autoencoder | None,
        fingerprint: str,
        limits: ImageLimits,
        shortlist: int = _SHORTLIST,
        metric: Metric = "euclidean",
    ) -> Self:
        """The store of a collection that is there; see connection.parse for `uri`.

        Raises Mismatch where another model or autoencoder made it, or it has another metric, and NotReady or Busy like __init__.
        """
        address = connection.parse(uri) if isinstance(uri, str) else uri
        return cls(address, name, autoencoder, limits, shortlist, metric)._connected(fingerprint)

    @classmethod
    def create(
        cls,
        uri: str,
        name: str,
        width: int,
        autoencoder: Autoencoder | None,
        fingerprint: str,
        limits: ImageLimits,
        shortlist: int = _SHORTLIST,
        metric: Metric = "euclidean",
    ) -> Self:
        """The store of a new, empty collection, or of the one that is there, with what it holds, where all of these made it.

        Raises Mismatch where another model or autoencoder did, or it has another metric, and NotReady or Busy like __init__.
        """
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,240}", name):
            raise BadValue("collection", name, "letters, digits and _, the first no digit")
        return cls(connection.parse(uri), name, autoencoder, limits, shortlist, metric)._connected(fingerprint, width)

    @property
    def version_number(self) -> int:
        """Rises with every change."""
        return self._state.version

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the model that made the vectors."""
        return self._state.fingerprint

    @property
    def width(self) -> int:
        """Components of a vector."""
        return self._state.width

    @property
    def bits(self) -> int:
        """Bits of a code; 0 where there are none."""
        return self._autoencoder.bits if self._autoencoder else 0

    @property
    def next_id(self) -> int:
        """The first id that was never given."""
        return self._state.next_id

    @property
    def address(self) -> str:
        """Where the collection is, without a token: what a manifest records, and `open` takes."""
        return self._address.shown

    def __len__(self) -> int:
        return self._collection.count()

    def search(self, queries_QD: Vectors, query: Query) -> Hits:
        """The nearest items of each float32 (Q, D) feature. Raises BadValue; see Store.search."""
        check_mode(query.mode, self.bits)
        if query.columns != "both" or metric_of(query, self.metric) != self.metric:
            name, value = ("columns", query.columns) if query.columns != "both" else ("metric", query.metric)
            wanted = "both" if name == "columns" else self.metric
            raise BadValue(
                name, value, f"{wanted}: Milvus compares whole vectors, by the index's metric; an index on disk does this"
            )
        queries_QD = vectors_of(queries_QD, self.metric)
        expression = collection.passing(query.filter)
        if query.without:
            expression = collection.both(expression, collection.apart_from(query.without))
        if query.is_exact or self._autoencoder is None:
            return by_vector(stack([self._exact(query_D, query, expression) for query_D in queries_QD]), self.metric)
        codes_QW = self._autoencoder.encode(queries_QD)
        if query.mode == "two-stage":
            hits_Q = [self._two_stage(*both, query, expression) for both in zip(queries_QD, codes_QW, strict=True)]
            return by_vector(stack(hits_Q), self.metric)
        hits = stack([first_of(self._by_code(code_W, query, expression), query) for code_W in codes_QW])
        # Milvus compares every code: there are no buckets to look up
        return hamming(hits, np.full(len(codes_QW), len(self)) if query.mode == "ball" else None)

    def key(self, query_D: Vectors, item: int, query: Query) -> float:
        """What `search` orders this item by; see Hits. Raises NotFound."""
        return key_of(self, self._autoencoder, query_D, item, query)

    def count(self, filter: Filter) -> int:
        """Items that pass a filter."""
        return self._collection.count(collection.passing(filter))

    def labels(self) -> dict[str, int]:
        """How many items each label has; see Store.labels. It goes through all of them."""
        counts = Counter(row["label"] for rows in self._collection.after(-1, "", ["label"]) for row in rows)
        return dict(sorted(counts.items()))

    def first(self, most: int, filter: Filter, after: int) -> list[Item]:
        """The first items that pass a filter; see Store.first."""
        ids: list[int] = []
        for rows in self._collection.after(after, collection.passing(filter), []):
            ids += sorted(row["id"] for row in rows)
            if len(ids) >= most:
                break
        return self.items(ids[:most])

    def ids(self) -> Ids:
        """The ids of all items, ascending."""
        return self._collection.ids()

    def vectors(self, ids: Sequence[int]) -> Vectors:
        """The stored vectors, float32 (n, D); see Store.vectors. Raises NotFound for the first id that is not there."""
        rows = self._rows(ids, ["vector"])
        return np.array([row["vector"] for row in rows], np.float32).reshape(len(ids), self.width)

    def codes(self, ids: Sequence[int]) -> Codes:
        """The stored codes, uint8 (n, W). Raises NotFound like `vectors`."""
        if self._autoencoder is None:
            raise NotFound(without_codes(str(self._collection)))
        rows = self._rows(ids, ["code"])
        return np.frombuffer(b"".join(row["code"][0] for row in rows), np.uint8).reshape(len(ids), -1)

    def items(self, ids: Sequence[int]) -> list[Item]:
        """What the catalogue knows of them. Raises NotFound like `vectors`."""
        return [collection.item_of(row) for row in self._rows(ids, ITEM)]

    def thumbnail(self, item: Item) -> bytes:
        """The item's thumbnail, a JPEG file's bytes. Raises NotFound."""
        return base64.b64decode(self._rows([item.id], ["thumbnail"])[0]["thumbnail"])

    def holding(self, sha256s: Iterable[str]) -> dict[str, int]:
        """Which of these files are among the items: SHA-256 -> the item's id, the smallest where several are."""
        known: dict[str, int] = {}
        for sha256, item in self._collection.having([sha256 for sha256 in sha256s if _SHA256.fullmatch(sha256)]):
            known[sha256] = min(item, known.get(sha256, item))
        return known

    def original(self, item: Item) -> Path | bytes:
        """The item's own file, or its bytes where it lies in a tar file. Raises Gone and NotFound; see read_original."""
        return read_original(self._index_folder, None, item, self._limits)

    def add(self, feature_blocks: Iterable[FeatureBlock], root: Path) -> tuple[Self, list[int]]:
        """The store with these items too, and the ids they got, row for row; files that it holds already keep their id.

        An addition that is killed leaves what Milvus had taken of it, 200 items at a time; the same again adds the rest.
        """
        store, ids = self, []
        known: dict[str, int] = {}
        added = now()
        for block in feature_blocks:
            hashes = [file.sha256 for file in block.files]
            known |= self.holding(sha256 for sha256 in hashes if sha256 not in known)
            first = {sha256: row for row, sha256 in reversed(list(enumerate(hashes)))}
            new = [row for row, sha256 in enumerate(hashes) if sha256 not in known and first[sha256] == row]
            store, given = store._append(block, root, new, added)
            known |= {hashes[row]: item for row, item in zip(new, given, strict=True)}
            ids += [known[sha256] for sha256 in hashes]
        return store, ids

    def fill(self, feature_blocks: Iterable[FeatureBlock], root: Path, index: Path | None = None) -> Self:
        """The store with an item for every row, in order, also for equal files. Raises Mismatch where it is not empty.

        `index` is the folder whose uploads some of them may be.
        """
        self._index_folder = index or self._index_folder
        if len(self):
            raise Mismatch(f"{self._collection} holds {len(self)} items already; drop it, or name another")
        store, added = self, now()
        for block in feature_blocks:
            store, _ = store._append(block, root, range(len(block.files)), added)
        return store

    def remove(self, ids: Sequence[int]) -> Self:
        """The store without these items; their ids are never given again. Raises NotFound, and then removes none."""
        self._rows(ids, ["id"])
        self._collection.delete(ids)
        return self._changed()

    def renewed(self) -> Self:
        """The collection as it is now, on the same connection. Raises Mismatch where it has become another."""
        return self._with(self._collection.state())

    def drop(self) -> None:
        """Deletes the collection with all its items."""
        self._collection.drop()

    def close(self) -> None:
        """Lets go of the connection; others of this process that use it keep it. Again is harmless."""
        connection.disconnect(self._connection, self)

    def _exact(self, query_D: Vectors, query: Query, expression: str) -> tuple[Keys, Ids]:
        """The hits of one query among the items that satisfy the expression."""
        length = float(np.linalg.norm(query_D.astype(np.float64)))
        # of a float32 sum of squared differences, whatever its order; twice the usual bound for eight partial sums
        share = 2.0**-23 * (self.width / 8 + 8)

        def slack(squared: float) -> float:
            return share * (2 * length + float(np.sqrt(squared))) ** 2

        most = most_squared(query.max_distance, self.metric)
        low = None if query.after is None else max(0.0, query.after[0] - slack(query.after[0]))
        high = None if most is None else most + slack(most)
        nearest: tuple[Keys, Ids] = cut([], query)
        for _, ids, reach in self._collection.ascending("vector", query_D, query.k + _SPARE, (low, high), expression):
            rows = self._collection.rows(ids.tolist(), ["vector"])
            here = np.array([item for item in ids.tolist() if item in rows], np.int64)  # others may have been removed meanwhile
            vectors_ND = np.array([rows[item]["vector"] for item in here.tolist()], np.float32).reshape(-1, self.width)
            squared = scan.distances(vectors_ND, query_D, np.arange(len(here)))
            near = squared <= (np.inf if most is None else most)
            nearest = cut([nearest, (squared[near], here[near])], query)
            if len(nearest[1]) == query.k and nearest[0][-1] < reach - slack(reach):
                break
        return nearest

    def _by_code(self, code_W: Codes, query: Query, expression: str) -> Iterator[tuple[Keys, Ids]]:
        """The items in order of their codes' distance, then id, some at a time."""
        limits = [float(most) for most in (query.max_distance, query.radius) if most is not None]
        most = int(min([*limits, self._state.code_bits]))
        ranges = [(0, most, 0)]
        if query.after is not None:
            key = int(query.after[0])
            ranges = [(key, min(key, most), query.after[1] + 1), (key + 1, most, 0)]
        for low, high, first_id in ranges:
            within = (low or None, high)
            for keys, ids, _ in self._collection.ascending("code", code_W, 2 * query.k + _SPARE, within, expression, first_id):
                yield keys, ids

    def _two_stage(self, query_D: Vectors, code_W: Codes, query: Query, expression: str) -> tuple[Keys, Ids]:
        """The hits of one query among those with the nearest codes, more and more until they give what was asked for."""
        length, before = length_for(self._shortlist, query.k), -1
        while length < collection.LIMIT:
            by_code = Query(k=length, mode="code")
            ids = first_of(self._by_code(code_W, by_code, expression), by_code)[1]
            if len(ids) < length:
                break
            nearest = self._exact(query_D, query, collection.among(ids.tolist()))
            stuck = query.max_distance is not None and len(nearest[1]) == before
            if len(nearest[1]) == query.k or stuck:
                return nearest
            length, before = length * _GROWTH, len(nearest[1])
        return self._exact(query_D, query, expression)

    def _rows(self, ids: Sequence[int], names: Sequence[str]) -> list[dict[str, Any]]:
        rows = self._collection.rows(ids, names)
        for item in ids:
            if item not in rows:
                now = self._collection.state()
                raise NotFound(f"no item has the id {item}; the index holds {len(self)} items with ids below {now.next_id}")
        return [rows[item] for item in ids]

    def _append(self, block: FeatureBlock, root: Path, rows: Sequence[int], added: int) -> tuple[Self, list[int]]:
        """Adds rows of a block. The ids are taken before the items come, so that none is given twice whatever happens between."""
        if not rows:
            return self, []
        if block.features_ND.shape[1] != self.width:
            raise Mismatch(f"the features have {block.features_ND.shape[1]} components, {self._collection} has {self.width}")
        vectors_ND = vectors_of(block.features_ND[list(rows)], self.metric)
        state = self._collection.state()
        ids = list(range(state.next_id, state.next_id + len(rows)))
        self._collection.write_state(replace(state, version=state.version + 1, next_id=state.next_id + len(rows)))
        folder, jpegs = recorded_root(self._index_folder, block.folder or root), block.jpegs()
        items = [Item.of(block.files[row], item, folder, added) for item, row in zip(ids, rows, strict=True)]
        codes_NW = self._autoencoder.encode(vectors_ND) if self._autoencoder else None
        self._collection.insert(items, vectors_ND, codes_NW, [jpegs[row] for row in rows])
        return self._changed(), ids

    def _changed(self) -> Self:
        state = self._collection.state()
        state = replace(state, version=state.version + 1)
        self._collection.write_state(state)
        return self._with(state)

    def _with(self, state: State) -> Self:
        store = type(self)(self._address, self._name, self._autoencoder, self._limits, self._shortlist, self.metric)
        store._state, store._index_folder = state, self._index_folder
        store._check(self.fingerprint, self.width)
        return store

    def _connected(self, fingerprint: str, width: int | None = None) -> Self:
        """This store with its state, of a collection that is made where it is not there and a width is given."""
        try:
            if width and not self._collection.exists():
                bits = 8 * code_bytes(self.bits)
                state = State(fingerprint, _fingerprint(self._autoencoder), width, bits, next_id=0, version=1)
                self._collection.create(state, self.metric)
            self._state = self._collection.state()
            self._check(fingerprint, width or self._state.width)
        except BaseException:
            self.close()
            raise
        return self

    def _check(self, fingerprint: str, width: int) -> None:
        state, encoder = self._state, _fingerprint(self._autoencoder)
        pairs = {
            "model": (fingerprint, state.fingerprint),
            "autoencoder": (encoder, state.encoder),
            "metric": (self.metric, self._collection.metric()),
            "width": (str(width), str(state.width)),
        }
        for what, (ours, theirs) in pairs.items():
            if ours != theirs:
                raise Mismatch(
                    f"{self._collection} was made with the {what} {theirs[:12] or 'none'}, the index at hand has "
                    f"{ours[:12] or 'none'}; give what it was made with, or name another collection"
                )


def first_of(blocks: Iterable[tuple[Keys, Ids]], query: Query) -> tuple[Keys, Ids]:
    """The first k of hits that come in order; no more blocks are asked for than it takes."""
    first = cut([], query)
    for block in blocks:
        first = cut([first, block], query)
        if len(first[1]) == query.k:
            break
    return first


def _fingerprint(autoencoder: Autoencoder | None) -> str:
    if autoencoder is None:
        return ""
    arrays = [getattr(autoencoder, part.name) for part in fields(autoencoder)]
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays if isinstance(array, np.ndarray))).hexdigest()
