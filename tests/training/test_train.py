"""Training: resumed runs equal uninterrupted ones bit for bit, nothing is lost to a kill, a NaN or other settings."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import SmallConfig, write_photographs
from training import checkpoint, evaluate, train
from training.errors import BadValue, FC7Error, Mismatch, NotReady, TrainingDiverged
from training.evaluate import EvaluateSettings, measure
from training.images.folders import list_examples
from training.images.preprocess import ImageLimits, decode
from training.network.alexnet import AlexNet
from training.network.initialisation import initialise
from training.record import EpochRow, TrainingRecord
from training.run.recipe import TrainSettings

KILLED_RUN = """
import os, signal, sys
from training.run import loop
from training import train
from training.network.alexnet import PROFILES, AlexNetConfig
from training.run.recipe import TrainSettings

steps = 0
def dying_step(*args):
    global steps
    steps += 1
    if steps == 8:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(*args)

step, loop._step = loop._step, dying_step
PROFILES["paper"] = AlexNetConfig(maps=(4, 6, 8, 8, 6), hidden=16)
train.main(TrainSettings.model_validate_json(sys.argv[1]))
"""


def settings(images: Path, out: Path, **changes: object) -> TrainSettings:
    values = {"preset": "quick", "patch_epochs": 0, "epochs": 4, "batch_size": 8, "lr": 0.02, "save_minutes": 0, **changes}
    return TrainSettings.model_validate({"data": images, "out": out, **values})


def losses(out: Path, file: str = "metrics.jsonl") -> list[float]:
    return [json.loads(line)["loss"] for line in (out / file).read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.usefixtures("few_maps")
def test_a_run_killed_in_its_third_epoch_ends_as_if_it_had_not_been(images: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whitened = partial(settings, images, conv1_whitening=0.25, square_size=128, input_size=67)
    train.main(whitened(whole))
    run = subprocess.run([sys.executable, "-c", KILLED_RUN, whitened(killed).model_dump_json()], check=False)
    assert run.returncode == -9
    assert losses(killed) == losses(whole)[:2]
    assert not (killed / "model.json").exists()
    with pytest.raises(Mismatch, match=r"conv1_whitening=0\.25, not 0\.0"):
        train.main(whitened(killed, conv1_whitening=0.0))
    train.main(whitened(killed))
    assert losses(killed) == losses(whole)
    assert losses(killed, "steps.jsonl") == losses(whole, "steps.jsonl")
    assert (killed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert sorted(p.name for p in killed.iterdir()) == [
        ".lock",
        ".turn",
        "metrics.jsonl",
        "model.json",
        "model.safetensors",
        "steps.jsonl",
        "train.sha256",
    ]


@pytest.mark.usefixtures("few_maps")
def test_training_learns_three_colours_and_evaluation_counts_the_errors(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train.main(settings(images, tmp_path, epochs=16, precision="float32"))
    assert losses(tmp_path)[-1] < 0.7 * losses(tmp_path)[0]
    evaluate.main(EvaluateSettings(model=tmp_path, data=images))
    model = checkpoint.load(tmp_path)
    wrong = 0
    for example in list_examples(images, "test"):
        photo = decode((images / example.path).read_bytes(), ImageLimits()).pixels_CHW
        wrong += model.classes[int(model.probabilities(photo[None]).argmax())] != example.label
    rates = model.metrics.test or []
    assert [row.views for row in rates] == [1, 10]
    assert rates[0].top1_error == wrong / 9
    assert rates[0].top5_error == 0
    assert f"top-1 error {wrong / 9:.4f}" in capsys.readouterr().out


@pytest.mark.usefixtures("few_maps")
def test_convolutions_learnt_on_patches_are_those_of_a_small_network_by_itself(images: Path, tmp_path: Path) -> None:
    small, full = tmp_path / "small", tmp_path / "full"
    train.main(settings(images, small, epochs=2, square_size=128, input_size=67, hidden=256))
    convolutions = ("conv1", "conv2", "conv3", "conv4", "conv5")
    train.main(settings(images, full, epochs=1, patch_epochs=2, frozen=convolutions))
    expected, weights = (load_file(out / "model.safetensors") for out in (small, full))
    for name in weights:
        if name.startswith("conv"):
            assert torch.equal(weights[name], expected[name])
    assert checkpoint.load(full).net.config == SmallConfig(classes=3, pixel_scale=(1 / 64,) * 3)
    assert losses(full / "patches") == losses(small)
    assert len(losses(full)) == 1
    assert not (full / "training").exists()


@pytest.mark.usefixtures("few_maps")
@pytest.mark.parametrize("epoch", [1, 3])
def test_a_run_interrupted_in_patch_pretraining_or_after_it_ends_as_if_it_had_not_been(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epoch: int
) -> None:
    whole, interrupted = tmp_path / "whole", tmp_path / "interrupted"
    train.main(settings(images, whole, epochs=2, patch_epochs=2))
    left = iter(range(epoch - 1, -1, -1))
    line = train._line

    def interrupt(row: EpochRow, epochs: int) -> str:
        if not next(left, 1):
            raise KeyboardInterrupt
        return line(row, epochs)

    monkeypatch.setattr(train, "_line", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train.main(settings(images, interrupted, epochs=2, patch_epochs=2))
    train.main(settings(images, interrupted, epochs=2, patch_epochs=2))
    for file in (Path("patches/steps.jsonl"), Path("steps.jsonl")):
        assert losses(interrupted, str(file)) == losses(whole, str(file))
    assert (interrupted / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


@pytest.mark.usefixtures("few_maps")
def test_other_settings_are_refused_by_name_while_training_and_after(images: Path, tmp_path: Path) -> None:
    train.main(settings(images, tmp_path))
    with pytest.raises(Mismatch, match=r"lr=0\.02, not 0\.5"):
        train.main(settings(images, tmp_path, lr=0.5))
    train.main(settings(images, tmp_path))


@pytest.mark.usefixtures("few_maps")
def test_patch_pretraining_does_not_go_on_for_other_epochs_and_names_their_option(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(row: EpochRow, epochs: int) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train, "_line", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train.main(settings(images, tmp_path / "m", epochs=1, patch_epochs=2))
    with pytest.raises(Mismatch, match="patch_epochs=2, not 3"):
        train.main(settings(images, tmp_path / "m", epochs=1, patch_epochs=3))


@pytest.mark.usefixtures("few_maps")
def test_a_run_does_not_go_on_with_other_photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_photographs(tmp_path / "data", 6)

    def interrupt(*_args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("training.train._line", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train.main(settings(tmp_path / "data", tmp_path / "out"))
    (tmp_path / "data" / "blue").rename(tmp_path / "data" / "zebra")
    with pytest.raises(Mismatch, match="was made with photographs="):
        train.main(settings(tmp_path / "data", tmp_path / "out"))


@pytest.mark.usefixtures("few_maps")
def test_a_loss_that_is_not_finite_stops_before_the_weights(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TrainingDiverged, match="the loss is"):
        train.main(settings(images, tmp_path, lr=1e6, max_gradient=0.0))
    assert not (tmp_path / "model.json").exists()
    state = tmp_path / "training" / "state.safetensors"
    assert not state.exists() or all(t.isfinite().all() for t in load_file(state).values())


@pytest.mark.usefixtures("few_maps")
def test_a_damaged_state_is_named_with_the_remedy(images: Path, tmp_path: Path) -> None:
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "state.safetensors").write_bytes(b"junk" * 10)
    with pytest.raises(Mismatch, match=r"is not a training state of this network.*remove it to start anew"):
        train.main(settings(images, tmp_path))


def test_training_on_one_class_or_none_says_what_is_expected(tmp_path: Path) -> None:
    (tmp_path / "data" / "only").mkdir(parents=True)
    (tmp_path / "data" / "only" / "broken.jpg").write_bytes(b"not an image")
    with pytest.raises(NotReady, match="at least two classes"):
        train.main(settings(tmp_path / "data", tmp_path / "out"))


@pytest.mark.usefixtures("few_maps")
def test_evaluation_without_a_known_class_is_an_error(images: Path, tmp_path: Path) -> None:
    train.main(settings(images, tmp_path / "model", epochs=1))
    (tmp_path / "data" / "unknown").mkdir(parents=True)
    (tmp_path / "data" / "unknown" / "a.jpg").write_bytes((images / "test/red/000.jpg").read_bytes())
    with pytest.raises(NotReady, match="has a class that the model knows"):
        measure(checkpoint.load(tmp_path / "model"), tmp_path / "data", "all")


INTERRUPTED_RUN = """
import os, signal, sys
from training.run import loop
from training import train
from training.network.alexnet import PROFILES, AlexNetConfig
from training.program import run_program
from training.run.recipe import TrainSettings

