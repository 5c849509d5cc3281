"""Drills: what breaks under a running service, or before it starts, is named, and what can still be answered is."""

import ctypes
import errno
import io
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient
from httpx import Response

from indexer import build
from indexer.index import open_index
from indexer.opening import open_store
from indexer.storage import artifact
from service.app import create_app
from service.settings import ServiceSettings
from tests.conftest import COLOURS, SmallConfig, encoded, photograph, write_photographs
from tests.indexer.synthetic import SEGMENT
from tests.service.calls import PHOTO, assert_problem, send
from training import checkpoint
from training.checkpoint import Model
from training.files import exclusively
from training.network.alexnet import AlexNet
from training.network.initialisation import initialise

KEY = {"X-API-Key": "key"}
FILES = [artifact.AUTOENCODER, artifact.PRINCIPAL, artifact.DELETED, artifact.REJECTS, *(f"0/{name}" for name in SEGMENT)]
OTHER = encoded(photograph(4711, COLOURS["blue"]))


@pytest.fixture(scope="module")
def two_versions(index: Path, model: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index whose versions 1 and 2 have no file in common, made with the same model; version 1 is current."""
    root = tmp_path_factory.mktemp("two")
    folder = Path(shutil.copytree(index, root / "index", symlinks=True))
    write_photographs(root / "images", 4, first_seed=7000)
    (root / "images" / "red" / "broken.jpg").write_bytes(b"no photograph")
    build.main(build.BuildSettings(model=model, data=root / "images", index=folder))
    with exclusively(folder):
        open_store(folder).remove([3])
    shutil.rmtree(folder / "versions/2")
    (folder / "versions/3").rename(folder / "versions/2")
    shutil.copytree(index / "versions/1", folder / "versions/1", dirs_exist_ok=True)
    make_current(folder, 1)
    return folder


@pytest.fixture
def changing(two_versions: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(two_versions, tmp_path / "index", symlinks=True))


def make_current(index: Path, version: int) -> None:
    (index / ".next").symlink_to(f"versions/{version}")
    (index / ".next").replace(index / "current")


def damage(path: Path) -> None:
    """Flips a bit of the byte in the middle; in a file of no bytes, adds one."""
    data = bytearray(path.read_bytes() or b"\0")
    if path.name == artifact.MANIFEST:
        data[0] ^= 1
    else:
        data[len(data) // 2] ^= 1
    path.write_bytes(data)


def service(model: Path, index: Path, **others: Any) -> TestClient:
    settings = ServiceSettings(model=model, index=index, api_key="key", **others)
    return TestClient(create_app(settings), raise_server_exceptions=False)


def neighbours(client: TestClient, version: int) -> list[Any]:
    """The neighbours of PHOTO in all modes, from this version."""
    answers = []
    for mode in ("mode=exact", "mode=two-stage", "mode=code", "mode=ball&radius=40"):
        response = send(client, f"/neighbors?k=100&{mode}", PHOTO)
        assert response.status_code == 200, response.text
        assert response.json()["index_version"] == version
        answers.append(response.json()["results"][0]["neighbors"])
    return answers


def test_the_files_below_are_all_that_a_version_has(two_versions: Path) -> None:
    for version in ("1", "2"):
        assert set(artifact.read_manifest(two_versions / "versions" / version).files) == set(FILES)


@pytest.mark.parametrize("name", [*FILES, artifact.MANIFEST])
@pytest.mark.parametrize("missing", [False, True], ids=["damaged", "missing"])
def test_started_on_a_damaged_index_it_names_the_file_and_classifies(
    model: Path, changing: Path, name: str, missing: bool
) -> None:
    path = changing / "current" / name
    path.unlink() if missing else damage(path)
    with service(model, changing) as client:
        assert_problem(client.get("/readyz"), 503, name)
        assert_problem(client.post("/neighbors?id=0"), 503, name)
        assert_problem(client.post("/items", files={"image": PHOTO}, headers=KEY), 503, name)
        assert client.get("/healthz").status_code == 200
        assert send(client, "/classify", PHOTO).status_code == 200
        assert client.get("/info").json()["index"] is None
        make_current(changing, 2)
        assert client.post("/reload", headers=KEY).json()["changed"] is True
        assert client.get("/readyz").status_code == 200


@pytest.mark.parametrize("name", [*FILES, artifact.MANIFEST])
@pytest.mark.parametrize("missing", [False, True], ids=["damaged", "missing"])
def test_a_damaged_version_that_is_published_is_refused_by_name_and_the_old_one_answers(
    model: Path, changing: Path, name: str, missing: bool
) -> None:
    path = changing / "versions/2" / name
    undamaged = path.read_bytes()
    path.unlink() if missing else damage(path)
    with service(model, changing) as client:
        before = neighbours(client, 1)
        make_current(changing, 2)
        for _ in range(2):
            assert_problem(client.post("/reload", headers=KEY), 409, name)
            assert_problem(client.post("/items", files={"image": PHOTO}, headers=KEY), 503, name)
        assert neighbours(client, 1) == before
        assert client.get("/readyz").status_code == 200
        path.write_bytes(undamaged)
        assert client.post("/reload", headers=KEY).json()["changed"] is True
        assert neighbours(client, 2) != before


def test_a_model_with_other_classes_does_not_take_the_place_of_the_one_that_the_index_is_of(
    model: Path, changing: Path, tmp_path: Path
) -> None:
    own = Path(shutil.copytree(model, tmp_path / "model"))
    net = AlexNet(SmallConfig(classes=5))
    initialise(net, "fan-in", seed=2)
    with service(own, changing) as client:
        before, classes = neighbours(client, 1), send(client, "/classify?top=9", PHOTO).json()
        checkpoint.save(own, net, list("abcde"), torch.zeros(3, 256, 256))
        other = checkpoint.load(own).fingerprint
        reason = assert_problem(client.post("/reload", headers=KEY), 409, classes["model"][:12], other[:12])
        assert "build the index again, or give the model it was made with" in reason["detail"]
        assert neighbours(client, 1) == before
        assert send(client, "/classify?top=9", PHOTO).json() == classes
    with service(own, changing) as client:  # which holds no pair that it could go on with
        assert_problem(client.get("/readyz"), 503, classes["model"][:12], other[:12])
        assert {one["class"] for one in send(client, "/classify", PHOTO).json()["results"][0]["classes"]} == set("abcde")


def test_an_index_that_is_deleted_under_the_service_goes_on_answering(model: Path, changing: Path) -> None:
    with service(model, changing) as client:
        assert client.delete("/items/0", headers=KEY).status_code == 204
        version = client.get("/info").json()["index"]["version"]
        before, items = neighbours(client, version), [client.get(f"/items/{item}").json() for item in range(1, 24)]
        thumbnail = client.get("/items/5/thumbnail").content
        shutil.rmtree(changing)
        for _ in range(2):
            assert neighbours(client, version) == before
            assert [client.get(f"/items/{item}").json() for item in range(1, 24)] == items
            assert client.get("/items/5/thumbnail").content == thumbnail
            assert_problem(client.post("/reload", headers=KEY), 409, "no index at FC7_INDEX", "python -m indexer.build")
        assert_problem(client.delete("/items/1", headers=KEY), 503, "no index at FC7_INDEX")
        assert neighbours(client, version) == before


def test_an_index_that_is_made_anew_is_another_though_its_version_has_the_old_number(
    model: Path, index: Path, images: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(index, tmp_path / "index", symlinks=True))
    with service(model, folder) as client:
        assert client.get("/info").json()["index"]["items"] == 24
        shutil.rmtree(folder)
        build.main(build.BuildSettings(model=model, data=images, index=folder, part="test"))
        assert client.post("/reload", headers=KEY).json()["changed"] is True
        assert client.get("/info").json()["index"]["items"] == 9
        assert client.delete("/items/8", headers=KEY).status_code == 204
    assert open_index(folder).ids().tolist() == list(range(8))


class Full(io.FileIO):
    """A file that takes nothing: what write(2) says on a full disk."""

    def write(self, data: Any, /) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full_for(names: Callable[[Path], bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that `names` is true of can be opened for writing, but not written."""
    open_file = io.open

    def opened(file: Any, mode: str = "r", *others: Any, **options: Any) -> Any:
        if mode.startswith("w") and isinstance(file, (str, Path)) and names(Path(file)):
            buffered = io.BufferedWriter(Full(os.fspath(file), "w"))
            return buffered if "b" in mode else io.TextIOWrapper(buffered)
        return open_file(file, mode, *others, **options)

    monkeypatch.setattr(io, "open", opened)


def named(name: str) -> Callable[[Path], bool]:
    return lambda path: path.name == name or path.name.startswith(f".{name}.")


def full_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite itself finds no room for a second page."""
    connect = sqlite3.connect

    def connected(path: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(path, **options)
        if not options.get("uri"):
            connection.execute("PRAGMA max_page_count = 1")
        return connection

    monkeypatch.setattr(sqlite3, "connect", connected)


def full_uploads(monkeypatch: pytest.MonkeyPatch) -> None:
    full_for(lambda path: path.parent.name == artifact.UPLOADS, monkeypatch)


WRITTEN: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "an upload": full_uploads,
    "the catalogue": full_catalogue,
    **{
        name: lambda monkeypatch, name=name: full_for(named(name), monkeypatch)  # type: ignore[misc]
        for name in (
            artifact.VECTORS,
            artifact.CODES,
            artifact.COMPONENTS,
            artifact.LENGTHS,
            artifact.THUMBNAILS,
            artifact.DELETED,
            artifact.MANIFEST,
        )
    },
}


@pytest.fixture
def growing(index: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(index, tmp_path / "index", symlinks=True))


@pytest.fixture
def client(model: Path, growing: Path) -> Iterator[TestClient]:
    with service(model, growing) as client:
        yield client


def add(client: TestClient, *images: bytes) -> Response:
    response: Response = client.post("/items", files=[("image", ("x.jpg", data)) for data in images], headers=KEY)
    return response


def assert_unchanged(client: TestClient, growing: Path, before: list[Any]) -> None:
    assert neighbours(client, 1) == before
    assert len(open_store(growing)) == 24
    assert client.get("/items/24").status_code == 404


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # of a version that was given up
@pytest.mark.parametrize("what", WRITTEN)
def test_a_full_disk_is_named_and_leaves_all_as_it_was(
    client: TestClient, growing: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = neighbours(client, 1)
    with monkeypatch.context() as patch:
        WRITTEN[what](patch)
        response = add(client, PHOTO, OTHER)
    full = "is full" if what == "the catalogue" else "No space left on device"
    assert_problem(response, 503, "FC7_INDEX", full)
    assert_unchanged(client, growing, before)
    if what == "an upload":
        assert list((growing / artifact.UPLOADS).iterdir()) == []
    assert [result["id"] for result in add(client, PHOTO, OTHER).json()["results"]] == [24, 25]
    assert len(open_store(growing)) == 26
    assert len(list((growing / artifact.UPLOADS).iterdir())) == 2


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # of a version that was given up
@pytest.mark.parametrize("what", [what for what in WRITTEN if what != "an upload"])
def test_a_full_disk_leaves_no_upload_that_no_item_names(
    client: TestClient, growing: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        WRITTEN[what](patch)
        assert add(client, PHOTO, OTHER).status_code == 503
    assert list((growing / artifact.UPLOADS).iterdir()) == []


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # of a version that was given up
def test_a_full_disk_is_named_where_an_item_is_removed(
    client: TestClient, growing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = neighbours(client, 1)
    for name in (artifact.DELETED, artifact.MANIFEST):
        with monkeypatch.context() as patch:
            full_for(named(name), patch)
            assert_problem(client.delete("/items/5", headers=KEY), 503, "FC7_INDEX", "No space left on device")
        assert_unchanged(client, growing, before)
    assert client.delete("/items/5", headers=KEY).status_code == 204


def test_a_disk_that_fails_at_any_flush_leaves_the_old_version_or_the_new_one(
    client: TestClient, growing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the new one was published and only the last flush failed: it is then taken up, and adding again is harmless."""
    fsync, failures, left = os.fsync, 0, 0

    def flush(descriptor: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    while True:
        left = failures
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", flush)
            response = add(client, PHOTO)
        if response.status_code == 200:
            break
        assert_problem(response, 503, "FC7_INDEX", "No space left on device")
        published = len(open_store(growing))
        assert published in (24, 25)
        assert client.post("/reload", headers=KEY).json()["changed"] is (published == 25 and failures > 0)
        assert client.get("/info").json()["index"]["items"] == published
        failures += 1
    assert failures > 10
    assert response.json()["results"][0]["id"] == 24
    assert len(open_store(growing)) == 25
    assert client.get("/items/24/image").content == PHOTO


def kill(name: str) -> threading.Thread:
    """Has a thread end at the next line that it comes to."""
    [thread] = [thread for thread in threading.enumerate() if thread.name == name]
    assert thread.ident
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))
    return thread


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_killed_in_the_middle_of_a_batch_has_its_callers_told_and_is_replaced(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    began, release, answers = threading.Event(), threading.Event(), Model.answers

    def held(self: Model, photographs: Any, views: Any) -> Any:
        began.set()
        assert release.wait(60)
        return answers(self, photographs, views)

    before = send(client, "/classify", PHOTO, OTHER).json()
    with monkeypatch.context() as patch, ThreadPoolExecutor(2) as pool:
        patch.setattr(Model, "answers", held)
        asked = pool.submit(send, client, "/classify", PHOTO)
        assert began.wait(60)
        thread = kill("compute")
        release.set()
        response = asked.result(60)
    assert_problem(response, 503, "the thread compute ended in the middle of the work")
    assert int(response.headers["retry-after"]) > 0
    thread.join(60)
    assert not thread.is_alive()
    assert send(client, "/classify", PHOTO, OTHER).json() == before
    assert "another takes its place" in caplog.text
    assert 'fc7_rejects_total{reason="batch_failed"} 1.0' in client.get("/metrics").text


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_killed_while_it_waits_is_missed_by_nobody(client: TestClient) -> None:
    before = send(client, "/classify", PHOTO).json(), client.post("/neighbors?id=3").json()
    thread = kill("compute")
    assert (send(client, "/classify", PHOTO).json(), client.post("/neighbors?id=3").json()) == before
    thread.join(60)
    assert not thread.is_alive()
    assert (send(client, "/classify", PHOTO).json(), client.post("/neighbors?id=3").json()) == before


@pytest.mark.parametrize("where", ["PIL.Image.Image.resize", "training.checkpoint.Model.answers"])
def test_want_of_memory_is_no_fault_of_the_photograph_nor_of_the_service(
    client: TestClient, where: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> None:
        raise MemoryError

    before = send(client, "/classify", PHOTO, OTHER).json()
    for images in ([PHOTO], [PHOTO, OTHER]):
        caplog.clear()
        with monkeypatch.context() as patch:
            patch.setattr(where, fails)
            response = send(client, "/classify", *images)
        assert_problem(response, 503, "memory")
        assert int(response.headers["retry-after"]) > 0
        assert "no memory for POST /classify" in caplog.text
        assert "MemoryError" in caplog.text
    assert send(client, "/classify", PHOTO, OTHER).json() == before
