"""The HTTP interface on a small model and index: answers against the index build, errors as problems, never a 500."""

import hashlib
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image

from indexer import build
from indexer.opening import open_store
from service.app import create_app
from service.settings import ServiceSettings
from tests.conftest import COLOURS, SmallConfig, encoded, photograph
from tests.service.calls import PHOTO, assert_problem, send
from training import checkpoint, evaluate
from training.analysis import kernels
from training.images.preprocess import ImageLimits, decode
from training.network.alexnet import AlexNet
from training.network.initialisation import initialise


@pytest.fixture(scope="module")
def client(model: Path, index: Path) -> Iterator[TestClient]:
    settings = ServiceSettings(
        model=model, index=index, max_image_bytes=100_000, max_image_pixels=500_000, max_request_bytes=500_000, max_images=4
    )
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


def test_classify_gives_the_models_own_probabilities_in_order(client: TestClient, model: Path) -> None:
    loaded = checkpoint.load(model)
    images = [encoded(photograph(seed)) for seed in (1, 2)]
    for views in (1, 10):
        body = send(client, f"/classify?views={views}&top=3", *images).json()
        assert (body["model"], body["views"]) == (loaded.fingerprint, views)
        for result, data in zip(body["results"], images, strict=True):
            chances = loaded.probabilities(decode(data, ImageLimits()).pixels_CHW[None], views)[0]
            expected = sorted(zip(chances.tolist(), loaded.classes, strict=True), reverse=True)
            assert [c["class"] for c in result["classes"]] == [name for _, name in expected]
            np.testing.assert_allclose([c["probability"] for c in result["classes"]], [p for p, _ in expected], rtol=1e-4)
    assert [result["name"] for result in body["results"]] == ["0.jpg", "1.jpg"]


def test_neighbours_of_an_upload_are_those_of_brute_force(client: TestClient, model: Path, index: Path) -> None:
    opened = open_store(index)
    feature = checkpoint.load(model).fc7(decode(PHOTO, ImageLimits()).pixels_CHW[None])[0].numpy()
    distances = np.array([np.linalg.norm(opened.vectors([i])[0].astype(np.float64) - feature) for i in range(24)])
    found = send(client, "/neighbors?k=7", PHOTO).json()["results"][0]["neighbors"]
    assert [n["id"] for n in found] == np.argsort(distances, kind="stable")[:7].tolist()
    np.testing.assert_allclose([n["distance"] for n in found], np.sort(distances)[:7], rtol=1e-4)


def test_a_model_of_small_squares_is_evaluated_indexed_and_served_as_any_other(tmp_path: Path, images: Path) -> None:
    net = AlexNet(SmallConfig(classes=3, square_size=128, input_size=67))
    initialise(net, "fan-in", seed=1)
    checkpoint.save(tmp_path / "model", net.eval(), sorted(COLOURS), torch.full((3, 256, 256), 110.0))
    evaluate.main(evaluate.EvaluateSettings(model=tmp_path / "model", data=images))
    build.main(build.BuildSettings(model=tmp_path / "model", data=images, index=tmp_path / "index"))
    pixels_1CHW = decode(PHOTO, ImageLimits()).pixels_CHW[None]
    view = (pixels_1CHW - 110.0).view(1, 3, 128, 2, 128, 2).mean((3, 5))[..., 30:97, 30:97]
    settings = ServiceSettings(model=tmp_path / "model", index=tmp_path / "index")
    with TestClient(create_app(settings), raise_server_exceptions=False) as client, torch.no_grad():
        classes = send(client, "/classify?top=3", PHOTO).json()["results"][0]["classes"]
        chances = {c["class"]: c["probability"] for c in classes}
        np.testing.assert_allclose([chances[name] for name in sorted(COLOURS)], net(view).softmax(1)[0], rtol=1e-4)
        store = open_store(tmp_path / "index")
        distances = np.linalg.norm(store.vectors(store.ids().tolist()) - net.features(view).numpy(), axis=1)
        found = send(client, "/neighbors?k=3", PHOTO).json()["results"][0]["neighbors"]
        np.testing.assert_allclose([n["distance"] for n in found], np.sort(distances)[:3], rtol=1e-4)


