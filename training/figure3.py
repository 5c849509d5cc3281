"""Figure 3 of the paper, and whether its columns differ: `python -m training.figure3 --data photos --out DIR`."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from pydantic import Field
from pydantic_settings import SettingsConfigDict

from training import checkpoint
from training.analysis import arms, kernels, pictures
from training.analysis.arms import Layer
from training.files import exclusively, replacing, write_bytes, write_text
from training.images.folders import check_outside, list_examples
from training.images.preprocess import ImageLimits
from training.images.squares import lend_squares, prepare_squares
from training.network.alexnet import AlexNet
from training.network.initialisation import initialise
from training.program import Settings, machine, run_program
from training.run.recipe import TrainSettings
from training.run.several import Runs

PICTURE: Final = "figure3.png"
REPORT: Final = "figure3.json"
WORK: Final = "training"
# What each control changes: nothing that columns say to each other can part them here
CONTROLS: Final[dict[str, dict[str, Any]]] = {
    "no-exchange": {"exchange": False},
    "one-column": {"columns": 1, "hidden": 1024},  # as many units as two columns of 512
}


class Figure3Settings(Settings):
    """Train first layers like figure 3 of the paper, draw them, and say whether their columns differ.

    The preset figure3 of training.train is trained with seeds 0, 1, 2, ... in OUT/seed-0, OUT/seed-1 and so on, as many at a time
    as there are cores. Trained networks are kept, and interrupted ones go on. The results:

    OUT/figure3.png: the kernels of seed 0, whatever they look like; OUT/seed-0.png, OUT/seed-1.png, ...: those of every seed.
    OUT/figure3.json: statistics of the kernels of every seed, beside those of white noise and of the layer that it began with,
    and what tells the columns apart.

    With --controls the same is measured where nothing that columns say to each other can part them: columns that never talk, and
    one column split in half. That takes three times as long.
    """

    model_config = SettingsConfigDict(cli_prog_name="python -m training.figure3")
    resumes = True

    data: Path = Field(Path("var/images"), description="image folder to train on")
    out: Path = Field(Path("var/figure3"), description="folder for pictures, figures and trained networks")
    seeds: int = Field(3, ge=1, le=1000, description="how many networks to train, with seeds from 0 on")
    controls: bool = Field(False, description="train the controls too")
    epochs: int | None = Field(
        None, ge=1, le=2**31 - 1, description="passes over the training part; the preset's where not given"
    )


@dataclass(frozen=True)
class Training:
    """One network to train."""

    arm: str
    seed: int
    given: dict[str, Any]  # settings beside the preset's

    @property
    def name(self) -> str:
        """As messages and folders have it."""
        return arms.name(self.arm, self.seed)

    @property
    def settings(self) -> TrainSettings:
        """What training.train makes of what is given."""
        return TrainSettings(preset="figure3", **self.given)

    @property
    def options(self) -> list[str]:
        """What is given, on the command line of training.train."""
        words = ["--preset", "figure3"]
        for name, value in self.given.items():
            words += [f"--no-{name}"] if value is False else [f"--{name}", str(value)]
        return words


def main(settings: Figure3Settings) -> None:
    """Trains what is not trained yet, and then draws and measures all of it."""
    check_outside("out", settings.out, settings.data)
    trainings = [
        Training(arm, seed, _given(settings, arm, seed))
        for arm in (arms.FIGURE, *(CONTROLS if settings.controls else ()))
        for seed in range(settings.seeds)
    ]
    work = settings.out / WORK
    with exclusively(settings.out):
        _lend_squares(trainings, work)
        Runs({training.name: training.options for training in trainings}, work).finish()
        shutil.rmtree(work)
        layers = [_trained(training) for training in trainings]
        layers += [_untrained(training) for training in trainings if training.arm == arms.FIGURE]
        _report(layers, settings.out)


def _given(settings: Figure3Settings, arm: str, seed: int) -> dict[str, Any]:
    epochs = {} if settings.epochs is None else {"epochs": settings.epochs}
    folders = {"data": settings.data, "out": settings.out / arms.name(arm, seed)}
    return {**folders, "seed": seed, **epochs, **CONTROLS.get(arm, {})}


def _lend_squares(trainings: Sequence[Training], folder: Path) -> None:
    """Decodes the photographs once, on every core, for all networks that are still to train."""
    left = [settings for training in trainings if not ((settings := training.settings).out / checkpoint.DESCRIPTION).is_file()]
    if left:
        data, limits = left[0].data, ImageLimits.model_validate(left[0], from_attributes=True)
        prepare_squares(data, list_examples(data, "train"), folder, limits, left[0].keep)
        for settings in left:
            lend_squares(folder, settings.out / WORK)


def _trained(training: Training) -> Layer:
    """The first layer of a trained network, drawn beside its folder."""
    folder = training.settings.out
    net = checkpoint.load(folder).net
    write_bytes(folder.with_suffix(".png"), pictures.png(pictures.figure3(net.conv1.weight, net.config.columns)))
    return _layer(training.arm, training.seed, net)


def _untrained(training: Training) -> Layer:
    """The first layer that a network began with."""
    settings = training.settings
    net = AlexNet(settings.network(classes=1))
    initialise(net, settings.init, settings.seed, settings.conv1_std)
    return _layer(arms.UNTRAINED, training.seed, net)


def _layer(arm: str, seed: int, net: AlexNet) -> Layer:
    columns = net.config.columns
    return Layer(arm, seed, columns, kernels.figures(net.conv1.weight.detach(), columns))


def _report(layers: Sequence[Layer], out: Path) -> None:
    figures = layers, arms.comparisons(layers), kernels.noise(3, 11, 11)
    described = {"format": 1, "machine": machine(), "torch": torch.__version__, **arms.described(*figures)}
    write_text(out / REPORT, json.dumps(described, indent=2) + "\n")
    with replacing(out / PICTURE) as path:
        shutil.copyfile(out / f"{arms.name(arms.FIGURE, 0)}.png", path)
    print("\n".join(arms.shown(*figures)))
    print(f"{out / PICTURE}, {out / REPORT}")


if __name__ == "__main__":
    run_program(Figure3Settings, main)
