"""Two columns, and that they talk (section 3.2).

The paper: two columns have errors 1.7 and 1.2 points below those of one column with half the kernels in each convolution and
nearly as many parameters. The log adds run 150, whose columns never talk: 1.2 and 1.1 points above. Here: AlexNet-67 with two
columns, with the one column of run 145-half, and with two that meet at the logits only.

The rows say beside the difference what each costs: parameters, operations of a forward pass, seconds of a run. It would be
nothing if the interval of the difference held 0.
"""

from training.claims.arm import Arm
from training.claims.claim import Claim, Comparison, Results, difference, pairs
from training.claims.networks import CALTECH, NO_EXCHANGE, ONE_COLUMN


def measure(results: Results) -> list[Comparison]:
    """What one column, and columns that never talk, do to the error."""
    rows: list[Comparison] = []
    for label, arm, published in (("one column", ONE_COLUMN, 1.7), ("columns that never talk", NO_EXCHANGE, 1.2)):
        note = _costs(results, arm)
        rows += difference(results, f"{label} less two that talk", arm, CALTECH, published=published, note=note)
    return rows


def _costs(results: Results, arm: Arm) -> str:
    found = pairs(results, arm, CALTECH)
    if not found:
        return ""
    parameters, operations, seconds = (
        " against ".join(f"{sum(getattr(pair[side], name) for pair in found) / len(found) / unit:.3g}" for side in (0, 1))
        for name, unit in (("parameters", 1e6), ("operations", 1e6), ("seconds", 1.0))
    )
    return f"{parameters} M parameters, {operations} M operations an image, {seconds} s a run"


CLAIM = Claim(
    name="columns",
    section="3.2",
    says="Two columns that talk beat one of half the kernels, and two that do not",
    published="1.7 / 1.2 points over one (log: run 145-half); 1.2 / 1.1 over silent ones (log: run 150)",
    nothing="the interval of the difference holds 0",
    arms={"AlexNet-67": CALTECH, "one column": ONE_COLUMN, "never talking": NO_EXCHANGE},
    measure=measure,
)
