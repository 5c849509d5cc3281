"""Short-lists by FAISS: any string of index_factory over the vectors, or of index_binary_factory over the codes.

Legend: N rows, Q queries, D width of a vector, W bytes of a code, R rows proposed.
"""

from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import faiss
import numpy as np

from indexer.arrays import Codes, Mask, Rows, Vectors, aligned, blocks
from indexer.search import faiss_files
from training.errors import BadSettings, BadValue, FC7Error, Mismatch
from training.program import progress

_SAMPLE: Final = 50_000  # rows that an index is trained on at most
_PROBES: Final = 32  # inverted lists looked at, of those there are
_FLIPS: Final = 2  # bits of a hash that may differ
_LEAST_EF: Final = 64  # of HNSW's candidates
_SPARE: Final = 4  # times the rows wanted, where the index takes no mask


def is_binary(factory: str) -> bool:
    """Whether a string is one of index_binary_factory's, which all begin with B."""
    return factory.startswith("B")


def check(factory: str, width: int, bits: int) -> None:
    """Raises BadValue, with FAISS's reason, for a string that makes no index of such vectors or codes."""
    if is_binary(factory) and not bits:
        raise BadSettings(f"shortlist {factory!r} is over codes; give --bits too")
    _make(factory, width, bits)


def build(factory: str, rows: Vectors | Codes, path: Path, bits: int, seed: int) -> None:
    """Trains an index on a sample of rows, adds them block by block, and writes it. Raises FC7Error with FAISS's reason."""
    index = _make(factory, rows.shape[1], bits)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(rows))[:_SAMPLE])
    try:
        index.train(rows[chosen])
        parts = list(blocks(len(rows)))
        for block in progress(parts, len(parts), f"short-list {factory}", "blocks"):
            index.add(aligned(rows[block]))
        (faiss.write_index_binary if is_binary(factory) else faiss.write_index)(index, str(path))
    except RuntimeError as error:
        raise FC7Error(f"the short-list {factory!r} cannot be made of {len(rows)} rows: {faiss_files.reason(error)}") from error


class ByFaiss:
    """Proposes what a FAISS index finds."""

    def __init__(self, path: Path, factory: str, rows: int, width: int) -> None:
        """`width` is that of a vector in numbers, or of a stored code in bits.

        Opens it memory-mapped where its type can be, on a GPU where there is one. Raises Mismatch.
        """
        self._path, self.by_code = path, is_binary(factory)
        index = faiss_files.read(path, self.by_code, rows, width)
        self._index = index if self.by_code else _on_gpu(index)
        if self._index.d != width or not self._index.is_trained:
            raise Mismatch(f"{path} is for rows of {self._index.d} numbers or bits, the index has {width}")
        self._tune()

    def candidates(self, queries_QD: Vectors, codes_QW: Codes | None, r: int, allowed_N: Mask | None) -> Rows:
        """See Shortlist."""
        queries = codes_QW if self.by_code else queries_QD
        total = int(self._index.ntotal)
        if allowed_N is None:
            return self._search(queries, min(r, total))
        fetch = min(r * _SPARE, total)
        while True:
            rows = self._search(queries, fetch)
            allowed = (rows >= 0) & (allowed_N[rows] != 0)
            if fetch == total or (allowed.sum(1) >= r).all():
                return np.where(allowed, rows, -1)
            fetch = min(fetch * _SPARE, total)

    def _search(self, queries: Vectors | Codes | None, r: int) -> Rows:
        rows: Rows = self._index.search(aligned(np.asarray(queries)), r)[1]
        if rows.size and not (rows.min() >= -1 and rows.max() < self._index.ntotal):
            raise Mismatch(f"{self._path} proposes rows that are not among its {self._index.ntotal}; build the index again")
        return rows

    def _tune(self) -> None:
        """Looks at enough of the index that the length of the list, not its structure, decides what is found."""
        index: Any = self._index if self.by_code else faiss.downcast_index(self._index)
        index = faiss.downcast_index(index.index) if isinstance(index, faiss.IndexPreTransform) else index
        if hasattr(index, "nflip"):
            index.nflip = _FLIPS
        if hasattr(index, "nprobe"):
            index.nprobe = min(_PROBES, index.nlist)
        if hasattr(index, "hnsw"):
            index.hnsw.efSearch = max(_LEAST_EF, index.hnsw.efSearch)


def _make(factory: str, width: int, bits: int) -> Any:
    try:
        if is_binary(factory):
            return faiss.index_binary_factory(8 * -(-bits // 8), factory)
        return faiss.index_factory(width, factory)
    except RuntimeError as error:
        expected = "codes, principal, or a string of FAISS's index_factory or index_binary_factory"
        raise BadValue("shortlist", factory, f"{expected} ({faiss_files.reason(error)})") from error


def _on_gpu(index: Any) -> Any:
    if not faiss.get_num_gpus():
        return index
    with suppress(RuntimeError):  # HNSW and others stay where they are
        return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
    return index
