"""A photograph seen through the network, over HTTP: maps, the ten views, uploaded or an item's own."""

import io
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image

from service import engine as engines
from service.app import create_app
from service.routes import subjects
from service.settings import ServiceSettings
from tests.conftest import SmallConfig
from tests.service.calls import PHOTO, assert_problem, send
from training import checkpoint
from training.analysis.activations import activations
from training.checkpoint import Model
from training.images.preprocess import ImageLimits, decode
from training.network.alexnet import AlexNet
from training.network.initialisation import initialise


@pytest.fixture(scope="module")
def client(model: Path, index: Path) -> Iterator[TestClient]:
    with TestClient(create_app(ServiceSettings(model=model, index=index, deadline_ms=600_000))) as client:
        yield client


def opened(content: bytes) -> Image.Image:
    """The picture in an answer."""
    return Image.open(io.BytesIO(content))


@pytest.mark.parametrize(("layer", "units", "side"), [("conv1", 4, 55), ("conv5", 6, 13), ("fc6", 16, 1), ("fc7", 16, 1)])
def test_maps_are_those_of_the_network_and_the_picture_shows_them_where_the_answer_says(
    client: TestClient, model: Path, layer: str, units: int, side: int
) -> None:
    answer = send(client, f"/activations?layer={layer}&top=3", PHOTO).json()
    loaded = checkpoint.load(model)
    pixels_CHW = decode(PHOTO, ImageLimits()).pixels_CHW
    expected = activations(loaded.net, loaded.view(pixels_CHW), layer)  # type: ignore[arg-type]
    assert (answer["model"], answer["layer"], answer["index_version"]) == (loaded.fingerprint, layer, None)
    for number, (column, maps_UHW) in enumerate(zip(answer["columns"], expected, strict=True)):
        assert (column["column"], column["units"], column["side"]) == (number, units, side)
        by_largest = np.argsort(-maps_UHW.max((1, 2)), kind="stable")[:3].tolist()
        assert [unit["unit"] for unit in column["strongest"]] == by_largest
        picture = send(client, f"/activations.png?layer={layer}&column={number}&scaling=together", PHOTO)
        assert picture.headers["content-type"] == "image/png"
        pixels = np.asarray(opened(picture.content))
        assert list(pixels.shape[::-1]) == column["size"]
        left, top, right, bottom = column["strongest"][0]["box"]
        row, across = column["strongest"][0]["peak"]
        assert pixels[top:bottom, left:right][row, across] == pixels[top:bottom, left:right].max() == 255


def test_an_item_is_seen_as_its_own_file_is(client: TestClient) -> None:
    file = client.get("/items/3/image").content
    sent, kept = send(client, "/activations?layer=conv3", file).json(), client.post("/activations?layer=conv3&id=3").json()
    assert kept.pop("index_version") == 1
    assert sent.pop("index_version") is None
    assert (sent.pop("name"), kept.pop("name")) == ("0.jpg", "3")
    assert sent == kept
    as_json = client.post("/activations?layer=conv3", json={"inputs": [{"id": 3}]}).json()
    assert as_json["columns"] == kept["columns"]


