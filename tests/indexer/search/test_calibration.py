"""Percentiles are counted, distances told in the query's own unit, and probabilities read off falling lines."""

import numpy as np
import pytest

from indexer.search import calibration
from indexer.search.calibration import Scale
from indexer.storage.calibration import DistanceRecord, Measure


def scale(random: list[float], steps: list[float], chances: list[float]) -> Scale:
    record = DistanceRecord(measure="euclidean", random=random, steps=steps, chances=chances, measurements=[])
    return Scale(record, np.zeros((2, 3), np.float32), None)


def test_a_percentile_counts_the_random_pairs_that_are_as_near() -> None:
    random = sorted(np.random.default_rng(0).integers(0, 50, 200).astype(float).tolist())
    distances = np.array([-1.0, 0, 7, 7.5, 49, 60])
    expected = [100 * sum(pair <= distance for pair in random) / 200 for distance in distances.tolist()]
    assert scale(random, [0.0], [0.5]).percentiles(distances).tolist() == expected


def test_a_probability_lies_on_the_line_between_two_steps_and_beyond_them_stays() -> None:
    told = scale([1.0], [-3.0, -1.0, 0.0], [0.9, 0.5, 0.1]).chances(np.array([-9.0, -3, -2, -0.5, 0, 9]))
    np.testing.assert_allclose(told, [0.9, 0.9, 0.7, 0.3, 0.1, 0.1])


@pytest.mark.parametrize("measure", ["euclidean", "cosine"])
def test_a_step_is_a_standard_deviation_of_the_querys_own_distances(measure: Measure) -> None:
    rng = np.random.default_rng(1)
    queries, sample = rng.normal(size=(3, 8)).astype(np.float32), rng.normal(size=(20, 8)).astype(np.float32)
    if measure == "cosine":
        queries, sample = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (queries, sample))
    usual = calibration.usual(queries, sample, measure)
    for i, query in enumerate(queries.astype(np.float64)):
        own = [np.linalg.norm(query - row) if measure == "euclidean" else 1 - query @ row for row in sample.astype(np.float64)]
        np.testing.assert_allclose(
            usual.steps(i, np.array([0.5, 2])), (np.array([0.5, 2]) - np.mean(own)) / np.std(own), rtol=1e-4
        )


def test_codes_differ_by_their_bits() -> None:
    queries, sample = np.array([[0b1011, 0]], np.uint8), np.array([[0, 0], [0b1011, 1], [0xFF, 0xFF]], np.uint8)
    assert calibration.between(queries, sample, "hamming").tolist() == [[3, 1, 13]]


def test_a_query_at_the_same_distance_from_everything_has_no_steps_to_infinity() -> None:
    usual = calibration.usual(np.zeros((1, 2), np.float32), np.ones((3, 2), np.float32), "euclidean")
    assert np.isfinite(usual.steps(0, np.array([0.0, 5]))).all()
