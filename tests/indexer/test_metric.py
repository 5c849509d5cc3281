"""The metrics of an index: lengths and angles by float64 and by scikit-learn, zeros, builds and changes by cosine."""

from collections.abc import Iterator
from dataclasses import replace
from math import fsum, sqrt
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics.pairwise import cosine_distances

from indexer import add as adding
from indexer import build
from indexer.assembly import Plan, assemble
from indexer.codes import autoencoder
from indexer.codes.autoencoder import Autoencoder
from indexer.compact import CompactSettings
from indexer.compact import main as compact
from indexer.features import FeatureBlock, feature_block
from indexer.index import Index, open_index
from indexer.metric import Metric, distances_between, distances_of, have_vectors, most_squared, vectors_of
from indexer.search.shortlist import ByPrincipal
from indexer.storage import artifact
from indexer.store import Mode, Query
from tests.conftest import write_photographs
from tests.indexer.synthetic import SOURCE, block, features
from training.checkpoint import Model
from training.errors import BadValue
from training.images.folders import ReadResult, Reject

NO_DIRECTION = "its feature is zero in every component and has no direction; metric=euclidean takes it"


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_distances_between_features_and_vectors_are_those_of_the_formula(metric: Metric) -> None:
    x_ND = np.concatenate([features(6, width=40), np.zeros((1, 40), np.float32)])
    found = distances_between(x_ND, vectors_of(x_ND[:2], metric), metric)
    if metric == "euclidean":
        of_rows = [
            [sqrt(fsum((a - b) ** 2 for a, b in zip(row, other, strict=True))) for other in x_ND[:2].tolist()]
            for row in x_ND.tolist()
        ]
    else:
        of_rows = [*cosine_distances(x_ND[:-1].astype(np.float64), x_ND[:2].astype(np.float64)).tolist(), [1.0, 1.0]]
    np.testing.assert_allclose(found, of_rows, rtol=1e-5, atol=1e-6)


def test_rows_are_taken_to_length_1_by_float64_whatever_float32_makes_of_their_squares() -> None:
    usual = features(5, width=300)
    scales = (1, 1e-30, 1e30, 1e-44, 1e38)
    x_ND = np.concatenate([(usual / usual.max() * scale).astype(np.float32) for scale in scales])
    vectors_ND = vectors_of(x_ND, "cosine")
    assert vectors_ND.dtype == np.float32
    for row, vector in zip(x_ND.tolist(), vectors_ND, strict=True):
        length = sqrt(fsum(value * value for value in row))
        np.testing.assert_array_equal(vector, np.array([value / length for value in row], np.float32))
    np.testing.assert_array_equal(vectors_of(x_ND, "euclidean"), x_ND)


@pytest.mark.parametrize("width", [2, 70])
def test_a_row_at_length_1_stays_and_a_row_alone_is_as_among_others(width: int) -> None:
    """Rounding changes the length of a narrow row most."""
    x_ND = features(20_000, width=width) + np.float32(0.01)
    vectors_ND = vectors_of(x_ND, "cosine")
    np.testing.assert_array_equal(vectors_of(vectors_ND, "cosine"), vectors_ND)
    for row in (0, 4095, 4096, 4999):
        np.testing.assert_array_equal(vectors_of(x_ND[row : row + 1], "cosine")[0], vectors_ND[row])


