"""The two ways in which rows are scanned: by native.c, and by NumPy where it did not compile."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from indexer.scans import native


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
