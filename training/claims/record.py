"""What the claims came to, as `claims.json` has it."""

from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from training.claims.arm import Data
from training.claims.claim import Unit
from training.claims.scale import Size

FORMAT: Final = 1
REPORT: Final = "claims.json"
SHIPPED: Final = Path(__file__).parent / "results"  # a report, of a machine that it names
Verdict = Literal[
    "agrees",  # the interval holds the published figure and leaves out 0
    "same direction, smaller",
    "same direction, larger",
    "opposite",
    "a difference",  # where nothing is published
    "not resolved",
    "at least",  # censored
    "direction only",  # one seed
]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Row(_Record):
    """A comparison over seeds; a ratio's figures are ratios, its mean the geometric one."""

    label: str
    unit: Unit
    published: float | None
    seeds: list[float] = Field(max_length=1000)
    censored: int  # seeds, whose figure is at least as large
    mean: float
    low: float | None
    high: float | None
    positive: int
    negative: int
    detectable: float | None
    seeds_for_published: int | None  # that would find the published figure with a power of 80 %
    p: float | None
    verdict: Verdict
    note: str


class ArmRow(_Record):
    """An arm of a claim: its rate, and its errors with every seed."""

    name: str
    rate: float
    grid: list[float]
    errors: list[float]  # top-1, centre view, of test photographs
    gaps: list[float]  # these less those of training photographs


class ClaimReport(_Record):
    """A claim, and what was found."""

    name: str
    section: str
    says: str
    published: str
    nothing: str
    arms: list[ArmRow]
    rows: list[Row]
    runs: int  # pilots counted in; those that claims share count for each
    missing: int  # runs that are not made yet
    seconds: float  # of training


class Curve(_Record):
    """The running training error of one network of figure 1, after each epoch."""

    setting: str
    nonlinearity: str
    seed: int
    errors: list[float]


class Moves(_Record):
    """How far FC7 of one network moves when photographs are perturbed, as a share of the distance between photographs."""

    arm: str
    seed: int
    kind: str
    levels: list[float]
    moves: list[float]


class Report(_Record):
    """All that was measured, and on what."""

    format: int = FORMAT
    size: Size
    machine: str
    commit: str
    torch: str
    photographs: dict[Data, dict[Literal["train", "test"], int]]
    epochs: dict[Data, int]
    seconds: float  # of training, in all runs
    claims: list[ClaimReport]
    figure1: list[Curve]
    brightness: list[Moves]
