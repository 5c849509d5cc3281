"""Splits: which photographs take part in an evaluation, named by their content. A file of SHA-256, one a line, in order."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from pydantic import BaseModel

from training.errors import FC7Error, Mismatch, NotReady
from training.files import write_bytes
from training.images.folders import Examples, read_bytes
from training.images.preprocess import ImageLimits
from training.program import progress

_SHA256: Final = re.compile("[0-9a-f]{64}")


class Split(BaseModel):
    """A split file: whoever has one with the same SHA-256 has the same photographs."""

    file: str
    photographs: int
    sha256: str  # of the file


def write_split(path: Path, sha256s: Iterable[str]) -> Split:
    """Writes the SHA-256 of photographs, each once, in order."""
    lines = sorted(set(sha256s))
    data = "".join(f"{line}\n" for line in lines).encode()
    write_bytes(path, data)
    return Split(file=path.name, photographs=len(lines), sha256=hashlib.sha256(data).hexdigest())


def read_split(path: Path) -> set[str]:
    """The SHA-256 that a file lists. Raises NotReady where there is no such file, Mismatch where it is something else."""
    try:
        lines = path.read_text("ascii").split()
    except FileNotFoundError as error:
        raise NotReady(f"no split at {path}; `python -m indexer.evaluate` writes the ones that it used") from error
    except UnicodeDecodeError as error:
        raise Mismatch(f"{path} is not a file of SHA-256, one a line") from error
    wrong = next((line for line in lines if not _SHA256.fullmatch(line)), None)
    if wrong is not None or not lines:
        raise Mismatch(f"{path} is not a file of SHA-256, one a line: it has {wrong!r}" if wrong else f"{path} is empty")
    return set(lines)


def select(root: Path, examples: Examples, wanted: set[str], limits: ImageLimits) -> Examples:
    """Those of the examples whose bytes have one of these hashes, of copies the first. Raises NotReady where one is missing."""
    missing, positions = set(wanted), []
    for position, example in enumerate(progress(examples, len(examples), "looking for the split")):
        try:
            sha256 = hashlib.sha256(read_bytes(root, example.path, limits)).hexdigest()
        except (OSError, FC7Error):
            continue
        if sha256 in missing:
            missing.remove(sha256)
            positions.append(position)
    if missing:
        raise NotReady(f"{len(missing)} of the split's {len(wanted)} photographs are not below {root}, as {min(missing)}")
    return examples.take(np.array(positions, np.int64))


def check_same(path: Path, sha256s: Sequence[str]) -> None:
    """Raises Mismatch unless the split lists exactly these photographs, which the index holds."""
    wanted, indexed = read_split(path), set(sha256s)
    if wanted != indexed:
        raise Mismatch(
            f"{path} lists {len(wanted)} photographs, of which the index holds {len(wanted & indexed)}, "
            f"and {len(indexed - wanted)} others; it must hold exactly these"
        )
