"""The command of the first layer: its table, its pictures, its JSON, and what it says of noise and of wrong names."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import SmallConfig
from tests.training.analysis.made import bars
from training import checkpoint, filters
from training.errors import BadValue
from training.filters import FiltersSettings
from training.network.alexnet import AlexNet
from training.program import parse


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A small model: noise in column 0, bars in column 1."""
    net = AlexNet(SmallConfig(classes=3))
    noise = np.random.default_rng(0).standard_normal((4, 3, 11, 11))
    learned = np.stack([bars(0.1, 45 * i, (1.0, 0.5, 0.2)) for i in range(4)])
    with torch.no_grad():
        net.conv1.weight.copy_(torch.from_numpy(np.concatenate([noise, learned])))
    checkpoint.save(tmp_path / "model", net, ["a", "b", "c"], torch.full((3, 256, 256), 110.0))
    return tmp_path / "model"


def test_the_table_has_both_columns_and_noise(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    filters.main(FiltersSettings(model=model, json_out=tmp_path / "figures.json"))
    verdict, _, head, *lines = capsys.readouterr().out.splitlines()
    assert (
        verdict == "What the first layer has learned: 4 of 8 are structured and 4 are Gabor functions, of white noise 0% and 0%."
    )
    assert head.split() == ["column", "0", "column", "1", "both", "white", "noise"]
    rows = {line.split()[0]: line.split()[1:] for line in lines}
    assert rows["structured"] == ["0", "4", "4", "0.0%"]
    assert rows["chroma"][3] == "0.667"
    written = json.loads((tmp_path / "figures.json").read_text())
    assert written["verdict"] == verdict
    assert [round(kernel["orientation"] / 45) % 4 for kernel in written["kernels"][4:]] == [0, 1, 2, 3]
    assert written["columns"][1]["counts"]["structured"] == 4
    assert written["noise"]["ranges"]["chroma"]["mean"] == pytest.approx(2 / 3, abs=0.01)


def test_pictures_are_written_in_the_form_that_their_name_asks_for(model: Path, tmp_path: Path) -> None:
    for name in ("figure3.png", "figure3.svg"):
        filters.main(FiltersSettings(model=model, out=tmp_path / name, scale=3, order="norm"))
    with Image.open(tmp_path / "figure3.png") as picture:
        assert picture.size == ((4 * 12 + 1) * 3, (2 * 12 + 3) * 3)
    assert (tmp_path / "figure3.svg").read_text().startswith('<svg xmlns="http://www.w3.org/2000/svg" width="147" height="81"')
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figure3.png", "figure3.svg", "model"]


@pytest.mark.parametrize(
    ("option", "value"), [("--out", "figure3.jpg"), ("--scale", "33"), ("--order", "hue"), ("--channel", "x")]
)
def test_a_wrong_option_is_named(option: str, value: str) -> None:
    with pytest.raises(BadValue, match=f"{option.removeprefix('--')} must be .*{value}"):
        parse(FiltersSettings, [option, value])
