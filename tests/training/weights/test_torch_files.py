"""Tensors of torch.save come back as torch reads them; whatever else a file asks for, it does nothing but raise."""

import argparse
import io
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from training.errors import Mismatch
from training.weights import torch_files
from training.weights.torch_files import StoredTensor, describe, read_tensor


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def test_tensors_come_back_under_their_joined_keys_as_torch_saved_them(tmp_path: Path) -> None:
    net = nn.Sequential(OrderedDict(a=nn.Conv2d(3, 4, 2), b=nn.BatchNorm2d(4)))
    whole = torch.arange(24.0).view(2, 3, 4)
    others = {
        "half": torch.randn(3, 2).half(),
        "brain": torch.randn(3, 2).bfloat16(),
        "double": torch.randn(2).double(),
        "turned": whole.permute(2, 0, 1),
        "part": whole[1:, 1:],
        "same": whole[1, 2],
        "last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "parameter": nn.Parameter(torch.randn(2)),
    }
    path = saved(tmp_path / "a.pth", {"model": net.state_dict(), "epoch": 3, "steps": [1, None, "x"], "more": others})
    found = describe(path)
    expected = {f"model.{name}": tensor for name, tensor in net.state_dict().items()}
    expected |= {f"more.{name}": tensor.detach() for name, tensor in others.items()}
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        read = read_tensor(path, found[name])
        assert read.dtype == tensor.dtype == found[name].dtype
        assert torch.equal(read, tensor)


