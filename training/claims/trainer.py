"""One run of a claim: trained and measured on photographs that lie on the device.

Order, crops, colours and dropout are the draws of training.train, and the update is its velocity; so is the recipe of AlexNet-67,
preset figure3's. What differs is that nothing is decoded or copied while it trains, and that a run may wait for a training error.

Legend: B batch, C channels, S side of a square, H height, W width.
"""

import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional as F

from training.claims.arm import BATCH, PIXEL_SCALE, Epoch, RunResult, RunSpec
from training.claims.measuring import CLEAN, TRAIN, Net, Stopped, clean_loss, errors, half, operations
from training.claims.pixels import Pixels, fixed_views, views, whitening
from training.files import printable, write_tensors
from training.network.alexnet import AlexNet, AlexNetConfig
from training.network.cifar import CifarConfig, CifarNet
from training.network.initialisation import initialise
from training.run import draws
from training.run.colour import ColourNoise, colour_noise
from training.run.recipe import PRESETS
from training.run.whitening import whiten

_FIGURE3: Final = PRESETS["figure3"]
_MOMENTUM: Final = 0.9
_SAVE_S: Final = 60.0


@dataclass
class _Training:
    """A run between two epochs."""

    spec: RunSpec
    net: Net
    optimizer: torch.optim.SGD
    times: list[float]  # of the arm's rate, a parameter group each
    curve: list[Epoch] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def config(self) -> AlexNetConfig | CifarConfig:
        return self.net.config

    def done(self) -> bool:
        goal = self.spec.arm.until_error
        reached = goal is not None and bool(self.curve) and self.curve[-1].error < goal
        lost = bool(self.curve) and not math.isfinite(self.curve[-1].loss)
        return reached or lost or len(self.curve) >= self.spec.epochs

    def set_rate(self, rate: float) -> None:
        """Changes the rate and keeps the velocities, as training/run/sgd.py does."""
        for group, times in zip(self.optimizer.param_groups, self.times, strict=True):
            for parameter in group["params"]:
                buffer = self.optimizer.state[parameter].get("momentum_buffer")
                if buffer is not None and group["lr"] != rate * times:
                    buffer.mul_(group["lr"] / (rate * times))
            group["lr"] = rate * times

    def save(self, path: Path) -> None:
        tensors = {f"weight.{name}": tensor for name, tensor in self.net.state_dict().items()}
        for name, parameter in self.net.named_parameters():
            tensors[f"velocity.{name}"] = self.optimizer.state[parameter]["momentum_buffer"]
        rates = [group["lr"] for group in self.optimizer.param_groups]
        described = {"curve": [epoch.model_dump() for epoch in self.curve], "seconds": self.seconds, "rates": rates}
        write_tensors(path, tensors, {"state": json.dumps(described)})

    def load(self, path: Path) -> None:
        with safe_open(path, "pt") as file:
            state: dict[str, Any] = json.loads(file.metadata()["state"])
            self.net.load_state_dict({name: file.get_tensor(f"weight.{name}") for name in self.net.state_dict()})
            for name, parameter in self.net.named_parameters():
                velocity = torch.empty_like(parameter).copy_(file.get_tensor(f"velocity.{name}"))
                self.optimizer.state[parameter]["momentum_buffer"] = velocity
        self.curve = [Epoch.model_validate(epoch) for epoch in state["curve"]]
        self.seconds = state["seconds"]
        for group, rate in zip(self.optimizer.param_groups, state["rates"], strict=True):
            group["lr"] = rate


def run(
    spec: RunSpec,
    pixels: tuple[Pixels, Pixels],
    state: Path,
    stopping: Callable[[], bool],
    made_by: tuple[str, str],
) -> tuple[RunResult, Net]:
    """Trains and measures; goes on from `state` where that is there, and writes it once a minute.

    `pixels` are training and test, on the device to train on; `made_by` are machine and commit. Raises Stopped where `stopping`.
    """
    learned, measured = parts(spec, *pixels)
    mean_CSS = learned.mean_CSS()
    training = _new(spec, pixels[0].classes, mean_CSS.device)
    if state.is_file():
        try:
            training.load(state)
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            print(f"{state} is not the state of its run ({printable(str(error))[:200]}); the run begins anew", file=sys.stderr)
            training = _new(spec, pixels[0].classes, mean_CSS.device)
    matrix_PP = None
    if spec.arm.data == "caltech":
        matrix_PP = whitening(learned, mean_CSS, PIXEL_SCALE, _FIGURE3["conv1_whitening"])
    noise = None if spec.arm.colour == "none" else colour_noise(learned.covariance_33(), spec.arm.colour)
    if noise:
        noise = replace(noise, steps_33=noise.steps_33.to(mean_CSS.device))
    saved = time.monotonic()
    while not training.done():
        _epoch(training, learned, mean_CSS, noise, matrix_PP, stopping)
        if time.monotonic() - saved >= _SAVE_S:
            training.save(state)
            saved = time.monotonic()
    training.save(state)
    net = training.net.eval()
    result = RunResult(
        spec=spec,
        curve=training.curve,
        train=errors(net, learned.only(slice(TRAIN)), mean_CSS, stopping, ten=False, float32=spec.arm.float32),
        test=errors(net, measured, mean_CSS, stopping, ten=spec.views > 1, float32=spec.arm.float32),
        parameters=sum(parameter.numel() for parameter in net.parameters()),
        operations=operations(net),
        seconds=training.seconds,
        machine=made_by[0],
        commit=made_by[1],
        torch=torch.__version__,
    )
    return result, net


