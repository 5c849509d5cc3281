"""An index whose items lie in Milvus: built, added to, removed from, evaluated and served like one on disk."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from indexer import arrays, evaluate
from indexer.add import AddSettings
from indexer.add import main as add
from indexer.assembly import Plan, assemble
from indexer.build import BuildSettings
from indexer.build import main as build
from indexer.codes import autoencoder
from indexer.compact import CompactSettings
from indexer.compact import main as compact
from indexer.index import open_index
from indexer.milvus import connection
from indexer.milvus.collection import Collection
from indexer.milvus.index import MilvusIndex, collections
from indexer.milvus.store import MilvusStore
from indexer.opening import OpenStore, open_next, open_store
from indexer.remove import RemoveSettings
from indexer.remove import main as remove
from indexer.storage import artifact, layout
from indexer.storage.artifact import RejectRecord
from indexer.store import Filter, Hits, Query
from service.app import create_app
from service.settings import ServiceSettings
from tests.indexer.synthetic import SOURCE, WIDTH, block, features
from tests.service.calls import assert_problem
from training import checkpoint
from training.errors import BadSettings, FC7Error, Mismatch, NotReady
from training.images.folders import Reject


@pytest.fixture
def in_milvus(tmp_path: Path, model: Path, images: Path) -> Iterator[Path]:
    """An index folder whose items are in a local Milvus file."""
    folder = tmp_path / "index"
    build(BuildSettings(model=model, data=images, index=folder, part="train", store=str(tmp_path / "milvus.db")))
    store = open_store(folder)  # holds the file's server for the whole test
    yield folder
    store.close()


def test_an_index_in_milvus_does_what_one_on_disk_does(
    in_milvus: Path, index: Path, model: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not list(in_milvus.glob("versions/*/0"))
    store, disk = open_store(in_milvus), open_index(index)
    assert isinstance(store, MilvusIndex)
    assert (store.manifest.kept, len(store), store.bits) == (24, 24, 128)
    queries = disk.vectors([0, 11])
    for ask in (Query(k=9), Query(k=9, filter=Filter(("red",))), Query(k=30, mode="two-stage")):
        for row in range(2):
            ours, theirs = store.search(queries, ask).of(row), disk.search(queries, ask).of(row)
            assert [item for item, _, _ in ours] == [item for item, _, _ in theirs]
    assert store.thumbnail(store.items([5])[0]) == disk.thumbnail(disk.items([5])[0])
    add(AddSettings(model=model, data=images, index=in_milvus, part="all"))
    assert "9 photographs added, 24 there already" in capsys.readouterr().out
    remove(RemoveSettings(index=in_milvus, ids=[0, 30]))
    assert store.ids().tolist() == [i for i in range(33) if i not in (0, 30)]
    with pytest.raises(Mismatch, match=r"are in Milvus at .*, which keeps itself compact"):
        compact(CompactSettings(index=in_milvus))
    store.close()


def test_an_index_in_milvus_is_evaluated(in_milvus: Path, model: Path, images: Path, tmp_path: Path) -> None:
    store = open_store(in_milvus)
    settings = evaluate.EvaluateSettings(model=model, data=images, index=in_milvus, out=tmp_path / "out")
    report = evaluate.evaluate(checkpoint.load(model), store, settings)
    assert (report.queries, report.database) == (9, 24)
    assert (tmp_path / "out" / "evaluation.md").exists()
    store.close()


def test_an_index_in_milvus_is_served(in_milvus: Path, model: Path, images: Path) -> None:
    settings = ServiceSettings(model=model, index=in_milvus, api_key="secret")
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
        assert not list((in_milvus / artifact.UPLOADS).iterdir())


def test_what_is_removed_between_finding_and_telling_it_is_no_hit(
    in_milvus: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In Milvus all stores see a removal, also one that is searching."""
    removed: list[int] = []
    search = MilvusStore.search

    def overtaken(self: MilvusStore, queries_QD: np.ndarray, query: Query) -> Hits:
        hits = search(self, queries_QD, query)
        if len(removed) < most:
            removed.append(int(hits.ids_QK[0, 1]))
            self._collection.delete(removed[-1:])
        return hits

    monkeypatch.setattr(MilvusStore, "search", overtaken)
    with TestClient(create_app(ServiceSettings(model=model, index=in_milvus)), raise_server_exceptions=False) as client:
        most = 2
        response = client.post("/neighbors?id=0&k=3")
        assert response.status_code == 200, response.text
        found = [neighbor["id"] for neighbor in response.json()["results"][0]["neighbors"]]
        assert (found[0], len(found), len(removed), set(found) & set(removed)) == (0, 3, 2, set())
        most = 20
        assert_problem(client.post("/neighbors?id=0&k=3"), 503, "try again")


