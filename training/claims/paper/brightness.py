"""LRN does not subtract the mean (section 3.3).

The paper: its normalisation would be termed "brightness normalisation" more correctly, since the mean activity is not subtracted.
So a photograph that is made brighter should still move in FC7. Here: AlexNet-67 with LRN and without. The first test photographs
are made brighter and darker before the crop, by a factor (gain) and by a sum (bias), rounded and clipped to 0..255. The figure is
how far the feature moves, |f - f0| / |f0|, as a share of the mean of that between photographs of different classes.

It would be nothing if the interval of the difference between the two networks held 0: then LRN makes FC7 neither more nor less
sensitive to brightness. If LRN removed brightness, its own figure would be near 0.
"""

from typing import Final

import numpy as np
import torch

from training.analysis.invariance import Space
from training.analysis.perturbations import PERTURBATIONS, Kind, bias, gain
from training.claims.claim import Claim, Comparison, Left, Results
from training.claims.measuring import features
from training.claims.networks import CALTECH, NO_LRN

PHOTOGRAPHS: Final = 300
KINDS: Final[tuple[Kind, Kind]] = ("gain", "bias")
SHOWN: Final[tuple[tuple[Kind, float], ...]] = (("gain", 0.5), ("gain", 1.5), ("bias", -30.0), ("bias", 30.0))
ARMS: Final = {"LRN": CALTECH, "no LRN": NO_LRN["AlexNet-67"]}


def examine(left: Left) -> dict[str, float]:
    """The mean move at every level of gain and bias."""
    some = left.test.only(slice(PHOTOGRAPHS))
    squares_NCSS = some.squares_NCSS.cpu().numpy()
    points = [(kind, level) for kind in KINDS for level in PERTURBATIONS[kind].levels]
    made = [squares_NCSS, *((gain if kind == "gain" else bias)(squares_NCSS, level)[0] for kind, level in points)]
    features_PND = np.stack([features(left.net, torch.from_numpy(squares), left.mean_CSS) for squares in made])
    alive_N = features_PND[0].any(1)
    features_PND = features_PND[:, alive_N]
    labels = [str(label) for label in some.labels_N[torch.from_numpy(alive_N)].tolist()]
    other = Space().distances(features_PND[0], labels)["l2"].other
    moves_NP = [Space().moves(features_PND[:, i], i)["l2"] for i in range(len(labels))]
    if not other or not moves_NP:
        return {}
    return {name(*point): float(move) / other for point, move in zip(points, np.mean(moves_NP, 0), strict=True)}


def measure(results: Results) -> list[Comparison]:
    """How far brightness moves FC7 with LRN, and how much further without."""
    rows: list[Comparison] = []
    for point in SHOWN:
        both = [[results.figures("brightness", arm, seed) for arm in ARMS.values()] for seed in range(results.seeds)]
        pairs = [(one[name(*point)], other[name(*point)]) for one, other in both if one and other]
        if pairs:
            rows.append(Comparison(f"moved by {name(*point)}, LRN", "share", [with_lrn for with_lrn, _ in pairs]))
            differences = [without - with_lrn for with_lrn, without in pairs]
            rows.append(Comparison(f"moved by {name(*point)}, no LRN less LRN", "share", differences))
    return rows


def name(kind: Kind, level: float) -> str:
    """What a perturbation is called, as in 'bias +30'."""
    return f"{kind} {level:{'+g' if kind == 'bias' else 'g'}}"


CLAIM = Claim(
    name="brightness",
    section="3.3b",
    says="LRN does not subtract the mean, so brightness still moves FC7",
    published="no figure",
    nothing="the interval of the difference between LRN and none holds 0",
    arms=ARMS,
    measure=measure,
    examine=examine,
)
