"""An index whose items lie in Milvus: built, added to, removed from, evaluated and served like one on disk."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from indexer import evaluate
from indexer.add import AddSettings
from indexer.add import main as add
from indexer.build import BuildSettings
from indexer.build import main as build
from indexer.compact import CompactSettings
from indexer.compact import main as compact
from indexer.index import open_index
from indexer.milvus import connection
from indexer.milvus.collection import Collection
from indexer.milvus.index import MilvusIndex, collections
from indexer.opening import open_store
from indexer.remove import RemoveSettings
from indexer.remove import main as remove
from indexer.storage import artifact
from indexer.store import Query
from service.app import create_app
from service.settings import ServiceSettings
from training import checkpoint
from training.errors import BadSettings, Mismatch, NotReady


@pytest.fixture
def remote(tmp_path: Path, model: Path, images: Path) -> Iterator[Path]:
    """An index folder whose items are in a local Milvus file."""
    folder = tmp_path / "index"
    build(BuildSettings(model=model, data=images, index=folder, part="train", store=str(tmp_path / "milvus.db")))
    store = open_store(folder)  # holds the file's server for the whole test
    yield folder
    store.close()


def test_an_index_in_milvus_does_what_one_on_disk_does(
    remote: Path, index: Path, model: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not list(remote.glob("versions/*/0"))
    store, disk = open_store(remote), open_index(index)
    assert isinstance(store, MilvusIndex)
    assert (store.manifest.kept, len(store), store.bits) == (24, 24, 128)
    queries = disk.vectors([0, 11])
    for ask in (Query(k=9), Query(k=9, label="red"), Query(k=30, mode="two-stage")):
        for row in range(2):
            ours, theirs = store.search(queries, ask).of(row), disk.search(queries, ask).of(row)
            assert [item for item, _, _ in ours] == [item for item, _, _ in theirs]
    assert store.thumbnail(store.items([5])[0]) == disk.thumbnail(disk.items([5])[0])
    add(AddSettings(model=model, data=images, index=remote, part="all"))
    assert "9 photographs added, 24 there already" in capsys.readouterr().out
    remove(RemoveSettings(index=remote, ids=[0, 30]))
    assert store.ids().tolist() == [i for i in range(33) if i not in (0, 30)]
    with pytest.raises(Mismatch, match=r"are in Milvus at .*, which keeps itself compact"):
        compact(CompactSettings(index=remote))
    store.close()


def test_an_index_in_milvus_is_evaluated(remote: Path, model: Path, images: Path, tmp_path: Path) -> None:
    store = open_store(remote)
    settings = evaluate.EvaluateSettings(model=model, data=images, index=remote, out=tmp_path / "out")
    report = evaluate.evaluate(checkpoint.load(model), store, settings)
    assert (report.queries, report.database) == (9, 24)
    assert (tmp_path / "out" / "evaluation.md").exists()
    store.close()


def test_an_index_in_milvus_is_served(remote: Path, model: Path, images: Path) -> None:
    settings = ServiceSettings(model=model, index=remote, api_key="secret")
    headers = {"X-API-Key": "secret"}
    with TestClient(create_app(settings)) as client:
        data = (images / "test/red/000.jpg").read_bytes()
        assert client.post("/neighbors?id=3&k=2").json()["results"][0]["neighbors"][0]["id"] == 3
        added = client.post("/items", files={"image": data}, headers=headers).json()["results"][0]
        assert (added["id"], added["known"]) == (24, False)
        assert client.get("/items/24/image").content == data
        found = client.post("/neighbors?k=1&mode=code", files={"image": data}).json()["results"][0]["neighbors"][0]
        assert (found["id"], found["distance"]) == (24, 0)
        assert client.delete("/items/24", headers=headers).status_code == 204
        assert client.get("/items/24").status_code == 404
        assert not list((remote / artifact.UPLOADS).iterdir())


def test_a_new_build_leaves_the_collections_of_two_versions(remote: Path, model: Path, images: Path, tmp_path: Path) -> None:
    first = artifact.read_manifest(artifact.current(remote)).milvus
    assert first is not None
    for _ in range(2):
        build(BuildSettings(model=model, data=images, index=remote, part="test", store=str(tmp_path / "milvus.db")))
    store = open_store(remote)
    assert len(store) == 9
    with connection.connected(connection.parse(first.uri)) as opened:
        assert not Collection(opened, first.collection).exists()
        [second] = [record for folder, record in collections(remote).items() if folder.name == "2"]
        assert Collection(opened, second.collection).exists()
    store.close()


def test_what_milvus_cannot_do_is_said_before_the_first_photograph(tmp_path: Path, model: Path, images: Path) -> None:
    with pytest.raises(BadSettings, match="store needs bits"):
        build(BuildSettings(model=model, data=images, index=tmp_path / "i", bits=0, store=str(tmp_path / "m.db")))
    with pytest.raises(NotReady, match="is not a folder"):
        build(BuildSettings(model=model, data=images, index=tmp_path / "i", store=str(tmp_path / "none" / "m.db")))
