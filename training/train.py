"""Trains AlexNet on an image folder: `python -m training.train --data DIR --out DIR`."""

import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from pydantic import JsonValue
from torch import Tensor

from training import checkpoint
from training.checkpoint import Model
from training.errors import BadValue, Mismatch
from training.files import exclusively, replacing, sha256_of
from training.images.folders import check_outside, list_examples
from training.images.preprocess import ImageLimits
from training.images.squares import Squares, prepare_squares
from training.network.alexnet import AlexNet
from training.network.columns import PlacedNet, values_exchanged
from training.network.initialisation import initialise
from training.network.placement import Placement, open_placement
from training.program import delayed_stop, keep_freed_memory, machine, run_program
from training.record import EpochRow, ModelMetrics, TrainingRecord
from training.run.colour import colour_noise
from training.run.feed import Feed
from training.run.log import RunLog
from training.run.loop import Run, check_settings, train_epoch, validate
from training.run.precision import in_bfloat16
from training.run.recipe import TrainSettings
from training.run.schedule import rates
from training.run.sgd import PaperSGD
from training.run.whitening import PATCH, whitening

WORK = "training"
STATE, PATCHES_STATE = "state.safetensors", "patches.safetensors"
PATCHES = "patches"  # what patch pre-training measured


def main(settings: TrainSettings) -> None:
    """Trains, or goes on training, or says that it is done; the result is a model folder (training/checkpoint.py)."""
    keep_freed_memory()
    check_outside("out", settings.out, settings.data)
    start = checkpoint.load(settings.start, untrained_too=True) if settings.start else None
    config = start.net.config if start else settings.network(classes=1)
    with open_placement(config, settings.devices, settings.ranks_a_network) as placement:
        hold: AbstractContextManager[None] = exclusively(settings.out) if placement.leads else nullcontext()
        with hold:
            _train(settings, placement, start)


def _train(settings: TrainSettings, placement: Placement, start: Model | None) -> None:
    if _is_trained(settings):
        if placement.leads:
            shutil.rmtree(settings.out / WORK, ignore_errors=True)
        _say(placement, f"{settings.out} is trained already, with these settings")
        return
    squares = _squares(settings, placement)
    patches = _patches(settings, placement, squares) if settings.patch_epochs else None
    convolutions = _convolutions(patches) if patches else {}
    run, training, validation = _trained(settings, placement, start, squares, convolutions, settings.out, STATE)
    curve = [*(patches.position.curve if patches else []), *run.position.curve]
    _write_model(settings, run, training, validation, sum(row.seconds for row in curve))


def _patches(settings: TrainSettings, placement: Placement, squares: Squares) -> Run:
    """Patch pre-training, to its end: a departure from the paper."""
    patches = settings.of_patches()
    _say(placement, f"patch pre-training: {patches.epochs} epochs on crops of {patches.input_size} pixels")
    run, _, _ = _trained(patches, placement, None, squares, {}, settings.out / PATCHES, PATCHES_STATE)
    run.save(settings.out / WORK / PATCHES_STATE, _facts(patches, None, run, PATCHES_STATE))
    return run


def _convolutions(run: Run) -> dict[str, Tensor]:
    return {name: weights for name, weights in run.net.whole(lambda p: p).items() if name.startswith("conv")}


def _trained(
    settings: TrainSettings,
    placement: Placement,
    start: Model | None,
    squares: Squares,
    weights: dict[str, Tensor],
    logs: Path,
    state: str,
) -> tuple[Run, Feed, Feed]:
    """A run at the end of its last epoch, and its photographs; it begins with `weights`, or goes on from the state on disk."""
    mean_CHW = start.mean_CHW if start else squares.mean_CHW
    run = _new_run(settings, placement, start, squares.classes, weights)
    training, validation = (
        Feed(squares, chosen_N, mean_CHW, run.net.config, settings.batch_size, settings.seed, placement.share)
        for chosen_N in _split(squares, settings.validation)
    )
    if not len(training.chosen_N) or (settings.schedule == "plateau" and not len(validation.chosen_N)):
        counts = f"it holds out {len(validation.chosen_N)} of {len(squares.labels_N)}"
        raise BadValue("validation", settings.validation, f"a share that leaves photographs on both sides ({counts})")
    if warning := settings.warning(training.steps()):
        _say(placement, warning)
    saver = _Saver(run, settings.out / WORK / state, _facts(settings, start, run, state), settings.save_minutes)
    if saver.path.is_file():
        run.load(saver.path, saver.settings)
        at = run.position
        if at.epoch <= settings.epochs:
            _say(placement, f"going on in epoch {at.epoch} of {settings.epochs} after {at.step} of {training.steps()} steps")
    if settings.conv1_whitening and "conv1" not in settings.frozen and run.position.epoch <= settings.epochs:
        run.whitening_PP = _whitening(settings, placement, training)
    _say(placement, f"{placement.summary()}; {_precision(run)}")
    _epochs(settings, run, training, validation, saver, logs)
    return run, training, validation


