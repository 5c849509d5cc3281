"""ReLU against tanh and against |tanh| (section 3.1, figure 1).

The paper: a four-layer network of ReLU reaches 25 % training error on CIFAR-10 six times as fast as its twin of tanh units,
both without any regularisation, each at a rate of its own. Here: the network of the 13 % run on whole photographs of 32 pixels,
in their order of a seed, without mirrors, decay or dropout, at a constant rate. An epoch's training error is that of its
batches as they were trained on; the time to 25 % is read from straight lines between epochs. A run that has not got there when
its epochs are over is censored.

Each rate is the fastest of a grid with a seed that is not measured; the paper's too made training as fast as possible. The
starts of the 2012 code, conv1 from N(0, 1e-4), were made for ReLU, and tanh may suffer from them. So everything is measured a
second time from N(0, 1/sqrt(n)), n the inputs of a unit; and ReLU and tanh a third time, as at first, on all 50 000 photographs.

The ratio is compared by its logarithm. It would be nothing if the interval held a ratio of 1. Beside it stands how far the
training errors lie apart when ReLU's run ends, which needs no run to get there. The note of a ratio has the epochs of the
pilots: a rate that is the fastest with one seed may be too high for others. Where a run does not get there at a rate whose pilot
did, the bound is of that rate and not of the unit, and nothing is resolved.
"""

from dataclasses import dataclass
from typing import Final

from training.claims.arm import Arm
from training.claims.claim import Claim, Comparison, Results, pairs, ratio
from training.claims.statistics import crossing
from training.network.alexnet import Nonlinearity
from training.network.cifar import Start

GOAL: Final = 0.25
NAMES: Final[dict[Nonlinearity, str]] = {"relu": "ReLU", "tanh": "tanh", "abs-tanh": "|tanh|"}
PUBLISHED: Final[dict[Nonlinearity, float | None]] = {"tanh": 6.0, "abs-tanh": None}


@dataclass(frozen=True)
class Setting:
    """What the networks that are compared have in common."""

    name: str
    start: Start
    nonlinearities: tuple[Nonlinearity, ...]  # ReLU first
    all_images: bool = False

    def arm(self, unit: Nonlinearity) -> Arm:
        """Whole photographs, nothing against overfitting."""
        net = {"input_size": 32, "nonlinearity": unit}
        return Arm(
            data="cifar", net=net, start=self.start, crops=False, decay=False, until_error=GOAL, all_images=self.all_images
        )


SETTINGS: Final = (
    Setting("starts of 2012", "paper", ("relu", "tanh", "abs-tanh")),
    Setting("starts by fan-in", "fan-in", ("relu", "tanh", "abs-tanh")),
    Setting("all photographs", "paper", ("relu", "tanh"), all_images=True),
)


def measure(results: Results) -> list[Comparison]:
    """How many times as many epochs tanh and |tanh| take, in every setting."""
    rows: list[Comparison] = []
    for setting in SETTINGS:
        for other in setting.nonlinearities[1:]:
            found = pairs(results, setting.arm(other), setting.arm("relu"))
            times = [(crossing(slow.running, GOAL), crossing(fast.running, GOAL)) for slow, fast in found]
            epochs = max((slow.spec.epochs for slow, _ in found), default=1)
            rates = ", ".join(f"{rate:g}" for rate in sorted({run.spec.rate for pair in found for run in pair}))
            reached = sum(fast is not None for _, fast in times)
            note = f"rates {rates}; ReLU got there in {reached} of {len(times)} runs of at most {epochs} epochs"
            tried = {
                unit: {run.spec.rate: crossing(run.running, GOAL) for run in results.tried(setting.arm(unit))}
                for unit in ("relu", other)
            }
            if not setting.all_images:
                note += "".join(_told(tried[unit], NAMES[unit]) for unit in tried)
            label = f"epochs to 25 %, {NAMES[other]} over ReLU, {setting.name}"
            given = epochs - 0.5  # where the last epoch's error stands
            late = [slow.spec.rate for (slow, _), (time, _) in zip(found, times, strict=True) if time is None]
            rows += ratio(label, times, given, published=PUBLISHED[other], note=note, unfit=any(map(tried[other].get, late)))
            ends = [(slow.running, fast.running, min(len(slow.running), len(fast.running)) - 1) for slow, fast in found]
            apart = [100 * (slow[end] - fast[end]) for slow, fast, end in ends]
            if apart:
                rows.append(Comparison(f"error when ReLU is there, {NAMES[other]} less ReLU, {setting.name}", "points", apart))
    return rows


def _told(tried: dict[float, float | None], name: str) -> str:
    """What every rate of the grid came to, with the seed that chose among them."""
    told = ", ".join(f"{rate:g}: {'not' if time is None else f'{time:.1f}'}" for rate, time in tried.items())
    return f"; pilots of {name}, epochs by rate: {told}" if told else ""


CLAIM = Claim(
    name="relu",
    section="3.1",
    says="ReLU reaches 25 % training error on CIFAR-10 several times faster than tanh",
    published="six times as fast as tanh (figure 1)",
    nothing="the interval of the ratio holds 1",
    arms={f"{NAMES[unit]}, {setting.name}": setting.arm(unit) for setting in SETTINGS for unit in setting.nonlinearities},
    measure=measure,
    seeds=3,
)
