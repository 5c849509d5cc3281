"""Scans of rows, compiled and not, against brute force: distances, ids, ties, masks, limits and pages."""

from math import fsum, sqrt

import numpy as np
import pytest

from indexer.metric import lengths_of
from indexer.scans import native, scan
from tests.indexer.synthetic import at_an_odd_address, features

by_both_scans = pytest.mark.usefixtures("scans")


def squared(vectors_ND: np.ndarray, query_D: np.ndarray) -> np.ndarray:
    return np.array([sum((float(a) - float(b)) ** 2 for a, b in zip(row, query_D, strict=True)) for row in vectors_ND])


def bits_between(codes_NW: np.ndarray, query_W: np.ndarray) -> np.ndarray:
    return np.array([sum((int(a) ^ int(b)).bit_count() for a, b in zip(code, query_W, strict=True)) for code in codes_NW])


def first(keys: np.ndarray, k: int, mask: np.ndarray | None, after: tuple[float, int] | None, most: float | None) -> list[int]:
    rows = [i for i in np.lexsort((np.arange(len(keys)), keys)).tolist() if mask is None or mask[i]]
    rows = [i for i in rows if most is None or keys[i] <= most]
    return [i for i in rows if after is None or (keys[i], i) > after][:k]


def codes(rows: int, width: int, seed: int = 0) -> np.ndarray:
    """Random codes, near one another, so that distances tie: uint8 (rows, width)."""
    rng = np.random.default_rng(seed)
    bits = rng.random((rows, 8 * width)) < rng.choice([0.1, 0.5], (rows, 1))
    return np.packbits(bits, axis=1, bitorder="little")


