"""Image folders -> ordered, split lists of examples, and the reading of their photographs.

A data set is a folder. Where it has a `train` folder, `train` and `test` (or `val`) are its parts; elsewhere the parts follow
from the SHA-256 of each file: a fifth, those whose hash is divisible by 5, is for testing. A file keeps its part
when others are added, renamed or removed, and two copies of one photograph never end up on both sides.

A tar file (training/images/shards.py) stands for the photographs in it, as if it were a folder: `shard.tar/member`. Where shards
directly below the data set's folder have the word `train` in their names, those with `train`, and with `test` or `val`, are its
parts.
"""

import hashlib
import os
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal, overload

import numpy as np
from numpy.typing import NDArray

from training.errors import BadImage, FC7Error, NotReady
from training.files import sha256_of
from training.images import shards
from training.images.packed import PackedStrings
from training.images.prefetch import ahead
from training.images.preprocess import ImageLimits, Photograph, decode

Part = Literal["train", "test", "all"]
TEST_SHARE = 5
_BLOCK = 2**13
_PART_WORDS: Final[dict[str, Part]] = {"train": "train", "test": "test", "val": "test"}
_COMPRESSED: Final = re.compile(r"\.(tar\.\w+|tgz|tbz2?|txz)$", re.IGNORECASE)


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
class Reject:
    """A file that cannot be used."""

    path: str  # as one line of printable text
    reason: str


@dataclass(frozen=True)
class ReadResult:
    """What reading one example gave: a photograph, or the error that says why not."""

    example: Example
    sha256: str  # of the file's bytes; "" where it could not be read
    size: int  # bytes; 0 where it could not be read
    outcome: Photograph | FC7Error


@dataclass(frozen=True, eq=False)
class Examples(Sequence[Example]):
    """Files of a data set in compact form: an Example is made when it is asked for."""

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
    elif "train" in (parts := _parts_of_shards(root)).values():
        shards_of_part = sorted(name for name in parts if part in (parts[name], "all"))
        examples = _collect(file for name in shards_of_part for file in _photographs_in(root / name, name, ""))
    else:
        examples = _collect(_walk(root, ""))
        if part != "all":
            examples = examples.take(np.flatnonzero(_are_tests(root, examples.paths) == (part == "test")))
    if not examples:
        raise NotReady(f"no files for the part {part!r} below {root}")
    return examples


def stamp(root: Path, examples: Sequence[Example]) -> str:
    """SHA-256 over the paths, classes, sizes and times of files: equal where nothing about them has changed."""
    root = root.resolve()
    digest = hashlib.sha256(os.fsencode(root))
    shard, state = "", b""
    for example in examples:
        digest.update(f"\n{example.path}\t{example.label}\t".encode("utf-8", "surrogateescape"))
        if not shard or not example.path.startswith(shard):
            within = shards.split(root, example.path)
            shard = f"{example.path.removesuffix(within[1]).rstrip('/')}/" if within else ""
            state = _state(str(within[0]) if within else f"{root}/{example.path}")
        digest.update(state)
    return digest.hexdigest()


def read_bytes(root: Path, path: str, limits: ImageLimits) -> bytes:
    """The bytes of one example, a file's or a tar member's.

    Raises OSError where they cannot be read, ImageTooLarge before they are where they are too many, NotFound and BadImage where a
    shard has no such photograph.
    """
    within = shards.split(root, path)
    if within is None:
        if _COMPRESSED.search(path):
            raise BadImage("is a compressed archive; photographs are read from .tar files by position: decompress it to .tar")
        limits.check_bytes((root / path).stat().st_size)
        return (root / path).read_bytes()
    shard, member = within
    start, size = shards.locate(shard, member)
    limits.check_bytes(size)
    with shard.open("rb", buffering=0) as file:
        data = os.pread(file.fileno(), size, start)
    if len(data) != size:
        raise BadImage(f"{shard.name} has been cut short")
    return data


