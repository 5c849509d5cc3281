"""Files of an index that damage or somebody else has changed, the token of Milvus, writers that wait, pages and labels."""

import io
import json
import os
import shutil
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.lib import format as npy

from indexer import add, compact, remove
from indexer.assembly import Plan, assemble
from indexer.index import Index, open_index
from indexer.milvus import connection
from indexer.scans import native
from indexer.scans.native import Wanted
from indexer.search.shortlist import ByPrincipal
from indexer.storage import artifact
from indexer.storage.artifact import FileRecord
from indexer.store import Filter, FirstPage, Query
from tests.indexer.synthetic import LABELS, SOURCE, block, features
from training import files
from training.errors import BadValue, Busy, Mismatch
from training.files import exclusively, patiently

BITS = 400
LONGEST_S = 60  # for another thread to come to where it says so


@pytest.fixture
def copied(index: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(index, tmp_path / "copy", symlinks=True))


@pytest.fixture
def grown(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """An index of two segments, of 40 and 10 items, and vectors, of which the first 50 are theirs."""
    folder, x_ND = tmp_path / "grown", features(80)
    folder.mkdir()
    assemble(folder, [block(x_ND[:40])], SOURCE, Plan(bits=0))
    store, _ = open_index(folder).add([block(x_ND[40:50], 40)], Path("/c"))
    assert store.manifest.segments == [40, 10]
    store.close()
    return folder, x_ND


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def sign(index: Path, **changes: object) -> None:
    """Writes the manifest with other fields, signed as the index's own is."""
    folder = artifact.current(index)
    artifact.write_manifest(folder, json.dumps({**json.loads((folder / artifact.MANIFEST).read_text()), **changes}))


def plant(index: Path, name: str, data: bytes) -> None:
    """Puts other bytes in a file's place, described and signed as the index's own are."""
    folder = artifact.current(index)
    (folder / name).write_bytes(data)
    record = FileRecord(bytes=len(data), sha256=files.sha256_of(folder / name))
    sign(index, files={**json.loads((folder / artifact.MANIFEST).read_text())["files"], name: record.model_dump()})


def array_file(array: np.ndarray, shape: tuple[int, ...] | None = None) -> bytes:
    """A .npy file of an array, which says that it has this shape."""
    buffer = io.BytesIO()
    header = npy.header_data_from_array_1_0(array)
    npy.write_array_header_1_0(buffer, header if shape is None else {**header, "shape": shape})
    return buffer.getvalue() + array.tobytes("A")


def published(index: Path) -> tuple[str, list[str]]:
    """Where `current` leads, and the versions that are there."""
    return str((index / artifact.CURRENT).readlink()), [folder.name for folder in artifact.version_folders(index)]


def test_every_flipped_bit_of_a_manifest_is_refused(copied: Path) -> None:
    folder = artifact.current(copied)
    path = folder / artifact.MANIFEST
    size = 8 * path.stat().st_size
    artifact.read_manifest(folder)
    for bit in np.random.default_rng(9).choice(size, min(BITS, size), replace=False).tolist():
        flip(path, bit)
        with pytest.raises(Mismatch, match=r"manifest\.json"):
            artifact.read_manifest(folder)
        flip(path, bit)
    artifact.read_manifest(folder)


def test_every_flipped_bit_of_a_manifests_hash_is_refused(copied: Path) -> None:
    folder = artifact.current(copied)
    path = folder / artifact.SIGNATURE
    for bit in range(8 * path.stat().st_size):
        flip(path, bit)
        with pytest.raises(Mismatch, match=r"manifest\.json is not the file that manifest\.sha256"):
            artifact.read_manifest(folder)
        flip(path, bit)
    path.unlink()
    with pytest.raises(Mismatch, match=r"manifest\.json is not the file that manifest\.sha256"):
        open_index(copied)


SHORTLIST = {"kind": "codes", "length": 50, "recall_at_10": 1.0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shortlist": {**SHORTLIST, "length": 0}}, r"shortlist\.length Input should be greater than or equal to 1"),
        ({"shortlist": {**SHORTLIST, "recall_at_10": -0.1}}, r"shortlist\.recall_at_10 Input should be greater"),
        ({"next_id": 10**30}, "next_id Input should be"),
        ({"next_id": 23}, "24 rows with ids below 23"),
        ({"width": 2**26}, "width Input should be less than or equal to 32768"),
        ({"width": 0}, "width Input should be greater"),
        ({"kept": -1}, "kept Input should be greater"),
        ({"rejected": -1}, "rejected Input should be greater"),
        ({"deleted": -1}, "deleted Input should be greater"),
        ({"next_id": -1}, "next_id Input should be greater"),
        ({"segments": [-24]}, r"segments\.0 Input should be greater"),
        ({"kept": 24.0}, "kept Input should be a valid integer"),
        ({"sources": ["photographs"]}, "names the source photographs, which is not absolute"),
        ({"files": {"../../outside": {"bytes": 1, "sha256": "0" * 64}}}, "should be the name of a file of a version"),
        ({"other": 1}, "other Extra inputs are not permitted"),
    ],
)
def test_a_signed_manifest_with_a_field_out_of_bounds_is_refused(copied: Path, changes: dict[str, object], message: str) -> None:
    sign(copied, **changes)
    with pytest.raises(Mismatch, match=message):
        open_index(copied)


