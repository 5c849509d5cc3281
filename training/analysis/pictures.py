"""A first layer's kernels as pictures: all of them as figure 3 of the paper, one by itself, and its spectrum.

Sizes are in pixels of a kernel until they are multiplied by a scale.

Legend: K kernels, C channels (RGB), H height, W width, N frequencies from -0.5 to 0.5 cycles a pixel.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from training.analysis.kernels import Kernel

Order = Literal["index", "chroma", "orientation", "frequency", "norm"]
Scaling = Literal["own", "together"]
Channel = Literal["red", "green", "blue"]
PER_ROW: Final = 16
GAP: Final = 1  # around every kernel
LARGEST_SCALE: Final = 32
CHANNELS: Final[tuple[Channel, ...]] = get_args(Channel)
_LINE: Final = 96  # grey, between two columns
_SPECTRUM: Final = 65
_RINGS: Final = (0.25, 0.5)  # cycles a pixel: half of Nyquist's frequency, and Nyquist's
_RING: Final = (64, 96, 128)

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Style:
    """How figure 3 is drawn."""

    order: Order = "index"  # of the kernels within each column
    scaling: Scaling = "own"  # each by its own largest weight, or all together by the largest
    channel: Channel | None = None  # one alone, in grey
    scale: int = 5  # pixels of the picture for each of a kernel


PLAIN: Final = Style()


@dataclass(frozen=True)
class Layout:
    """Where kernels stand in figure 3, left to right and top to bottom, and how large it is."""

    places: tuple[tuple[int, ...], ...]  # the indices of each column's kernels, the column above first
    height: int  # of a kernel
    width: int

    def size(self) -> tuple[int, int]:
        """Height and width of the whole."""
        longest = min(PER_ROW, max(map(len, self.places)))
        rows = sum(-(-len(part) // PER_ROW) for part in self.places)
        return rows * (self.height + GAP) + (2 * len(self.places) - 1) * GAP, longest * (self.width + GAP) + GAP

    def corners(self) -> dict[int, tuple[int, int]]:
        """Top and left of every kernel, by its index."""
        found, top = {}, GAP
        for part in self.places:
            for i, index in enumerate(part):
                row, place = divmod(i, PER_ROW)
                found[index] = top + row * (self.height + GAP), GAP + place * (self.width + GAP)
            top += -(-len(part) // PER_ROW) * (self.height + GAP) + 2 * GAP
        return found

    def lines(self) -> list[int]:
        """The rows of pixels between two columns."""
        tops = [min(self.corners()[index][0] for index in part) for part in self.places]
        return [top - 2 * GAP for top in tops[1:]]


def layout(weight_KCHW: Tensor, columns: int, kernels: Sequence[Kernel] = (), order: Order = "index") -> Layout:
    """Where the kernels of float (K, C, H, W) weights stand: each column's by itself, in order of what `kernels` says of them.

    Chroma, orientation and frequency go upwards, the norm downwards; `index` needs no figures.
    """
    count, _, height, width = weight_KCHW.shape
    parts = np.split(np.arange(count), columns)
    if order != "index":
        values = np.array([getattr(kernel, order) for kernel in kernels]) * (-1 if order == "norm" else 1)
        parts = [part[np.argsort(values[part], kind="stable")] for part in parts]
    return Layout(tuple(tuple(part.tolist()) for part in parts), height, width)


def tiles(weight_KCHW: Tensor, scaling: Scaling = "own", channel: Channel | None = None) -> Pixels:
    """The kernels as pixels (K, H, W, 3) about mid-grey: all three channels, or one of them in grey.

    Each is scaled by its own largest weight, so that form and colour show whatever its strength, or all by the largest of all.
    """
    w_KHWC = weight_KCHW.detach().cpu().double().permute(0, 2, 3, 1).numpy()
    if channel:
        w_KHWC = w_KHWC[..., [CHANNELS.index(channel)]].repeat(3, -1)
    largest = np.abs(w_KHWC).max((1, 2, 3) if scaling == "own" else None, keepdims=True)
    shares = w_KHWC / np.maximum(largest, np.finfo(np.float32).tiny)
    pixels: Pixels = ((shares + 1) * 127.5).round().astype(np.uint8)
    return pixels


def figure3(weight_KCHW: Tensor, columns: int, kernels: Sequence[Kernel] = (), style: Style = PLAIN) -> Image.Image:
    """Figure 3: the kernels of the first column above a line, those of the second below, sixteen to a row, on white.

    Only an order by figures needs `kernels`.
    """
    pixels_KHWC = tiles(weight_KCHW, style.scaling, style.channel)
    places = layout(weight_KCHW, columns, kernels, style.order)
    canvas = np.full((*places.size(), 3), 255, np.uint8)
    for top in places.lines():
        canvas[top : top + GAP] = _LINE
    for index, (top, left) in places.corners().items():
        canvas[top : top + places.height, left : left + places.width] = pixels_KHWC[index]
    return enlarged(canvas, style.scale)


def figure3_svg(weight_KCHW: Tensor, columns: int, kernels: Sequence[Kernel], style: Style, says: str) -> str:
    """The same as SVG, of squares; each kernel has its index as title, the whole what it `says`."""
    pixels_KHWC = tiles(weight_KCHW, style.scaling, style.channel)
    places = layout(weight_KCHW, columns, kernels, style.order)
    height, width = places.size()
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width * style.scale}" height="{height * style.scale}" '
        f'viewBox="0 0 {width} {height}" shape-rendering="crispEdges">',
        f"<desc>{escape(says)}</desc>",
        f'<path fill="#fff" d="M0 0h{width}v{height}H0z"/>',
        *(f'<path fill="#{_LINE:02x}{_LINE:02x}{_LINE:02x}" d="M0 {top}h{width}v{GAP}H0z"/>' for top in places.lines()),
    ]
    for index, (top, left) in places.corners().items():
        parts.append(f'<g transform="translate({left} {top})"><title>{index}</title>')
        for y, row in enumerate(pixels_KHWC[index]):
            parts += [f'<path fill="#{pixel.tobytes().hex()}" d="M{x} {y}h1v1H{x}z"/>' for x, pixel in enumerate(row)]
        parts.append("</g>")
    return "\n".join([*parts, "</svg>\n"])


def spectrum(weight_CHW: Tensor, scale: int = 3) -> Image.Image:
    """The amplitude of a kernel's Fourier transform from -0.5 to 0.5 cycles a pixel, frequency 0 in the middle.

    Red, green and blue are the three channels, scaled by the largest of all; the rings are at 0.25 and 0.5. Its axes are the
    kernel's: where bars are horizontal, what they are made of lies above and below the middle.
    """
    w_CHW = weight_CHW.detach().cpu().double().numpy()
    _, height, width = w_CHW.shape
    frequencies = np.linspace(-0.5, 0.5, _SPECTRUM)
    by_row = np.exp(-2j * np.pi * np.outer(frequencies, np.arange(height)))
    by_column = np.exp(-2j * np.pi * np.outer(np.arange(width), frequencies))
    amplitude_CNN = np.abs(by_row @ w_CHW @ by_column)
    largest = max(float(amplitude_CNN.max()), np.finfo(np.float32).tiny)
    pixels = (amplitude_CNN / largest * 255).round().astype(np.uint8).transpose(1, 2, 0)
    radius = np.hypot(frequencies[:, None], frequencies)
    for ring in _RINGS:
        on_ring = np.abs(radius - ring) < 0.5 / (_SPECTRUM - 1)
        pixels[on_ring] = np.maximum(pixels[on_ring], np.array(_RING, np.uint8))
    return enlarged(pixels, scale)


def enlarged(pixels_HWC: Pixels, scale: int) -> Image.Image:
    """These pixels as a picture, each a square of `scale` x `scale`."""
    return Image.fromarray(pixels_HWC.repeat(scale, 0).repeat(scale, 1))


def png(picture: Image.Image) -> bytes:
    """The picture as a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=3)  # large squares: more effort takes time and saves nothing
    return buffer.getvalue()
