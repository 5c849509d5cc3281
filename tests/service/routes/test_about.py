"""What a stranger is told: nothing of the server's folders, in /info, in /readyz or in any error; the log has the rest."""

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from indexer import build
from service import errors
from service.app import create_app
from service.settings import ServiceSettings
from tests.service.calls import PHOTO, assert_problem, send
from training import checkpoint
from training.errors import BadValue, Busy, FC7Error, Mismatch, NotFound, NotReady
from training.record import ErrorRates, ModelMetrics, TrainingRecord, WeightsRecord

KEY = {"X-API-Key": "key"}
Serve = Callable[..., TestClient]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts the service with these settings."""
    clients: list[TestClient] = []

    def started(**settings: Any) -> TestClient:
        client = TestClient(create_app(ServiceSettings(api_key="key", **settings)), raise_server_exceptions=False)
        clients.append(client)
        return client.__enter__()

    yield started
    for client in clients:
        client.__exit__()


@pytest.fixture
def known(model: Path, tmp_path: Path) -> Path:
    """A model whose description says where its data lay."""
    loaded = checkpoint.load(model)
    record = TrainingRecord(
        settings={"preset": "quick", "epochs": 3, "data": str(tmp_path / "photos"), "start": "/home/me/model", "seed": 7},
        photographs=24,
        held_out=0,
        rejected=0,
        seconds=1.5,
        precision="float32",
        placement="cpu",
        machine="a machine",
        torch="2.11",
    )
    metrics = ModelMetrics(test=[ErrorRates(views=1, photographs=9, top1_error=0.5, top5_error=0.0)])
    checkpoint.save(tmp_path / "known", loaded.net, loaded.classes, loaded.mean_CHW, record, metrics)
    return tmp_path / "known"


def everything(client: TestClient) -> str:
    """The bodies of all answers that there are without a key, and of some with it."""
    asked = [
        ("GET", path)
        for path in ("/info", "/readyz", "/metrics", "/filters", "/items/0", "/items/0/image", "/items/99", "/openapi.json")
    ]
    asked += [
        ("POST", f"/neighbors?id=0{query}") for query in ("", "&mode=code", "&mode=two-stage", "&mode=ball&radius=3", "&label=x")
    ]
    asked += [
        ("GET", "/items/0/duplicates"),
        ("GET", "/duplicates"),
        ("GET", "/reports/invariance"),
        ("POST", "/invariance?id=0"),
        ("GET", "/items/0/thumbnail"),
        ("POST", "/reload"),
        ("DELETE", "/items/0"),
    ]
    texts = [client.request(method, path, headers=KEY).text for method, path in asked]
    texts += [send(client, path, PHOTO).text for path in ("/classify", "/neighbors")]
    texts.append(client.post("/neighbors?mode=code", json={"inputs": [{"id": 0}, {"id": 1}]}).text)
    texts.append(client.post("/items", files=[("image", ("a.jpg", PHOTO))], headers=KEY).text)
    return "\n".join(texts)


def test_info_tells_limits_and_recipe_and_no_folder(known: Path, images: Path, tmp_path: Path, serve: Serve) -> None:
    build.main(build.BuildSettings(model=known, data=images, index=tmp_path / "index", part="train"))
    body = serve(model=known, index=tmp_path / "index").get("/info").json()
    assert body["model"]["training"] == {"preset": "quick", "epochs": 3, "photographs": 24}
    assert body["model"]["metrics"] == {"test": [{"views": 1, "photographs": 9, "top1_error": 0.5, "top5_error": 0.0}]}
    assert set(body["settings"]) == {
        "max_request_bytes", "max_images", "max_image_bytes", "max_image_pixels", "max_neighbors", "deadline_ms", "search",
        "api_key_for_reads",
    }  # fmt: skip
    assert str(tmp_path) not in json.dumps(body)


def test_info_of_others_weights_tells_which_they_are_and_not_where_they_lay(model: Path, tmp_path: Path, serve: Serve) -> None:
    loaded = checkpoint.load(model)
    record = WeightsRecord(source="/home/me/alexnet.pth", sha256="ab" * 32, bytes=5, note="as published")
    checkpoint.save(tmp_path / "weights", loaded.net, loaded.classes, loaded.mean_CHW, record)
    body = serve(model=tmp_path / "weights", index=tmp_path / "none").get("/info").json()
    assert body["model"]["training"] == {"sha256": "ab" * 32, "note": "as published"}


def test_no_answer_names_a_folder_of_the_server(known: Path, images: Path, tmp_path: Path, serve: Serve) -> None:
    data = Path(shutil.copytree(images, tmp_path / "data"))
    build.main(build.BuildSettings(model=known, data=data, index=tmp_path / "index", part="train"))
    client = serve(model=known, index=tmp_path / "index")
    assert str(tmp_path) not in everything(client)
    shutil.rmtree(data)
    shutil.rmtree(tmp_path / "index")
    assert str(tmp_path) not in everything(client)


@pytest.mark.parametrize("missing", ["model", "index", "both", "neither"])
def test_what_is_missing_is_called_by_its_setting_and_the_log_has_the_folder(
    known: Path, index: Path, tmp_path: Path, serve: Serve, missing: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Of `neither` the two do not belong together."""
    copied = Path(shutil.copytree(index, tmp_path / "index", symlinks=True))
    if missing == "neither":
        loaded = checkpoint.load(known)
        checkpoint.save(known, loaded.net, loaded.classes, loaded.mean_CHW + 1)
    folders = {"model": known, "index": copied}
    for name in folders if missing == "both" else [missing] if missing in folders else []:
        folders[name] = tmp_path / "nowhere" / name
    with caplog.at_level(logging.INFO):
        client = serve(**folders)
        response = client.get("/readyz")
    body = assert_problem(response, 503)
    setting = "FC7_MODEL" if missing in ("model", "both") else "FC7_INDEX"
    assert setting in body["detail"]
    assert str(tmp_path) not in everything(client)
    assert str(folders["model" if missing in ("model", "both") else "index"]) in caplog.text


