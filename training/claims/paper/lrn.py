"""Local response normalisation (section 3.3).

The paper: LRN takes the error of a four-layer network on CIFAR-10 from 13 % to 11 %, and ImageNet's top-1 and top-5 errors down
by 1.4 and 1.2 points. Here: the network of the 13 % run with LRN before pooling (k 1, size 5, scale .001, as in the 11 % run)
and without, on random crops of 24 pixels and mirrors, equally many epochs, a cosine to 0. 11 % itself needs 450 epochs and is
out of reach. And AlexNet-67 with the paper's LRN and without, on Caltech-101; its pixels are times 1/64, so alpha is times
64^2, as squares are. Beside them the extreme case of the notes, division by the Euclidean length over all maps (k 0, alpha 1,
beta 1/2, n 2N). And the CIFAR net in float32 throughout, since bfloat16 makes the error of the net without LRN smaller.

Arms share a seed's weights, order and crops; each has its own rate, chosen on photographs held out. It would be nothing if the
interval of the difference held 0.
"""

from training.claims.claim import Claim, Comparison, Results, difference
from training.claims.networks import BASES, CIFAR, EXTREME, NO_LRN, changed

PUBLISHED = {"CIFAR net": 2.0, "AlexNet-67": 1.4}
FLOAT32, FLOAT32_WITHOUT = (arm.model_copy(update={"float32": True}) for arm in (CIFAR, NO_LRN["CIFAR net"]))


def measure(results: Results) -> list[Comparison]:
    """What leaving LRN out, and its extreme case, do to the error."""
    rows: list[Comparison] = []
    for network, base in BASES.items():
        without = NO_LRN[network]
        rows += difference(results, f"no LRN less LRN, {network}", without, base, published=PUBLISHED[network])
        rows += difference(results, f"division by length over all maps less LRN, {network}", changed(base, **EXTREME), base)
    label = "no LRN less LRN, CIFAR net in float32"
    return rows + difference(results, label, FLOAT32_WITHOUT, FLOAT32, published=PUBLISHED["CIFAR net"])


CLAIM = Claim(
    name="lrn",
    section="3.3a",
    says="Local response normalisation lowers the error",
    published="13 % to 11 % on CIFAR-10; 1.4 / 1.2 points on ImageNet (log: run 148)",
    nothing="the interval of the difference holds 0",
    arms={
        **BASES,
        **{f"{network} without": arm for network, arm in NO_LRN.items()},
        **{f"{network} by length": changed(base, **EXTREME) for network, base in BASES.items()},
        "CIFAR net in float32": FLOAT32,
        "CIFAR net in float32 without": FLOAT32_WITHOUT,
    },
    measure=measure,
)
