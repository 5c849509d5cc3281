"""Columns specialise (section 6.1, figure 3).

The paper: the kernels of the first GPU are largely colour-agnostic and those of the second largely colour-specific, in every
run, whatever the initial weights. Here: conv1 of AlexNet-67, which is preset figure3's network and recipe, but for the larger
alpha of LRN (networks.py). How far the columns' shares of chroma lie apart is Hedges' g. The mean |g| of random groups of the
same kernels is taken off (training/analysis/difference.py), so that chance gives 0. The controls are one column split in half,
two that never talk, and two without LRN, with the same seeds.

It would be nothing if the columns lay no further apart than the controls'. No row has a figure of the paper's, which gives
none.
"""

from training.analysis import kernels
from training.analysis.arms import Layer
from training.claims.arm import Arm
from training.claims.claim import Claim, Comparison, Left, Results
from training.claims.networks import CALTECH, NO_EXCHANGE, NO_LRN, ONE_COLUMN

STATISTIC = "chroma"
CONTROLS = {"one column, split": ONE_COLUMN, "never talking": NO_EXCHANGE, "no LRN": NO_LRN["AlexNet-67"]}


def measure(results: Results) -> list[Comparison]:
    """How far the columns lie apart beyond chance, and beyond each control."""
    base = _excesses(results, CALTECH)
    rows = [Comparison("chroma, two columns, |g| beyond chance", "g", list(base.values()))] if base else []
    for label, arm in CONTROLS.items():
        control = _excesses(results, arm)
        both = sorted(base.keys() & control.keys())
        if both:
            rows.append(Comparison(f"chroma, {label}, |g| beyond chance", "g", [control[seed] for seed in both]))
            rows.append(Comparison(f"two columns less {label}", "g", [base[seed] - control[seed] for seed in both]))
    return rows


def examine(left: Left) -> dict[str, float]:
    """|g| less that of random groups of the same kernels."""
    columns = left.net.config.columns
    figures = kernels.figures(left.net.conv1.weight.detach().cpu(), columns)
    return {STATISTIC: Layer("", left.seed, columns, figures).effect(STATISTIC).excess}


def _excesses(results: Results, arm: Arm) -> dict[int, float]:
    every = {seed: results.figures("specialise", arm, seed) for seed in range(results.seeds)}
    return {seed: figures[STATISTIC] for seed, figures in every.items() if figures}


CLAIM = Claim(
    name="specialise",
    section="6.1",
    says="One column learns colour and the other does not",
    published="in every run (figure 3), no figure",
    nothing="the columns lie no further apart than those of the controls",
    arms={"AlexNet-67": CALTECH, **CONTROLS},
    measure=measure,
    examine=examine,
)
