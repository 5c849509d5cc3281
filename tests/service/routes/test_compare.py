"""One query by every way: against NumPy on what the index holds and on the photographs themselves; what a way needs."""

import io
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image
from sklearn.metrics.pairwise import cosine_distances

from indexer import build
from indexer.codes import autoencoder
from indexer.index import Index, open_index
from indexer.search import plain
from indexer.store import Query
from service.app import create_app
from service.client import FC7
from service.routes import compare
from service.settings import ServiceSettings
from tests.conftest import COLOURS, SmallConfig
from tests.service.calls import PHOTO, assert_problem, send
from training import checkpoint
from training.errors import NotReady
from training.images.preprocess import ImageLimits, decode
from training.network.alexnet import AlexNet
from training.network.initialisation import initialise

WAYS = ["euclidean", "angle", "code", "pixel-code", "pixels", "colours", "column-0", "column-1"]
ITEMS = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, model: Path, images: Path) -> Path:
    """An index that has what every way needs."""
    index = tmp_path_factory.mktemp("index")
    build.main(build.BuildSettings(model=model, data=images, index=index, part="train", bits=16, raw_pixel_codes=True))
    return index


@pytest.fixture(scope="module")
def client(model: Path, folder: Path) -> Iterator[TestClient]:
    with TestClient(create_app(ServiceSettings(model=model, index=folder))) as client:
        yield client


def square_root_shares(jpeg: bytes) -> np.ndarray:
    """Of 4 x 4 x 4 colours in a thumbnail, pixel by pixel."""
    pixels = np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")) // 64
    counts = np.zeros((4, 4, 4))
    for red, green, blue in pixels.reshape(-1, 3):
        counts[red, green, blue] += 1
    shares: np.ndarray = np.sqrt(counts / counts.sum()).ravel()
    return shares


def eighths(path: Path) -> np.ndarray:
    """The central square at 32 x 32, the mean of each 8 x 8 pixels."""
    pixels = decode(path.read_bytes(), ImageLimits()).pixels_CHW.numpy().astype(np.float64)
    means: np.ndarray = pixels.reshape(3, 32, 8, 32, 8).mean((2, 4)).round().ravel()
    return means


def bits_between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    distances: np.ndarray = np.unpackbits(a ^ b, axis=1).sum(1).astype(float)
    return distances


def by_hand(store: Index, vector: np.ndarray, pixels: np.ndarray, jpeg: bytes) -> dict[str, np.ndarray]:
    """How far each item is from a query by each way."""
    x_ND, ids = store.vectors(range(ITEMS)).astype(np.float64), range(ITEMS)
    items, half = store.items(ids), store.width // 2
    held = np.stack([eighths(Path(item.root) / item.path) for item in items])
    shares = np.stack([square_root_shares(store.thumbnail(item)) for item in items])
    codes = autoencoder.load(store.folder / "autoencoder.safetensors"), autoencoder.load(store.folder / "pixels.safetensors")
    query = vector[None].astype(np.float32)
    return {
        "euclidean": np.linalg.norm(x_ND - vector, axis=1),
        "angle": cosine_distances(vector[None], x_ND)[0],
        "code": bits_between(store.codes(ids), codes[0].encode(query)),
        "pixel-code": bits_between(codes[1].encode(held.astype(np.float32)), codes[1].encode(pixels[None].astype(np.float32))),
        "pixels": np.linalg.norm(held - pixels, axis=1),
        "colours": np.linalg.norm(shares - square_root_shares(jpeg), axis=1) / np.sqrt(2),
        "column-0": np.linalg.norm(x_ND[:, :half] - vector[:half], axis=1),
        "column-1": np.linalg.norm(x_ND[:, half:] - vector[half:], axis=1),
    }