def _is_trained(settings: TrainSettings) -> bool:
    """Whether the model is there. Raises Mismatch where it was trained with other settings."""
    finished = settings.out / checkpoint.DESCRIPTION
    if not finished.is_file():
        return False
    record = checkpoint.read_description(settings.out).training
    check_settings(finished, record.settings if isinstance(record, TrainingRecord) else {}, settings.recorded())
    return True


def _facts(settings: TrainSettings, start: Model | None, run: Run, state: str) -> dict[str, JsonValue]:
    """What a run that goes on must have been started with: the settings, and what followed from them here."""
    recorded = settings.recorded()
    if state == PATCHES_STATE:
        recorded["patch_epochs"] = recorded.pop("epochs")  # by the name of the option that gave it
    return {
        **recorded,
        "photographs": sha256_of(settings.out / checkpoint.TRAINED_ON),
        "start_model": start.fingerprint if start else None,
        "bfloat16": run.bfloat16,
    }


def _write_model(settings: TrainSettings, run: Run, training: Feed, validation: Feed, seconds: float) -> None:
    """Writes the model in place of the state of the run; all ranks take part, and the leading one writes."""
    weights = run.net.whole(lambda parameter: parameter)
    run.check_finite(weights)
    if not run.net.placement.leads:
        return
    net = AlexNet(run.net.config)
    net.load_state_dict(weights)
    curve, squares = run.position.curve, training.squares
    record = TrainingRecord(
        settings=settings.recorded(),
        photographs=len(training.chosen_N),
        held_out=len(validation.chosen_N),
        rejected=len(squares.rejects),
        seconds=seconds,
        precision=_precision(run),
        placement=run.net.placement.summary(),
        machine=f"{machine()}, {torch.get_num_threads()} threads",
        torch=torch.__version__,
    )
    checkpoint.save(settings.out, net, squares.classes, training.mean_CHW, record, ModelMetrics(training=curve[-1]))
    shutil.rmtree(settings.out / WORK)
    print(f"model written to {settings.out}")


def _precision(run: Run) -> Literal["float32", "bfloat16"]:
    return "bfloat16" if run.bfloat16 else "float32"


def _squares(settings: TrainSettings, placement: Placement) -> Squares:
    """The photographs, decoded by the leading rank and opened by the others."""
    limits = ImageLimits.model_validate(settings, from_attributes=True)
    if not placement.leads:
        placement.wait()
    squares = prepare_squares(
        settings.data,
        list_examples(settings.data, "train"),
        settings.out / WORK,
        limits,
        settings.keep,
        only_open=not placement.leads,
    )
    if placement.leads:
        _check_same(settings, squares)
        with replacing(settings.out / checkpoint.TRAINED_ON) as path, path.open("w", encoding="utf-8") as file:
            file.writelines(f"{sha256}  {name}\n" for sha256, name in squares.hashes_and_paths())
        count, rejects = len(squares.labels_N), squares.rejects
        print(f"{count} photographs of {len(squares.classes)} classes, {len(rejects)} rejected", flush=True)
        for reject in rejects:
            print(f"  rejected {reject.path}: {reject.reason}")
        placement.wait()
    return squares


def _check_same(settings: TrainSettings, squares: Squares) -> None:
    """Raises Mismatch, naming files, where a run that would go on was started with other photographs; nothing is written."""
    path = settings.out / checkpoint.TRAINED_ON
    if not path.is_file() or not any((settings.out / WORK / state).is_file() for state in (STATE, PATCHES_STATE)):
        return
    old = {name: sha256 for sha256, _, name in (line.partition("  ") for line in path.read_text("utf-8").splitlines())}
    new = {name: sha256 for sha256, name in squares.hashes_and_paths()}
    changes = {
        "added": sorted(new.keys() - old.keys()),
        "removed": sorted(old.keys() - new.keys()),
        "changed": sorted(name for name in new.keys() & old.keys() if new[name] != old[name]),
    }
    if any(changes.values()):
        differences = "; ".join(
            f"{len(names)} {change} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
            for change, names in changes.items()
            if names
        )
        raise Mismatch(
            f"the run in {settings.out} was made with photographs=those of {path}, and they are others now: {differences}; "
            "bring the old ones back, choose another --out, or remove it to start anew"
        )


def _split(squares: Squares, share: float) -> tuple[Tensor, Tensor]:
    """Positions to train on and positions to validate on."""
    validates_N = torch.from_numpy(squares.held_out_N(share))
    return (~validates_N).nonzero()[:, 0], validates_N.nonzero()[:, 0]