def test_few_of_the_items_own_files_are_in_memory_at_once(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    real, guard, here, most = subjects._original, threading.Lock(), [0], [0]

    def read(*given: Any) -> bytes:
        with guard:
            here[0] += 1
            most[0] = max(most[0], here[0])
        return real(*given)

    def decoded(*given: Any) -> Any:
        time.sleep(0.05)
        with guard:
            here[0] -= 1
        return decode(*given)

    monkeypatch.setattr(subjects, "_original", read)
    monkeypatch.setattr(engines, "decode", decoded)
    with ThreadPoolExecutor(16) as callers:
        answers = list(callers.map(lambda _: client.post("/activations?id=3"), range(16)))
    assert {answer.status_code for answer in answers} == {200}
    assert most[0] <= engines._ORIGINALS


def test_photographs_are_classified_between_the_activations_of_two(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go, order = threading.Event(), threading.Event(), list[str]()
    real_answers = Model.answers

    def held(*given: Any) -> Any:
        order.append("maps")
        begun.set()
        assert go.wait(60)
        return activations(*given)

    def classified(*given: Any) -> Any:
        order.append("classes")
        return real_answers(*given)

    monkeypatch.setattr("training.analysis.activations.activations", held)
    monkeypatch.setattr(Model, "answers", classified)
    engine = client.app.state.engine  # type: ignore[attr-defined]
    with ThreadPoolExecutor(4) as callers:
        looked = [callers.submit(client.post, "/activations?id=3") for _ in range(3)]
        try:
            assert begun.wait(60)
            end = time.monotonic() + 60
            while len(engine._single._waiters or ()) < 2:
                assert time.monotonic() < end
                time.sleep(0.01)
            queued, consider = threading.Event(), engine._network.consider

            def noted() -> None:
                consider()
                if engine._network._waiting:
                    queued.set()

            monkeypatch.setattr(engine._network, "consider", noted)
            short = callers.submit(send, client, "/classify", PHOTO)
            assert queued.wait(60)
        finally:
            go.set()
        assert {one.result(60).status_code for one in (*looked, short)} == {200}
    assert order == ["maps", "classes", "maps", "maps"]


def test_the_ten_views_say_what_classify_says_and_are_shown(client: TestClient) -> None:
    answer = send(client, "/views?top=2", PHOTO).json()
    [of_classify] = send(client, "/classify?views=10&per_view=true&top=2", PHOTO).json()["results"]
    assert answer["classes"] == of_classify["classes"]
    assert [{name: view[name] for name in ("corner", "mirrored", "classes")} for view in answer["views"]] == of_classify["views"]
    picture = np.asarray(opened(send(client, "/views.png", PHOTO).content)).astype(int)
    assert picture.shape == (2 * 224 + 4, 5 * 224 + 4 * 4, 3)
    square = decode(PHOTO, ImageLimits()).pixels_CHW.permute(1, 2, 0).numpy()
    left, top, right, bottom = answer["views"][8]["box"]
    np.testing.assert_array_equal(picture[top:bottom, left:right], square[16:240, 16:240])


@pytest.mark.parametrize(
    "path", ["/activations", "/activations.png", "/views", "/views.png", "/occlusion", "/explain?neighbor=1"]
)
def test_it_is_about_one_photograph_that_is_there(client: TestClient, path: str) -> None:
    mark = "&" if "?" in path else "?"
    assert_problem(client.post(path), 422, "neither an image nor an id")
    assert_problem(send(client, f"{path}{mark}id=3", PHOTO), 422, "both an image and an id")
    assert_problem(send(client, path, PHOTO, PHOTO), 422, "one photograph", "2 inputs")
    assert_problem(client.post(f"{path}{mark}id=999"), 404, "999")
    assert_problem(client.post(path, json={"inputs": [{"vector": [1.0] * 32}]}), 422, "a photograph or an id")
    assert_problem(send(client, path, b"no photograph"), 415)
    assert_problem(send(client, f"{path}{mark}colour=red", PHOTO), 422, "colour")


def test_what_a_layer_has_not_is_said(client: TestClient) -> None:
    assert_problem(send(client, "/activations?layer=fc9", PHOTO), 422, "layer", "fc9")
    assert_problem(send(client, "/activations.png?scale=5", PHOTO), 422, "scale")
    assert_problem(send(client, "/activations?top=101", PHOTO), 422, "top")


def test_a_model_of_one_column_has_no_second(tmp_path: Path) -> None:
    net = AlexNet(SmallConfig(classes=3, columns=1))
    initialise(net, "fan-in", seed=1)
    checkpoint.save(tmp_path, net, ["a", "b", "c"], torch.full((3, 256, 256), 110.0))
    with TestClient(create_app(ServiceSettings(model=tmp_path, index=tmp_path / "none", deadline_ms=600_000))) as client:
        assert len(send(client, "/activations", PHOTO).json()["columns"]) == 1
        assert_problem(send(client, "/activations.png?column=1", PHOTO), 404, "no column 1", "it has 1")
        assert_problem(client.post("/activations?id=1"), 503, "indexer.build")
