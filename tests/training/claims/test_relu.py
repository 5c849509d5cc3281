"""ReLU against tanh, on curves that are known."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from training.claims.arm import Arm, Epoch, Errors, RunResult, RunSpec
from training.claims.paper import relu
from training.claims.report import row

FAN_IN, ALL = "starts by fan-in", "all photographs"
ARMS: dict[tuple[str, str], Arm] = {
    (setting.name, unit): setting.arm(unit) for setting in relu.SETTINGS for unit in setting.nonlinearities
}


def result(arm: Arm, rate: float, errors: Sequence[float]) -> RunResult:
    return RunResult(
        spec=RunSpec(arm=arm, rate=rate, seed=0, epochs=6, images=10, tests=5, pilot=False),
        curve=[Epoch(error=error, loss=error, clean_loss=error) for error in errors],
        train=Errors(photographs=10, centre=1, ten=1, only_centre=0, only_ten=0),
        test=Errors(photographs=5, centre=1, ten=1, only_centre=0, only_ten=0),
        parameters=1,
        operations=1,
        seconds=1.0,
        machine="",
        commit="",
        torch="",
    )


@dataclass(frozen=True)
class Known:
    """Results of given curves at the rate 0.01, by setting and unit."""

    curves: Mapping[tuple[str, str], Sequence[Sequence[float]]]
    pilots: Mapping[tuple[str, str], Mapping[float, Sequence[float]]] = field(default_factory=dict)
    seeds: int = 3

    def of(self, arm: Arm, seed: int) -> RunResult | None:
        curves = next((curves for place, curves in self.curves.items() if ARMS[place] == arm), ())
        return result(arm, 0.01, curves[seed]) if seed < len(curves) else None

    def tried(self, arm: Arm) -> list[RunResult]:
        grids = [grid for place, grid in self.pilots.items() if ARMS[place] == arm]
        return [result(arm, rate, curve) for grid in grids for rate, curve in grid.items()]

    def figures(self, claim: str, arm: Arm, seed: int) -> Mapping[str, float] | None:
        raise NotImplementedError


def test_a_ratio_is_of_epochs_to_a_quarter_and_a_run_that_does_not_get_there_bounds_it() -> None:
    quick = [0.3, 0.2]  # a quarter after 1 epoch
    curves = {
        (FAN_IN, "relu"): [quick, quick, [0.3] * 6],
        (FAN_IN, "tanh"): [[0.5, 0.3, 0.2], [0.5, 0.4] + 4 * [0.3], [0.3, 0.2]],
    }
    times, apart = relu.measure(Known(curves))
    assert times.label == "epochs to 25 %, tanh over ReLU, starts by fan-in"
    assert [math.exp(value) for value in times.seeds] == pytest.approx([2.0, 5.5])
    assert times.censored == [False, True]
    assert times.against == 1
    assert times.published == 6.0
    assert times.note.startswith("rates 0.01; ReLU got there in 2 of 3 runs of at most 6 epochs")
    assert apart.seeds == pytest.approx([10.0, 20.0, -10.0])


def test_the_note_says_what_the_pilots_of_every_rate_came_to_where_a_setting_has_its_own() -> None:
    curves = {(name, unit): [[0.3, 0.2]] for name in (FAN_IN, ALL) for unit in ("relu", "tanh")}
    pilots = {
        (FAN_IN, "relu"): {0.003: [0.4, 0.3, 0.2], 0.01: [0.3, 0.2]},
        (FAN_IN, "tanh"): {0.003: [0.4, 0.3, 0.3]},
        (ALL, "relu"): {0.003: [0.2]},
    }
    notes = [row.note for row in relu.measure(Known(curves, pilots)) if row.unit == "times"]
    told = "; pilots of ReLU, epochs by rate: 0.003: 2.0, 0.01: 1.0; pilots of tanh, epochs by rate: 0.003: not"
    assert [told in note for note in notes] == [True, False]
    assert "pilots" not in notes[1]


def test_a_bound_of_a_rate_whose_pilot_got_there_is_not_resolved() -> None:
    """For the rate is too high then, and the bound says nothing of the unit."""
    never = [0.5, *[0.3] * 5]
    curves = {(FAN_IN, "relu"): [[0.3, 0.2]] * 3, (FAN_IN, "tanh"): [never] * 3}
    for pilot, told in (({0.01: [0.4, 0.2]}, "not resolved"), ({0.01: never, 0.003: [0.4, 0.2]}, "at least")):
        times, _ = relu.measure(Known(curves, {(FAN_IN, "tanh"): pilot}))
        assert (row(times).verdict, row(times).censored) == (told, 3)
        assert ("at a rate whose pilot did" in times.note) == (told == "not resolved")
