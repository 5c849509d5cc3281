"""What every store promises, on disk and in Milvus alike: the same items, and every answer against brute force."""

import hashlib
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexer.assembly import Plan, Source, assemble
from indexer.codes import autoencoder
from indexer.codes.autoencoder import Autoencoder
from indexer.grouping import groups
from indexer.grouping.groups import Threshold
from indexer.index import open_index
from indexer.milvus.store import MilvusStore
from indexer.store import MODES, MOST_LABELS, START, Filter, Query, Store, microseconds, time_of
from tests.indexer.grouping import brute
from tests.indexer.synthetic import LABELS, WIDTH, block, check, features, passes
from training.errors import BadValue, NotFound
from training.images.preprocess import ImageLimits

ROOT = Path("/c")
MODEL = "m" * 64
REMOVED = (0, 17, 90, 185, 255)
ADDITIONS = (0, 180, 230, 250, 260)  # the first item of each
TIMES = [datetime(2026, 11, day, 23, 59, 59, 999_999, UTC) for day in (23, 24, 25, 26)]
LATER = timedelta(microseconds=1)
Make = Callable[[np.ndarray, int], Store]


def added(item: int) -> datetime:
    """When an item of the store `grown` was added."""
    return TIMES[sum(item >= first for first in ADDITIONS[1:-1])]


@dataclass(frozen=True)
class Grown:
    """A store that has grown and shrunk, the vector of every id that was ever given, and what makes its codes."""

    store: Store
    x_ND: np.ndarray
    autoencoder: Autoencoder

    @property
    def vectors_ND(self) -> np.ndarray:
        """What the store holds of `x_ND`."""
        x_ND = self.x_ND.astype(np.float64)
        return (x_ND / np.linalg.norm(x_ND, axis=1, keepdims=True) if self.store.metric == "cosine" else x_ND).astype(np.float32)

    def asks(self, ask: Query) -> Query:
        """The query with a bound on distances in the metric's unit."""
        if ask.max_distance is None or ask.mode in ("code", "ball") or self.store.metric == "euclidean":
            return ask
        return replace(ask, max_distance=ask.max_distance / 30)

    def oracle(self, query_D: np.ndarray, ask: Query) -> list[tuple[int, float]]:
        """(id, distance) of everything that is left, by brute force."""
        x_ND, q_D = self.x_ND.astype(np.float64), query_D.astype(np.float64)
        if self.store.metric == "cosine":
            x_ND, q_D = x_ND / np.linalg.norm(x_ND, axis=1, keepdims=True), q_D / np.linalg.norm(q_D)
        squared = ((x_ND - q_D) ** 2).sum(1)
        by_vector = squared / 2 if self.store.metric == "cosine" else np.sqrt(squared)
        bits = [np.unpackbits(self.autoencoder.encode(rows), axis=1) for rows in (self.x_ND, query_D[None])]
        distances = by_vector if ask.mode in ("exact", "two-stage") else (bits[0] ^ bits[1]).sum(1)
        found = []
        for item, distance in enumerate(distances.tolist()):
            near = distance <= min(most for most in (ask.max_distance, ask.radius, np.inf) if most is not None)
            if item not in (*REMOVED, *ask.without) and passes(item, ask.filter, added(item)) and near:
                found.append((item, distance))
        return sorted(found, key=lambda hit: (hit[1], hit[0]))


