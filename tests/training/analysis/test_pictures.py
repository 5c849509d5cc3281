"""Figure 3: the order of the kernels, their scaling about grey, PNG and SVG alike; a kernel's spectrum has its axes."""

import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

from tests.training.analysis.made import GREY, RED_GREEN, bars
from training.analysis import kernels, pictures
from training.analysis.pictures import Style


def test_kernels_are_laid_out_column_by_column_and_scaled_about_grey() -> None:
    weight = torch.zeros(40, 3, 2, 2)
    weight[0, 0] = 0.5  # red, in the first column's first row
    weight[17] = -2.0  # black, in its second row
    weight[20, :, 0, 0] = 3.0  # one white corner, first of the second column
    picture = np.asarray(pictures.figure3(weight, 2, style=Style(scale=4)))
    assert picture.shape == ((4 * 3 + 3) * 4, (16 * 3 + 1) * 4, 3)
    corner = {name: picture[4 * top : 4 * top + 4, 4 * left : 4 * left + 4] for name, top, left in (
        ("red", 1, 1), ("black", 4, 4), ("line", 7, 0), ("white", 9, 1), ("grey", 9, 2),
    )}  # fmt: skip
    expected = {"red": (255, 128, 128), "black": (0, 0, 0), "line": (96,) * 3, "white": (255,) * 3, "grey": (128,) * 3}
    for name, colour in expected.items():
        assert (corner[name] == colour).all(), name
    assert (picture[4 * 8 : 4 * 9] == 255).all()


def test_all_together_are_scaled_by_the_largest_weight_and_a_channel_by_its_own() -> None:
    weight = torch.zeros(2, 3, 1, 1)
    weight[0] = torch.tensor([1.0, -2.0, 0.5])[:, None, None]
    weight[1, 0] = -4.0
    assert pictures.tiles(weight)[:, 0, 0].tolist() == [[191, 0, 159], [0, 128, 128]]
    assert pictures.tiles(weight, "together")[:, 0, 0].tolist() == [[159, 64, 143], [0, 128, 128]]
    assert pictures.tiles(weight, "together", "green")[:, 0, 0].tolist() == [[0, 0, 0], [128, 128, 128]]
    assert pictures.tiles(weight, "own", "red")[:, 0, 0].tolist() == [[255, 255, 255], [0, 0, 0]]


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("index", ((0, 1, 2), (3, 4, 5))),
        ("chroma", ((0, 2, 1), (3, 5, 4))),
        ("orientation", ((1, 0, 2), (3, 4, 5))),
        ("frequency", ((2, 1, 0), (4, 3, 5))),
        ("norm", ((2, 1, 0), (3, 4, 5))),
    ],
)
def test_each_column_is_in_the_order_that_is_asked_for(order: pictures.Order, expected: tuple[tuple[int, ...], ...]) -> None:
    mixed = (1.0, 0.2, 0.0)
    made = [
        (1 * bars(0.30, 80, GREY)), (2 * bars(0.20, 30, RED_GREEN)), (4 * bars(0.12, 150, mixed)),
        (9 * bars(0.20, 10, GREY)), (6 * bars(0.12, 20, RED_GREEN)), (4 * bars(0.30, 95, mixed)),
    ]  # fmt: skip
    weight = torch.from_numpy(np.stack(made))
    assert pictures.layout(weight, 2, kernels.figures(weight, 2), order).places == expected


def test_svg_has_the_colours_of_the_png_at_the_same_places() -> None:
    weight = torch.randn(6, 3, 2, 3, generator=torch.Generator().manual_seed(0))
    text = pictures.figure3_svg(weight, 2, (), Style(scale=7), "a < b")
    canvas = np.asarray(pictures.figure3(weight, 2, style=Style(scale=1)))
    assert f'width="{7 * canvas.shape[1]}" height="{7 * canvas.shape[0]}"' in text
    assert "<desc>a &lt; b</desc>" in text
    found = np.full_like(canvas, 255)
    line = re.search(r'fill="#606060" d="M0 (\d+)h', text)
    assert line
    found[int(line[1])] = 96
    groups = re.findall(r'translate\((\d+) (\d+)\)"><title>\d+</title>(.*?)</g>', text, re.DOTALL)
    assert len(groups) == 6
    for left, top, squares in groups:
        for colour, x, y in re.findall(r'fill="#(\w{6})" d="M(\d) (\d)h1v1', squares):
            found[int(top) + int(y), int(left) + int(x)] = list(bytes.fromhex(colour))
    np.testing.assert_array_equal(found, canvas)


@pytest.mark.parametrize(("orientation", "where"), [(0, (45, 32)), (90, (32, 45)), (45, (41, 41))])
def test_a_spectrum_is_brightest_across_the_bars_at_their_frequency(orientation: float, where: tuple[int, int]) -> None:
    pixels = np.asarray(pictures.spectrum(torch.from_numpy(bars(0.2, orientation, (1.0, 0.0, 0.5))), scale=1)).astype(int)
    assert pixels.shape == (65, 65, 3)
    np.testing.assert_array_equal(pixels[..., 0], pixels[::-1, ::-1, 0])
    row, column = np.unravel_index(pixels[32:, 32:, 0].argmax(), (33, 33))
    assert np.hypot(row + 32 - where[0], column + 32 - where[1]) <= 1.5
    assert pixels.max((0, 1))[0] == 255
    assert abs(pixels.max((0, 1))[2] - 128) <= 1


def test_a_png_is_the_picture() -> None:
    picture = pictures.enlarged(np.arange(36, dtype=np.uint8).reshape(3, 4, 3), 2)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(pictures.png(picture)))), np.asarray(picture))
