"""First layers side by side: kernels whose columns are made to differ, or not, and what is said of them."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from training.analysis import arms, kernels
from training.analysis.arms import FIGURE, UNTRAINED, Layer
from training.analysis.kernels import Kernel


@pytest.fixture(scope="module")
def kernel() -> Kernel:
    """Any kernel, of which tests change what they need."""
    return kernels.figures(torch.randn(2, 3, 11, 11, generator=torch.Generator().manual_seed(1)), 1)[0]


def layer(kernel: Kernel, arm: str, seed: int, chroma: float = 0.0, columns: int = 2) -> Layer:
    """A layer of 40 kernels, whose second half has `chroma` standard deviations more of it than the first."""
    rng = np.random.default_rng([seed, len(arm)])
    of_kernels = 0.5 + 0.1 * (rng.normal(0, 1, 40) + chroma * (np.arange(40) >= 20))
    return Layer(arm, seed, columns, [replace(kernel, index=i, chroma=value) for i, value in enumerate(of_kernels.tolist())])


def test_columns_that_part_in_either_direction_stand_out_from_those_that_do_not(kernel: Kernel) -> None:
    signs = (1, -1, -1, 1)
    layers = [layer(kernel, FIGURE, seed, 2.5 * sign) for seed, sign in enumerate(signs)]
    layers += [layer(kernel, "one-column", seed, columns=1) for seed in range(4)]
    found = {(comparison.statistic, comparison.arm): comparison for comparison in arms.comparisons(layers)}
    assert {statistic for statistic, _ in found} == set(arms.COMPARED)
    figure, control = found["chroma", FIGURE], found["chroma", "one-column"]
    assert [np.sign(effect.g) for effect in figure.effects] == list(signs)
    assert figure.over is not None
    assert figure.over.size.low < 2.5 < figure.over.size.high
    assert figure.over.excess.excludes_zero()
    assert figure.beyond is None
    assert control.over is not None
    assert not control.over.excess.excludes_zero()
    assert control.beyond is not None
    assert control.beyond.low > 0
    assert [effect.g for effect in found["frequency", FIGURE].effects] == [0] * 4  # all kernels have the same


def test_dead_kernels_are_not_compared(kernel: Kernel) -> None:
    whole = layer(kernel, FIGURE, 0)
    dying = [replace(one, dead=True, chroma=9.0) if one.index < 5 else one for one in whole.kernels]
    expected = np.mean([one.chroma for one in whole.kernels[5:20]])
    assert replace(whole, kernels=dying).effect("chroma").means[0] == pytest.approx(expected)


def test_a_single_seed_has_effects_and_nothing_over_seeds(kernel: Kernel) -> None:
    layers = [layer(kernel, FIGURE, 0, 1.0), layer(kernel, UNTRAINED, 0)]
    assert [(c.over, c.beyond) for c in arms.comparisons(layers)] == 2 * len(arms.COMPARED) * [(None, None)]
    lines = list(arms.shown(layers, arms.comparisons(layers), kernels.noise(3, 11, 11)))
    assert not any("Over the seeds" in line for line in lines)


def test_figures_are_json_and_lines_with_every_layer_and_noise_beside(kernel: Kernel) -> None:
    layers = [layer(kernel, arm, seed) for arm in (FIGURE, UNTRAINED) for seed in range(2)]
    noise = kernels.noise(3, 11, 11)
    found = json.loads(json.dumps(arms.described(layers, arms.comparisons(layers), noise), allow_nan=False))
    assert [(one["arm"], one["seed"], one["all"]["kernels"]) for one in found["layers"]] == [
        (FIGURE, 0, 40),
        (FIGURE, 1, 40),
        (UNTRAINED, 0, 40),
        (UNTRAINED, 1, 40),
    ]
    mean = np.mean([one.chroma for one in layers[3].halves[1]])
    assert found["layers"][3]["halves"][1]["means"]["chroma"] == pytest.approx(mean)
    assert found["noise"]["shares"] == noise.shares
    chroma = next(one for one in found["differences"] if one["statistic"] == "chroma" and one["arm"] == UNTRAINED)
    assert [one["g"] for one in chroma["seeds"]] == [layer.effect("chroma").g for layer in layers[2:]]
    assert set(chroma["over_seeds"]["excess"]) == set(chroma["figure3_beyond"]) == {"mean", "low", "high"}
    lines = list(arms.shown(layers, arms.comparisons(layers), noise))
    assert [line.split()[0] for line in lines[1:6]] == ["seed-0", "seed-1", "untrained-seed-0", "untrained-seed-1", "white"]
    assert lines[0].split() == [*kernels.COUNTS, *arms.COMPARED]
