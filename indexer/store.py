"""What every index is to those who ask it, wherever its items lie.

They lie on disk (indexer/index.py) or in Milvus (indexer/milvus/store.py).

Legend: N items, Q queries, D feature width (4096), K neighbours, W bytes of a code.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Literal, Protocol, Self, get_args

import numpy as np
from numpy.typing import NDArray

from indexer.arrays import Codes, Ids, Keys, Vectors
from indexer.features import FeatureBlock, FileFacts
from indexer.metric import Metric, vectors_of
from training.errors import BadValue

Mode = Literal["exact", "code", "two-stage", "ball"]
Columns = Literal[0, 1, "both"]
MODES: Final[tuple[Mode, ...]] = get_args(Mode)
COLUMNS: Final[tuple[Columns, ...]] = get_args(Columns)
START: Final = (0.0, -1)  # a key and id before those of every hit
LARGEST_ID: Final = 2**63 - 1
MOST_LABELS: Final = 100  # of a filter, each way
LATEST: Final = 253402300799999999  # that a time of Item.added can be: the last microsecond of the year 9999
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def normalised(text: str) -> str:
    """A text in the form (NFC) in which equal ones are the same, however a keyboard or file system composes them."""
    return unicodedata.normalize("NFC", text)


def microseconds(time: datetime) -> int:
    """A time, which has its zone, as Item.added has it: microseconds since 1970, UTC."""
    return (time - _EPOCH) // timedelta(microseconds=1)


def time_of(added: int) -> datetime:
    """The time of Item.added, in UTC."""
    return _EPOCH + timedelta(microseconds=added)


def now() -> int:
    """The time for Item.added of what is added now."""
    return microseconds(datetime.now(UTC))


def _in_utc(name: str, time: datetime | None) -> datetime | None:
    try:
        if time is None or time.utcoffset() is not None:
            return time and time.astimezone(UTC)
    except OverflowError:
        pass
    raise BadValue(name, str(time), "a time of the years 1 to 9999 with its zone")


def _text(name: str, value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BadValue(name, value, "text in UTF-8") from error
    return normalised(value)


@dataclass(frozen=True)
class Item:
    """One indexed photograph."""

    id: int  # never given to another, even after the item was removed
    root: str  # the folder that its path is below, absolute; or "uploads", in the index's own
    path: str  # with forward slashes
    label: str  # the folder it lay in; "" for none
    size: int  # bytes
    width: int  # pixels, as stored
    height: int
    format: str  # "JPEG", "PNG", ...
    sha256: str  # of the file
    thumbnail_start: int  # byte offset in the thumbnail file
    thumbnail_size: int  # bytes
    added: int  # when it came into the index: microseconds since 1970, UTC

    @classmethod
    def of(cls, file: FileFacts, id: int, root: str, added: int) -> Self:
        """The item that a file becomes; whoever writes its thumbnail says where that starts."""
        return cls(
            id=id,
            root=root,
            path=file.path,
            label=normalised(file.label),
            size=file.size,
            width=file.width,
            height=file.height,
            format=file.format,
            sha256=file.sha256,
            thumbnail_start=0,
            thumbnail_size=file.thumbnail_size,
            added=added,
        )


@dataclass(frozen=True)
class Filter:
    """Which items a search is among: those that meet every condition given. Without any, all.

    Texts are compared in Unicode's form NFC, in whichever form they are spelt. Raises BadValue for what is no text in UTF-8, for
    more than MOST_LABELS labels, and for a time without its zone.
    """

    labels: tuple[str, ...] = ()  # items of one of these; "" for items without a label
    exclude_labels: tuple[str, ...] = ()  # items of none of these
    path_prefix: str = ""  # the characters that Item.path begins with; none of them stands for others
    added_after: datetime | None = None  # items added at this time or later; with its time zone
    added_before: datetime | None = None  # items added earlier

    def __post_init__(self) -> None:
        for name in ("labels", "exclude_labels"):
            labels = {_text(name, label) for label in getattr(self, name)}
            if len(labels) > MOST_LABELS:
                raise BadValue(name, f"{len(labels)} labels", f"at most {MOST_LABELS}")
            object.__setattr__(self, name, tuple(sorted(labels)))
        object.__setattr__(self, "path_prefix", _text("path_prefix", self.path_prefix))
        for name in ("added_after", "added_before"):
            object.__setattr__(self, name, _in_utc(name, getattr(self, name)))

    @property
    def added(self) -> tuple[int | None, int | None]:
        """The least Item.added that passes, and the least beyond; None where there is no bound."""
        after, before = (None if time is None else microseconds(time) for time in (self.added_after, self.added_before))
        return after, before

    def passes(self, item: Item) -> bool:
        """Whether an item meets every condition."""
        after, before = self.added
        return (
            (not self.labels or item.label in self.labels)
            and item.label not in self.exclude_labels
            and normalised(item.path).startswith(self.path_prefix)
            and (after is None or item.added >= after)
            and (before is None or item.added < before)
        )


ALL: Final = Filter()


@dataclass(frozen=True)
class Query:
    """What to look for, beside the vectors themselves. Raises BadValue for what cannot be answered.

    exact: every vector is compared, by the metric. code: every code, by Hamming distance. two-stage: a short-list, then
    the exact distances of what is on it. ball: every item whose code is within `radius` bits of the query's.

    Exact search compares one column's half of the components alone where `columns` says so: by cosine the angle between the
    halves themselves, and an item whose half is zeros is no neighbour.

    A page is what comes `after` the last hit of the one before. In two stages only the first page, which is after nothing, is of
    the short-list. Those after it are by exact search `without` the items of the first; the second is after START, since what
    the short-list missed is nearer than the first page's end.
    """

    k: int  # neighbours to return at most
    mode: Mode = "exact"
    filter: Filter = ALL
    max_distance: float | None = None  # in the mode's own distance; hits farther away are left out
    radius: int | None = None  # bits; of the mode "ball" alone
    after: tuple[float, int] | None = None  # a hit's `key` and id: only what comes after it in the order, for the next page
    without: tuple[int, ...] = ()  # ids of items that are left out
    columns: Columns = "both"  # of a network of two columns: column 0 has the first half of the components
    metric: Metric | None = None  # of this search; None for the index's own

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise BadValue("mode", self.mode, f"one of {', '.join(MODES)}")
        if self.k < 1:
            raise BadValue("k", self.k, "at least 1")
        if self.columns not in COLUMNS:
            raise BadValue("columns", self.columns, f"one of {', '.join(map(str, COLUMNS))}")
        if self.columns != "both" and self.mode != "exact":
            raise BadValue("mode", self.mode, f"exact with columns={self.columns}: codes and short-lists are of whole features")
        if self.metric and self.mode != "exact":
            raise BadValue("mode", self.mode, "exact with a metric of the search's own")
        if self.max_distance is not None and not self.max_distance >= 0:
            raise BadValue("max_distance", self.max_distance, "at least 0")
        if (self.mode == "ball") != (self.radius is not None):
            raise BadValue("radius", self.radius, "given with mode=ball, and with it alone")
        if self.radius is not None and self.radius < 0:
            raise BadValue("radius", self.radius, "at least 0")

    @property
    def is_exact(self) -> bool:
        """Whether every vector is compared."""
        return self.mode == "exact" or (self.mode == "two-stage" and self.after is not None)

    def part(self, width: int) -> slice:
        """Which of so many components are compared."""
        first, last = {0: (0, width // 2), 1: (width // 2, width), "both": (0, width)}[self.columns]
        return slice(first, last)

    def compared(self, vectors_ND: Vectors, metric: Metric) -> Vectors:
        """What is compared of an index's vectors, where the search's metric is this one. Raises BadValue like vectors_of."""
        field = "columns" if self.columns != "both" else "features"
        return vectors_of(vectors_ND[:, self.part(vectors_ND.shape[1])], metric, field)


@dataclass(frozen=True)
class Hits:
    """The neighbours of Q queries, nearest first; equal distances in order of id. Rows with fewer than K end in ids of -1."""

    distances_QK: NDArray[np.float32]  # by the metric, or Hamming in the modes "code" and "ball"; inf where the id is -1
    ids_QK: Ids
    keys_QK: Keys  # what they are ordered by: the squared distance of the vectors, or the Hamming distance; for Query.after
    buckets_Q: NDArray[np.int64] | None = None  # mode "ball": how many codes were looked up

    def of(self, query: int) -> list[tuple[int, float, float]]:
        """The hits of one query as (id, distance, key)."""
        ids, distances, keys = self.ids_QK[query], self.distances_QK[query], self.keys_QK[query]
        here = ids >= 0
        return list(zip(ids[here].tolist(), distances[here].tolist(), keys[here].tolist(), strict=True))


def without_codes(subject: str) -> str:
    """What to tell somebody who asks a store without codes for what needs them."""
    return f"{subject} has no codes; `python -m indexer.build --bits 128` makes them"


def metric_of(query: Query, metric: Metric) -> Metric:
    """The metric of a search of an index of this metric. Raises BadValue where the index has not what it compares."""
    if query.metric == "euclidean" and metric == "cosine":
        raise BadValue(
            "metric",
            query.metric,
            "cosine: this index holds vectors of length 1; `python -m indexer.build --metric euclidean` keeps their own lengths",
        )
    return query.metric or metric


def check_mode(mode: Mode, bits: int) -> None:
    """Raises BadValue for a mode that goes by codes where a store has none."""
    if mode in ("code", "ball") and not bits:
        raise BadValue("mode", mode, f"exact or two-stage: {without_codes('this index')}")


class Store(Protocol):
    """A collection that can be searched, and that grows and shrinks. One store is one state: `add` and `remove` give the next."""

    @property
    def version_number(self) -> int:
        """Rises with every change."""

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the model that made the vectors."""

    @property
    def metric(self) -> Metric:
        """What the distance between two vectors is."""

    @property
    def width(self) -> int:
        """Components of a vector."""

    @property
    def bits(self) -> int:
        """Bits of a code; 0 where there are none, and then only the mode "exact" can be asked for."""

    def __len__(self) -> int:
        """Items that can be found."""

    def search(self, queries_QD: Vectors, query: Query) -> Hits:
        """The nearest items of each float32 (Q, D) feature.

        Raises BadValue for a mode that this store has not, and for features and distances that its metric has not.
        """

    def key(self, query_D: Vectors, item: int, query: Query) -> float:
        """What `search` orders this item by; see Hits. Raises NotFound, and BadValue like `search`."""

    def count(self, filter: Filter) -> int:
        """Items that pass a filter."""

    def labels(self) -> dict[str, int]:
        """How many items each label has, in order of the labels; "" is that of items without one."""

    def ids(self) -> Ids:
        """The ids of all items, ascending."""

    def first(self, most: int, filter: Filter, after: int) -> list[Item]:
        """The items that pass a filter, in order of id: at most so many, of those with a larger id than `after`."""

    def vectors(self, ids: Sequence[int]) -> Vectors:
        """The stored vectors, float32 (n, D), of length 1 where the metric is cosine. Raises NotFound for the first not there."""

    def codes(self, ids: Sequence[int]) -> Codes:
        """The stored codes, uint8 (n, W). Raises NotFound like `vectors`."""

    def items(self, ids: Sequence[int]) -> list[Item]:
        """What the catalogue knows of them. Raises NotFound like `vectors`."""

    def thumbnail(self, item: Item) -> bytes:
        """The item's thumbnail, a JPEG file's bytes."""

    def original(self, item: Item) -> Path | bytes:
        """The item's own file, or its bytes where it lies in a tar file.

        Raises Gone where the file has become another, NotFound where it is not there, or not where it may be.
        """

    def holding(self, sha256s: Iterable[str]) -> dict[str, int]:
        """Which of these files are among the items: SHA-256 -> the item's id."""

    def add(self, feature_blocks: Iterable[FeatureBlock], root: Path) -> tuple[Self, list[int]]:
        """The store with these items too, and the ids they got, row for row; files that it holds already keep their id.

        `root` is the folder that the items' paths are below. When this returns, the change has outlived any power cut. Raises
        BadValue for features that its metric has not, which FeatureBlock.in_metric makes rejects, and then adds none.
        """

    def remove(self, ids: Sequence[int]) -> Self:
        """The store without these items; their ids are never given again. Raises NotFound, and then removes none."""

    def close(self) -> None:
        """Lets go of files and connections."""
