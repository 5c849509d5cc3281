"""Milvus alone: addresses and tokens, what is refused, ties past Milvus's limit, and what a restart or a crash leaves.

What it shares with an index on disk is in test_store.py.
"""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from indexer.codes import autoencoder
from indexer.codes.autoencoder import Autoencoder
from indexer.milvus import collection, connection
from indexer.milvus.collection import Collection
from indexer.milvus.store import MilvusStore
from indexer.store import Query
from tests.indexer.synthetic import WIDTH, block, features
from training.errors import BadValue, Busy, FC7Error, Mismatch, NotFound, NotReady
from training.images.preprocess import ImageLimits

ROOT = Path("/c")
MODEL = "m" * 64
LIMITS = ImageLimits()


@pytest.fixture(scope="module")
def coder() -> Autoencoder:
    return autoencoder.train(features(64), 16)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A file whose server runs until these tests have ended."""
    path = str(tmp_path_factory.mktemp("milvus") / "items.db")
    user = type("User", (), {})()
    held = connection.connect(connection.parse(path), user)
    yield path
    connection.disconnect(held, user)


@pytest.fixture
def store(file: str, coder: Autoencoder, request: pytest.FixtureRequest) -> Iterator[MilvusStore]:
    """An empty collection."""
    made = MilvusStore.create(file, request.function.__name__, WIDTH, coder, MODEL, LIMITS)
    yield made
    made.drop()
    made.close()


@pytest.mark.parametrize(
    ("text", "address", "uri", "token", "database"),
    [
        ("milvus://db", "milvus://db:19530", "http://db:19530", "", ""),
        ("milvus://db:1/two", "milvus://db:1/two", "http://db:1", "", "two"),
        ("milvus+tls://me:s%40crt@db:2", "milvus+tls://db:2", "https://db:2", "me:s@crt", ""),
        ("milvus://apikey@[::1]:3", "milvus://[::1]:3", "http://[::1]:3", "apikey", ""),
    ],
)
def test_an_address_says_where_and_keeps_its_token_to_itself(
    text: str, address: str, uri: str, token: str, database: str
) -> None:
    parsed = connection.parse(text)
    assert (parsed.shown, parsed.uri, parsed.token, parsed.database, parsed.is_file) == (address, uri, token, database, False)
    assert connection.parse(parsed.shown).uri == uri
    if token:
        assert token not in repr(parsed) + str(parsed)
        assert "crt" not in repr(parsed)


def test_a_token_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FC7_MILVUS_TOKEN", "secret")
    assert connection.parse("milvus://db").token == "secret"  # noqa: S105
    assert connection.parse("milvus://own@db").token == "own"  # noqa: S105
    assert connection.parse("items.db").token == ""


@pytest.mark.parametrize(
    "text",
    [
        "http://u:secret@db",
        "milvus://",
        "milvus://secret@db:port",
        "milvus://secret@db/?a=b",
        "items.sqlite",
        "my items.db",
        "a" * 40 + ".db",
    ],
)
def test_what_is_no_address_is_refused_and_its_token_is_not_shown(text: str) -> None:
    with pytest.raises(
        BadValue, match=r"store must be milvus://host:port, milvus\+tls://host:port or a path that ends in \.db"
    ) as caught:
        connection.parse(text)
    assert "secret" not in str(caught.value)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotReady, match="nowhere is not a folder"):
        connection.parse(str(tmp_path / "nowhere" / "items.db"))


def test_a_server_that_does_not_answer_is_named_without_its_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_CONNECT_S", 0.1)
    with pytest.raises(NotReady, match=r"Milvus at milvus://127.0.0.1:1 does not answer .*; start it, correct --store") as caught:
        MilvusStore.open("milvus://me:secret@127.0.0.1:1", "items", None, MODEL, LIMITS)
    assert "secret" not in str(caught.value)


def test_without_pymilvus_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(NotReady, match=r"the store milvus://db:19530 needs the extra milvus .*: pip install -e '\.\[milvus\]'"):
        MilvusStore.open("milvus://db", "items", None, MODEL, LIMITS)


def test_a_file_that_another_program_has_open_is_busy(tmp_path: Path) -> None:
    hold = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", hold, str(tmp_path / ".items.db.lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        holder.stdout.readline()
        with pytest.raises(Busy, match=r"items\.db cannot be opened: another program has it open"):
            MilvusStore.open(str(tmp_path / "items.db"), "items", None, MODEL, LIMITS)
        holder.stdin.close()


def test_a_collection_of_another_model_or_autoencoder_is_refused(file: str, coder: Autoencoder, store: MilvusStore) -> None:
    name = test_a_collection_of_another_model_or_autoencoder_is_refused.__name__
    store.fill([block(features(3))], ROOT)
    with pytest.raises(
        Mismatch, match=rf"the collection {name} of .*items\.db was made with the model mmmmmmmmmmmm, .* has nnnn"
    ):
        MilvusStore.open(file, name, coder, "n" * 64, LIMITS)
    with pytest.raises(Mismatch, match="was made with the model"):
        MilvusStore.create(file, name, WIDTH, coder, "n" * 64, LIMITS)
    with pytest.raises(Mismatch, match=r"was made with the autoencoder .* has none"):
        MilvusStore.create(file, name, WIDTH, None, MODEL, LIMITS)
    with pytest.raises(Mismatch, match=r"was made with the width 32, .* has 33"):
        MilvusStore.create(file, name, WIDTH + 1, coder, MODEL, LIMITS)
    with pytest.raises(Mismatch, match=r"was made with the metric euclidean, the index at hand has cosine"):
        MilvusStore.open(file, name, coder, MODEL, LIMITS, metric="cosine")
    with pytest.raises(Mismatch, match="holds 3 items already"):
        store.fill([block(features(3))], ROOT)
    same = MilvusStore.create(file, name, WIDTH, coder, MODEL, LIMITS)
    assert (len(same), same.next_id, same.version_number) == (3, 3, store.renewed().version_number)
    same.close()


def test_what_is_not_there_or_not_finished_is_refused(
    file: str, coder: Autoencoder, store: MilvusStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        NotReady, match=r"the collection other of .* does not exist; `python -m indexer.build` with --store makes it"
    ):
        MilvusStore.open(file, "other", coder, MODEL, LIMITS)
    with pytest.raises(BadValue, match="collection must be letters, digits and _"):
        MilvusStore.create(file, "a b", WIDTH, coder, MODEL, LIMITS)
    with monkeypatch.context() as patch:
        patch.setattr(Collection, "write_state", interrupted)
        with pytest.raises(KeyboardInterrupt):
            MilvusStore.create(file, "half", WIDTH, coder, MODEL, LIMITS)
    with pytest.raises(
        Mismatch, match=r"the collection half of .* has no half_state: something else made it, or it was not finished"
    ):
        MilvusStore.create(file, "half", WIDTH, coder, MODEL, LIMITS)
    with pytest.raises(Mismatch, match=r"the features have 5 components, .* has 32"):
        store.add([block(features(2, width=5))], ROOT)


def interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_more_items_at_one_distance_than_a_search_can_give_come_by_id_too(
    store: MilvusStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    x_ND = np.repeat(features(4, seed=1), 25, 0)[np.random.default_rng(0).permutation(100)]
    grown = store.fill([block(x_ND)], ROOT).remove([3, 50])
    monkeypatch.setattr(collection, "LIMIT", 16)
    monkeypatch.setattr(collection, "_ROWS", 16)
    squared = ((x_ND.astype(np.float64) - x_ND[7]) ** 2).sum(1)
    left = [item for item in np.lexsort((np.arange(100), squared)).tolist() if item not in (3, 50)]
    for mode in ("exact", "two-stage"):
        assert grown.search(x_ND[7:8], Query(k=99, mode=mode)).ids_QK[0].tolist() == left
    code = np.unpackbits(grown.codes([7]))
    hamming = {item: int((np.unpackbits(grown.codes([item])) != code).sum()) for item in left}
    by_code = sorted(left, key=lambda item: (hamming[item], item))
    assert grown.search(x_ND[7:8], Query(k=99, mode="code")).ids_QK[0].tolist() == by_code
    for mode, ranked in (("exact", left), ("code", by_code)):
        got: list[int] = []
        after = None
        while page := grown.search(x_ND[7:8], Query(k=9, mode=mode, after=after)).of(0):  # type: ignore[arg-type]
            got += [item for item, _, _ in page]
            after = (page[-1][2], page[-1][0])
        assert got == ranked
    assert grown.ids().tolist() == sorted(left)


@pytest.mark.parametrize("key", [1e308, 4e38, float(np.finfo(np.float32).max)])
def test_nothing_comes_after_a_distance_that_float32_cannot_pass(store: MilvusStore, key: float) -> None:
    """A cursor's key is anybody's number; Milvus refuses one for which there is no larger float32."""
    x_ND = features(20)
    full, _ = store.add([block(x_ND)], ROOT)
    assert full.search(x_ND[:1], Query(k=3, after=(key, 2**63 - 1))).ids_QK.size == 0


def test_an_addition_that_was_cut_off_gives_no_id_twice_and_the_same_again_adds_the_rest(
    store: MilvusStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    x_ND = features(6)
    with monkeypatch.context() as patch:
        patch.setattr(Collection, "insert", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.add([block(x_ND[:4])], ROOT)
    assert len(store) == 0
    grown, ids = store.add([block(x_ND)], ROOT)
    assert ids == [4, 5, 6, 7, 8, 9]
    assert len(grown) == 6


def test_others_see_what_one_has_added_and_removed(file: str, coder: Autoencoder, store: MilvusStore) -> None:
    other = MilvusStore.open(file, test_others_see_what_one_has_added_and_removed.__name__, coder, MODEL, LIMITS)
    x_ND = features(3)
    grown = store.fill([block(x_ND)], ROOT)
    assert other.search(x_ND[1:2], Query(k=1)).of(0) == [(1, 0.0, 0.0)]
    assert other.renewed().version_number == grown.version_number > other.version_number
    grown.remove([1])
    with pytest.raises(NotFound, match="no item has the id 1; the index holds 2 items with ids below 3"):
        other.vectors([1])
    other.close()


def test_a_restart_keeps_items_and_ids_and_closing_ends_the_server(tmp_path: Path, coder: Autoencoder) -> None:
    from milvus_lite.server_manager import server_manager_instance

    path, x_ND = str(tmp_path / "items.db"), features(4)
    first = MilvusStore.create(path, "items", WIDTH, coder, MODEL, LIMITS)
    grown = first.fill([block(x_ND)], ROOT).remove([3])
    server = server_manager_instance._servers[path]._p
    first.close()
    assert len(grown) == 3
    grown.close()
    grown.close()
    assert server.poll() is not None
    again = MilvusStore.open(path, "items", coder, MODEL, LIMITS)
    assert again.ids().tolist() == [0, 1, 2]
    assert again.thumbnail(again.items([2])[0]) == b"thumbnail 2"
    again, ids = again.add([block(x_ND[3:], 3)], ROOT)
    assert ids == [4]
    again.close()


def test_a_thumbnail_that_does_not_fit_is_refused(store: MilvusStore) -> None:
    large = block(features(1))
    files = [replace(large.files[0], thumbnail_size=50_000)]
    with pytest.raises(FC7Error, match=r"the thumbnail of 00000\.jpg has 50000 bytes, Milvus takes 49151"):
        store.add([replace(large, files=files, thumbnails=bytes(50_000))], ROOT)


def test_what_milvus_refuses_is_told_with_its_reason(store: MilvusStore) -> None:
    with pytest.raises(FC7Error, match=r"Milvus at .*items\.db refuses search: "):
        store.search(np.zeros((1, 5), np.float32), Query(k=1))
