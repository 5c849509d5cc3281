"""Image folders -> ordered, split lists of examples, and the reading of their photographs.

A data set is a folder. Where it has a `train` folder, `train` and `test` (or `val`) are its parts; elsewhere the parts follow
from the SHA-256 of each file: a fifth, those whose hash is divisible by 5, is for testing. A file keeps its part
when others are added, renamed or removed, and two copies of one photograph never end up on both sides.
"""

import hashlib
import os
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, overload

import numpy as np
from numpy.typing import NDArray

from training.errors import FC7Error, NotReady
from training.files import sha256_of
from training.packed import PackedStrings
from training.preprocess import ImageLimits, Photograph, decode

Part = Literal["train", "test", "all"]
TEST_SHARE = 5
_BLOCK = 2**13


@dataclass(frozen=True)
class Example:
    """One file of a data set."""

    path: str  # relative to the data set's folder, with forward slashes
    label: str  # its class: the folder it lies in, below the part's folder; "" where there is none

    @property
    def shown(self) -> str:
        """The path as one line of printable text, whatever bytes the file's name has."""
        path = self.path.encode("utf-8", "backslashreplace").decode()
        return path if path.isprintable() else path.encode("unicode_escape").decode()


@dataclass(frozen=True)
class ReadResult:
    """What reading one example gave: a photograph, or the error that says why not."""

    example: Example
    sha256: str  # of the file's bytes; "" where it could not be read
    size: int  # bytes
    outcome: Photograph | FC7Error


@dataclass(frozen=True, eq=False)
class Examples(Sequence[Example]):
    """Files of a data set, held compactly: an Example is made when it is asked for."""

    paths: PackedStrings  # N
    labels_N: NDArray[np.int32]  # positions in `label_names`
    label_names: list[str]

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[Example]:
        for path, label in zip(self.paths, map(int, self.labels_N), strict=True):
            yield Example(path, self.label_names[label])

    @overload
    def __getitem__(self, index: int) -> Example: ...

    @overload
    def __getitem__(self, index: slice) -> "Examples": ...

    def __getitem__(self, index: int | slice) -> "Example | Examples":
        if isinstance(index, slice):
            return Examples(self.paths[index], self.labels_N[index], self.label_names)
        return Example(self.paths[index], self.label_names[self.labels_N[index]])

    def take(self, positions: NDArray[np.int64]) -> "Examples":
        """The examples at these positions, in this order."""
        return Examples(self.paths.take(positions), self.labels_N[positions], self.label_names)


def list_examples(root: Path, part: Part) -> Examples:
    """All files of one part, ordered by path; hidden files and folders are left out. Raises NotReady where there is none."""
    if not root.is_dir():
        raise NotReady(f"no data set at {root}: no such folder; give one with --data")
    if (root / "train").is_dir():
        wanted = {"train": ("train",), "test": ("test", "val"), "all": ("test", "train", "val")}[part]
        examples = _collect(file for name in wanted if (root / name).is_dir() for file in _walk(root / name, f"{name}/"))
    else:
        examples = _collect(_walk(root, ""))
        if part != "all":
            examples = examples.take(np.flatnonzero(_are_tests(root, examples.paths) == (part == "test")))
    if not examples:
        raise NotReady(f"no files for the part {part!r} below {root}")
    return examples


def stamp(root: Path, examples: Sequence[Example]) -> str:
    """SHA-256 over the paths, sizes and times of files: equal where nothing about them has changed."""
    root = root.resolve()
    digest = hashlib.sha256(os.fsencode(root))
    for example in examples:
        digest.update(f"\n{example.path}\t{example.label}\t".encode("utf-8", "surrogateescape"))
        try:
            status = os.stat(f"{root}/{example.path}")  # noqa: PTH116  a Path for each of a million files takes longer than the rest
            digest.update(b"%d %d %d" % (status.st_size, status.st_mtime_ns, status.st_ctime_ns))
        except OSError:
            digest.update(b"gone")
    return digest.hexdigest()