def check(body: dict[str, Any], expected: dict[str, np.ndarray], k: int, without: int | None) -> None:
    """Every row has the nearest by hand, and their ranks in the first."""
    assert [row["way"] for row in body["ways"]] == WAYS
    orders = {}
    for way, distances_N in expected.items():
        ranked = np.lexsort((np.arange(ITEMS), np.round(distances_N, 9))).tolist()
        orders[way] = [item for item in ranked if item != without]
    first = orders["euclidean"]
    for row in body["ways"]:
        distances_N, order = expected[row["way"]], orders[row["way"]]
        found = row["neighbors"]
        assert (len(found), row["reason"]) == (k, None)
        np.testing.assert_allclose([hit["distance"] for hit in found], distances_N[order[:k]], rtol=1e-3, atol=2e-4)
        np.testing.assert_allclose(distances_N[[hit["id"] for hit in found]], distances_N[order[:k]], rtol=1e-3, atol=2e-4)
        for place, hit in enumerate(found, 1):
            assert hit["rank"] == first.index(hit["id"]) + 1
            assert hit["move"] == hit["rank"] - place
        assert row["overlap"] == len({hit["id"] for hit in found} & set(first[:k])) / k


def test_every_row_of_an_item_is_what_its_way_finds(client: TestClient, folder: Path) -> None:
    store = open_index(folder)
    [item] = store.items([5])
    expected = by_hand(
        store, store.vectors([5])[0].astype(np.float64), eighths(Path(item.root) / item.path), store.thumbnail(item)
    )
    body = client.post("/compare?id=5&k=7").json()
    assert (body["name"], body["k"], body["reference"], body["layer"], body["index_version"]) == ("5", 7, "euclidean", "fc7", 1)
    assert [row["name"] for row in body["ways"]] == [
        *("FC7, Euclidean", "FC7, cosine", "autoencoder", "raw pixels, autoencoder", "raw pixels, Euclidean"),
        *("colour histogram, Hellinger", "FC7, column 0", "FC7, column 1"),
    ]
    check(body, expected, 7, without=5)
    with FC7("http://testserver", transport=client._transport) as fc7:
        assert fc7.compare(5, k=7) == body


def test_every_row_of_an_upload_is_what_its_way_finds(client: TestClient, model: Path, images: Path, tmp_path: Path) -> None:
    folder = tmp_path / "one"
    (folder / "red").mkdir(parents=True)
    (folder / "red" / "0.jpg").write_bytes(PHOTO)
    build.main(build.BuildSettings(model=model, data=folder, index=tmp_path / "index", bits=0))
    alone = open_index(tmp_path / "index")  # which says what the photograph is by itself
    [item] = alone.items([0])
    store = open_index(client.app.state.settings.index)  # type: ignore[attr-defined]
    vector = alone.vectors([0])[0].astype(np.float64)
    expected = by_hand(store, vector, eighths(folder / "red" / "0.jpg"), alone.thumbnail(item))
    body = send(client, "/compare?k=9", PHOTO).json()
    assert body["name"] == "0.jpg"
    check(body, expected, 9, without=None)
    with FC7("http://testserver", transport=client._transport) as fc7:
        assert fc7.compare(PHOTO, k=9)["ways"] == body["ways"]


def test_what_an_index_was_built_without_is_told_in_its_row_alone(model: Path, images: Path, tmp_path: Path) -> None:
    net = AlexNet(SmallConfig(classes=3, columns=1))
    initialise(net, "fan-in", seed=1)
    checkpoint.save(tmp_path / "model", net, sorted(COLOURS), torch.full((3, 256, 256), 110.0))
    folder = tmp_path / "index"
    build.main(build.BuildSettings(model=tmp_path / "model", data=images, index=folder, part="test", bits=0, metric="cosine"))
    with TestClient(create_app(ServiceSettings(model=tmp_path / "model", index=folder))) as client:
        body = client.post("/compare?id=1&k=3").json()
    rows = {row["way"]: row for row in body["ways"]}
    assert body["reference"] == "angle"
    assert rows["angle"]["overlap"] == 1
    assert "python -m indexer.build --metric euclidean" in rows["euclidean"]["reason"]
    assert "python -m indexer.build --bits 128" in rows["code"]["reason"]
    assert "python -m indexer.build --raw-pixel-codes" in rows["pixels"]["reason"] == rows["pixel-code"]["reason"]
    assert "has one column" in rows["column-0"]["reason"] == rows["column-1"]["reason"]
    assert rows["colours"]["neighbors"]
    for way in ("euclidean", "code", "pixels", "column-0"):
        assert (rows[way]["neighbors"], rows[way]["overlap"]) == (None, None)


