"""One photograph's moves over HTTP are those of the network by hand; the collection's report is this model's, or is 404."""

import base64
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image

from indexer.index import open_index
from indexer.storage import artifact
from service.app import create_app
from service.settings import ServiceSettings
from tests.service.calls import PHOTO, assert_problem, send
from training import checkpoint
from training import invariance as command
from training.analysis import invariance_report, perturbations
from training.analysis.perturbations import POINTS
from training.images.preprocess import ImageLimits, decode
from training.program import parse


@pytest.fixture
def measured(index: Path, tmp_path: Path) -> Path:
    """A copy of the index, whose report can be another."""
    return Path(shutil.copytree(index, tmp_path / "index", symlinks=True))


@pytest.fixture
def client(model: Path, measured: Path) -> Iterator[TestClient]:
    settings = ServiceSettings(model=model, index=measured, deadline_ms=600_000)
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


def write_report(model: Path, images: Path, index: Path, out: Path) -> None:
    command.main(
        parse(
            command.InvarianceSettings,
            [f"--model={model}", f"--data={images}", f"--index={index}", f"--out={out}", "--photographs=3"],
        )
    )


def points(answer: dict[str, Any]) -> dict[tuple[str, float], dict[str, Any]]:
    return {(curve["kind"], point["level"]): point for curve in answer["curves"] for point in curve["points"]}


def test_the_moves_of_an_upload_are_those_by_hand(client: TestClient, model: Path, measured: Path) -> None:
    answer = send(client, "/invariance?pictures=true", PHOTO).json()
    loaded, store = checkpoint.load(model), open_index(measured)
    found = points(answer)
    assert list(found) == list(POINTS)
    assert (answer["model"], answer["layer"], answer["index_version"], answer["colour_of"]) == (
        loaded.fingerprint,
        "fc7",
        1,
        "photograph",
    )
    assert (answer["bits"], answer["neighbors"], answer["id"]) == (store.bits or None, 10, None)
    pixels = decode(PHOTO, ImageLimits()).pixels_CHW
    brighter = torch.from_numpy(perturbations.bias(pixels.numpy(), 30.0)[0])
    f0, f = loaded.fc7(torch.stack([pixels, brighter])).double().numpy()
    point = found["bias", 30.0]
    assert point["l2"] == pytest.approx(np.linalg.norm(f - f0) / np.linalg.norm(f0), rel=1e-4)
    assert point["angle"] == pytest.approx(
        np.degrees(np.arccos(f @ f0 / np.linalg.norm(f) / np.linalg.norm(f0))), rel=1e-2, abs=0.05
    )
    assert point["clipped"] == pytest.approx(float((pixels > 225).float().mean()))
    all_N = store.vectors(store.ids().tolist())
    ranked = [set(np.argsort(np.linalg.norm(all_N - feature, axis=1), kind="stable")[:10].tolist()) for feature in (f0, f)]
    assert point["overlap"] == len(ranked[0] & ranked[1]) / 10
    shown = Image.open(io.BytesIO(base64.b64decode(found["mirror", 1.0]["picture"].split(",")[1])))
    small = Image.fromarray(pixels.permute(1, 2, 0).numpy()).resize(shown.size, Image.Resampling.BOX)
    assert np.abs(np.asarray(shown).astype(int) - np.asarray(small)[:, ::-1]).mean() < 6
    store.close()


def test_an_item_is_measured_by_its_own_file_and_pictures_are_left_out(client: TestClient) -> None:
    answer = client.post("/invariance?id=4").json()
    assert (answer["id"], answer["name"]) == (4, "4")
    assert {point["picture"] for point in points(answer).values()} == {None}
    assert all(0 <= point["overlap"] <= 1 and point["l2"] >= 0 for point in points(answer).values())
    least, most = (points(answer)["shift", level]["l2"] for level in (2.0, 32.0))
    assert least < most


def test_colours_are_shifted_as_the_collections_report_has_them(
    client: TestClient, model: Path, images: Path, measured: Path, tmp_path: Path
) -> None:
    alone = points(client.post("/invariance?id=4").json())
    write_report(model, images, measured, tmp_path / "out")
    answer = client.post("/invariance?id=4").json()
    assert answer["colour_of"] == "collection"
    covariance = np.array(invariance_report.read(measured / artifact.INVARIANCE).covariance)
    store = open_index(measured)
    [item] = store.items([4])
    pixels = decode((images / item.path).read_bytes(), ImageLimits()).pixels_CHW.permute(1, 2, 0).numpy()
    step = perturbations.colour_step(covariance, np.ones(3))
    shifted = torch.from_numpy(np.stack([pixels, perturbations.colour(pixels, 8.0, step)[0]])).permute(0, 3, 1, 2)
    f0, f = checkpoint.load(model).fc7(shifted).double().numpy()
    assert points(answer)["colour", 8.0]["l2"] == pytest.approx(np.linalg.norm(f - f0) / np.linalg.norm(f0), rel=1e-4)
    assert points(answer)["gain", 2.0]["l2"] == pytest.approx(alone["gain", 2.0]["l2"], rel=1e-4)
    store.close()


def test_the_report_is_what_the_command_left_for_this_model(
    client: TestClient, model: Path, images: Path, measured: Path, tmp_path: Path
) -> None:
    said = assert_problem(client.get("/reports/invariance"), 404)
    assert "`python -m training.invariance --index INDEX" in str(said)
    write_report(model, images, measured, tmp_path / "out")
    answer = client.get("/reports/invariance").json()
    record = invariance_report.read(measured / artifact.INVARIANCE)
    assert answer["report"] == record.model_dump(mode="json")
    assert (answer["model"], answer["layer"], answer["index_version"]) == (record.fingerprint, "fc7", 1)
    invariance_report.write(measured / artifact.INVARIANCE, record.model_copy(update={"fingerprint": "another"}))
    assert "another model was measured" in str(assert_problem(client.get("/reports/invariance"), 404))
    (measured / artifact.INVARIANCE).write_text("{")
    assert_problem(client.get("/reports/invariance"), 503)


def test_neither_two_photographs_nor_none_are_measured(client: TestClient) -> None:
    assert_problem(client.post("/invariance"), 422)
    assert_problem(send(client, "/invariance?id=3", PHOTO), 422)
    assert_problem(client.post("/invariance", files=[("image", ("a.jpg", PHOTO)), ("image", ("b.jpg", PHOTO))]), 422)
    assert_problem(client.post("/invariance?id=999"), 404)
