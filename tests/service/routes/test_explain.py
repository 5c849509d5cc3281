"""What parts of a photograph decide, over HTTP: as one window at a time by hand has it, and others are answered meanwhile."""

import base64
import io
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image

from indexer import build
from service import engine as engines
from service.app import create_app
from service.settings import ServiceSettings
from tests.service.calls import PHOTO, assert_problem, send
from training import checkpoint
from training.analysis.occlusion import BATCH, LARGE, SMALL, Cells, mean_changes, windows, worth
from training.checkpoint import Model
from training.images.preprocess import ImageLimits, decode


@pytest.fixture(scope="module")
def client(model: Path, index: Path) -> Iterator[TestClient]:
    with TestClient(create_app(ServiceSettings(model=model, index=index, deadline_ms=600_000))) as client:
        yield client


def covered_by_hand(model: Model, data: bytes, cells_WGG: Cells) -> list[torch.Tensor]:
    """The view of a photograph, and then with each window set to the training mean, one after the other."""
    pixels = decode(data, ImageLimits()).pixels_CHW.float()
    found = []
    for cells in [np.zeros((8, 8), np.bool_), *cells_WGG]:
        x = (pixels - model.mean_CHW)[:, 16:240, 16:240].clone()
        for row, column in zip(*np.nonzero(cells), strict=True):
            x[:, 28 * row : 28 * row + 28, 28 * column : 28 * column + 28] = 0
        found.append(x)
    return found


def shown(address: str) -> Image.Image:
    """The picture in a data: address."""
    return Image.open(io.BytesIO(base64.b64decode(address.split(",")[1])))


@torch.inference_mode()
def test_the_class_falls_as_with_one_window_covered_at_a_time(client: TestClient, model: Path) -> None:
    loaded = checkpoint.load(model)
    answer = send(client, "/occlusion?class=green", PHOTO).json()
    chances = [float(loaded.net(x[None])[0].softmax(0)[1]) for x in covered_by_hand(loaded, PHOTO, windows(LARGE))]
    assert (answer["model"], answer["layer"], answer["class"], answer["windows"]) == (
        loaded.fingerprint,
        "fc8",
        "green",
        len(windows(LARGE)),
    )
    assert answer["probability"] == pytest.approx(chances[0], abs=1e-5)
    assert answer["lowest"] == pytest.approx(min(chances[1:]), abs=1e-5)
    expected = mean_changes(chances[0] - np.array(chances[1:]), windows(LARGE))
    np.testing.assert_allclose(answer["heat"]["grid"], expected, atol=1e-5)
    worst = windows(LARGE)[int(np.argmin(chances[1:]))]
    left, top, right, bottom = (round(8 * (256 * share - 16) / 224) for share in answer["covered"])
    assert worst[top:bottom, left:right].all()
    assert worst.sum() == (bottom - top) * (right - left)
    assert shown(answer["heat"]["photograph"]).size == shown(answer["heat"]["overlay"]).size == (256, 256)


