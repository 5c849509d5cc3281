"""Codes as others make them: against FAISS's own transforms, against definitions written out, and against chance."""

import faiss
import numpy as np
import pytest

from indexer import arrays
from indexer.codes import baselines


def clusters(rows: int, width: int = 24, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(8, width)) * 3
    return np.maximum(centres[rng.integers(0, 8, rows)] + rng.normal(size=(rows, width)), 0).astype(np.float32)


def bits_of(codes_NW: np.ndarray, bits: int) -> np.ndarray:
    return np.array([[code[b // 8] >> (b % 8) & 1 for b in range(bits)] for code in codes_NW], bool)


def unit(rows_ND: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = rows_ND / np.linalg.norm(rows_ND, axis=1, keepdims=True)
    return scaled


def fitted(rows_ND: np.ndarray, lengths: tuple[int, ...], seed: int = 0) -> dict[tuple[str, int], baselines.Encoder]:
    """The encoders of one seed."""
    return {
        (name, bits): next(iter(encoders.values()))
        for name, bits, encoders in baselines.fit(rows_ND, lengths, [seed], raw_rows=True)
    }


def test_pca_signs_are_those_of_the_leading_eigenvectors_of_the_covariance() -> None:
    rows, asked = unit(clusters(300)), unit(clusters(20, seed=1))
    centred = rows.astype(np.float64) - rows.mean(0)
    vectors = np.linalg.eigh(centred.T @ centred)[1]
    expected = (asked - rows.mean(0)) @ vectors[:, ::-1][:, :16]
    found = bits_of(fitted(rows, (16,))["PCA-sign", 16].encode(asked), 16)
    clear = np.abs(expected) > 1e-3
    agree = found == (expected > 0)
    same, opposite = ((agree == side) | ~clear for side in (True, False))
    assert (same.all(0) | opposite.all(0)).all()  # an eigenvector has no sign of its own


def error(projected_NB: np.ndarray) -> float:
    """What ITQ minimises: how far rows of length 1 are from their own signs."""
    signs = np.sign(projected_NB) / np.sqrt(projected_NB.shape[1])
    return float(((signs - projected_NB / np.linalg.norm(projected_NB, axis=1, keepdims=True)) ** 2).mean())


def projected(encoder: baselines.Encoder, rows_ND: np.ndarray) -> np.ndarray:
    assert isinstance(encoder, baselines.Hyperplanes)
    centred = unit(rows_ND) - encoder.centre_D
    signs_NB: np.ndarray = centred / np.linalg.norm(centred, axis=1, keepdims=True) @ encoder.projection_DB
    return signs_NB


def test_itq_is_as_near_to_its_own_signs_as_faiss_itq() -> None:
    rows = clusters(400)
    whole = faiss.ITQTransform(24, 16, True)
    whole.train(unit(rows))
    ours = fitted(rows, (16,))["ITQ", 16]
    assert error(projected(ours, rows)) < 1.05 * error(whole.apply(unit(rows)))
    np.testing.assert_array_equal(bits_of(ours.encode(rows), 16), projected(ours, rows) > 0)


def test_lsh_is_balanced_and_its_distances_follow_angles() -> None:
    rows = clusters(600)
    codes = fitted(rows, (64,))["LSH", 64].encode(rows)
    bits = bits_of(codes, 64)
    assert codes.shape == (600, 8)
    np.testing.assert_allclose(bits.mean(0), 0.5, atol=0.01)
    near = np.argsort(((rows - rows[0]) ** 2).sum(1))
    hamming = (bits != bits[0]).sum(1)
    assert hamming[near[:20]].mean() < hamming[near[-300:]].mean() - 8


@pytest.mark.parametrize("bits", [16, 28, 32])
def test_every_baseline_gives_codes_of_the_same_size(bits: int) -> None:
    rows = clusters(200, width=40)
    made = fitted(rows, (bits,))
    assert sorted(made) == [(f"{name}{rows}", bits) for name in ("ITQ", "LSH", "PCA-sign") for rows in ("", ", raw rows")]
    assert {encoder.encode(rows[:3]).shape for encoder in made.values()} == {(3, -(-bits // 8))}


def test_lengths_beyond_the_components_that_there_are_are_left_to_lsh() -> None:
    made = sorted(key for key in fitted(clusters(200), (16, 32)) if "raw" not in key[0])
    assert made == [("ITQ", 16), ("LSH", 16), ("LSH", 32), ("PCA-sign", 16)]


def test_a_large_database_is_sampled_all_over_and_never_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = clusters(2000)
    rows = rows[np.argsort(np.random.default_rng(0).integers(0, 8, 2000))]  # one cluster after the other, as folders are read
    rows.flags.writeable = False
    monkeypatch.setattr(arrays, "SAMPLE_ROWS", 300)
    itq = fitted(rows, (16,))["ITQ", 16]
    assert isinstance(itq, baselines.Hyperplanes)
    np.testing.assert_allclose(itq.centre_D, unit(rows).mean(0), atol=0.04)


def test_the_length_of_a_row_makes_no_difference_unless_rows_are_raw() -> None:
    rows, asked = clusters(300), clusters(40, seed=1)
    lengths = np.random.default_rng(0).choice([0.25, 1, 8], (300, 1)).astype(np.float32)
    stretched = fitted(rows * lengths, (16,))
    for (name, bits), encoder in fitted(rows, (16,)).items():
        codes, same = encoder.encode(asked), "raw" not in name
        assert (codes == encoder.encode(4 * asked)).all() == same, name
        agreement = (bits_of(stretched[name, bits].encode(asked), 16) == bits_of(codes, 16)).mean()
        assert (agreement > 0.99) == same, name


def test_raw_rows_are_cut_where_the_definition_cuts_them() -> None:
    rows, asked = clusters(300), clusters(20, seed=1)
    encoder = fitted(rows, (16,))["ITQ, raw rows", 16]
    assert isinstance(encoder, baselines.Hyperplanes)
    expected = (asked - rows.mean(0)) @ encoder.projection_DB
    clear = np.abs(expected) > 1e-3
    np.testing.assert_array_equal(bits_of(encoder.encode(asked), 16)[clear], (expected > 0)[clear])


def test_every_seed_has_its_own_random_directions_and_the_same_principal_components() -> None:
    rows = clusters(300)
    made = {name: list(encoders.items()) for name, _, encoders in baselines.fit(rows, (16,), [3, 4], raw_rows=False)}
    for name in ("ITQ", "LSH"):
        (first, one), (second, other) = made[name]
        assert (first, second) == (3, 4)
        np.testing.assert_array_equal(one.encode(rows), fitted(rows, (16,), 3)[name, 16].encode(rows))
        assert (one.encode(rows) != other.encode(rows)).any()
    assert [seed for seed, _ in made["PCA-sign"]] == [None]
    assert sorted(made) == ["ITQ", "LSH", "PCA-sign"]
