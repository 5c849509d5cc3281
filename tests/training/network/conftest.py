"""The two ways in which ReLU, LRN and pooling are computed on a CPU."""

from collections.abc import Iterator
from typing import Any

import pytest

from training.network import native


@pytest.fixture(params=["compiled", "pytorch"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Runs a test with native.c, where it is compiled, and with PyTorch's operations; fails where the other one served."""
    called = []
    call = native._call

    def recorded_call(name: str, *arguments: Any) -> None:
        called.append(name)
        call(name, *arguments)

    if request.param == "compiled" and native.library() is None:
        pytest.skip("native.c is not compiled here")
    if request.param == "pytorch":
        monkeypatch.setattr(native, "library", lambda: None)
    monkeypatch.setattr(native, "_call", recorded_call)
    yield request.param
    assert bool(called) == (request.param == "compiled")
