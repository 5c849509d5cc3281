"""Files of an index that damage or somebody else has changed, the token of Milvus, writers that wait, pages and labels."""

import io
import json
import os
import shutil
import sqlite3
import struct
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import faiss
import numpy as np
import pytest
from numpy.lib import format as npy

from indexer import add, compact, remove
from indexer.assembly import Plan, assemble
from indexer.index import open_index
from indexer.milvus import connection
from indexer.scans import native
from indexer.scans.native import Wanted
from indexer.storage import artifact
from indexer.storage.artifact import FileRecord
from indexer.store import Filter, Query, time_of
from tests.indexer.synthetic import SOURCE, at_an_odd_address, block, features
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
    ("array", "shape", "message"),
    [
        (np.array([3, 2]), None, "ids that do not rise"),
        (np.array([2, 3]), None, "holds 2 ids, not 0 that are items"),
        (np.array([], np.float64), None, r"holds float64 rows of shape \(\), expected int64"),
        (np.array([], ">i8"), None, r"holds >i8 rows of shape \(\), expected int64"),
        (np.asfortranarray(np.zeros((2, 2), np.int64)), None, r"rows of shape \(2,\), column by column, expected int64"),
        (np.array([3]), (-1,), "bytes, which are not"),
        (np.array([3]), (2**40,), "bytes, which are not"),
        (np.array([3]), (), "bytes, which are not"),
    ],
)
def test_a_signed_array_of_another_order_type_or_shape_is_refused(
    copied: Path, array: np.ndarray, shape: tuple[int, ...] | None, message: str
) -> None:
    plant(copied, artifact.DELETED, array_file(array, shape))
    for contents in (False, True):
        with pytest.raises(Mismatch, match=message):
            open_index(copied, contents=contents)


ITEMS = 24  # of the index that is copied
X = features(ITEMS)
IDS = np.arange(ITEMS)


def by_faiss(index: Any, rows_ND: np.ndarray, ids_N: np.ndarray | None = None) -> bytes:
    """FAISS's file of rows, of vectors or of codes."""
    arguments = [rows_ND] if ids_N is None else [rows_ND, ids_N]
    (index.add if ids_N is None else index.add_with_ids)(*arguments)
    write = faiss.serialize_index_binary if isinstance(index, faiss.IndexBinary) else faiss.serialize_index
    return bytes(write(index).tobytes())


def vectors_file(ids_N: np.ndarray = IDS, rows_ND: np.ndarray = X) -> bytes:
    """FAISS's file of vectors as FC7 keeps them."""
    return by_faiss(faiss.IndexIDMap2(faiss.IndexFlatL2(rows_ND.shape[1])), rows_ND, ids_N)


def codes_file(ids_N: np.ndarray = IDS, width: int = 16) -> bytes:
    """FAISS's file of codes as FC7 keeps them."""
    index = faiss.IndexBinaryIDMap2(faiss.IndexBinaryFlat(8 * width))
    return by_faiss(index, np.zeros((len(ids_N), width), np.uint8), ids_N)


def with_bytes(data: bytes, start: int, layout: str, *values: int | bytes) -> bytes:
    """The bytes with others in their place, from `start` on."""
    return data[:start] + struct.pack(layout, *values) + data[start + struct.calcsize(layout) :]


V, C = vectors_file(), codes_file()
# Where fields of FAISS's headers begin, and where the rows end
D, COUNT, TRAINED, METRIC, ROWS_D, ROWS_COUNT, LENGTH = 4, 8, 32, 33, 41, 45, 74
C_SIZE, C_COUNT, C_LENGTH = 8, 12, 50
END, C_END = 82 + 4 * X.size, 58 + 16 * ITEMS


