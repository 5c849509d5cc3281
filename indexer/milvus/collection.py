"""One Milvus collection of items: its fields, its rows, and all of them by distance, past Milvus's limit of 16384 a search.

A second, small collection, `<name>_state`, holds one row: what the collection was made for, the next id, the changes so far;
milvus-lite has no properties of a collection to keep them in. The collection's description names its metric, where that is not
euclidean; Milvus compares vectors by L2 with either. Labels and paths never stand in an expression, whose quoting and wildcards
differ between Milvus and milvus-lite: a label's SHA-256 does, and a path's bytes in hexadecimal.

Legend: D feature width, W bytes of a code, K hits.
"""

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from indexer.arrays import Codes, Ids, Keys, Vectors, blocks
from indexer.metric import Metric
from indexer.milvus.connection import Connection
from indexer.store import Filter, Item, normalised
from training.errors import FC7Error, Mismatch, NotReady

LIMIT: Final = 16384  # Milvus's own: hits of one search, rows of one answer
_ROWS: Final = 200  # in one request: 5 MB; Milvus takes 64, but milvus-lite stalls for seconds past 10
_GROWTH: Final = 4
_TEXT_BYTES: Final = 65535  # Milvus's longest VARCHAR
_LARGEST: Final = float(np.finfo(np.float32).max)
_HASHES: Final = {"sha256": 64, "label_sha256": 64}
_TEXTS: Final = {  # bytes at most
    "root": 16384,
    "path": 16384,
    "path_hex": _TEXT_BYTES,
    "label": 16384,
    "format": 32,
    "thumbnail": _TEXT_BYTES,
    **_HASHES,
}
_NUMBERS: Final = ("size", "width", "height", "thumbnail_size", "added")
ITEM: Final = ("id", "root", "path", "label", "size", "width", "height", "format", "sha256", "thumbnail_size", "added")
_METRIC: Final = {"vector": "L2", "code": "HAMMING"}

Block = tuple[Keys, Ids, float]


@dataclass(frozen=True)
class State:
    """The row of a collection's state."""

    fingerprint: str  # of the model
    encoder: str  # fingerprint of the autoencoder; "" for none
    width: int  # components of a vector
    code_bits: int  # stored for a code, in whole bytes; 0 for none
    next_id: int
    version: int


