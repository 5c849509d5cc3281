"""Steps of training, and the state between two of them on disk.

Legend: B batch, C channels, H height, W width, P the weights of a conv1 kernel.
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import torch
from pydantic import JsonValue
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from training.errors import FC7Error, Mismatch, TrainingDiverged
from training.files import write_tensors
from training.network.columns import PlacedNet
from training.program import progress
from training.run.colour import ColourNoise
from training.run.feed import Batch, Feed
from training.run.log import RunLog, StepRow
from training.run.position import Position
from training.run.sgd import PaperSGD
from training.run.whitening import whiten

MAX_REJECTED: Final = 0.1  # share of an epoch's photographs


@dataclass
class Run:
    """A training run between two steps."""

    net: PlacedNet
    optimizer: PaperSGD
    bfloat16: bool
    max_gradient: float  # 0 for no limit
    position: Position = field(default_factory=Position)
    whitening_PP: Tensor | None = None  # what conv1's gradient is multiplied by: training/run/whitening.py

    def save(self, path: Path, settings: dict[str, JsonValue]) -> None:
        """Writes weights, velocities and position in one step; all ranks of the first replica take part, and one writes.

        Raises TrainingDiverged where a weight is not finite, and leaves the file that was there.
        """
        tensors = {f"weight.{name}": tensor for name, tensor in self.net.whole(lambda p: p).items()}
        self.check_finite(tensors)
        velocities = self.net.whole(lambda p: self.optimizer.state[p].get("momentum_buffer", torch.zeros_like(p)))
        tensors |= {f"velocity.{name}": tensor for name, tensor in velocities.items()}
        if self.net.placement.leads:
            described = {
                "position": self.position.model_dump(exclude_none=True),
                "rates": self.optimizer.rates(),
                "settings": settings,
            }
            write_tensors(path, tensors, {name: json.dumps(value, sort_keys=True) for name, value in described.items()})

    def check_finite(self, tensors: Mapping[str, Tensor]) -> None:
        """Raises TrainingDiverged, naming the first that is not finite."""
        for name, tensor in tensors.items():
            if not tensor.isfinite().all():
                raise TrainingDiverged(f"{name} is not finite after step {self.position.steps}; the state before it is kept")

    def load(self, path: Path, settings: dict[str, JsonValue]) -> None:
        """Goes on from a written state. Raises Mismatch for a file that is not a state or was made with other settings."""
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata()
                check_settings(path, json.loads(metadata["settings"]), settings)
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                self.position = Position.model_validate_json(metadata["position"])
                self.optimizer.assume_rates(json.loads(metadata["rates"]))
            self.net.load_whole(_below("weight.", tensors))
            self.net.set_whole(_below("velocity.", tensors), self._set_velocity)
        except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise Mismatch(f"{path} is not a training state of this network: {error}; remove it to start anew") from error

    def freeze_conv1(self, frozen: bool) -> None:
        """Lets conv1 rest from here on, where `frozen`."""
        if frozen:
            for part in self.net.columns_here:
                part.conv1.requires_grad_(False)

    def _set_velocity(self, parameter: torch.nn.Parameter, tensor: Tensor) -> None:
        self.optimizer.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(tensor)


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def check_settings(path: Path, old: dict[str, JsonValue], new: dict[str, JsonValue]) -> None:
    """Raises Mismatch, naming the first setting in which a run differs from the one that wrote `path`."""
    for name in sorted(old.keys() | new.keys(), key=lambda name: (name == "conv1_lr", name)):  # which may follow from lr
        if old.get(name) != new.get(name):
            raise Mismatch(
                f"{path} was made with {name}={old.get(name)!r}, not {new.get(name)!r}; "
                "give the old value, choose another --out, or remove it to start anew"
            )


def train_epoch(run: Run, feed: Feed, noise: ColourNoise | None, log: RunLog, after_step: Callable[[], None]) -> None:
    """The rest of an epoch, from where the run stands; `after_step` may save the run, or raise to leave it.

    Raises TrainingDiverged at the first loss that is not finite, before it reaches the weights; the same for a gradient where its
    length is limited. Raises FC7Error where more than a tenth of the photographs cannot be read any more.
    """
    at = run.position
    run.net.train()
    batches = feed.training(at.epoch, at.step, noise)
    started = time.monotonic()
    for batch in progress(batches, feed.steps() - at.step, f"epoch {at.epoch}", "steps"):
        loss, rejected = run.net.placement.sum_over_all([_step(run, batch), float(len(batch.rejects))])
        _print_rejects(batch)
        seconds = time.monotonic() - started
        started += seconds
        at.add(loss, batch.images, int(rejected), seconds)
        row = StepRow(
            epoch=at.epoch,
            step=batch.step,
            loss=loss / batch.images,
            lr=run.optimizer.rates()["weights"],
            images_per_second=batch.images / seconds,
        )
        log.step(row, at.steps)
        if at.skipped > MAX_REJECTED * len(feed.chosen_N):
            raise FC7Error(f"{at.skipped} of {len(feed.chosen_N)} photographs could not be read in epoch {at.epoch}; see above")
        after_step()


def _step(run: Run, batch: Batch) -> float:
    """One step on this process's share of a batch; its loss, summed over the photographs of the share."""
    logits = _logits(run, batch)
    total = F.cross_entropy(logits, batch.labels_B.to(logits.device), reduction="sum")
    value = total.item()
    if not math.isfinite(value):
        raise TrainingDiverged(f"the loss is {value} in epoch {run.position.epoch}; a lower --lr may help")
    run.optimizer.zero_grad()
    (total / batch.images).backward()
    run.net.placement.sum_over_replicas([p.grad for p in run.net.parameters() if p.grad is not None])
    if run.max_gradient:
        norm = run.net.gradient_norm()
        if not norm.isfinite():
            raise TrainingDiverged(f"the gradient is {norm.item()} in epoch {run.position.epoch}; a lower --lr may help")
        scale = (run.max_gradient / (norm + 1e-6)).clamp(max=1)
        for parameter in run.net.parameters():
            if parameter.grad is not None:
                parameter.grad *= scale.to(parameter.device)
    if run.whitening_PP is not None:
        for part in run.net.columns_here:
            whiten(part.conv1.weight, run.whitening_PP)
    run.optimizer.step()
    return value


