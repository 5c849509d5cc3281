"""Image folders -> ordered, split lists of examples, and the reading of their photographs.

A data set is a folder. Its parts are its folders `train`, for training, and `test`, `val`, `valid` and `validation`, all for
testing, in any case of letters. `train` is a part where it has folders, or tar files, and one of the others has too, or where
no folder of another name lies beside it; elsewhere all of them are classes like others, and the parts follow from the SHA-256 of
each file: a fifth, those whose hash is divisible by 5, is for testing. A file keeps its part when others are added, renamed or
removed, and two copies of one photograph never end up on both sides.

The class of a photograph is the first folder that it lies in below its part, spelled in Unicode's form NFC. Links are followed,
also those that lead out of the data set. Hidden files and folders are not read. Everything else that is left out is an example
with the reason: what lies beside the parts, what systems keep for themselves, a folder that cannot be read.

A tar file (training/images/shards.py) stands for the photographs in it, as if it were a folder: `shard.tar/member`. Where shards
directly below the data set's folder have the words of parts in their names, they are the parts by the same rule; where they have
not, the folders at the top of shards are parts as if the shards had been unpacked.
"""

import hashlib
import os
import re
import unicodedata
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, Literal, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from training.errors import BadImage, BadValue, FC7Error, NotReady
from training.files import is_text, printable, sha256_of
from training.images import shards
from training.images.packed import PackedStrings
from training.images.prefetch import ahead
from training.images.preprocess import SIZE, ImageLimits, Photograph, decode

Part = Literal["train", "test", "all"]
TEST_SHARE = 5
_BLOCK = 2**13
_PART_WORDS: Final[dict[str, Part]] = {"train": "train", "test": "test", "val": "test", "valid": "test", "validation": "test"}
_COMPRESSED: Final = re.compile(r"\.(tar\.\w+|tgz|tbz2?|txz)$", re.IGNORECASE)


@dataclass(frozen=True)
class Example:
    """One file of a data set."""

    path: str  # relative to the data set's folder, with forward slashes
    label: str  # its class: the first folder it lies in below the part's folder; "" where there is none
    reason: str = ""  # why it is left out; it may be a folder then, and its path ends in a slash

    @property
    def shown(self) -> str:
        """The path as one line of printable text, whatever bytes the file's name has."""
        return printable(self.path)


@dataclass(frozen=True)
class Reject:
    """A file that cannot be used."""

    path: str  # as one line of printable text
    reason: str
    sha256: str = ""  # of its bytes, where they are an item's already


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
    reasons: dict[str, str] = field(default_factory=dict)  # path -> reason of what is left out

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[Example]:
        for path, label in zip(self.paths, map(int, self.labels_N), strict=True):
            yield Example(path, self.label_names[label], self.reasons.get(path, ""))

    @overload
    def __getitem__(self, index: int) -> Example: ...

    @overload
    def __getitem__(self, index: slice) -> "Examples": ...

    def __getitem__(self, index: int | slice) -> "Example | Examples":
        if isinstance(index, slice):
            return Examples(self.paths[index], self.labels_N[index], self.label_names, self.reasons)
        path = self.paths[index]
        return Example(path, self.label_names[self.labels_N[index]], self.reasons.get(path, ""))

    def take(self, positions: NDArray[np.int64]) -> "Examples":
        """The examples at these positions, in this order."""
        return Examples(self.paths.take(positions), self.labels_N[positions], self.label_names, self.reasons)


def list_examples(root: Path, part: Part) -> Examples:
    """All files of one part, ordered by path, and what is left out, with its reason, in its place.

    Hidden files and folders are not read. Raises NotReady where there is no file.
    """
    names = _names_in_root(root)
    parts, within = _parts_of(root, names)
    if parts:
        examples = _collect(_part_of(root, names, parts, within, part))
    else:
        examples = _collect(_walk(root, ""))
        if part != "all":
            examples = examples.take(np.flatnonzero(_are_tests(root, examples.paths) == (part == "test")))
    if not examples:
        raise NotReady(f"no files for the part {part!r} below {root}")
    return examples


def has_parts(root: Path) -> bool:
    """Whether folders or shards of a data set are its parts. Raises NotReady where there is none."""
    names = _names_in_root(root)
    return bool(_parts_of(root, names)[0])


def held_out(digests_N32: NDArray[np.uint8], share: float) -> NDArray[np.bool_]:
    """Which photographs a run holds out, bool (N,): by the end of each SHA-256, so whatever else is in the folder.

    `--per-class` goes by the beginnings.
    """
    numbers_N = np.ascontiguousarray(digests_N32[:, -8:]).view(">u8")[:, 0].astype(np.uint64)
    return numbers_N < np.uint64(share * 2**64)


def check_outside(field: str, folder: Path, root: Path) -> None:
    """Raises BadValue for `field` where what is written into `folder` would become files of the data set at `root`."""
    inside, top = folder.resolve(), root.resolve()
    if not inside.is_relative_to(top) or not root.is_dir():
        return
    below = inside.relative_to(top).parts
    if any(name.startswith(".") for name in below):
        return
    names = _names_in_root(root)
    parts, _ = _parts_of(root, names)
    if not below or not parts or f"{below[0]}/" in parts:
        raise BadValue(field, str(folder), f"a folder outside data={root}, whose files it would become")


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


