"""Photographs in tar files, as WebDataset lays them out: found by one scan of the headers, read by position, never extracted.

A sample is the members of one key, which is a member's name up to the first dot of its last part: `7.jpg` and its class in
`7.cls` (a number or a name), in `7.json` under "label", "cls" or "class", or in `7.txt`. Without these, a shard is read as a
folder is (training/images/folders.py). Links and other special members are no photographs, and no name leads anywhere but to a
position in its own shard.

Legend: N images.
"""

import json
import os
import posixpath
import re
import tarfile
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from training.errors import BadImage, FC7Error, NotFound
from training.files import is_text
from training.images.packed import PackedStrings
from training.images.preprocess import FORMATS

CLASSES: Final = "classes.txt"
_IMAGES: Final = frozenset(ending for endings in FORMATS.values() for ending in endings)
_LABELS: Final = ("cls", "json", "txt")
_FIELDS: Final = ("label", "cls", "class")
# folders and files that Synology, QNAP, Windows, macOS and Linux keep for themselves among somebody's photographs
_SYSTEM_NAMES: Final = frozenset(
    (
        *("@eadir", "@__thumb", ".@__thumb", "@recycle", "@recently-snapshot", "@sharebin", "@tmp", "#recycle", "#snapshot"),
        *("$recycle.bin", "recycler", "recycled", "system volume information", "thumbs.db", "ehthumbs.db", "desktop.ini"),
        *("__macosx", "network trash folder", "temporary items", ".trashes", ".trash", "icon\r", "lost+found"),
    )
)
_SYSTEM_PATTERN: Final = re.compile(r"\.trash-\d+|found\.\d{3}")
_LONGEST_LABEL: Final = 2**16  # bytes of a member that names a class


@dataclass(frozen=True)
class Shard:
    """What lies where in one tar file."""

    names: PackedStrings  # N, sorted
    offsets_N: NDArray[np.int64]  # bytes from the shard's start
    sizes_N: NDArray[np.int64]  # bytes
    labels: PackedStrings  # N; "" where the shard says nothing
    defect: str  # why some of it cannot be used, "" where all can


def is_shard_name(name: str) -> bool:
    """Whether a file of this name is read as a shard."""
    return name.lower().endswith(".tar")


def is_kept_by_systems(name: str) -> bool:
    """Whether a file or a folder of this name is an operating system's or a program's own, and nobody's class."""
    return name.lower() in _SYSTEM_NAMES or bool(_SYSTEM_PATTERN.fullmatch(name.lower()))


def scan(path: Path) -> Shard:
    """The images of one shard; scanned again only where the file's size or time has changed. Raises OSError."""
    status = path.stat()
    return _scan(path, status.st_size, status.st_mtime_ns)


def split(root: Path, path: str) -> tuple[Path, str] | None:
    """The shard's file and the member's name, of a path through a shard below `root`; None for the path of an ordinary file.

    The member of a shard's own path is "".
    """
    for ending in re.finditer(r"\.tar(/|$)", path, re.IGNORECASE):
        file = root / path[: ending.start(1)]
        if file.is_file():
            return file, path[ending.end() :]
    return None


def locate(file: Path, member: str) -> tuple[int, int]:
    """Where a member's bytes begin, and how many they are.

    Raises NotFound where the shard has no such image, BadImage for the shard itself.
    """
    shard = scan(file)
    if not member:
        raise BadImage(shard.defect or "is a shard, not a photograph")
    i = _position(shard.names, member)
    if i is None:
        raise NotFound(f"{file.name} has no image {member}")
    return int(shard.offsets_N[i]), int(shard.sizes_N[i])


def class_names(folder: Path) -> list[str]:
    """The classes that numbers stand for in the shards of a folder, a line each from number 0 on; none where it has no list."""
    try:
        return (folder / CLASSES).read_text("utf-8").splitlines()
    except FileNotFoundError:
        return []
    except UnicodeDecodeError as error:
        raise FC7Error(f"{folder / CLASSES} is not UTF-8 text: {error}") from error


