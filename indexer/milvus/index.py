"""An index whose items lie in Milvus: the index folder keeps what describes them, the collection everything else."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self
from uuid import uuid4

from indexer.codes.autoencoder import Autoencoder
from indexer.features import FeatureBlock
from indexer.metric import Metric
from indexer.milvus import connection
from indexer.milvus.collection import Collection, State
from indexer.milvus.store import MilvusStore
from indexer.storage import artifact
from indexer.storage.artifact import Manifest, MilvusRecord
from indexer.storage.atlas import Atlas
from indexer.storage.draft import Draft
from indexer.storage.originals import forget_uploads, sweep_uploads
from indexer.storage.rejects import Rejects
from indexer.storage.version import load_atlas, load_autoencoder
from training.errors import Mismatch
from training.images.preprocess import ImageLimits


class MilvusIndex(MilvusStore):
    """A collection, and the index folder's version that describes it."""

    folder: Path
    manifest: Manifest
    version = None  # no rows are on disk
    atlas: Atlas | None  # what excites each unit most, as of the build
    _is_swept = False  # whether a process before this one may have left uploads that no item names

    def remove(self, ids: Sequence[int]) -> Self:
        """See Store.remove; files of theirs that came over HTTP are deleted, and their copies are no rejects any more."""
        items = self.items(ids)
        rejects = Rejects(self._index_folder, artifact.reject_records(self.folder))
        rejects.forget_copies({item.sha256 for item in items})
        store = super().remove(ids)
        store._publish(rejects)
        forget_uploads(self._index_folder, items)
        return store._swept()

    def add(self, feature_blocks: Iterable[FeatureBlock], root: Path) -> tuple[Self, list[int]]:
        """See Store.add; what is a reject of the index then is told by its version on disk."""
        rejects = Rejects(self._index_folder, artifact.reject_records(self.folder))

        def noted() -> Iterator[FeatureBlock]:
            for block in feature_blocks:
                rejects.take(block, root)
                yield block

        store, ids = super().add(noted(), root)
        if store is self:
            store = self._with(self._state)
        store._publish(rejects)
        return store._swept(), ids

    def renewed(self) -> Self:
        """The collection as it is now, by the current version. Raises Mismatch where that has its items elsewhere."""
        folder = artifact.current(self._index_folder)
        manifest = artifact.read_manifest(folder)
        if manifest.milvus != self.manifest.milvus:
            raise Mismatch(f"the items of {folder} are elsewhere than those of {self.folder}; open the index anew")
        store = super().renewed()
        if folder != self.folder:
            artifact.verify_files(folder, manifest, contents=True)
            store.folder, store.manifest, store.atlas = folder, manifest, load_atlas(folder, manifest)
        return store

    def _publish(self, rejects: Rejects) -> None:
        """Makes a version with these rejects current where the one at hand has others; the collection stays the same."""
        records = rejects.records
        if records == artifact.reject_records(self.folder):
            return
        before, draft = collections(self._index_folder), Draft(self._index_folder)
        draft.take_over(self, 0, without={artifact.REJECTS})
        draft.write_rejects(records)
        draft.publish(self.manifest.model_copy(update={"rejected": len(records)}))
        self.folder = artifact.current(self._index_folder)
        self.manifest = artifact.read_manifest(self.folder)
        drop_unused(self._index_folder, before)

    def _swept(self) -> Self:
        if not self._is_swept:
            sweep_uploads(self._index_folder, self, artifact.reject_records(self.folder))
            self._is_swept = True
        return self

    def _with(self, state: State) -> Self:
        store = super()._with(state)
        store.folder, store.manifest, store.atlas = self.folder, self.manifest, self.atlas
        store._is_swept = self._is_swept
        return store


def open_milvus_index(folder: Path, manifest: Manifest, record: MilvusRecord) -> MilvusIndex:
    """Opens the collection that a version's manifest names. Raises NotReady, Busy or Mismatch; see MilvusStore.open."""
    encoder = load_autoencoder(folder, manifest)
    length = manifest.shortlist.length if manifest.shortlist else 0
    address = connection.parse_recorded(record.uri)
    store = MilvusIndex.open(address, record.collection, encoder, manifest.fingerprint, manifest.limits, length, manifest.metric)
    store.folder, store.manifest, store._index_folder = folder, manifest, folder.parents[1]
    store.atlas = load_atlas(folder, manifest)
    return store


@contextmanager
def new_collection(
    uri: str, encoder: Autoencoder, fingerprint: str, limits: ImageLimits, metric: Metric
) -> Iterator[tuple[MilvusStore, MilvusRecord]]:
    """An empty collection to be filled, which is dropped where that, or whatever else is done meanwhile, fails."""
    name = f"fc7_{uuid4().hex[:16]}"
    store = MilvusStore.create(uri, name, encoder.width, encoder, fingerprint, limits, metric=metric)
    try:
        yield store, MilvusRecord(uri=store.address, collection=name)
    except BaseException:
        store.drop()
        raise
    finally:
        store.close()


def collections(index: Path) -> dict[Path, MilvusRecord]:
    """The collections that the versions of an index are described by, by the versions' folders."""
    records = {}
    for folder in artifact.version_folders(index):
        with suppress(Mismatch):  # of another format, or damaged
            if record := artifact.read_manifest(folder).milvus:
                records[folder] = record
    return records


def drop_unused(index: Path, before: dict[Path, MilvusRecord]) -> None:
    """Drops those of `collections` as they were before that no version of the index is described by any more."""
    used = list(collections(index).values())
    for record in before.values():
        if record not in used:
            used.append(record)  # once, however many versions had it
            with connection.connected(connection.parse_recorded(record.uri)) as milvus:
                Collection(milvus, record.collection).drop()