def test_what_has_no_direction_is_named() -> None:
    x_ND = features(4)
    x_ND[2] = 0
    assert have_vectors(x_ND, "cosine").tolist() == [True, True, False, True]
    assert have_vectors(x_ND, "euclidean").all()
    with pytest.raises(
        BadValue, match="vector must be something with a direction, since metric=cosine compares directions, got 'a "
    ):
        vectors_of(x_ND, "cosine", "vector")
    for wrong in (np.nan, np.inf):
        x_ND[2, 1] = wrong
        with pytest.raises(BadValue, match="features must be finite"):
            vectors_of(x_ND, "cosine")
    assert vectors_of(np.empty((0, 7), np.float32), "cosine").shape == (0, 7)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_a_bound_holds_exactly_what_is_told_as_no_farther(metric: Metric) -> None:
    squared = np.sort(np.random.default_rng(0).uniform(0, 4, 2000))
    told = distances_of(squared, metric)
    for bound in told[::100].tolist():
        most = most_squared(bound, metric)
        assert most is not None
        np.testing.assert_array_equal(squared <= most, told <= np.float32(bound))
    assert most_squared(None, metric) is None


def test_rounding_leads_no_distance_beyond_that_of_opposite_directions() -> None:
    opposite = np.array([4 * (1 + 2**-22), np.inf])
    assert distances_of(opposite, "cosine").tolist() == [2, np.inf]
    assert most_squared(2, "cosine") is None


def test_codes_do_not_depend_on_the_metric() -> None:
    """But for rounding: a vector of length 1 is one in float32."""
    x_ND = features(2000, width=256) * np.random.default_rng(0).uniform(0.01, 100, (2000, 1)).astype(np.float32)
    coder = autoencoder.train(x_ND[:180], 16)
    codes, by_angle = coder.encode(x_ND), coder.encode(vectors_of(x_ND, "cosine"))
    assert np.unpackbits(codes ^ by_angle).mean() < 2e-4