@pytest.mark.parametrize(
    ("name", "change", "shape", "message"),
    [
        ("0/vectors.npy", np.asfortranarray, None, "float32 rows of shape .*, column by column, expected float32 of width 32"),
        ("0/vectors.npy", lambda x: x.astype(np.float64), None, "holds float64 rows .*, expected float32 of width 32"),
        ("0/vectors.npy", lambda x: x.astype(">f4"), None, "holds >f4 rows .*, expected float32 of width 32"),
        ("0/vectors.npy", lambda x: x[:, :31].copy(), None, r"rows of shape \(31,\), expected float32 of width 32"),
        ("0/vectors.npy", lambda x: x.reshape(-1), None, r"rows of shape \(\), expected float32 of width 32"),
        ("0/vectors.npy", lambda x: x[:23].copy(), None, "23"),
        ("0/vectors.npy", lambda x: x, (-1, 32), "bytes, which are not"),
        ("0/vectors.npy", lambda x: x, (2**40, 32), "bytes, which are not"),
        ("0/vectors.npy", lambda x: x[:1].reshape(-1), (), "expected float32 of width 32|bytes, which are not"),
        ("0/codes.npy", lambda x: x[:, :8].copy(), None, r"rows of shape \(8,\), expected uint8 of width 16"),
        ("0/ids.npy", lambda x: x[::-1].copy(), None, "ids that do not rise"),
        ("0/ids.npy", lambda x: np.zeros_like(x), None, "ids that do not rise"),
        ("0/ids.npy", lambda x: x - 1, None, "ids that do not rise"),
        ("0/ids.npy", lambda x: x + 2**40, None, "ids that do not rise from 0 on and below 24"),
        ("0/ids.npy", lambda x: x.astype(np.int32), None, "holds int32 rows .*, expected int64"),
        ("deleted.npy", lambda x: np.array([3, 2]), None, "ids that do not rise"),
        ("deleted.npy", lambda x: np.array([2, 3]), None, "holds 2 ids, not 0 that are items"),
        ("deleted.npy", lambda x: np.array([], np.float64), None, "holds float64 rows .*, expected int64"),
    ],
)
def test_a_signed_array_of_another_order_type_or_shape_is_refused(
    copied: Path, name: str, change: Callable[[Any], np.ndarray], shape: tuple[int, ...] | None, message: str
) -> None:
    whole = np.load(artifact.current(copied) / name)
    plant(copied, name, array_file(change(whole), shape))
    with pytest.raises(Mismatch, match=message):
        open_index(copied, contents=False)
    with pytest.raises(Mismatch, match=rf"{message}|describes other items than ids\.npy beside it lists"):
        open_index(copied)