def test_a_link_to_a_folder_is_called_by_the_setting_too(known: Path, tmp_path: Path, serve: Serve) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    assert str(tmp_path) not in everything(serve(model=known, index=tmp_path / "link"))


FOLDERS = [
    (FC7Error("/srv/fc7 models/a/model.json is damaged"), "FC7_MODEL/model.json is damaged"),
    (
        NotReady("no index at /srv/index; `python -m indexer.build --index /srv/index`"),
        "no index at FC7_INDEX; `python -m indexer.build --index FC7_INDEX`",
    ),
    (Busy("another process is writing to /srv/index"), "another process is writing to FC7_INDEX"),
    (Mismatch("'/srv/index/versions/3/0/codes.faiss' has 3 bytes"), "'FC7_INDEX/versions/3/0/codes.faiss' has 3 bytes"),
    (NotReady("/srv/index2/x cannot be read"), "x cannot be read"),
    (NotReady("/srv/index-old/x cannot be read"), "x cannot be read"),
    (Mismatch("photos below /home/me/photos changed"), "photos below photos changed"),
    (NotReady("(/var/lib/a.db) is locked"), "(a.db) is locked"),
    (NotReady("https://host:19530/a/b does not answer"), "https://host:19530/a/b does not answer"),
    (NotReady("a share of 3/4/5"), "a share of 3/4/5"),
    (NotFound("the index /srv/index has no codes"), "the index FC7_INDEX has no codes"),
    (NotFound("a/b/c.jpg, the file of item 3, is gone"), "a/b/c.jpg, the file of item 3, is gone"),
    (BadValue("label", "/x/y", "another"), "label must be another, got '/x/y'"),
    (BadValue("label", "/srv/index", "another"), "label must be another, got '/srv/index'"),
]


@pytest.mark.parametrize(("error", "shown"), FOLDERS)
def test_paths_in_errors_are_hidden_and_nothing_else(error: FC7Error, shown: str) -> None:
    app = create_app(ServiceSettings(model=Path("/srv/fc7 models/a"), index=Path("/srv/index")))
    assert errors.problem(error, app.state.folders).detail == shown
