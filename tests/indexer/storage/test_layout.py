"""The map among the files of a version: as it was made after every change, and refused where it is damaged or another's."""

import json
import random
import shutil
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexer.analysis import layout as making
from indexer.assembly import Plan, Source, assemble
from indexer.changes import compact
from indexer.index import Index, open_index
from indexer.storage import artifact, layout
from tests.indexer.synthetic import LABELS, SOURCE, WIDTH, block, features
from tests.indexer.test_damaged_files import flip, plant
from training.errors import Mismatch, NotFound
from training.images.preprocess import ImageLimits

ROWS = 90


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    x_ND = features(ROWS)
    assemble(folder, [block(x_ND[:50]), block(x_ND[50:], 50)], SOURCE, Plan(bits=0, map=True))
    return folder


@pytest.fixture
def mapped(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "mapped", symlinks=True))


def map_file(folder: Path) -> Path:
    return artifact.current(folder) / artifact.MAP


def changed(data: bytes, **fields: Any) -> bytes:
    """A map's file with other fields in its report."""
    [length] = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    report = json.loads(header["__metadata__"]["map"]) | fields
    header["__metadata__"]["map"] = json.dumps(report)
    return with_header(header, data[8 + length :])


def with_header(header: dict[str, Any], rest: bytes) -> bytes:
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + rest


def test_a_build_places_every_item_and_knows_its_label(mapped: Path) -> None:
    store = open_index(mapped)
    places = layout.read(store)
    assert places.ids_N.tolist() == store.ids().tolist() == list(range(ROWS))
    names = [places.report.labels[number] for number in places.numbers_N]
    assert names == [item.label for item in store.items(range(ROWS))] == [LABELS[id % 3] for id in range(ROWS)]
    assert places.report.fingerprint == store.fingerprint
    assert places.report.parameters["components"] == 64
    assert 0.5 < places.report.trustworthiness <= 1
    store.close()


@pytest.mark.parametrize("kind", ["codes", "IVF4,Flat"])
def test_other_short_lists_have_the_same_map(mapped: Path, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    x_ND = features(ROWS)
    plan = Plan(bits=16, shortlist=kind, map=True)
    assemble(folder, [block(x_ND)], SOURCE, plan)
    one, other = layout.read(open_index(mapped)), layout.read(open_index(folder))
    np.testing.assert_array_equal(one.places_N2, other.places_N2)


def test_changes_take_the_map_over_as_it_is(mapped: Path) -> None:
    data = map_file(mapped).read_bytes()
    store: Index = open_index(mapped)
    added, ids = store.add([block(features(4, seed=9), 1000)], Path("/c"))
    removed = added.remove([3, ids[0]])
    assert map_file(mapped).read_bytes() == data
    places = layout.read(removed)
    assert np.setdiff1d(places.ids_N, removed.ids()).tolist() == [3]
    assert np.setdiff1d(removed.ids(), places.ids_N).tolist() == ids[1:]
    compact(removed.version)
    assert map_file(mapped).read_bytes() == data
    layout.read(open_index(mapped))
    for each in (store, added, removed):
        each.close()


def test_a_build_that_is_interrupted_leaves_the_version_in_use(mapped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(steps: Iterable[Any], total: int, what: str, unit: str) -> Iterator[Any]:
        if what != "map":
            yield from steps
            return
        yield 0
        raise KeyboardInterrupt

    before = artifact.current(mapped)
    monkeypatch.setattr(making, "progress", interrupted)
    with pytest.raises(KeyboardInterrupt):
        assemble(mapped, [block(features(ROWS))], SOURCE, Plan(bits=0, map=True))
    assert artifact.current(mapped) == before
    layout.read(open_index(mapped))
    monkeypatch.undo()
    assert assemble(mapped, [block(features(ROWS))], SOURCE, Plan(bits=0, map=True)).version_number == 2
    layout.read(open_index(mapped))


def test_an_index_without_one_says_what_makes_it(tmp_path: Path) -> None:
    assemble(tmp_path, [block(features(9))], SOURCE, Plan(bits=0))
    with pytest.raises(NotFound, match=r"this index has no map; `python -m indexer\.build --map` makes one"):
        layout.read(open_index(tmp_path))


def test_a_damaged_map_keeps_the_index_from_opening(mapped: Path) -> None:
    flip(map_file(mapped), 8 * 1000)
    with pytest.raises(Mismatch, match=r"map\.safetensors is not the file that manifest\.json describes"):
        open_index(mapped)


def test_a_signed_map_of_another_model_is_refused(mapped: Path, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    assemble(folder, [block(features(ROWS))], Source(Path("/c"), "o" * 64, WIDTH, ImageLimits()), Plan(bits=0, map=True))
    plant(mapped, artifact.MAP, map_file(folder).read_bytes())
    with pytest.raises(Mismatch, match="is of the model oooooooooooo, the index of mmmmmmmmmmmm"):
        layout.read(open_index(mapped))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"format": 2}, "format"),
        ({"trustworthiness": 1.5}, "trustworthiness"),
        ({"trustworthiness": None}, "trustworthiness"),
        ({"neighbors": -1}, "neighbors"),
        ({"method": "UMAP"}, "method"),
        ({"surprise": 1}, "surprise"),
        ({"labels": list(LABELS)[:2]}, "labels beyond the 2 that it names"),
        ({"labels": ["a", "b", "a"]}, "or names one twice"),
    ],
)
def test_a_signed_map_whose_report_cannot_be_is_refused(mapped: Path, fields: dict[str, Any], message: str) -> None:
    plant(mapped, artifact.MAP, changed(map_file(mapped).read_bytes(), **fields))
    with pytest.raises(Mismatch, match=message):
        layout.read(open_index(mapped))