def test_the_class_is_the_most_probable_where_none_is_named(client: TestClient) -> None:
    [best] = send(client, "/classify?top=1", PHOTO).json()["results"][0]["classes"]
    answer = send(client, "/occlusion", PHOTO).json()
    assert answer["class"] == best["class"]
    assert answer["probability"] == pytest.approx(best["probability"], abs=1e-5)
    assert_problem(send(client, "/occlusion?class=mauve", PHOTO), 404, "'mauve'", "/info")


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_two_are_near_as_one_window_covered_at_a_time_says(model: Path, images: Path, tmp_path: Path, metric: str) -> None:
    build.main(build.BuildSettings(model=model, data=images, index=tmp_path, part="train", metric=metric))
    loaded = checkpoint.load(model)
    with TestClient(create_app(ServiceSettings(model=model, index=tmp_path, deadline_ms=600_000))) as client:
        [nearest] = send(client, "/neighbors?k=1&mode=exact", PHOTO).json()["results"][0]["neighbors"]
        answer = send(client, f"/explain?neighbor={nearest['id']}", PHOTO).json()
        swapped = client.post(f"/explain?id={nearest['id']}&neighbor={nearest['id']}").json()
        other = client.get(nearest["image"]).content
        store = client.app.state.engine.pair.store  # type: ignore[attr-defined]
        stored = dict(zip(store.ids().tolist(), store.vectors(store.ids().tolist()).astype(np.float64), strict=True))
    assert (answer["model"], answer["layer"], answer["index_version"]) == (loaded.fingerprint, "fc7", 1)
    assert answer["metric"] == metric
    assert answer["distance"] == pytest.approx(nearest["distance"], rel=1e-3, abs=1e-6)
    with torch.inference_mode():
        features = [
            np.stack([loaded.net.features(x[None])[0].double().numpy() for x in covered_by_hand(loaded, data, windows(SMALL))])
            for data in (PHOTO, other)
        ]
    if metric == "cosine":
        features = [of / np.linalg.norm(of, axis=1, keepdims=True) for of in features]
    ids = sorted(stored)
    spread = [ids[round(i)] for i in np.linspace(0, len(ids) - 1, len(ids)).tolist()]
    for side, covered, whole in (("query", features[0], features[1][0]), ("neighbor", features[1], features[0][0])):
        rest = [stored[item] for item in spread if item != nearest["id"]]
        growths = []
        for x in covered:
            apart = np.array([np.linalg.norm(x - y) for y in (whole, *rest)])
            before = np.array([np.linalg.norm(covered[0] - y) for y in (whole, *rest)])
            growth = apart - before if metric == "euclidean" else (apart**2 - before**2) / 2
            growths.append(growth[0] - growth[1:].mean())
        expected = worth(np.array(growths[1:]), windows(SMALL))
        np.testing.assert_allclose(answer[side]["grid"], expected, rtol=2e-3, atol=1e-3 * np.abs(expected).max())
    assert (answer["query"]["id"], answer["neighbor"]["id"]) == (None, nearest["id"])
    assert swapped["distance"] == pytest.approx(0, abs=1e-3)
    assert swapped["query"]["grid"] == swapped["neighbor"]["grid"]


def test_a_neighbour_that_is_not_there_is_404_and_one_must_be_named(client: TestClient) -> None:
    assert_problem(send(client, "/explain?neighbor=999", PHOTO), 404, "999")
    assert_problem(send(client, "/explain", PHOTO), 422, "neighbor")


@pytest.mark.parametrize("path", ["/occlusion", "/explain?neighbor=2", "/invariance"])
def test_who_finds_no_place_is_told_before_the_photograph_is_decoded(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    decoded = list[bytes]()
    monkeypatch.setattr(engines, "_MOST_LONG", 0)
    monkeypatch.setattr(engines, "decode", lambda data, _limits: decoded.append(data))
    answer = send(client, path, PHOTO)
    assert_problem(answer, 503, "many passes")
    assert answer.headers["Retry-After"]
    assert not decoded


def test_others_are_answered_between_its_batches_and_more_than_a_few_are_sent_away(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, begun, go, sizes = Model.answers_of_views, threading.Event(), threading.Event(), list[int]()

    def held(model: Model, x_VCHW: torch.Tensor) -> Any:
        sizes.append(len(x_VCHW))
        if len(x_VCHW) > 10 and not begun.is_set():
            begun.set()
            assert go.wait(60)
        return real(model, x_VCHW)

    monkeypatch.setattr(Model, "answers_of_views", held)
    monkeypatch.setattr(engines, "_MOST_LONG", 1)
    network, queued = client.app.state.engine._network, threading.Event()  # type: ignore[attr-defined]
    consider = network.consider

    def noted() -> None:
        consider()
        if network._waiting:
            queued.set()

    monkeypatch.setattr(network, "consider", noted)
    with ThreadPoolExecutor(2) as others:
        long = others.submit(send, client, "/occlusion", PHOTO)
        try:
            assert begun.wait(60)
            assert_problem(send(client, "/occlusion", PHOTO), 503, "many passes")
            short = others.submit(send, client, "/classify", PHOTO)
            assert queued.wait(60)
        finally:
            go.set()
        assert short.result(60).status_code == long.result(60).status_code == 200
    assert sizes[:2] == [BATCH, 1], "what came meanwhile goes before the next batch"
