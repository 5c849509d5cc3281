"""One epoch of training, and the state between epochs on disk.

Legend: B batch, C channels, H height, W width.
"""

import json
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.nn import functional as F

from training import draws
from training.alexnet import AlexNet
from training.errors import Mismatch, TrainingDiverged
from training.preprocess import training_view
from training.program import progress
from training.sgd import PaperSGD
from training.views import Views


@dataclass
class Run:
    """A training run between two epochs."""

    net: AlexNet
    optimizer: PaperSGD
    batch_size: int
    seed: int
    bfloat16: bool
    max_gradient: float  # 0 for no limit
    curve: list[dict[str, float]] = field(default_factory=list)  # one row an epoch

    def snapshot(self, settings: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Copies of weights and velocities, and the curve and settings as text: what `load` reads, for write_tensors.

        Raises TrainingDiverged where a weight is not finite.
        """
        tensors = {}
        for name, parameter in self.net.named_parameters():
            if not parameter.isfinite().all():
                raise TrainingDiverged(f"{name} is not finite after epoch {len(self.curve)}; the epoch before it is kept")
            tensors[f"weight.{name}"] = parameter.detach().clone()
            tensors[f"velocity.{name}"] = self.optimizer.state[parameter]["momentum_buffer"].clone()
        return tensors, {"curve": json.dumps(self.curve), "settings": json.dumps(settings, sort_keys=True)}

    def load(self, path: Path, settings: dict[str, Any]) -> None:
        """Goes on from a written snapshot. Raises Mismatch for a file that is not a state or was made with other settings."""
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata()
                check_settings(path, json.loads(metadata["settings"]), settings)
                self.curve = json.loads(metadata["curve"])
                for name, parameter in self.net.named_parameters():
                    parameter.data.copy_(file.get_tensor(f"weight.{name}"))
                    velocity = torch.empty_like(parameter).copy_(file.get_tensor(f"velocity.{name}"))
                    self.optimizer.state[parameter]["momentum_buffer"] = velocity
        except (SafetensorError, KeyError, TypeError, RuntimeError) as error:
            raise Mismatch(f"{path} is not a training state of this network: {error}; remove it to start anew") from error
        self.optimizer.assume_lr(self.curve[-1]["lr"])


def check_settings(path: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Raises Mismatch, naming the first setting in which a run differs from the one that wrote `path`."""
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            raise Mismatch(
                f"{path} was made with {name}={old.get(name)!r}, not {new.get(name)!r}; "
                "give the old value, choose another --out, or remove it to start anew"
            )


def train_epoch(run: Run, views: Views, lr: float) -> None:
    """One pass over `views` in an order, crops and dropout that follow from seed and epoch alone; adds a row to the curve.

    Raises TrainingDiverged at the first loss that is not finite, before it reaches the weights; the same for a gradient where its
    length is limited.
    """
    epoch = len(run.curve) + 1
    order = draws.order(run.seed, epoch, len(views.labels_N))
    run.optimizer.set_lr(lr)
    run.net.train()
    started, total = time.monotonic(), 0.0
    steps = torch.split(order, run.batch_size)
    for step, picks in enumerate(progress(steps, len(steps), f"epoch {epoch}", "steps")):
        total += _step(run, views, picks, step) * len(picks)
    seconds = time.monotonic() - started
    run.curve.append({"epoch": epoch, "loss": total / len(order), "lr": lr, "seconds": seconds})


def _step(run: Run, views: Views, picks: torch.Tensor, step: int) -> float:
    config, epoch = run.net.config, len(run.curve) + 1
    crops = draws.stream(run.seed, draws.Purpose.VIEWS, epoch, step)
    masks = draws.masks(run.seed, epoch, step, len(picks), config.fc7_width, config.dropout)
    x_BCHW = training_view(views.pixels_NCHW[picks], views.mean_CHW, config.input_size, crops)
    with torch.autocast("cpu", torch.bfloat16, enabled=run.bfloat16):
        logits = run.net(x_BCHW, masks)
    loss = F.cross_entropy(logits.float(), views.labels_N[picks])
    value = loss.item()
    if not math.isfinite(value):
        raise TrainingDiverged(f"the loss is {value} in epoch {epoch}; a lower --lr may help")
    run.optimizer.zero_grad()
    loss.backward()
    if run.max_gradient:
        norm = torch.nn.utils.clip_grad_norm_(run.net.parameters(), run.max_gradient)
        if not norm.isfinite():
            raise TrainingDiverged(f"the gradient is {norm.item()} in epoch {epoch}; a lower --lr may help")
    run.optimizer.step()
    return value
