"""Short-lists propose the near rows, keep to masks, and come back from their files as they went in."""

from pathlib import Path

import faiss
import numpy as np
import pytest

from indexer.assembly import Plan, assemble
from indexer.codes import principal
from indexer.index import Index, open_index
from indexer.scans import native
from indexer.search import faiss_shortlist
from indexer.search.faiss_shortlist import ByFaiss
from indexer.search.shortlist import ByCodes, ByPrincipal
from indexer.storage import artifact
from indexer.store import Query
from tests.indexer.synthetic import SOURCE, block, features
from training.errors import BadSettings, BadValue, FC7Error, Mismatch

MASK = (np.arange(2000) % 3 != 0).astype(np.uint8)


def clusters(rows: int, width: int = 96, seed: int = 0) -> np.ndarray:
    """Sparse clusters of ten, not negative: float32 (rows, width)."""
    rng = np.random.default_rng(seed)
    centres = np.where(rng.random((rows // 10, width)) < 0.3, rng.exponential(2, (rows // 10, width)), 0)
    return np.maximum(np.repeat(centres, 10, 0) + rng.normal(0, 0.3, (rows, width)), 0).astype(np.float32)


def recall(rows_QR: np.ndarray, vectors_ND: np.ndarray, queries_QD: np.ndarray, mask: np.ndarray | None = None) -> float:
    shares = []
    for found, query in zip(rows_QR, queries_QD, strict=True):
        distances = ((vectors_ND.astype(np.float64) - query) ** 2).sum(1)
        if mask is not None:
            distances[mask == 0] = np.inf
        shares.append(np.isin(np.argsort(distances, kind="stable")[:10], found).mean())
    return float(np.mean(shares))


@pytest.mark.usefixtures("scans")
@pytest.mark.parametrize("mask", [None, MASK])
def test_principal_components_propose_the_nearest(mask: np.ndarray | None) -> None:
    vectors = clusters(2000)
    learned = principal.train(vectors, seed=0)
    made = ByPrincipal(learned, *learned.encode(vectors))
    rows = made.candidates(vectors[:20], None, 40, mask)
    assert rows.shape == (20, 40)
    assert all(len(set(found)) == 40 for found in rows.tolist())
    assert recall(rows, vectors, vectors[:20], mask) > 0.99
    if mask is not None:
        assert mask[rows].all()
        few = np.zeros(2000, np.uint8)
        few[[5, 9]] = 1
        assert sorted(made.candidates(vectors[:1], None, 4, few)[0].tolist()) == [-1, -1, 5, 9]


def test_the_estimate_is_the_distance_where_components_leave_nothing_out() -> None:
    vectors = features(300, width=64)
    learned = principal.train(vectors, seed=0)
    components, lengths = learned.encode(vectors)
    assert components.shape == (300, 64)
    projected = (components.astype(np.float64) - 128) * learned.step
    about = lengths[:, 0] + lengths[0, 0] - 2 * projected @ projected[0]
    exact = ((vectors.astype(np.float64) - vectors[0]) ** 2).sum(1)
    assert np.abs(about - exact).max() < 0.05 * exact.max()


@pytest.mark.parametrize("scans", ["native"], indirect=True)
@pytest.mark.usefixtures("scans")
def test_compiled_or_not_the_same_rows_are_proposed(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = clusters(700)
    learned = principal.train(vectors, seed=0)
    made = ByPrincipal(learned, *learned.encode(vectors))
    one = made.candidates(vectors[:5], None, 30, None)
    monkeypatch.setattr(native, "library", lambda: None)
    other = made.candidates(vectors[:5], None, 30, None)
    assert [sorted(rows) for rows in one.tolist()] == [sorted(rows) for rows in other.tolist()]


def test_principal_components_come_back_from_their_file(tmp_path: Path) -> None:
    learned = principal.train(clusters(200), seed=0)
    learned.save(tmp_path / "p")
    loaded = principal.load(tmp_path / "p", 96)
    np.testing.assert_array_equal(loaded.basis_DP, learned.basis_DP)
    assert (loaded.step, loaded.cosine) == (learned.step, learned.cosine)
    with pytest.raises(Mismatch, match="is for vectors of 96 components, the index has 97"):
        principal.load(tmp_path / "p", 97)
    (tmp_path / "p").write_bytes(b"junk")
    with pytest.raises(Mismatch, match="has no principal components"):
        principal.load(tmp_path / "p", 96)


@pytest.mark.parametrize("vectors", [np.zeros((30, 40), np.float32), np.ones((1, 40), np.float32), features(3, width=40)])
def test_few_and_equal_rows_do(vectors: np.ndarray) -> None:
    learned = principal.train(vectors, seed=0)
    made = ByPrincipal(learned, *learned.encode(vectors))
    assert sorted(made.candidates(vectors[:1], None, 100, None)[0].tolist()) == list(range(len(vectors)))


def test_codes_propose_the_nearest_codes() -> None:
    codes = np.random.default_rng(0).integers(0, 256, (200, 4), np.uint8)
    rows = ByCodes(codes).candidates(np.empty((1, 3), np.float32), codes[7:8], 5, None)[0]
    distances = np.unpackbits(codes ^ codes[7], axis=1).sum(1)
    assert rows.tolist() == np.argsort(distances, kind="stable")[:5].tolist()


@pytest.mark.parametrize("factory", ["Flat", "PCA32,HNSW16", "IVF16,SQ8", "PQ16x4", "BFlat", "BIVF8", "BHash8x12"])
@pytest.mark.parametrize("mask", [None, MASK])
def test_any_factory_of_faiss_proposes_from_its_file(tmp_path: Path, factory: str, mask: np.ndarray | None) -> None:
    vectors = clusters(2000)
    codes = np.packbits(vectors > vectors.mean(0), axis=1, bitorder="little")
    faiss_shortlist.build(factory, codes if factory[0] == "B" else vectors, tmp_path / "x", 96, seed=0)
    width = 96 if factory[0] == "B" else vectors.shape[1]
    made = ByFaiss(tmp_path / "x", factory, 2000, width)
    rows = made.candidates(vectors[:20], codes[:20], 200, mask)
    assert recall(rows, vectors, vectors[:20], mask) > 0.8
    assert mask is None or mask[rows[rows >= 0]].all()
    with pytest.raises(Mismatch, match=r"holds 2000 rows in its .*, expected 1999"):
        ByFaiss(tmp_path / "x", factory, 1999, width)


def test_strings_that_make_no_index_are_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(BadValue, match="shortlist must be codes, principal, or a string of FAISS's"):
        faiss_shortlist.check("IVF16,Nothing", 64, 0)
    with pytest.raises(BadValue, match="got 'BNothing'"):
        faiss_shortlist.check("BNothing", 64, 128)
    with pytest.raises(BadSettings, match="'BIVF8' is over codes; give --bits too"):
        faiss_shortlist.check("BIVF8", 64, 0)
    faiss_shortlist.check("PCA32,HNSW16", 64, 0)
    with pytest.raises(FC7Error, match="the short-list 'IVF64,Flat' cannot be made of 10 rows"):
        faiss_shortlist.build("IVF64,Flat", features(10), tmp_path / "x", 0, seed=0)
    (tmp_path / "junk").write_bytes(b"junk" * 100)
    with pytest.raises(Mismatch, match="is not a FAISS index"):
        ByFaiss(tmp_path / "junk", "Flat", 10, 64)


@pytest.mark.parametrize("kind", ["codes", "principal", "PCA16,HNSW16", "BIVF4"])
def test_an_index_with_any_short_list_grows_and_answers(tmp_path: Path, kind: str) -> None:
    x_ND = features(900)
    plan = Plan(bits=64, shortlist=kind)
    assemble(tmp_path, [block(x_ND[:800])], SOURCE, plan)
    store: Index = open_index(tmp_path)
    assert store.manifest.shortlist is not None
    assert store.manifest.shortlist.kind == kind
    assert store.manifest.recall["two-stage"] == store.manifest.shortlist.recall_at_10 > 0.9
    store, _ = store.add([block(x_ND[800:], 800)], Path("/c"))
    store = store.remove([1, 850])
    queries = features(20, seed=7)
    hits, exact = store.search(queries, Query(k=10, mode="two-stage")), store.search(queries, Query(k=10))
    shares = [np.isin(exact.ids_QK[q], hits.ids_QK[q]).mean() for q in range(20)]
    assert np.mean(shares) > 0.9
    pages, after = [], None
    while page := store.search(queries[:1], Query(k=100, mode="two-stage", after=after)).of(0):
        pages += [item for item, _, _ in page]
        after = (page[-1][2], page[-1][0])
    assert len(pages) == len(set(pages))
    assert len(pages) > 0.98 * len(store)
    files = store.manifest.files
    assert (artifact.FAISS in files) == (kind not in ("codes", "principal"))
    assert ("1/components.npy" in files) == (kind == "principal")


def test_faiss_is_what_reads_the_file(tmp_path: Path) -> None:
    faiss_shortlist.build("Flat", features(50), tmp_path / "x", 0, seed=0)
    assert faiss.read_index(str(tmp_path / "x")).ntotal == 50
