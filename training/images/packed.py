"""Many strings in one buffer: a million paths take tens of megabytes, and no object each.

Legend: N strings.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

_BLOCK = 2**14


class PackedStrings(Sequence[str]):
    """A sequence of strings, made on demand from UTF-8; bytes that are not UTF-8 come back as they came (surrogateescape)."""

    def __init__(self, strings: Iterable[str]) -> None:
        self._buffer = bytearray()
        ends = array("q")
        for string in strings:
            self._buffer += string.encode("utf-8", "surrogateescape")
            ends.append(len(self._buffer))
        self._ends_N = np.array(ends, np.int64)
        self._starts_N = np.concatenate([np.zeros(1, np.int64), self._ends_N[:-1]])[: len(self._ends_N)]

    def __len__(self) -> int:
        return len(self._ends_N)

    def __iter__(self) -> Iterator[str]:
        for block in range(0, len(self), _BLOCK):
            starts, ends = (bounds_N[block : block + _BLOCK].tolist() for bounds_N in (self._starts_N, self._ends_N))
            for start, end in zip(starts, ends, strict=True):
                yield self._buffer[start:end].decode("utf-8", "surrogateescape")

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> "PackedStrings": ...

    def __getitem__(self, index: int | slice) -> "str | PackedStrings":
        if isinstance(index, slice):
            return self._at(index)
        return self._buffer[self._starts_N[index] : self._ends_N[index]].decode("utf-8", "surrogateescape")

    def take(self, positions: NDArray[np.int64]) -> "PackedStrings":
        """The strings at these positions, in this order; the buffer is shared."""
        return self._at(positions)

    def _at(self, which: slice | NDArray[np.int64]) -> "PackedStrings":
        part = PackedStrings(())
        part._buffer, part._starts_N, part._ends_N = self._buffer, self._starts_N[which], self._ends_N[which]
        return part