def test_what_is_planted_whole_is_opened(copied: Path) -> None:
    plant(copied, "0/vectors.faiss", V)
    plant(copied, "0/codes.faiss", C)
    assert len(open_index(copied)) == ITEMS


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("0/vectors.faiss", b"", "has 0 bytes|it has 0 bytes"),
        ("0/vectors.faiss", V[:81], "is not a file of FAISS's IndexIDMap2,Flat: it has 81 bytes"),
        ("0/vectors.faiss", array_file(X), "its header has b'.*' for type, expected b'IxM2'"),
        ("0/vectors.faiss", by_faiss(faiss.IndexFlatL2(32), X), "has b'IxF2' for type, expected b'IxM2'"),
        ("0/vectors.faiss", by_faiss(faiss.IndexIDMap(faiss.IndexFlatL2(32)), X, IDS), "has b'IxMp' for type"),
        ("0/vectors.faiss", by_faiss(faiss.IndexIDMap2(faiss.IndexFlatIP(32)), X, IDS), "has 0 for metric_type, expected 1"),
        ("0/vectors.faiss", by_faiss(faiss.index_factory(32, "IDMap2,SQfp16"), X, IDS), "has b'IxSQ' for type of the rows"),
        ("0/vectors.faiss", vectors_file(rows_ND=X[:, :31].copy()), "rows of 32 float32: its header has 31 for d, expected 32"),
        ("0/vectors.faiss", vectors_file(IDS[:23], X[:23]), "has other ids than vectors.faiss beside it"),
        ("0/vectors.faiss", C, "has b'IBM2' for type"),
        ("0/vectors.faiss", with_bytes(V, 0, ">4s", b"2MxI"), "has b'2MxI' for type"),  # the other order of bytes
        ("0/vectors.faiss", with_bytes(V, COUNT, "<q", -1), "its header says -1 rows"),
        ("0/vectors.faiss", with_bytes(V, COUNT, "<q", 2**40), r"has 24 for ntotal of the rows, expected 1099511627776"),
        (
            "0/vectors.faiss",
            with_bytes(with_bytes(with_bytes(V, COUNT, "<q", 2**40), ROWS_COUNT, "<q", 2**40), LENGTH, "<q", 2**45),
            "bytes, which are not 1099511627776 rows of 32 float32 with ids",
        ),
        (
            "0/vectors.faiss",
            with_bytes(with_bytes(with_bytes(V, COUNT, "<q", 2**62), ROWS_COUNT, "<q", 2**62), LENGTH, "<q", 0),
            "for length of the rows, expected 147573952589676412928",
        ),
        ("0/vectors.faiss", with_bytes(V, TRAINED, "B", 0), "has 0 for is_trained, expected 1"),
        ("0/vectors.faiss", with_bytes(V, METRIC, "<i", 4), "has 4 for metric_type, expected 1"),
        ("0/vectors.faiss", with_bytes(V, ROWS_D, "<i", -32), "has -32 for d of the rows, expected 32"),
        ("0/vectors.faiss", with_bytes(V, ROWS_COUNT, "<q", 25), "has 25 for ntotal of the rows, expected 24"),
        ("0/vectors.faiss", with_bytes(V, LENGTH, "<q", 2**60), "for length of the rows, expected 768"),
        ("0/vectors.faiss", V[:-1], "bytes, which are not 24 rows of 32 float32 with ids"),
        ("0/vectors.faiss", V[:END], "bytes, which are not 24 rows of 32 float32 with ids"),
        ("0/vectors.faiss", V + b"\0", "bytes, which are not 24 rows of 32 float32 with ids"),
        ("0/vectors.faiss", with_bytes(V, END, "<q", 23), "has 23 ids for 24 rows"),
        ("0/vectors.faiss", with_bytes(V, END, "<q", -1), "has -1 ids for 24 rows"),
        ("0/codes.faiss", C[:57], "is not a file of FAISS's IndexBinaryIDMap2,BFlat: it has 57 bytes"),
        ("0/codes.faiss", V, "has b'IxM2' for type, expected b'IBM2'"),
        ("0/codes.faiss", codes_file(width=8), "rows of 16 uint8: its header has 64 for d, expected 128"),
        ("0/codes.faiss", codes_file(IDS[:23]), "has other ids than vectors.faiss beside it"),
        ("0/codes.faiss", codes_file(IDS + 1), "has other ids than vectors.faiss beside it"),
        ("0/codes.faiss", with_bytes(C, C_SIZE, "<i", 2**30), "for code_size, expected 16"),
        ("0/codes.faiss", with_bytes(C, C_COUNT, "<q", -(2**62)), "its header says -4611686018427387904 rows"),
        ("0/codes.faiss", with_bytes(C, C_LENGTH, "<q", 383), "has 383 for length of the rows, expected 384"),
        ("0/codes.faiss", with_bytes(C, C_END, "<q", 2**62), "ids for 24 rows"),
        ("0/codes.faiss", C[:-8], "bytes, which are not 24 rows of 16 uint8 with ids"),
    ],
)
def test_a_signed_file_of_another_faiss_index_is_refused(copied: Path, name: str, data: bytes, message: str) -> None:
    plant(copied, name, data)
    for contents in (False, True):
        with pytest.raises(Mismatch, match=message):
            open_index(copied, contents=contents)


