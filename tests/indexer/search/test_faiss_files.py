"""Short-lists by FAISS whose files are damaged, or made to lead native code out of its memory: refused before any search."""

import struct
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from indexer.search import faiss_files
from training.errors import Mismatch

ROWS = 600
X = np.random.default_rng(0).random((ROWS, 32), np.float32)
CODES = np.random.default_rng(0).integers(0, 256, (ROWS, 16), np.uint8)
REAL_KINDS = ["Flat", "HNSW8", "PCA16,HNSW8", "HNSW8_SQ8", "NSG8", "LSH", "IVF16,Flat", "IVF16,SQ8", "IVF16_HNSW8,Flat"]
REAL_KINDS += ["IVF16,PQ4x4fs", "PCA16,IVF16,SQ8", "IVF16,Flat,RFlat", "IMI2x3,Flat"]
BINARY_KINDS = ["BFlat", "BIVF16", "BHNSW8", "BIVF16_HNSW8", "BHash8", "BHash3x8"]


def made(factory: str) -> tuple[Any, bytes]:
    """An index of ROWS rows, and its file."""
    is_binary = factory.startswith("B")
    index: Any = faiss.index_binary_factory(128, factory) if is_binary else faiss.index_factory(32, factory)
    rows: Any = CODES if is_binary else X
    index.train(rows)
    index.add(rows)
    written = faiss.serialize_index_binary(index) if is_binary else faiss.serialize_index(index)
    return index, written.tobytes()


def read(path: Path, factory: str, data: bytes) -> Any:
    path.write_bytes(data)
    return faiss_files.read(path, factory.startswith("B"), ROWS, 128)


def changed(data: bytes, array: np.ndarray, position: int, value: int) -> bytes:
    """A file in which one number of an array that it holds is another."""
    at = data.find(array.tobytes())
    assert at > 0
    other = array.copy()
    other[position] = value
    return data[:at] + other.tobytes() + data[at + array.nbytes :]


def ids(index: Any, number: int) -> np.ndarray:
    """A copy of the ids in an inverted list."""
    lists = index.invlists
    return np.array(faiss.rev_swig_ptr(lists.get_ids(number), lists.list_size(number)))


@pytest.mark.parametrize("factory", REAL_KINDS + BINARY_KINDS)
def test_whole_files_of_every_kind_are_read(tmp_path: Path, factory: str) -> None:
    before = faiss.get_deserialization_vector_byte_limit(), faiss.get_deserialization_loop_limit()
    index = read(tmp_path / "x", factory, made(factory)[1])
    rows = CODES if factory.startswith("B") else X
    assert (index.search(rows[:20], 5)[1][:, 0] >= 0).all()
    assert (faiss.get_deserialization_vector_byte_limit(), faiss.get_deserialization_loop_limit()) == before
    with pytest.raises(Mismatch, match=rf"holds {ROWS} rows in its Index\w+, expected 599"):
        faiss_files.read(tmp_path / "x", factory.startswith("B"), ROWS - 1, 128)


@pytest.mark.parametrize("factory", ["IVF16,Flat", "IVF16,SQ8", "BIVF16"])
@pytest.mark.parametrize(
    ("row", "message"),
    [
        (ROWS, "has rows in inverted list 2 that are not among its 600"),
        (10**12, "has rows in inverted list 2 that are not among its 600"),
        (-1, "has rows in inverted list 2 that are not among its 600"),
        ("another's", "does not have each of its 600 rows in one inverted list"),
    ],
)
def test_ids_of_inverted_lists_are_the_rows_each_once(tmp_path: Path, factory: str, row: int | str, message: str) -> None:
    index, data = made(factory)
    own = ids(index, 2)
    with pytest.raises(Mismatch, match=message):
        read(tmp_path / "x", factory, changed(data, own, 0, own[1] if isinstance(row, str) else row))


def test_ids_below_what_refines_them_are_checked_too(tmp_path: Path) -> None:
    index, data = made("IVF16,Flat,RFlat")
    own = ids(faiss.downcast_index(index.base_index), 2)
    with pytest.raises(Mismatch, match="has rows in inverted list 2 that are not among its 600"):
        read(tmp_path / "x", "IVF16,Flat,RFlat", changed(data, own, 0, 10**12))


def hnsw(factory: str) -> tuple[Any, bytes, dict[str, np.ndarray]]:
    """An index, which keeps its links alive, its file, and the arrays in it."""
    index, data = made(factory)
    names = ("levels", "neighbors", "offsets", "cum_nneighbor_per_level")
    return index, data, {name: faiss.vector_to_array(getattr(index.hnsw, name)) for name in names}