@pytest.fixture(scope="module")
def coder() -> Iterator[Autoencoder]:
    """The autoencoder of every index here that is not built from photographs."""
    once = autoencoder.train(features(180), 16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(autoencoder, "train", lambda features_ND, bits, seed: once)
        yield once


def made(folder: Path, feature_blocks: list[FeatureBlock], **plan: object) -> Index:
    assemble(folder, feature_blocks, SOURCE, Plan(metric="cosine", **plan))  # type: ignore[arg-type]
    return open_index(folder)


def signed(rows: int, seed: int) -> np.ndarray:
    """Rows of every length and direction, some of them equal but for their length, a power of two."""
    rng = np.random.default_rng(seed)
    x_ND = (rng.normal(size=(rows, 32)) * np.exp(rng.normal(0, 9, (rows, 1)))).astype(np.float32)
    x_ND[rows // 2 : rows // 2 + 10] = 4 * x_ND[:10]
    x_ND[-1] = -x_ND[0]
    return x_ND


def test_distances_are_those_of_scikit_learn_over_segments_without_what_was_removed(tmp_path: Path, coder: Autoencoder) -> None:
    x_ND, removed = signed(260, 0), [0, 17, 255]
    store = made(tmp_path, [block(x_ND[:150])], bits=16)
    for start, stop in ((150, 200), (200, 240), (240, 260)):
        store, _ = store.add([block(x_ND[start:stop], start)], Path("/c"))
    store = store.remove(removed)
    assert len(store.version.segments) > 1
    left = np.array([item for item in range(260) if item not in removed])
    queries_QD = np.concatenate([x_ND[[1, 0, 131, 259]], signed(40, 1)[:4]])
    expected_QN = cosine_distances(queries_QD.astype(np.float64), x_ND[left].astype(np.float64))
    queries_QD[4:] *= np.float32(2**-80)  # which scikit-learn takes for zeros
    modes: tuple[Mode, ...] = ("exact", "two-stage")
    for mode in modes:
        hits = store.search(queries_QD, Query(300, mode))
        assert (hits.ids_QK >= 0).sum(1).tolist() == [257] * 8
        for row in range(8):
            by_id = dict(zip(left.tolist(), expected_QN[row].tolist(), strict=True))
            found = hits.of(row)
            np.testing.assert_allclose([distance for _, distance, _ in found], [by_id[i] for i, _, _ in found], atol=3e-7)
            assert [(key, item) for item, _, key in found] == sorted((key, item) for item, _, key in found)
            assert all(0 <= distance <= 2 for _, distance, _ in found)
            assert {item for item, _, _ in found} == set(left.tolist())
    assert store.search(x_ND[3:4], Query(2)).of(0) == [(3, 0.0, 0.0), (133, 0.0, 0.0)]
    assert store.search(x_ND[:1], Query(300, max_distance=2)).of(0)[-1][:2] == (259, 2.0)
    assert store.key(x_ND[:1][0], 259, Query(1)) == store.search(x_ND[:1], Query(300)).of(0)[-1][2]
    store.close()


def test_a_bound_beyond_opposite_directions_and_a_query_of_zeros_are_refused(tmp_path: Path, coder: Autoencoder) -> None:
    store = made(tmp_path, [block(features(60))], bits=16)
    modes: tuple[Mode, ...] = ("exact", "two-stage")
    for mode in modes:
        with pytest.raises(BadValue, match=r"max_distance must be at most 2, the largest cosine distance, got 2\.5"):
            store.search(features(1), Query(3, mode, max_distance=2.5))
    assert len(store.search(features(1), Query(3, "code", max_distance=16)).of(0)) == 3
    zeros = np.zeros((1, 32), np.float32)
    for query in (Query(3), Query(3, "two-stage"), Query(3, "code"), Query(3, "ball", radius=3)):
        with pytest.raises(BadValue, match="features must be something with a direction"):
            store.search(zeros, query)
    with pytest.raises(BadValue, match="direction"):
        store.key(zeros[0], 3, Query(1))
    store.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the draft's files, which the next change removes
def test_features_of_zeros_that_nobody_made_rejects_are_not_added(tmp_path: Path, coder: Autoencoder) -> None:
    store = made(tmp_path, [block(features(60))], bits=16)
    with pytest.raises(BadValue, match="features must be something with a direction"):
        store.add([block(np.zeros((1, 32), np.float32), 900)], Path("/c"))
    store, ids = store.add([block(features(1, seed=8), 900)], Path("/c"))
    assert (store.version_number, ids, len(store)) == (2, [60], 61)
    store.close()


@pytest.mark.parametrize("shortlist", ["principal", "IVF64,Flat"])
def test_two_stages_find_the_nearest_by_angle(
    tmp_path: Path, shortlist: str, monkeypatch: pytest.MonkeyPatch, coder: Autoencoder
) -> None:
    """Lengths that say nothing: by Euclidean distance other rows are nearest."""
    rng = np.random.default_rng(2)
    x_ND = features(3000) * rng.uniform(0.1, 10, (3000, 1)).astype(np.float32)
    store = made(tmp_path, [block(x_ND[start : start + 1000], start) for start in (0, 1000, 2000)], bits=0, shortlist=shortlist)
    queries_QD = features(50, seed=5) * rng.uniform(0.1, 10, (50, 1)).astype(np.float32)
    proposed = []
    propose = ByPrincipal.candidates

    def recorded(self: ByPrincipal, queries_QD: np.ndarray, codes_QW: None, r: int, allowed_N: None) -> np.ndarray:
        proposed.append(r)
        return propose(self, queries_QD, codes_QW, r, allowed_N)

    monkeypatch.setattr(ByPrincipal, "candidates", recorded)
    hits = store.search(queries_QD, Query(10, "two-stage"))
    if shortlist == "principal":
        assert 0 < max(proposed) < 1000
    expected_QN = cosine_distances(queries_QD.astype(np.float64), x_ND.astype(np.float64))
    nearest_QK = np.argsort(expected_QN, axis=1, kind="stable")[:, :10]
    recall = np.mean([np.isin(nearest, ids).mean() for nearest, ids in zip(nearest_QK, hits.ids_QK, strict=True)])
    assert recall >= store.manifest.recall["two-stage"] - 0.01 >= 0.98
    np.testing.assert_allclose(hits.distances_QK, np.take_along_axis(expected_QN, hits.ids_QK, 1), atol=1e-6)
    store.close()


def test_features_of_zeros_are_rejects_and_so_are_their_copies(tmp_path: Path, coder: Autoencoder) -> None:
    x_ND = features(20)
    x_ND[[4, 6]] = 0
    one = block(x_ND)
    copy = replace(one.files[6], sha256=one.files[4].sha256)
    one = replace(one, files=[*one.files[:6], copy, *one.files[7:]])
    store = made(tmp_path / "cosine", [one], bits=16)
    assert [reject.path for reject in artifact.rejects(store)] == ["00004.jpg", "00006.jpg"]
    assert {reject.reason for reject in artifact.rejects(store)} == {NO_DIRECTION}
    assert (len(store), store.manifest.metric, store.metric) == (18, "cosine", "cosine")
    assert [item.path for item in store.items([3, 4])] == ["00003.jpg", "00005.jpg"]
    assert store.thumbnail(store.items([4])[0]) == b"thumbnail 5"
    store.close()
    assemble(tmp_path / "euclidean", [one], SOURCE, Plan(bits=16))
    other = open_index(tmp_path / "euclidean")
    assert ([reject.path for reject in artifact.rejects(other)], other.metric) == (["00006.jpg"], "euclidean")
    other.close()
    left = one.in_metric("cosine")
    assert (left.rejects[0], len(left.features_ND)) == (Reject("00004.jpg", NO_DIRECTION), 18)


def test_an_interrupted_build_goes_on_with_another_metric_and_changes_keep_it(
    tmp_path: Path, model: Path, images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = build.BuildSettings(model=model, data=images, index=tmp_path / "index", part="train", bits=16)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(build, "assemble", interrupted)
        with pytest.raises(KeyboardInterrupt):
            build.main(settings)
    with monkeypatch.context() as patch:
        patch.setattr("indexer.features.feature_block", interrupted)
        build.main(settings.model_copy(update={"metric": "cosine"}))
    store = open_index(tmp_path / "index")
    np.testing.assert_allclose(np.linalg.norm(store.vectors(range(24)).astype(np.float64), axis=1), 1, atol=1e-7)
    before = store.vectors(range(24))
    store.close()
    write_photographs(tmp_path / "more", 2, first_seed=900)
    adding.main(adding.AddSettings(model=model, data=tmp_path / "more", index=tmp_path / "index"))
    assert "6 photographs added" in capsys.readouterr().out
    compact(CompactSettings(index=tmp_path / "index"))
    store = open_index(tmp_path / "index")
    assert (store.manifest.metric, len(store), store.manifest.segments) == ("cosine", 30, [30])
    np.testing.assert_array_equal(store.vectors(range(24)), before)
    np.testing.assert_allclose(np.linalg.norm(store.vectors(range(30)).astype(np.float64), axis=1), 1, atol=1e-7)
    store.close()


def test_what_is_added_without_a_direction_is_a_reject(
    tmp_path: Path, model: Path, images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    index = tmp_path / "index"
    build.main(build.BuildSettings(model=model, data=images, index=index, part="train", bits=0, metric="cosine"))
    write_photographs(tmp_path / "more", 1, first_seed=900)
    compute = feature_block

    def with_zeros(model: Model, reads: Iterator[ReadResult], with_pixels: bool) -> FeatureBlock:
        made = compute(model, reads, with_pixels)
        made.features_ND[1] = 0
        return made

    monkeypatch.setattr("indexer.features.feature_block", with_zeros)
    adding.main(adding.AddSettings(model=model, data=tmp_path / "more", index=index))
    printed = capsys.readouterr().out
    assert f"rejected green/000.jpg: {NO_DIRECTION}" in printed
    assert "2 photographs added, 0 there already, 1 rejected" in printed
    store = open_index(index)
    assert [reject.reason for reject in artifact.rejects(store)] == [NO_DIRECTION]
    store.close()
