"""BVLC's AlexNet from ONNX files gives what onnxruntime computes from them; a graph of another network is refused by name."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from training import checkpoint
from training.errors import Mismatch, NotReady
from training.pretrained import PretrainedSettings, main

onnx = pytest.importorskip("onnx", reason="the extra `dev` is not installed: onnx")
runtime = pytest.importorskip("onnxruntime", reason="the extra `dev` is not installed: onnxruntime")
MAPS, HIDDEN, CLASSES = (8, 12, 16, 16, 12), 32, 6  # of both columns


class BVLC:
    """The graph as the model zoo's file writes it, with few maps and random weights; tests change it before it is written.

    `ends` are the zeros right and below that its three pools add.
    """

    def __init__(self, size: int = 224, ends: tuple[int, int, int] = (0, 0, 1), matmul: bool = False) -> None:
        self.draws = np.random.default_rng(0)
        self.size = size
        self.nodes: list[Any] = []
        self.stored: list[Any] = []
        value = "data_0"
        for i, (kernel, group) in enumerate([(11, 1), (5, 2), (3, 1), (3, 2), (3, 2)]):
            layer, pad = f"conv{i + 1}", 0 if i == 0 else kernel // 2
            self._store(layer, (MAPS[i], (3, *MAPS)[i] // group, kernel, kernel), scale=64 if i == 0 else 1)
            stride = 4 if i == 0 else 1
            sizes = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4}
            value = self._node("Conv", [value, f"{layer}_w", f"{layer}_b"], layer, group=group, **sizes)
            value = self._node("Relu", [value], f"relu{i + 1}")
            if i < 2:
                value = self._node("LRN", [value], f"norm{i + 1}", size=5, alpha=1e-4, beta=0.75, bias=1.0)
            if i in (0, 1, 4):
                end = ends[min(i, 2)]
                shape = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, end, end]}
                value = self._node("MaxPool", [value], f"pool{i + 1}", **shape)
        self.stored.append(onnx.numpy_helper.from_array(np.array([1, 36 * MAPS[4]], np.int64), "shape"))
        value = self._node("Reshape", [value, "shape"], "flat")
        for layer, before, units in [("fc6", 36 * MAPS[4], HIDDEN), ("fc7", HIDDEN, HIDDEN), ("fc8", HIDDEN, CLASSES)]:
            self._store(layer, (units, before), turned=matmul)
            if matmul:
                value = self._node("MatMul", [value, f"{layer}_w"], f"{layer}_product")
                value = self._node("Add", [f"{layer}_b", value] if layer == "fc7" else [value, f"{layer}_b"], layer)
            else:
                value = self._node("Gemm", [value, f"{layer}_w", f"{layer}_b"], layer, transB=1)
            if layer != "fc8":
                value = self._node("Relu", [value], f"relu{layer[2]}")
                value = self._node("Dropout", [value], f"drop{layer[2]}")
        self._node("Softmax", [value], "prob")

    def _node(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(onnx.helper.make_node(operator, inputs, [output], output, **attributes))
        return output

    def _store(self, layer: str, shape: tuple[int, ...], scale: float = 1, turned: bool = False) -> None:
        weight = self.draws.normal(0, np.sqrt(2 / np.prod(shape[1:])) / scale, shape).astype(np.float32)
        bias = self.draws.normal(0, 0.1, shape[0]).astype(np.float32)
        weight = np.ascontiguousarray(weight.T) if turned else weight
        self.stored += [onnx.numpy_helper.from_array(weight, f"{layer}_w"), onnx.numpy_helper.from_array(bias, f"{layer}_b")]

    def node(self, name: str) -> Any:
        """The node of that name, to change it."""
        return next(node for node in self.nodes if node.name == name)

    def set(self, name: str, **attributes: Any) -> None:
        """Gives a node attributes."""
        node = self.node(name)
        kept = [a for a in node.attribute if a.name not in attributes]
        del node.attribute[:]
        node.attribute.extend(kept + [onnx.helper.make_attribute(key, value) for key, value in attributes.items()])

    def tensor(self, name: str) -> Any:
        """The stored tensor of that name, to change it."""
        return next(tensor for tensor in self.stored if tensor.name == name)

    def model(self, *outputs: str) -> Any:
        """The model with these outputs."""
        types = onnx.TensorProto.FLOAT
        graph = onnx.helper.make_graph(
            self.nodes,
            "alexnet",
            [onnx.helper.make_tensor_value_info("data_0", types, [1, 3, self.size, self.size])],
            [onnx.helper.make_tensor_value_info(name, types, None) for name in outputs],
            self.stored,
        )
        return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 11)], ir_version=6)

    def write(self, path: Path) -> Path:
        """The file as the zoo publishes it, with one output."""
        path.write_bytes(self.model("prob").SerializeToString())
        return path

    def answers(self, pixels_CHW: NDArray[np.uint8]) -> tuple[torch.Tensor, torch.Tensor]:
        """What onnxruntime makes of one photograph by Caffe's rules: logits and fc7."""
        session = runtime.InferenceSession(self.model("fc8", "relu7").SerializeToString(), providers=["CPUExecutionProvider"])
        start = (256 - self.size) // 2
        crop = pixels_CHW[::-1, start : start + self.size, start : start + self.size].astype(np.float32)
        x = crop - np.array([104, 117, 123], np.float32)[:, None, None]
        logits, fc7 = session.run(None, {"data_0": x[None]})
        return torch.from_numpy(logits[0]), torch.from_numpy(fc7[0])