@pytest.mark.parametrize("factory", ["HNSW8", "BHNSW8"])
@pytest.mark.parametrize(
    ("name", "position", "value"),
    [
        *(("neighbors", 3, value) for value in (ROWS, 10**6, -2)),
        *(("levels", 3, value) for value in (0, 40, -1)),
        *(("offsets", position, value) for position, value in ((3, 0), (3, 10**9), (ROWS, 10**9))),
        *(("cum_nneighbor_per_level", 1, value) for value in (10**6, 3)),
    ],
)
def test_links_that_lead_to_no_row_are_refused(tmp_path: Path, factory: str, name: str, position: int, value: int) -> None:
    _, data, arrays = hnsw(factory)
    with pytest.raises(Mismatch, match=r"x is not a FAISS index: .*HNSW"):
        read(tmp_path / "x", factory, changed(data, arrays[name], position, value))


@pytest.mark.parametrize("factory", ["HNSW8", "BHNSW8"])
def test_links_of_a_level_that_lead_to_rows_which_are_not_on_it_are_refused(tmp_path: Path, factory: str) -> None:
    _, data, arrays = hnsw(factory)
    levels, offsets, starts = arrays["levels"], arrays["offsets"], arrays["cum_nneighbor_per_level"]
    upper, lower = np.flatnonzero(levels > 1)[0], np.flatnonzero(levels == 1)[-1]
    place = int(offsets[upper]) + int(starts[1])
    assert levels[arrays["neighbors"][place]] > 1
    with pytest.raises(Mismatch, match="has links on level 1 that lead to rows which are not on it"):
        read(tmp_path / "x", factory, changed(data, arrays["neighbors"], place, lower))


@pytest.mark.parametrize("factory", ["HNSW8", "BHNSW8"])
def test_a_search_that_begins_where_there_is_no_row_is_refused(tmp_path: Path, factory: str) -> None:
    index, data, arrays = hnsw(factory)
    at = data.find(arrays["neighbors"].tobytes()) + arrays["neighbors"].nbytes
    entry, highest = index.hnsw.entry_point, index.hnsw.max_level
    assert struct.unpack_from("<ii", data, at) == (entry, highest)
    lower = int(np.flatnonzero(arrays["levels"] == 1)[-1])
    for wrong in ((-1, highest), (lower, highest), (entry, -1), (ROWS, highest), (entry, 99)):
        with pytest.raises(Mismatch, match=r"begins its search at row|is not a FAISS index: .*HNSW"):
            read(tmp_path / "x", factory, data[:at] + struct.pack("<ii", *wrong) + data[at + 8 :])


@pytest.mark.parametrize("factory", ["HNSW8", "PCA16,HNSW8", "IVF16_HNSW8,Flat", "BHNSW8", "NSG8"])
@pytest.mark.parametrize("count", [-(2**31), 0, 2**16 + 1, 2**31 - 1])
def test_a_search_that_would_hold_any_number_of_candidates_is_refused(tmp_path: Path, factory: str, count: int) -> None:
    """FAISS takes the memory for them at every search: at 2^31 it takes 16 GB."""
    index, _ = made(factory)
    part: Any = faiss.downcast_index(index.index) if factory.startswith("PCA") else index
    part = faiss.downcast_index(index.quantizer) if factory.startswith("IVF") else part
    if factory == "NSG8":
        part.nsg.search_L = count
    else:
        part.hnsw.efSearch = count
    written = faiss.serialize_index_binary(index) if factory.startswith("B") else faiss.serialize_index(index)
    with pytest.raises(Mismatch, match=rf"has {count} for (efSearch|search_L), expected 1 to 65536|is not a FAISS index"):
        read(tmp_path / "x", factory, written.tobytes())


def test_a_file_that_says_it_is_larger_than_it_is_takes_no_memory(tmp_path: Path) -> None:
    _, data = made("Flat")
    at = data.find(struct.pack("<Q", X.size))
    assert at > 0
    with pytest.raises(Mismatch, match=r"is not a FAISS index: .*limit"):
        read(tmp_path / "x", "Flat", data[:at] + struct.pack("<Q", 2**33) + data[at + 8 :])


def test_ids_of_an_indexs_own_are_refused(tmp_path: Path) -> None:
    flat = faiss.IndexFlatL2(32)
    index = faiss.IndexIDMap2(flat)
    index.add_with_ids(X, np.arange(ROWS) + 10**12)
    with pytest.raises(Mismatch, match="is an IndexIDMap2, whose ids are its own"):
        read(tmp_path / "x", "Flat", faiss.serialize_index(index).tobytes())