def _logits(run: Run, batch: Batch) -> Tensor:
    """Float32 (B, classes). A share without photographs still takes its part in what the columns say to each other."""
    x_BCHW, masks = batch.x_BCHW, batch.masks
    if not len(x_BCHW):
        x_BCHW, masks = x_BCHW.new_zeros(1, *x_BCHW.shape[1:]), None
    with torch.autocast(run.net.placement.devices[0].type, torch.bfloat16, enabled=run.bfloat16):
        logits: Tensor = run.net(x_BCHW, masks)
    return logits[: len(batch.labels_B)].float()


@dataclass(frozen=True)
class Validation:
    """How good a network is on photographs that it is not trained on."""

    top1_error: float
    loss: float


@torch.no_grad()
def validate(run: Run, feed: Feed) -> Validation:
    """Top-1 error and loss on the centre views of the validation photographs.

    Raises TrainingDiverged for a loss that is not finite, FC7Error where more than a tenth of them cannot be read any more.
    """
    run.net.eval()
    wrong, loss, images, rejected = 0.0, 0.0, 0.0, 0.0
    for batch in progress(feed.validation(), feed.steps(), "validating", "steps"):
        logits = _logits(run, batch)
        labels_B = batch.labels_B.to(logits.device)
        wrong += (logits.argmax(1) != labels_B).sum().item()
        loss += F.cross_entropy(logits, labels_B, reduction="sum").item()
        images += len(labels_B)
        rejected += len(batch.rejects)
        _print_rejects(batch)
    wrong, loss, images, rejected = run.net.placement.sum_over_all([wrong, loss, images, rejected])
    if rejected > MAX_REJECTED * len(feed.chosen_N):
        raise FC7Error(f"{rejected:.0f} of {len(feed.chosen_N)} held-out photographs could not be read; see above")
    if not math.isfinite(loss):
        raise TrainingDiverged(f"the validation loss is {loss} after epoch {run.position.epoch}; a lower --lr may help")
    return Validation(wrong / images, loss / images)


def _print_rejects(batch: Batch) -> None:
    for reject in batch.rejects:
        tqdm.write(f"skipped {reject.path}: {reject.reason}")
