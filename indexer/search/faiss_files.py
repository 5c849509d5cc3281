"""FAISS's files of short-lists, read and checked: every number by which native code finds memory is within bounds.

While it reads, FAISS itself refuses links of HNSW and NSG that lead to no row, and offsets that do not fit. What it trusts is
checked here: the ids in inverted lists, the upper levels of HNSW, how many candidates a search of a graph holds, and that the
parts of an index are of equally many rows.

Legend: N rows, L links.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import faiss
import numpy as np

from training.errors import Mismatch

_MOST_CANDIDATES: Final = 2**16  # of HNSW and NSG, which have 16 as they are made
_reading: Final = threading.Lock()  # FAISS's limits are the process's


def read(path: Path, is_binary: bool, rows: int, width: int) -> Any:
    """The index in a file, memory-mapped where its type can be. Raises Mismatch, naming what is wrong."""
    reader = faiss.read_index_binary if is_binary else faiss.read_index
    try:
        with _limited(path.stat().st_size + 4 * width**2):
            try:
                index = reader(str(path), faiss.IO_FLAG_MMAP_IFC)
            except RuntimeError:  # not every type can be mapped
                index = reader(str(path))
    except (RuntimeError, MemoryError) as error:
        raise Mismatch(f"{path} is not a FAISS index: {reason(error)}") from error
    _check(path, index, rows)
    return index


def reason(error: Exception) -> str:
    """FAISS's message without the line of its source."""
    return (str(error).splitlines() or ["out of memory"])[-1].split("Error: ")[-1][:200]


@contextmanager
def _limited(size: int) -> Iterator[None]:
    """Lets FAISS take no more bytes for an array than these, and no more steps: those of the file, and of one rotation, which
    may be none of the file's but made anew."""
    with _reading:
        before = faiss.get_deserialization_vector_byte_limit(), faiss.get_deserialization_loop_limit()
        faiss.set_deserialization_vector_byte_limit(size)
        faiss.set_deserialization_loop_limit(size)
        try:
            yield
        finally:
            faiss.set_deserialization_vector_byte_limit(before[0])
            faiss.set_deserialization_loop_limit(before[1])


def _check(path: Path, part: Any, rows: int) -> None:
    """Raises Mismatch where a part of an index, or a part of it, is not of so many rows or leads beyond them."""
    index: Any = faiss.downcast_IndexBinary(part) if isinstance(part, faiss.IndexBinary) else faiss.downcast_index(part)
    kind = type(index).__name__
    if index.ntotal != rows:
        raise Mismatch(f"{path} holds {index.ntotal} rows in its {kind}, expected {rows}")
    if hasattr(index, "id_map"):
        raise Mismatch(f"{path} is an {kind}, whose ids are its own; build the index again")
    if hasattr(index, "nlist"):
        _check_lists(path, index)
        _check(path, index.quantizer, index.nlist)
    if hasattr(index, "hnsw") and rows:
        _check_levels(path, index.hnsw)
    for part_of, name in (("hnsw", "efSearch"), ("nsg", "search_L")):
        if graph := getattr(index, part_of, None):
            _check_candidates(path, getattr(graph, name), name)
    for name in ("index", "base_index", "refine_index", "storage"):
        if (child := getattr(index, name, None)) is not None:
            _check(path, child, rows)


def _check_lists(path: Path, index: Any) -> None:
    """Raises Mismatch unless every row is in one inverted list."""
    lists, seen_N = index.invlists, np.zeros(index.ntotal, np.uint8)
    if lists.nlist != index.nlist:
        raise Mismatch(f"{path} has {lists.nlist} inverted lists, its {type(index).__name__} has {index.nlist}")
    for number in range(index.nlist):
        size = lists.list_size(number)
        ids_L = faiss.rev_swig_ptr(lists.get_ids(number), size) if size else np.empty(0, np.int64)
        if size and not (ids_L.min() >= 0 and ids_L.max() < index.ntotal):
            raise Mismatch(f"{path} has rows in inverted list {number} that are not among its {index.ntotal}")
        np.add.at(seen_N, ids_L, 1)
    if not (seen_N == 1).all():
        raise Mismatch(f"{path} does not have each of its {index.ntotal} rows in one inverted list")


def _check_candidates(path: Path, count: int, name: str) -> None:
    """Raises Mismatch for a number of candidates that a search of a graph would take gigabytes for, or has no use for."""
    if not 1 <= count <= _MOST_CANDIDATES:
        raise Mismatch(f"{path} has {count} for {name}, expected 1 to {_MOST_CANDIDATES}")


def _check_levels(path: Path, hnsw: Any) -> None:
    """Raises Mismatch where the search of HNSW begins at no row, or a link of a level leads to a row that is not of it."""
    levels_N = faiss.vector_to_array(hnsw.levels)  # how many each row is of
    if hnsw.entry_point < 0 or not 0 <= hnsw.max_level < levels_N[hnsw.entry_point]:
        raise Mismatch(f"{path} begins its search at row {hnsw.entry_point} on level {hnsw.max_level}, where that row is not")
    neighbors = faiss.rev_swig_ptr(hnsw.neighbors.data(), hnsw.neighbors.size())
    offsets_N, starts = faiss.vector_to_array(hnsw.offsets)[:-1], faiss.vector_to_array(hnsw.cum_nneighbor_per_level)
    for level in range(1, levels_N.max()):
        here = offsets_N[levels_N > level].astype(np.int64)
        links_L = neighbors[here[:, None] + np.arange(starts[level], starts[level + 1])].ravel()
        if not (levels_N[links_L[links_L >= 0]] > level).all():
            raise Mismatch(f"{path} has links on level {level} that lead to rows which are not on it")
