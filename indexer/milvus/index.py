"""An index whose items lie in Milvus: the index folder keeps what describes them, the collection everything else."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Final, Self
from uuid import uuid4

import numpy as np

from indexer.codes import autoencoder
from indexer.features import FeatureBlock
from indexer.milvus import connection
from indexer.milvus.collection import Collection, State
from indexer.milvus.store import MilvusStore
from indexer.storage import artifact
from indexer.storage.artifact import Manifest, MilvusRecord
from indexer.storage.originals import forget_uploads
from indexer.storage.segment import Segment, open_segment
from training.errors import Mismatch
from training.images.preprocess import ImageLimits
from training.program import progress

_BATCH: Final = 256  # rows sent at once
_OWN: Final = ("id", "root", "thumbnail_start")  # what a store gives an item


class MilvusIndex(MilvusStore):
    """A collection, and the index folder's version that describes it."""

    folder: Path
    manifest: Manifest

    def remove(self, ids: Sequence[int]) -> Self:
        """See Store.remove; files of theirs that came over HTTP are deleted."""
        items = self.items(ids)
        store = super().remove(ids)
        forget_uploads(self.folder.parents[1], items)
        return store

    def _with(self, state: State) -> Self:
        store = super()._with(state)
        store.folder, store.manifest = self.folder, self.manifest
        return store


def open_remote(folder: Path, manifest: Manifest, record: MilvusRecord) -> MilvusIndex:
    """Opens the collection that a version's manifest names. Raises NotReady, Busy or Mismatch; see MilvusStore.open."""
    encoder = autoencoder.load(folder / artifact.AUTOENCODER)
    limits = ImageLimits.model_validate(manifest.limits)
    length = manifest.shortlist.length if manifest.shortlist else 0
    store = MilvusIndex.open(record.uri, record.collection, encoder, manifest.fingerprint, limits, length)
    store.folder, store.manifest = folder, manifest
    return store


def move(partial: Path, uri: str, root: Path, model: str, width: int, limits: ImageLimits) -> MilvusRecord:
    """Puts the first segment of a version that is being written into a new collection, and deletes it here."""
    encoder = autoencoder.load(partial / artifact.AUTOENCODER)
    name = f"fc7_{uuid4().hex[:16]}"
    store = MilvusStore.create(uri, name, width, encoder, model, limits)
    address = store.address
    try:
        segment = open_segment(partial / "0", width, 0, 0, 0)
        store.fill(progress(_shards(segment), -(-len(segment) // _BATCH), "into Milvus", "batches"), root)
        segment.catalog.close()
    except BaseException:
        store.drop()
        raise
    finally:
        store.close()
    shutil.rmtree(partial / "0")
    return MilvusRecord(uri=address, collection=name)


def collections(index: Path) -> dict[Path, MilvusRecord]:
    """The collections that the versions of an index are described by, by the versions' folders."""
    found = {}
    for path in (index / "versions").glob(f"[0-9]*/{artifact.MANIFEST}"):
        with suppress(Mismatch):  # of another format, or damaged
            if record := artifact.read_manifest(path.parent).milvus:
                found[path.parent] = record
    return found


def drop_unused(before: dict[Path, MilvusRecord]) -> None:
    """Drops those of `collections` whose versions are there no more."""
    for folder, record in before.items():
        if not folder.exists():
            with connection.connected(connection.parse(record.uri)) as opened:
                Collection(opened, record.collection).drop()


def _shards(segment: Segment) -> Iterator[FeatureBlock]:
    for start in range(0, len(segment), _BATCH):
        ids = segment.ids_N[start : start + _BATCH].tolist()
        found = segment.catalog.items(ids)
        fields = [{name: value for name, value in asdict(found[item]).items() if name not in _OWN} for item in ids]
        thumbnails = b"".join(segment.thumbnail(found[item]) for item in ids)
        yield FeatureBlock(np.array(segment.vectors_ND[start : start + _BATCH]), None, fields, thumbnails, [])
