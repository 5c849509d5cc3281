"""Rows with ids in FAISS's own files, which any FAISS reads: written a block at a time, opened as memory maps.

A file is what faiss.write_index makes of an IndexIDMap2 around an IndexFlatL2, or write_index_binary of an IndexBinaryIDMap2
around an IndexBinaryFlat: a header of 82 or of 58 bytes, the rows, their number and their ids. So no row lies at a multiple of 4
bytes: what takes rows copies them (indexer.arrays.aligned) or reads them as bytes (scans/native.c).

Legend: N rows.
"""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from indexer.arrays import Ids
from training.errors import Mismatch

_L2: Final = 1  # METRIC_L2, which a binary index has too
_UNUSED: Final = 2**20  # what FAISS writes in two places that it no longer uses
_COUNT: Final = struct.Struct("=q")


class Flat(NamedTuple):
    """A type of FAISS's indexes as a file. FAISS: impl/index_write.cpp, write_index_header and write_index_binary_header."""

    name: str
    dtype: DTypeLike  # of what a row is made of
    header: struct.Struct
    fields: Callable[[int, int], dict[str, int | bytes]]  # of the header, for rows of a width and their number


def _fields_of_vectors(width: int, rows: int) -> dict[str, int | bytes]:
    index = {"d": width, "ntotal": rows, "unused": _UNUSED, "unused too": _UNUSED, "is_trained": 1, "metric_type": _L2}
    return _around({"type": b"IxM2", **index}, {"type": b"IxF2", **index}, width * rows)


def _fields_of_codes(width: int, rows: int) -> dict[str, int | bytes]:
    index = {"d": 8 * width, "code_size": width, "ntotal": rows, "is_trained": 1, "metric_type": _L2}
    return _around({"type": b"IBM2", **index}, {"type": b"IBxF", **index}, width * rows)


def _around(outer: dict[str, int | bytes], inner: dict[str, int | bytes], size: int) -> dict[str, int | bytes]:
    return {**outer, **{f"{name} of the rows": value for name, value in inner.items()}, "length of the rows": size}


VECTORS: Final = Flat("IndexIDMap2,Flat", np.float32, struct.Struct("=4siqqqBi4siqqqBiq"), _fields_of_vectors)
CODES: Final = Flat("IndexBinaryIDMap2,BFlat", np.uint8, struct.Struct("=4siiqBi4siiqBiq"), _fields_of_codes)


class FlatWriter:
    """Writes rows of one width with their ids without knowing beforehand how many there will be."""

    def __init__(self, path: Path, flat: Flat, width: int) -> None:
        self._flat, self._width, self._ids, self.rows = flat, width, [np.empty(0, np.int64)], 0
        self._file = path.open("wb")
        self._file.write(bytes(flat.header.size))

    def write(self, ids_N: Ids, block: NDArray[Any]) -> None:
        """Appends rows, (N, width), and their ids."""
        if block.shape != (len(ids_N), self._width):
            raise ValueError(f"rows must have the shape {(len(ids_N), self._width)}, got {block.shape}")
        self._file.write(np.ascontiguousarray(block, self._flat.dtype).data)
        self._ids.append(ids_N.astype(np.int64))
        self.rows += len(block)

    def close(self) -> None:
        """Completes the file."""
        self._file.write(_COUNT.pack(self.rows))
        for ids_N in self._ids:
            self._file.write(ids_N.data)
        self._file.seek(0)
        self._file.write(self._flat.header.pack(*self._flat.fields(self._width, self.rows).values()))
        self._file.close()


def open_flat(path: Path, flat: Flat, width: int | None) -> tuple[Ids, NDArray[Any]]:
    """The ids, int64 (N,), in memory, and a read-only memory map of the rows, (N, width); None: as wide as the file says.

    Nothing of an unverified file comes to FAISS. Raises Mismatch where it is not, byte for byte, a file of so wide rows.
    """
    try:
        with path.open("rb") as file:
            header = file.read(flat.header.size)
            size = file.seek(0, 2)
            if len(header) < flat.header.size:
                raise Mismatch(f"{path} is not a file of FAISS's {flat.name}: it has {size} bytes")
            rows, width = _check_header(path, flat, header, width)
            end = flat.header.size + rows * width * np.dtype(flat.dtype).itemsize
            if size != end + _COUNT.size * (1 + rows):
                raise Mismatch(f"{path} has {size} bytes, which are not {rows} rows of {width} {np.dtype(flat.dtype)} with ids")
            file.seek(end)
            count = _COUNT.unpack(file.read(_COUNT.size))[0]
            if count != rows:
                raise Mismatch(f"{path} has {count} ids for {rows} rows")
            ids_N = np.fromfile(file, np.int64)
    except OSError as error:
        raise Mismatch(f"{path} cannot be read: {error}") from error
    return ids_N, np.memmap(path, flat.dtype, "r", flat.header.size, (rows, width))


def _check_header(path: Path, flat: Flat, header: bytes, width: int | None) -> tuple[int, int]:
    """The number of rows and their width. Raises Mismatch for the first field that FAISS does not write for such rows."""
    found = dict(zip(flat.fields(1, 0), flat.header.unpack(header), strict=True))
    width = int(found.get("code_size", found["d"])) if width is None else width
    rows = int(found["ntotal"])
    if rows < 0:
        raise Mismatch(f"{path} is not a file of FAISS's {flat.name}: its header says {rows} rows")
    for name, value in flat.fields(width, rows).items():
        if found[name] != value:
            raise Mismatch(
                f"{path} is not a file of FAISS's {flat.name} with rows of {width} {np.dtype(flat.dtype)}: "
                f"its header has {found[name]!r} for {name}, expected {value!r}"
            )
    return rows, width
