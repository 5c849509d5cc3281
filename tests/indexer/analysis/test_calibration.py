"""Probabilities are those of pool-adjacent-violators, and their error is what one computes by hand."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from indexer.analysis import calibration, reliability
from indexer.analysis.calibration import Pairs
from indexer.storage.calibration import CalibrationRecord, DistanceRecord


def pooled(values: Sequence[float], truths: Sequence[float], weights: Sequence[float]) -> list[float]:
    """Falling means of truths in order of value: whenever a pool's mean is below the next one's, both are one pool."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    pools: list[list[int]] = []
    for i in order:
        pools.append([i])
        while len(pools) > 1 and mean(pools[-2], truths, weights) < mean(pools[-1], truths, weights):
            last = pools.pop()
            pools[-1] += last
    fitted = [0.0] * len(values)
    for pool in pools:
        for i in pool:
            fitted[i] = mean(pool, truths, weights)
    return fitted


def mean(pool: Sequence[int], truths: Sequence[float], weights: Sequence[float]) -> float:
    return sum(truths[i] * weights[i] for i in pool) / sum(weights[i] for i in pool)


def pairs_of(queries: Sequence[int], same: Sequence[int], ranks: Sequence[int] | None = None) -> Pairs:
    count = len(same)
    return Pairs(
        np.array(queries),
        np.arange(count, dtype=float),
        np.arange(count, dtype=float),
        np.array(same, np.bool_),
        np.array(ranks if ranks is not None else [1] * count),
        np.ones(count),
        np.ones(count),
    )


@pytest.mark.parametrize("seed", range(5))
def test_probabilities_are_those_of_pooling_neighbours_and_fall(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values, truths, weights = rng.normal(size=30), rng.integers(0, 2, 30).astype(float), rng.uniform(0.1, 3, 30)
    fitted = calibration.fit(values, truths > 0, weights, queries=10**9).predict(values)
    np.testing.assert_allclose(fitted, pooled(values.tolist(), truths.tolist(), weights.tolist()), atol=1e-6)
    assert (np.diff(fitted[np.argsort(values)]) <= 0).all()


def test_of_few_queries_nothing_is_certain() -> None:
    values = np.arange(6, dtype=float)
    fitted = calibration.fit(values, values < 3, np.ones(6), queries=8).predict([-10, 0, 5, 99])
    np.testing.assert_allclose(fitted, [0.9, 0.9, 0.1, 0.1])


def test_the_error_of_ten_pairs_is_that_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "BINS", 2)
    told = np.array([0.1, 0.1, 0.2, 0.2, 0.4, 0.6, 0.8, 0.8, 0.9, 1.0])
    same = [0, 0, 1, 0, 0, 1, 1, 0, 1, 1]
    measured = calibration.measure("first 50", pairs_of([0, 0, 1, 1, 2, 2, 3, 3, 4, 4], same), told, {"none": np.zeros(10)})
    # bins of five: told 1.0 of 5, observed 1 of 5; told 4.1 of 5, observed 4 of 5
    assert measured.error == pytest.approx((abs(1.0 - 1) + abs(4.1 - 4)) / 10)
    assert measured.brier == pytest.approx(sum((p - s) ** 2 for p, s in zip(told.tolist(), same, strict=True)) / 10)
    np.testing.assert_allclose([bin.predicted for bin in measured.bins], [0.2, 0.82])
    assert [(bin.observed, bin.weight) for bin in measured.bins] == [(0.2, 0.5), (0.8, 0.5)]
    assert measured.others["none"].error == measured.others["none"].brier == 0.5
    low, high = measured.interval
    assert 0 <= low <= high
    assert measured.floor > 0


def test_equal_probabilities_are_in_one_bin_and_bins_count_pairs() -> None:
    told = np.array([0.5] * 60 + [0.1] * 20 + [0.9] * 20)
    bins = calibration.bins_of(told, np.ones(100))
    assert [set(bins[told == value]) for value in (0.1, 0.5, 0.9)] == [{0}, {1}, {2}]
    many = calibration.bins_of(np.linspace(0, 1, 1500), np.ones(1500))
    assert np.bincount(many).tolist() == [100] * 15


def test_which_pairs_count_is_told_by_their_rank() -> None:
    pairs = replace(pairs_of([0] * 4, [0] * 4, [1, 11, 50, 0]), far_P=np.array([1.0, 1, 1, 7]))
    assert [pairs.counts(kind).tolist() for kind in calibration.KINDS] == [[1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 7]]


def test_probabilities_without_error_are_measured_about_at_the_floor() -> None:
    rng = np.random.default_rng(0)
    errors, floors = [], []
    for _ in range(20):
        told = rng.uniform(size=400)
        same = rng.uniform(size=400) < told
        measured = calibration.measure("first 50", pairs_of((np.arange(400) // 4).tolist(), same.astype(int).tolist()), told, {})
        errors.append(measured.error)
        floors.append(measured.floor)
    assert np.mean(errors) == pytest.approx(np.mean(floors), rel=0.15)


def test_a_calibration_is_a_table_and_a_picture() -> None:
    measured = calibration.measure(
        "first 10",
        pairs_of([0, 1, 2], [0, 1, 1]),
        np.array([0.2, 0.5, 0.8]),
        dict.fromkeys((calibration.BASE_RATE, calibration.LOGISTIC, calibration.RAW, calibration.SEEN), np.full(3, 0.5)),
    )
    distance = DistanceRecord(measure="cosine", random=[1.0], steps=[0.0], chances=[0.5], measurements=[measured])
    record = CalibrationRecord(
        created="now",
        fingerprint="f",
        index_version=1,
        items=3,
        next_id=3,
        data="/photos",
        queries=(2, 1),
        unknown=0,
        labels_seen=None,
        sample=[0, 1],
        distances=[distance],
    )
    line = next(line for line in reliability.table(record).splitlines() if line.startswith("cosine, first 10"))
    assert f"{measured.error:.3f} / {measured.brier:.4f}" in line
    assert reliability.picture(record).startswith(b"\x89PNG")
