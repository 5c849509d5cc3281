"""What tests of the index share: the two ways in which rows are scanned, native.c and NumPy; an index of two real stages."""

import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from indexer.index import Index, open_index
from indexer.scans import native
from tests.indexer.synthetic import two_stage_index


@pytest.fixture(params=["native", "numpy"])
def scans(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Runs a test with native.c and again with NumPy; holds that native.c was called, or was not.

    The first fails where a compiler is and native.c has not been built or does not load.
    """
    calls = []
    call = native._call

    def recorded_call(name: str, *arguments: Any) -> int:
        calls.append(name)
        return call(name, *arguments)

    if request.param == "numpy":
        monkeypatch.setattr(native, "library", lambda: None)
    elif native.library() is None:
        if shutil.which("gcc") or shutil.which("cc"):
            pytest.fail("a compiler is here, and indexer/scans/native.c did not build or does not load; install anew")
        pytest.skip("no compiler is here")
    monkeypatch.setattr(native, "_call", recorded_call)
    yield request.param
    assert bool(calls) == (request.param == "native")


@pytest.fixture(scope="session")
def two_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Index, np.ndarray]]:
    """An index of 3400 items with short-lists, which no test may change, and the vector of every id."""
    folder = tmp_path_factory.mktemp("two-stage")
    x_ND = two_stage_index(folder)
    store = open_index(folder)
    yield store, x_ND
    store.close()