def convert(path: Path, out: Path) -> checkpoint.Model:
    main(PretrainedSettings(source=str(path), out=out))
    return checkpoint.load(out)


@pytest.mark.parametrize("size", [224, 227])
@pytest.mark.parametrize("ends", [(0, 0, 1), (1, 1, 1)])  # the model zoo's, whose first two pools leave out a window; Caffe's
@pytest.mark.parametrize("matmul", [False, True])
def test_a_graph_gives_onnxruntimes_logits_and_fc7(
    tmp_path: Path, pixels_BCHW: torch.Tensor, size: int, ends: tuple[int, int, int], matmul: bool
) -> None:
    bvlc = BVLC(size, ends, matmul)
    model = convert(bvlc.write(tmp_path / "a.onnx"), tmp_path / "model")
    answers = [bvlc.answers(pixels_CHW.numpy()) for pixels_CHW in pixels_BCHW]
    logits, fc7 = (torch.stack(part) for part in zip(*answers, strict=True))
    assert logits.std(0).min() > 0.01  # photographs differ by far more than the tolerance
    torch.testing.assert_close(model.fc7(pixels_BCHW), fc7, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model.net.fc8(model.fc7(pixels_BCHW)), logits, rtol=1e-4, atol=1e-4)
    assert (model.net.config.profile, model.net.config.input_size) == ("caffe", size)
    assert model.net.config.pool_floor == ((1, 2) if (size, ends) == (224, (0, 0, 1)) else ())


def test_ceil_mode_flatten_and_a_missing_softmax_are_the_same_network(tmp_path: Path, pixels_BCHW: torch.Tensor) -> None:
    bvlc = BVLC(224, (0, 0, 0))
    for name in ("pool1", "pool2", "pool5"):
        bvlc.set(name, ceil_mode=1)
    bvlc.node("flat").op_type = "Flatten"
    del bvlc.node("flat").input[1]
    bvlc.nodes[-1].op_type = "Dropout"
    model = convert(bvlc.write(tmp_path / "a.onnx"), tmp_path / "model")
    expected = BVLC(224, (1, 1, 1)).answers(pixels_BCHW[0].numpy())[1]
    torch.testing.assert_close(model.fc7(pixels_BCHW[:1])[0], expected, rtol=1e-4, atol=1e-4)


def caffenet(bvlc: BVLC) -> None:
    norm, pool = bvlc.node("norm1"), bvlc.node("pool1")
    i = bvlc.nodes.index(norm)
    bvlc.nodes[i], bvlc.nodes[i + 1] = pool, norm
    pool.input[0], norm.input[0], bvlc.node("conv2").input[0] = "relu1", "pool1", "norm1"


def sigmoid(bvlc: BVLC) -> None:
    bvlc.node("relu3").op_type = "Sigmoid"


def past(bvlc: BVLC) -> None:
    bvlc.node("relu4").input[0] = "relu3"


def ends_early(bvlc: BVLC) -> None:
    del bvlc.nodes[-4:]


def goes_on(bvlc: BVLC) -> None:
    bvlc.nodes.append(onnx.helper.make_node("Relu", ["prob"], ["more"], "more"))


def external(bvlc: BVLC) -> None:
    tensor = bvlc.tensor("fc6_w")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def doubles(bvlc: BVLC) -> None:
    bvlc.tensor("conv2_b").CopyFrom(onnx.numpy_helper.from_array(np.zeros(12), "conv2_b"))


def short(bvlc: BVLC) -> None:
    bvlc.tensor("fc7_w").raw_data = b"1234"


def shape(bvlc: BVLC) -> None:
    bvlc.tensor("conv3_w").CopyFrom(onnx.numpy_helper.from_array(np.zeros((16, 6, 3, 3), np.float32), "conv3_w"))


def odd(bvlc: BVLC) -> None:
    bvlc.tensor("fc7_b").CopyFrom(onnx.numpy_helper.from_array(np.zeros(31, np.float32), "fc7_b"))


def absent(bvlc: BVLC) -> None:
    bvlc.stored.remove(bvlc.tensor("conv5_w"))


def no_bias(bvlc: BVLC) -> None:
    del bvlc.node("conv4").input[2]


def reshaped(bvlc: BVLC) -> None:
    bvlc.tensor("shape").CopyFrom(onnx.numpy_helper.from_array(np.array([1, -1, 6], np.int64), "shape"))


def training(bvlc: BVLC) -> None:
    bvlc.node("drop6").input.extend(["", "mode"])