class Call:
    """Pickles as a call of a function with arguments."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.what = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.what


def evil(path: Path) -> dict[str, object]:
    touch = f"open({str(path)!r}, 'w')"
    return {
        "posix.system": Call(os.system, f"touch {path}"),
        "__builtin__.eval": Call(eval, touch),
        "__builtin__.getattr": Call(getattr, Call(__import__, "os"), "system"),
        "torch.load": Call(torch.load, str(path)),
        "torch._utils._rebuild_meta_tensor_no_storage": torch.zeros(2, device="meta"),
        "argparse.Namespace": argparse.Namespace(epochs=3),
        "torch.nn.modules.linear.Linear": nn.Linear(2, 2),
    }


@pytest.mark.parametrize("name", sorted(evil(Path())))
def test_a_file_that_asks_for_more_than_tensors_does_nothing_but_raise(tmp_path: Path, name: str) -> None:
    marker = tmp_path / "was here"
    path = saved(tmp_path / "a.pth", {"model": {"w": torch.zeros(2)}, "evil": evil(marker)[name]})
    with pytest.raises(Mismatch, match="only dictionaries of tensors are read") as caught:
        describe(path)
    assert str(path) in str(caught.value)
    assert not marker.exists()


def archive(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return buffer.getvalue()


ORDERED = b"ccollections\nOrderedDict\n"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x02tQ"
HOOKS = b"\x89" + ORDERED + b")R"


def tensor(offset: bytes, shape: bytes, strides: bytes, storage: bytes = STORAGE) -> bytes:
    """A pickle of {"w": a tensor}."""
    return b"\x80\x02}X\x01\x00\x00\x00w" + REBUILD + b"(" + storage + offset + shape + strides + HOOKS + b"tRs."


PICKLES = {
    "a tensor of negative size": tensor(b"K\x00", b"J\xff\xff\xff\xff\x85", b"K\x01\x85"),
    "a negative offset": tensor(b"J\xff\xff\xff\xff", b"K\x01\x85", b"K\x01\x85"),
    "an enormous size": tensor(b"K\x00", b"\x8a\x10" + 15 * b"\xff" + b"\x00\x85", b"K\x01\x85"),
    "sizes without strides": tensor(b"K\x00", b"K\x02\x85", b")"),
    "sizes that are no numbers": tensor(b"K\x00", b"N\x85", b"K\x01\x85"),
    "a truth value as a size": tensor(b"K\x00", b"\x88\x85", b"K\x01\x85"),
    "a storage of something else": tensor(b"K\x00", b"K\x01\x85", b"K\x01\x85", b"N"),
    "a storage called": b"\x80\x02ctorch\nFloatStorage\nK\x02\x85R.",
    "another persistent id": b"\x80\x02X\x04\x00\x00\x00nameQ.",
    "a storage without a name": b"\x80\x02(X\x07\x00\x00\x00storagectorch\nFloatStorage\nK\x00K\x00K\x00tQ.",
    "a parameter of nothing": b"\x80\x02ctorch._utils\n_rebuild_parameter\n(N" + HOOKS + b"tR.",
    "an OrderedDict of pairs": b"\x80\x02" + ORDERED + b"(]\x85R.",
    "a stand-in changed": b"\x80\x02" + REBUILD + b"}X\x08\x00\x00\x00__call__Nsb.",
    "a getattr chain by STACK_GLOBAL": b"\x80\x04\x8c\x05torch\x8c\x16FloatStorage.__class__\x93.",
    "an extension code": b"\x80\x02\x82\x01.",
    "a memo of two thousand million": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "half a pickle": b"\x80\x02}X\x01",
    "nothing": b"",
}


@pytest.mark.parametrize("what", sorted(PICKLES))
def test_hostile_pickles_are_one_error_of_ours(tmp_path: Path, what: str) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(archive({"a/data.pkl": PICKLES[what], "a/data/0": bytes(8), "a/byteorder": b"little"}))
    with pytest.raises(Mismatch, match=str(path)):
        describe(path)


GOOD = tensor(b"K\x00", b"K\x02\x85", b"K\x01\x85")
ARCHIVES = {
    "no archive": b"hello\n",
    "nothing": b"",
    "a pickle alone": pickle.dumps({"w": 1}),
    "half an archive": archive({"a/data.pkl": GOOD, "a/data/0": bytes(8)})[:150],
    "no pickle": archive({"a/data/0": bytes(8)}),
    "two pickles": archive({"a/data.pkl": GOOD, "b/data.pkl": GOOD}),
    "big-endian numbers": archive({"a/data.pkl": GOOD, "a/data/0": bytes(8), "a/byteorder": b"big"}),
    "a compressed pickle": archive({"a/data.pkl": GOOD + bytes(1000)}, zipfile.ZIP_DEFLATED),
    "a pickle of other bytes than its checksum": archive({"a/data.pkl": GOOD}).replace(b"storage", b"STORAGE", 1),
    "a large pickle": archive({"a/data.pkl": GOOD + bytes(2**21)}),
}


@pytest.mark.parametrize("what", sorted(ARCHIVES))
def test_damaged_and_other_archives_are_one_error_of_ours(tmp_path: Path, what: str) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(ARCHIVES[what])
    with pytest.raises(Mismatch, match=str(path)):
        describe(path)


def test_a_tensor_that_the_file_has_not_all_of_is_refused_before_memory_is_spent(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(archive({"a/data.pkl": GOOD, "a/data/0": bytes(8), "a/byteorder": b"little"}))
    assert torch.equal(read_tensor(path, describe(path)["w"]), torch.zeros(2))
    for shape, strides, offset in (
        ((3,), (1,), 0),
        ((2,), (1,), 1),
        ((2,), (2,), 0),
        ((2**20, 2**20), (0, 0), 0),
        ((2**47,), (1,), 0),
        ((1,), (1,), 2**47),
        ((0, 2**47), (2**47, 1), 0),
    ):
        with pytest.raises(Mismatch, match=r"a\.pth .* (from 1 to \d+ bytes are read|\d+ bytes, and \d+ from \d+ on are needed)"):
            read_tensor(path, StoredTensor(torch.float32, shape, strides, offset, "a/data/0"))
    with pytest.raises(Mismatch, match=str(path)):
        read_tensor(path, StoredTensor(torch.float32, (2,), (1,), 0, "a/data/1"))


def test_a_list_of_members_longer_than_the_limit_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_files, "MAX_BYTES", 100)
    path = saved(tmp_path / "a.pth", {"w": torch.zeros(2)})
    with pytest.raises(Mismatch, match="to be read at once, more than 100"):
        describe(path)
