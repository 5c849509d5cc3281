"""The index on disk: every mode against brute force over several segments; it grows, shrinks and is compacted."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexer import changes
from indexer.assembly import Plan, assemble
from indexer.index import Index, open_index
from indexer.storage import artifact
from indexer.storage.version import open_version
from indexer.store import Filter, Query
from tests.indexer.synthetic import LABELS, SOURCE, block, check, features, passes
from training.errors import BadValue, Mismatch, NotFound


def make(folder: Path, x_ND: np.ndarray, **plan: Any) -> Index:
    folder.mkdir(exist_ok=True)
    pixels = bool(plan.get("pixel_codes"))
    assemble(folder, [block(x_ND[:100], 0, pixels), block(x_ND[100:], 100, pixels)], SOURCE, Plan(**plan))
    return open_index(folder)


@pytest.fixture
def grown(tmp_path: Path) -> Iterator[tuple[Index, np.ndarray]]:
    """An index of several segments with removed items, and the vector of every id that was ever given."""
    x_ND = features(260)
    store: Index = make(tmp_path / "index", x_ND[:180], bits=16)
    for start, stop in ((180, 230), (230, 250), (250, 260)):
        store, ids = store.add([block(x_ND[start:stop], start)], Path("/c"))
        assert ids == list(range(start, stop))
    store = store.remove([0, 17, 90, 185, 255])
    assert len(store.version.segments) == 4
    yield store, x_ND
    store.close()


def oracle(store: Index, x_ND: np.ndarray, query_D: np.ndarray, ask: Query) -> list[tuple[int, float]]:
    """(id, distance) by brute force over what is left."""
    found = []
    code = np.unpackbits(store.version.autoencoder.encode(query_D[None])) if store.version.autoencoder else None
    for item in store.ids().tolist():
        if ask.mode in ("exact", "two-stage"):
            distance = float(np.sqrt(((x_ND[item].astype(np.float64) - query_D.astype(np.float64)) ** 2).sum()))
        else:
            distance = float((np.unpackbits(store.codes([item])) != code).sum())
        if not passes(item, ask.filter):
            continue
        if ask.max_distance is not None and distance > ask.max_distance:
            continue
        if ask.radius is not None and distance > ask.radius:
            continue
        found.append((item, distance))
    return sorted(found, key=lambda hit: (hit[1], hit[0]))


ASKED = [
    Query(k=7),
    Query(k=300),
    Query(k=20, filter=Filter((LABELS[2],))),
    Query(k=20, max_distance=9.0),
    Query(k=5, mode="two-stage", filter=Filter((LABELS[1],))),
    Query(k=300, mode="two-stage"),
    Query(k=7, mode="code"),
    Query(k=300, mode="code", filter=Filter((LABELS[0],))),
    Query(k=40, mode="code", max_distance=4),
    Query(k=300, mode="ball", radius=0),
    Query(k=300, mode="ball", radius=3, filter=Filter((LABELS[0],))),
    Query(k=6, mode="ball", radius=16),
]


@pytest.mark.parametrize("ask", ASKED, ids=str)
def test_every_mode_equals_brute_force(grown: tuple[Index, np.ndarray], ask: Query) -> None:
    store, x_ND = grown
    queries_QD = np.concatenate([x_ND[[1, 0, 130, 186]], features(4, seed=9)])
    hits = store.search(queries_QD, ask)
    for row, query_D in enumerate(queries_QD):
        check(hits, row, oracle(store, x_ND, query_D, ask)[: ask.k])
    if ask.mode == "ball":
        assert hits.buckets_Q is not None
        assert (hits.buckets_Q > 0).all()


@pytest.mark.parametrize(
    "ask", [Query(k=7), Query(k=7, mode="code"), Query(k=7, mode="ball", radius=9), Query(k=30, mode="two-stage")]
)
def test_pages_give_everything_once_and_in_order(grown: tuple[Index, np.ndarray], ask: Query) -> None:
    store, x_ND = grown
    whole = oracle(store, x_ND, x_ND[3], ask)
    got: list[tuple[int, float]] = []
    after = None
    while True:
        page = store.search(x_ND[3][None], Query(ask.k, ask.mode, radius=ask.radius, after=after)).of(0)
        if not page:
            break
        got += [(item, distance) for item, distance, _ in page]
        after = (page[-1][2], page[-1][0])
    assert [item for item, _ in got] == [item for item, _ in whole]


def test_a_distance_that_was_answered_is_within_itself(grown: tuple[Index, np.ndarray]) -> None:
    store, _ = grown
    for item, distance, _ in store.search(features(1, seed=4), Query(k=30)).of(0):
        within = store.search(features(1, seed=4), Query(k=300, max_distance=distance)).of(0)
        assert item in [found for found, _, _ in within]


def test_a_removed_item_is_found_in_no_way(grown: tuple[Index, np.ndarray]) -> None:
    store, x_ND = grown
    for item in (0, 17, 185, 255):
        for ask in (
            Query(k=300),
            Query(k=300, mode="code"),
            Query(k=300, mode="two-stage"),
            Query(k=300, mode="ball", radius=16),
        ):
            assert item not in store.search(x_ND[item][None], ask).ids_QK
        for asked in (store.items, store.vectors, store.codes):
            with pytest.raises(NotFound, match=f"no item has the id {item}; the index holds 255 items"):
                asked([item])
        assert not store.holding([block(x_ND[:1], item).files[0].sha256])
    with pytest.raises(NotFound, match="no item has the id 17"):
        store.remove([1, 17])
    assert 1 in store.ids()


def test_thumbnails_and_entries_stay_with_their_items(grown: tuple[Index, np.ndarray]) -> None:
    store, x_ND = grown
    for item in store.items(store.ids().tolist()):
        assert store.thumbnail(item) == b"thumbnail %d" % item.id
        assert (item.path, item.root) == (f"{item.id:05d}.jpg", "/c")
    np.testing.assert_array_equal(store.vectors([259, 3]), x_ND[[259, 3]])
    removed = open_version(store.version.index).segments[0].catalog.items([17])[17]
    with pytest.raises(NotFound):
        store.thumbnail(removed)


def test_adding_twice_is_harmless_and_a_removed_file_gets_a_new_id(grown: tuple[Index, np.ndarray]) -> None:
    store, x_ND = grown
    same, ids = store.add([block(x_ND[:3], 0), block(x_ND[1:3], 1)], Path("/c"))
    assert ids == [260, 1, 2, 1, 2]
    assert len(same) == len(store) + 1
    again, ids = same.add([block(x_ND[:3], 0)], Path("/c"))
    assert again is same
    assert ids == [260, 1, 2]
    assert same.search(x_ND[0][None], Query(k=1)).of(0)[0][1] == 0


def test_many_small_additions_leave_few_segments_and_the_first_as_it_was(tmp_path: Path) -> None:
    x_ND = features(200)
    store = make(tmp_path, x_ND[:120], bits=16)
    inode = (store.folder / "0" / artifact.VECTORS).stat().st_ino
    for i in range(120, 200):
        store, _ = store.add([block(x_ND[i : i + 1], i)], Path("/c"))
    assert len(store.version.segments) <= 1 + 7
    times = [item.added for item in store.items(range(120, 200))]
    assert times == sorted(set(times))
    assert (store.folder / "0" / artifact.VECTORS).stat().st_ino == inode
    np.testing.assert_array_equal(store.ids(), np.arange(200))
    check(store.search(x_ND[150][None], Query(k=9)), 0, oracle(store, x_ND, x_ND[150], Query(k=9))[:9])


def test_an_opened_version_is_not_changed_by_later_ones(grown: tuple[Index, np.ndarray]) -> None:
    store, x_ND = grown
    before = store.search(x_ND[3][None], Query(k=300)).of(0)
    later = store.remove([3])
    for _ in range(3):
        later = later.remove([int(later.ids()[0])])
    assert not store.folder.exists()
    assert store.search(x_ND[3][None], Query(k=300)).of(0) == before
    assert store.thumbnail(store.items([3])[0]) == b"thumbnail 3"


@pytest.mark.parametrize("pixels", [False, True])
def test_compaction_keeps_ids_and_answers_and_takes_removed_rows_out_of_the_files(tmp_path: Path, pixels: bool) -> None:
    x_ND = features(260)
    store = make(tmp_path, x_ND[:180], bits=16, pixel_codes=pixels)
    store, _ = store.add([block(x_ND[180:], 180, pixels)], Path("/c"))
    store = store.remove([5, 200, 259])
    asks = [Query(k=50), Query(k=50, mode="code"), Query(k=300, mode="ball", radius=5)]
    before = [store.search(x_ND[:3], ask) for ask in asks]
    items = [replace(item, thumbnail_start=0) for item in store.items(store.ids().tolist())]
    assert len({item.added for item in items}) == 2
    pixel_codes = [segment.pixel_codes_NW for segment in store.version.segments]
    changes.compact(store.version)
    after = open_index(tmp_path)
    assert after.manifest.segments == [257]
    assert (after.manifest.deleted, after.manifest.next_id) == (0, 260)
    assert b"thumbnail 200" not in (after.folder / "0" / artifact.THUMBNAILS).read_bytes()
    assert [replace(item, thumbnail_start=0) for item in after.items(after.ids().tolist())] == items
    for ask, old in zip(asks, before, strict=True):
        np.testing.assert_array_equal(after.search(x_ND[:3], ask).ids_QK, old.ids_QK)
    if pixels:
        kept = np.delete(np.concatenate([codes for codes in pixel_codes if codes is not None]), [5, 200, 259], axis=0)
        np.testing.assert_array_equal(after.version.segments[0].pixel_codes_NW, kept)
    _, ids = after.add([block(x_ND[5:6], 5, pixels)], Path("/c"))
    assert ids == [260]


def test_without_codes_only_distances_can_be_asked_for(tmp_path: Path) -> None:
    x_ND = features(40)
    store = make(tmp_path, x_ND, bits=0)
    assert store.bits == 0
    check(store.search(x_ND[:1], Query(k=5, mode="two-stage")), 0, oracle(store, x_ND, x_ND[0], Query(k=5))[:5])
    with pytest.raises(BadValue, match="mode must be exact or two-stage: this index has no codes"):
        store.search(x_ND[:1], Query(k=5, mode="code"))


def test_everything_may_be_removed(tmp_path: Path) -> None:
    store = make(tmp_path, features(120), bits=16).remove(list(range(120)))
    for mode in ("exact", "code", "two-stage"):
        assert store.search(features(1), Query(k=3, mode=mode)).of(0) == []
    grown, ids = store.add([block(features(2), 500)], Path("/c"))
    assert ids == [120, 121]
    assert len(grown) == 2


def test_what_was_verified_is_not_read_again_and_what_is_new_is(grown: tuple[Index, np.ndarray]) -> None:
    store, x_ND = grown
    changes.add(store.version, [block(x_ND[:1], 900)], Path("/c"))
    current = artifact.current(store.version.index)
    newest = max((path for path in current.iterdir() if path.is_dir()), key=lambda path: int(path.name))
    vectors = newest / artifact.VECTORS
    data = bytearray(vectors.read_bytes())
    data[-1] ^= 1
    vectors.write_bytes(data)
    with pytest.raises(Mismatch, match=r"vectors\.faiss is not the file that manifest\.json describes"):
        store.renewed()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"k": 0}, "k must be at least 1"),
        ({"k": 1, "mode": "fast"}, "mode must be one of exact, code, two-stage, ball"),
        ({"k": 1, "max_distance": float("nan")}, "max_distance must be at least 0"),
        ({"k": 1, "radius": 2}, "radius must be given with mode=ball, and with it alone"),
        ({"k": 1, "mode": "ball"}, "radius must be given"),
        ({"k": 1, "mode": "ball", "radius": -1}, "radius must be at least 0"),
    ],
)
def test_a_query_that_makes_no_sense_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(BadValue, match=message):
        Query(**fields)  # type: ignore[arg-type]
