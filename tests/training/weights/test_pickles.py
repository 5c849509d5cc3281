"""Pickles of arrays come back as numpy reads them; a pickle that asks for anything else does nothing but raise."""

import os
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from training.errors import Mismatch
from training.weights.pickles import read_arrays

LIMIT = 2**20


class Call:
    """Pickles as a call of a function with arguments."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.what = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.what


def written(path: Path, content: object, protocol: int = 3) -> Path:
    path.write_bytes(pickle.dumps(content, protocol))
    return path


@pytest.mark.parametrize("protocol", [3, 4])
def test_arrays_come_back_under_their_joined_keys(tmp_path: Path, protocol: int) -> None:
    rng = np.random.default_rng(0)
    plain, turned = rng.random((2, 3, 4), np.float32), np.asfortranarray(rng.random((3, 5), np.float32))
    path = written(tmp_path / "a", {"net": {"Conv_0": {"kernel": plain, "bias": turned}}, "again": plain}, protocol)
    found = read_arrays(path, LIMIT)
    assert sorted(found) == ["again", "net/Conv_0/bias", "net/Conv_0/kernel"]
    np.testing.assert_array_equal(found["net/Conv_0/kernel"], plain)
    np.testing.assert_array_equal(found["net/Conv_0/bias"], turned)
    np.testing.assert_array_equal(found["again"], plain)


def test_names_of_either_numpy_are_known(tmp_path: Path) -> None:
    data = pickle.dumps({"a": np.zeros(3, np.float32)}, 2 + 1)
    new, old = b"numpy._core.multiarray", b"numpy.core.multiarray"
    for name in (new, old):
        (tmp_path / "a").write_bytes(data.replace(new, b"@").replace(old, b"@").replace(b"@", name))
        assert read_arrays(tmp_path / "a", LIMIT)["a"].tolist() == [0, 0, 0]


def evil(path: Path) -> dict[str, object]:
    touch = f"open({str(path)!r}, 'w')"
    return {
        "posix.system": Call(os.system, f"touch {path}"),
        "builtins.eval": Call(eval, touch),
        "builtins.exec": Call(exec, touch),
        "builtins.getattr": Call(getattr, Call(__import__, "os"), "system"),
        "builtins.open": Call(open, str(path), "w"),
        "numpy.fromfile": Call(np.fromfile, str(path)),
        "numpy.load": Call(np.load, str(path)),
        "_codecs.encode": np.zeros(2, np.float32),  # as protocol 2 writes bytes
        "collections.OrderedDict": Call(__import__("collections").OrderedDict),
        "numpy.float32": Call(np.float32, 1.0),
    }


@pytest.mark.parametrize("name", sorted(evil(Path())))
def test_a_pickle_that_asks_for_more_than_arrays_does_nothing_but_raise(tmp_path: Path, name: str) -> None:
    marker = tmp_path / "was here"
    path = written(tmp_path / "a", {"a": evil(marker)[name]}, 2 if name == "_codecs.encode" else 3)
    with pytest.raises(Mismatch, match="only float32 numpy arrays are read"):
        read_arrays(path, LIMIT)
    assert not marker.exists()


RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
HOSTILE = {
    "a getattr chain by STACK_GLOBAL": b"\x80\x04\x8c\x05numpy\x8c\x14ndarray.__class__.mro\x93.",
    "a call by INST": b"(S'echo'\nios\nsystem\n.",
    "a call by OBJ": b"(cos\nsystem\nS'echo'\no.",
    "an extension code": b"\x80\x02\x82\x01.",
    "a persistent id": b"Pname\n.",
    "an allocation": b"\x80\x03" + RECONSTRUCT + b"cnumpy\nndarray\nJ\x00\x00\x00\x7f\x85C\x01b\x87R.",
    "the array class called": b"\x80\x03cnumpy\nndarray\nJ\x00\x00\x00\x7f\x85R.",
    "the array class made": b"\x80\x03cnumpy\nndarray\n)\x81.",
    "a stand-in changed": b"\x80\x03" + RECONSTRUCT + b"}X\x08\x00\x00\x00__call__Nsb.",
    "a stand-in's slots changed": b"\x80\x03" + RECONSTRUCT + b"N}X\x08\x00\x00\x00__call__Ns\x86b.",
    "a memo of two thousand million": b"\x80\x03Nr\xff\xff\xff\x7f.",
    "bytes longer than the file": b"\x80\x03B\xff\xff\xff\x7fabc.",
    "objects as values": pickle.dumps({"a": np.array([None])}, 3),
    "doubles": pickle.dumps({"a": np.zeros(2)}, 3),
    "big-endian numbers": pickle.dumps({"a": np.zeros(2, ">f4")}, 3),
    "fewer bytes than the shape": pickle.dumps({"a": np.zeros(2, np.float32)}, 3).replace(b"K\x02\x85", b"K\x03\x85"),
    "an array never filled": b"\x80\x03" + RECONSTRUCT + b"cnumpy\nndarray\nK\x00\x85C\x01b\x87R.",
    "keys that are no texts": pickle.dumps({1: np.zeros(2, np.float32)}, 3),
    "a list": pickle.dumps([np.zeros(2, np.float32)], 3),
    "a number": pickle.dumps({"a": 1}, 3),
    "dictionaries without end": b"\x80\x03}q\x00X\x01\x00\x00\x00ah\x00s.",
    "a billion dictionaries": b"\x80\x03}q\x00"
    + b"".join(b"}(X\x01\x00\x00\x00ah%cX\x01\x00\x00\x00bh%cuq%c" % (i, i, i + 1) for i in range(30))
    + b".",
    "half a pickle": pickle.dumps({"a": np.zeros(200, np.float32)}, 3)[:300],
    "nothing": b"",
    "text": b"hello\n",
}


@pytest.mark.parametrize("what", sorted(HOSTILE))
def test_hostile_and_damaged_bytes_are_one_error_of_ours(tmp_path: Path, what: str) -> None:
    (tmp_path / "a").write_bytes(HOSTILE[what])
    with pytest.raises(Mismatch, match=str(tmp_path / "a")):
        read_arrays(tmp_path / "a", LIMIT)


def test_the_size_is_checked_before_a_byte_is_read(tmp_path: Path) -> None:
    path = written(tmp_path / "a", {"a": np.zeros(100, np.float32)})
    with pytest.raises(Mismatch, match=r"bytes, more than the 100 expected of it"):
        read_arrays(path, 100)


def test_the_hostile_pickles_are_what_they_claim() -> None:
    names = {
        what: [opcode.name for opcode, _, _ in pickletools.genops(data)] for what, data in HOSTILE.items() if "call by" in what
    }
    assert "INST" in names["a call by INST"]
    assert "OBJ" in names["a call by OBJ"]