def name_of_class(label: str, names: list[str], shard: Path) -> str:
    """A label with its number, if it is one, replaced by the name. Raises FC7Error for a number without a name."""
    if not names or not label.isdecimal():
        return label
    if int(label) >= len(names):
        raise FC7Error(f"{shard} has a photograph of class number {label}; {shard.parent / CLASSES} names {len(names)}, from 0")
    return names[int(label)]


@cache
def _scan(path: Path, _size: int, _mtime_ns: int) -> Shard:
    images: dict[str, tuple[int, int]] = {}
    labels: dict[str, tuple[int, str]] = {}
    with path.open("rb") as file:
        defect = _read_members(file, images, labels)
    names, samples = [], set[str]()
    for name in sorted(images):
        key = _key(name)
        if key in samples:  # the key's photograph is there; what else it has are masks and the like
            continue
        names.append(name)
        if key in labels:
            samples.add(key)
    spans_N2 = np.array([images[name] for name in names], np.int64).reshape(-1, 2)
    return Shard(
        PackedStrings(names),
        spans_N2[:, 0].copy(),
        spans_N2[:, 1].copy(),
        PackedStrings(labels[key][1] if (key := _key(name)) in labels else "" for name in names),
        defect,
    )


def _read_members(file: BinaryIO, images: dict[str, tuple[int, int]], labels: dict[str, tuple[int, str]]) -> str:
    """Fills name -> (offset, size) and key -> (rank, class), as far as the file can be read; returns what is wrong with it."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    outside = kept = unread = 0
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in _members(tar):
                name = posixpath.normpath(member.name)
                extension = name.rsplit(".", 1)[-1].lower()
                hidden = re.search(r"(^|/)\.[^./]", name)
                if hidden or not member.isreg() or member.issparse() or extension not in (*_IMAGES, *_LABELS):
                    continue
                if name.startswith(("/", "../")):
                    outside += 1
                elif any(map(is_kept_by_systems, name.split("/"))):
                    kept += 1
                elif member.offset_data + member.size > size:
                    return f"is cut short: it ends within {member.name!r}; {len(images)} images before it are used"
                elif extension in _IMAGES:
                    images[name] = member.offset_data, member.size
                elif member.size <= _LONGEST_LABEL:
                    rank, key = _LABELS.index(extension), _key(name)
                    file.seek(member.offset_data)
                    label = _label(extension, file.read(member.size))
                    unread += extension == "cls" and not label
                    if label and rank <= labels.get(key, (rank, ""))[0]:
                        labels[key] = rank, label
            file.seek(tar.offset)
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                return f"is damaged or cut short at byte {tar.offset}; {len(images)} images before it are used"
    except Exception as error:  # damaged headers make tarfile raise almost anything
        return f"is damaged, or no tar file: {error}; {len(images)} images before it are used"
    defects = {
        "members are left out: their names lead out of the shard": outside,
        "members are left out: they are kept by a system or a program for itself": kept,
        "members that end in .cls name no class: they are not one line of text": unread,
    }
    return "; ".join(f"{count} {defect}" for defect, count in defects.items() if count)


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (member := tar.next()) is not None:
        yield member
        tar.members = []  # type: ignore[attr-defined]  # else it would hold all of them


def _label(extension: str, data: bytes) -> str:
    """The class that a member names, one line of text; "" where it names none."""
    try:
        text = data.decode("utf-8").strip()
        if extension == "json":
            fields = json.loads(text)
            values = [fields[name] for name in _FIELDS if isinstance(fields, dict) and name in fields]
            text = str(values[0]).strip() if values and isinstance(values[0], int | str) else ""
    except (ValueError, RecursionError):
        return ""
    return text if is_text(text) else ""


def _key(name: str) -> str:
    folder, base = posixpath.split(name)
    return posixpath.join(folder, base.split(".", 1)[0])


def _position(names: PackedStrings, name: str) -> int | None:
    i = bisect_left(names, name)
    return i if i < len(names) and names[i] == name else None
