"""Writing files so that a power cut leaves the old one or the new one, hashing them, and holding folders for one writer.

And what a name may be, a file's, a folder's or a class's: text without control characters. All else that Unicode has is
somebody's spelling; what would change how a line is shown is written as an escape where it is printed, and nowhere else.
"""

import errno
import fcntl
import hashlib
import os
import re
import secrets
import stat
import sys
import time
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from training.errors import Busy, FC7Error, Mismatch

PATIENCE_S: Final = 60.0  # of a command, for the folder that it writes to
_TOKEN: Final = 8  # hexadecimal digits in the name of a file that is being written
PARTIAL: Final = rf"\.[0-9a-f]{{{_TOKEN}}}\.partial"  # how such a name ends, after the file's own, as a regular expression
_LOOK_S: Final = 0.02  # between two looks at a lock that is held
_NO_TEXT: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # category Cc, and bytes that are not UTF-8
_ESCAPED: Final = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))  # controls, format and direction marks, surrogates, ends of lines
Record = TypeVar("Record", bound=BaseModel)


def is_text(name: str) -> bool:
    """Whether a name is text in one line: without control characters and without bytes that are not UTF-8."""
    return not _NO_TEXT.search(name)


def printable(text: str) -> str:
    """A text as one line that a terminal or a log shows as it is: what acts on the line and is not seen becomes an escape."""
    if text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode() if unicodedata.category(character) in _ESCAPED else character
        for character in text
    )


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary path to write to; on success it is flushed to disk and takes the name `path` in one step.

    The path is this call's alone: of several that write one file at once, each writes all of it, and the last to end stays.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(_TOKEN // 2)}.partial")
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file in one step; see `replacing`."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Writes a file of UTF-8 in one step; see `replacing`."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Writes a safetensors file in one step. Raises FC7Error, naming the file, where the disk does not take it."""
    try:
        with replacing(path) as temporary:
            temporary.touch()
            readable = temporary.stat().st_mode  # save_file makes files for their owner alone
            save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, temporary, metadata)
            temporary.chmod(readable)
    except SafetensorError as error:
        raise FC7Error(f"{path} cannot be written: {error}") from error


@contextmanager
def exclusively(folder: Path, patience_s: float = 0.0) -> Iterator[None]:
    """Makes `folder` and holds it for writing. Raises Busy where another process does, at once or when patience is at an end.

    Whoever waits takes `.turn` first and keeps it until `.lock` is free: nobody who comes later, and would take `.lock` in the
    moment between two writers, gets before them. Raises Mismatch where one of the two is not a file but a link, say.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _opened_lock(folder / ".lock") as lock:
        with _opened_lock(folder / ".turn") as turn:
            if not _taken((turn, lock), folder, patience_s):
                waited = f" after {patience_s:.0f} s" if patience_s else ""
                raise Busy(f"another process is writing to {folder}{waited}; wait until it is done")
        yield


def patiently(folder: Path) -> AbstractContextManager[None]:
    """`exclusively` for a command: waits PATIENCE_S for its turn."""
    return exclusively(folder, PATIENCE_S)


@contextmanager
def _opened_lock(path: Path) -> Iterator[int]:
    """A file to lock, made where there is none, its contents left alone; the lock goes when it is closed."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise Mismatch(f"{path} is not a file of ours, which locks its folder; remove it") from error
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Mismatch(f"{path} is not a file of ours, which locks its folder; remove it")
        yield descriptor
    finally:
        os.close(descriptor)


def _taken(locks: tuple[int, ...], folder: Path, patience_s: float) -> bool:
    """Takes one lock after the other; whether all were free in time."""
    end, told = time.monotonic() + patience_s, not patience_s
    for descriptor in locks:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    return False
            if not told:
                print(f"another process is writing to {folder}; waiting up to {patience_s:.0f} s", file=sys.stderr, flush=True)
                told = True
            time.sleep(_LOOK_S)
    return True


def read_record(path: Path, kind: type[Record], most_bytes: int, absent: FC7Error, remedy: str) -> Record:
    """A JSON file that a command wrote, checked; `remedy` is that command.

    Raises `absent` where there is none, Mismatch where it is larger, damaged, or of another format.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > most_bytes:
            raise Mismatch(f"{path} is not a file of at most {most_bytes} bytes; remove it, and {remedy} writes it anew")
        return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise absent from error
    except OSError as error:
        raise Mismatch(f"{path} cannot be read: {error.strerror}; {remedy} writes it anew") from error
    except ValidationError as error:
        raise Mismatch(f"{path} is damaged, or of another program: {first_of(error)}; {remedy} writes it anew") from error


def first_of(error: ValidationError) -> str:
    """The first field that is wrong, and what is."""
    first = error.errors()[0]
    return " ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))


def sync(path: Path) -> None:
    """Flushes a file or a folder's entries to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path, start: int = 0, size: int | None = None) -> str:
    """SHA-256 of a file's bytes, or of `size` of them from `start` on; hexadecimal."""
    with path.open("rb") as file:
        if size is None:
            return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha256()
        file.seek(start)
        while size and (block := file.read(min(size, 2**20))):
            digest.update(block)
            size -= len(block)
        return digest.hexdigest()


def verify(path: Path, size: int, sha256: str, described_by: str) -> None:
    """Raises Mismatch where a file is not the one that `described_by` records: by its bytes first, then by its SHA-256."""
    there = path.stat().st_size if path.is_file() else 0
    if there != size:
        raise Mismatch(f"{path} has {there} bytes, {described_by} says {size}")
    if sha256_of(path) != sha256:
        raise Mismatch(f"{path} is not the file that {described_by} describes: its SHA-256 differs")
