"""Trains AlexNet on an image folder: `python -m training.train --data DIR --out DIR`."""

import json
import math
import platform
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from pydantic_settings import SettingsConfigDict

from training import checkpoint
from training.alexnet import AlexNet, AlexNetConfig
from training.data import list_examples
from training.files import exclusively, replacing, write_tensors
from training.initial import Scheme, initialise
from training.loop import Run, check_settings, train_epoch
from training.preprocess import ImageLimits
from training.program import Settings, keep_freed_memory, run_program
from training.sgd import PaperSGD
from training.views import Views, prepare_views

STATE = "state.safetensors"
TRAINED_ON = "train.sha256"


class TrainSettings(Settings):
    """Train AlexNet's two columns on an image folder by the 2012 recipe.

    DIR/<class>/<photograph> or DIR/train/<class>/<photograph>; in the first case a fifth of the photographs, chosen by the
    hash of their bytes, is never trained on. Interrupted, the same command goes on after the last finished epoch.
    """

    model_config = SettingsConfigDict(cli_prog_name="python -m training.train")

    data: Path = Field(Path("var/images"), description="image folder to train on")
    out: Path = Field(Path("var/model"), description="folder for model.safetensors and model.json")
    epochs: int = Field(90, ge=1, description="passes over the training part; the paper made about 90")
    batch_size: int = Field(128, ge=1, description="images a step")
    lr: float = Field(0.01, gt=0, description="initial learning rate")
    schedule: Literal["constant", "cosine"] = Field(
        "constant", description="learning rate over the epochs; cosine falls to 0, for short runs"
    )
    momentum: float = Field(0.9, gt=0, lt=1, description="share of the velocity kept each step")
    weight_decay: float = Field(5e-4, ge=0, description="share of each weight taken off per unit of learning rate")
    max_gradient: float = Field(
        0.0, ge=0, description="longest gradient (Euclidean norm); longer ones are scaled down; 0 for no limit, as in the paper"
    )
    init: Scheme = Field(
        "paper", description="initial weights: the paper's N(0, 0.01), or scaled by fan-in, which short runs on small data need"
    )
    dropout: float = Field(0.5, ge=0, lt=1, description="share of fc6 and fc7 units dropped at each step; 0.5 in the paper")
    pixel_scale: float = Field(
        1.0, gt=0, description="what pixels are multiplied by before conv1; 1 in the paper, 1/64 = 0.015625 goes with fan-in"
    )
    seed: int = Field(0, ge=0, le=2**32 - 1, description="seed of weights, order, crops and dropout")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="arithmetic of the forward and backward pass; auto takes bfloat16 where the processor has it"
    )
    max_image_bytes: int = Field(ImageLimits().max_image_bytes, ge=1, description="largest image file read, bytes")
    max_image_pixels: int = Field(ImageLimits().max_image_pixels, ge=1, description="largest image read, width x height")


def main(settings: TrainSettings) -> None:
    """Trains, or goes on training, or says that it is done; the result is a model folder (training/checkpoint.py)."""
    keep_freed_memory()
    with exclusively(settings.out):
        _train(settings)


def _train(settings: TrainSettings) -> None:
    recipe = _recipe(settings)
    finished = settings.out / checkpoint.DESCRIPTION
    if finished.is_file():
        check_settings(finished, checkpoint.read_description(settings.out).training.get("settings", {}), recipe)
        print(f"{settings.out} is trained already, with these settings")
        return
    work = settings.out / "training"
    limits = ImageLimits(max_image_bytes=settings.max_image_bytes, max_image_pixels=settings.max_image_pixels)
    views = prepare_views(settings.data, list_examples(settings.data, "train"), work, limits)
    _report(settings, views)
    unfinished = {**recipe, "files": views.files}
    run = _start(settings, views, work / STATE, unfinished)
    with ThreadPoolExecutor(1, "save") as saver:
        saved: Future[None] | None = None
        while len(run.curve) < settings.epochs:
            train_epoch(run, views, _lr(settings, len(run.curve)))
            if saved:
                saved.result()
            saved = saver.submit(write_tensors, work / STATE, *run.snapshot(unfinished))
            _log(settings, len(views.labels_N), run.curve)
        if saved:
            saved.result()
    record = {
        "settings": recipe,
        "photographs": len(views.labels_N),
        "rejected": len(views.rejected),
        "seconds": sum(row["seconds"] for row in run.curve),
        "precision": "bfloat16" if run.bfloat16 else "float32",
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
    }
    checkpoint.save(settings.out, run.net, views.classes, views.mean_CHW, record, {"training_loss": run.curve[-1]["loss"]})
    shutil.rmtree(work)
    print(f"model written to {settings.out}")


def _start(settings: TrainSettings, views: Views, state: Path, recipe: dict[str, Any]) -> Run:
    net = AlexNet(AlexNetConfig(classes=len(views.classes), pixel_scale=(settings.pixel_scale,) * 3, dropout=settings.dropout))
    initialise(net, settings.init, settings.seed)
    net = net.to(memory_format=torch.channels_last)
    optimizer = PaperSGD(net.parameters(), settings.lr, settings.momentum, settings.weight_decay)
    bfloat16 = settings.precision == "bfloat16"
    if settings.precision == "auto":
        bfloat16 = torch.cpu._is_avx512_bf16_supported()
    run = Run(net, optimizer, settings.batch_size, settings.seed, bfloat16, settings.max_gradient)
    if state.is_file():
        run.load(state, recipe)
        print(f"going on after epoch {len(run.curve)} of {settings.epochs}")
    return run


def _recipe(settings: TrainSettings) -> dict[str, Any]:
    recipe = settings.model_dump(mode="json", exclude={"out", "max_image_bytes", "max_image_pixels"})
    return {**recipe, "data": str(settings.data.resolve())}


def _lr(settings: TrainSettings, epoch: int) -> float:
    if settings.schedule == "constant":
        return settings.lr
    return settings.lr * 0.5 * (1 + math.cos(math.pi * epoch / settings.epochs))


def _report(settings: TrainSettings, views: Views) -> None:
    lines = [f"{sha256}  {path}\n" for sha256, path in views.kept]
    with replacing(settings.out / TRAINED_ON) as path:
        path.write_text("".join(lines))
    print(f"{len(lines)} photographs of {len(views.classes)} classes, {len(views.rejected)} rejected", flush=True)
    for name, reason in views.rejected:
        print(f"  rejected {name}: {reason}")


def _log(settings: TrainSettings, photographs: int, curve: list[dict[str, float]]) -> None:
    row, left = curve[-1], settings.epochs - len(curve)
    print(
        f"epoch {row['epoch']}/{settings.epochs}  loss {row['loss']:.4f}  lr {row['lr']:.5f}  "
        f"{photographs / row['seconds']:.0f} images/s  {left * row['seconds'] / 60:.1f} min left",
        flush=True,
    )
    with replacing(settings.out / "metrics.jsonl") as path:
        path.write_text("".join(json.dumps(row) + "\n" for row in curve))


if __name__ == "__main__":
    run_program(TrainSettings, main)
