"""The rows of an evaluation: which codes, seeds and labels each stands for; two stages, and with a fault in them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from indexer.assembly import Plan, assemble
from indexer.codes import autoencoder
from indexer.codes.binarise import Objective
from indexer.evaluation import methods
from indexer.evaluation.protocol import MethodResult
from indexer.evaluation.queries import Database, Plain, Queries
from indexer.index import Index, open_index
from indexer.search.shortlist import ByPrincipal
from indexer.storage.artifact import BuildConfiguration
from tests.indexer.synthetic import LABELS, SOURCE, block, features, two_stage_index

QUERIES = 60
OBJECTIVES: dict[str, Objective] = {
    "autoencoder": "both",
    "autoencoder, no contrast": "neighborhood",
    "autoencoder, reconstruction alone": "reconstruction",
}


@pytest.fixture(scope="module")
def two_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Index, Database, Queries]]:
    """An index that no test may change, what it holds, and queries."""
    folder = tmp_path_factory.mktemp("two-stage")
    x_ND = two_stage_index(folder)
    yield from opened(folder, x_ND)


@pytest.fixture(scope="module")
def with_codes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Index, Database, Queries]]:
    """A small index with codes of 16 bits, of FC7 and of raw pixels, that were trained with the seed 3."""
    folder, x_ND = tmp_path_factory.mktemp("with-codes"), features(90, seed=1)
    plan = Plan(bits=16, pixel_codes=True, configuration=BuildConfiguration(seed=3))
    assemble(folder, [block(x_ND, pixels=True)], SOURCE, plan)
    yield from opened(folder, x_ND)


def opened(folder: Path, x_ND: np.ndarray) -> Iterator[tuple[Index, Database, Queries]]:
    store = open_index(folder)
    items, pixels = store.items(range(len(x_ND))), np.random.default_rng(0).integers(0, 256, (len(x_ND) + QUERIES, 3072))
    held, asked = (
        Plain(rows.astype(np.float32), rows[:, :4].astype(np.float32), rows[:, 4:9].astype(np.float32))
        for rows in (pixels[QUERIES:], pixels[:QUERIES])
    )
    database = Database(store.ids(), items, np.array([item.label for item in items]), store.metric, x_ND, held)
    labels = np.array([LABELS[q % 3] for q in range(QUERIES)])
    hashes = [f"{q:064d}" for q in range(QUERIES)]
    queries = Queries(hashes, labels, labels, features(QUERIES, seed=5), asked)
    yield store, database, queries
    store.close()


@dataclass(frozen=True)
class Signs:
    """Stands for an autoencoder: signs of random projections, others for every number of bits, seed, objective and width."""

    bits: int
    seed: int
    objective: str
    width: int

    def encode(self, features_ND: np.ndarray) -> np.ndarray:
        rng = np.random.default_rng([self.bits, self.seed, *self.objective.encode()])
        centred = features_ND - (128 if self.width == 3072 else 2)
        return np.packbits(centred @ rng.normal(size=(self.width, self.bits)) > 0, axis=1, bitorder="little")


@pytest.fixture
def signs(monkeypatch: pytest.MonkeyPatch) -> list[Signs]:
    """Has signs made instead of an autoencoder trained; those that were."""
    trained: list[Signs] = []

    def train(rows_ND: np.ndarray, bits: int, seed: int = 0, objective: Objective = "both") -> Signs:
        trained.append(Signs(bits, seed, objective, rows_ND.shape[1]))
        return trained[-1]

    monkeypatch.setattr(autoencoder, "train", train)
    return trained


def right_first(held_NW: np.ndarray, asked_QW: np.ndarray, database: Database, queries: Queries) -> float:
    """Precision@1 of codes: the share of the nearest that is right, whichever of equals comes first."""
    shares = []
    for code, label in zip(asked_QW, queries.labels_Q, strict=True):
        distances = np.unpackbits(held_NW ^ code, axis=1).sum(1)
        shares.append((database.labels_N[distances == distances.min()] == label).mean())
    return float(np.mean(shares))


def test_a_row_is_of_its_objective_and_seeds_and_the_indexs_own_codes_are_one_of_them(
    with_codes: tuple[Index, Database, Queries], signs: list[Signs]
) -> None:
    store, database, queries = with_codes
    choice = methods.Choice((16, 28), raw_pixel_codes=False, seeds=2)
    found = {(one.name, one.bits): one for one in methods.compare(store, database, queries, choice, labels_seen=None)}
    own = autoencoder.load(store.folder / "autoencoder.safetensors")
    own_figure = right_first(store.codes(range(90)), own.encode(queries.features_QD), database, queries)
    for (name, objective), (bits, seeds) in ((a, b) for a in OBJECTIVES.items() for b in ((16, [3, 4]), (28, [0, 1]))):
        coders = [Signs(bits, seed, objective, 32) for seed in seeds]
        figures = [
            right_first(one.encode(database.vectors_ND), one.encode(queries.features_QD), database, queries) for one in coders
        ]
        if (objective, bits) == ("both", 16):
            figures[0] = own_figure
            assert coders[0] not in signs
        assert found[name, bits].seeds == seeds
        assert found[name, bits].precision[1].expected == pytest.approx(np.mean(figures)), (name, bits)
        assert found[name, bits].compared_with == ("" if name == "autoencoder" else "autoencoder")
    raw = found["raw pixels, autoencoder", 16]
    assert ("raw pixels, autoencoder", 28) not in found
    own = autoencoder.load(store.folder / "pixels.safetensors")
    pixels, asked = database.plain.pixels_NP, queries.plain.pixels_NP
    other = Signs(16, 4, "both", 3072)
    codes = [(own.encode(pixels), own.encode(asked)), (other.encode(pixels), other.encode(asked))]
    assert raw.seeds == [3, 4]
    assert raw.precision[1].expected == pytest.approx(np.mean([right_first(*both, database, queries) for both in codes]))


@pytest.mark.usefixtures("signs")
def test_rows_of_the_network_have_seen_labels_and_the_others_have_not(with_codes: tuple[Index, Database, Queries]) -> None:
    choice = methods.Choice((16,), raw_pixel_codes=True, seeds=2)
    found = methods.compare(*with_codes, choice, labels_seen=0.25)
    for one in found:
        assert one.labels_seen == (0 if one.name.startswith(("untrained", "colour", "raw pixels")) else 0.25), one.name
    assert {"FC7, two-stage", "autoencoder", "untrained FC7, cosine", "raw pixels, autoencoder", "ITQ"} <= {
        one.name for one in found
    }
    assert {one.name: one.bytes_per_item for one in found if not one.bits and one.name != "FC7, two-stage"} == {
        **{f"FC7, {measure}": 4 * 32 for measure in ("Euclidean", "cosine", "centred cosine")},
        **{f"untrained FC7, {measure}": 4 * 5 for measure in ("Euclidean", "cosine", "centred cosine")},
        **{f"raw pixels, {measure}": 4 * 3072 for measure in ("Euclidean", "cosine", "centred cosine")},
        "colour histogram, Hellinger": 4 * 4,
    }


def test_colours_and_the_network_before_training_are_compared_by_their_own_rows(
    with_codes: tuple[Index, Database, Queries],
) -> None:
    store, database, queries = with_codes
    found = {one.name: one for one in methods.compare(store, database, queries, methods.Choice((), False, 1), labels_seen=None)}
    held, asked = database.plain, queries.plain
    assert held.untrained_ND is not None
    assert asked.untrained_ND is not None
    rows = {
        "colour histogram, Hellinger": (held.colours_NL, asked.colours_NL),
        "untrained FC7, Euclidean": (held.untrained_ND, asked.untrained_ND),
        "raw pixels, Euclidean": (held.pixels_NP, asked.pixels_NP),
    }
    for name, (held_ND, asked_QD) in rows.items():
        nearest = [np.square(held_ND.astype(np.float64) - query_D).sum(1).argmin() for query_D in asked_QD]
        assert found[name].precision[1].expected == pytest.approx((database.labels_N[nearest] == queries.labels_Q).mean()), name


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