def test_an_indexed_photograph_sent_back_finds_itself_first(client: TestClient, index: Path, images: Path) -> None:
    opened = open_store(index)
    for item in opened.items(range(0, 24, 5)):
        data = (images / item.path).read_bytes()
        first = send(client, "/neighbors?k=1", data).json()["results"][0]["neighbors"][0]
        assert first["id"] == item.id
        assert first["distance"] <= 1e-5 * np.linalg.norm(opened.vectors([item.id]))


def test_features_of_a_query_equal_those_of_the_index_build(client: TestClient, index: Path, images: Path) -> None:
    """A query is preprocessed by the same code: its distances to all items are those of the stored vector."""
    opened = open_store(index)
    [item] = opened.items([9])
    uploaded = send(client, "/neighbors?k=24", (images / item.path).read_bytes()).json()["results"][0]["neighbors"]
    stored = client.post("/neighbors?k=24&id=9").json()["results"][0]["neighbors"]
    assert [n["id"] for n in uploaded] == [n["id"] for n in stored]
    np.testing.assert_allclose([n["distance"] for n in uploaded], [n["distance"] for n in stored], rtol=1e-4, atol=1e-4)
    assert stored[0]["id"] == 9
    assert stored[0]["distance"] == 0


def test_k_beyond_the_index_gives_all_of_it(client: TestClient) -> None:
    assert len(client.post("/neighbors?id=0&k=1000").json()["results"][0]["neighbors"]) == 24


def test_one_bad_image_among_good_ones_is_an_error_of_its_own(client: TestClient) -> None:
    for path, key in (("/classify", "classes"), ("/neighbors", "neighbors")):
        response = send(client, path, PHOTO, b"not an image", PHOTO[:400], PHOTO)
        assert response.status_code == 200
        results = response.json()["results"]
        assert [result["error"] and result["error"]["status"] for result in results] == [None, 415, 422, None]
        assert results[0][key] == results[3][key]
        assert results[1][key] is None
    alone = send(client, "/classify", b"not an image", b"nor this").json()["results"]
    assert [result["error"]["status"] for result in alone] == [415, 415]


@pytest.mark.parametrize("path", ["/classify", "/neighbors"])
@pytest.mark.parametrize(
    ("data", "status", "words"),
    [
        (b"", 415, ["0 bytes"]),
        (b"hello", 415, ["not an image", "JPEG"]),
        (PHOTO[:400], 422, ["truncated"]),
        (b"x" * 100_001, 413, ["100001 bytes", "max_image_bytes=100000"]),
        (encoded(Image.new("RGB", (900, 600)), "PNG"), 413, ["900 x 600", "max_image_pixels=500000"]),
    ],
)
def test_a_bad_image_is_refused_with_its_reason(
    client: TestClient, path: str, data: bytes, status: int, words: list[str]
) -> None:
    assert_problem(send(client, path, data), status, *words)


@pytest.mark.parametrize(
    ("query", "field", "value"),
    [
        ("/classify?views=3", "views", "3"),
        ("/classify?top=0", "top", "0"),
        ("/classify?top=x", "top", "x"),
        ("/neighbors?k=0", "k", "0"),
        ("/neighbors?k=1001", "k", "1001"),
        ("/neighbors?k=many", "k", "many"),
        ("/neighbors?id=-1", "id", "-1"),
        ("/neighbors?id=9223372036854775808", "id", "9223372036854775808"),
    ],
)
def test_a_wrong_parameter_is_named_with_its_value(client: TestClient, query: str, field: str, value: str) -> None:
    body = assert_problem(send(client, query, PHOTO), 422, field, value)
    assert [(error["field"], error["value"]) for error in body["errors"]] == [(field, value)]


def test_an_image_or_an_id_is_needed_and_not_both(client: TestClient) -> None:
    assert_problem(client.post("/neighbors"), 422, "neither an image nor an id")
    assert_problem(send(client, "/neighbors?id=1", PHOTO), 422, "both an image and an id")
    assert_problem(client.post("/classify"), 422, "image is missing")
    text = client.post("/classify", files={"image": (None, "text")})
    assert_problem(text, 415, "not an image in one of the formats")
    assert_problem(client.post("/classify", data={"image": "text"}), 415, "x-www-form-urlencoded", "multipart/form-data")
    assert_problem(send(client, "/classify", *[PHOTO] * 5), 422, "at most 4 files")


