"""The figures of two stages where a short-list is much shorter than its segments: against brute force, and with a fault."""

from collections.abc import Iterator

import numpy as np
import pytest

from indexer.evaluation import methods
from indexer.evaluation.protocol import MethodResult
from indexer.evaluation.queries import Database, Plain, Queries
from indexer.index import Index, open_index
from indexer.search.shortlist import ByPrincipal
from tests.indexer.synthetic import LABELS, features, two_stage_index

QUERIES = 60


@pytest.fixture(scope="module")
def two_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Index, Database, Queries]]:
    """An index that no test may change, what it holds, and queries."""
    folder = tmp_path_factory.mktemp("two-stage")
    x_ND = two_stage_index(folder)
    store = open_index(folder)
    items, pixels = store.items(range(len(x_ND))), np.random.default_rng(0).integers(0, 256, (len(x_ND) + QUERIES, 12))
    held, asked = (
        Plain(rows.astype(np.float32), rows[:, :4].astype(np.float32), None) for rows in (pixels[QUERIES:], pixels[:QUERIES])
    )
    database = Database(store.ids(), items, np.array([item.label for item in items]), store.metric, x_ND, held)
    labels = np.array([LABELS[q % 3] for q in range(QUERIES)])
    hashes = [f"{q:064d}" for q in range(QUERIES)]
    queries = Queries(hashes, labels, labels, features(QUERIES, seed=5), asked)
    yield store, database, queries
    store.close()


def two_stages(store: Index, database: Database, queries: Queries) -> MethodResult:
    choice = methods.Choice((), raw_pixel_codes=False, seeds=1)
    by_name = {method.name: method for method in methods.compare(store, database, queries, choice, labels_seen=None)}
    return by_name["FC7, two-stage"]


def figures(database: Database, queries: Queries, rows: np.ndarray) -> tuple[float, float, float]:
    """Precision@10, recall@10 and the share of the 10 nearest in the first 100, where only some rows are ever proposed."""
    right, recall, ten_in_hundred = [], [], []
    for query_D, label in zip(queries.features_QD, queries.labels_Q, strict=True):
        squared = np.square(database.vectors_ND.astype(np.float64) - query_D.astype(np.float64)).sum(1)
        nearest = np.lexsort((np.arange(len(squared)), squared))
        listed = nearest[np.isin(nearest, rows)][:100]
        right.append((database.labels_N[listed[:10]] == label).mean())
        recall.append(np.isin(nearest[:10], listed[:10]).mean())
        ten_in_hundred.append(np.isin(nearest[:10], listed).mean())
    return float(np.mean(right)), float(np.mean(recall)), float(np.mean(ten_in_hundred))


def test_two_stages_over_a_short_list_have_the_figures_of_brute_force(two_stage: tuple[Index, Database, Queries]) -> None:
    store, database, queries = two_stage
    result = two_stages(*two_stage)
    precision, recall, ten_in_hundred = figures(database, queries, np.arange(len(store)))
    assert result.precision[10].expected == pytest.approx(precision, abs=0.01)
    assert result.recall[10].expected == pytest.approx(recall, abs=0.01)
    assert result.ten_in_hundred is not None
    assert result.ten_in_hundred.expected == pytest.approx(ten_in_hundred, abs=0.01)
    assert [latency.mode for latency in methods.latencies(store, queries.features_QD)] == ["exact", "two-stage"]
    bytes_a_row = 64 + 2 * 4  # 32 components filled up to 64, and two lengths
    assert result.bytes_per_item == pytest.approx(bytes_a_row, abs=1)


def test_what_a_short_list_leaves_out_is_seen_in_the_figures(
    two_stage: tuple[Index, Database, Queries], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, database, queries = two_stage
    propose = ByPrincipal.candidates

    def even(self: ByPrincipal, queries_QD: np.ndarray, codes_QW: None, r: int, allowed_N: np.ndarray | None) -> np.ndarray:
        assert r < len(self._rows_NP)
        rows_QR = propose(self, queries_QD, codes_QW, min(2 * r, len(self._rows_NP)), allowed_N)
        return np.where(rows_QR % 2, -1, rows_QR)

    monkeypatch.setattr(ByPrincipal, "candidates", even)
    result = two_stages(*two_stage)
    assert store.manifest.segments == [3000, 400]
    rows = np.concatenate(
        [np.arange(0, 3000, 2), np.arange(3000, 3400)]
    )  # the second is compared whole: lists of 100 ask for 500
    precision, recall, ten_in_hundred = figures(database, queries, rows)
    assert 0.3 < recall < 0.8
    assert result.precision[10].expected == pytest.approx(precision, abs=0.01)
    assert result.recall[10].expected == pytest.approx(recall, abs=0.01)
    assert result.ten_in_hundred is not None
    assert result.ten_in_hundred.expected == pytest.approx(ten_in_hundred, abs=0.01)