X = np.zeros((8, 64), np.float32)
CODES = np.zeros((8, 16), np.uint8)
ROWS = np.array([0, 7])
ALL = Wanted(8, None, None, None)
BYTES, SIGNED = X.astype(np.uint8), X[:1].astype(np.int8)


@pytest.mark.parametrize(
    "call",
    [
        lambda: native.distances(X, X[0, :63].copy(), ROWS),
        lambda: native.distances(X.astype(np.float64), X[0], ROWS),
        lambda: native.distances(np.asfortranarray(X), X[0], ROWS),
        lambda: native.distances(X[:, ::2], X[0, :32], ROWS),
        lambda: native.distances(X, X[0], ROWS.astype(np.int32)),
        lambda: native.exact(X, np.zeros(2**16, np.float32), ALL),
        lambda: native.exact(X, X[0], replace(ALL, k=9)),
        lambda: native.exact(X, X[0], replace(ALL, k=-1)),
        lambda: native.exact(X, X[0], replace(ALL, allowed_N=np.ones(7, np.uint8))),
        lambda: native.exact(X, X[0], replace(ALL, allowed_N=np.ones(8, np.int64).view(np.bool_))),
        lambda: native.hamming(CODES, CODES[:, :8].copy(), ALL),
        lambda: native.hamming(CODES.astype(np.int8), CODES, ALL),
        lambda: native.hamming(CODES, CODES, replace(ALL, k=2**40)),
        lambda: native.products(X, X),
        lambda: native.products(X, np.zeros((64, 63), np.float32)),
        lambda: native.principal(BYTES, np.zeros((7, 2), np.float32), SIGNED, 1.0, np.ones(1), ALL),
        lambda: native.principal(BYTES, np.zeros((8, 2), np.float32), SIGNED[:, :32].copy(), 1.0, np.ones(1), ALL),
        lambda: native.principal(BYTES, np.zeros((8, 2), np.float32), SIGNED, 1.0, np.ones(2), ALL),
    ],
)
def test_native_code_is_not_called_with_arrays_of_other_sizes(call: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"expected|wanted of|at a time"):
        call()


@pytest.mark.parametrize("row", [-1, 8, 2**40])
def test_native_code_is_not_called_with_rows_that_are_not_there(row: int) -> None:
    with pytest.raises(IndexError):
        native.distances(X, X[0], np.array([0, row]))


def test_what_an_addition_copies_is_verified_first(grown: tuple[Path, np.ndarray]) -> None:
    folder, x_ND = grown
    flip(artifact.current(folder) / "1/vectors.npy", 8 * 200)
    before = published(folder)
    store = open_index(folder, contents=False)
    with pytest.raises(Mismatch, match=r"1/vectors\.npy is not the file that manifest\.json describes"):
        store.add([block(x_ND[50:], 50)], Path("/c"))
    assert published(folder) == before
    store.close()


def test_what_an_addition_links_keeps_its_hash_and_is_found_damaged(grown: tuple[Path, np.ndarray]) -> None:
    folder, x_ND = grown
    flip(artifact.current(folder) / "0/vectors.npy", 8 * 200)
    with pytest.raises(Mismatch, match=r"0/vectors\.npy is not the file that manifest\.json describes"):
        open_index(folder)
    records = artifact.read_manifest(artifact.current(folder)).files
    store = open_index(folder, contents=False)
    store.add([block(x_ND[50:52], 50)], Path("/c"))[0].close()
    assert artifact.read_manifest(artifact.current(folder)).files["0/vectors.npy"] == records["0/vectors.npy"]
    with pytest.raises(Mismatch, match=r"0/vectors\.npy is not the file that manifest\.json describes"):
        open_index(folder)
    store.close()


