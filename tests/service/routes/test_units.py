"""The units over HTTP: what excites each, as pictures too; nothing of items that are removed; 404 without an atlas."""

import io
import math
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from indexer.index import open_index
from service import engine as engines
from service.app import create_app
from service.routes import crops, units
from service.settings import ServiceSettings
from tests.service.calls import PHOTO, assert_problem
from training import checkpoint
from training.images.preprocess import ImageLimits, decode

PATIENCE_MS = 600_000  # on a busy machine too
LAYERS = {"conv1": 4, "conv2": 6, "conv3": 8, "conv4": 8, "conv5": 6, "fc6": 16, "fc7": 16}  # of the small network's columns


@pytest.fixture(scope="module")
def client(model: Path, atlas_index: Path) -> Iterator[TestClient]:
    with TestClient(
        create_app(ServiceSettings(model=model, index=atlas_index, deadline_ms=PATIENCE_MS)), raise_server_exceptions=False
    ) as client:
        yield client


def answer(client: TestClient, path: str) -> dict[str, Any]:
    response = client.get(path)
    assert response.status_code == 200, response.text
    return dict(response.json())


def entropy(labels: list[str]) -> float:
    return sum(-count / len(labels) * math.log2(count / len(labels)) for count in Counter(labels).values())


def test_the_layers_are_told_with_the_units_whose_photographs_have_most_in_common(client: TestClient, model: Path) -> None:
    body = answer(client, "/units")
    assert (body["model"], body["index_version"], body["note"]) == (checkpoint.load(model).fingerprint, 1, None)
    assert body["atlas"] == {"photographs": 24, "kept": 16, "removed": 0, "since": 0}
    told = {layer["layer"]: (layer["columns"], layer["units"]) for layer in body["layers"]}
    assert told == {name: (2, units) for name, units in LAYERS.items()} | {"fc8": (1, 3)}
    assert [layer["field"] for layer in body["layers"]] == [11, 51, 99, 131, 163, 224, 224, 224]
    for layer in body["layers"]:
        found = [answer(client, unit["page"].removeprefix("/#")) for unit in layer["most_selective"] + layer["least_selective"]]
        entropies = [entropy([photo["label"] for photo in unit["photographs"]]) for unit in found]
        assert [unit["activity"]["label_entropy"] for unit in found] == pytest.approx(entropies)
        assert entropies[: len(layer["most_selective"])] == sorted(entropies[: len(layer["most_selective"])])


@pytest.mark.parametrize("layer", [*LAYERS, "fc8"])
def test_a_unit_has_the_photographs_of_the_atlas_with_what_it_sees_of_them(
    client: TestClient, atlas_index: Path, layer: str
) -> None:
    opened = open_index(atlas_index)
    assert opened.atlas
    of_layer, units = opened.atlas.layers[layer], LAYERS.get(layer, 3)
    for column in (0, 1) if layer != "fc8" else (0,):
        body = answer(client, f"/units/{layer}/{column}/1")
        row = column * units + 1
        ids = [item for item in of_layer.ids_UK[row].tolist() if item >= 0]
        assert [photo["id"] for photo in body["photographs"]] == ids
        np.testing.assert_allclose(
            [photo["activation"] for photo in body["photographs"]], of_layer.activations_UK[row, : len(ids)]
        )
        activity = body["activity"]
        assert (body["layer"], body["column"], body["unit"], body["index_version"]) == (layer, column, 1, 1)
        assert activity["active"] == of_layer.active_U[row] / 24
        assert activity["dead"] == (layer != "fc8" and not of_layer.active_U[row])
        assert activity["stands_for"] == ("green" if layer == "fc8" else None)
        assert (body["kernel"] is None) == (body["picture"] is None) == (layer != "conv1")
        labels = [photo["label"] for photo in body["photographs"]]
        if labels:
            assert activity["label_share"] == max(Counter(labels).values()) / len(labels)
            assert Counter(labels)[activity["label"]] == max(Counter(labels).values())
        for photo in body["photographs"][:2]:
            left, top, right, bottom = (round(256 * share) for share in photo["box"])
            original = Path(opened.items([photo["id"]])[0].root) / photo["path"]
            pixels = decode(original.read_bytes(), ImageLimits()).pixels_CHW.permute(1, 2, 0).numpy()[top:bottom, left:right]
            crop = np.asarray(Image.open(io.BytesIO(client.get(photo["crop"]).content)))
            factor = crop.shape[0] // pixels.shape[0]
            assert np.array_equal(crop, pixels.repeat(factor, 0).repeat(factor, 1))


