"""Trains a small vision transformer on an image folder, for a look at its patch embedding: `python -m training.vit --data DIR`.

The network is torchvision's VisionTransformer with a seventieth of the weights of its smallest, on photographs of 32 pixels; the
optimiser is AdamW. Only the first layer is of interest here, so there is no more to it than that layer needs.

Legend: N photographs, B batch, C channels (RGB), H height, W width.
"""

import hashlib
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch
from pydantic import Field, JsonValue
from pydantic_settings import SettingsConfigDict
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import VisionTransformer
from tqdm import tqdm

from training.errors import BadValue, Mismatch, NotReady, TrainingDiverged
from training.files import exclusively, write_tensors
from training.images.folders import check_outside, held_out, list_examples, read_photographs
from training.images.preprocess import Crops, ImageLimits, Photograph
from training.program import Settings, delayed_stop, keep_freed_memory, progress, run_program
from training.record import EpochRow
from training.run import draws
from training.run.log import RunLog, StepRow
from training.run.loop import check_settings
from training.run.position import Position
from training.run.precision import Precision, in_bfloat16

WEIGHTS: Final = "vit.safetensors"
STATE: Final = "state.safetensors"
SIDE: Final = 32  # pixels
MARGIN: Final = 4  # pixels of black on each side, of which a crop of SIDE is taken
BATCH: Final = 64
HELD_OUT: Final = 0.1  # share of the training photographs, chosen by their hash
WARMUP: Final = 100  # steps in which the learning rate rises
_MOMENTS: Final = ("exp_avg", "exp_avg_sq", "step")  # what AdamW keeps for each weight


class VitSettings(Settings):
    """Train a small vision transformer on an image folder, so that `python -m training.patches` can show its patch embedding.

    DIR/<class>/<photograph> or DIR/train/<class>/<photograph>, as `python -m training.datasets` makes them. The central square of
    a photograph is taken at 32 x 32 pixels, CIFAR-10's own. A tenth of the photographs, by their hash, is held out, and the error
    on it is printed after each epoch. The result is OUT/vit.safetensors, with torchvision's names. Interrupted by Ctrl-C or
    power-off, the same command goes on after the last step or epoch.
    """

    model_config = SettingsConfigDict(cli_prog_name="python -m training.vit")
    resumes = True

    data: Path = Field(Path("var/images"), description="image folder to train on")
    out: Path = Field(Path("var/vit"), description="folder for vit.safetensors and the log of the run")
    patch: Literal[4, 8, 16] = Field(8, description="side of a patch, pixels; an image has (32 / patch)^2 of them")
    epochs: int = Field(4, ge=1, le=10_000, description="passes over the photographs")
    lr: float = Field(1e-3, gt=0, le=1, description="highest learning rate; it rises over 100 steps and falls to 0 as a cosine")
    weight_decay: float = Field(0.05, ge=0, le=10, description="AdamW's weight decay")
    embedding_std: float | None = Field(
        None,
        gt=0,
        le=1,
        description="standard deviation of the patch embedding's first weights, small for a picture without their noise; "
        "torchvision's is 1 / sqrt(3 patch^2), 0.072 for patches of 8",
    )
    seed: int = Field(0, ge=0, le=2**32 - 1, description="seed of weights, order and crops")
    precision: Precision = Field(
        "auto", description="arithmetic of the forward and backward pass; auto takes bfloat16 where the processor has it"
    )

    @property
    def bfloat16(self) -> bool:
        """Whether steps compute in bfloat16."""
        return in_bfloat16(self.precision, torch.device("cpu"))

    def recorded(self) -> dict[str, JsonValue]:
        """The settings that the result follows from."""
        precision = "bfloat16" if self.bfloat16 else "float32"
        return {**self.model_dump(mode="json", exclude={"out"}), "data": str(self.data.resolve()), "precision": precision}


