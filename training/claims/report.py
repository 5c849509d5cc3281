"""What the runs that are there say, claim by claim."""

import math
from typing import Literal

from training.analysis.perturbations import PERTURBATIONS
from training.claims.arm import Arm, Data
from training.claims.claim import Claim, Comparison
from training.claims.paper import brightness, relu
from training.claims.plan import Plan
from training.claims.record import ArmRow, ClaimReport, Curve, Moves, Report, Row, Verdict
from training.claims.scale import Size
from training.claims.statistics import Summary, seeds_for, summary


def report(plan: Plan, size: Size, photographs: dict[Data, dict[Literal["train", "test"], int]]) -> Report:
    """What the runs that are there say."""
    results = [result for spec in (*plan.pilots(), *plan.runs()) if (result := plan.made(spec))]
    return Report(
        size=size,
        machine="; ".join(sorted({result.machine for result in results})),
        commit=", ".join(sorted({result.commit for result in results})),
        torch=", ".join(sorted({result.torch for result in results})),
        photographs=photographs,
        epochs=plan.scale.epochs,
        seconds=round(sum(result.seconds for result in results), 1),
        claims=[_claim(plan, claim) for claim in plan.claims],
        figure1=_figure1(plan),
        brightness=_brightness(plan),
    )


def _claim(plan: Plan, claim: Claim) -> ClaimReport:
    only = plan.of_claim(claim)
    specs = [*only.pilots(), *only.runs()]
    results = [result for spec in specs if (result := plan.made(spec))]
    return ClaimReport(
        name=claim.name,
        section=claim.section,
        says=claim.says,
        published=claim.published,
        nothing=claim.nothing,
        arms=[_arm(only, name, arm) for name, arm in claim.arms.items()],
        rows=[row(comparison) for comparison in claim.measure(only)],
        runs=len(results),
        missing=len(specs) - len(results),
        seconds=round(sum(result.seconds for result in results), 1),
    )


def _arm(plan: Plan, name: str, arm: Arm) -> ArmRow:
    runs = [run for seed in range(plan.seeds) if (run := plan.of(arm, seed))]
    errors, gaps = ([round(value, 5) for value in values] for values in ([r.error for r in runs], [r.gap for r in runs]))
    return ArmRow(name=name, rate=plan.rate(arm), grid=list(arm.rates), errors=errors, gaps=gaps)


def row(comparison: Comparison) -> Row:
    """A comparison with what its seeds say of it."""
    found = summary(comparison.seeds, comparison.censored)
    shown = math.exp if comparison.unit == "times" else float
    published = comparison.published
    wanted = None if published is None else math.log(published) if comparison.unit == "times" else published
    return Row(
        label=comparison.label,
        unit=comparison.unit,
        published=published,
        seeds=[_rounded(shown(value)) for value in comparison.seeds],
        censored=found.censored,
        mean=_rounded(shown(found.mean)),
        low=None if found.low is None else _rounded(shown(found.low)),
        high=None if found.high is None else _rounded(shown(found.high)),
        positive=found.positive,
        negative=found.negative + comparison.against,
        detectable=None if found.detectable is None else _rounded(shown(found.detectable)),
        seeds_for_published=None if wanted is None or found.deviation is None else seeds_for(wanted, found.deviation),
        p=comparison.p,
        verdict="not resolved" if comparison.against or comparison.unfit else _verdict(found, len(comparison.seeds), wanted),
        note=comparison.note,
    )


def _verdict(found: Summary, count: int, published: float | None) -> Verdict:
    if count < 2:
        return "direction only"
    if found.censored:
        return "at least"
    if not found.decided:
        return "not resolved"
    if published is None:
        return "a difference"
    if found.mean < 0:
        return "opposite"
    if found.low is not None and published < found.low:
        return "same direction, larger"
    return "same direction, smaller" if found.high is not None and published > found.high else "agrees"


def _figure1(plan: Plan) -> list[Curve]:
    claims = [claim for claim in plan.claims if claim.name == "relu"]
    return [
        Curve(setting=setting.name, nonlinearity=unit, seed=seed, errors=[_rounded(error) for error in run.running])
        for claim in claims
        for setting in relu.SETTINGS
        for unit in setting.nonlinearities
        for seed in range(plan.seeds_of(claim))
        if (run := plan.of(setting.arm(unit), seed))
    ]


def _brightness(plan: Plan) -> list[Moves]:
    claims = [claim for claim in plan.claims if claim.name == "brightness"]
    return [
        Moves(
            arm=name,
            seed=seed,
            kind=kind,
            levels=list(PERTURBATIONS[kind].levels),
            moves=[_rounded(figures[brightness.name(kind, level)]) for level in PERTURBATIONS[kind].levels],
        )
        for claim in claims
        for name, arm in claim.arms.items()
        for seed in range(plan.seeds_of(claim))
        if (figures := plan.figures("brightness", arm, seed))
        for kind in brightness.KINDS
    ]


def _rounded(value: float) -> float:
    return round(value, 4)