def test_the_units_of_a_column_come_page_by_page_in_the_order_asked_for(client: TestClient) -> None:
    for order in ("index", "selectivity", "active", "maximum"):
        whole = answer(client, f"/units/fc6/1?order={order}")
        assert (whole["of"], whole["next"], len(whole["units"])) == (16, None, 16)
        pages: list[dict[str, Any]] = []
        page: dict[str, Any] = {"next": 0}
        while page["next"] is not None:
            page = answer(client, f"/units/fc6/1?order={order}&k=7&start={page['next']}")
            pages += page["units"]
        assert pages == whole["units"]
        key = {"index": "unit", "selectivity": "label_entropy"}.get(order, order)
        values = [unit[key] for unit in pages if unit["photographs"]]
        assert values == sorted(values, reverse=order in ("active", "maximum"))
    assert answer(client, "/units/fc6/1?start=16")["units"] == []


def test_crops_come_as_one_picture_with_conditions(client: TestClient) -> None:
    for path in ("/units/conv5/0/1/crops.jpg", "/units/conv1/1/0/crops.jpg?across=2", "/units/fc7/0/0/crops.jpg?across=4"):
        response = client.get(path)
        side = 72 * int(path.partition("=")[2] or 3)
        assert Image.open(io.BytesIO(response.content)).size == (side, side)
        assert response.headers["content-type"] == "image/jpeg"
        assert client.get(path, headers={"if-none-match": response.headers["etag"]}).status_code == 304


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/units/conv5/1/6", "conv5 has no unit 6 in column 1: it has 2 column(s) of 6 units"),
        ("/units/fc8/1", "fc8 has no unit 0 in column 1: it has 1 column(s) of 3 units"),
        ("/units/fc8/0/3/crops.jpg", "fc8 has no unit 3"),
        ("/units/fc8/0/1/photographs/16.png", "unit 1 of column 0 of fc8 has no photograph 16"),
    ],
)
def test_what_is_not_there_is_404(client: TestClient, path: str, words: str) -> None:
    assert_problem(client.get(path), 404, words)


@pytest.mark.parametrize("path", ["/units/conv6/0/1", "/units/conv5/2/1", "/units/conv5/0?order=best", "/units/conv5/0?k=201"])
def test_what_cannot_be_there_is_422(client: TestClient, path: str) -> None:
    assert_problem(client.get(path), 422)


def test_without_an_atlas_the_command_is_named_and_kernels_are_shown_all_the_same(model: Path, index: Path) -> None:
    with TestClient(create_app(ServiceSettings(model=model, index=index, deadline_ms=PATIENCE_MS))) as client:
        for path in ("/units/conv5/0/1", "/units/conv5/0", "/units/conv1/0/1/crops.jpg", "/units/fc8/0/1/photographs/0.png"):
            assert_problem(client.get(path), 404, "no atlas of its units; `python -m indexer.build --atlas` makes one")
        body = answer(client, "/units")
        assert (body["atlas"], body["index_version"]) == (None, 1)
        assert "python -m indexer.build --atlas" in body["note"]
        assert [layer["dead"] for layer in body["layers"]] == [None] * 8
        kernel = answer(client, "/units/conv1/0/1")
        assert kernel["kernel"]["unit"] == 1
        assert (kernel["atlas"], kernel["activity"], kernel["photographs"], kernel["index_version"]) == (None, None, [], 1)


def test_kernels_are_shown_without_an_index(model: Path, tmp_path: Path) -> None:
    with TestClient(create_app(ServiceSettings(model=model, index=tmp_path, deadline_ms=PATIENCE_MS))) as client:
        assert answer(client, "/units/conv1/0/1")["kernel"]["unit"] == 1
        assert_problem(client.get("/units/conv2/0/1"), 503, "no index at")
        assert answer(client, "/units")["index_version"] is None