def test_photographs_in_a_tar_file_are_indexed_and_shown(model: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with tarfile.open(tmp_path / "data" / "a.tar", "w") as tar:
        tar.add(images / "train", ".")
    build.main(build.BuildSettings(model=model, data=tmp_path / "data", index=tmp_path / "index"))
    files = sorted((images / "train").rglob("*.jpg"))
    settings = ServiceSettings(model=model, index=tmp_path / "index")
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        for item_id, path in enumerate(files):
            assert client.get(f"/items/{item_id}").json()["path"] == f"a.tar/{path.parent.name}/{path.name}"
            answer = client.get(f"/items/{item_id}/image")
            assert (answer.content, answer.headers["content-type"]) == (path.read_bytes(), "image/jpeg")
        (tmp_path / "data" / "a.tar").write_bytes(b"?")
        assert_problem(client.get("/items/0/image"), 404, "a.tar/blue/000.jpg")


@pytest.mark.parametrize("path", ["/items/24", "/items/24/image", "/items/24/thumbnail", "/nowhere"])
def test_what_is_not_there_is_a_404(client: TestClient, path: str) -> None:
    assert_problem(client.get(path), 404)
    assert_problem(client.get("/items/x"), 422, "id", "x")
    assert_problem(client.get("/items/99999999999999999999"), 422, "id")
    assert_problem(client.post("/neighbors?id=24"), 404, "24")
    assert_problem(client.get("/classify"), 405)


def test_a_long_body_is_refused_by_its_header_and_by_its_length(client: TestClient) -> None:
    assert_problem(send(client, "/classify", b"x" * 600_000), 413, "max_request_bytes=500000")

    def chunks() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        for _ in range(100):
            yield b"x" * 10_000

    headers = {"content-type": "multipart/form-data; boundary=b"}
    assert_problem(client.post("/classify", content=chunks(), headers=headers), 413, "max_request_bytes=500000")


def test_malformed_bodies_are_refused(client: TestClient) -> None:
    for kind in ("multipart/form-data", "multipart/form-data; boundary=b", "application/json", "image/jpeg", "x"):
        response = client.post("/classify", content=PHOTO, headers={"content-type": kind})
        assert response.status_code in (415, 422), kind
        assert_problem(response, response.status_code)


def test_items_show_catalogue_file_and_thumbnail(client: TestClient, index: Path, images: Path) -> None:
    body = client.get("/items/5").json()
    data = (images / body["path"]).read_bytes()
    assert body["sha256"] == hashlib.sha256(data).hexdigest()
    image = client.get(body["image"])
    assert (image.content, image.headers["content-type"]) == (data, "image/jpeg")
    thumbnail = client.get(body["thumbnail"])
    assert Image.open(io.BytesIO(thumbnail.content)).size == (160, 160)
    assert thumbnail.headers["x-content-type-options"] == "nosniff"
    again = client.get(body["thumbnail"], headers={"if-none-match": thumbnail.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    for path in ("/", "/healthz", body["image"], body["thumbnail"]):
        head = client.head(path)
        assert (head.status_code, head.content) == (200, b"")


def test_filters_are_the_first_layers_kernels(client: TestClient, model: Path) -> None:
    kernels.noise(3, 11, 11)  # which takes a second, and the rest of the answer little
    weight = checkpoint.load(model).net.conv1.weight.numpy()
    body = client.get("/filters").json()
    assert body["shape"] == [8, 3, 11, 11]
    grey = weight.mean(1, keepdims=True)
    expected = ((weight - grey) ** 2).sum((1, 2, 3)) / (weight**2).sum((1, 2, 3))
    np.testing.assert_allclose([kernel["chroma"] for kernel in body["kernels"]], expected, rtol=1e-5)
    assert [kernel["column"] for kernel in body["kernels"]] == [0] * 4 + [1] * 4
    assert body["noise_like"]
    assert body["verdict"].startswith("These kernels are not distinguishable from noise: 0 of 8")
    assert body["columns"][1]["means"]["chroma"] == pytest.approx(expected[4:].mean(), rel=1e-5)
    picture = client.get("/filters.png")
    assert picture.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(picture.content)).size == (5 * (4 * 12 + 1), 5 * (2 * 12 + 3))
    assert client.get("/filters.png", headers={"if-none-match": picture.headers["etag"]}).status_code == 304
    drawing = client.get("/filters.svg?scale=2&order=orientation")
    assert drawing.headers["content-type"] == "image/svg+xml"
    assert drawing.text.startswith('<svg xmlns="http://www.w3.org/2000/svg" width="98"')
    for query in ("order=hue", "scaling=each", "channel=alpha", "scale=0", "scale=33"):
        assert client.get(f"/filters.png?{query}").status_code == 422


def test_a_kernel_is_shown_where_the_figures_say_it_is(client: TestClient) -> None:
    body = client.get("/filters").json()
    sheet = Image.open(io.BytesIO(client.get("/filters.png?scale=1").content))
    assert list(sheet.size) == body["size"]
    for kernel in body["kernels"]:
        path = f"/units/conv1/{kernel['column']}/{kernel['unit']}"
        answer = client.get(path).json()
        assert answer["kernel"] == kernel
        assert (answer["noise"], answer["model"]) == (body["noise"], body["model"])
        assert (answer["picture"], kernel["page"]) == (f"{path}.png", f"/#{path}")
        alone = Image.open(io.BytesIO(client.get(f"{answer['picture']}?scale=1").content))
        assert alone.tobytes() == sheet.crop(kernel["box"]).tobytes()
        assert Image.open(io.BytesIO(client.get(answer["spectrum"]).content)).size == (195, 195)


@pytest.mark.parametrize("path", ["/units/conv1/0/4", "/units/conv1/1/1023.png", "/units/conv1/0/4/spectrum.png"])
def test_a_kernel_that_is_not_there_is_404_and_says_how_many_are(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert "2 column(s) of 4 kernels" in answer.json()["detail"]


def test_health_readiness_and_info(client: TestClient, model: Path) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}
    body = client.get("/info").json()
    assert body["model"]["fingerprint"] == checkpoint.load(model).fingerprint
    assert (body["index"]["items"], body["index"]["width"], body["settings"]["max_images"]) == (24, 32, 4)


def test_the_page_and_its_parts_are_served_under_a_strict_policy(client: TestClient) -> None:
    page = client.get("/")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    for name in ("main.js", "api.js", "router.js", "tabs.js", "style.css", "icon.svg"):
        assert client.get(f"/web/{name}").status_code == 200
    assert_problem(client.get("/web/../app.py"), 404)
    assert_problem(client.get("/web/%2e%2e/app.py"), 404)


def test_openapi_describes_every_endpoint_and_its_problems(client: TestClient) -> None:
    description = client.get("/openapi.json").json()
    assert {"/classify", "/neighbors", "/filters", "/filters.png", "/items/{id}", "/healthz", "/readyz", "/info"} <= set(
        description["paths"]
    )
    classify = description["paths"]["/classify"]["post"]["responses"]
    assert {"200", "413", "415", "422", "503"} <= set(classify)
    assert list(classify["415"]["content"]) == ["application/problem+json"]


def test_with_nothing_loaded_the_service_lives_and_says_what_is_missing(tmp_path: Path) -> None:
    settings = ServiceSettings(model=tmp_path / "model", index=tmp_path / "index")
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        assert client.get("/healthz").status_code == 200
        for path in ("/readyz", "/filters", "/filters.png"):
            assert_problem(client.get(path), 503, "python -m training.train")
        assert_problem(send(client, "/classify", PHOTO), 503, "python -m training.train")
        assert_problem(client.post("/neighbors?id=0"), 503)
        assert client.get("/info").json()["model"] is None
        assert client.get("/").status_code == 200


def test_a_model_without_its_index_classifies(model: Path, tmp_path: Path) -> None:
    with TestClient(create_app(ServiceSettings(model=model, index=tmp_path)), raise_server_exceptions=False) as client:
        assert send(client, "/classify", PHOTO).status_code == 200
        assert_problem(send(client, "/neighbors", PHOTO), 503, "python -m indexer.build")
        assert_problem(client.get("/readyz"), 503, "python -m indexer.build")


def test_an_index_of_another_model_is_never_served(tmp_path: Path, model: Path, index: Path) -> None:
    loaded = checkpoint.load(model)
    checkpoint.save(tmp_path, loaded.net, loaded.classes, loaded.mean_CHW + 1)
    with TestClient(create_app(ServiceSettings(model=tmp_path, index=index)), raise_server_exceptions=False) as client:
        assert send(client, "/classify", PHOTO).status_code == 200
        assert_problem(send(client, "/neighbors", PHOTO), 503, "was made with the model")
