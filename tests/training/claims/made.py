"""A small report of claims, made up."""

from training.claims.claim import Comparison
from training.claims.record import ArmRow, ClaimReport, Curve, Moves, Report
from training.claims.report import row


def made_report() -> Report:
    """Claims of every unit: a ratio that is censored, differences that are found and not found."""
    relu = [
        Comparison("epochs to 25 %, tanh over ReLU", "times", [1.5, 1.2, 1.4], [True, False, False], published=6.0, note="rates")
    ]
    lrn = [
        Comparison("no LRN less LRN, CIFAR net", "points", [1.0, 1.4, 1.2], published=2.0),
        Comparison("no LRN less LRN, AlexNet-67", "points", [1.0, -1.4, 0.2], published=1.4, p=0.01),
    ]
    share = [Comparison("moved by gain 0.5, no LRN less LRN", "share", [0.1, 0.2])]
    codes = [Comparison("mAP, FC7 codes less raw-pixel codes", "precision", [11.0, 12.0, 12.5], note="30.1 and 18.3")]
    specialise = [Comparison("chroma, two columns", "g", [0.5, 0.7, 0.9])]
    made = {"relu": relu, "lrn": lrn, "codes": codes, "specialise": specialise, "brightness": share}
    claims = [
        ClaimReport(
            name=name,
            section="3.1",
            says=f"What is said of {name}",
            published="a figure",
            nothing="the interval holds 0",
            arms=[ArmRow(name="with", rate=0.01, grid=[0.01, 0.02], errors=[0.3, 0.31], gaps=[0.1, 0.12])],
            rows=[row(comparison) for comparison in rows],
            runs=4,
            missing=0,
            seconds=120.0,
        )
        for name, rows in made.items()
    ]
    return Report(
        size="full",
        machine="a machine",
        commit="abc",
        torch="2.11",
        photographs={"cifar": {"train": 10, "test": 5}},
        epochs={"cifar": 2},
        seconds=240.0,
        claims=claims,
        figure1=[Curve(setting="starts of 2012", nonlinearity=unit, seed=0, errors=[0.8, 0.5, 0.2]) for unit in ("relu", "tanh")],
        brightness=[
            Moves(arm=arm, seed=0, kind="gain", levels=[0.5, 1.5], moves=[0.4, high])
            for arm, high in (("LRN", 0.3), ("no LRN", 1.3))
        ],
    )
