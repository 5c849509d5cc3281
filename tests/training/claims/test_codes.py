"""FC7 codes against raw-pixel codes: on photographs whose class stands in one pixel, which only a planted network reads."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from training.claims import trainer
from training.claims.arm import Arm, RunResult
from training.claims.claim import Left
from training.claims.paper import codes
from training.claims.pixels import Pixels
from training.network.alexnet import AlexNet, Masks

SEEN, NEVER = codes.ARMS.values()
CONFIG = SEEN.alexnet(4).with_fields(hidden=8)
PLACE, STEP = 64, 60  # of the pixel, and what its red is times the class


class Reader(AlexNet):
    """Takes the class from the pixel; features are one-hot and the same for classes that it cannot tell apart."""

    seen_as: tuple[int, ...] = (0, 1, 2, 3)

    def features(self, x_BCHW: Tensor, masks: Masks | None = None) -> Tensor:
        at = PLACE - (128 - 67) // 2
        read_B = (x_BCHW[:, 0, at, at] / STEP).round().long()
        return torch.eye(128)[torch.tensor(self.seen_as)[read_B]]


@pytest.fixture(scope="module")
def left() -> Left:
    generator = torch.Generator().manual_seed(0)

    def photographs(count: int) -> Pixels:
        labels_N = torch.arange(count) % 4
        squares = torch.randint(256, (count, 3, 128, 128), generator=generator, dtype=torch.uint8)
        squares[:, 0, PLACE, PLACE] = (STEP * labels_N).to(torch.uint8)
        return Pixels(squares, labels_N)

    return Left(SEEN, 0, Reader(CONFIG).eval(), photographs(160), photographs(12), torch.zeros(3, 128, 128))


@pytest.fixture(scope="module")
def figures(left: Left) -> Mapping[str, float]:
    return codes.examine(left)


def test_features_that_tell_classes_apart_find_all_and_pixels_find_as_many_as_chance(figures: Mapping[str, float]) -> None:
    for key in codes.KEYS:
        for way in (codes.CODES, codes.FC7, codes.ANGLE, codes.ITQ):
            assert figures[f"{key} {way}"] == pytest.approx(1)
        for way in (codes.PIXEL_CODES, codes.RAW, codes.COLOURS, codes.UNTRAINED):
            assert 0.1 < figures[f"{key} {way}"] < 0.45  # a quarter is relevant
        difference = figures[f"{key} {codes.CODES}"] - figures[f"{key} {codes.PIXEL_CODES}"]
        assert 0.5 < figures[f"{key} low"] < difference < figures[f"{key} high"] < 0.9


def test_raw_pixels_are_ranked_by_the_means_of_4_x_4_of_them(left: Left, figures: Mapping[str, float]) -> None:
    held, asked = (
        some.squares_NCSS.numpy().reshape(-1, 3, 32, 4, 32, 4).astype(np.float64).mean((3, 5)).round().reshape(len(some), -1)
        for some in (left.train, left.test)
    )
    precisions = []
    for query, label in zip(asked, left.test.labels_N, strict=True):
        relevant = (left.train.labels_N == label).numpy()[np.argsort(np.square(held - query).sum(1), kind="stable")]
        precisions.append((np.cumsum(relevant) / np.arange(1, 161))[relevant].mean())
    assert figures["mAP raw pixels"] == pytest.approx(float(np.mean(precisions)), abs=2e-3)


def test_classes_of_even_number_are_neither_held_nor_asked_for_where_the_network_learned_them(left: Left) -> None:
    net = Reader(CONFIG).eval()
    net.seen_as = (1, 1, 1, 3)  # an even class is taken for an odd one, and for the other even one
    found = codes.examine(replace(left, arm=NEVER, net=net))
    assert found["mAP FC7"] == found["mAP FC7 codes"] == pytest.approx(1)
    assert codes.examine(replace(left, net=net))["mAP FC7"] < 0.6


def test_a_query_of_a_class_that_the_database_has_not_is_left_out(left: Left, figures: Mapping[str, float]) -> None:
    three = left.train.only(left.train.labels_N < 3)
    known = codes.examine(replace(left, train=three, test=left.test.only(left.test.labels_N < 3)))
    assert codes.examine(replace(left, train=three)) == known
    assert known["mAP FC7"] == figures["mAP FC7"]
    assert codes.examine(replace(left, train=three, test=left.test.only(left.test.labels_N == 3))) == {}


def test_the_untrained_network_is_the_one_that_the_run_began_with(left: Left) -> None:
    begun = replace(left, net=trainer.initial(CONFIG, 5).eval())
    found, other = codes.examine(replace(begun, seed=5)), codes.examine(replace(begun, seed=6))
    assert found["mAP untrained FC7"] == found["mAP FC7"] == other["mAP FC7"] != other["mAP untrained FC7"]


def test_a_network_that_diverged_finds_as_many_as_any_order(left: Left) -> None:
    net = trainer.initial(CONFIG, 0).eval()
    torch.nn.init.constant_(net.fc7.weight, math.nan)
    found = codes.examine(replace(left, net=net))
    assert all(map(math.isfinite, found.values()))
    assert "mAP ITQ" not in found
    assert found["P@10 FC7"] == found["P@10 FC7 codes"] == pytest.approx(0.25)


@dataclass(frozen=True)
class Known:
    """Results with figures of two seeds of the three asked for."""

    seeds: int = 3

    def of(self, arm: Arm, seed: int) -> RunResult | None:
        raise NotImplementedError

    def tried(self, arm: Arm) -> list[RunResult]:
        raise NotImplementedError

    def figures(self, claim: str, arm: Arm, seed: int) -> Mapping[str, float] | None:
        assert claim == "codes"
        more = 0.1 if arm == SEEN else 0.0
        own = {"mAP low": -0.1 * seed, "mAP high": 0.3 + 0.1 * seed, "mAP FC7 codes": 0.4 + more + 0.1 * seed}
        return None if seed == 2 else {**own, "mAP raw-pixel codes": 0.2, "mAP ITQ": 0.3}


def test_rows_are_differences_in_points_a_seed_each_with_the_farthest_ends_of_intervals_over_queries() -> None:
    rows = {row.label: row for row in codes.measure(Known())}
    assert list(rows) == [
        *(f"mAP, FC7 codes less raw-pixel codes, labels {seen}" for seen in ("seen", "never seen")),
        *(f"mAP, FC7 codes less ITQ, labels {seen}" for seen in ("seen", "never seen")),
    ]
    row = rows["mAP, FC7 codes less raw-pixel codes, labels seen"]
    assert row.seeds == pytest.approx([30, 40])
    assert row.note == "55.0 and 20.0; over queries, all seeds' intervals lie within [-10.0, +40.0]"
    assert rows["mAP, FC7 codes less ITQ, labels never seen"].seeds == pytest.approx([10, 20])
    assert {row.unit for row in rows.values()} == {"precision"}
