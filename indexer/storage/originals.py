"""The files that the items of an index were made from.

What a catalogue says of them is not trusted. A path leads nowhere but below the folders that the manifest names and the index's
own uploads; a file is given only while its size and SHA-256 are the item's; and only names that this program makes are deleted.
"""

import hashlib
import os
import re
from collections import OrderedDict
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Final

from indexer.storage import artifact
from indexer.storage.artifact import RejectRecord
from indexer.store import Item, Store
from training.errors import FC7Error
from training.files import sha256_of
from training.images import shards
from training.images.folders import read_bytes
from training.images.preprocess import ImageLimits

_UPLOAD: Final = re.compile(r"[0-9a-f]{64}\.[a-z0-9]{1,8}")  # <SHA-256>.<format>
_UNFINISHED: Final = re.compile(rf"\.{_UPLOAD.pattern}\.partial")
_KNOWN: Final = 4096  # files whose hashes are remembered
_State = tuple[str, int, int, int, int]


def recorded_root(index: Path, root: Path) -> str:
    """How an item says which folder its path is below: as `uploads`, which moves with the index, or absolute."""
    folder = root.resolve()
    return artifact.UPLOADS if folder == (index / artifact.UPLOADS).resolve() else str(folder)


def folder_of(index: Path, root: str) -> Path:
    """The folder that an item's path is below."""
    return index / artifact.UPLOADS if root == artifact.UPLOADS else Path(root)


def read_original(index: Path, sources: Collection[str] | None, item: Item, limits: ImageLimits) -> Path | bytes | None:
    """The item's own file, or its bytes where it lies in a tar file; `sources` are the folders it may be below, None for any.

    None where it is gone, has become another file, or would lie elsewhere. Links below a source are followed, as they were when
    the file was indexed.
    """
    if item.root != artifact.UPLOADS and sources is not None and item.root not in sources:
        return None
    if not _is_below(item.path) or (item.root == artifact.UPLOADS and not _UPLOAD.fullmatch(item.path)):
        return None
    root = folder_of(index, item.root)
    try:
        if shards.split(root, item.path) is None:
            file = root / item.path
            is_upload_link = item.root == artifact.UPLOADS and file.is_symlink()
            return file.resolve() if not is_upload_link and _hashes.are(file, item) else None
        data = read_bytes(root, item.path, limits)
    except (OSError, FC7Error, ValueError):
        return None
    return data if len(data) == item.size and hashlib.sha256(data).hexdigest() == item.sha256 else None


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
