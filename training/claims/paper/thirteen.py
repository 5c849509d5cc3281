"""13 % on CIFAR-10 without LRN, 11 % with it (section 3.3).

The paper: a four-layer network has a test error of 13 % without normalisation and of 11 % with it. Here: the network of the 13 %
run, with LRN before pooling and without, on all 50 000 photographs, random crops of 24 pixels and mirrors, 240 epochs, a cosine
to 0, the middle rate of the grid. The error is that of the centre view, and of ten views. The notes give the 11 % network about
450 epochs and several views, and its third and fourth layers are locally connected; ours are convolutions.

It would be nothing if either network stayed above 15 %. One seed is a direction and no more.
"""

from training.claims.claim import Claim, Comparison, Results
from training.claims.networks import CIFAR, NO_LRN

PUBLISHED = {"without LRN": 13.0, "with LRN": 11.0}
ARMS = {"without LRN": NO_LRN["CIFAR net"], "with LRN": CIFAR}


def measure(results: Results) -> list[Comparison]:
    """The test errors themselves, and the hours that they took."""
    rows: list[Comparison] = []
    for name, arm in ARMS.items():
        runs = [run for seed in range(results.seeds) if (run := results.of(arm, seed))]
        if runs:
            hours = sum(run.seconds for run in runs) / len(runs) / 3600
            note = f"{hours:.1f} hours a run, {len(runs[0].curve)} epochs"
            centre, ten = ([100 * getattr(run.test, way) / run.test.photographs for run in runs] for way in ("centre", "ten"))
            rows.append(Comparison(f"error {name}, centre view", "points", centre, published=PUBLISHED[name], note=note))
            rows.append(Comparison(f"error {name}, ten views", "points", ten, published=PUBLISHED[name]))
    return rows


CLAIM = Claim(
    name="thirteen",
    section="3.3c",
    says="A four-layer network has 13 % test error on CIFAR-10 without LRN and 11 % with it",
    published="13 % and 11 %",
    nothing="either stays above 15 %",
    arms=ARMS,
    measure=measure,
    seeds=1,
    long=True,
)
