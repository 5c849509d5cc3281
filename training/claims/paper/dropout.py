"""Dropout (section 4.2).

The paper: without dropout the network overfits substantially; with it, it takes about twice the iterations to converge. Here:
AlexNet-67 with 1024 units a column in fc6 and fc7, half of them dropped or none, the same seeds. After each epoch the loss is
measured on training photographs, centre view, nothing dropped. The time is that to the lowest loss which both arms reach. Rates
go to 0 over all epochs, so the slower arm gets there at its end, and the ratio is at most what it would be at constant rates.

It would be nothing if the interval of the ratio held 1, and if the gap did not grow.
"""

from training.claims.claim import Claim, Comparison, Results, difference, pairs, ratio
from training.claims.networks import CALTECH, changed
from training.claims.statistics import level_times

NONE = changed(CALTECH, hidden=1024)
HALF = changed(NONE, dropout=0.5)


def measure(results: Results) -> list[Comparison]:
    """How much longer dropout takes to a loss, and what leaving it out does to the gap and to the error."""
    found = pairs(results, HALF, NONE)
    curves = [tuple([epoch.clean_loss for epoch in run.curve] for run in pair) for pair in found]
    times = [both for half, none in curves if (both := level_times(half, none))]
    given = max((half.spec.epochs for half, _ in found), default=1)
    rows = ratio("epochs to equal training loss, half dropped over none", times, given, published=2.0)
    rows += difference(results, "gap, none dropped less half", NONE, HALF, gap=True)
    return rows + difference(results, "error, none dropped less half", NONE, HALF)


CLAIM = Claim(
    name="dropout",
    section="4.2",
    says="Dropout doubles the iterations to converge and prevents substantial overfitting",
    published="about twice the iterations; overfits without",
    nothing="the interval of the ratio holds 1; the gap does not grow",
    arms={"half": HALF, "none": NONE},
    measure=measure,
    seeds=3,
)
