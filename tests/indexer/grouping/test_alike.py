"""Whether two thumbnails show one photograph is told by their pixels."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from indexer.grouping import alike
from indexer.grouping.alike import correlation, look_of
from tests.conftest import encoded

SIDE = 160


def picture(seed: int) -> Image.Image:
    """Blots of many sizes, as in photographs."""
    rng = np.random.default_rng(seed)
    pixels = np.full((SIDE, SIDE, 3), 128.0)
    for side in (5, 10, 20, 40):
        coarse = Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        pixels += (np.asarray(coarse, np.float64) - 128) / 2
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def cropped(share: float) -> Callable[[Image.Image], Image.Image]:
    start = round(share * SIDE)
    return lambda image: image.crop((start, start, SIDE, SIDE)).resize((SIDE, SIDE))


@pytest.mark.parametrize(
    "change",
    [
        lambda image: Image.open(io.BytesIO(encoded(image, quality=30))),
        lambda image: image.resize((60, 60)).resize((SIDE, SIDE)),
        lambda image: ImageEnhance.Brightness(image).enhance(1.2),
        cropped(0.02),
        cropped(0.1),
    ],
    ids=["recompressed", "scaled", "brighter", "2 % cropped off", "10 % cropped off"],
)
def test_a_changed_photograph_is_known_again_and_another_is_not(change: Callable[[Image.Image], Image.Image]) -> None:
    original = picture(0)
    one, copy, other = (look_of(encoded(image)) for image in (original, change(original), picture(1)))
    for pair in ((one, copy), (copy, one)):
        assert correlation(*pair) >= alike.ALIKE
    for pair in ((one, other), (other, one), (copy, other)):
        assert correlation(*pair) < alike.ALIKE - 0.3


def test_a_correlation_is_that_of_the_place_where_it_is_best() -> None:
    one, other = look_of(encoded(picture(2))), look_of(encoded(picture(3)))
    [template] = one.templates_TP[4:5]
    best = -1.0
    for top in range(64 - 44 + 1):
        for left in range(64 - 44 + 1):
            place = other.whole_HW[top : top + 44, left : left + 44].reshape(-1)
            best = max(best, float(np.corrcoef(template, place)[0, 1]))
    alone = alike.Look(one.templates_TP[4:5], one.whole_HW)
    assert correlation(alone, other) == pytest.approx(best, abs=1e-4)


def test_plain_surfaces_are_not_taken_for_each_other() -> None:
    noise = np.random.default_rng(0).integers(0, 3, (SIDE, SIDE), np.uint8)
    plain, lighter = (look_of(encoded(Image.fromarray(noise + grey), quality=95)) for grey in (np.uint8(90), np.uint8(200)))
    assert correlation(plain, lighter) < alike.ALIKE / 2
    assert correlation(plain, plain) < alike.ALIKE / 2