def round_and_round(bvlc: BVLC) -> None:
    bvlc.node("drop6").input[0], bvlc.node("drop6").output[0] = "drop6", "drop6"


def too_small(bvlc: BVLC) -> None:
    bvlc.size = 200


def a_window_more(bvlc: BVLC) -> None:
    bvlc.size = 227
    bvlc.set("pool5", ceil_mode=1)


def changed(name: str, **attributes: Any) -> Callable[[BVLC], None]:
    return lambda bvlc: bvlc.set(name, **attributes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (caffenet, r"node 'pool1' of .* is MaxPool, expected LRN"),
        (sigmoid, r"node 'relu3' of .* is Sigmoid, expected Relu"),
        (past, r"node 'relu4' of .* takes 'relu3', expected 'conv4' and weights"),
        (ends_early, r"ends at 'fc7', expected Relu"),
        (goes_on, r"node 'more' of .* is Relu, expected no more nodes"),
        (external, r"'fc6_w' of .* is kept in another file, which is not read"),
        (doubles, r"'conv2_b' of .* has the data type 11, expected FLOAT"),
        (short, r"'fc7_w' of .* is damaged"),
        (shape, r"conv3_w of .* is float32 \(16, 6, 3, 3\), expected float32 \(16, 12, 3, 3\) as conv3.weight"),
        (odd, r"fc7_b of .* has 31 values, which two columns cannot share"),
        (absent, r"does not store 'conv5_w'"),
        (no_bias, r"conv4 of .* has 1 inputs besides the value"),
        (reshaped, r"the reshaping before fc6 of .* is to \[1, -1, 6\], expected \[n, values\]"),
        (training, r"node 'drop6' of .* may drop values outside training"),
        (round_and_round, r"node 'drop6' of .* takes 'drop6', expected 'relu6'"),
        (too_small, r"the input of .* has the shape \[1, 3, 200, 200\], expected \[n, 3, 224, 224\]"),
        (changed("conv1", strides=[2, 2]), r"node 'conv1' of .* has strides \[2, 2\], expected \[4, 4\]"),
        (changed("conv2", group=1), r"node 'conv2' of .* has group 1, expected 2"),
        (changed("conv3", dilations=[2, 2]), r"node 'conv3' of .* has dilations \[2, 2\], expected \[1, 1\]"),
        (changed("conv1", pads=[2, 2, 2, 2]), r"node 'conv1' of .* has pads \[2, 2, 2, 2\], expected \[0, 0, 0, 0\]"),
        (changed("conv5", auto_pad="SAME_UPPER"), r"node 'conv5' of .* has auto_pad 'SAME_UPPER', expected NOTSET"),
        (changed("norm1", alpha=5e-4), r"node 'norm1' of .* has alpha 0.0005.*, expected 0.0001"),
        (changed("norm2", beta=0.5), r"node 'norm2' of .* has beta 0.5, expected 0.75"),
        (changed("norm2", bias=2.0), r"node 'norm2' of .* has bias 2.0, expected 1.0"),
        (changed("norm1", size=3), r"node 'norm1' of .* has size 3, expected 5"),
        (changed("pool2", kernel_shape=[2, 2]), r"node 'pool2' of .* has kernel_shape \[2, 2\], expected \[3, 3\]"),
        (changed("pool1", pads=[1, 1, 1, 1]), r"node 'pool1' of .* has pads \[1, 1, 1, 1\], expected .* or \[0, 0, 1, 1\]"),
        (changed("pool5", pads=[0, 0, 0, 0]), r"expected float32 \(32, 300\) as fc6.weight"),
        (a_window_more, r"the pooling after conv5 of .* gives 7 positions, expected at most 6"),
        (changed("fc6", alpha=2.0), r"node 'fc6' of .* has alpha 2.0, expected 1.0"),
        (changed("relu1", slope=1.0), r"node 'relu1' of .* has slope 1.0, expected none"),
        (changed("prob", axis=0), r"node 'prob' of .* has axis 0, expected 1 or -1"),
    ],
)  # fmt: skip
def test_a_graph_of_another_network_is_refused_by_name(tmp_path: Path, change: Callable[[BVLC], None], message: str) -> None:
    bvlc = BVLC()
    change(bvlc)
    with pytest.raises(Mismatch, match=message):
        convert(bvlc.write(tmp_path / "a.onnx"), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_bytes_that_are_no_graph_are_refused(tmp_path: Path) -> None:
    data = BVLC().write(tmp_path / "a.onnx").read_bytes()
    for content in (b"", b"no graph", data[: len(data) // 2], b"\x08\x07"):
        (tmp_path / "a.onnx").write_bytes(content)
        with pytest.raises(Mismatch, match=r"a\.onnx"):
            convert(tmp_path / "a.onnx", tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_without_the_extra_the_command_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = BVLC().write(tmp_path / "a.onnx")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(NotReady, match=r"pip install -e '\.\[onnx\]'"):
        convert(path, tmp_path / "model")
