"""Answers tell what distances mean where the index is calibrated, and else what makes it so; the report is what was measured."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from indexer.index import open_index
from indexer.search.calibration import scale_of
from indexer.storage import artifact
from indexer.storage import calibration as stored
from service.app import create_app
from service.settings import ServiceSettings
from tests.indexer.test_damaged_files import plant
from tests.service.calls import PHOTO, assert_problem, send

KEY = {"X-API-Key": "a key"}
HOW = "python -m indexer.calibrate"


@pytest.fixture
def growing(calibrated: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(calibrated, tmp_path / "index", symlinks=True))


@pytest.fixture
def client(model: Path, growing: Path) -> Iterator[TestClient]:
    settings = ServiceSettings(model=model, index=growing, api_key=KEY["X-API-Key"])
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


def test_distances_of_one_column_or_by_another_metric_are_not_told_by_the_scale_of_whole_features(client: TestClient) -> None:
    body = client.post("/neighbors?id=5&columns=0").json()
    assert (
        body["uncalibrated"] == "only distances of whole features, by the index's metric, are calibrated; columns=both has them"
    )
    assert {(hit["percentile"], hit["same_class"]) for hit in body["results"][0]["neighbors"]} == {(None, None)}
    told = {row["way"]: row["neighbors"] for row in client.post("/compare?id=5").json()["ways"]}
    assert all(hit["percentile"] is not None for hit in told["euclidean"])
    for way in ("angle", "column-0", "column-1", "colours"):
        assert {hit["percentile"] for hit in told[way]} == {None}


@pytest.mark.parametrize(("mode", "measure"), [("exact", "euclidean"), ("two-stage", "euclidean"), ("code", "hamming")])
def test_each_neighbor_has_its_percentile_and_the_probability_of_the_same_class(
    client: TestClient, growing: Path, mode: str, measure: str
) -> None:
    store = open_index(growing)
    record = stored.read(store).of("hamming" if measure == "hamming" else "euclidean")
    assert record is not None
    body = client.post(f"/neighbors?id=5&k=24&mode={mode}").json()
    neighbors = body["results"][0]["neighbors"]
    assert "uncalibrated" not in body
    for neighbor in neighbors:
        counted = 100 * sum(distance <= neighbor["distance"] for distance in record.random) / len(record.random)
        assert neighbor["percentile"] == pytest.approx(counted, abs=1e-3)
    chances = [neighbor["same_class"] for neighbor in neighbors]
    assert chances == sorted(chances, reverse=True)
    if measure == "euclidean":
        vectors_ND = store.vectors(stored.read(store).sample).astype(np.float64)
        own = np.sqrt(np.square(vectors_ND - store.vectors([5])[0]).sum(1))
        steps = [(neighbor["distance"] - own.mean()) / own.std() for neighbor in neighbors]
        np.testing.assert_allclose(chances, np.interp(steps, record.steps, record.chances), atol=2e-3)
    store.close()


def test_pages_and_photographs_are_told_alike(client: TestClient) -> None:
    whole = send(client, "/neighbors?k=20", PHOTO).json()["results"][0]
    first = send(client, "/neighbors?k=10", PHOTO).json()["results"][0]
    second = send(client, f"/neighbors?k=10&cursor={first['next']}", PHOTO).json()["results"][0]
    told = [(neighbor["id"], neighbor["percentile"], neighbor["same_class"]) for neighbor in whole["neighbors"]]
    assert [(n["id"], n["percentile"], n["same_class"]) for n in (*first["neighbors"], *second["neighbors"])] == told
    near = client.get("/items/5/duplicates?max_distance=1000&k=3").json()
    assert all(neighbor["same_class"] is not None for neighbor in near["neighbors"])


def test_of_several_examples_no_class_is_told(client: TestClient) -> None:
    for body, known in (({"like": [{"id": 1}]}, True), ({"like": [{"id": 1}, {"id": 2}]}, False)):
        [answer] = client.post("/neighbors?k=3", json={"inputs": [body]}).json()["results"]
        assert [neighbor["same_class"] is not None for neighbor in answer["neighbors"]] == [known] * 3
        assert all(0 <= neighbor["percentile"] <= 100 for neighbor in answer["neighbors"])


def test_by_one_column_nothing_is_told(client: TestClient) -> None:
    body = client.post("/neighbors?id=5&k=2&columns=0").json()
    assert "columns=both" in body["uncalibrated"]
    assert [neighbor["same_class"] for neighbor in body["results"][0]["neighbors"]] == [None, None]


def test_the_report_is_what_was_measured_and_what_came_since(client: TestClient, growing: Path) -> None:
    store = open_index(growing)
    record = stored.read(store)
    body = client.get("/reports/calibration").json()
    assert (body["model"], body["index_version"], body["measured_version"]) == (store.fingerprint, 2, 1)
    assert (body["items"], body["added"], body["queries"]) == (24, 0, list(record.queries))
    euclidean, hamming = body["distances"]
    assert (euclidean["measure"], hamming["measure"]) == ("euclidean", "hamming")
    assert (euclidean["steps"], euclidean["chances"]) == (record.distances[0].steps, record.distances[0].chances)
    assert (len(euclidean["random"]), euclidean["random"][0]) == (101, record.distances[0].random[0])
    assert euclidean["measurements"][1]["error"] == record.distances[0].measurements[1].error
    assert set(euclidean["measurements"][0]["others"]) == {"base rate", "logistic", "raw distance", "leave-one-out"}
    picture = client.get(body["picture"])
    assert picture.headers["content-type"] == "image/png"
    assert picture.content == (store.folder / artifact.RELIABILITY).read_bytes()
    store.close()
    added = client.post("/items", files=[("image", ("new.jpg", PHOTO))], headers=KEY)
    assert added.status_code == 200, added.text
    after = client.get("/reports/calibration").json()
    assert (after["index_version"], after["measured_version"], after["added"], after["items"]) == (3, 1, 1, 24)
    assert client.post("/neighbors?id=5&k=1").json()["results"][0]["neighbors"][0]["same_class"] is not None


def test_what_is_not_calibrated_says_what_makes_it_so(model: Path, index: Path) -> None:
    with TestClient(create_app(ServiceSettings(model=model, index=index))) as client:
        body = client.post("/neighbors?id=5&k=2").json()
        assert HOW in body["uncalibrated"]
        assert [(n["percentile"], n["same_class"]) for n in body["results"][0]["neighbors"]] == [(None, None)] * 2
        assert HOW in client.get("/items/5/duplicates?max_distance=1000").json()["uncalibrated"]
        assert_problem(client.get("/reports/calibration"), 404, HOW)
        assert_problem(client.get("/reports/calibration.png"), 404, HOW)


def test_a_calibration_of_another_model_is_told_and_searches_go_on(model: Path, growing: Path) -> None:
    content = json.loads((artifact.current(growing) / artifact.CALIBRATION).read_text())
    plant(growing, artifact.CALIBRATION, json.dumps({**content, "fingerprint": "another"}).encode())
    with TestClient(create_app(ServiceSettings(model=model, index=growing)), raise_server_exceptions=False) as client:
        body = client.post("/neighbors?id=5&k=2").json()
        assert "of the model another" in body["uncalibrated"]
        assert len(body["results"][0]["neighbors"]) == 2
        assert_problem(client.get("/reports/calibration"), 503, "of the model another", HOW)


def test_what_is_kept_of_a_store_goes_with_it(growing: Path) -> None:
    store = open_index(growing)
    assert scale_of(store, "exact") is scale_of(store, "two-stage")
    assert scale_of(store, "code") is scale_of(store, "ball")
    store.close()
