"""The arms that several claims share: the two networks as they are, and each with one thing changed."""

from typing import Final

from pydantic import JsonValue

from training.claims.arm import PIXEL_SCALE, Arm

# LRN's alpha is a weight of squares, so it is meant for pixels on 0..255. The CIFAR net has them. AlexNet-67 has pixels times
# PIXEL_SCALE, with which the paper's alpha would add a thousandth to k.
CIFAR: Final = Arm(data="cifar", start="paper", net={"lrn": True})
# It has no dropout, but in dropout's own claim: after 20 epochs 98 % of the photographs held out are named wrong with it, 89 %
# without.
CALTECH: Final = Arm(data="caltech", net={"lrn_alpha": 1e-4 / PIXEL_SCALE**2, "dropout": 0.0})
BASES: Final = {"CIFAR net": CIFAR, "AlexNet-67": CALTECH}
# k = 0 divides nothing by nothing where all maps are silent, so k is small here; the window of 255 holds all maps
EXTREME: Final[dict[str, JsonValue]] = {"lrn_k": 1e-6, "lrn_alpha": 1.0, "lrn_beta": 0.5, "lrn_size": 255}
PLAIN_POOLING: Final[dict[str, JsonValue]] = {"pool_size": 2, "pool_stride": 2}


def changed(arm: Arm, **fields: JsonValue) -> Arm:
    """An arm whose network has other fields."""
    return arm.model_copy(update={"net": {**arm.net, **fields}})


ONE_COLUMN: Final = changed(CALTECH, columns=1, maps=[48, 128, 192, 192, 256], hidden=1024)
NO_EXCHANGE: Final = changed(CALTECH, exchange=False)
NO_LRN: Final = {"CIFAR net": changed(CIFAR, lrn=False), "AlexNet-67": changed(CALTECH, lrn_after=[])}
