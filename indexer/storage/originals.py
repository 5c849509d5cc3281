"""The files that the items of an index were made from.

What a catalogue says of them is not trusted. A path leads nowhere but below the folders that the manifest names, among them those
that links led to when it was made, and below the index's own uploads. A file is given only while its size and SHA-256 are the
item's, and only names that this program makes are deleted.
"""

import hashlib
import os
import re
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Final

from indexer.storage import artifact
from indexer.storage.artifact import Manifest, RejectRecord
from indexer.store import Item, Store
from training.errors import FC7Error, Gone, NotFound
from training.files import PARTIAL, is_text, printable, sha256_of
from training.images import shards
from training.images.folders import read_bytes
from training.images.preprocess import ImageLimits

_UPLOAD: Final = re.compile(r"[0-9a-f]{64}\.[a-z0-9]{1,8}")  # <SHA-256>.<format>
_UNFINISHED: Final = re.compile(rf"\.{_UPLOAD.pattern}{PARTIAL}")
_KNOWN: Final = 4096  # files whose hashes are remembered
_State = tuple[str, int, int, int, int]


def recorded_root(index: Path, root: Path) -> str:
    """How an item says which folder its path is below: as `uploads`, which moves with the index, or absolute."""
    folder = root.resolve()
    return artifact.UPLOADS if folder == (index / artifact.UPLOADS).resolve() else str(folder)


def folder_of(index: Path, root: str) -> Path:
    """The folder that an item's path is below."""
    return index / artifact.UPLOADS if root == artifact.UPLOADS else Path(root)


class SourceFolders:
    """Where the files of items lie, as the manifest says it: in the sources, and in the folders that links below them lead to."""

    def __init__(self, sources: Iterable[str] = (), linked: Iterable[str] = ()) -> None:
        """Begins with those of a version that this one follows."""
        self.sources, self.linked = list(sources), list(linked)
        self._folder = self._real_folder = ""  # the last one looked at

    def take(self, root: str, paths: Iterable[str]) -> None:
        """Notes where files below a folder, as `recorded_root` gives it, really lie. Raises FC7Error where that is all over."""
        if root == artifact.UPLOADS:
            return
        if root not in self.sources:
            self.sources.append(root)
        for path in paths:
            within = shards.split(Path(root), path)
            folder = self._folder_of(str(within[0]) if within else f"{root}/{path}")
            if not _lies_below(folder, (root, *self.linked)):
                self.linked = _gathered(_with(folder, self.linked))

    def _folder_of(self, file: str) -> str:
        """The folder that a file really lies in; of the files of one folder, which follow each other, only links cost much."""
        if os.path.islink(file):  # noqa: PTH114  for each of a million files
            real = os.path.realpath(file)
            folder = os.path.dirname(real)  # noqa: PTH120
            return real if folder == "/" else folder
        folder = os.path.dirname(file)  # noqa: PTH120
        if folder != self._folder:
            self._folder, self._real_folder = folder, os.path.realpath(folder)
        return self._real_folder


def _gathered(folders: list[str]) -> list[str]:
    """No more than MOST_LINKED folders that these lie in: where they are more, the deepest give way to those above them."""
    while len(folders) > artifact.MOST_LINKED or not all(map(is_text, folders)):
        deepest = max(folders, key=lambda folder: (not is_text(folder), folder.count("/")))
        above = os.path.dirname(deepest)  # noqa: PTH120
        if above == "/":
            raise FC7Error(
                f"links lead to photographs in {printable(deepest)}, and a manifest names up to {artifact.MOST_LINKED} folders "
                "that links lead to, in UTF-8 and never /; index those folders themselves"
            )
        folders = _with(above, folders)
    return folders


def _with(above: str, folders: Iterable[str]) -> list[str]:
    """These folders and another, without those that lie in it."""
    return [*(folder for folder in folders if not _lies_below(folder, (above,))), above]


def _lies_below(path: str, folders: Iterable[str]) -> bool:
    return any(path == folder or path.startswith(f"{folder.rstrip('/')}/") for folder in folders)


def read_original(index: Path, manifest: Manifest | None, item: Item, limits: ImageLimits) -> Path | bytes:
    """The item's own file, or its bytes where it lies in a tar file; it may lie where the manifest says, None for anywhere.

    Links below a source are followed to where they led when the file was indexed. Raises NotFound for a file that is gone or
    would lie elsewhere, Gone for one that has become another.
    """
    if item.root != artifact.UPLOADS and manifest is not None and item.root not in manifest.sources:
        raise _outside(item)
    if not _is_below(item.path) or (item.root == artifact.UPLOADS and not _UPLOAD.fullmatch(item.path)):
        raise _outside(item)
    root = folder_of(index, item.root)
    try:
        within = shards.split(root, item.path)
        file = Path(os.path.realpath(within[0] if within else root / item.path, strict=True))
        if not _may_be_given(file, root, manifest, item):
            raise _outside(item)
        data = _member(root, item, limits) if within else None
        is_same = _hashes.are(file, item) if data is None else _are_of(data, item)
    except (OSError, ValueError) as error:
        raise missing(item) from error
    if not is_same:
        raise Gone(f"{_name(item)} has become another since it was indexed; its thumbnail shows what it was")
    return file if data is None else data


