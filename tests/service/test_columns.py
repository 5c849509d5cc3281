"""Neighbours by one column alone, and indexes of other layers than FC7, over HTTP: by brute force on what the index holds."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient

from indexer import build
from indexer.opening import open_store
from service.app import create_app
from service.client import FC7
from service.settings import ServiceSettings
from tests.conftest import COLOURS, SmallConfig
from tests.service.calls import PHOTO, assert_problem, send
from training import checkpoint
from training.checkpoint import FeatureLayer
from training.images.preprocess import ImageLimits, decode
from training.network.alexnet import AlexNet
from training.network.initialisation import initialise

HEADERS = {"X-API-Key": "secret"}
HALVES = {"0": slice(0, 16), "1": slice(16, 32), "both": slice(0, 32)}


@pytest.fixture(scope="module")
def client(model: Path, index: Path) -> Iterator[TestClient]:
    with TestClient(create_app(ServiceSettings(model=model, index=index))) as client:
        yield client


@pytest.mark.parametrize("columns", ["0", "1", "both"])
def test_neighbours_of_a_column_are_by_its_half_for_items_uploads_and_pages(
    client: TestClient, model: Path, index: Path, columns: str
) -> None:
    store = open_store(index)
    x_ND = store.vectors(range(24)).astype(np.float64)
    half = HALVES[columns]
    expected = np.linalg.norm(x_ND[:, half] - x_ND[5, half], axis=1)
    body = client.post(f"/neighbors?id=5&k=24&columns={columns}").json()
    assert (body["columns"], body["mode"], body["layer"], body["metric"]) == (columns, "exact", "fc7", "euclidean")
    found = body["results"][0]["neighbors"]
    assert [hit["id"] for hit in found] == np.argsort(expected, kind="stable").tolist()
    np.testing.assert_allclose([hit["distance"] for hit in found], np.sort(expected), rtol=1e-5, atol=1e-4)
    first = client.post(f"/neighbors?id=5&k=10&columns={columns}").json()["results"][0]
    second = client.post(f"/neighbors?id=5&k=14&columns={columns}&cursor={first['next']}").json()["results"][0]
    assert first["neighbors"] + second["neighbors"] == found
    upload = send(client, f"/neighbors?k=24&columns={columns}", PHOTO).json()["results"][0]["neighbors"]
    query_D = checkpoint.load(model).fc7(decode(PHOTO, ImageLimits()).pixels_CHW[None])[0].double().numpy()
    distances = np.linalg.norm(x_ND[:, half] - query_D[half], axis=1)
    np.testing.assert_allclose([hit["distance"] for hit in upload], np.sort(distances), rtol=1e-4, atol=1e-4)
    with FC7("http://testserver", transport=client._transport) as fc7:
        assert fc7.neighbors(5, k=24, columns=columns)[0]["neighbors"] == found


def test_a_cursor_is_of_its_columns(client: TestClient) -> None:
    following = client.post("/neighbors?id=5&k=5&columns=0").json()["results"][0]["next"]
    assert_problem(client.post(f"/neighbors?id=5&k=5&columns=1&cursor={following}"), 422, "cursor", "this same question")


@pytest.mark.parametrize("mode", ["code", "two-stage", "ball&radius=3"])
def test_only_exact_search_compares_a_column(client: TestClient, mode: str) -> None:
    answer = client.post(f"/neighbors?id=5&columns=0&mode={mode}")
    assert_problem(answer, 422, "mode", "exact with columns=0: codes and short-lists are of whole features")
    assert client.post("/neighbors?id=5&columns=0&mode=auto").json()["mode"] == "exact"


def test_columns_that_are_none_are_named(client: TestClient) -> None:
    assert_problem(client.post("/neighbors?id=5&columns=2"), 422, "columns", "'0', '1' or 'both'")


@pytest.fixture
def one_column(tmp_path: Path, images: Path) -> Iterator[TestClient]:
    """A service whose network has one column."""
    net = AlexNet(SmallConfig(classes=3, columns=1))
    initialise(net, "fan-in", seed=1)
    checkpoint.save(tmp_path / "model", net, sorted(COLOURS), torch.full((3, 256, 256), 110.0))
    build.main(build.BuildSettings(model=tmp_path / "model", data=images, index=tmp_path / "index", part="test", bits=0))
    with TestClient(create_app(ServiceSettings(model=tmp_path / "model", index=tmp_path / "index"))) as client:
        yield client


def test_a_network_of_one_column_says_so(one_column: TestClient) -> None:
    answer = one_column.post("/neighbors?id=1&columns=1")
    assert_problem(answer, 422, "columns", "both, or left out: the network of this index has one column")
    assert one_column.post("/neighbors?id=1&columns=both").status_code == 200


@pytest.fixture
def in_milvus(tmp_path: Path, model: Path, images: Path) -> Iterator[TestClient]:
    """A service of an index whose items lie in a local Milvus file."""
    folder, store = tmp_path / "index", str(tmp_path / "milvus.db")
    build.main(build.BuildSettings(model=model, data=images, index=folder, part="test", store=store))
    with TestClient(create_app(ServiceSettings(model=model, index=folder))) as client:
        yield client


@pytest.mark.parametrize("served", ["client", "one_column", "in_milvus"])
def test_info_offers_the_columns_that_a_search_takes(served: str, request: pytest.FixtureRequest) -> None:
    service: TestClient = request.getfixturevalue(served)
    answers = {columns: service.post(f"/neighbors?id=1&columns={columns}").status_code for columns in HALVES}
    assert set(answers.values()) <= {200, 422}
    assert service.get("/info").json()["index"]["columns"] == [columns for columns in HALVES if answers[columns] == 200]
    assert answers["0"] == (200 if served == "client" else 422)


@pytest.mark.parametrize("layer", ["fc6", "conv5"])
def test_an_index_of_another_layer_is_asked_and_added_to_by_it(
    tmp_path: Path, model: Path, images: Path, layer: FeatureLayer
) -> None:
    build.main(build.BuildSettings(model=model, data=images, index=tmp_path, part="train", bits=0, layer=layer))
    loaded = checkpoint.load(model).at(layer)
    feature_D = loaded.features(decode(PHOTO, ImageLimits()).pixels_CHW[None])[0].double().numpy()
    with TestClient(create_app(ServiceSettings(model=model, index=tmp_path, api_key="secret"))) as client:
        store = open_store(tmp_path)
        expected = np.linalg.norm(store.vectors(range(24)).astype(np.float64) - feature_D, axis=1)
        body = send(client, "/neighbors?k=24", PHOTO).json()
        assert (body["layer"], body["model"]) == (layer, loaded.fingerprint)
        found = {hit["id"]: hit["distance"] for hit in body["results"][0]["neighbors"]}
        np.testing.assert_allclose([found[item] for item in range(24)], expected, rtol=1e-4, atol=1e-4)
        info = client.get("/info").json()
        assert (info["index"]["layer"], info["index"]["width"]) == (layer, loaded.width)
        assert info["model"]["fingerprint"] == loaded.fingerprint
        assert client.get("/items/3/duplicates?max_distance=9").json()["layer"] == layer
        [added] = client.post("/items", files={"image": PHOTO}, headers=HEADERS).json()["results"]
        np.testing.assert_allclose(open_store(tmp_path).vectors([added["id"]])[0], feature_D, rtol=1e-4, atol=1e-4)
        short = client.post("/neighbors", json={"inputs": [{"vector": [1.0]}]})
        assert_problem(short, 422, "vector", f"as long as {'FC6' if layer == 'fc6' else 'conv5'} of this index, {loaded.width} ")


def test_a_service_goes_over_to_an_index_of_another_layer(tmp_path: Path, model: Path, images: Path) -> None:
    build.main(build.BuildSettings(model=model, data=images, index=tmp_path, part="train", bits=0))
    with TestClient(create_app(ServiceSettings(model=model, index=tmp_path, api_key="secret"))) as client:
        before = send(client, "/neighbors?k=3", PHOTO).json()
        build.main(build.BuildSettings(model=model, data=images, index=tmp_path, part="train", bits=0, layer="fc6"))
        assert client.post("/reload", headers=HEADERS).json()["changed"]
        after = send(client, "/neighbors?k=3", PHOTO).json()
        assert (before["layer"], after["layer"]) == ("fc7", "fc6")
        assert before["model"] != after["model"]
        assert client.post("/classify", files={"image": PHOTO}).json()["model"] == after["model"]