def read_photographs(root: Path, examples: Iterable[Example], limits: ImageLimits) -> Iterator[ReadResult]:
    """Reads and decodes examples in order, ahead of the consumer on every core; an unreadable one is a result, not an end."""
    workers = os.cpu_count() or 1
    ahead: deque[Future[ReadResult]] = deque()
    with ThreadPoolExecutor(workers, "decode") as pool:
        try:
            for example in examples:
                ahead.append(pool.submit(read_photograph, root, example, limits))
                if len(ahead) > 16 * workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def read_photograph(root: Path, example: Example, limits: ImageLimits) -> ReadResult:
    """Reads and decodes one example."""
    path = root / example.path
    sha256, size = "", 0
    if example.shown != example.path:
        return ReadResult(example, sha256, size, FC7Error("its name has bytes that are not printable UTF-8"))
    try:
        size = path.stat().st_size
        limits.check_bytes(size)
        data = path.read_bytes()
        sha256 = hashlib.sha256(data).hexdigest()
        return ReadResult(example, sha256, size, decode(data, limits))
    except OSError as error:
        return ReadResult(example, sha256, size, FC7Error(f"cannot be read: {error.strerror}"))
    except FC7Error as error:
        return ReadResult(example, sha256, size, error)


def _are_tests(root: Path, paths: Sequence[str]) -> NDArray[np.bool_]:
    """Which files the hashed split puts into the test part; one that cannot be read goes to the training part."""

    def is_test(path: str) -> bool:
        try:
            return int(sha256_of(root / path), 16) % TEST_SHARE == 0
        except OSError:
            return False

    with ThreadPoolExecutor() as pool:
        blocks = (paths[start : start + _BLOCK] for start in range(0, len(paths), _BLOCK))
        return np.fromiter((test for block in blocks for test in pool.map(is_test, block)), bool, len(paths))


def _collect(files: Iterable[tuple[str, str]]) -> Examples:
    numbers: dict[str, int] = {}
    labels = array("i")

    def paths() -> Iterator[str]:
        for path, label in files:
            labels.append(numbers.setdefault(label, len(numbers)))
            yield path

    packed = PackedStrings(paths())
    return Examples(packed, np.array(labels, np.int32), list(numbers))


def _walk(top: Path, prefix: str) -> Iterator[tuple[str, str]]:
    """(path, label) of every file below `top`, in the order of the whole paths; `prefix` goes before each."""
    start = _Folder(str(top), prefix, "", frozenset())
    stack = [start.entries()]
    while stack:
        entry = next(stack[-1], None)
        if entry is None:
            stack.pop()
        elif isinstance(entry, _Folder):
            stack.append(entry.entries())
        else:
            yield entry


@dataclass(frozen=True)
class _Folder:
    """A folder on the way down."""

    place: str  # where it is
    prefix: str  # what goes before its files' names in their paths
    label: str  # the class that its files belong to; "" above the classes' folders
    above: frozenset[tuple[int, int]]  # device and inode of the folders that it lies in

    def entries(self) -> "Iterator[tuple[str, str] | _Folder]":
        """Its files, as path and label, and folders, ordered by the paths that begin with them."""
        try:
            status = os.stat(self.place)  # noqa: PTH116
            identity = (status.st_dev, status.st_ino)
            if identity in self.above:  # a link back to a folder above it
                return
            with os.scandir(self.place) as listing:
                names = sorted((f"{e.name}/" if _is(e.is_dir) else e.name) for e in listing if _is_shown(e))
        except OSError as error:
            raise NotReady(
                f"{error.filename} cannot be read: {error.strerror}; make it readable, or move it out of the data set"
            ) from error
        for name in names:
            if name.endswith("/"):
                yield _Folder(f"{self.place}/{name[:-1]}", self.prefix + name, self.label or name[:-1], self.above | {identity})
            else:
                yield self.prefix + name, self.label


def _is_shown(entry: os.DirEntry[str]) -> bool:
    return not entry.name.startswith(".") and (_is(entry.is_dir) or _is(entry.is_file))


def _is(kind: Callable[[], bool]) -> bool:
    try:
        return kind()
    except OSError:  # a link that cannot be followed
        return False
