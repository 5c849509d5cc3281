"""Writing files so that a power cut leaves the old one or the new one, hashing them, and holding folders for one writer.

And what a name may be, a file's, a folder's or a class's: text without control characters. All else that Unicode has is
somebody's spelling; what would change how a line is shown is written as an escape where it is printed, and nowhere else.
"""

import fcntl
import hashlib
import os
import re
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from training.errors import Busy, FC7Error, Mismatch

_NO_TEXT: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # category Cc, and bytes that are not UTF-8
_ESCAPED: Final = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))  # controls, format and direction marks, surrogates, ends of lines


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
    """Gives a temporary path to write to; on success it is flushed to disk and takes the name `path` in one step."""
    temporary = path.with_name(f".{path.name}.partial")
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


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
def exclusively(folder: Path) -> Iterator[None]:
    """Makes `folder` and holds it for writing. Raises Busy at once where another process does."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Busy(f"another process is writing to {folder}; wait until it is done") from error
        yield


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
