"""The first layer over HTTP: what takes seconds is done once for all who ask, and keeps nobody else waiting."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient

from indexer import build
from service.app import THREADS, create_app
from service.settings import ServiceSettings
from tests.conftest import SmallConfig
from training import checkpoint
from training.analysis import kernels
from training.network.alexnet import AlexNet
from training.network.initialisation import initialise


@pytest.fixture(scope="module")
def folders(images: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model that no other test asks about, and an index made with it."""
    model, index = tmp_path_factory.mktemp("model"), tmp_path_factory.mktemp("index")
    net = AlexNet(SmallConfig(classes=3))
    initialise(net, "fan-in", seed=1012)
    checkpoint.save(model, net, ["blue", "green", "red"], torch.full((3, 256, 256), 110.0))
    build.main(build.BuildSettings(model=model, data=images, index=index, part="train"))
    return model, index


@pytest.fixture
def client(folders: tuple[Path, Path]) -> Iterator[TestClient]:
    settings = ServiceSettings(model=folders[0], index=folders[1], deadline_ms=600_000)  # on a busy machine too
    with TestClient(create_app(settings)) as client:
        yield client


def test_what_is_slow_is_done_once_for_all_who_ask_and_others_are_answered_meanwhile(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = ["/filters", "/filters.png?order=norm", "/filters.svg", "/units/conv1/0/1"]
    begun, go, calls = threading.Event(), threading.Event(), []
    real = kernels.first_layer

    def held(*given: Any) -> Any:
        calls.append(given)
        begun.set()
        assert go.wait(60)
        return real(*given)

    monkeypatch.setattr(kernels, "first_layer", held)
    with ThreadPoolExecutor(4 * THREADS) as callers:
        asked = [callers.submit(client.get, paths[i % len(paths)]) for i in range(3 * THREADS)]
        try:
            assert begun.wait(60)
            time.sleep(0.5)  # until all of them wait
            assert callers.submit(client.get, "/items/0/thumbnail").result(5).status_code == 200
        finally:
            go.set()
        assert {answer.result().status_code for answer in asked} == {200}
    assert len(calls) == 1
