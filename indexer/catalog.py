"""The items of an index: what row i of the float index is a picture of. One SQLite file, written once, read by many threads."""

import sqlite3
import threading
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from training.errors import FC7Error, NotFound


@dataclass(frozen=True)
class Item:
    """One indexed photograph."""

    id: int  # row in the float index, from 0
    path: str  # below the collection's folder, with forward slashes
    label: str  # the folder it lay in; "" for none
    size: int  # bytes
    width: int  # pixels, as stored
    height: int
    format: str  # "JPEG", "PNG", ...
    sha256: str  # of the file
    thumbnail_start: int  # byte offset in the thumbnail file
    thumbnail_size: int  # bytes


_NAMES = [field.name for field in fields(Item)]
_COLUMNS = ", ".join(
    f"{field.name} {'INTEGER' if field.type in (int, 'int') else 'TEXT'} {'PRIMARY KEY' if field.name == 'id' else 'NOT NULL'}"
    for field in fields(Item)
)


def write_catalog(path: Path, items: Iterable[Item]) -> int:
    """Makes the catalogue file; returns how many items it holds."""
    connection = sqlite3.connect(path)
    try:
        with connection:
            connection.execute(f"CREATE TABLE items ({_COLUMNS}) STRICT")
            marks = ", ".join("?" * len(_NAMES))
            cursor = connection.executemany(f"INSERT INTO items VALUES ({marks})", (astuple(item) for item in items))  # noqa: S608
            return cursor.rowcount if cursor.rowcount > 0 else 0
    except sqlite3.Error as error:
        raise FC7Error(f"{path} cannot be written: {error}") from error
    finally:
        connection.close()


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
        return int(self._rows("SELECT count(*) FROM items", ())[0][0])

    def item(self, item_id: int) -> Item:
        """One item. Raises NotFound, naming the id and the range there is."""
        return self.items([item_id])[0]

    def items(self, ids: Sequence[int]) -> list[Item]:
        """Items in the order of `ids`. Raises NotFound for the first that is not there."""
        marks = ", ".join("?" * len(ids))
        rows = self._rows(f"SELECT {', '.join(_NAMES)} FROM items WHERE id IN ({marks})", ids)  # noqa: S608
        found = {row[0]: Item(*row) for row in rows}
        for item_id in ids:
            if item_id not in found:
                raise NotFound(f"no item has the id {item_id}; the index holds {len(self)} items, numbered from 0")
        return [found[item_id] for item_id in ids]

    def column(self, name: Literal["path", "label", "sha256"]) -> list[str]:
        """One field of every item, in order of id."""
        return [value for (value,) in self._rows(f"SELECT {name} FROM items ORDER BY id", ())]  # noqa: S608

    def _rows(self, query: str, values: Sequence[int]) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._connection.execute(query, values).fetchall()