@pytest.fixture(scope="module")
def trained() -> Iterator[Autoencoder]:
    """The autoencoder of every store here: training is not what these tests are about."""
    once = autoencoder.train(features(180), 16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(autoencoder, "train", lambda features_ND, bits, seed: once)
        yield once


@pytest.fixture(scope="module", params=["disk, euclidean", "disk, cosine", "milvus, euclidean", "milvus, cosine"])
def make(trained: Autoencoder, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Make]:
    """Makes stores of one kind."""
    kind, metric = request.param.split(", ")
    folder = tmp_path_factory.mktemp(kind)
    numbers = count()
    made: list[Store] = []
    limits = ImageLimits()

    def on_disk(x_ND: np.ndarray, bits: int) -> Store:
        index = folder / str(next(numbers))
        index.mkdir()
        plan = Plan(bits=bits, metric=metric)
        assemble(index, [block(x_ND[:100]), block(x_ND[100:], 100)], Source(ROOT, MODEL, WIDTH, limits), plan)
        return open_index(index)

    def in_milvus(x_ND: np.ndarray, bits: int) -> Store:
        encoder = trained if bits else None
        name, uri = f"fc7_{next(numbers)}", str(folder / "items.db")
        store = MilvusStore.create(uri, name, WIDTH, encoder, MODEL, limits, metric=metric)
        made.append(store)
        return store.fill([block(x_ND[:100]), block(x_ND[100:], 100)], ROOT)

    def one(x_ND: np.ndarray, bits: int) -> Store:
        made.append({"disk": on_disk, "milvus": in_milvus}[kind](x_ND, bits))
        return made[-1]

    yield one
    for store in made:
        store.close()


@pytest.fixture(scope="module")
def grown(make: Make, trained: Autoencoder) -> Iterator[Grown]:
    """A store that no test may change."""
    x_ND = features(260)
    times = map(microseconds, TIMES)
    with pytest.MonkeyPatch.context() as patch:
        for module in ("indexer.assembly", "indexer.changes", "indexer.milvus.store"):
            patch.setattr(f"{module}.now", lambda: next(times))
        store = make(x_ND[:180], 16)
        for start, stop in pairwise(ADDITIONS[1:]):
            store, ids = store.add([block(x_ND[start:stop], start)], ROOT)
            assert ids == list(range(start, stop))
    store = store.remove(REMOVED)
    yield Grown(store, x_ND, trained)
    store.close()


FILTERS = [
    Filter((LABELS[0], LABELS[2], "no such label")),
    Filter(exclude_labels=(LABELS[1],)),
    Filter(exclude_labels=LABELS),
    Filter((LABELS[0],), (LABELS[0],)),
    Filter(path_prefix="0012"),
    Filter(path_prefix="00%"),
    Filter(LABELS[:2], (LABELS[1], "no such label"), "001"),
    Filter(added_after=TIMES[1]),
    Filter(added_after=TIMES[1] + LATER),
    Filter(added_before=TIMES[1].astimezone(timezone(timedelta(hours=-7)))),
    Filter(added_before=TIMES[1] + LATER),
    Filter(added_after=TIMES[1], added_before=TIMES[2]),
    Filter(added_after=TIMES[2], added_before=TIMES[2]),
    Filter(LABELS[:1], LABELS[2:], "00", TIMES[1], TIMES[3]),
]
ASKED = [
    Query(k=1),
    Query(k=7),
    Query(k=300),
    Query(k=20, filter=Filter((LABELS[2],))),
    Query(k=20, filter=Filter(("no such label",))),
    Query(k=20, max_distance=9.0),
    Query(k=20, max_distance=0.0),
    Query(k=5, mode="two-stage", filter=Filter((LABELS[1],))),
    Query(k=300, mode="two-stage"),
    Query(k=300, mode="two-stage", max_distance=9.0),
    Query(k=7, mode="code"),
    Query(k=300, mode="code", filter=Filter((LABELS[0],))),
    Query(k=40, mode="code", max_distance=4),
    Query(k=300, mode="ball", radius=0),
    Query(k=300, mode="ball", radius=3, filter=Filter((LABELS[2],))),
    Query(k=300, mode="ball", radius=5, max_distance=2),
    Query(k=6, mode="ball", radius=16),
    *(Query(k=4, filter=filter) for filter in FILTERS),
    *(Query(k=300, mode="code", filter=filter) for filter in FILTERS),
    *(Query(k=20, mode="two-stage", filter=filter) for filter in FILTERS),
    *(Query(k=300, mode="ball", radius=9, filter=filter) for filter in FILTERS),
    Query(k=30, without=(1, 131, 17, 259, 260, 2**62)),
    Query(k=300, mode="two-stage", filter=Filter((LABELS[1],)), without=(1, 130)),
    Query(k=9, mode="two-stage", after=START, without=(1, 131, 186)),
    Query(k=9, mode="code", filter=Filter((LABELS[1],)), without=(1, 130)),
    Query(k=300, mode="ball", radius=3, without=(1, 131, 186)),
]


@pytest.mark.parametrize("ask", ASKED, ids=str)
def test_every_mode_equals_brute_force_and_equals_come_by_id(grown: Grown, ask: Query) -> None:
    ask, queries_QD = grown.asks(ask), np.concatenate([grown.x_ND[[1, 0, 130, 186]], features(4, seed=9)])
    hits = grown.store.search(queries_QD, ask)
    for row, query_D in enumerate(queries_QD):
        check(hits, row, grown.oracle(query_D, ask)[: ask.k])
    assert hits.distances_QK.dtype == np.float32
    assert hits.ids_QK.dtype == np.int64
    assert (hits.buckets_Q is not None) == (ask.mode == "ball")


@pytest.mark.parametrize(
    "ask",
    [
        Query(k=7),
        Query(k=60, filter=Filter((LABELS[0],))),
        Query(k=7, max_distance=9.0),
        Query(k=7, mode="code"),
        Query(k=7, mode="ball", radius=6),
        Query(k=40, mode="two-stage"),
        *(Query(k=7, mode=mode, filter=Filter(LABELS[1:], path_prefix="001")) for mode in MODES if mode != "ball"),
    ],
    ids=str,
)
def test_pages_give_everything_once_and_in_order(grown: Grown, ask: Query) -> None:
    ask, query_1D = grown.asks(ask), grown.x_ND[3][None]
    got: list[tuple[int, float, float]] = []
    page = [(0, 0.0, 0.0)]
    while page:
        after = (got[-1][2], got[-1][0]) if got else None
        page = grown.store.search(query_1D, replace(ask, after=after)).of(0)
        got += page
    assert [item for item, _, _ in got] == [item for item, _ in grown.oracle(query_1D[0], ask)]


@pytest.mark.parametrize("filter", FILTERS)
def test_what_passes_a_filter_is_counted(grown: Grown, filter: Filter) -> None:
    passing = [item for item in range(260) if item not in REMOVED and passes(item, filter, added(item))]
    assert grown.store.count(filter) == len(passing)
    assert grown.store.count(Filter()) == 255


def test_a_path_begins_with_the_characters_of_a_prefix_in_either_form_and_none_of_them_is_a_wildcard(make: Make) -> None:
    composed = 'caf\u00e9/100%_"of" it\'s.jpg'
    paths = [
        composed,
        unicodedata.normalize("NFD", composed),
        "cafe/1.jpg",
        "caf",
        "100%_a.jpg",
        "100xxa.jpg",
        "\ud7ff/a.jpg",
        "\ue000/a.jpg",
        "\U0010ffff.jpg",
        "a\\b.jpg",
    ]
    made_up = block(features(len(paths), seed=6), 700)
    files = [replace(file, path=path) for file, path in zip(made_up.files, paths, strict=True)]
    store, ids = make(features(180), 0).add([replace(made_up, files=files)], ROOT)
    prefixes = [
        "caf",
        "cafe",
        "cafe\u0301",
        "caf\u00e9",
        "caf\u00e9/100%",
        "100%",
        "100%_",
        "100_",
        "%",
        "*",
        "[c]afe",
        "CAF",
        "\ud7ff",
        "\U0010ffff",
    ]
    for prefix in (*prefixes, *paths, "a\\", 'caf\u00e9/100%_"'):
        expected = [
            item
            for item, path in zip(ids, paths, strict=True)
            if list(unicodedata.normalize("NFC", path))[: len(unicodedata.normalize("NFC", prefix))]
            == list(unicodedata.normalize("NFC", prefix))
        ]
        hits = store.search(features(1), Query(k=300, filter=Filter(path_prefix=prefix))).of(0)
        assert sorted(item for item, _, _ in hits) == expected, prefix
        assert store.count(Filter(path_prefix=prefix)) == len(expected)
    assert [item.path for item in store.items(ids)] == paths
    store.close()


def test_every_item_tells_when_it_was_added(grown: Grown, make: Make) -> None:
    assert [time_of(item.added) for item in grown.store.items(grown.store.ids().tolist())] == [
        added(item) for item in grown.store.ids().tolist()
    ]
    before = datetime.now(UTC)
    store = make(features(180), 0)
    between = datetime.now(UTC)
    store, ids = store.add([block(features(2, seed=4), 800)], ROOT)
    after = datetime.now(UTC)
    assert before <= time_of(store.items([0])[0].added) <= between <= time_of(store.items(ids)[0].added) <= after
    assert store.count(Filter(added_after=between)) == 2
    assert store.count(Filter(added_before=between)) == 180
    assert store.count(Filter(added_after=after + LATER)) == 0
    store.close()


@pytest.mark.parametrize("time", [datetime(2026, 1, 1), datetime.min.replace(tzinfo=timezone(timedelta(hours=1)))])
def test_a_time_without_its_zone_or_before_the_first_year_is_refused(time: datetime) -> None:
    for name in ("added_after", "added_before"):
        asked: dict[str, Any] = {name: time}
        with pytest.raises(BadValue, match=f"{name} must be a time of the years 1 to 9999 with its zone, got"):
            Filter(**asked)


def test_a_filter_is_the_same_in_whatever_order_and_form_it_is_written() -> None:
    one = Filter(("b", "A\u030a", "b"), ("d", "c"), "A\u030a/")
    assert one == Filter(("\u00c5", "b"), ("c", "d", "c"), "\u00c5/")
    assert Filter(tuple("hgfedcba")).labels == tuple("abcdefgh")  # in every process, for cursors
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert Filter(added_after=noon) == Filter(added_after=noon.astimezone(timezone(timedelta(hours=2))))
    assert hash(one) == hash(Filter(("\u00c5", "b"), ("c", "d"), "\u00c5/"))


def test_a_filter_of_what_is_no_text_or_of_too_many_labels_is_refused() -> None:
    alone = "\udc80"
    for name in ("labels", "exclude_labels", "path_prefix"):
        asked: dict[str, Any] = {name: alone if name == "path_prefix" else (alone,)}
        with pytest.raises(BadValue, match=f"{name} must be text in UTF-8"):
            Filter(**asked)
    many = tuple(map(str, range(MOST_LABELS + 1)))
    assert len(Filter(many[1:], many[1:]).labels) == MOST_LABELS
    with pytest.raises(BadValue, match=r"^labels must be at most 100, got '101 labels'"):
        Filter(many)
    with pytest.raises(BadValue, match=r"^exclude_labels must be at most 100, got '101 labels'"):
        Filter((), many)


def test_after_the_last_hit_comes_nothing(grown: Grown) -> None:
    for ask in (Query(k=3, after=(1e6, 0)), Query(k=3, mode="code", after=(16, 259)), Query(k=3, mode="code", after=(17, 0))):
        for most in (None, 1.0):
            assert grown.store.search(grown.x_ND[:1], replace(ask, max_distance=most)).of(0) == []


def test_an_item_and_its_copy_are_at_zero_from_it(grown: Grown) -> None:
    assert grown.store.search(grown.x_ND[135][None], Query(k=2)).of(0) == [(5, 0.0, 0.0), (135, 0.0, 0.0)]


def test_a_distance_that_was_answered_is_within_itself(grown: Grown) -> None:
    query_1D = features(1, seed=4)
    for item, distance, _ in grown.store.search(query_1D, Query(k=20)).of(0):
        within = grown.store.search(query_1D, Query(k=300, max_distance=distance)).of(0)
        assert item in [found for found, _, _ in within]


def test_queries_are_answered_alone_as_together(grown: Grown) -> None:
    queries_QD = features(9, seed=2)
    for mode in ("exact", "code", "two-stage"):
        ask = Query(k=12, mode=mode)
        together = grown.store.search(queries_QD, ask)
        for row, query_D in enumerate(queries_QD):
            assert grown.store.search(query_D[None], ask).of(0) == together.of(row)


@pytest.mark.parametrize(
    "threshold",
    [Threshold("hamming", 0), Threshold("hamming", 2), Threshold("euclidean", 1.0), Threshold("euclidean", 14.0)],
    ids=str,
)
def test_near_duplicates_are_those_of_brute_force(grown: Grown, threshold: Threshold) -> None:
    left = [item for item in range(260) if item not in REMOVED]
    if threshold.metric == "hamming":
        distances_NN = brute.hamming(grown.autoencoder.encode(grown.x_ND[left]))
    else:
        distances_NN = brute.euclidean(grown.vectors_ND[left])
    if threshold.metric != "hamming" and grown.store.metric == "cosine":
        distances_NN, threshold = np.square(distances_NN) / 2, Threshold("cosine", threshold.most / 70)
    found = groups.find(grown.store, threshold)
    expected = brute.groups(distances_NN, threshold.most, left)
    assert 1 < len(expected) < 100
    assert sorted(sorted(item.id for item in group.items) for group in found) == sorted(expected)
    assert [len(group.items) for group in found] == [len(group) for group in expected]
    for group in found:
        rows = [left.index(item.id) for item in group.items]
        assert group.items[0] == max(group.items, key=lambda item: (item.width * item.height, item.size, -item.id))
        np.testing.assert_allclose(group.distances, distances_NN[rows[0]][rows], rtol=1e-6, atol=1e-12)
        assert group.distances.tolist() == sorted(group.distances)


@pytest.mark.parametrize(
    "filter",
    [
        Filter(),
        Filter(("pear",)),
        Filter(("pear", "apple"), ("apple",)),
        Filter(exclude_labels=("pear",), path_prefix="0000"),
        Filter(path_prefix="00_"),
        Filter(added_after=TIMES[1]),
        Filter(added_after=TIMES[1] + LATER, added_before=TIMES[3]),
    ],
    ids=str,
)
def test_a_filter_says_of_an_item_what_a_search_with_it_says(grown: Grown, filter: Filter) -> None:
    found = {item for item, _, _ in grown.store.search(features(1, seed=3), Query(k=300, filter=filter)).of(0)}
    assert found == {item.id for item in grown.store.items(grown.store.ids().tolist()) if filter.passes(item)}


def test_a_store_tells_what_is_in_it(grown: Grown) -> None:
    store, left = grown.store, [item for item in range(260) if item not in REMOVED]
    np.testing.assert_array_equal(store.ids(), left)
    assert (len(store), store.fingerprint, store.width, store.bits) == (255, MODEL, WIDTH, 16)
    some = [259, 3, 3, 40]
    np.testing.assert_array_equal(store.vectors(some), grown.vectors_ND[some])
    np.testing.assert_array_equal(store.codes(some), grown.autoencoder.encode(grown.vectors_ND[some]))
    for item in store.items(left):
        assert store.thumbnail(item) == b"thumbnail %d" % item.id
        assert (item.path, item.root, item.label) == (f"{item.id:05d}.jpg", "/c", LABELS[item.id % len(LABELS)])
        assert (item.size, item.width, item.height, item.format) == (1000 + item.id, 96, 72, "JPEG")
    assert [item.id for item in store.items(some)] == some
    with pytest.raises(NotFound, match=r"00003\.jpg, the file of item 3, is gone"):
        store.original(store.items([3])[0])


@pytest.mark.parametrize("filter", FILTERS)
@pytest.mark.parametrize("most", [1, 40, 1000])
def test_items_are_gone_through_in_order_of_their_ids(grown: Grown, filter: Filter, most: int) -> None:
    expected = [item for item in range(260) if item not in REMOVED and passes(item, filter, added(item))]
    found: list[int] = []
    while page := grown.store.first(most, filter, found[-1] if found else -1):
        assert len(page) <= most
        found += [item.id for item in page]
        if most == 1 and len(found) == 3:
            break
    assert found == (expected[:3] if most == 1 else expected)


def test_labels_are_counted(grown: Grown) -> None:
    left = [LABELS[item % len(LABELS)] for item in range(260) if item not in REMOVED]
    assert list(grown.store.labels().items()) == [(label, left.count(label)) for label in sorted(LABELS)]


def test_a_file_is_found_by_its_hash(grown: Grown) -> None:
    hashes = {number: hashlib.sha256(b"%d" % number).hexdigest() for number in (3, 17, 259)}
    assert grown.store.holding(hashes.values()) == {hashes[3]: 3, hashes[259]: 259}
    assert grown.store.holding([]) == {}
    assert grown.store.holding(['" or id >= 0 or "', "0" * 64]) == {}


def test_a_removed_item_is_found_in_no_way(grown: Grown) -> None:
    asks = [Query(k=300), Query(k=300, mode="code"), Query(k=300, mode="two-stage"), Query(k=300, mode="ball", radius=16)]
    for ask in asks:
        assert not np.isin(REMOVED, grown.store.search(grown.x_ND[list(REMOVED)], ask).ids_QK).any()
    for item in REMOVED[1:3]:
        for asked in (grown.store.items, grown.store.vectors, grown.store.codes):
            with pytest.raises(NotFound, match=f"no item has the id {item}; the index holds 255 items with ids below 260"):
                asked([3, item])
    with pytest.raises(NotFound, match="no item has the id 17"):
        grown.store.remove([1, 17])
    assert 1 in grown.store.ids()


def test_it_grows_and_shrinks_and_gives_no_id_twice(make: Make) -> None:
    x_ND = features(120, seed=3)
    store = make(x_ND, 16)
    before = store.version_number
    store = store.remove([0, 119])
    assert store.version_number > before
    before = store.version_number
    store, ids = store.add([block(x_ND[:3], 0), block(x_ND[1:3], 1), block(features(0), 0)], ROOT)
    assert ids == [120, 1, 2, 1, 2]
    assert (len(store), store.version_number > before) == (119, True)
    same, ids = store.add([block(x_ND[:3], 0)], ROOT)
    assert same.version_number == store.version_number
    assert ids == [120, 1, 2]
    assert same.search(x_ND[0][None], Query(k=1)).of(0)[0][:2] in [(120, 0.0), (60, 0.0)]
    awkward = "\"' or 1 == 1 \\ \n {x} %_ é日本"
    labelled = block(features(2, seed=8), 900)
    labelled.files[0] = replace(labelled.files[0], label=awkward)
    store, ids = same.add([labelled], ROOT)
    assert [item for item, _, _ in store.search(x_ND[:1], Query(k=9, filter=Filter((awkward,)))).of(0)] == [121]
    assert store.items([121])[0].label == awkward
    store = store.remove(store.ids().tolist())
    assert (len(store), store.ids().tolist(), store.search(x_ND[:1], Query(k=3)).of(0)) == (0, [], [])
    for mode in ("code", "two-stage"):
        assert store.search(x_ND[:1], Query(k=3, mode=mode)).of(0) == []
    store, ids = store.add([block(x_ND[:1], 0)], ROOT)
    assert ids == [123]
    store.close()


def test_without_codes_only_distances_can_be_asked_for(make: Make) -> None:
    x_ND = features(120, seed=5)
    store = make(x_ND, 0)
    assert store.bits == 0
    exact = store.search(x_ND[:2], Query(k=5))
    np.testing.assert_array_equal(store.search(x_ND[:2], Query(k=5, mode="two-stage")).keys_QK, exact.keys_QK)
    for fields in ({"mode": "code"}, {"mode": "ball", "radius": 1}):
        asked: dict[str, Any] = fields
        with pytest.raises(BadValue, match="mode must be exact or two-stage: this index has no codes"):
            store.search(x_ND[:1], Query(k=5, **asked))
    with pytest.raises(NotFound, match="has no codes"):
        store.codes([1])
