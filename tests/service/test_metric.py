"""An index by cosine, served: what answers and /info say, bounds, near-duplicates, pages, and features of zeros."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from sklearn.metrics.pairwise import cosine_distances

from indexer import build
from indexer.arrays import Vectors
from indexer.features import FeatureBlock, feature_block
from indexer.opening import open_store
from indexer.storage import artifact
from service import engine
from service.app import create_app
from service.client import FC7
from service.engine import Engine
from service.settings import ServiceSettings
from tests.conftest import COLOURS, encoded, photograph
from tests.service.calls import PHOTO, assert_problem, send
from training.checkpoint import Model
from training.images.folders import ReadResult

HEADERS = {"X-API-Key": "secret"}
OTHER = encoded(photograph(79, COLOURS["green"]))
DIRECTION = "must be something with a direction, since metric=cosine compares directions, got 'a feature of zeros'"


@pytest.fixture
def folder(tmp_path: Path, model: Path, images: Path) -> Path:
    """An index by cosine of the training part of `images`."""
    build.main(build.BuildSettings(model=model, data=images, index=tmp_path / "index", part="train", metric="cosine"))
    return tmp_path / "index"


@pytest.fixture
def client(model: Path, folder: Path) -> Iterator[TestClient]:
    with TestClient(create_app(ServiceSettings(model=model, index=folder, api_key="secret", max_neighbors=50))) as client:
        yield client


@pytest.fixture
def angles(index: Path) -> np.ndarray:
    """Cosine distances of the items from each other, by the features in an index that has them whole: float64 (24, 24)."""
    store = open_store(index)
    distances: np.ndarray = cosine_distances(store.vectors(range(24)).astype(np.float64))
    store.close()
    return distances


def test_answers_are_by_angle_and_say_so(client: TestClient, angles: np.ndarray) -> None:
    assert client.get("/info").json()["index"]["metric"] == "cosine"
    for mode in ("exact", "two-stage"):
        body = client.post(f"/neighbors?id=5&k=24&mode={mode}").json()
        assert (body["mode"], body["metric"]) == (mode, "cosine")
        found = {hit["id"]: hit["distance"] for hit in body["results"][0]["neighbors"]}
        assert list(found) == np.argsort(angles[5], kind="stable").tolist()
        np.testing.assert_allclose([found[item] for item in range(24)], angles[5], atol=1e-6)
        assert found[5] == 0
    assert client.post("/neighbors?id=5&mode=code").json()["metric"] == "hamming"
    with FC7("http://testserver", transport=client._transport) as fc7:
        assert fc7.info()["index"]["metric"] == "cosine"
        assert [hit["id"] for hit in fc7.neighbors(5, k=24)[0]["neighbors"]] == list(found)


def test_bounds_are_cosine_distances_of_at_most_2(client: TestClient, angles: np.ndarray) -> None:
    limit = float(np.sort(angles[5])[9]) + 1e-6
    found = client.post(f"/neighbors?id=5&k=24&max_distance={limit}").json()["results"][0]["neighbors"]
    assert [hit["id"] for hit in found] == np.argsort(angles[5], kind="stable")[:10].tolist()
    for mode in ("exact", "two-stage"):
        assert_problem(client.post(f"/neighbors?id=5&mode={mode}&max_distance=2.1"), 422, "max_distance", "at most 2")
    assert client.post("/neighbors?id=5&mode=code&max_distance=60").status_code == 200
    assert_problem(client.get("/items/5/duplicates?max_distance=3"), 422, "max_distance", "at most 2")


def test_pages_of_an_upload_and_of_a_vector_give_everything_once_and_in_order(client: TestClient) -> None:
    vector = (np.random.default_rng(0).normal(size=32) * 1e-5).tolist()
    for content in ({"files": {"image": PHOTO}}, {"json": {"inputs": [{"vector": vector}]}}):
        found: list[Any] = []
        cursor: str | None = ""
        while cursor is not None:
            query = "k=7" + (f"&cursor={cursor}" if cursor else "")
            [page] = client.post(f"/neighbors?{query}", **content).json()["results"]
            found += [(hit["distance"], hit["id"]) for hit in page["neighbors"]]
            cursor = page["next"]
        assert found == sorted(found)
        assert sorted(item for _, item in found) == list(range(24))


def test_a_cursor_of_an_index_with_another_metric_is_refused(client: TestClient, model: Path, index: Path) -> None:
    with TestClient(create_app(ServiceSettings(model=model, index=index))) as other:
        cursor = other.post("/neighbors?id=2&k=5").json()["results"][0]["next"]
    assert_problem(client.post(f"/neighbors?id=2&k=5&cursor={cursor}"), 422, "cursor", "this same question")


def test_a_query_of_zeros_is_an_error_of_its_own(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = [{"vector": [0] * 32}, {"vector": [1] * 32}, {"vector": [1e-60] * 32}]
    results = client.post("/neighbors?k=2", json={"inputs": inputs}).json()["results"]
    assert [result["neighbors"] and len(result["neighbors"]) for result in results] == [None, 2, None]
    assert (results[0]["error"]["status"], results[0]["error"]["detail"]) == (422, f"vector {DIRECTION}")
    for mode in ("exact", "code", "two-stage", "ball&radius=3"):
        assert_problem(client.post(f"/neighbors?mode={mode}", json={"inputs": inputs[:1]}), 422, f"vector {DIRECTION}")

    async def zeros(*_: object) -> Vectors:
        return np.zeros(32, np.float32)

    monkeypatch.setattr(Engine, "feature", zeros)
    assert_problem(send(client, "/neighbors", PHOTO), 422, f"image {DIRECTION}")


def test_a_photograph_whose_feature_is_zeros_is_not_added_and_leaves_no_file(
    client: TestClient, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_zeros(model: Model, reads: Iterator[ReadResult], with_pixels: bool) -> FeatureBlock:
        made = feature_block(model, reads, with_pixels)
        made.features_ND[0] = 0
        return made

    monkeypatch.setattr(engine, "feature_block", with_zeros)
    files = [("image", (f"{i}.jpg", data)) for i, data in enumerate([PHOTO, OTHER, PHOTO])]
    body = client.post("/items", files=files, headers=HEADERS).json()
    assert [(result["id"], result["known"]) for result in body["results"]] == [(None, None), (24, False), (None, None)]
    assert body["results"][0]["error"]["detail"] == f"image {DIRECTION}"
    assert len(list((folder / artifact.UPLOADS).iterdir())) == 1
    assert_problem(client.post("/items", files=files[:1], headers=HEADERS), 422, f"image {DIRECTION}")
    info = client.get("/info").json()["index"]
    assert (info["items"], info["rejected"], info["version"]) == (25, 0, 2)