def test_building_into_milvus_trains_and_measures_what_building_on_disk_does(
    in_milvus: Path, tmp_path: Path, model: Path, images: Path
) -> None:
    on_disk = tmp_path / "disk"
    build(BuildSettings(model=model, data=images, index=on_disk, part="train", shortlist="codes"))
    ours, theirs = (artifact.read_manifest(artifact.current(index)) for index in (in_milvus, on_disk))
    assert ours.recall == theirs.recall
    assert ours.shortlist == theirs.shortlist
    assert (ours.kept, ours.rejected, ours.next_id, ours.segments) == (24, 0, 24, [])
    store, disk = open_store(in_milvus), open_index(on_disk)
    np.testing.assert_array_equal(store.codes(range(24)), disk.codes(range(24)))
    store.close()


def test_an_index_by_cosine_in_milvus_answers_as_one_on_disk(tmp_path: Path, model: Path, images: Path) -> None:
    settings = BuildSettings(model=model, data=images, index=tmp_path / "disk", part="train", metric="cosine", shortlist="codes")
    build(settings)
    build(settings.model_copy(update={"index": tmp_path / "milvus", "store": str(tmp_path / "milvus.db")}))
    disk, store = open_index(tmp_path / "disk"), open_store(tmp_path / "milvus")
    assert (store.metric, store.manifest.metric, store.manifest.recall) == ("cosine", "cosine", disk.manifest.recall)
    np.testing.assert_array_equal(store.vectors(range(24)), disk.vectors(range(24)))
    queries_QD = np.abs(np.random.default_rng(0).normal(size=(3, 32))).astype(np.float32) * 1e-9
    for ask in (
        Query(k=24),
        Query(k=5, mode="two-stage", filter=Filter(labels=("red",))),
        Query(k=24, max_distance=0.4),
        Query(k=5, mode="code"),
    ):
        ours, theirs = store.search(queries_QD, ask), disk.search(queries_QD, ask)
        for row in range(3):
            assert ours.of(row) == theirs.of(row)
    disk.close()
    store.close()


