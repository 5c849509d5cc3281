"""Image folders -> ordered, split lists of examples, and the reading of their photographs.

A data set is a folder. Where it has a `train` folder, `train` and `test` (or `val`) are its parts; elsewhere the parts follow
from the SHA-256 of each file: a fifth, those whose hash is divisible by 5, is for testing. A file keeps its part
when others are added, renamed or removed, and two copies of one photograph never end up on both sides.
"""

import hashlib
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from training.errors import FC7Error, NotReady
from training.files import sha256_of
from training.preprocess import ImageLimits, Photograph, decode

Part = Literal["train", "test", "all"]
TEST_SHARE = 5


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


def list_examples(root: Path, part: Part) -> list[Example]:
    """All files of one part, ordered by path; hidden files and folders are left out. Raises NotReady where there is none."""
    if not root.is_dir():
        raise NotReady(f"no data set at {root}: no such folder; give one with --data")
    examples = sorted(_walk(root), key=lambda example: example.path)
    if (root / "train").is_dir():
        wanted = {"train": ("train",), "test": ("test", "val"), "all": ("train", "test", "val")}[part]
        examples = [_below_part(e) for e in examples if e.path.split("/", 1)[0] in wanted]
    elif part != "all":
        with ThreadPoolExecutor() as pool:
            tests = pool.map(lambda e: is_test_file(root / e.path), examples)
            examples = [e for e, test in zip(examples, tests, strict=True) if test == (part == "test")]
    if not examples:
        raise NotReady(f"no files for the part {part!r} below {root}")
    return examples


def stamp(root: Path, examples: Sequence[Example]) -> str:
    """SHA-256 over the paths, sizes and times of files: equal where nothing about them has changed."""
    digest = hashlib.sha256(os.fsencode(root.resolve()))
    for example in examples:
        try:
            status = (root / example.path).stat()
            digest.update(f"\n{example.shown}\t{status.st_size}\t{status.st_mtime_ns}\t{status.st_ctime_ns}".encode())
        except OSError:
            digest.update(f"\n{example.shown}\tgone".encode())
    return digest.hexdigest()


def is_test_file(path: Path) -> bool:
    """Whether the hashed split puts a file into the test part; one that cannot be read goes to the training part."""
    try:
        return int(sha256_of(path), 16) % TEST_SHARE == 0
    except OSError:
        return False


def read_photographs(root: Path, examples: Sequence[Example], limits: ImageLimits) -> Iterator[ReadResult]:
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


def _walk(root: Path) -> Iterator[Example]:
    lineage: dict[str, frozenset[tuple[int, int]]] = {}
    for folder, folders, files in os.walk(root, onerror=_refuse, followlinks=True):
        status = Path(folder).stat()
        above = lineage.get(os.path.dirname(folder), frozenset())  # noqa: PTH120
        if (status.st_dev, status.st_ino) in above:  # a link back to a folder above it
            folders.clear()
            continue
        lineage[folder] = above | {(status.st_dev, status.st_ino)}
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        relative = Path(folder).relative_to(root)
        for name in files:
            if not name.startswith(".") and (Path(folder) / name).is_file():
                yield Example((relative / name).as_posix(), relative.parts[0] if relative.parts else "")


def _refuse(error: OSError) -> None:
    raise NotReady(f"{error.filename} cannot be read: {error.strerror}; make it readable, or move it out of the data set")


def _below_part(example: Example) -> Example:
    parts = example.path.split("/")
    return Example(example.path, parts[1] if len(parts) > 2 else "")
