"""The items of one segment of an index: what every id is a picture of. One SQLite file, written once, read by many threads."""

import json
import sqlite3
import sys
import threading
from collections.abc import Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from indexer.arrays import Ids
from indexer.storage import artifact
from indexer.store import LATEST, Item, normalised
from training.errors import Mismatch, NotReady
from training.images.preprocess import FORMATS

_AMONG = "{} IN (SELECT value FROM json_each(?))"
_SURROGATES, _AFTER_SURROGATES = 0xD800, 0xE000  # which no text holds
_NAMES = [field.name for field in fields(Item)]
_COLUMNS = ", ".join(
    f"{field.name} {'INTEGER' if field.type in (int, 'int') else 'TEXT'} {'PRIMARY KEY' if field.name == 'id' else 'NOT NULL'}"
    for field in fields(Item)
)


_TABLE = f"CREATE TABLE items ({_COLUMNS}) STRICT"
# paths in Unicode's form NFC, which SQLite does not know
_PATHS = "CREATE TABLE paths (path TEXT NOT NULL, id INTEGER NOT NULL, PRIMARY KEY (path, id)) STRICT, WITHOUT ROWID"
_WRONG = (
    "SELECT id FROM items WHERE length(sha256) != 64 OR sha256 GLOB '*[^0-9a-f]*' OR size < 0 OR width < 1 OR height < 1 "
    "OR thumbnail_start < 0 OR thumbnail_size < 0 OR thumbnail_start + thumbnail_size > ? OR added < 0 OR added > ? "
    "OR format NOT IN (SELECT value FROM json_each(?)) LIMIT 1"
)
_DIFFERENT = (
    "SELECT id FROM items WHERE NOT EXISTS (SELECT 1 FROM paths WHERE paths.path = nfc(items.path) AND paths.id = items.id) "
    "UNION ALL SELECT id FROM (SELECT id, count(*) AS times FROM paths GROUP BY id) WHERE times > 1 OR id NOT IN "
    "(SELECT id FROM items) LIMIT 1"
)