def _new_run(
    settings: TrainSettings, placement: Placement, start: Model | None, classes: list[str], weights: dict[str, Tensor]
) -> Run:
    config = settings.network(len(classes))
    if start:
        changes = {"classes": len(classes)} | ({} if settings.dropout is None else {"dropout": settings.dropout})
        config = start.net.config.with_fields(**changes)
    whole = AlexNet(config)
    initialise(whole, settings.init, settings.seed, settings.conv1_std)
    weights = {**whole.state_dict(), **weights}
    if start:
        old = start.net.state_dict()
        weights |= {name: w for name, w in old.items() if start.classes == classes or not name.startswith("fc8.")}
    net = PlacedNet(config, placement)
    net.load_whole(weights)
    for part in net.columns_here:
        for layer in settings.frozen:
            part.get_submodule(layer).requires_grad_(False)
    optimizer = PaperSGD(net.named_parameters(), settings.momentum, settings.weight_decay, settings.conv1_decay)
    return Run(net, optimizer, in_bfloat16(settings.precision, placement.devices[0]), settings.max_gradient)


def _whitening(settings: TrainSettings, placement: Placement, training: Feed) -> Tensor:
    """The same matrix on every rank: replicas that multiplied by others in the last bit would part."""
    matrix_PP = whitening(training, settings.conv1_whitening) if placement.leads else torch.empty(PATCH, PATCH)
    return placement.from_lead(matrix_PP)


@dataclass
class _Saver:
    """Saves a run now and then, and when it is asked to stop."""

    run: Run
    path: Path
    settings: dict[str, JsonValue]
    minutes: float
    last: float = field(default_factory=time.monotonic)

    def after_step(self, stop: bool, flush: Callable[[], None]) -> None:
        """Saves where it is time to; raises KeyboardInterrupt, all saved, where a rank is to `stop`."""
        placement = self.run.net.placement
        stop = placement.any_rank(stop)
        if stop or placement.any_rank(time.monotonic() - self.last >= 60 * self.minutes):
            flush()
            self.run.save(self.path, self.settings)
            self.last = time.monotonic()
        if stop:
            raise KeyboardInterrupt


def _epochs(settings: TrainSettings, run: Run, training: Feed, validation: Feed, saver: _Saver, logs: Path) -> None:
    placement, at = run.net.placement, run.position
    noise = colour_noise(training.squares.statistics.covariance_33, settings.colour)
    chance = validation.majority_error()
    with RunLog(logs if placement.leads else None, settings.tensorboard, at) as log, delayed_stop() as stop:
        while at.epoch <= settings.epochs:
            errors = at.validation_errors()
            now = rates(settings.schedule, settings.lr, at.epoch, settings.epochs, settings.patience, errors, chance)
            run.optimizer.set_rates(now.of_groups(settings.bias_lr, (settings.conv1_lr or settings.lr) / settings.lr))
            run.freeze_conv1(now.conv1_lr == 0)
            train_epoch(run, training, noise if now.colour else None, log, lambda: saver.after_step(stop(), log.flush))
            row = _epoch_row(run, now.lr, validation)
            at.end_epoch(row)
            log.epoch(row)
            _say(placement, _line(row, settings.epochs))
            if row.epoch == 1:
                _say_traffic(run)


def _epoch_row(run: Run, lr: float, validation: Feed) -> EpochRow:
    at = run.position
    measured = validate(run, validation) if len(validation.chosen_N) else None
    return EpochRow(
        epoch=at.epoch,
        loss=at.loss / at.images,
        lr=lr,
        seconds=at.seconds,
        skipped=at.skipped,
        images_per_second=at.images / at.seconds,
        top1_error=measured and measured.top1_error,
        validation_loss=measured and measured.loss,
    )


def _line(row: EpochRow, epochs: int) -> str:
    left = (epochs - row.epoch) * row.seconds / 60
    error = "" if row.top1_error is None else f"  top-1 error {row.top1_error:.4f}"
    return (
        f"epoch {row.epoch}/{epochs}  loss {row.loss:.4f}{error}  lr {row.lr:.5f}  "
        f"{row.images_per_second:.0f} images/s  {left:.1f} min left"
    )


def _say_traffic(run: Run) -> None:
    traffic = run.net.traffic.per_image()
    if any(traffic.values()):
        every = sum(values_exchanged(run.net.config)[1].values()) * (2 if run.bfloat16 else 4)
        layers = ", ".join(f"{name} {count / 1e3:.1f}" for name, count in traffic.items())
        _say(
            run.net.placement,
            f"between the columns, an image and step: {sum(traffic.values()) / 1e3:.1f} kB ({layers}); "
            f"full tensor parallelism would send {every / 1e3:.1f} kB",
        )


def _say(placement: Placement, text: str) -> None:
    if placement.leads:
        print(text, flush=True)


if __name__ == "__main__":
    run_program(TrainSettings, main)
