"""Ten views at test time (section 4.1).

The paper's log: averaging the probabilities of four corners, the centre and their mirrors lowers the errors by 1.6 and 1.3
points against the centre alone. Here: every network of the other claims that was trained on crops, each test photograph both
ways. The figure of a seed is the mean over its networks of one kind. Beside the interval over seeds stands McNemar's exact test
over the photographs of all of them: how many only one of the two ways has wrong. It counts a photograph once for each network, as
though networks were wrong independently, so its p is too small. It would be nothing if the interval held 0.
"""

from training.claims.arm import NETWORK, Arm, Data, RunResult
from training.claims.claim import Claim, Comparison, Results
from training.claims.networks import BASES, EXTREME, NO_EXCHANGE, NO_LRN, ONE_COLUMN, PLAIN_POOLING, changed
from training.claims.statistics import mcnemar

ARMS: dict[str, Arm] = {
    **BASES,
    **{f"{network} without LRN": arm for network, arm in NO_LRN.items()},
    **{f"{network} by length": changed(base, **EXTREME) for network, base in BASES.items()},
    **{f"{network} 2/2": changed(base, **PLAIN_POOLING) for network, base in BASES.items()},
    "one column": ONE_COLUMN,
    "never talking": NO_EXCHANGE,
}


def measure(results: Results) -> list[Comparison]:
    """What the centre view alone costs against ten."""
    rows: list[Comparison] = []
    datasets: tuple[Data, ...] = ("cifar", "caltech")
    for data in datasets:
        arms = [arm for arm in ARMS.values() if arm.data == data]
        of_seeds = [[run for arm in arms if (run := results.of(arm, seed))] for seed in range(results.seeds)]
        of_seeds = [runs for runs in of_seeds if runs]
        if of_seeds:
            rows.append(_row(NETWORK[data], of_seeds))
    return rows


def _row(network: str, of_seeds: list[list[RunResult]]) -> Comparison:
    values = [100 * sum((run.test.centre - run.test.ten) / run.test.photographs for run in runs) / len(runs) for runs in of_seeds]
    every = [run.test for runs in of_seeds for run in runs]
    only_centre, only_ten = sum(errors.only_centre for errors in every), sum(errors.only_ten for errors in every)
    note = f"{only_centre} photographs wrong from the centre only, {only_ten} from ten only, over {len(every)} networks"
    p = mcnemar(only_centre, only_ten)
    return Comparison(f"centre view less ten views, {network}", "points", values, published=1.6, p=p, note=note)


CLAIM = Claim(
    name="ten-views",
    section="4.1c",
    says="Averaging ten views lowers the error",
    published="1.6 / 1.3 points (log: run 145-2010)",
    nothing="the interval of the difference holds 0",
    arms=ARMS,
    measure=measure,
)
