"""Files of torch.save, read by code that can build nothing but descriptions of tensors; values are read when they are asked for.

Such a file is a zip archive, stored without compression: `data.pkl`, a pickle of what was saved, and a member of values for each
storage that it names. As in training/weights/pickles.py, no global of the pickle is ever looked up.
"""

import io
import math
import os
import pickle
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from training.errors import FC7Error, Mismatch
from training.weights.pickles import check_memo

MAX_BYTES: Final = 2**26  # of one tensor, and of anything else that is read at once
_PICKLE_BYTES: Final = 2**21  # a vision transformer's takes 30 kB
_DTYPES: Final = {
    "FloatStorage": torch.float32, "HalfStorage": torch.float16, "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64, "LongStorage": torch.int64, "IntStorage": torch.int32, "ShortStorage": torch.int16,
    "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
}  # fmt: skip


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file of torch.save, without its values."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int  # values before its first
    member: str  # of the archive


def describe(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a file, those in dictionaries of dictionaries under their keys joined by full stops.

    Raises Mismatch, naming the file, for what torch.save did not write and for a pickle that asks for more than tensors.
    """
    with _archive(path) as archive:
        pickles = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise Mismatch(f"it has {len(pickles)} members data.pkl, expected one")
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}byteorder" in archive.namelist() and _read(archive, f"{folder}byteorder", 0, 6) != b"little":
            raise Mismatch("its numbers are not little-endian")
        size = archive.getinfo(pickles[0]).file_size
        if size > _PICKLE_BYTES:
            raise Mismatch(f"its pickle has {size} bytes, more than the {_PICKLE_BYTES} that are read")
        data = bytes(_read(archive, pickles[0], 0, size))
        check_memo(data)
        found: dict[str, StoredTensor] = {}
        _collect(_Reader(data, folder).load(), "", found, set())
        return found


def read_tensor(path: Path, stored: StoredTensor) -> Tensor:
    """The values of a tensor that `describe` found. Raises Mismatch where the file lacks some, for none and for over 64 MiB."""
    size = stored.dtype.itemsize
    count = math.prod(stored.shape)
    span = 1 + sum((extent - 1) * stride for extent, stride in zip(stored.shape, stored.strides, strict=True))
    with _archive(path) as archive:
        if not 0 < max(count, span) * size <= MAX_BYTES or not count:
            raise Mismatch(f"a tensor has the shape {stored.shape!s:.80}, and from 1 to {MAX_BYTES} bytes are read")
        data = _read(archive, stored.member, stored.offset * size, span * size)
        return torch.frombuffer(data, dtype=stored.dtype).as_strided(stored.shape, stored.strides).contiguous()


class _Bounded(io.FileIO):
    """A file that gives no more than MAX_BYTES at once: the archive's reader asks for as many as the archive says."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            size = max(os.fstat(self.fileno()).st_size - self.tell(), 0)
        if size > MAX_BYTES:
            raise Mismatch(f"{size} bytes are to be read at once, more than {MAX_BYTES}")
        return super().read(size) or b""


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with _Bounded(path) as file, zipfile.ZipFile(file) as archive:
            yield archive
    except FC7Error as error:
        raise Mismatch(f"{path} is not a file of tensors: {error}") from error
    except OSError:
        raise
    except Exception as error:  # damaged archives and pickles make their readers raise almost anything
        raise Mismatch(f"{path} is damaged, or torch.save of PyTorch 1.6 or later did not write it: {error}") from error


def _read(archive: zipfile.ZipFile, name: str, start: int, size: int) -> bytearray:
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED:
        raise Mismatch(f"its member {name!r:.80} is compressed")
    with archive.open(info) as member:
        member.seek(start)
        data = bytearray(member.read(size))
    if len(data) != size:
        raise Mismatch(f"its member {name!r:.80} has {info.file_size} bytes, and {size} from {start} on are needed")
    return data


@dataclass(frozen=True)
class _Storage:
    dtype: torch.dtype
    member: str


class _Dictionary(dict[Any, Any]):
    """An OrderedDict while it is read; what a state dict says of versions of its modules is passed over."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        pass


class _OrderedDict:
    """Stands for `OrderedDict()`."""

    __slots__ = ()

    def __call__(self, *arguments: object) -> Any:
        if arguments:
            raise Mismatch("an OrderedDict is not built as torch.save does")
        return _Dictionary()

    def __setstate__(self, state: object) -> None:
        raise Mismatch("a function is given a state")


class _Rebuild(_OrderedDict):
    """Stands for torch's `_rebuild_tensor_v2(storage, offset, shape, strides, requires_grad, hooks)`."""

    __slots__ = ()

    def __call__(self, *arguments: object) -> Any:
        match arguments:
            case (_Storage() as storage, int(offset), tuple(shape), tuple(strides), bool(), _Dictionary(), *_):
                numbers = (offset, *shape, *strides)
                if len(shape) == len(strides) <= 8 and all(type(number) is int and 0 <= number < 2**48 for number in numbers):
                    return StoredTensor(storage.dtype, shape, strides, offset, storage.member)
        raise Mismatch("a tensor is not built as torch.save does")


class _Parameter(_OrderedDict):
    """Stands for torch's `_rebuild_parameter(tensor, requires_grad, hooks)`."""

    __slots__ = ()

    def __call__(self, *arguments: object) -> Any:
        match arguments:
            case (StoredTensor() as stored, bool(), _Dictionary()):
                return stored
        raise Mismatch("a parameter is not built as torch.save does")


_KNOWN: Final = {
    ("collections", "OrderedDict"): _OrderedDict(),
    ("torch._utils", "_rebuild_tensor_v2"): _Rebuild(),
    ("torch._utils", "_rebuild_parameter"): _Parameter(),
    **{("torch", name): dtype for name, dtype in _DTYPES.items()},
}


class _Reader(pickle.Unpickler):
    def __init__(self, data: bytes, folder: str) -> None:
        super().__init__(io.BytesIO(data))
        self._folder = folder

    def find_class(self, module_name: str, global_name: str) -> Any:
        if (module_name, global_name) not in _KNOWN:
            raise Mismatch(f"it asks for {module_name}.{global_name}, and only dictionaries of tensors are read")
        return _KNOWN[module_name, global_name]

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            case ("storage", torch.dtype() as dtype, str(key), str(), int()):
                return _Storage(dtype, f"{self._folder}data/{key}")
        raise Mismatch("values are not stored as torch.save does")


def _collect(value: object, name: str, found: dict[str, StoredTensor], visited: set[int]) -> None:
    if isinstance(value, StoredTensor):
        found[name] = value
    elif isinstance(value, dict) and id(value) not in visited:  # one inside itself, or many times over, has no end
        visited.add(id(value))
        for key, below in value.items():
            if isinstance(key, str):
                _collect(below, f"{name}.{key}" if name else key, found, visited)