@dataclass(frozen=True)
class Pictures:
    """The photographs of a training part at SIDE pixels."""

    pixels_NCHW: Tensor  # uint8 (N, 3, 32, 32)
    labels_N: Tensor  # int64
    classes: list[str]
    held_N: Tensor  # bool: whether the photograph is held out
    sha256: str  # over all files' bytes and classes

    def colours(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of red, green and blue on the 0..255 scale: float32 (3,) each."""
        planes_NCP = self.pixels_NCHW.flatten(2)
        sums_NC = planes_NCP.sum(2, dtype=torch.float64), planes_NCP.float().square().sum(2, dtype=torch.float64)
        mean_C, squares_C = (sums.sum(0) / (len(planes_NCP) * planes_NCP.shape[2]) for sums in sums_NC)
        return mean_C.float(), (squares_C - mean_C.square()).clamp_min(1).sqrt().float()


class Run:
    """A network in training, between two steps."""

    def __init__(self, settings: VitSettings, pictures: Pictures) -> None:
        torch.manual_seed(settings.seed)
        self.settings, self.pictures, self.at = settings, pictures, Position()
        self.net = network(settings.patch, len(pictures.classes), settings.embedding_std)
        self.optimizer = torch.optim.AdamW(self.net.parameters(), settings.lr, weight_decay=settings.weight_decay, fused=True)
        self.mean_C, self.deviation_C = pictures.colours()
        self.facts: dict[str, JsonValue] = {**settings.recorded(), "photographs": pictures.sha256}

    def save(self, path: Path) -> None:
        """Writes weights, moments and position in one step."""
        tensors = {f"weight.{name}": parameter for name, parameter in self.net.named_parameters()}
        for name, parameter in self.net.named_parameters():
            tensors |= {f"{moment}.{name}": self.optimizer.state[parameter][moment] for moment in _MOMENTS}
        facts = {"settings": json.dumps(self.facts), "position": self.at.model_dump_json(exclude_none=True)}
        write_tensors(path, tensors, facts)

    def load(self, path: Path) -> None:
        """Goes on from a written state. Raises Mismatch where it is none, or of other settings or photographs."""
        try:
            with safe_open(path, "pt") as file, torch.no_grad():
                metadata = file.metadata()
                check_settings(path, json.loads(metadata["settings"]), self.facts)
                self.at = Position.model_validate_json(metadata["position"])
                for name, parameter in self.net.named_parameters():
                    parameter.copy_(file.get_tensor(f"weight.{name}"))
                    self.optimizer.state[parameter] = {moment: file.get_tensor(f"{moment}.{name}").clone() for moment in _MOMENTS}
        except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise Mismatch(f"{path} is not a state of this run: {error}; remove it to start anew") from error

    def logits(self, x_BCHW: Tensor) -> Tensor:
        """Float32 (B, classes) of uint8 pixels."""
        x_BCHW = (x_BCHW - self.mean_C[:, None, None]) / self.deviation_C[:, None, None]
        with torch.autocast("cpu", torch.bfloat16, enabled=self.settings.bfloat16):
            logits: Tensor = self.net(x_BCHW)
        return logits.float()

    def step(self, picks_B: Tensor, lr: float) -> float:
        """One step; its loss. Raises TrainingDiverged for a loss that is not finite."""
        at, seed = self.at, self.settings.seed
        crops = draws.crops(seed, at.epoch, at.step, len(picks_B), 2 * MARGIN)
        x_BCHW = views(self.pictures.pixels_NCHW[picks_B], crops)
        loss = F.cross_entropy(self.logits(x_BCHW), self.pictures.labels_N[picks_B])
        value = loss.item()
        if not math.isfinite(value):
            raise TrainingDiverged(f"the loss is {value} in epoch {at.epoch}; a lower --lr may help")
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return value

    @torch.no_grad()
    def error(self, chosen_N: Tensor) -> float:
        """Top-1 error on whole photographs."""
        self.net.eval()
        pictures = self.pictures
        right = sum(
            int((self.logits(pictures.pixels_NCHW[picks_B]).argmax(1) == pictures.labels_N[picks_B]).sum())
            for picks_B in chosen_N.split(BATCH)
        )
        return 1 - right / len(chosen_N)


def network(patch: int, classes: int, embedding_std: float | None = None) -> VisionTransformer:
    """A small vision transformer for 32 x 32 pixels: four blocks of width 192, 1.2 million weights.

    The patch embedding starts at N(0, embedding_std), or as torchvision's does.
    """
    net = VisionTransformer(
        image_size=SIDE, patch_size=patch, num_layers=4, num_heads=3, hidden_dim=192, mlp_dim=384, num_classes=classes
    )
    if embedding_std is not None:
        nn.init.normal_(net.conv_proj.weight, std=embedding_std)
    return net


def main(settings: VitSettings) -> None:
    """Trains, or goes on training, or says that it is done."""
    keep_freed_memory()
    check_outside("out", settings.out, settings.data)
    with exclusively(settings.out):
        if (settings.out / WEIGHTS).is_file():
            _check_trained(settings)
            print(f"{settings.out / WEIGHTS} is trained already, with these settings")
            return
        pictures = read_pictures(settings.data)
        run = Run(settings, pictures)
        state = settings.out / STATE
        if state.is_file():
            run.load(state)
            print(f"going on in epoch {run.at.epoch} of {settings.epochs} after {run.at.step} steps")
        _epochs(run, state)
        colours = {"mean": run.mean_C.tolist(), "deviation": run.deviation_C.tolist()}
        described = {"settings": run.facts, "classes": pictures.classes, **colours}
        metadata = {name: json.dumps(value) for name, value in described.items()}
        write_tensors(settings.out / WEIGHTS, run.net.state_dict(), metadata)
        state.unlink(missing_ok=True)
        print(f"written to {settings.out / WEIGHTS}; `python -m training.patches --weights {settings.out / WEIGHTS}` shows it")


def read_pictures(root: Path) -> Pictures:
    """The training part of an image folder. Photographs that do not decode are left out and named.

    Raises NotReady where fewer than two classes are left.
    """
    examples = list_examples(root, "train")
    pixels_NCHW = torch.empty(len(examples), 3, SIDE, SIDE, dtype=torch.uint8)
    labels: list[str] = []
    hashes, digest = bytearray(), hashlib.sha256()
    for read in progress(read_photographs(root, examples, ImageLimits(), SIDE), len(examples), "reading"):
        if not isinstance(read.outcome, Photograph) or not read.example.label:
            tqdm.write(f"left out {read.example.shown}: {read.outcome if read.example.label else 'lies in no class'}")
            continue
        pixels_NCHW[len(labels)] = read.outcome.pixels_CHW
        labels.append(read.example.label)
        hashes += bytes.fromhex(read.sha256)
        digest.update(f"{read.sha256} {read.example.label}\n".encode())
    classes = sorted(set(labels))
    if len(classes) < 2:
        raise NotReady(f"training needs {root}/<class>/<photograph> for at least two classes; there are {classes}")
    labels_N = torch.tensor([classes.index(label) for label in labels])
    held_N = torch.from_numpy(held_out(np.frombuffer(hashes, np.uint8).reshape(-1, 32), HELD_OUT))
    return Pictures(pixels_NCHW[: len(labels)], labels_N, classes, held_N, digest.hexdigest())


def views(pixels_BCHW: Tensor, crops: Crops) -> Tensor:
    """The drawn crop of each photograph within a black margin, mirrored where drawn so: uint8, as it was."""
    found = []
    for padded_CHW, top, left, mirrored in zip(
        F.pad(pixels_BCHW, (MARGIN,) * 4), crops.tops_B, crops.lefts_B, crops.mirrored_B, strict=True
    ):
        view_CHW = padded_CHW[:, top : top + SIDE, left : left + SIDE]
        found.append(view_CHW.flip(-1) if mirrored else view_CHW)
    return torch.stack(found)


def rate(lr: float, step: int, steps: int) -> float:
    """The learning rate of a step, from 0, of so many: up in WARMUP steps, then down to 0 as a cosine."""
    return lr * min(1.0, (step + 1) / WARMUP) * 0.5 * (1 + math.cos(math.pi * step / steps))


def _epochs(run: Run, state: Path) -> None:
    settings, at = run.settings, run.at
    chosen_N, held_N = ((run.pictures.held_N == held).nonzero()[:, 0] for held in (False, True))
    if not len(chosen_N) or not len(held_N):
        counts = f"{len(held_N)} of {len(run.pictures.labels_N)} are held out"
        raise BadValue("data", str(settings.data), f"a folder of more photographs ({counts})")
    total = settings.epochs * -(-len(chosen_N) // BATCH)
    with RunLog(settings.out, False, at) as log, delayed_stop() as stop:
        while at.epoch <= settings.epochs:
            run.net.train()
            picks = chosen_N[draws.order(settings.seed, at.epoch, len(chosen_N))].split(BATCH)[at.step :]
            started = time.monotonic()
            for picks_B in progress(picks, len(picks), f"epoch {at.epoch}", "steps"):
                lr = rate(settings.lr, at.steps, total)
                loss = run.step(picks_B, lr)
                seconds = time.monotonic() - started
                started += seconds
                row = StepRow(epoch=at.epoch, step=at.step, loss=loss, lr=lr, images_per_second=len(picks_B) / seconds)
                at.add(loss * len(picks_B), len(picks_B), 0, seconds)
                log.step(row, at.steps)
                if stop():
                    log.flush()
                    run.save(state)
                    raise KeyboardInterrupt
            done = EpochRow(
                epoch=at.epoch,
                loss=at.loss / at.images,
                lr=rate(settings.lr, at.steps - 1, total),
                seconds=at.seconds,
                skipped=0,
                images_per_second=at.images / at.seconds,
                top1_error=run.error(held_N),
            )
            at.end_epoch(done)
            log.epoch(done)
            run.save(state)
            print(f"epoch {done.epoch}/{settings.epochs}  loss {done.loss:.4f}  held-out error {done.top1_error:.4f}", flush=True)


def _check_trained(settings: VitSettings) -> None:
    """Raises Mismatch where the network that is there was trained with other settings."""
    path = settings.out / WEIGHTS
    try:
        with safe_open(path, "pt") as file:
            old = json.loads((file.metadata() or {})["settings"])
    except (SafetensorError, KeyError, ValueError) as error:
        raise Mismatch(f"{path} is not what training.vit writes: {error}; remove it to start anew") from error
    old.pop("photographs", None)
    check_settings(path, old, settings.recorded())


if __name__ == "__main__":
    run_program(VitSettings, main)
