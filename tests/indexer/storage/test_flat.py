"""FAISS's files: what FC7 writes is what FAISS writes; what FAISS finds in them, without a line of FC7, is what FC7 answers."""

import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from indexer.assembly import Plan, assemble
from indexer.index import Index, open_index
from indexer.storage import artifact, flat
from indexer.storage.flat import Flat, FlatWriter, open_flat
from indexer.store import Mode, Query
from tests.indexer.synthetic import SOURCE, block, features

PAGE = Path(__file__).parents[3] / "indexer" / "README.md"
BITS = 28  # in codes of 32


@pytest.fixture(scope="module", params=["euclidean", "cosine"])
def grown(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Index, np.ndarray]:
    """An index of several segments with removed items, which no test may change, and the vector of every id."""
    folder, x_ND = tmp_path_factory.mktemp("index"), features(260)
    assemble(folder, [block(x_ND[:180])], SOURCE, Plan(bits=BITS, metric=request.param))
    store = open_index(folder)
    for start, stop in ((180, 230), (230, 260)):
        store, _ = store.add([block(x_ND[start:stop], start)], Path("/c"))
    store = store.remove([0, 17, 90, 185, 255])
    assert store.manifest.segments == [180, 50, 30]
    return store, x_ND


def vectors(rows: int) -> tuple[np.ndarray, Any]:
    return features(rows, width=7), faiss.IndexIDMap2(faiss.IndexFlatL2(7))


def codes(rows: int) -> tuple[np.ndarray, Any]:
    random = np.random.default_rng(rows).integers(0, 256, (rows, 6), np.uint8)
    return random, faiss.IndexBinaryIDMap2(faiss.IndexBinaryFlat(48))


@pytest.mark.parametrize("rows", [0, 1, 300])
@pytest.mark.parametrize(
    ("make", "kind", "write"),
    [(vectors, flat.VECTORS, faiss.write_index), (codes, flat.CODES, faiss.write_index_binary)],
    ids=["vectors", "codes"],
)
def test_a_file_is_byte_for_byte_what_faiss_writes(
    tmp_path: Path, make: Callable[[int], tuple[np.ndarray, Any]], kind: Flat, write: Callable[[Any, str], None], rows: int
) -> None:
    table, index = make(rows)
    ids_N = np.arange(rows) * 3 + 2**33
    index.add_with_ids(table, ids_N)
    write(index, str(tmp_path / "theirs"))
    writer = FlatWriter(tmp_path / "ours", kind, table.shape[1])
    for part in (slice(0, 1), slice(1, 1), slice(1, 200), slice(200, rows)):
        writer.write(ids_N[part], table[part])
    assert writer.rows == rows
    writer.close()
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    found_ids, found = open_flat(tmp_path / "theirs", kind, table.shape[1])
    np.testing.assert_array_equal(found_ids, ids_N)
    np.testing.assert_array_equal(found, table)
    np.testing.assert_array_equal(open_flat(tmp_path / "ours", kind, None)[1], table)
    assert isinstance(found, np.memmap)
    assert not found.flags.writeable


def test_rows_of_another_width_or_number_are_not_written(tmp_path: Path) -> None:
    writer = FlatWriter(tmp_path / "file", flat.VECTORS, 7)
    for rows, width in ((2, 7), (3, 6)):
        with pytest.raises(ValueError, match=r"rows must have the shape \(3, 7\)"):
            writer.write(np.arange(3), np.zeros((rows, width), np.float32))
    writer.close()


def by_faiss_alone(store: Index, name: str, read: Callable[..., Any], queries: np.ndarray, removed: set[int]) -> list[list[Any]]:
    """(distance, id) of every item for each query, as FAISS finds them in the files of the segments, nearest first."""
    hits: list[list[Any]] = [[] for _ in queries]
    for number in range(len(store.manifest.segments)):
        index = read(str(store.folder / str(number) / name))
        distances_QK, ids_QK = index.search(queries, index.ntotal)
        for own, distances, ids in zip(hits, distances_QK.tolist(), ids_QK.tolist(), strict=True):
            own += [(distance, item) for distance, item in zip(distances, ids, strict=True) if item not in removed]
    return [sorted(own) for own in hits]


@pytest.mark.parametrize("mapped", [False, True])
def test_faiss_alone_gives_the_ids_and_distances_of_exact_search(grown: tuple[Index, np.ndarray], mapped: bool) -> None:
    store, x_ND = grown
    queries_QD = np.concatenate([x_ND[[1, 130, 186]], features(3, seed=9)])
    is_cosine = store.manifest.metric == "cosine"
    if is_cosine:
        queries_QD /= np.linalg.norm(queries_QD, axis=1, keepdims=True)
    flags = [faiss.IO_FLAG_MMAP_IFC] if mapped else []
    hits = store.search(queries_QD, Query(k=len(store)))
    theirs = by_faiss_alone(
        store, artifact.VECTORS, lambda path: faiss.read_index(path, *flags), queries_QD, {0, 17, 90, 185, 255}
    )
    for i, expected in enumerate(theirs):
        ours = hits.of(i)
        squared = {item: distance for distance, item in expected}
        assert len(ours) == len(store) == len(squared)
        as_faiss_has_them = [2 * distance if is_cosine else distance**2 for _, distance, _ in ours]
        np.testing.assert_allclose(as_faiss_has_them, [squared[item] for item, _, _ in ours], rtol=1e-5, atol=1e-5)
        # in the same order, but for those whose distances float32 does not tell apart
        np.testing.assert_allclose(
            [squared[item] for item, _, _ in ours], [distance for distance, _ in expected], rtol=1e-5, atol=1e-5
        )


def test_faiss_alone_gives_the_ids_and_distances_of_search_by_code(grown: tuple[Index, np.ndarray]) -> None:
    store, x_ND = grown
    queries_QD = np.concatenate([x_ND[[1, 130, 186]], features(3, seed=9)])
    hits = store.search(queries_QD, Query(k=len(store), mode="code"))
    assert store.version.autoencoder
    codes_QW = store.version.autoencoder.encode(queries_QD)
    theirs = by_faiss_alone(store, artifact.CODES, faiss.read_index_binary, codes_QW, {0, 17, 90, 185, 255})
    for i, expected in enumerate(theirs):
        assert [(distance, item) for item, distance, _ in hits.of(i)] == expected


def test_what_the_page_shows_finds_the_neighbors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "index").mkdir()
    assemble(tmp_path / "index", [block(features(60))], SOURCE, Plan(bits=BITS))
    store = open_index(tmp_path / "index")
    [example] = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert "indexer" not in example
    (tmp_path / "example.py").write_text(example)
    monkeypatch.chdir(tmp_path)
    shown = runpy.run_path("example.py")
    query_1D = store.vectors([9])
    found: dict[Mode, Any] = {"exact": shown["by_vector"], "code": shown["by_code"]}
    for mode, (distances, ids) in found.items():
        np.testing.assert_allclose(
            np.array(distances, np.float64), store.search(query_1D, Query(k=5, mode=mode)).keys_QK, rtol=1e-5, atol=1e-3
        )
        for distance, item in zip(distances[0].tolist(), ids[0].tolist(), strict=True):
            assert distance == pytest.approx(store.key(query_1D[0], item, Query(1, mode)), rel=1e-5, abs=1e-3)
    store.close()