def parts(spec: RunSpec, train: Pixels, test: Pixels) -> tuple[Pixels, Pixels]:
    """The photographs that a run trains on, and those that it is measured on."""
    learned = train.only(slice(spec.trained_on))
    measured = train.only(slice(spec.trained_on, spec.images)) if spec.pilot else test.only(slice(spec.tests))
    if spec.arm.half_of_classes:
        learned, measured = (some.only(some.labels_N % 2 == 0) for some in (learned, measured))
    return learned, measured


def initial(config: AlexNetConfig, seed: int) -> AlexNet:
    """AlexNet-67 as a run with this seed begins."""
    net = AlexNet(config)
    initialise(net, _FIGURE3["init"], seed, _FIGURE3["conv1_std"])
    return net


def _new(spec: RunSpec, classes: int, device: torch.device) -> _Training:
    net: Net
    groups: list[tuple[Tensor | None, float, float]]  # parameter, times the rate, decay
    if spec.arm.data == "cifar":
        net = CifarNet(spec.arm.cifar(classes))
        net.initialise(spec.arm.start, spec.seed)
        groups = [(layer.weight, 1.0, decay if spec.arm.decay else 0.0) for layer, decay in net.decays()]
        groups += [(layer.bias, 2.0, 0.0) for layer in net.layers()]  # epsB .002 beside epsW .001, layer-params-13pct.cfg
    else:
        net = initial(spec.arm.alexnet(classes), spec.seed)
        conv1_times = _FIGURE3["conv1_lr"] / 0.01  # of the preset's rate
        groups = [(net.conv1.weight, conv1_times, _FIGURE3["conv1_decay"])]
        groups += [(layer.weight, 1.0, 5e-4) for layer in net.layers()[1:]]
        groups += [(layer.bias, 1.0, 0.0) for layer in net.layers()]
    net.to(device).to(memory_format=torch.channels_last)
    merged: dict[tuple[float, float], list[Tensor]] = {}
    for parameter, times, decay in groups:
        if parameter is not None:
            merged.setdefault((times, decay), []).append(parameter)
    described = [{"params": parameters, "weight_decay": decay, "lr": 1.0} for (_, decay), parameters in merged.items()]
    optimizer = torch.optim.SGD(described, lr=1.0, momentum=_MOMENTUM, fused=True)
    return _Training(spec, net, optimizer, [times for times, _ in merged])


def _epoch(
    training: _Training,
    pixels: Pixels,
    mean_CSS: Tensor,
    noise: ColourNoise | None,
    matrix_PP: Tensor | None,
    stopping: Callable[[], bool],
) -> None:
    """One epoch. Raises Stopped between two steps; the curve and the weights on disk are then those of an epoch before."""
    spec, net, number = training.spec, training.net, len(training.curve) + 1
    net.train()
    training.set_rate(spec.rate_in(number))
    started = time.monotonic()
    sums = torch.zeros(2, device=mean_CSS.device)
    order_N = draws.order(spec.seed, number, len(pixels)).to(mean_CSS.device)
    for step, picks_B in enumerate(order_N.split(BATCH[spec.arm.data])):
        if stopping():
            raise Stopped
        x_BCHW, labels_B, masks = _batch(spec, training.config, pixels, mean_CSS, noise, number, step, picks_B)
        with half(mean_CSS.device, float32=spec.arm.float32):
            logits_BK: Tensor = net(x_BCHW, masks)
        logits_BK = logits_BK.float()
        loss = F.cross_entropy(logits_BK, labels_B)
        training.optimizer.zero_grad()
        loss.backward()
        if spec.arm.data == "caltech":
            nn.utils.clip_grad_norm_(net.parameters(), _FIGURE3["max_gradient"])
        if matrix_PP is not None:
            whiten(net.conv1.weight, matrix_PP)
        training.optimizer.step()
        sums += torch.stack([(logits_BK.argmax(1) != labels_B).sum(), loss.detach() * len(labels_B)])
    wrong, loss_sum = (sums / len(pixels)).tolist()
    clean = clean_loss(net, pixels.only(slice(CLEAN)), mean_CSS, float32=spec.arm.float32)
    training.curve.append(Epoch(error=wrong, loss=loss_sum, clean_loss=clean))
    training.seconds += time.monotonic() - started


def _batch(
    spec: RunSpec,
    config: AlexNetConfig | CifarConfig,
    pixels: Pixels,
    mean_CSS: Tensor,
    noise: ColourNoise | None,
    epoch: int,
    step: int,
    picks_B: Tensor,
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor] | None]:
    """The views of one step, their classes, and the units that dropout keeps."""
    device, count = mean_CSS.device, len(picks_B)
    squares_BCSS = pixels.squares_NCSS[picks_B]
    margin = squares_BCSS.shape[-1] - config.input_size
    if spec.arm.crops:
        drawn = draws.crops(spec.seed, epoch, step, count, margin)
        places = (torch.tensor([drawn.tops_B, drawn.lefts_B, drawn.mirrored_B])).to(device, non_blocking=True)
        x_BCHW = views(squares_BCSS, mean_CSS, places[0], places[1], places[2].bool(), config.input_size)
        if noise:
            noise.add(x_BCHW, drawn.normals_B3.to(device))
    else:
        x_BCHW = next(fixed_views(squares_BCSS, mean_CSS, config.input_size, ten=False))
    masks = None
    if isinstance(config, AlexNetConfig):
        masks = draws.masks(spec.seed, epoch, step, count, config.fc7_width, config.dropout)
        masks = masks and (masks[0].to(device), masks[1].to(device))
    return x_BCHW, pixels.labels_N[picks_B], masks
