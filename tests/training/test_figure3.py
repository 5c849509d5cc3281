"""Figure 3 by one command: what is trained and what is kept, the picture and the figures that it leaves."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import SmallConfig
from training import checkpoint, figure3
from training.errors import BadValue
from training.figure3 import Figure3Settings, Training
from training.network.alexnet import AlexNet
from training.network.initialisation import initialise
from training.program import parse
from training.run.recipe import TrainSettings

MAPS = (8, 6, 8, 8, 6)


class FakeRuns:
    """Random networks in place of training; what is trained already is left, as training.train does."""

    trained: list[str]

    def __init__(self, options: Mapping[str, Sequence[str]], logs: Path) -> None:
        logs.mkdir(exist_ok=True)
        self.options = options

    def finish(self) -> None:
        """Writes the models."""
        for name, options in self.options.items():
            settings = parse(TrainSettings, options)
            assert settings.preset == "figure3"
            if not (settings.out / checkpoint.DESCRIPTION).is_file():
                assert (settings.out / "training" / "squares.u8").stat().st_nlink > 1
                net = AlexNet(SmallConfig(classes=3, maps=MAPS, columns=settings.columns or 2))
                initialise(net, "fan-in", settings.seed + 10)
                checkpoint.save(settings.out, net, ["a", "b", "c"], torch.zeros(3, 256, 256))
                FakeRuns.trained.append(name)


@pytest.fixture(autouse=True)
def fake_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """No training, and a small network to begin with."""
    FakeRuns.trained = []
    monkeypatch.setattr(figure3, "Runs", FakeRuns)
    monkeypatch.setattr(TrainSettings, "network", lambda _self, classes: SmallConfig(classes=classes, maps=MAPS))


def settings(images: Path, out: Path, *options: str) -> Figure3Settings:
    return parse(Figure3Settings, ["--data", str(images), "--out", str(out), *options])


def test_what_is_given_reaches_training_as_it_is_understood_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    for name, changes in figure3.CONTROLS.items():
        training = Training(name, 7, {"data": tmp_path, "out": tmp_path / name, "seed": 7, "epochs": 2, **changes})
        found = parse(TrainSettings, training.options)
        assert found == training.settings
        assert (found.preset, found.seed, found.epochs) == ("figure3", 7, 2)
    network = TrainSettings(preset="figure3").network(100)
    silent, alone = (TrainSettings(preset="figure3", **changes).network(100) for changes in figure3.CONTROLS.values())
    assert (network.exchange, network.columns) == (True, 2)
    assert silent == network.with_fields(exchange=False)
    assert alone.columns == 1
    assert alone.fc7_width == network.fc7_width


def test_the_picture_is_the_first_seeds_and_the_figures_are_of_all(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    figure3.main(settings(images, out, "--seeds", "2", "--controls"))
    names = [f"{arm}seed-{seed}" for arm in ("", "no-exchange-", "one-column-") for seed in range(2)]
    assert FakeRuns.trained == names
    found = json.loads((out / "figure3.json").read_text())
    assert [(one["arm"], one["seed"]) for one in found["layers"]] == [
        (arm, seed) for arm in ("figure3", "no-exchange", "one-column", "untrained") for seed in range(2)
    ]
    assert [one["all"]["kernels"] for one in found["layers"]] == [16, 16, 16, 16, 8, 8, 16, 16]
    assert (out / "figure3.png").read_bytes() == (out / "seed-0.png").read_bytes()
    weight_KCHW = checkpoint.load(out / "seed-0").net.conv1.weight.detach().numpy()
    top = int((weight_KCHW[0, 0, 0, 0] / np.abs(weight_KCHW[0]).max() + 1) * 127.5 + 0.5)
    assert Image.open(out / "figure3.png").convert("RGB").getpixel((7, 7))[0] == pytest.approx(top, abs=1)  # type: ignore[index]
    assert "untrained-seed-1" in capsys.readouterr().out
    assert not (out / "training").exists()


def test_what_is_trained_is_kept_and_more_is_added(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figure3.main(settings(images, tmp_path, "--seeds", "1"))
    before = (tmp_path / "figure3.png").read_bytes()
    figure3.main(settings(images, tmp_path, "--seeds", "2"))
    assert FakeRuns.trained == ["seed-0", "seed-1"]
    assert (tmp_path / "figure3.png").read_bytes() == before
    monkeypatch.setattr(figure3, "prepare_squares", None)  # nothing is decoded where nothing is left to train
    figure3.main(settings(images, tmp_path, "--seeds", "2"))


def test_a_folder_inside_the_data_is_refused(images: Path) -> None:
    with pytest.raises(BadValue, match="out must be a folder outside data="):
        figure3.main(settings(images, images / "train" / "out"))


@pytest.mark.slow
def test_two_seeds_are_trained_and_drawn_by_the_command_itself(images: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "training.figure3",
        "--data",
        str(images),
        "--out",
        str(tmp_path),
        "--seeds",
        "2",
        "--epochs",
        "1",
    ]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "seed-1: epoch 1/1  loss" in run.stdout
    models = [checkpoint.load(tmp_path / f"seed-{seed}") for seed in (0, 1)]
    assert models[0].fingerprint != models[1].fingerprint
    assert all(model.net.config.input_size == 67 for model in models)
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith(".")) == [
        "figure3.json", "figure3.png", "seed-0", "seed-0.png", "seed-1", "seed-1.png",
    ]  # fmt: skip
    other = subprocess.run([*command, "--lr", "1"], check=False, capture_output=True, text=True)
    assert other.returncode == 2
    other = subprocess.run([*command[:-1], "2"], check=False, capture_output=True, text=True)
    assert other.returncode == 1
    assert "was made with epochs=1, not 2" in other.stderr
