"""Arrays of rows on disk, as NumPy's own .npy files: written a block at a time, opened as memory maps."""

import math
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.lib import format as npy
from numpy.typing import DTypeLike, NDArray

from indexer.arrays import blocks
from training.errors import Mismatch

_HEADER: Final = 128  # bytes that NumPy's header of one or two axes takes: it leaves room for more rows, and fills up to 64


class RowWriter:
    """Writes a (rows, width) array without knowing beforehand how many rows there will be."""

    def __init__(self, path: Path, dtype: DTypeLike, width: int | None) -> None:
        self._dtype, self._width, self.rows = np.dtype(dtype), width, 0
        self._file = path.open("wb")
        self._file.write(bytes(_HEADER))

    def write(self, block: NDArray[Any]) -> None:
        """Appends rows: (n, width), or (n,) where the width is None."""
        expected = block.shape[:1] if self._width is None else (len(block), self._width)
        if block.shape != expected:
            raise ValueError(f"rows must have the shape {expected}, got {block.shape}")
        self._file.write(np.ascontiguousarray(block, self._dtype).data)
        self.rows += len(block)

    def close(self) -> None:
        """Completes the file."""
        shape = (self.rows,) if self._width is None else (self.rows, self._width)
        self._file.seek(0)
        description = {"descr": npy.dtype_to_descr(self._dtype), "fortran_order": False, "shape": shape}
        npy.write_array_header_1_0(self._file, description)
        assert self._file.tell() == _HEADER  # noqa: S101
        self._file.close()


def write_rows(path: Path, rows: NDArray[Any]) -> None:
    """Writes an array of one or two axes whole."""
    writer = RowWriter(path, rows.dtype, rows.shape[1] if rows.ndim == 2 else None)
    writer.write(rows)
    writer.close()


def open_rows(path: Path, dtype: DTypeLike, width: int | None) -> NDArray[Any]:
    """A memory map of a file of rows; read-only. Raises Mismatch where it is not what was expected."""
    try:
        with path.open("rb") as file:
            if npy.read_magic(file) != (1, 0):
                raise ValueError("it is of another version of NumPy's format")
            shape, in_columns, found = npy.read_array_header_1_0(file)
            start, size = file.tell(), file.seek(0, 2)
    except (OSError, ValueError, EOFError) as error:
        raise Mismatch(f"{path} is not an array of rows: {error}") from error
    if found != np.dtype(dtype) or in_columns or shape[1:] != (() if width is None else (width,)):
        order = ", column by column" if in_columns else ""
        raise Mismatch(f"{path} holds {found} rows of shape {shape[1:]}{order}, expected {np.dtype(dtype)} of width {width}")
    if not shape or shape[0] < 0 or start + math.prod(shape) * found.itemsize != size:
        raise Mismatch(f"{path} has {size} bytes, which are not {shape} of {found}")
    rows: NDArray[Any] = np.memmap(path, found, "r", start, shape)
    return rows


def check_ascending(path: Path, ids_N: NDArray[np.int64], first: int, end: int) -> None:
    """Raises Mismatch unless ids rise from one to the next, from `first` on and below `end`."""
    before = first - 1
    for block in blocks(len(ids_N)):
        ids = ids_N[block]
        if ids[0] <= before or (ids[1:] <= ids[:-1]).any() or ids[-1] >= end:
            raise Mismatch(f"{path} holds ids that do not rise from {first} on and below {end}")
        before = int(ids[-1])