class Collection:
    """Access to a collection, by name. Its methods raise like Connection's."""

    def __init__(self, connection: Connection, name: str) -> None:
        self._connection = connection
        self.name = name

    def exists(self) -> bool:
        """Whether Milvus has it."""
        return bool(self._call("has_collection"))

    def create(self, state: State, metric: Metric) -> None:
        """Makes it, empty; its state last, so that one without is one that was not finished."""
        fields: list[dict[str, Any]] = [{"field_name": "vector", "datatype": "FLOAT_VECTOR", "dim": state.width}]
        if state.code_bits:
            fields.append({"field_name": "code", "datatype": "BINARY_VECTOR", "dim": state.code_bits})
        fields += [{"field_name": name, "datatype": "VARCHAR", "max_length": size} for name, size in _TEXTS.items()]
        fields += [{"field_name": name, "datatype": "INT64"} for name in _NUMBERS]
        self._make(self.name, fields, inverted=[*_HASHES, "path_hex"], description="" if metric == "euclidean" else metric)
        texts = [{"field_name": name, "datatype": "VARCHAR", "max_length": 64} for name in ("fingerprint", "encoder")]
        numbers = [{"field_name": name, "datatype": "INT64"} for name in ("width", "code_bits", "next_id")]
        # a collection needs a vector, and no vector has fewer than two components
        self._make(self._state, [{"field_name": "vector", "datatype": "FLOAT_VECTOR", "dim": 2}, *texts, *numbers], inverted=())
        self.write_state(state)

    def drop(self) -> None:
        """Deletes it with all its items."""
        for name in (self._state, self.name):
            self._connection.call("drop_collection", collection_name=name)

    def state(self) -> State:
        """Its state now. Raises NotReady where there is no such collection, Mismatch where it is not ours or was not finished."""
        if not self.exists():
            raise NotReady(f"{self} does not exist; `python -m indexer.build` with --store makes it")
        names = ["id", *(name for name in State.__dataclass_fields__ if name != "version")]
        there = self._connection.call("has_collection", collection_name=self._state)
        rows = self._query("id >= 0", names, self._state) if there else []
        if not rows:
            raise Mismatch(
                f"{self} has no {self._state}: something else made it, or it was not finished; drop it, or name another"
            )
        newest = max(rows, key=lambda row: int(row["id"]))
        return State(version=newest["id"], **{name: newest[name] for name in names[1:]})

    def metric(self) -> str:
        """What the distance between two of its vectors is."""
        return str(self._call("describe_collection")["description"]) or "euclidean"

    def write_state(self, state: State) -> None:
        """Replaces its state by one of a higher version. The new one comes before the old goes: at every moment there is one."""
        row = asdict(state) | {"vector": [0.0, 0.0]}
        row["id"] = row.pop("version")
        self._connection.call("insert", collection_name=self._state, data=[row])
        self._connection.call("delete", collection_name=self._state, filter=f"id < {state.version}")

    def count(self, expression: str = "") -> int:
        """Its items, or those that satisfy an expression."""
        return int(self._call("query", filter=expression, output_fields=["count(*)"], consistency_level="Strong")[0]["count(*)"])

    def insert(self, items: Sequence[Item], vectors_ND: Vectors, codes_NW: Codes | None, jpegs: Sequence[bytes]) -> None:
        """Adds items with their vectors, codes and thumbnails. Raises FC7Error for a thumbnail past what a field holds."""
        for block in blocks(len(items), _ROWS):
            rows = []
            for i in range(block.start, block.stop):
                row = {name: getattr(items[i], name) for name in ITEM} | {"vector": vectors_ND[i]}
                row["label_sha256"] = _sha256(items[i].label)
                row["path_hex"] = _hex(items[i].path)
                row["thumbnail"] = base64.b64encode(jpegs[i]).decode()
                if len(row["thumbnail"]) > _TEXT_BYTES:
                    raise FC7Error(
                        f"the thumbnail of {items[i].path} has {len(jpegs[i])} bytes, Milvus takes {_TEXT_BYTES * 3 // 4}"
                    )
                if codes_NW is not None:
                    row["code"] = codes_NW[i].tobytes()
                rows.append(row)
            self._call("insert", data=rows)

    def delete(self, ids: Sequence[int]) -> None:
        """Deletes items, by id."""
        for block in blocks(len(ids), LIMIT):
            self._call("delete", ids=list(ids[block]))

    def rows(self, ids: Sequence[int], fields: Sequence[str]) -> dict[int, dict[str, Any]]:
        """Fields of those of these items that are there, by id."""
        rows = {}
        for block in blocks(len(ids), _ROWS):
            for row in self._query(among(ids[block]), ["id", *fields]):
                rows[row["id"]] = row
        return rows

    def ids(self) -> Ids:
        """The ids of all items, ascending."""
        return np.sort(np.array([row["id"] for rows in self.after(-1) for row in rows], np.int64))

    def after(self, item: int, expression: str = "", fields: Sequence[str] = ()) -> Iterator[list[dict[str, Any]]]:
        """Fields, and the id, of the items of larger ids than this that satisfy an expression; those of each part are larger."""
        for window in self._windows(item + 1):
            yield self._query(both(window, expression), ["id", *fields])

    def having(self, sha256s: Sequence[str]) -> Iterator[tuple[str, int]]:
        """(SHA-256, id) of the items whose files' hashes are among these, which are hexadecimal."""
        for block in blocks(len(sha256s), _ROWS):
            some = ", ".join(f'"{sha256}"' for sha256 in sha256s[block])
            for row in self._query(f"sha256 in [{some}]", ["id", "sha256"]):
                yield row["sha256"], row["id"]

    def ascending(
        self,
        field: str,
        target: NDArray[Any],
        first: int,
        within: tuple[float | None, float | None] = (None, None),
        expression: str = "",
        first_id: int = 0,
    ) -> Iterator[Block]:
        """The items by distance of their `field` from `target`: squared Euclidean in float32, or Hamming.

        A block is (distances, ids, reach), ordered by distance, then id; every item nearer than `reach`, and it alone, has been
        given when the block has. The first is of about `first` items. `within` are the least and the largest distance, both
        included; `first_id` is the least id.
        """
        # pymilvus's search_iterator stops at ties: of 3000 rows it gave the first 401, all at 0, in batches of 100
        size, (low, high) = first, within
        if low is not None and low > (_LARGEST / 2 if high is None else high):  # Milvus refuses what is none
            return
        expression = both(expression, f"id >= {first_id}" if first_id else "")
        while True:
            size = min(size, LIMIT)
            distances, ids = self._search(field, target, size, low, high, expression)
            if len(ids) < size:
                yield (*_ordered(distances, ids), float("inf"))
                return
            reach = float(distances[-1])
            nearer = distances < reach
            if nearer.any():
                yield (*_ordered(distances[nearer], ids[nearer]), reach)
                low = reach
            elif size == LIMIT:  # more than one search can give, all at one distance
                low = _next(field, reach)
                for window in self._windows(first_id):
                    yield (*_ordered(*self._search(field, target, LIMIT, reach, reach, both(expression, window))), reach)
                yield np.empty(0), np.empty(0, np.int64), low
            size *= _GROWTH

    def _search(
        self, field: str, target: NDArray[Any], size: int, low: float | None, high: float | None, expression: str
    ) -> tuple[Keys, Ids]:
        limits = {}
        if low is not None or high is not None:
            limits["radius"] = _LARGEST if high is None else _next(field, high)  # excluded by Milvus
        if low is not None:
            limits["range_filter"] = low
        hits = self._call(
            "search",
            data=[target.tobytes() if field == "code" else target],
            anns_field=field,
            limit=size,
            filter=expression,
            search_params={"metric_type": _METRIC[field], "params": limits},
            consistency_level="Strong",
        )[0]
        return np.array(hits.distances, np.float64), np.array(hits.ids, np.int64)

    def _windows(self, first_id: int) -> Iterator[str]:
        """Expressions that part the ids into windows of at most LIMIT, ascending."""
        for block in blocks(self.state().next_id - first_id, LIMIT):
            yield f"id >= {first_id + block.start} and id < {first_id + block.stop}"

    def _query(self, expression: str, fields: list[str], collection: str | None = None) -> list[dict[str, Any]]:
        answer = self._connection.call(
            "query",
            collection_name=collection or self.name,
            filter=expression,
            output_fields=fields,
            limit=LIMIT,
            consistency_level="Strong",
            strict_float32=True,
        )
        return list(answer)

    def _make(self, name: str, fields: list[dict[str, Any]], inverted: Sequence[str], description: str = "") -> None:
        from pymilvus import DataType, MilvusClient

        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False, description=description)
        schema.add_field("id", DataType.INT64, is_primary=True)
        index = MilvusClient.prepare_index_params()
        for described in fields:
            field = described["field_name"]
            schema.add_field(**described | {"datatype": DataType[described["datatype"]]})
            if field in _METRIC:
                kind = "FLAT" if field == "vector" else "BIN_FLAT"
                index.add_index(field, index_type=kind, metric_type=_METRIC[field])
        for field in inverted:
            index.add_index(field, index_type="INVERTED")
        self._connection.call("create_collection", collection_name=name, schema=schema, consistency_level="Strong")
        self._connection.call("create_index", collection_name=name, index_params=index, sync=False)
        self._connection.call("load_collection", collection_name=name)

    @property
    def _state(self) -> str:
        return f"{self.name}_state"

    def _call(self, method: str, **arguments: Any) -> Any:
        return self._connection.call(method, collection_name=self.name, **arguments)

    def __str__(self) -> str:
        return f"the collection {self.name} of {self._connection.address.shown}"


