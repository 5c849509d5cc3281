"""Pickles of numpy arrays, read by code that can build nothing else.

Weights are shared as pickles, and an ordinary unpickler runs whatever such a file asks for. Here no global of a pickle is ever
looked up: the few names that numpy writes are answered by stand-ins of ours, which check what they are given and build float32
arrays from bytes; every other name is an error before anything is called.
"""

import io
import pickle
import pickletools
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from training.errors import FC7Error, Mismatch

_NDARRAY: Final = object()


class _Array:
    """An array while it is read: `_reconstruct` makes an empty one, the pickle's BUILD fills it."""

    __slots__ = ("values",)

    def __init__(self) -> None:
        self.values: NDArray[np.float32] | None = None

    def __setstate__(self, state: object) -> None:
        match state:
            case (1, tuple(shape), _Float32(), bool(fortran), bytes(data)):
                self.values = np.frombuffer(data, "<f4").reshape(shape, order="F" if fortran else "C")
            case _:
                raise Mismatch("an array is not stored as float32 values")


class _Float32:
    """numpy's dtype of float32 in little-endian order, the only one that is read."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        match state:
            case (3, "<", None, None, None, -1, -1, 0):
                pass
            case _:
                raise Mismatch(f"float32 values are not stored as little-endian numbers but as {state!r:.80}")


class _Reconstruct:
    """Stands for numpy's `_reconstruct(ndarray, (0,), b"b")`."""

    __slots__ = ()

    def __call__(self, *arguments: object) -> _Array:
        if arguments != (_NDARRAY, (0,), b"b"):
            raise Mismatch("an array is not built in numpy's way")
        return _Array()

    def __setstate__(self, state: object) -> None:
        raise Mismatch("a function is given a state")


class _Dtype(_Reconstruct):
    """Stands for numpy's `dtype("f4", False, True)`."""

    __slots__ = ()

    def __call__(self, *arguments: object) -> Any:
        if arguments != ("f4", False, True):
            raise Mismatch(f"only float32 arrays are read, not numpy.dtype{arguments!r:.80}")
        return _Float32()


_KNOWN: Final = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _Dtype(),
    ("numpy.core.multiarray", "_reconstruct"): _Reconstruct(),
    ("numpy._core.multiarray", "_reconstruct"): _Reconstruct(),
}


class _Reader(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str) -> Any:
        if (module_name, global_name) not in _KNOWN:
            raise Mismatch(f"it asks for {module_name}.{global_name}, and only float32 numpy arrays are read")
        return _KNOWN[module_name, global_name]


def read_arrays(path: Path, max_bytes: int) -> dict[str, NDArray[np.float32]]:
    """The arrays in a pickled dictionary of dictionaries, by their keys joined with "/": {"net/Conv_0/bias": float32 (64,)}.

    Raises Mismatch, naming the file, for more than `max_bytes`, for any global but those of numpy's arrays, and for anything that
    is not such a dictionary; nothing that the file names is imported or called.
    """
    size = path.stat().st_size
    if size > max_bytes:
        raise Mismatch(f"{path} has {size} bytes, more than the {max_bytes} expected of it")
    data = path.read_bytes()
    try:
        check_memo(data)
        arrays: dict[str, NDArray[np.float32]] = {}
        _collect(_Reader(io.BytesIO(data)).load(), "", arrays, set())
    except FC7Error as error:
        raise Mismatch(f"{path} is not a pickle of arrays: {error}") from error
    except Exception as error:  # damaged pickles make the unpickler raise almost anything
        raise Mismatch(f"{path} is damaged or is not a pickle: {error}") from error
    return arrays


def check_memo(data: bytes) -> None:
    """A pickler numbers what it may need again 0, 1, 2...; the unpickler would reserve memory for any number that it is told."""
    for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and isinstance(argument, int) and argument > count:
            raise Mismatch(f"its memo jumps to {argument}")


def _collect(value: object, name: str, arrays: dict[str, NDArray[np.float32]], visited: set[int]) -> None:
    match value:
        case _Array(values=np.ndarray() as values):
            arrays[name] = values
        case dict() if id(value) not in visited:  # one inside itself, or many times over, has no end
            visited.add(id(value))
            for key, below in value.items():
                if not isinstance(key, str):
                    raise Mismatch(f"a key is not a text but {type(key).__name__}")
                _collect(below, f"{name}/{key}" if name else key, arrays, visited)
        case _:
            raise Mismatch(f"{name or 'the whole'} is neither an array nor a dictionary of its own but {type(value).__name__}")