@by_both_scans
@pytest.mark.parametrize("queries", [1, 3, 40])
@pytest.mark.parametrize("k", [1, 9, 300])
@pytest.mark.parametrize("width", [1, 5, 64, 530])
def test_exact_equals_brute_force(queries: int, k: int, width: int) -> None:
    vectors, asked = features(150, width=width), features(queries, seed=1, width=width)
    found, rows = scan.exact(vectors, asked, k)
    assert found.shape == rows.shape == (queries, min(k, 150))
    for i in range(0, queries, 7):
        keys = squared(vectors, asked[i])
        np.testing.assert_allclose(found[i], np.sort(keys)[:k], rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(keys[rows[i]], found[i], rtol=1e-12, atol=1e-12)
        equal = np.diff(found[i]) == 0
        assert (np.diff(rows[i])[equal] > 0).all()


@by_both_scans
@pytest.mark.parametrize("queries", [1, 30])
@pytest.mark.parametrize("width", [5, 530])
def test_rows_and_queries_at_odd_addresses_are_scanned_as_any_others(queries: int, width: int) -> None:
    vectors, asked = features(150, width=width), features(queries, seed=1, width=width)
    odd, asked_odd = at_an_odd_address(vectors), at_an_odd_address(asked)
    for found, expected in zip(scan.exact(odd, asked_odd, 9), scan.exact(vectors, asked, 9), strict=True):
        np.testing.assert_array_equal(found, expected)
    rows = np.array([7, 0, 149])
    np.testing.assert_array_equal(scan.distances(odd, asked_odd[0], rows), scan.distances(vectors, asked[0], rows))


def halves_over_their_lengths(part_ND: np.ndarray) -> np.ndarray:
    """Rows at length 1, number by number: float32."""
    lengths = [sqrt(fsum(value * value for value in row)) for row in part_ND.tolist()]
    return np.array(
        [[value / (length or 1) for value in row] for row, length in zip(part_ND.tolist(), lengths, strict=True)], np.float32
    )


@by_both_scans
@pytest.mark.parametrize("queries", [1, 40])
@pytest.mark.parametrize("width", [2, 10, 128, 1060])
@pytest.mark.parametrize("odd", [False, True])
def test_a_half_of_each_row_is_compared_as_if_it_were_alone(queries: int, width: int, odd: bool) -> None:
    vectors, asked = features(150, width=width), features(queries, seed=1, width=width)
    where = at_an_odd_address(vectors) if odd else vectors
    for half in (slice(0, width // 2), slice(width // 2, width)):
        found = scan.exact(where[:, half], asked[:, half], 9)
        for got, expected in zip(found, scan.exact(vectors[:, half].copy(), asked[:, half].copy(), 9), strict=True):
            np.testing.assert_array_equal(got, expected)
        keys = squared(vectors[:, half], asked[0, half])
        np.testing.assert_allclose(found[0][0], np.sort(keys)[:9], rtol=1e-12, atol=1e-12)
        rows = np.array([149, 3])
        np.testing.assert_allclose(scan.distances(where[:, half], asked[0, half], rows), keys[rows], rtol=1e-12)


@by_both_scans
@pytest.mark.parametrize("queries", [1, 40])
@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e-44, 1e18, 1e30])
def test_halves_are_compared_by_their_own_angle_and_those_of_zeros_are_not_there(queries: int, scale: float) -> None:
    rng = np.random.default_rng(4)
    vectors = (features(203, width=140) * rng.uniform(0.1, 10, (203, 1)) * scale).astype(np.float32)
    vectors[[5, 6]] = 0
    part = vectors[:, 70:]
    over = halves_over_their_lengths(part)
    asked = np.concatenate([over[: queries // 2], halves_over_their_lengths(features(queries, seed=1, width=70))])[:queries]
    there = np.arange(203)[~np.isin(np.arange(203), [5, 6])]
    mask = (np.arange(203) % 3 != 0).astype(np.uint8)
    for allowed in (None, mask):
        found, rows = scan.exact(part, asked, 40, allowed, None, 1.2, lengths_of(part))
        for i in range(0, queries, 5):
            keys = squared(over, asked[i])
            expected = [row for row in first(keys, 210, allowed, None, 1.2) if row in there][:40]
            here = rows[i] >= 0
            np.testing.assert_allclose(found[i][here], keys[expected], rtol=1e-9, atol=1e-14)
            assert (
                sorted(rows[i][here]) == sorted(expected) or len(expected) == 40
            )  # equals to the last bit or two may change places
            np.testing.assert_allclose(keys[rows[i][here]], found[i][here], rtol=1e-9, atol=1e-14)
    if queries > 1:
        assert scan.exact(part, over[:1], 1, lengths_N=lengths_of(part))[0][0, 0] == 0


def test_native_code_gets_no_table_that_is_not_one() -> None:
    table, query = features(8, width=16), features(1, width=8)[0]
    wanted = native.Wanted(1, None, None, None)
    wrongs: list[np.ndarray] = [table, table[:, ::2], table[::-1, :8], table[:, :8].astype(np.float64), table[0, :8]]
    for wrong in wrongs:
        with pytest.raises(ValueError, match="expected rows of 8 float32"):
            native.exact(wrong, query, wanted)
    with pytest.raises(ValueError, match="expected float64"):
        native.exact(table[:, :8], query, wanted, np.ones(7))


@by_both_scans
@pytest.mark.parametrize("queries", [2, 30])
def test_exact_takes_masks_limits_and_pages(queries: int) -> None:
    vectors = features(200, width=16)
    asked = vectors[:queries]
    mask = (np.arange(200) % 3 != 0).astype(np.uint8)
    middle = float(np.median(squared(vectors, asked[0])))
    for allowed in (None, mask):
        for most in (None, middle):
            for after in (None, (0.0, 1), (middle, 100), (-1.0, -1)):
                found, rows = scan.exact(vectors, asked, 30, allowed, after, most)
                for i in range(queries):
                    here = rows[i] >= 0
                    keys = scan.distances(vectors, asked[i], np.arange(200))
                    np.testing.assert_allclose(keys, squared(vectors, asked[i]), rtol=1e-12)
                    assert rows[i][here].tolist() == first(keys, 30, allowed, after, most)
                    assert np.isinf(found[i][~here]).all()
                    np.testing.assert_array_equal(found[i][here], keys[rows[i][here]])


@by_both_scans
def test_equal_rows_are_in_order_wherever_the_list_is_cut() -> None:
    vectors = np.repeat(features(10), 50, axis=0)
    np.random.default_rng(2).shuffle(vectors)
    same = np.flatnonzero((vectors == vectors[0]).all(1))
    for queries in (1, 30):
        for k in (1, 7, 49, 50):
            found, rows = scan.exact(vectors, np.repeat(vectors[:1], queries, 0), k)
            np.testing.assert_array_equal(rows, np.repeat(same[None, :k], queries, 0))
            np.testing.assert_array_equal(found, 0)


@by_both_scans
def test_a_row_is_at_exactly_zero_from_itself_far_from_the_origin() -> None:
    vectors = features(300)[:100] + 1000
    found, rows = scan.exact(vectors, vectors, 1)
    np.testing.assert_array_equal(found, 0)
    np.testing.assert_array_equal(rows[:, 0], np.arange(100))


@by_both_scans
def test_an_answer_does_not_depend_on_how_many_queries_come_together() -> None:
    vectors, asked = features(300), features(64, seed=3)
    together = scan.exact(vectors, asked, 9)
    for i, query in enumerate(asked):
        for one, all_of_them in zip(scan.exact(vectors, query[None], 9), together, strict=True):
            np.testing.assert_array_equal(one[0], all_of_them[i])


@by_both_scans
@pytest.mark.parametrize("most_proposals", [0, 2**22])
def test_many_equal_rows_are_in_order(most_proposals: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "_MOST_PROPOSALS", most_proposals)
    vectors = features(300)
    vectors[100:] = 0
    found, rows = scan.exact(vectors, np.zeros((30, vectors.shape[1]), np.float32), 20)
    zero = np.flatnonzero((vectors == 0).all(1))[:20]
    np.testing.assert_array_equal(rows, np.repeat(zero[None], 30, 0))
    np.testing.assert_array_equal(found, 0)


@by_both_scans
@pytest.mark.parametrize("scale", [1e-25, 1e-21, 1e-18, 1e-3, 1e18])
@pytest.mark.parametrize("queries", [1, 30])
def test_distances_out_of_reach_of_float32_are_in_order_too(scale: float, queries: int) -> None:
    vectors = (features(200, width=70) * scale).astype(np.float32)
    found, rows = scan.exact(vectors, vectors[:queries], 30)
    for i in range(queries):
        keys = scan.distances(vectors, vectors[i], np.arange(200))
        assert rows[i].tolist() == first(keys, 30, None, None, None)
        np.testing.assert_array_equal(found[i], keys[rows[i]])


@by_both_scans
@pytest.mark.parametrize("width", [2, 4, 6, 8, 16, 32])
@pytest.mark.parametrize("queries", [1, 5])
def test_hamming_equals_counting_bits(width: int, queries: int) -> None:
    table, asked = codes(1300, width), codes(queries, width, seed=1)
    mask = (np.arange(1300) % 5 != 0).astype(np.uint8)
    for k in (1, 10, 1300):
        for allowed, after, most in ((None, None, None), (mask, None, 3 * width), (mask, (2 * width, 650), None)):
            distances, rows = scan.hamming(table, asked, k, allowed, after, most)
            assert distances.shape == rows.shape == (queries, k)
            for i, query in enumerate(asked):
                keys = bits_between(table, query)
                here = rows[i] >= 0
                assert rows[i][here].tolist() == first(keys, k, allowed, after, most)
                np.testing.assert_array_equal(distances[i][here], keys[rows[i][here]])
                np.testing.assert_array_equal(distances[i][~here], -1)


@by_both_scans
@pytest.mark.parametrize("width", [2, 4, 16])
def test_a_ball_is_the_same_looked_up_or_scanned(width: int) -> None:
    table = codes(900, width)
    mask = (np.arange(900) % 4 != 0).astype(np.uint8)
    buckets = scan.Buckets(table, 8 * width)
    for radius in (0, 1, 2, 40):
        for allowed in (None, mask):
            distances, rows, looked_up = buckets.ball(table[3], radius, allowed)
            expected = bits_between(table, table[3])
            wanted = first(expected, 900, allowed, None, radius)
            assert rows.tolist() == wanted
            assert distances.tolist() == expected[wanted].tolist()
            scanned = scan.ball(table, table[3], radius, allowed)
            assert (scanned[0].tolist(), scanned[1].tolist()) == (distances.tolist(), rows.tolist())
            few = {0: 1, 1: 1 + 8 * width}
            assert looked_up == (few.get(radius, 900) if width <= 4 and radius < 2 else looked_up)
            assert looked_up <= 900


def test_bits_that_are_not_used_are_not_looked_up() -> None:
    table = codes(900, 4)
    table[:, 3] &= 0x0F
    assert scan.Buckets(table, 28).ball(table[0], 2)[2] == 1 + 28 + 28 * 27 // 2


@by_both_scans
def test_nothing_is_found_in_nothing() -> None:
    assert scan.exact(np.empty((0, 8), np.float32), np.zeros((2, 8), np.float32), 5)[1].shape == (2, 0)
    assert scan.hamming(np.empty((0, 2), np.uint8), np.zeros((2, 2), np.uint8), 5)[1].shape == (2, 0)
    assert len(scan.distances(features(4), features(1)[0], np.empty(0, np.int64))) == 0