def hash_example(root: Path, path: str) -> str:
    """SHA-256 of one example's bytes, a file's or a tar member's; hexadecimal. Raises OSError, NotFound and BadImage."""
    within = shards.split(root, path)
    return sha256_of(within[0], *shards.locate(*within)) if within else sha256_of(root / path)


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


def read_photographs(root: Path, examples: Iterable[Example], limits: ImageLimits, side: int = SIZE) -> Iterator[ReadResult]:
    """Reads and decodes examples in order, ahead of the consumer on every core; an unreadable one is a result, not an end.

    Squares have `side` pixels, 256 at most.
    """
    workers = os.cpu_count() or 1
    read = partial(read_photograph, root, limits=limits, side=side)
    return ahead(read, examples, workers=workers, waiting=16 * workers, name="decode")


def read_photograph(root: Path, example: Example, limits: ImageLimits, side: int = SIZE) -> ReadResult:
    """Reads and decodes one example, to a square of `side` pixels."""
    sha256, size = "", 0
    if example.reason:
        return ReadResult(example, sha256, size, FC7Error(example.reason))
    if not is_text(example.path):
        return ReadResult(example, sha256, size, FC7Error("its name has control characters or bytes that are not UTF-8"))
    try:
        data = read_bytes(root, example.path, limits)
        size = len(data)
        sha256 = hashlib.sha256(data).hexdigest()
        return ReadResult(example, sha256, size, decode(data, limits, side))
    except OSError as error:
        return ReadResult(example, sha256, size, FC7Error(f"cannot be read: {error.strerror}"))
    except FC7Error as error:
        return ReadResult(example, sha256, size, error)


def _are_tests(root: Path, paths: Sequence[str]) -> NDArray[np.bool_]:
    """Which files the hashed split puts into the test part; one that cannot be read goes to the training part."""

    def is_test(path: str) -> bool:
        try:
            return int(hash_example(root, path), 16) % TEST_SHARE == 0
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


def _names_in_root(root: Path) -> list[str]:
    """The names in a data set's folder, sorted, as _names_in gives them. Raises NotReady."""
    if not root.is_dir():
        raise NotReady(f"no data set at {root}: no such folder; give one with --data")
    try:
        return _names_in(str(root))
    except OSError as error:
        raise NotReady(f"{error.filename} cannot be read: {error.strerror}; make it readable") from error


def _parts_of(root: Path, names: list[str]) -> tuple[dict[str, Part], bool]:
    """The part of each folder and shard directly below a data set's that is one; or else, and then True, of the folders that
    would be there if its shards were unpacked."""
    folders = [name for name in names if name.endswith("/") and not name.endswith("//") and not _reason_of(name)]
    if parts := _parts_of_folders(folders, lambda name: _has_classes(f"{root}/{name}")) or _parts_of_shards(names):
        return parts, False
    tops = _tops_of_shards(root, names)
    within = _parts_of_folders(
        sorted({*folders, *tops}), lambda name: tops.get(name, False) or (name in folders and _has_classes(f"{root}/{name}"))
    )
    return within, True


def _tops_of_shards(root: Path, names: list[str]) -> dict[str, bool]:
    """The folders at the top of shards, and whether there are classes in them."""
    tops: dict[str, bool] = {}
    for name in names:
        if name.endswith("//"):
            try:
                contents = shards.scan(root / name[:-2])
            except OSError:  # which listing its photographs says
                continue
            for member, label in zip(contents.names, contents.labels, strict=True):
                top, slash, rest = member.partition("/")
                if slash:
                    tops[f"{top}/"] = tops.get(f"{top}/", False) or "/" in rest or bool(label)
    return tops


def _parts_of_folders(folders: list[str], has_classes: Callable[[str], bool]) -> dict[str, Part]:
    """The part of each of the folders at the top of a data set that is one; none where they are classes."""
    parts = {name: _PART_WORDS[name[:-1].lower()] for name in folders if name[:-1].lower() in _PART_WORDS}
    if "train" not in parts.values():
        return {}
    if len(parts) == len(folders):
        return parts
    with_classes = {part for name, part in parts.items() if has_classes(name)}
    return parts if with_classes == {"train", "test"} else {}


def _has_classes(folder: str) -> bool:
    try:
        return any(name.endswith("/") and not _reason_of(name) for name in _names_in(folder))
    except OSError:
        return False


def _parts_of_shards(names: list[str]) -> dict[str, Part]:
    """The part of each shard directly below a data set's folder that has one in its name; by the same rule as folders."""
    parts: dict[str, Part] = {}
    for name in names:
        if name.endswith("//"):
            for word in re.findall("[a-z]+", name.lower()):
                if word in _PART_WORDS:
                    parts.setdefault(name, _PART_WORDS[word])
    others = [name for name in names if name.endswith("/") and name not in parts and not _reason_of(name)]
    return parts if "train" in parts.values() and ("test" in parts.values() or not others) else {}


