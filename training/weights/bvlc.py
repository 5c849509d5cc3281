"""Published weights of Caffe's BVLC AlexNet, as ONNX files hold them -> profile `caffe`.

The ONNX model zoo's bvlcalexnet-*.onnx came from Caffe by way of Caffe2. Its network takes 224 pixels, not the 227 that the
weights were trained at, and rounds conv1 and the first two pools down: 54, 26, 12 and 6 positions, where Caffe has 55, 27, 13
and 6. What is read here is what a file says, so the features are the file's own.

The zoo's page says nothing of channel order or mean. Caffe's networks take blue, green, red, and OpenVINO's page on the same
model gives the mean as (104, 117, 123) in that order, the training images' mean rounded; both are assumed of every file. Our
networks take red, green, blue, so the channels of conv1's kernels are turned round.
"""

from pathlib import Path
from typing import Final

from training.errors import Mismatch
from training.network.alexnet import KERNELS, LAYERS, PROFILES, AlexNetConfig
from training.weights.onnx_chain import Chain
from training.weights.published import NamedTensors, PublishedWeights, check_tensors, config_for, count

_MEAN: Final = (123.0, 117.0, 104.0)  # red, green, blue
_CAFFE: Final = PROFILES["caffe"]


def read_onnx(path: Path) -> PublishedWeights:
    """BVLC's AlexNet from an .onnx file; maps, hidden units and classes follow from its shapes, the input size from its input.

    Raises NotReady without the package onnx, and Mismatch, naming node and value, where the graph is another network.
    """
    chain = Chain(path)
    shape = chain.input_shape()
    if len(shape) != 4 or shape[1:] not in ([3, 224, 224], [3, 227, 227]):
        raise Mismatch(f"the input of {path} has the shape {shape}, expected [n, 3, 224, 224] or [n, 3, 227, 227]")
    named: NamedTensors = {}
    floor = []
    size = 1 + (shape[2] - KERNELS[0]) // 4
    for layer in (1, 2, 3, 4, 5):
        named |= _convolution(chain, layer)
        chain.take("Relu")
        if layer in _CAFFE.lrn_after:
            # ONNX divides alpha by size
            n = _CAFFE.lrn_size
            chain.take("LRN", size=n, alpha=n * _CAFFE.lrn_alpha, beta=_CAFFE.lrn_beta, bias=_CAFFE.lrn_k)
        if layer in (1, 2, 5):
            size, most = _pool(chain, size), 1 + -(-(size - 3) // 2)
            if size > most:
                raise Mismatch(f"the pooling after conv{layer} of {path} gives {size} positions, expected at most {most}")
            floor += [layer] if size < most else []
    _flatten(chain)
    for layer in (6, 7, 8):
        named |= _linear(chain, layer)
        if layer < 8:
            chain.take("Relu")
    if chain.next_is("Softmax"):
        chain.take("Softmax", axis=(1, -1))
    chain.finish()
    config = config_for(path, _config(path, named), input_size=shape[2], pool_floor=tuple(floor))
    tensors = check_tensors(path, config, named)
    tensors["conv1.weight"] = tensors["conv1.weight"].flip(1)
    note = (
        f"BVLC's AlexNet from ONNX, {shape[2]} pixels: conv1's channels turned from BGR to RGB; mean (104, 117, 123) BGR assumed"
    )
    return PublishedWeights(config, tensors, _MEAN, note)


def _config(path: Path, named: NamedTensors) -> AlexNetConfig:
    units = [count(path, *named[f"{layer}.bias"]) for layer in LAYERS]
    for layer, width in zip(LAYERS[:7], units[:7], strict=True):
        if width % 2:
            raise Mismatch(f"{named[f'{layer}.bias'][0]} of {path} has {width} values, which two columns cannot share")
    maps = tuple(width // 2 for width in units[:5])
    return config_for(path, _CAFFE, maps=maps, hidden=units[6] // 2, classes=units[7])


def _convolution(chain: Chain, layer: int) -> NamedTensors:
    kernel = KERNELS[layer - 1]
    pad, stride = (0, 4) if layer == 1 else (kernel // 2, 1)
    weights, _ = chain.take(
        "Conv",
        kernel_shape=[kernel, kernel],
        strides=[stride, stride],
        pads=[pad] * 4,
        group=2 if layer in (2, 4, 5) else 1,
    )
    return _pair(chain, f"conv{layer}", weights)


def _pool(chain: Chain, size: int) -> int:
    """Positions after pooling. Zeros on the right and bottom count as less than anything, so they only add a cut window."""
    _, pool = chain.take("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=([0] * 4, [0, 0, 1, 1]), ceil_mode=(0, 1))
    left: int = size + pool["pads"][2] - 3
    return 1 + (-(-left // 2) if pool["ceil_mode"] else left // 2)


def _flatten(chain: Chain) -> None:
    if chain.next_is("Flatten"):
        chain.take("Flatten")
        return
    others, _ = chain.take("Reshape")
    shape = chain.integers("".join(others))
    if len(shape) != 2 or shape[1] == 0 or shape.count(-1) > 1:
        raise Mismatch(f"the reshaping before fc6 of {chain.path} is to {shape}, expected [n, values]")


def _linear(chain: Chain, layer: int) -> NamedTensors:
    if chain.next_is("Gemm"):
        weights, gemm = chain.take("Gemm", transB=(0, 1), broadcast=(0, 1))
        pair = _pair(chain, f"fc{layer}", weights)
        return pair if gemm["transB"] else _turn(pair, f"fc{layer}.weight")
    weights, _ = chain.take("MatMul")
    bias, _ = chain.take("Add")
    return _turn(_pair(chain, f"fc{layer}", weights + bias), f"fc{layer}.weight")


def _turn(pair: NamedTensors, name: str) -> NamedTensors:
    theirs, tensor = pair[name]
    return {**pair, name: (theirs, tensor.mT if tensor.ndim == 2 else tensor)}


def _pair(chain: Chain, layer: str, names: list[str]) -> NamedTensors:
    if len(names) != 2:
        raise Mismatch(f"{layer} of {chain.path} has {len(names)} inputs besides the value, expected a weight and a bias")
    return {f"{layer}.weight": chain.weights(names[0]), f"{layer}.bias": chain.weights(names[1])}