@pytest.mark.parametrize(
    ("ids_N", "places_N2", "numbers_N", "message"),
    [
        (np.arange(9)[::-1], np.zeros((9, 2)), np.zeros(9), "ids that do not rise from 0 on and below 90"),
        (np.zeros(9), np.zeros((9, 2)), np.zeros(9), "ids that do not rise"),
        (np.array([5, -(2**63)]), np.zeros((2, 2)), np.zeros(2), "ids that do not rise"),  # their difference is too large
        (np.arange(9) - 1, np.zeros((9, 2)), np.zeros(9), "ids that do not rise"),
        (np.arange(9) + 82, np.zeros((9, 2)), np.zeros(9), "ids that do not rise"),
        (np.zeros(0), np.zeros((0, 2)), np.zeros(0), "ids that do not rise"),
        (np.arange(9), np.zeros((8, 2)), np.zeros(9), "not of the same items"),
        (np.arange(9), np.zeros((9, 3)), np.zeros(9), "not of the same items"),
        (np.arange(9), np.zeros((9, 2)), np.zeros(8), "not of the same items"),
        (np.zeros((3, 3)), np.zeros((3, 2)), np.zeros(3), "not of the same items"),
        (np.arange(9), np.zeros((9, 2)), np.full(9, 3), "labels beyond the 3"),
        (np.arange(9), np.zeros((9, 2)), np.full(9, -1), "labels beyond the 3"),
    ],
)
def test_a_signed_map_whose_arrays_cannot_be_is_refused(
    mapped: Path, tmp_path: Path, ids_N: np.ndarray, places_N2: np.ndarray, numbers_N: np.ndarray, message: str
) -> None:
    store = open_index(mapped)
    arrays = ids_N.astype(np.int64), places_N2.astype(np.uint16), numbers_N.astype(np.int32)
    layout.write(tmp_path / "made", layout.Layout(*arrays, layout.read(store).report))
    plant(mapped, artifact.MAP, (tmp_path / "made").read_bytes())
    with pytest.raises(Mismatch, match=message):
        layout.read(open_index(mapped))


@pytest.mark.parametrize("of", ["ids", "places", "numbers"])
@pytest.mark.parametrize(("kind", "bits"), [("BF16", 16), ("F8_E4M3", 8), ("F4", 4)])
def test_numbers_that_numpy_has_not_are_refused(mapped: Path, of: str, kind: str, bits: int) -> None:
    data = map_file(mapped).read_bytes()
    [length] = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    first, end = header[of]["data_offsets"]
    header[of] |= {"dtype": kind, "shape": [8 * (end - first) // bits]}
    plant(mapped, artifact.MAP, with_header(header, data[8 + length :]))
    with pytest.raises(Mismatch, match=r"map\.safetensors .*indexer\.build --map` makes it anew"):
        layout.read(open_index(mapped))


def test_other_types_of_numbers_are_refused(mapped: Path, tmp_path: Path) -> None:
    places = layout.read(open_index(mapped))
    wrong: Any = places.places_N2.astype(np.float32)
    layout.write(tmp_path / "made", layout.Layout(places.ids_N, wrong, places.numbers_N, places.report))
    plant(mapped, artifact.MAP, (tmp_path / "made").read_bytes())
    with pytest.raises(Mismatch, match="holds int64, float32, int32, not int64, uint16, int32"):
        layout.read(open_index(mapped))


def test_whatever_bytes_are_signed_the_answer_is_a_map_or_a_refusal(mapped: Path) -> None:
    whole = map_file(mapped).read_bytes()
    store = open_index(mapped)
    rng = random.Random(0)
    refused = 0
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data) if rng.random() < 0.3 else 900)] = rng.randrange(256)
        map_file(mapped).write_bytes(data[: rng.randrange(len(data))] if rng.random() < 0.2 else data)
        try:
            layout.read(store)
        except Mismatch:
            refused += 1
    assert refused > 100
    store.close()