steps = 0
def interrupted_step(*args):
    global steps
    steps += 1
    if steps == 5:
        os.kill(os.getpid(), signal.SIGINT)
    return step(*args)

step, loop._step = loop._step, interrupted_step
PROFILES["paper"] = AlexNetConfig(maps=(4, 6, 8, 8, 6), hidden=16)
run_program(TrainSettings, train.main, sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.usefixtures("few_maps")
def test_ctrl_c_saves_the_step_and_says_how_to_go_on(images: Path, tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train.main(settings(images, whole, save_minutes=60))
    arguments = [
        "--data",
        str(images),
        "--out",
        str(stopped),
        "--preset",
        "quick",
        "--patch-epochs",
        "0",
        "--epochs",
        "4",
        "--batch-size",
        "8",
    ]
    arguments += ["--lr", "0.02", "--save-minutes", "60"]
    run = subprocess.run([sys.executable, "-c", INTERRUPTED_RUN, *arguments], check=False, capture_output=True, text=True)
    assert run.returncode == 130
    assert "interrupted; the same command goes on where this one stopped" in run.stderr
    assert losses(stopped, "steps.jsonl") == losses(whole, "steps.jsonl")[:5]
    train.main(settings(images, stopped))
    assert losses(stopped, "steps.jsonl") == losses(whole, "steps.jsonl")
    assert (stopped / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


FULL_DISK = """
import resource, sys
from training import train
from training.network.alexnet import PROFILES, AlexNetConfig
from training.program import run_program
from training.run.recipe import TrainSettings

resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
PROFILES["paper"] = AlexNetConfig(maps=(4, 6, 8, 8, 6), hidden=16)
run_program(TrainSettings, train.main, sys.argv[2:])
"""


@pytest.mark.slow
@pytest.mark.usefixtures("few_maps")
def test_a_file_that_cannot_grow_is_named_and_the_last_good_state_survives(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("training.train._line", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train.main(settings(images, tmp_path, epochs=2))
    state = tmp_path / "training" / "state.safetensors"
    before = state.read_bytes()
    arguments = [
        "--data",
        str(images),
        "--out",
        str(tmp_path),
        "--preset",
        "quick",
        "--patch-epochs",
        "0",
        "--epochs",
        "2",
        "--batch-size",
        "8",
    ]
    arguments += ["--lr", "0.02", "--save-minutes", "0"]
    script = [sys.executable, "-c", FULL_DISK, str(len(before) // 2), *arguments]
    run = subprocess.run(script, check=False, capture_output=True, text=True)
    assert run.returncode == 1
    assert "state.safetensors" in run.stderr.splitlines()[-1]
    assert state.read_bytes() == before
    train.main(settings(images, tmp_path, epochs=2))
    assert len(losses(tmp_path)) == 2


@pytest.mark.usefixtures("few_maps")
def test_tensorboard_shows_the_rows_of_steps_and_epochs(images: Path, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train.main(settings(images, tmp_path, epochs=2, tensorboard=True))
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    rows = [json.loads(line) for line in (tmp_path / "steps.jsonl").read_text().splitlines()]
    assert [(e.step, pytest.approx(e.value)) for e in events.Scalars("step/loss")] == [
        (i + 1, r["loss"]) for i, r in enumerate(rows)
    ]
    assert [e.value for e in events.Scalars("epoch/loss")] == pytest.approx(losses(tmp_path))


@pytest.mark.usefixtures("few_maps")
def test_held_out_photographs_are_never_trained_on_and_find_the_plateau(images: Path, tmp_path: Path) -> None:
    train.main(settings(images, tmp_path / "start", epochs=16))
    plateau = {"schedule": "plateau", "validation": 0.3, "patience": 1, "epochs": 6, "lr": 1e-7}
    train.main(settings(images, tmp_path, start=tmp_path / "start", **plateau))
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    hashes = [line.split()[0] for line in (tmp_path / "train.sha256").read_text().splitlines()]
    held_out = sum(int(sha256[-16:], 16) < 0.3 * 2**64 for sha256 in hashes)
    record = checkpoint.read_description(tmp_path).training
    assert isinstance(record, TrainingRecord)
    assert (record.held_out, record.photographs) == (held_out, 24 - held_out)
    assert all(0 <= row["top1_error"] <= 1 for row in rows)
    assert rows[-1]["lr"] == pytest.approx(1e-10)  # so small a rate improves nothing: three drops
    train.main(settings(images, tmp_path / "chance", init="paper", **plateau))
    rows = [json.loads(line) for line in (tmp_path / "chance" / "metrics.jsonl").read_text().splitlines()]
    assert [row["lr"] for row in rows] == [1e-7] * 6  # no drop before the error is below that of naming one class


@pytest.mark.usefixtures("few_maps")
def test_a_run_of_too_few_steps_for_the_papers_weights_is_told_before_the_first(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("training.train.train_epoch", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train.main(settings(images, tmp_path, init="paper"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("24 photographs of 3 classes")
    assert lines[1].startswith("warning: this run makes 12 steps (4 epochs of 3), and init=paper needs 10000 or more")


@pytest.mark.usefixtures("few_maps")
def test_a_started_run_keeps_frozen_layers_and_takes_new_classes(images: Path, tmp_path: Path, model: Path) -> None:
    (tmp_path / "two" / "a").parent.mkdir()
    for name in ("blue", "red"):
        (tmp_path / "two" / name).symlink_to(images / "train" / name)
    train.main(settings(tmp_path / "two", tmp_path / "out", start=model, frozen=("conv1", "fc6"), epochs=1))
    before, after = load_file(model / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    assert after["fc8.weight"].shape == (2, 32)
    for layer in ("conv1", "fc6"):
        assert torch.equal(before[f"{layer}.weight"], after[f"{layer}.weight"])
    assert not torch.equal(before["conv2.weight"], after["conv2.weight"])
    assert torch.equal(before["preprocess.mean"], after["preprocess.mean"])


def damage_after(epochs: int, damage: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Has `damage` done once so many epochs are over."""
    line = train._line

    def and_damage(row: EpochRow, total: int) -> str:
        if row.epoch == epochs:
            damage()
        return line(row, total)

    monkeypatch.setattr("training.train._line", and_damage)


@pytest.mark.usefixtures("few_maps")
def test_a_photograph_that_is_damaged_in_epoch_3_is_skipped_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_photographs(tmp_path / "data" / "train", 6)
    victim = tmp_path / "data" / "train" / "green" / "002.jpg"
    damage_after(2, lambda: victim.write_bytes(victim.read_bytes()[:100]), monkeypatch)
    train.main(settings(tmp_path / "data", tmp_path / "out", keep="never"))
    rows = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert [row["skipped"] for row in rows] == [0, 0, 1, 1]
    assert "skipped train/green/002.jpg: damaged or truncated image" in "".join(capsys.readouterr())


@pytest.mark.usefixtures("few_maps")
def test_a_data_set_that_vanishes_ends_the_run_and_it_goes_on_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, away = tmp_path / "data", tmp_path / "away"
    write_photographs(data / "train", 6)
    with monkeypatch.context() as patch:
        damage_after(2, lambda: data.rename(away), patch)
        with pytest.raises(NotReady, match=r"data is gone; bring it back, and the same command goes on"):
            train.main(settings(data, tmp_path / "out", keep="never"))
    away.rename(data)
    train.main(settings(data, tmp_path / "out", keep="never"))
    assert len(losses(tmp_path / "out")) == 4


@pytest.mark.usefixtures("few_maps")
@pytest.mark.parametrize("share", [0.0001, 0.9999])
def test_a_share_that_holds_out_none_or_all_is_refused_before_the_first_step(images: Path, tmp_path: Path, share: float) -> None:
    with pytest.raises(BadValue, match=r"validation must be a share that leaves photographs on both sides \(it holds out"):
        train.main(settings(images, tmp_path, schedule="plateau", validation=share))


@pytest.mark.usefixtures("few_maps")
def test_a_run_goes_on_only_from_the_photographs_and_the_model_that_it_began_with(
    images: Path, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_args: object) -> None:
        raise KeyboardInterrupt

    median = sorted(path.stat().st_size for path in (images / "train").rglob("*.jpg"))[12]
    start = tmp_path / "start"
    shutil.copytree(model, start)
    monkeypatch.setattr("training.train._line", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train.main(settings(images, tmp_path / "out", start=start))
    with pytest.raises(Mismatch, match="was made with photographs="):
        train.main(settings(images, tmp_path / "out", start=start, max_image_bytes=median))
    net = AlexNet(SmallConfig(classes=3))
    initialise(net, "fan-in", seed=2)
    shutil.rmtree(start)
    checkpoint.save(start, net, ["a", "b", "c"], torch.full((3, 256, 256), 90.0))
    with pytest.raises(Mismatch, match="was made with start_model="):
        train.main(settings(images, tmp_path / "out", start=start))


@pytest.mark.usefixtures("few_maps")
def test_held_out_photographs_that_are_gone_are_no_perfect_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_photographs(tmp_path / "data" / "train", 8)

    def remove_held_out() -> None:
        for path in (tmp_path / "data").rglob("*.jpg"):
            if int(hashlib.sha256(path.read_bytes()).hexdigest()[-16:], 16) < 0.4 * 2**64:
                path.unlink()

    damage_after(1, remove_held_out, monkeypatch)
    with pytest.raises(FC7Error, match=r"held-out photographs could not be read"):
        train.main(settings(tmp_path / "data", tmp_path / "out", keep="never", validation=0.4))


@pytest.mark.usefixtures("few_maps")
def test_weights_that_are_not_finite_are_never_written(images: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingDiverged, match="is not finite"):
        train.main(settings(images, tmp_path, epochs=1, batch_size=1000, lr=3e38, weight_decay=1000, max_gradient=0))
    assert not (tmp_path / "model.json").exists()


def test_training_does_not_write_among_the_photographs_it_reads(tmp_path: Path) -> None:
    write_photographs(tmp_path / "flat", 2)
    with pytest.raises(BadValue, match="out must be a folder outside data="):
        train.main(settings(tmp_path / "flat", tmp_path / "flat" / "model"))


ON_RANKS = """
import sys
from training import train
from training.network.alexnet import PROFILES, AlexNetConfig
from training.program import run_program
from training.run.recipe import TrainSettings

PROFILES["paper"] = AlexNetConfig(maps=(4, 6, 8, 8, 6), hidden=16)
run_program(TrainSettings, train.main, sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.usefixtures("few_maps")
def test_two_pairs_of_ranks_train_as_one_device_does(images: Path, tmp_path: Path) -> None:
    whole, moved = tmp_path / "whole", tmp_path / "moved"
    same = {"precision": "float32", "validation": 0.2, "schedule": "plateau", "batch_size": 5, "conv1_whitening": 0.25}
    train.main(settings(images, whole, epochs=3, **same))
    arguments = [
        "--data",
        str(images),
        "--out",
        str(moved),
        "--preset",
        "quick",
        "--patch-epochs",
        "0",
        "--epochs",
        "3",
        "--batch-size",
        "5",
        "--lr",
        "0.02",
    ]
    arguments += ["--precision", "float32", "--validation", "0.2", "--schedule", "plateau", "--save-minutes", "0"]
    arguments += ["--conv1-whitening", "0.25"]
    ranks = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "4", "--no-python", sys.executable]
    run = subprocess.run([*ranks, "-c", ON_RANKS, *arguments], check=False, capture_output=True, text=True, timeout=200)
    assert run.returncode == 0, run.stderr
    assert "4 ranks: 2 x 2, on cpu" in run.stdout
    assert "between the columns, an image and step: 20.0 kB" in run.stdout
    # one epoch and more: later, a value at the kink of a ReLU falls to the other side, here and there
    assert losses(moved, "steps.jsonl")[:7] == pytest.approx(losses(whole, "steps.jsonl")[:7], rel=1e-5)
    first, other = (json.loads((out / "metrics.jsonl").read_text().splitlines()[0]) for out in (whole, moved))
    assert (other["top1_error"], other["validation_loss"]) == pytest.approx(
        (first["top1_error"], first["validation_loss"]), rel=1e-5
    )
    assert {name: t.shape for name, t in load_file(moved / "model.safetensors").items()} == {
        name: t.shape for name, t in load_file(whole / "model.safetensors").items()
    }
