"""What part of a photograph a unit sees: the receptive field of a place in its map."""

from typing import Final

from training.network.alexnet import KERNELS, AlexNetConfig, Layer
from training.network.units import layer_shapes

Box = tuple[int, int, int, int]  # left, top, right and bottom, pixels; the last two are beyond it
_STRIDE: Final = 4  # of conv1


def field(config: AlexNetConfig, layer: Layer, position: int) -> Box:
    """The pixels that can change a unit's activation at a position of its map, counted row by row, within its crop.

    In the square that the centre view is cut from. A unit of a fully connected layer, whose position does not matter, sees the
    whole view.
    """
    start = (config.square_size - config.input_size) // 2
    side = layer_shapes(config)[layer].side
    if not side:
        return start, start, start + config.input_size, start + config.input_size
    top, left = divmod(position, side)
    (low_x, high_x), (low_y, high_y) = (_pixels(config, layer, place) for place in (left, top))
    return start + low_x, start + low_y, start + high_x + 1, start + high_y + 1


def _pixels(config: AlexNetConfig, layer: Layer, place: int) -> tuple[int, int]:
    """The first and the last pixel, along one side of the crop, that a place of a map hears."""
    low = high = place
    for size, stride, pad, inputs in reversed(_steps(config, layer)):
        low = max(0, low * stride - pad)
        high = min(inputs - 1, high * stride - pad + size - 1)
    return low, high


def _steps(config: AlexNetConfig, layer: Layer) -> list[tuple[int, int, int, int]]:
    """The windows between the crop and a layer's sums: size, stride, pad, and how many places they are over along a side."""
    conv1, pool1, pool2, _ = config.sizes()
    pool = config.pool_size, config.pool_stride, 0
    steps = {
        "conv1": [(KERNELS[0], _STRIDE, config.conv1_pad, config.input_size)],
        "conv2": [(*pool, conv1), (KERNELS[1], 1, 2, pool1)],
        "conv3": [*[(5, 1, 2, pool1)] * (2 in config.lrn_after and config.map_norm_alpha > 0), (*pool, pool1), (3, 1, 1, pool2)],
        "conv4": [(3, 1, 1, pool2)],
        "conv5": [(3, 1, 1, pool2)],
    }
    names = list(steps)
    return [step for name in names[: names.index(layer) + 1] for step in steps[name]]