def test_what_an_addition_copies_for_want_of_links_is_verified_too(
    grown: tuple[Path, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, target: Path) -> None:
        raise OSError("no links here")

    folder, x_ND = grown
    flip(artifact.current(folder) / "0/vectors.npy", 8 * 200)
    before = published(folder)
    store = open_index(folder, contents=False)
    monkeypatch.setattr(Path, "hardlink_to", refuse)
    with pytest.raises(Mismatch, match=r"0/vectors\.npy is not the file that manifest\.json describes"):
        store.add([block(x_ND[50:52], 50)], Path("/c"))
    assert published(folder) == before
    store.close()


@pytest.mark.parametrize("name", ["0/vectors.npy", "1/vectors.npy", "1/thumbnails.bin"])
def test_a_compaction_of_damaged_segments_is_refused(grown: tuple[Path, np.ndarray], name: str) -> None:
    folder, _ = grown
    flip(artifact.current(folder) / name, 8 * 20 if name.endswith("bin") else 8 * 200)
    before = published(folder)
    with pytest.raises(Mismatch, match=rf"{name} is not the file that manifest\.json describes"):
        compact.main(compact.CompactSettings(index=folder))
    assert published(folder) == before


def test_a_host_that_a_manifest_names_gets_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(connection.TOKEN_VARIABLE, "secret")
    monkeypatch.delenv(connection.STORE_VARIABLE, raising=False)
    assert connection.parse("milvus://ours.example").token == "secret"  # noqa: S105
    assert connection.parse_recorded("milvus://ours.example").token == ""
    monkeypatch.setenv(connection.STORE_VARIABLE, "milvus+tls://ours.example:19531/photographs")
    assert connection.parse_recorded("milvus+tls://ours.example:19531/photographs").token == "secret"  # noqa: S105
    for other in (
        "milvus+tls://attacker.example:19531/photographs",
        "milvus+tls://ours.example.attacker.example:19531/photographs",
        "milvus://ours.example:19531/photographs",
        "milvus+tls://ours.example:19532/photographs",
        "milvus+tls://ours.example:19530/photographs",
        "milvus+tls://ours.example:19531/other",
    ):
        address = connection.parse_recorded(other)
        assert (address.shown, address.token) == (other, "")
    monkeypatch.delenv(connection.TOKEN_VARIABLE)
    monkeypatch.setenv(connection.STORE_VARIABLE, "milvus://root:mine@ours.example")
    assert connection.parse_recorded("milvus://ours.example:19530").token == "root:mine"  # noqa: S105
    assert connection.parse_recorded("milvus://attacker.example").token == ""
    with pytest.raises(BadValue):
        connection.parse_recorded("https://ours.example")


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """Stops whoever waits for a lock, at his first look: sets `waiting`, and goes on when the test sets `on`."""
    events = SimpleNamespace(waiting=threading.Event(), on=threading.Event())

    def look(seconds: float) -> None:
        events.waiting.set()
        events.on.wait(LONGEST_S)
        os.sched_yield()

    monkeypatch.setattr(files, "time", SimpleNamespace(monotonic=time.monotonic, sleep=look))
    yield events
    events.on.set()


def test_a_second_writer_waits_for_the_first_and_goes_on(copied: Path, looks: SimpleNamespace) -> None:
    second = threading.Thread(target=compact.main, args=[compact.CompactSettings(index=copied)])
    with exclusively(copied):
        second.start()
        assert looks.waiting.wait(LONGEST_S)
        assert published(copied) == ("versions/1", ["1"])
    looks.on.set()
    second.join(LONGEST_S)
    assert published(copied) == ("versions/2", ["1", "2"])
    assert len(open_index(copied)) == 24


def test_nobody_overtakes_a_writer_that_waits(tmp_path: Path, looks: SimpleNamespace) -> None:
    took = threading.Event()

    def write() -> None:
        with patiently(tmp_path):
            took.set()

    second = threading.Thread(target=write)
    with exclusively(tmp_path):
        second.start()
        assert looks.waiting.wait(LONGEST_S)
    with pytest.raises(Busy, match="another process is writing"), exclusively(tmp_path):
        pytest.fail("it came in between")
    assert not took.is_set()
    looks.on.set()
    second.join(LONGEST_S)
    assert took.is_set()
    with exclusively(tmp_path):
        pass


def test_patience_comes_to_an_end(copied: Path, model: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PATIENCE_S", 0.0)
    with exclusively(copied):
        with pytest.raises(Busy, match="another process is writing"):
            add.main(add.AddSettings(model=model, data=images, index=copied))
        with pytest.raises(Busy, match="another process is writing"):
            remove.main(remove.RemoveSettings(index=copied, ids=[0]))
        with pytest.raises(Busy, match="another process is writing"):
            compact.main(compact.CompactSettings(index=copied))
    assert published(copied) == ("versions/1", ["1"])
    remove.main(remove.RemoveSettings(index=copied, ids=[0]))
    assert len(open_index(copied)) == 23


def test_a_lock_that_is_a_link_is_refused_and_what_it_leads_to_is_left_alone(tmp_path: Path) -> None:
    other, folder = tmp_path / "other", tmp_path / "folder"
    other.write_text("somebody's own")
    folder.mkdir()
    (folder / ".lock").symlink_to(other)
    with pytest.raises(Mismatch, match="lock is not a file of ours"), exclusively(folder):
        pytest.fail("it was taken")
    assert other.read_text() == "somebody's own"


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_label_is_found_in_whichever_form_it_is_spelt(grown: tuple[Path, np.ndarray], form: Any) -> None:
    folder, x_ND = grown
    composed, apart = "\u00c5ngstr\u00f6m", "A\u030angstro\u0308m"
    assert unicodedata.normalize(form, apart) in (composed, apart)
    two = block(x_ND[50:52], 50)
    facts = [replace(file, label=unicodedata.normalize(form, apart)) for file in two.files]
    store, ids = open_index(folder).add([replace(two, files=facts)], Path("/c"))
    assert [item.label for item in store.items(ids)] == [composed] * 2
    for label in (composed, apart):
        hits = store.search(x_ND[50:51], Query(k=10, filter=Filter((label,)))).of(0)
        assert sorted(item for item, _, _ in hits) == ids
    store.close()


@pytest.fixture
def misses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes every short-list miss each third row."""
    propose = ByPrincipal.candidates

    def candidates(self: ByPrincipal, queries_QD: np.ndarray, codes_QW: None, r: int, allowed_N: np.ndarray | None) -> np.ndarray:
        mask_N = np.ones(len(self._rows_NP), np.uint8) if allowed_N is None else allowed_N.copy()
        mask_N[::3] = 0
        return propose(self, queries_QD, codes_QW, r, mask_N)

    monkeypatch.setattr(ByPrincipal, "candidates", candidates)


@pytest.mark.usefixtures("misses")
@pytest.mark.parametrize("label", [None, LABELS[1]])
@pytest.mark.parametrize("k", [1, 50, 100])
def test_pages_of_two_stages_give_every_item_once(two_stage: tuple[Index, np.ndarray], label: str | None, k: int) -> None:
    store, x_ND = two_stage
    query_D = features(1, seed=6)[0]
    squared = np.square(x_ND.astype(np.float64) - query_D.astype(np.float64)).sum(1)
    order = np.lexsort((np.arange(len(x_ND)), squared)).tolist()
    filter = Filter() if label is None else Filter((label,))
    wanted = [item for item in order if label is None or LABELS[item % len(LABELS)] == label]
    page = store.search(query_D[None], Query(k=k, mode="two-stage", filter=filter)).of(0)
    found: list[int] = [item for item, _, _ in page]
    assert len(found) == k
    if k > 1 and label is None:
        assert found != wanted[:k]
    first = FirstPage(k, page[-1][2], page[-1][0])
    while page:
        after = (page[-1][2], page[-1][0])
        page = store.search(query_D[None], Query(k=500, mode="two-stage", filter=filter, after=after, first=first)).of(0)
        found += [item for item, _, _ in page]
    assert len(found) == len(set(found)) == len(wanted)
    assert found[k:] == [item for item in wanted if item not in found[:k]]
