"""Numbers that stay as they are, whatever is rewritten: what tests/golden holds."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from tests.conftest import encoded, write_squares
from training import checkpoint, train
from training.images.preprocess import ImageLimits, decode
from training.run.recipe import TrainSettings

GOLDEN = Path(__file__).parent / "golden"
# Shares of a loss: instruction sets and numbers of threads make 8e-7, a tie that falls otherwise 3e-4; a weight decay that is a
# tenth less 4e-3, a learning rate that is a hundredth more 1e-2
LOSS_TOLERANCE = 5e-4
# Instruction sets make 2e-6; PyTorch's resampling in place of Pillow's 6e-3, one level of brightness 2e-2, BICUBIC 4e-2, bilinear
# without averaging 6e-2, a square one pixel off 0.13, NEAREST 0.18, a view one pixel off 0.26
FC7_TOLERANCE = 1e-3


def golden(name: str) -> Any:
    return json.loads((GOLDEN / name).read_text())


@pytest.mark.usefixtures("few_maps")
def test_the_first_20_losses(tmp_path: Path) -> None:
    write_squares(tmp_path / "data" / "train", 7)
    fixed = {"data": tmp_path / "data", "out": tmp_path / "out", "precision": "float32"}
    train.main(TrainSettings.model_validate({**fixed, **golden("loss.json")["settings"]}))
    losses = [json.loads(line)["loss"] for line in (tmp_path / "out" / "steps.jsonl").read_text().splitlines()]
    np.testing.assert_allclose(losses[:20], golden("loss.json")["losses"], rtol=LOSS_TOLERANCE)


def scene() -> NDArray[np.uint8]:
    """Rings that grow finer towards the edge, in three colours, off the middle: (360, 500, 3)."""
    y, x = np.mgrid[:360, :500].astype(np.int64)
    square = (x - 230) ** 2 + (y - 150) ** 2
    return np.stack([(square // (90 + 40 * channel) + 50 * channel) % 256 for channel in range(3)], 2).astype(np.uint8)


def test_fc7_of_a_photograph(model: Path) -> None:
    drawn_from_a_seed = replace(checkpoint.load(model), mean_CHW=torch.linspace(90, 140, 256).expand(3, 256, 256))
    pixels_CHW = decode(encoded(Image.fromarray(scene()), "PNG"), ImageLimits()).pixels_CHW
    features = drawn_from_a_seed.fc7(pixels_CHW[None])[0].numpy()
    np.testing.assert_allclose(features, golden("fc7.json")["features"], rtol=0, atol=FC7_TOLERANCE)