@pytest.mark.parametrize("ids_N", [IDS[::-1].copy(), np.zeros_like(IDS), IDS - 1, IDS + 1, IDS + 2**40])
def test_signed_files_of_ids_that_do_not_rise_within_bounds_are_refused(copied: Path, ids_N: np.ndarray) -> None:
    plant(copied, "0/vectors.faiss", vectors_file(ids_N))
    plant(copied, "0/codes.faiss", codes_file(ids_N))
    with pytest.raises(Mismatch, match="ids that do not rise from 0 on and below 24"):
        open_index(copied, contents=False)
    with pytest.raises(Mismatch, match=r"describes other items than vectors\.faiss beside it lists"):
        open_index(copied)


ZEROS = np.zeros((8, 64), np.float32)
CODES = np.zeros((8, 16), np.uint8)
ROWS = np.array([0, 7])
ALL = Wanted(8, None, None, None)
BYTES, SIGNED = ZEROS.astype(np.uint8), ZEROS[:1].astype(np.int8)


@pytest.mark.parametrize(
    "call",
    [
        lambda: native.distances(ZEROS, ZEROS[0, :63].copy(), ROWS),
        lambda: native.distances(ZEROS.astype(np.float64), ZEROS[0], ROWS),
        lambda: native.distances(np.asfortranarray(ZEROS), ZEROS[0], ROWS),
        lambda: native.distances(ZEROS[:, ::2], ZEROS[0, :32], ROWS),
        lambda: native.distances(ZEROS, ZEROS[0], ROWS.astype(np.int32)),
        lambda: native.distances(ZEROS, at_an_odd_address(ZEROS[0]), ROWS),
        lambda: native.exact(ZEROS, at_an_odd_address(ZEROS[0]), ALL),
        lambda: native.exact(ZEROS, np.zeros(2**16, np.float32), ALL),
        lambda: native.exact(ZEROS, ZEROS[0], replace(ALL, k=9)),
        lambda: native.exact(ZEROS, ZEROS[0], replace(ALL, k=-1)),
        lambda: native.exact(ZEROS, ZEROS[0], replace(ALL, allowed_N=np.ones(7, np.uint8))),
        lambda: native.exact(ZEROS, ZEROS[0], replace(ALL, allowed_N=np.ones(8, np.int64).view(np.bool_))),
        lambda: native.copied(ZEROS, ZEROS[:7].copy()),
        lambda: native.copied(ZEROS, at_an_odd_address(ZEROS)),
        lambda: native.copied(ZEROS.astype(np.float64), ZEROS.copy()),
        lambda: native.hamming(CODES, CODES[:, :8].copy(), ALL),
        lambda: native.hamming(CODES.astype(np.int8), CODES, ALL),
        lambda: native.hamming(CODES, CODES, replace(ALL, k=2**40)),
        lambda: native.products(ZEROS, ZEROS),
        lambda: native.products(ZEROS, np.zeros((64, 63), np.float32)),
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
        native.distances(ZEROS, ZEROS[0], np.array([0, row]))


def test_a_signed_short_list_with_rows_that_are_not_there_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    folder.mkdir()
    assemble(folder, [block(features(200))], SOURCE, Plan(bits=0, shortlist="IVF4,Flat"))
    open_index(folder).close()
    whole = (artifact.current(folder) / artifact.FAISS).read_bytes()
    index = faiss.deserialize_index(np.frombuffer(whole, np.uint8))  # which keeps the lists alive
    ivf: Any = faiss.downcast_index(index)
    lists = ivf.invlists
    ids = faiss.rev_swig_ptr(lists.get_ids(1), lists.list_size(1))
    plant(folder, artifact.FAISS, whole.replace(ids.tobytes(), (ids + 2**40).tobytes()))
    with pytest.raises(Mismatch, match=r"shortlist\.faiss has rows in inverted list 1 that are not among its 200"):
        open_index(folder)


def test_what_an_addition_copies_is_verified_first(grown: tuple[Path, np.ndarray]) -> None:
    folder, x_ND = grown
    flip(artifact.current(folder) / "1/vectors.faiss", 8 * 200)
    before = published(folder)
    store = open_index(folder, contents=False)
    with pytest.raises(Mismatch, match=r"1/vectors\.faiss is not the file that manifest\.json describes"):
        store.add([block(x_ND[50:], 50)], Path("/c"))
    assert published(folder) == before
    store.close()


def test_what_an_addition_links_keeps_its_hash_and_is_found_damaged(grown: tuple[Path, np.ndarray]) -> None:
    folder, x_ND = grown
    flip(artifact.current(folder) / "0/vectors.faiss", 8 * 200)
    with pytest.raises(Mismatch, match=r"0/vectors\.faiss is not the file that manifest\.json describes"):
        open_index(folder)
    records = artifact.read_manifest(artifact.current(folder)).files
    store = open_index(folder, contents=False)
    store.add([block(x_ND[50:52], 50)], Path("/c"))[0].close()
    assert artifact.read_manifest(artifact.current(folder)).files["0/vectors.faiss"] == records["0/vectors.faiss"]
    with pytest.raises(Mismatch, match=r"0/vectors\.faiss is not the file that manifest\.json describes"):
        open_index(folder)
    store.close()


def test_what_an_addition_copies_for_want_of_links_is_verified_too(
    grown: tuple[Path, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, target: Path) -> None:
        raise OSError("no links here")

    folder, x_ND = grown
    flip(artifact.current(folder) / "0/vectors.faiss", 8 * 200)
    before = published(folder)
    store = open_index(folder, contents=False)
    monkeypatch.setattr(Path, "hardlink_to", refuse)
    with pytest.raises(Mismatch, match=r"0/vectors\.faiss is not the file that manifest\.json describes"):
        store.add([block(x_ND[50:52], 50)], Path("/c"))
    assert published(folder) == before
    store.close()


@pytest.mark.parametrize("name", ["0/vectors.faiss", "1/vectors.faiss", "1/thumbnails.bin"])
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


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        (
            "UPDATE paths SET path = 'elsewhere.jpg' WHERE id = 7",
            "lists other paths than those of its items, the first of the item 7",
        ),
        ("DELETE FROM paths WHERE id = 7", "lists other paths .* the item 7"),
        ("INSERT INTO paths VALUES ('again.jpg', 7)", "lists other paths .* the item 7"),
        ("INSERT INTO paths VALUES ('none.jpg', 999)", "lists other paths .* the item 999"),
        ("UPDATE items SET path = 'another.jpg' WHERE id = 3", "lists other paths .* the item 3"),
        ("DROP TABLE paths", "is not a catalogue: it has other tables"),
        ("UPDATE items SET added = -1 WHERE id = 5", "describes the item 5 as no photograph can be"),
        ("UPDATE items SET added = 253402300800000000 WHERE id = 5", "describes the item 5 as no photograph can be"),
        ("UPDATE items SET added = 253402300799999999 WHERE id = 5", None),
    ],
)
def test_a_catalogue_whose_paths_or_times_cannot_be_is_refused(
    grown: tuple[Path, np.ndarray], statement: str, message: str | None
) -> None:
    folder, _ = grown
    name = f"0/{artifact.CATALOG}"
    path = artifact.current(folder) / name
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
        connection.commit()
    plant(folder, name, path.read_bytes())
    if message is None:
        store = open_index(folder)
        assert str(time_of(store.items([5])[0].added)) == "9999-12-31 23:59:59.999999+00:00"
        store.close()
    else:
        with pytest.raises(Mismatch, match=message):
            open_index(folder)


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