class CatalogWriter:
    """Makes a catalogue file, some items at a time. Raises NotReady where the disk does not take it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._connection = sqlite3.connect(path, isolation_level=None)
        except sqlite3.Error as error:
            raise NotReady(f"{path} cannot be written: {error}") from error
        # a file that is not finished is thrown away, and publishing it flushes it
        for statement in (
            "PRAGMA journal_mode=OFF",
            "PRAGMA synchronous=OFF",
            _TABLE,
            _PATHS,
            "BEGIN",
        ):
            self._execute(statement)

    def add(self, items: Sequence[Item]) -> None:
        """Appends items, whose ids rise."""
        marks = ", ".join("?" * len(_NAMES))
        rows = [astuple(item) for item in items]
        paths = [(normalised(item.path), item.id) for item in items]
        try:
            self._connection.executemany(f"INSERT INTO items VALUES ({marks})", rows)  # noqa: S608
            self._connection.executemany("INSERT INTO paths VALUES (?, ?)", paths)
        except sqlite3.Error as error:
            raise NotReady(f"{self._path} cannot be written: {error}") from error

    def close(self) -> None:
        """Completes the file."""
        for name in ("sha256", "label", "added"):
            self._execute(f"CREATE INDEX items_{name} ON items ({name})")
        self._execute("COMMIT")
        self._connection.close()

    def _execute(self, statement: str) -> None:
        try:
            self._connection.execute(statement)
        except sqlite3.Error as error:
            raise NotReady(f"{self._path} cannot be written: {error}") from error


class Catalog:
    """Read access to a catalogue file."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False)
        self._lock = threading.Lock()

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._connection.close()

    def __len__(self) -> int:
        return int(self._rows("SELECT count(*) FROM items", None)[0][0])

    def check(self, path: Path, ids_N: Ids, thumbnail_bytes: int) -> None:
        """Raises Mismatch unless it describes exactly the items with these ids, by what may be said of a photograph."""
        tables = self._rows("SELECT sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%' AND type != 'index'", None)
        if tables != [(_TABLE,), (_PATHS,)]:
            raise Mismatch(f"{path} is not a catalogue: it has other tables")
        ids = np.fromiter((item for (item,) in self._rows("SELECT id FROM items ORDER BY id", None)), np.int64)
        if not np.array_equal(ids, ids_N):
            raise Mismatch(f"{path} describes other items than {artifact.VECTORS} beside it lists")
        with self._lock:
            wrong = self._connection.execute(_WRONG, (thumbnail_bytes, LATEST, json.dumps(list(FORMATS)))).fetchone()
        if wrong:
            raise Mismatch(f"{path} describes the item {wrong[0]} as no photograph can be")
        with self._lock:
            self._connection.create_function("nfc", 1, normalised, deterministic=True)
            different = self._connection.execute(_DIFFERENT).fetchone()
        if different:
            raise Mismatch(f"{path} lists other paths than those of its items, the first of the item {different[0]}")

    def paths_below(self, root: str) -> dict[int, str]:
        """The paths of the items whose files lie below a folder, by id."""
        with self._lock:
            return dict(self._connection.execute("SELECT id, path FROM items WHERE root = ?", (root,)).fetchall())

    def items(self, ids: Sequence[int]) -> dict[int, Item]:
        """Those of `ids` that are here."""
        rows = self._rows(f"SELECT {', '.join(_NAMES)} FROM items WHERE {_AMONG.format('id')}", ids)  # noqa: S608
        return {row[0]: Item(*row) for row in rows}

    def labels(self) -> dict[str, int]:
        """How many items each label has."""
        return dict(self._rows("SELECT label, count(*) FROM items GROUP BY label", None))

    def ids_of_labels(self, labels: Sequence[str]) -> Ids:
        """The items of any of these labels, in no order."""
        return _ids(self._rows(f"SELECT id FROM items WHERE {_AMONG.format('label')}", labels))  # noqa: S608

    def ids_of_paths(self, prefix: str) -> Ids:
        """The items whose paths begin with these characters, which are in the form NFC, in no order."""
        end = _after(prefix)
        query, bounds = ("path >= ?", [prefix]) if end is None else ("path >= ? AND path < ?", [prefix, end])
        with self._lock:
            return _ids(self._connection.execute(f"SELECT id FROM paths WHERE {query}", bounds).fetchall())  # noqa: S608

    def ids_of_times(self, after: int | None, before: int | None) -> Ids:
        """The items that were added at `after` or later, and before `before`, in no order; see Item.added."""
        bounds = (0 if after is None else after, LATEST + 1 if before is None else before)
        with self._lock:
            return _ids(self._connection.execute("SELECT id FROM items WHERE added >= ? AND added < ?", bounds).fetchall())

    def holding(self, sha256s: Sequence[str]) -> list[tuple[str, int]]:
        """(SHA-256, id) of the items whose files' hashes are among these."""
        return self._rows(f"SELECT sha256, id FROM items WHERE {_AMONG.format('sha256')} ORDER BY id", sha256s)  # noqa: S608

    def column(self, name: Literal["path", "label", "sha256"]) -> list[str]:
        """One field of every item, in order of id."""
        return [value for (value,) in self._rows(f"SELECT {name} FROM items ORDER BY id", None)]  # noqa: S608

    def _rows(self, query: str, among: Sequence[int] | Sequence[str] | None) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._connection.execute(query, () if among is None else (json.dumps(list(among)),)).fetchall()


def _ids(rows: Sequence[tuple[int]]) -> Ids:
    return np.fromiter((item for (item,) in rows), np.int64, len(rows))


def _after(prefix: str) -> str | None:
    """The first text after all that begin with these characters, in order of code points, as in UTF-8; None: there is none."""
    for end in reversed(range(len(prefix))):
        following = ord(prefix[end]) + 1
        if following <= sys.maxunicode:
            return prefix[:end] + chr(_AFTER_SURROGATES if following == _SURROGATES else following)
    return None