def _part_of(root: Path, names: list[str], parts: dict[str, Part], within: bool, part: Part) -> "Iterator[_File]":
    """The files of one part, and what lies beside the parts."""
    beside = f"lies beside the parts of the data set ({', '.join(name.rstrip('/') for name in parts)}) and in none of them"
    for name in names:
        if name == shards.CLASSES:
            continue
        if within and name.endswith("//"):
            yield from _part_within(root / name[:-2], name[:-2], parts, part, beside)
        elif name not in parts:
            yield _File(name.removesuffix("//") if name.endswith("//") else name, "", _reason_of(name) or beside)
        elif part in (parts[name], "all"):
            if name.endswith("//"):
                yield from _photographs_in(root / name[:-2], name[:-2], "")
            else:
                yield from _walk(root / name, name)


def _part_within(shard: Path, path: str, parts: Mapping[str, Part], part: Part, beside: str) -> "Iterator[_File]":
    """The photographs of one part in a shard that has folders which are parts at its top, and what lies beside these."""
    left_out = set[str]()
    for file in _photographs_in(shard, path, "", parts):
        top, slash, _ = file.path.removeprefix(f"{path}/").partition("/")
        name = f"{path}/{top}{slash}"
        its_part = parts.get(f"{top}{slash}")
        if file.path == path or (its_part and part in (its_part, "all")):
            yield file
        elif not its_part and name not in left_out:
            left_out.add(name)
            yield _File(name, "", beside)


def _photographs_in(shard: Path, path: str, label: str, parts: Collection[str] = ()) -> "Iterator[_File]":
    """Every photograph in a shard, after the shard's own path where something is wrong with it.

    Classes are the first folders below those that are `parts`.
    """
    try:
        contents = shards.scan(shard)
    except OSError:
        yield _File(path, label)
        return
    if contents.defect:
        yield _File(path, label)
    names = shards.class_names(shard.parent)
    for member, own in zip(contents.names, contents.labels, strict=True):
        top, _, rest = member.partition("/")
        first_folder = (rest if f"{top}/" in parts else member).rpartition("/")[0].partition("/")[0]
        yield _File(f"{path}/{member}", shards.name_of_class(own, names, shard) or label or first_folder)


def _collect(files: "Iterable[_File]") -> Examples:
    numbers: dict[str, int] = {}  # of each spelling
    classes: dict[str, int] = {}  # of each class
    labels = array("i")
    reasons: dict[str, str] = {}

    def paths() -> Iterator[str]:
        for file in files:
            number = numbers.get(file.label)
            if number is None:
                number = classes.setdefault(unicodedata.normalize("NFC", file.label), len(classes))
                numbers[file.label] = number
            labels.append(number)
            if file.reason:
                reasons[file.path] = file.reason
            yield file.path

    packed = PackedStrings(paths())
    return Examples(packed, np.array(labels, np.int32), list(classes), reasons)


class _File(NamedTuple):
    """A file on its way into Examples, or, with a reason, what is left out."""

    path: str
    label: str
    reason: str = ""


def _walk(top: Path, prefix: str) -> Iterator[_File]:
    """Every file below `top`, in the order of the whole paths; `prefix` goes before each."""
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

    def entries(self) -> "Iterator[_File | _Folder]":
        """Its files and folders, ordered by the paths that begin with them."""
        try:
            status = os.stat(self.location)  # noqa: PTH116
            identity = (status.st_dev, status.st_ino)
            if identity in self.above:  # a link back to a folder above it
                return
            names = _names_in(self.location)
        except OSError as error:
            yield _File(self.prefix, "", f"cannot be read: {error.strerror}; make it readable, or move it out of the data set")
            return
        for name in names:
            location = f"{self.location}/{name.rstrip('/')}"
            if reason := _reason_of(name):
                yield _File(self.prefix + name, "", reason)
            elif name.endswith("//"):
                yield from _photographs_in(Path(location), self.prefix + name[:-2], self.label)
            elif name.endswith("/"):
                yield _Folder(location, self.prefix + name, self.label or name[:-1], self.above | {identity})
            elif name != shards.CLASSES or not any(other.endswith("//") for other in names):
                yield _File(self.prefix + name, self.label)


def _names_in(folder: str) -> list[str]:
    """What is in a folder, as _name gives it, sorted. Raises OSError."""
    with os.scandir(folder) as listing:
        return sorted(name for entry in listing if (name := _name(entry)))


def _reason_of(name: str) -> str:
    """Why a file or a folder of this name, as _name gives it, is no part of a data set; "" where it is one."""
    if shards.is_kept_by_systems(name.rstrip("/")):
        return "is kept by a system or a program for itself, and is left out"
    return ""


def _name(entry: os.DirEntry[str]) -> str:
    """What an entry is ordered by: a folder with one slash at the end, a shard with two; "" for what is left out."""
    if entry.name.startswith(".") and not shards.is_kept_by_systems(entry.name):
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
