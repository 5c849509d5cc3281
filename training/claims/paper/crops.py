"""Random crops and mirrors (section 4.1).

The paper: without them the network overfits substantially, which would have forced much smaller networks. Here: AlexNet-67
trained on random crops and mirrors, and on the centre view alone, the same seeds and epochs. The error on test photographs, and
the gap between it and the error on training photographs, both from the centre view. It would be nothing if the gap did not
grow.
"""

from training.claims.claim import Claim, Comparison, Results, difference
from training.claims.networks import CALTECH

CENTRE = CALTECH.model_copy(update={"crops": False})


def measure(results: Results) -> list[Comparison]:
    """What training on centre views alone does to the error and to the gap."""
    rows = difference(results, "gap, centre views less random crops", CENTRE, CALTECH, gap=True)
    return rows + difference(results, "error, centre views less random crops", CENTRE, CALTECH)


CLAIM = Claim(
    name="crops",
    section="4.1a",
    says="Without random crops and mirrors the network overfits substantially",
    published="substantial overfitting, no figure",
    nothing="the gap between training and test does not grow",
    arms={"random crops": CALTECH, "centre view": CENTRE},
    measure=measure,
    seeds=3,
)