def test_what_is_removed_is_not_shown_any_more_and_what_comes_is_told(model: Path, atlas_index: Path, tmp_path: Path) -> None:
    growing = shutil.copytree(atlas_index, tmp_path / "index", symlinks=True)
    settings = ServiceSettings(model=model, index=growing, deadline_ms=PATIENCE_MS, api_key="key")
    with TestClient(create_app(settings)) as client:
        before = answer(client, "/units/fc8/0/2")["photographs"]
        gone = before[0]["id"]
        key = {"X-API-Key": "key"}
        assert client.get(before[0]["crop"]).status_code == 200
        sheet = client.get("/units/fc8/0/2/crops.jpg").content
        assert client.delete(f"/items/{gone}", headers=key).status_code == 204
        client.post("/items", files=[("image", ("a.jpg", PHOTO))], headers=key)
        body = answer(client, "/units/fc8/0/2")
        assert body["photographs"] == before[1:]
        assert body["activity"]["photographs"] == 15
        assert body["atlas"] == {"photographs": 24, "kept": 16, "removed": 1, "since": 1}
        assert_problem(client.get(before[0]["crop"]), 404, "no photograph 0 that is still in the index")
        assert client.get(before[1]["crop"]).status_code == 200
        assert client.get("/units/fc8/0/2/crops.jpg").content != sheet
        for layer in answer(client, "/units")["layers"]:
            for column in range(layer["columns"]):
                for unit in range(3):
                    shown = answer(client, f"/units/{layer['layer']}/{column}/{unit}")["photographs"]
                    assert gone not in [photo["id"] for photo in shown]


def test_where_the_photograph_itself_is_gone_its_thumbnail_is_cut(
    model: Path, images: Path, atlas_index: Path, tmp_path: Path
) -> None:
    lonely = shutil.copytree(atlas_index, tmp_path / "index", symlinks=True)
    with TestClient(create_app(ServiceSettings(model=model, index=lonely, deadline_ms=PATIENCE_MS))) as client:
        [photo, *_] = answer(client, "/units/fc7/0/1")["photographs"] or answer(client, "/units/fc7/0/2")["photographs"]
        [item] = open_index(lonely).items([photo["id"]])
        hidden = Path(item.root) / item.path
        moved = hidden.rename(tmp_path / "moved.jpg")
        try:
            crop = Image.open(io.BytesIO(client.get(photo["crop"]).content))
        finally:
            moved.rename(hidden)
        thumbnail = Image.open(io.BytesIO(client.get(photo["thumbnail"]).content)).resize((256, 256), Image.Resampling.BICUBIC)
        assert crop.tobytes() == thumbnail.crop((16, 16, 240, 240)).tobytes()


def test_more_than_a_few_that_wait_for_crops_are_sent_away(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go, real = threading.Event(), threading.Event(), crops.sheet

    def held(*given: Any) -> bytes:
        begun.set()
        assert go.wait(60)
        return real(*given)

    monkeypatch.setattr(crops, "sheet", held)
    monkeypatch.setattr(engines, "_MOST_SLOW", 1)
    with ThreadPoolExecutor(1) as caller:
        first = caller.submit(client.get, "/units/conv4/1/6/crops.jpg?across=1")
        try:
            assert begun.wait(60)
            assert_problem(client.get("/units/conv4/1/7/crops.jpg?across=1"), 503, "1 requests wait")
        finally:
            go.set()
        assert first.result(60).status_code == 200
    assert client.get("/units/conv4/1/7/crops.jpg?across=1").status_code == 200


@pytest.mark.parametrize("path", ["/units", "/units/fc7/0?k=200"])
def test_many_units_are_not_put_into_words_by_the_thread_that_all_wait_for(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    real, threads = units._activity, set[str]()

    def noted(*given: Any) -> Any:
        threads.add(threading.current_thread().name)
        return real(*given)

    monkeypatch.setattr(units, "_activity", noted)
    assert client.get(path).status_code == 200
    assert threads == {"answer_0"}


def test_crops_are_drawn_once_for_all_who_ask_and_others_are_answered_meanwhile(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go, drawn = threading.Event(), threading.Event(), []
    real = crops.sheet

    def held(*given: Any) -> bytes:
        drawn.append(given)
        begun.set()
        assert go.wait(60)
        return real(*given)

    monkeypatch.setattr(crops, "sheet", held)
    with ThreadPoolExecutor(8) as callers:
        asked = [callers.submit(client.get, "/units/conv4/1/5/crops.jpg?across=1") for _ in range(6)]
        try:
            assert begun.wait(60)
            assert client.get("/items/0/thumbnail").status_code == 200
        finally:
            go.set()
        assert {response.result().status_code for response in asked} == {200}
    assert len(drawn) == 1