def test_measuring_block_by_block_is_measuring_all_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More rows than are trained on, in blocks of several sizes, some of them empty."""
    monkeypatch.setattr(arrays, "SAMPLE_ROWS", 100)
    x_ND = np.repeat(features(35), 20, axis=0) + np.random.default_rng(1).normal(0, 0.6, (700, WIDTH)).astype(np.float32)
    trained_on = []
    once = autoencoder.train(features(64), 16)

    def train(features_ND: np.ndarray, bits: int, seed: int) -> autoencoder.Autoencoder:
        trained_on.append(np.array(features_ND))
        return once

    monkeypatch.setattr(autoencoder, "train", train)
    edges = [0, 10, 10, 300, 700]
    blocks = [block(x_ND[start:end], start) for start, end in pairwise(edges)]
    blocks[1].rejects.append(Reject("a.txt", "not an image"))
    plans = [Plan(16, shortlist="codes", map=True, store=store) for store in ("", str(tmp_path / "m.db"))]
    for plan, folder in zip(plans, ("disk", "milvus"), strict=True):
        (tmp_path / folder).mkdir()
        result = assemble(tmp_path / folder, blocks, SOURCE, plan)
        assert (result.version_number, result.kept, result.rejects) == (1, 700, [RejectRecord("/c", "a.txt", "not an image", "")])
    disk, milvus = (artifact.read_manifest(artifact.current(tmp_path / folder)) for folder in ("disk", "milvus"))
    assert disk.shortlist is not None
    assert 50 < disk.shortlist.length < 700
    assert (disk.shortlist, disk.recall, disk.rejected) == (milvus.shortlist, milvus.recall, milvus.rejected)
    places = [layout.read(open_store(tmp_path / folder)) for folder in ("disk", "milvus")]
    assert len(places[0].ids_N) == 700
    for name in ("ids_N", "places_N2", "numbers_N"):
        np.testing.assert_array_equal(*(getattr(one, name) for one in places))
    rows = np.sort(np.random.default_rng(0).permutation(700)[:100])
    np.testing.assert_array_equal(trained_on[1], x_ND[rows])


def test_nothing_but_what_encodes_is_written_beside_milvus_and_a_failure_leaves_no_collection(
    in_milvus: Path, tmp_path: Path, model: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {artifact.AUTOENCODER, artifact.DELETED, artifact.REJECTS, artifact.MANIFEST, artifact.SIGNATURE}
    assert {path.name for path in artifact.current(in_milvus).rglob("*")} == names
    [record] = collections(in_milvus).values()
    dropped = []
    drop = MilvusStore.drop

    def failing(self: Collection, *args: object) -> None:
        raise FC7Error("full")

    def recorded(self: MilvusStore) -> None:
        dropped.append(self._name)
        drop(self)

    monkeypatch.setattr(Collection, "insert", failing)
    monkeypatch.setattr(MilvusStore, "drop", recorded)
    again = BuildSettings(model=model, data=images, index=in_milvus, part="train", store=str(tmp_path / "milvus.db"))
    with pytest.raises(FC7Error, match="full"):
        build(again)
    monkeypatch.undo()
    assert (in_milvus / artifact.WORK).is_dir()
    with connection.connected(connection.parse(record.uri)) as milvus:
        assert [Collection(milvus, name).exists() for name in [record.collection, *dropped]] == [True, False]
    build(again)
    assert not (in_milvus / artifact.WORK).exists()
    store = open_store(in_milvus)
    assert len(store) == 24
    store.close()


def test_a_new_build_leaves_the_collections_of_two_versions(in_milvus: Path, model: Path, images: Path, tmp_path: Path) -> None:
    first = artifact.read_manifest(artifact.current(in_milvus)).milvus
    assert first is not None
    for _ in range(2):
        build(BuildSettings(model=model, data=images, index=in_milvus, part="test", store=str(tmp_path / "milvus.db")))
    store = open_store(in_milvus)
    assert len(store) == 9
    with connection.connected(connection.parse(first.uri)) as milvus:
        assert not Collection(milvus, first.collection).exists()
        [second] = [record for folder, record in collections(in_milvus).items() if folder.name == "2"]
        assert Collection(milvus, second.collection).exists()
    store.close()


def test_rejects_come_and_go_as_those_of_an_index_on_disk(in_milvus: Path, index: Path, tmp_path: Path) -> None:
    shutil.copytree(index, tmp_path / "disk", symlinks=True)
    stores: list[OpenStore] = [open_store(in_milvus), open_store(tmp_path / "disk")]
    for first in stores:
        with_rejects = block(features(2, seed=9, width=first.width), 100)
        copied = first.items([3])[0].sha256
        with_rejects.rejects.extend([Reject("a.txt", "not an image"), Reject("b.jpg", "a copy", copied)])
        store, ids = first.add([with_rejects], Path("/c"))
        records = [RejectRecord("/c", "a.txt", "not an image", ""), RejectRecord("/c", "b.jpg", "a copy", copied)]
        assert artifact.reject_records(store.folder) == records
        assert (store.manifest.rejected, store.folder, ids) == (2, artifact.current(store.folder.parents[1]), [24, 25])
        store = store.remove([3])
        assert artifact.reject_records(store.folder) == records[:1]
        mended = block(features(1, seed=8, width=first.width), 200)
        store, _ = store.add([replace(mended, files=[replace(mended.files[0], path="a.txt")])], Path("/c"))
        assert artifact.reject_records(store.folder) == []
        assert (artifact.read_manifest(artifact.current(store.folder.parents[1])).rejected, len(store)) == (0, 26)
        store, ids = store.add([replace(mended.without([0], []), rejects=[Reject("c.txt", "not an image")])], Path("/c"))
        assert (ids, artifact.reject_records(store.folder)) == ([], [RejectRecord("/c", "c.txt", "not an image", "")])
        assert open_store(store.folder.parents[1]).ids().tolist() == store.ids().tolist()


def test_after_another_build_the_old_collection_does_not_pass_for_the_index(
    in_milvus: Path, model: Path, images: Path, tmp_path: Path
) -> None:
    store = open_store(in_milvus)
    assert open_next(in_milvus, store).ids().tolist() == store.ids().tolist()
    build(BuildSettings(model=model, data=images, index=in_milvus, part="test", store=str(tmp_path / "milvus.db")))
    with pytest.raises(Mismatch, match=r"are elsewhere.*open the index anew"):
        store.renewed()
    following = open_next(in_milvus, store)
    assert (len(following), following.folder) == (9, artifact.current(in_milvus))
    build(BuildSettings(model=model, data=images, index=in_milvus, part="train"))
    with pytest.raises(Mismatch, match="are elsewhere"):
        following.renewed()
    assert len(open_next(in_milvus, following)) == 24


def test_what_milvus_cannot_do_is_said_before_the_first_photograph(tmp_path: Path, model: Path, images: Path) -> None:
    with pytest.raises(BadSettings, match="store needs bits"):
        build(BuildSettings(model=model, data=images, index=tmp_path / "i", bits=0, store=str(tmp_path / "m.db")))
    with pytest.raises(NotReady, match="is not a folder"):
        build(BuildSettings(model=model, data=images, index=tmp_path / "i", store=str(tmp_path / "none" / "m.db")))
