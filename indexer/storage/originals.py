"""The files that the items of an index were made from."""

from collections.abc import Iterable
from pathlib import Path

from indexer.storage import artifact
from indexer.store import Item
from training.errors import FC7Error
from training.images import shards
from training.images.folders import read_bytes
from training.images.preprocess import ImageLimits


def read_original(item: Item, limits: ImageLimits) -> Path | bytes | None:
    """The item's own file, or its bytes where it lies in a tar file.

    None where it is gone or its path would lead out of its root.
    """
    root = Path(item.root).resolve()
    member = shards.split(root, item.path)
    file = (member[0] if member else root / item.path).resolve()
    if not file.is_relative_to(root) or not file.is_file():
        return None
    if member is None:
        return file
    try:
        return read_bytes(root, item.path, limits)
    except (OSError, FC7Error):
        return None


def forget_uploads(index: Path, items: Iterable[Item]) -> None:
    """Deletes the files of items that came over HTTP."""
    uploads = (index / artifact.UPLOADS).resolve()
    for item in items:
        if Path(item.root) == uploads:
            (uploads / item.path).unlink(missing_ok=True)
