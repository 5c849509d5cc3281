"""Exact search on a GPU, for which FAISS's flat index on the CPU stands in: the answers are those of the scan, bit for bit."""

import gc
import logging
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from indexer.assembly import Plan, assemble
from indexer.index import open_index
from indexer.scans import scan
from indexer.scans.native import Wanted
from indexer.search import exact
from indexer.search.exact import ByGpu, ByScan, exact_search
from indexer.store import Filter, Query
from tests.indexer.synthetic import LABELS, SOURCE, at_an_odd_address, block, features

ROWS, WIDTH = 5000, 32


class Gpu:
    """What a GPU of FAISS's was asked to do, and how it goes wrong."""

    def __init__(self) -> None:
        self.copies, self.searches = 0, [0]
        self.free: int | None = 2**40
        self.scale = np.float32(1)
        self.fails = ""


class StubIndex:
    """GpuIndexFlatL2, by IndexFlatL2."""

    def __init__(self, gpu: Gpu, width: int) -> None:
        self._gpu, self._index = gpu, faiss.IndexFlatL2(width)

    def add(self, rows_ND: np.ndarray) -> None:
        self._gpu.copies += 1
        if self._gpu.fails == "add":
            raise RuntimeError("Error in void foo()\nError: 'err == cudaSuccess' failed: out of memory")
        self._index.add(rows_ND)

    def search(self, queries_QD: np.ndarray, fetch: int) -> tuple[np.ndarray, np.ndarray]:
        assert fetch <= 2048
        self._gpu.searches.append(fetch)
        if self._gpu.fails == "search":
            raise RuntimeError("Error: the device is lost")
        distances_QF, rows_QF = self._index.search(queries_QD, fetch)
        return distances_QF * self._gpu.scale, rows_QF


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    stub = Gpu()

    class Resources:
        def setTempMemory(self, size: int) -> None:
            pass

    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(faiss, "StandardGpuResources", Resources)
    monkeypatch.setattr(faiss, "GpuIndexFlatL2", lambda resources, width: StubIndex(stub, width))
    monkeypatch.setattr(exact, "free_bytes", lambda: stub.free)
    return stub


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    """Rows with many equals, none at a multiple of 4 bytes."""
    return at_an_odd_address(features(ROWS, width=WIDTH))


def same(found: tuple[Any, Any], expected: tuple[Any, Any]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


MASKS = {
    "all": None,
    "half": (np.arange(ROWS) % 2).astype(np.uint8),
    "few": (np.arange(ROWS) % 20 == 0).astype(np.uint8),
    "none": np.zeros(ROWS, np.uint8),
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("most", [None, 0.0, 400.0])
@pytest.mark.parametrize("k", [1, 10, 700, ROWS])
def test_answers_are_those_of_the_scan(gpu: Gpu, rows: np.ndarray, k: int, most: float | None, mask: str) -> None:
    search, queries_QD = exact_search(rows), np.concatenate([rows[[3, 2503]], features(3, seed=8)])
    for after in (None, (400.0, 17)):
        wanted = Wanted(k, MASKS[mask], after, most)
        same(search.nearest(queries_QD, wanted), scan.exact(rows, queries_QD, k, MASKS[mask], after, most))
    assert bool(gpu.copies) == ((k + 32) * {"all": 1, "half": 2, "few": 20, "none": ROWS}[mask] <= 2048)


def test_more_rows_are_proposed_until_none_that_was_not_may_be_nearer(gpu: Gpu) -> None:
    near = features(1, seed=5, width=WIDTH)
    crowded = np.repeat(near, ROWS, axis=0)  # at one distance: proposals never tell
    crowded[1000:, 0] += 1000
    search = ByGpu(crowded)
    same(search.nearest(near, Wanted(10, None, None, None)), scan.exact(crowded, near, 10))
    assert gpu.searches[1:] == [42, 168, 672, 2048]
    crowded[100:, 0] = 1000
    search = ByGpu(crowded)
    same(search.nearest(near, Wanted(10, None, None, None)), scan.exact(crowded, near, 10))
    assert gpu.searches[5:] == [42, 168]


def test_a_gpu_that_reckons_more_coarsely_than_float32_is_not_believed(gpu: Gpu, rows: np.ndarray) -> None:
    gpu.scale = np.float32(1.01)
    queries_QD = features(3, seed=8)
    same(ByGpu(rows).nearest(queries_QD, Wanted(10, None, None, None)), scan.exact(rows, queries_QD, 10))
    assert gpu.copies == 1


@pytest.mark.parametrize("trouble", ["room", "add", "search"])
def test_without_the_memory_the_scan_answers_and_the_log_says_so_once(
    gpu: Gpu, rows: np.ndarray, trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    gpu.fails = trouble
    gpu.free = 2**20 if trouble == "room" else None
    search, queries_QD = ByGpu(rows), features(3, seed=8)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            same(search.nearest(queries_QD, Wanted(10, None, None, None)), scan.exact(rows, queries_QD, 10))
    [record] = caplog.records
    assert record.getMessage().startswith("exact search of 5000 rows stays on the CPU: ")
    reason = {"room": "they take 0.3 GiB there, of which 0.0 are free", "add": "out of memory", "search": "the device is lost"}
    assert record.getMessage().endswith(reason[trouble])
    assert gpu.copies == (trouble != "room")


def test_rows_go_to_the_gpu_once_and_leave_it_with_the_last_who_has_them(gpu: Gpu, rows: np.ndarray) -> None:
    first, second = exact_search(rows), exact_search(rows)
    assert first is second
    for search in (first, second):
        search.nearest(features(1), Wanted(5, None, None, None))
    assert gpu.copies == 1
    del first, second, search
    gc.collect()
    assert not exact._on_gpu


def test_few_rows_and_machines_without_a_gpu_scan(gpu: Gpu, rows: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(exact_search(rows[:4000]), ByScan)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0)
    assert isinstance(exact_search(rows), ByScan)


def test_an_index_answers_with_a_gpu_as_without(gpu: Gpu, tmp_path: Path) -> None:
    x_ND = features(4300, width=WIDTH)
    assemble(tmp_path, [block(x_ND[:4200])], SOURCE, Plan(bits=0))
    store = open_index(tmp_path)
    store, _ = store.add([block(x_ND[4200:], 4200)], Path("/c"))
    store = store.remove([0, 7, 4250])
    by_gpu = []
    asked = [
        Query(k=5),
        Query(k=5, filter=Filter(labels=(LABELS[1],))),
        Query(k=20, max_distance=20.0),
        Query(k=5, after=(100.0, 3)),
    ]
    for query in asked:
        by_gpu.append(store.search(x_ND[[7, 8, 4250]], query))
    assert gpu.copies == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(faiss, "get_num_gpus", lambda: 0)
        scanned = open_index(tmp_path)
    for query, hits in zip(asked, by_gpu, strict=True):
        plain = scanned.search(x_ND[[7, 8, 4250]], query)
        np.testing.assert_array_equal(hits.ids_QK, plain.ids_QK)
        np.testing.assert_array_equal(hits.keys_QK, plain.keys_QK)
        assert not np.isin(hits.ids_QK, [0, 7, 4250]).any()
    store.close()
    scanned.close()