def read_photographs(root: Path, examples: Iterable[Example], limits: ImageLimits) -> Iterator[ReadResult]:
    """Reads and decodes examples in order, ahead of the consumer on every core; an unreadable one is a result, not an end."""
    workers = os.cpu_count() or 1
    read = partial(read_photograph, root, limits=limits)
    return ahead(read, examples, workers=workers, waiting=16 * workers, name="decode")


def read_photograph(root: Path, example: Example, limits: ImageLimits) -> ReadResult:
    """Reads and decodes one example."""
    sha256, size = "", 0
    if example.shown != example.path:
        return ReadResult(example, sha256, size, FC7Error("its name has bytes that are not printable UTF-8"))
    try:
        data = read_bytes(root, example.path, limits)
        size = len(data)
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
            within = shards.split(root, path)
            sha256 = sha256_of(within[0], *shards.locate(*within)) if within else sha256_of(root / path)
            return int(sha256, 16) % TEST_SHARE == 0
        except (OSError, FC7Error):
            return False

    with ThreadPoolExecutor() as pool:
        blocks = (paths[start : start + _BLOCK] for start in range(0, len(paths), _BLOCK))
        return np.fromiter((test for block in blocks for test in pool.map(is_test, block)), bool, len(paths))


def _state(file: str) -> bytes:
    try:
        status = os.stat(file)  # noqa: PTH116  a Path for each of a million files takes longer than the rest
        return b"%d %d" % (status.st_size, status.st_mtime_ns)
    except OSError:
        return b"gone"


def _parts_of_shards(root: Path) -> dict[str, Part]:
    """The shards directly below a data set's folder that have a part in their names."""
    parts: dict[str, Part] = {}
    for entry in root.iterdir():
        if shards.is_shard_name(entry.name) and not entry.name.startswith(".") and entry.is_file():
            for word in re.findall("[a-z]+", entry.name.lower()):
                if word in _PART_WORDS:
                    parts.setdefault(entry.name, _PART_WORDS[word])
    return parts


def _photographs_in(shard: Path, path: str, label: str) -> Iterator[tuple[str, str]]:
    """(path, label) of every photograph in a shard, after the shard's own where something is wrong with it."""
    try:
        contents = shards.scan(shard)
    except OSError:
        yield path, label
        return
    if contents.defect:
        yield path, label
    names = shards.class_names(shard.parent)
    for member, own in zip(contents.names, contents.labels, strict=True):
        yield f"{path}/{member}", shards.name_of_class(own, names, shard) or label


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

    location: str  # its path on disk
    prefix: str  # what goes before its files' names in their paths
    label: str  # the class that its files belong to; "" above the classes' folders
    above: frozenset[tuple[int, int]]  # device and inode of the folders that it lies in

    def entries(self) -> "Iterator[tuple[str, str] | _Folder]":
        """Its files, as path and label, and folders, ordered by the paths that begin with them."""
        try:
            status = os.stat(self.location)  # noqa: PTH116
            identity = (status.st_dev, status.st_ino)
            if identity in self.above:  # a link back to a folder above it
                return
            with os.scandir(self.location) as listing:
                names = sorted(name for entry in listing if (name := _name(entry)))
        except OSError as error:
            raise NotReady(
                f"{error.filename} cannot be read: {error.strerror}; make it readable, or move it out of the data set"
            ) from error
        for name in names:
            location = f"{self.location}/{name.rstrip('/')}"
            if name.endswith("//"):
                yield from _photographs_in(Path(location), self.prefix + name[:-2], self.label)
            elif name.endswith("/"):
                yield _Folder(location, self.prefix + name, self.label or name[:-1], self.above | {identity})
            elif name != shards.CLASSES or not any(other.endswith("//") for other in names):
                yield self.prefix + name, self.label


def _name(entry: os.DirEntry[str]) -> str:
    """What an entry is ordered by: a folder with one slash at the end, a shard with two; "" for what is left out."""
    if entry.name.startswith("."):
        return ""
    if _is(entry.is_dir):
        return f"{entry.name}/"
    if not _is(entry.is_file):
        return ""
    return f"{entry.name}//" if shards.is_shard_name(entry.name) else entry.name


def _is(kind: Callable[[], bool]) -> bool:
    try:
        return kind()
    except OSError:  # a link that cannot be followed
        return False
