"""The autoencoder: bits, codes that depend on their row alone, likeness kept, files, and features that are hard to learn from."""

import dataclasses
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from indexer import arrays
from indexer.codes import autoencoder
from indexer.codes.autoencoder import BITS, Autoencoder, train
from training.errors import BadValue, Mismatch, NotReady

Rows = np.ndarray


def mixture(rows: int, width: int = 64, clusters: int = 8, seed: int = 0) -> tuple[Rows, Rows]:
    """Sparse features that are not negative, and the cluster of each row."""
    rng = np.random.default_rng(seed)
    centres = np.maximum(np.random.default_rng(1).normal(size=(clusters, width)), 0) * 5
    labels = rng.integers(clusters, size=rows)
    return np.maximum(centres[labels] + rng.normal(size=(rows, width)), 0).astype(np.float32), labels


def bits_of(codes_NW: Rows, bits: int) -> Rows:
    """0 and 1 by the rule: bit i is bit i % 8 of byte i // 8."""
    return np.array([[(int(code[i // 8]) >> (i % 8)) & 1 for i in range(bits)] for code in codes_NW])


def distances(a_NW: Rows, b_MW: Rows) -> Rows:
    return np.array([[sum(int(x ^ y).bit_count() for x, y in zip(a, b, strict=True)) for b in b_MW] for a in a_NW])


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Products as small as these take longer on several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def learned() -> Autoencoder:
    return train(mixture(300)[0], 32)


@pytest.mark.parametrize("bits", BITS)
def test_codes_have_the_bytes_of_their_bits_and_28_lie_in_32(bits: int) -> None:
    codes = train(mixture(24, 16)[0], bits).encode(mixture(5, 16, seed=2)[0])
    assert codes.dtype == np.uint8
    assert codes.shape == (5, {28: 4}.get(bits, bits // 8))
    if bits == 28:
        assert not (codes[:, 3] >> 4).any()


def test_a_row_has_the_code_that_it_has_among_others(learned: Autoencoder) -> None:
    asked = mixture(200, seed=3)[0]
    together = learned.encode(asked)
    np.testing.assert_array_equal(np.concatenate([learned.encode(row[None]) for row in asked]), together)
    np.testing.assert_array_equal(learned.encode(asked[::-1]), together[::-1])
    np.testing.assert_array_equal(learned.encode(np.asfortranarray(asked)), together)


def test_the_order_in_which_components_are_summed_makes_no_difference(learned: Autoencoder) -> None:
    asked = mixture(50, seed=4)[0]
    order = np.random.default_rng(0).permutation(learned.width)
    shuffled = dataclasses.replace(learned, basis_DP=np.ascontiguousarray(learned.basis_DP[order]))
    np.testing.assert_array_equal(learned.encode(asked), shuffled.encode(asked[:, order]))


def test_the_length_of_a_row_makes_no_difference(learned: Autoencoder) -> None:
    asked = mixture(50, seed=3)[0]
    for factor in (2.0**-20, 4.0, 2.0**100):
        np.testing.assert_array_equal(learned.encode((asked * factor).astype(np.float32)), learned.encode(asked))


def test_rows_of_one_cluster_have_nearer_codes(learned: Autoencoder) -> None:
    (database, labels), (asked, wanted) = mixture(300), mixture(40, seed=5)
    apart = distances(learned.encode(asked), learned.encode(database))
    same = wanted[:, None] == labels
    assert apart[same].mean() < 0.3 * apart[~same].mean()


def test_noise_on_a_row_turns_few_bits_where_few_rows_taught_them() -> None:
    """Of 64 bits that 60 rows taught, one in 22 turned over by this much noise when they were taught without any."""
    learned, asked = train(mixture(60)[0], 64), mixture(100, seed=5)[0]
    noise = np.random.default_rng(0).normal(scale=0.5, size=asked.shape)
    noisy = np.maximum(asked + noise, 0).astype(np.float32)
    turned = bits_of(learned.encode(asked), 64) != bits_of(learned.encode(noisy), 64)
    assert turned.mean() < 0.025


def test_bits_are_balanced_and_reported_as_they_are(learned: Autoencoder) -> None:
    bits = bits_of(learned.encode(mixture(300)[0]), 32)
    report = learned.report
    assert (report.bits, report.width, report.rows, report.rows_given, report.seed) == (32, 64, 300, 300, 0)
    assert bits.mean(0).min() == pytest.approx(report.ones_least, abs=0.01)
    assert bits.mean(0).max() == pytest.approx(report.ones_most, abs=0.01)
    correlation = np.abs(np.corrcoef(bits.T)[~np.eye(32, dtype=bool)])
    assert correlation.mean() == pytest.approx(report.correlation_mean, abs=0.01)
    assert 0.2 < report.ones_least < report.ones_most < 0.8


def test_most_of_a_feature_can_be_told_from_its_code(learned: Autoencoder) -> None:
    features = mixture(300)[0]
    bits = np.column_stack([bits_of(learned.encode(features), 32), np.ones(300)])
    decoded = bits @ np.linalg.lstsq(bits, features, rcond=None)[0]
    assert np.square(features - decoded).sum() < 0.5 * np.square(features - features.mean(0)).sum()
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    decoded = bits @ np.linalg.lstsq(bits, unit, rcond=None)[0]
    error = np.square(decoded - unit).sum() / np.square(unit - unit.mean(0)).sum()
    assert error == pytest.approx(learned.report.error, abs=0.02)


def test_the_same_seed_gives_the_same_autoencoder_and_another_another() -> None:
    features = mixture(100, 16)[0]
    first, again, other = train(features, 16, 5), train(features, 16, 5), train(features, 16, 6)
    np.testing.assert_array_equal(first.encode(features), again.encode(features))
    for name in ("basis_DP", "linear_PB", "output_UB"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert (first.encode(features) != other.encode(features)).any()


def test_a_file_gives_back_the_same_codes_and_report(learned: Autoencoder, tmp_path: Path) -> None:
    autoencoder.save(learned, tmp_path / "autoencoder.safetensors")
    loaded = autoencoder.load(tmp_path / "autoencoder.safetensors")
    asked = mixture(50, seed=6)[0]
    np.testing.assert_array_equal(loaded.encode(asked), learned.encode(asked))
    assert loaded.report == learned.report


def test_a_damaged_or_other_file_is_refused(learned: Autoencoder, tmp_path: Path) -> None:
    path = tmp_path / "autoencoder.safetensors"
    with pytest.raises(NotReady, match="no autoencoder at"):
        autoencoder.load(path)
    autoencoder.save(learned, path)
    whole = tmp_path / "whole"
    shutil.copyfile(path, whole)
    os.truncate(path, path.stat().st_size - 10)
    with pytest.raises(Mismatch, match="damaged"):
        autoencoder.load(path)
    save_file(load_file(whole), path)
    with pytest.raises(Mismatch, match="not an autoencoder"):
        autoencoder.load(path)
    save_file({"basis_DP": torch.zeros(3)}, path, {"autoencoder": learned.report.model_dump_json()})
    with pytest.raises(Mismatch, match="its description says"):
        autoencoder.load(path)
    newer = learned.report.model_copy(update={"format": 99})
    save_file(load_file(whole), path, {"autoencoder": newer.model_dump_json()})
    with pytest.raises(Mismatch, match="format 99"):
        autoencoder.load(path)


@pytest.mark.parametrize("rows", [1, 2, 3, 24])
def test_fewer_rows_than_bits_are_enough(rows: int) -> None:
    features = mixture(rows, 16)[0]
    learned = train(features, 128)
    assert learned.encode(features).shape == (rows, 16)
    assert np.isfinite(learned.report.error)


def test_equal_rows_dead_components_and_rows_of_zeros_are_learned_from() -> None:
    same = np.ones((24, 16), np.float32)
    codes = train(same, 16).encode(same)
    assert (codes == codes[0]).all()
    features = mixture(60, 32)[0]
    features[:, 10:20] = 0
    features[7] = 0
    learned = train(features, 28)
    assert len(np.unique(learned.encode(features), axis=0)) > 1
    assert np.isfinite(learned.report.error)
    nothing = train(np.zeros((5, 16), np.float32), 16)
    assert nothing.encode(np.zeros((5, 16), np.float32)).shape == (5, 2)
    assert np.isfinite(nothing.report.error)


def test_no_rows_have_no_codes(learned: Autoencoder) -> None:
    assert learned.encode(np.zeros((0, 64), np.float32)).shape == (0, 4)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_refused(learned: Autoencoder, value: float) -> None:
    features = mixture(30)[0]
    features[3, 5] = value
    with pytest.raises(BadValue, match="features must be finite"):
        train(features, 16)
    with pytest.raises(BadValue, match="features must be finite"):
        learned.encode(features)


def test_bits_and_tables_that_cannot_be_are_refused(learned: Autoencoder) -> None:
    with pytest.raises(BadValue, match="bits must be one of 16, 28, 32, 48, 64, 128, 256, got 20"):
        train(mixture(24)[0], 20)
    with pytest.raises(BadValue, match="at least one row"):
        train(np.zeros((0, 16), np.float32), 16)
    with pytest.raises(BadValue, match="a table of 64 columns"):
        learned.encode(mixture(5, 16)[0])


def test_a_memory_map_is_sampled_and_gives_the_same_autoencoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features = mixture(200, 16)[0]
    np.save(tmp_path / "features.npy", features)
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    monkeypatch.setattr(arrays, "SAMPLE_ROWS", 60)
    monkeypatch.setattr(autoencoder, "_BLOCK", 16)
    learned = train(mapped, 16)
    assert (learned.report.rows, learned.report.rows_given) == (60, 200)
    np.testing.assert_array_equal(learned.encode(mapped), train(features, 16).encode(features))
