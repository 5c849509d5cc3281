"""An ONNX graph that is a chain, read node by node: each takes what the one before it gave and does what was expected of it."""

import math
from pathlib import Path
from typing import Any, Final

import torch
from numpy.typing import NDArray
from torch import Tensor

from training.errors import Mismatch, NotReady
from training.weights.published import check_size

# what the operators do where a node does not say; from the ONNX operator descriptions, for two-dimensional images
_DEFAULTS: Final[dict[str, dict[str, Any]]] = {
    "Add": {},
    "Conv": {"auto_pad": "NOTSET", "dilations": [1, 1], "group": 1, "pads": [0] * 4, "strides": [1, 1]},
    "Flatten": {"axis": 1},
    "Gemm": {"alpha": 1.0, "beta": 1.0, "broadcast": 0, "transA": 0, "transB": 0},
    "LRN": {"size": None, "alpha": 1e-4, "beta": 0.75, "bias": 1.0},
    "MatMul": {},
    "MaxPool": {
        "auto_pad": "NOTSET", "ceil_mode": 0, "dilations": [1, 1], "kernel_shape": None, "pads": [0] * 4, "storage_order": 0,
        "strides": [1, 1],
    },
    "Relu": {},
    "Reshape": {"allowzero": 0},
    "Softmax": {"axis": 1},
}  # fmt: skip


class Chain:
    """The nodes of an .onnx file in order, without its dropouts, which pass everything on outside training.

    Raises NotReady without the package onnx; Mismatch, naming the file, where it is no ONNX model of one input and one output.
    """

    def __init__(self, path: Path) -> None:
        try:
            import onnx
            from google.protobuf.message import DecodeError
        except ImportError as error:
            raise NotReady("reading ONNX files needs the extra `onnx`: pip install -e '.[onnx]'") from error
        check_size(path)
        try:
            graph = onnx.load_model_from_string(path.read_bytes()).graph
        except DecodeError as error:
            raise Mismatch(f"{path} is not an ONNX model: {error}") from error
        self.path = path
        self._onnx = onnx
        self._stored = {tensor.name: tensor for tensor in graph.initializer}
        self._nodes = list(graph.node)
        inputs = [value for value in graph.input if value.name not in self._stored]
        if len(inputs) != 1 or len(graph.output) != 1:
            raise Mismatch(f"{path} is a graph of {len(inputs)} inputs and {len(graph.output)} outputs, expected one of each")
        self._input, self._output = inputs[0], graph.output[0].name
        self._value = self._input.name

    def input_shape(self) -> list[int]:
        """Shape of the input, (batch, channels, height, width); 0 for a size that the file leaves open."""
        if self._input.type.tensor_type.elem_type != self._onnx.TensorProto.FLOAT:
            raise Mismatch(f"the input {self._input.name!r} of {self.path} is not float32")
        return [dim.dim_value for dim in self._input.type.tensor_type.shape.dim]

    def next_is(self, operator: str) -> bool:
        """Whether the next node is an `operator`."""
        self._pass_dropouts()
        return bool(self._nodes) and self._nodes[0].op_type == operator

    def take(self, operator: str, **expected: Any) -> tuple[list[str], dict[str, Any]]:
        """Goes on by one node, which must be an `operator` of the value before it: its other inputs, and its attributes.

        An attribute must have the value that `expected` gives, one of several where that is a tuple, or else its default.
        Raises Mismatch, naming node and value.
        """
        self._pass_dropouts()
        if not self._nodes:
            raise Mismatch(f"{self.path} ends at {self._value!r}, expected {operator}")
        node = self._nodes.pop(0)
        name = self._name(node)
        if node.op_type != operator or node.domain not in ("", "ai.onnx"):
            raise Mismatch(f"{name} is {node.op_type}, expected {operator}")
        others = [value for value in node.input if value != self._value]
        in_order = operator == "Add" or node.input[:1] == [self._value]
        if len(others) != len(node.input) - 1 or not in_order or not node.output:
            raise Mismatch(f"{name} takes {', '.join(map(repr, node.input))}, expected {self._value!r} and weights")
        attributes = _DEFAULTS[operator] | self._attributes(node)
        wanted = _DEFAULTS[operator] | expected
        for attribute, value in attributes.items():
            allowed = wanted.get(attribute, ())
            allowed = allowed if isinstance(allowed, tuple) else (allowed,)
            if not any(_same(value, other) for other in allowed):
                raise Mismatch(f"{name} has {attribute} {value!r:.80}, expected {' or '.join(map(str, allowed)) or 'none'}")
        self._value = node.output[0]
        return others, attributes

    def finish(self) -> None:
        """Raises Mismatch where nodes are left, or where the graph's output is not what the last one gave."""
        self._pass_dropouts()
        if self._nodes:
            raise Mismatch(f"{self._name(self._nodes[0])} is {self._nodes[0].op_type}, expected no more nodes")
        if self._output != self._value:
            raise Mismatch(f"{self.path} puts out {self._output!r}, expected {self._value!r}")

    def weights(self, name: str) -> tuple[str, Tensor]:
        """The stored float32 values called `name`, behind the name. Raises Mismatch where there are none."""
        return name, torch.tensor(self._array(name, "FLOAT"))

    def integers(self, name: str) -> list[int]:
        """The stored int64 values called `name`. Raises Mismatch where there are none."""
        return [int(value) for value in self._array(name, "INT64").reshape(-1)]

    def _array(self, name: str, kind: str) -> NDArray[Any]:
        types = self._onnx.TensorProto
        if name not in self._stored:
            raise Mismatch(f"{self.path} does not store {name!r}")
        tensor = self._stored[name]
        if tensor.data_location == types.EXTERNAL or tensor.external_data:
            raise Mismatch(f"{name!r} of {self.path} is kept in another file, which is not read")
        if tensor.data_type != types.DataType.Value(kind):
            raise Mismatch(f"{name!r} of {self.path} has the data type {tensor.data_type}, expected {kind}")
        try:
            array: NDArray[Any] = self._onnx.numpy_helper.to_array(tensor)
        except (ValueError, TypeError) as error:
            raise Mismatch(f"{name!r} of {self.path} is damaged: {error}") from error
        return array

    def _attributes(self, node: Any) -> dict[str, Any]:
        try:
            values = {a.name: self._onnx.helper.get_attribute_value(a) for a in node.attribute}
        except ValueError as error:
            raise Mismatch(f"{self._name(node)} has an attribute that cannot be read: {error}") from error
        return {name: value.decode(errors="replace") if isinstance(value, bytes) else value for name, value in values.items()}

    def _pass_dropouts(self) -> None:
        while self._nodes and self._nodes[0].op_type == "Dropout":
            node = self._nodes.pop(0)
            # a third input, or is_test = 0 in the first versions, makes it drop values outside training too
            if len(node.input) > 2 or self._attributes(node).get("is_test", 1) != 1:
                raise Mismatch(f"{self._name(node)} may drop values outside training")
            if node.input[:1] != [self._value] or not node.output:
                raise Mismatch(f"{self._name(node)} takes {', '.join(map(repr, node.input))}, expected {self._value!r}")
            self._value = node.output[0]

    def _name(self, node: Any) -> str:
        return f"node {node.name or ''.join(node.output[:1])!r} of {self.path}"


def _same(value: Any, other: Any) -> bool:
    if isinstance(value, float) and isinstance(other, float):
        return math.isclose(value, other, rel_tol=1e-6)  # attributes are float32
    return bool(value == other)