def passing(filter: Filter) -> str:
    """The expression that items satisfy that pass a filter; "" for all."""
    parts = []
    if filter.labels:
        parts.append(f"label_sha256 in {_list(filter.labels)}")
    if filter.exclude_labels:
        parts.append(f"label_sha256 not in {_list(filter.exclude_labels)}")
    if filter.path_prefix:
        parts.append(f'path_hex like "{_hex(filter.path_prefix)}%"')
    after, before = filter.added
    if after is not None:
        parts.append(f"added >= {after}")
    if before is not None:
        parts.append(f"added < {before}")
    return " and ".join(parts)


def item_of(row: dict[str, Any]) -> Item:
    """The item of a row with the fields ITEM."""
    return Item(thumbnail_start=0, **{name: row[name] for name in ITEM})


def among(ids: Sequence[int]) -> str:
    """The expression that items with these ids satisfy."""
    return f"id in {[int(item) for item in ids]}"


def apart_from(ids: Sequence[int]) -> str:
    """The expression that all other items satisfy."""
    return f"id not in {list(ids)}"


def both(one: str, other: str) -> str:
    """The expression of what satisfies two; "" is satisfied by all."""
    return f"({one}) and ({other})" if one and other else one or other


def _list(labels: Sequence[str]) -> str:
    return "[{}]".format(", ".join(f'"{_sha256(label)}"' for label in labels))


def _hex(path: str) -> str:
    return normalised(path).encode().hex()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _next(field: str, distance: float) -> float:
    if field == "code":
        return int(distance) + 1
    return float(np.nextafter(np.float32(distance), np.float32(np.inf)))


def _ordered(distances: Keys, ids: Ids) -> tuple[Keys, Ids]:
    order = np.lexsort((ids, distances))
    return distances[order], ids[order]