def missing(item: Item) -> NotFound:
    """The error for an item whose file cannot be read."""
    return NotFound(f"{_name(item)} is gone, or cannot be read; its thumbnail is still there")


def _outside(item: Item) -> NotFound:
    return NotFound(f"{_name(item)} leads out of the folders that the index was made from; its thumbnail is still there")


def _name(item: Item) -> str:
    return f"{printable(item.path)}, the file of item {item.id},"


def _may_be_given(file: Path, root: Path, manifest: Manifest | None, item: Item) -> bool:
    """Whether an item's file lies where it may, links followed; an upload is never one."""
    if item.root == artifact.UPLOADS:
        return str(file) == f"{os.path.realpath(root)}/{item.path}"
    return manifest is None or _lies_below(str(file), (*map(os.path.realpath, manifest.sources), *manifest.linked))


def _member(root: Path, item: Item, limits: ImageLimits) -> bytes:
    """The bytes of an item in a tar file. Raises OSError, and NotFound where the tar file has no such member any more."""
    try:
        return read_bytes(root, item.path, limits)
    except FC7Error as error:
        raise missing(item) from error


def _are_of(data: bytes, item: Item) -> bool:
    return len(data) == item.size and hashlib.sha256(data).hexdigest() == item.sha256


def forget_uploads(index: Path, items: Iterable[Item]) -> None:
    """Deletes what came over HTTP of items: their files, and uploads of the same bytes that a build rejected as their copies."""
    uploads = index / artifact.UPLOADS
    is_shared = uploads.is_symlink()  # then a copy may be another index's
    for item in items:
        names = set() if is_shared else {f"{item.sha256}.{item.format.lower()}"}
        if item.root == artifact.UPLOADS:
            names.add(item.path)
        for name in names:
            if _UPLOAD.fullmatch(name):
                (uploads / name).unlink(missing_ok=True)


def uploads_of(index: Path, store: Store) -> list[Item]:
    """The items whose files came over HTTP, in order of id."""
    known = store.holding(_names(index, _UPLOAD).values())
    return [item for item in store.items(sorted(known.values())) if item.root == artifact.UPLOADS]


def count_uploads(index: Path) -> int:
    """Files that came over HTTP, whether or not an item names them."""
    return len(_names(index, _UPLOAD))


def sweep_uploads(index: Path, store: Store, rejects: Iterable[RejectRecord]) -> None:
    """Deletes uploaded files that are no item's and no reject either, as a service leaves them that is killed while it adds.

    `store` is the newest version, and the index must be held. What cannot be deleted stays for the next time.
    """
    uploads = index / artifact.UPLOADS
    if uploads.is_symlink():  # a folder that others may have too
        return
    names = _names(index, _UPLOAD)
    known = store.holding(names.values())
    kept = {reject.path for reject in rejects if reject.folder == artifact.UPLOADS}
    unknown = [name for name, sha256 in names.items() if sha256 not in known and name not in kept]
    for name in [*unknown, *_names(index, _UNFINISHED)]:
        with suppress(OSError):
            (uploads / name).unlink()


def _names(index: Path, pattern: re.Pattern[str]) -> dict[str, str]:
    """The files among the uploads that have names of a kind, with the SHA-256 in them."""
    try:
        names = sorted(os.listdir(index / artifact.UPLOADS))  # noqa: PTH208
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return {name: name.lstrip(".")[:64] for name in names if pattern.fullmatch(name)}


def _is_below(path: str) -> bool:
    return not path.startswith("/") and "\0" not in path and not {"", ".", ".."} & set(path.split("/"))


class _Hashes:
    """Remembers the SHA-256 of files that were given lately, as long as size, times and place on the disk are the same."""

    def __init__(self) -> None:
        self._known: OrderedDict[_State, str] = OrderedDict()
        self._lock = Lock()

    def are(self, file: Path, item: Item) -> bool:
        """Whether a file is the one that the item was made from. Raises OSError."""
        status = file.stat()
        if status.st_size != item.size or not file.is_file():
            return False
        state = (str(file), status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
        with self._lock:
            sha256 = self._known.get(state)
        if sha256 is None:
            sha256 = sha256_of(file)
            with self._lock:
                self._known[state] = sha256
                while len(self._known) > _KNOWN:
                    self._known.popitem(last=False)
        return sha256 == item.sha256


_hashes: Final = _Hashes()