@pytest.mark.parametrize(
    ("ask", "field", "words"),
    [
        (lambda client: client.post("/compare"), "image", "neither an image nor an id"),
        (lambda client: send(client, "/compare?id=3", PHOTO), "image", "both an image and an id"),
        (lambda client: send(client, "/compare", PHOTO, PHOTO), "image", "one photograph, which all ways are asked about"),
        (lambda client: client.post("/compare", json={"inputs": [{"vector": [1.0]}]}), "inputs.0", "need pixels"),
        (lambda client: client.post("/compare?id=3&k=1000001"), "k", "at most"),
        (lambda client: send(client, "/compare", b"no photograph"), "", "is text"),
    ],
)
def test_a_question_that_is_none_is_named(client: TestClient, ask: Callable[[TestClient], Any], field: str, words: str) -> None:
    answer = ask(client)
    assert_problem(answer, answer.status_code, field, words)
    assert answer.status_code in (415, 422)


def test_an_item_that_is_not_there_is_not_found(client: TestClient) -> None:
    assert_problem(client.post("/compare?id=99"), 404, "no item has the id 99")


def test_colours_that_are_not_counted_yet_keep_no_other_row_waiting(
    model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "_PATIENCE_S", 0.0)
    with TestClient(create_app(ServiceSettings(model=model, index=folder))) as client:
        rows = {row["way"]: row for row in client.post("/compare?id=5").json()["ways"]}
        assert "24 thumbnails are being counted, once for this index; ask again" in rows["colours"]["reason"]
        assert rows["euclidean"]["overlap"] == 1


def test_nothing_is_left_to_do_for_who_has_been_answered_without_it(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go, asked = threading.Event(), threading.Event(), list[Any]()
    send(client, "/compare", PHOTO)  # whose colours are counted
    look = client.app.state.engine._slow["look"]  # type: ignore[attr-defined]
    for name in ("by_pixels", "by_pixel_codes"):
        monkeypatch.setattr(plain, name, lambda *given: asked.append(given))
    monkeypatch.setattr(compare, "_PATIENCE_S", 0.5)

    def wait() -> bool:
        begun.set()
        return go.wait(60)

    held = look.submit(wait)
    try:
        assert begun.wait(60)
        rows = {way["way"]: way for way in send(client, "/compare", PHOTO).json()["ways"]}
    finally:
        go.set()
    assert held.result(60)
    look.submit(lambda: None).result(60)
    assert not asked
    assert rows["pixels"]["reason"] == rows["pixel-code"]["reason"] == "pictures for others are being made; ask again in a moment"
    assert [way for way in WAYS if rows[way]["reason"]] == ["pixel-code", "pixels"]


def test_thousands_of_neighbours_are_not_put_into_words_by_the_thread_that_all_wait_for(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, threads = compare._compared, set[str]()

    def noted(*given: Any) -> Any:
        threads.add(threading.current_thread().name)
        return real(*given)

    monkeypatch.setattr(compare, "_compared", noted)
    assert send(client, "/compare?k=1000", PHOTO).status_code == 200
    assert threads == {"answer_0"}


def test_colours_are_counted_once_and_those_of_what_is_added_at_the_next_question(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store, counted = open_index(folder), []
    count = plain.colours_of

    def counting(jpegs: list[bytes]) -> np.ndarray:
        counted.append(len(jpegs))
        return count(jpegs)

    monkeypatch.setattr(plain, "colours_of", counting)
    colours, query = plain.Colours(), Query(3)
    [asked_L] = count([store.thumbnail(store.items([5])[0])])
    for _ in range(2):
        assert colours.nearest(store, asked_L, query)[0] == (5, 0.0)
    assert sum(counted) == ITEMS
    colours.nearest(open_index(folder), asked_L, query)
    assert sum(counted) == ITEMS
    monkeypatch.setattr(plain, "MOST_COLOURS", 23)
    with pytest.raises(NotReady, match="holds 24 items, and colours are counted of 23 at most"):
        plain.Colours().nearest(store, asked_L, query)
