"""Overlays lie where the grid does, in the colour of the sign; the ten views are the very crops."""

import numpy as np
import torch

from training.analysis import overlays
from training.images.preprocess import TEN_VIEWS


def test_an_overlay_is_warm_above_0_cold_below_and_clear_outside_the_view() -> None:
    heat = np.zeros((8, 8))
    heat[1, 1], heat[6, 5] = 2.0, -1.0
    pixels = np.asarray(overlays.overlay(heat, (1 / 16, 1 / 16, 15 / 16, 15 / 16)))
    assert pixels.shape == (256, 256, 4)
    hot, cold = pixels[16 + 28 + 14, 16 + 28 + 14], pixels[16 + 6 * 28 + 14, 16 + 5 * 28 + 14]
    assert tuple(hot[:3]) == overlays.WARM
    assert tuple(cold[:3]) == overlays.COLD
    assert hot[3] > cold[3] > 0
    assert not pixels[:16, :, 3].any()
    assert not pixels[:, 240:, 3].any()


def test_no_heat_at_all_is_clear() -> None:
    assert not np.asarray(overlays.overlay(np.zeros((8, 8)), (0, 0, 1, 1)))[..., 3].any()


def test_the_ten_views_are_the_crops_that_the_network_gets() -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (3, 256, 256), dtype=np.uint8)
    picture = np.asarray(overlays.ten_crops(torch.from_numpy(pixels), 224, 256))
    corners = {"top left": (0, 0), "top right": (0, 32), "bottom left": (32, 0), "bottom right": (32, 32), "centre": (16, 16)}
    for number, (corner, mirrored) in enumerate(TEN_VIEWS):
        left, top, right, bottom = overlays.crop_box(number, 224)
        down, across = corners[corner]
        crop = pixels[:, down : down + 224, across : across + 224].transpose(1, 2, 0)
        np.testing.assert_array_equal(picture[top:bottom, left:right], crop[:, ::-1] if mirrored else crop)
