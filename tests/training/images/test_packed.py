"""Packed strings are the strings that were packed."""

import os

import numpy as np
import pytest

from training.images.packed import PackedStrings

STRINGS = ["", "a", "\u00e9\U0001f600", os.fsdecode(b"latin-\xe9"), "last"]


def test_strings_come_back_one_by_one_in_slices_and_in_any_order() -> None:
    packed = PackedStrings(iter(STRINGS))
    assert list(packed) == STRINGS
    assert [packed[i] for i in range(-5, 5)] == STRINGS + STRINGS
    assert list(packed[1:4][1:]) == STRINGS[2:4]
    assert list(packed[::-2]) == STRINGS[::-2]
    assert list(packed.take(np.array([4, 0, 4]))) == ["last", "", "last"]
    with pytest.raises(IndexError):
        packed[5]


def test_none_are_none() -> None:
    assert list(PackedStrings([])) == []
    assert not PackedStrings([])[0:3]
