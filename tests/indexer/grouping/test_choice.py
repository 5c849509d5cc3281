"""The default threshold comes from the index: few are linked wrongly, at any scale, and copies are seen through."""

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from indexer.grouping import choice, copies, groups
from indexer.grouping.choice import choose
from indexer.store import Hits, Query, Store
from tests.conftest import encoded
from tests.indexer.grouping import brute
from tests.indexer.grouping.test_alike import cropped, picture
from training.checkpoint import Model
from training.errors import NotFound, NotReady
from training.images.preprocess import ImageLimits

LIMITS = ImageLimits()


@dataclass
class Rows:
    """A store of vectors with a picture each."""

    vectors_ND: np.ndarray
    thumbnails: Sequence[bytes]
    metric: str = "euclidean"
    bits = 0

    def __len__(self) -> int:
        return len(self.vectors_ND)

    def ids(self) -> np.ndarray:
        return np.arange(len(self))

    def vectors(self, ids: Sequence[int]) -> np.ndarray:
        rows: np.ndarray = self.vectors_ND[list(ids)]
        return rows

    def items(self, ids: Sequence[int]) -> list[Any]:
        return [SimpleNamespace(id=id, width=1, height=1, size=1) for id in ids]

    def thumbnail(self, item: Any) -> bytes:
        data: bytes = self.thumbnails[item.id]
        return data

    def original(self, item: Any) -> bytes:
        raise NotFound("gone")

    def search(self, queries_QD: np.ndarray, query: Query) -> Hits:
        squares_QN = np.square(queries_QD.astype(np.float64)[:, None] - self.vectors_ND).sum(2)
        ids_QK = np.argsort(squares_QN, axis=1, kind="stable")[:, : query.k]
        keys_QK = np.take_along_axis(squares_QN, ids_QK, 1)
        distances_QK = np.sqrt(keys_QK) if self.metric == "euclidean" else keys_QK / 2
        return Hits(distances_QK.astype(np.float32), ids_QK, keys_QK)


@pytest.fixture(scope="module")
def different() -> list[bytes]:
    """Forty pictures; a store of more rows has them again and again, far from each other."""
    return [encoded(picture(seed)) for seed in range(40)]


def chosen(rows: Rows, model: Model | None = None) -> choice.Choice:
    return choose(cast(Store, rows), model, LIMITS)


def crowd(count: int, scale: float) -> np.ndarray:
    """Vectors of which all are near each other: most of them link to one at any distance that links a few of them often."""
    return (np.random.default_rng(0).normal(size=(count, 6)) * scale).astype(np.float32)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
def test_no_more_than_one_in_a_hundred_is_linked_to_a_different_one_at_any_scale(different: list[bytes], scale: float) -> None:
    x_ND = crowd(400, scale)
    order = np.argsort(x_ND[:, 0], kind="stable")
    pictures = [b""] * 400
    for place, row in enumerate(order.tolist()):
        pictures[row] = different[place % 40]
    rows = Rows(x_ND, pictures)
    threshold = chosen(rows).threshold
    distances_NN = brute.euclidean(x_ND) + np.where(np.eye(400), np.inf, 0)
    nearest_N = distances_NN.min(1)
    assert threshold.most < np.sort(nearest_N)[4] <= threshold.most * (1 + 1e-6)
    assert (nearest_N <= threshold.most).sum() <= 4
    found = groups.find(cast(Store, rows), threshold)
    assert sum(len(group.items) for group in found) <= 4


def test_copies_do_not_lower_the_threshold(different: list[bytes]) -> None:
    """Ten photographs have three copies each, nearer than any different one: these are linked, and nothing else."""
    rng = np.random.default_rng(1)
    x_ND = (rng.normal(size=(40, 8)) * 10).astype(np.float32)
    near_ND = np.concatenate([x_ND[:10] + rng.normal(size=(10, 8)).astype(np.float32) * 0.05 for _ in range(3)])
    changed = [encoded(cropped(0.03)(picture(seed)), quality=70) for seed in range(10)]
    rows = Rows(np.concatenate([x_ND, near_ND]), [*different, *changed, *changed, *changed])
    others = np.sort(brute.euclidean(x_ND) + np.where(np.eye(40), np.inf, 0), axis=1)[:, 0]
    threshold = chosen(rows).threshold
    assert 0.8 * others.min() < threshold.most < others.min()
    found = groups.find(cast(Store, rows), threshold)
    assert sorted(sorted(item.id for item in group.items) for group in found) == [[i, 40 + i, 50 + i, 60 + i] for i in range(10)]


def test_equal_vectors_of_different_photographs_leave_a_threshold_of_nothing(different: list[bytes]) -> None:
    rows = Rows(np.ones((40, 3), np.float32), different)
    assert chosen(rows).threshold.most == 0
    assert chosen(Rows(np.ones((1, 3), np.float32), different)).threshold.most == 0
    with pytest.raises(NotReady, match="no items"):
        chosen(Rows(np.ones((0, 3), np.float32), different))


def test_where_all_are_copies_the_farthest_seen_is_the_threshold(different: list[bytes]) -> None:
    rows = Rows(np.array([[0.0], [1.0], [3.0]], np.float32), different[:1] * 3)
    assert chosen(rows).threshold.most == 3


class Brightness:
    """A network of one component: the mean of the pixels."""

    def features(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        assert pixels_BCHW.shape[1:] == (3, 256, 256)
        return pixels_BCHW.float().mean((1, 2, 3))[:, None]


def test_a_threshold_is_no_larger_than_copies_ask_for(different: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "CHANGES", {"all": copies.brightened(1.0), "half": copies.brightened(0.5)})
    far_ND = np.arange(40, dtype=np.float32)[:, None] * 1e4
    picked = chosen(Rows(far_ND, different), cast(Model, Brightness()))
    means = np.array([np.asarray(picture(seed)).mean() for seed in range(40)])
    assert picked.threshold.most == pytest.approx(means.max() / 2, rel=0.02)  # within which are 79 of 80
    assert "no larger than 99%" in picked.how
    assert "all 100%, half 100%" in picked.how
    near = chosen(Rows(far_ND / 1e3, different), cast(Model, Brightness()))
    assert near.threshold.most == pytest.approx(10, rel=1e-6)
    assert near.threshold.most < 10
    assert "all 100%, half 0%" in near.how


def test_features_of_zeros_are_at_no_distance_by_cosine(different: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "CHANGES", {"black": copies.brightened(0.0)})
    rows = Rows(np.eye(5, dtype=np.float32), different, metric="cosine")
    picked = chosen(rows, cast(Model, Brightness()))
    assert picked.threshold.metric == "cosine"
    assert 0.999 < picked.threshold.most < 1
    assert "black 0%" in picked.how
