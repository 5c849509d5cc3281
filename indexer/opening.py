"""An index folder -> the store that its manifest names."""

from pathlib import Path
from typing import Protocol, Self

from indexer.index import Index, open_index
from indexer.milvus.index import MilvusIndex, open_milvus_index
from indexer.storage import artifact
from indexer.storage.artifact import WithManifest
from indexer.storage.atlas import Atlas
from indexer.storage.version import Version
from indexer.store import Store
from training.checkpoint import Model


class OpenStore(Store, WithManifest, Protocol):
    """A store that was opened from an index folder."""

    @property
    def version(self) -> Version | None:
        """The version on disk whose items are searched; None where they lie in Milvus."""

    @property
    def atlas(self) -> Atlas | None:
        """What excites each unit of the network most, as of the build; None where that made no atlas."""

    def renewed(self) -> Self:
        """The folder's current version; what this one has of it is not read again."""


def fitted(index: WithManifest, model: Model) -> Model:
    """The model with the layer whose values the index holds. Raises Mismatch where the index was not made with it."""
    model = model.at(index.manifest.layer)
    artifact.check_pair(index, model.fingerprint, model.width)
    return model


def open_next(index: Path, previous: OpenStore) -> OpenStore:
    """The current version of an index of which an earlier one is open; what that has of it is not read again.

    Raises NotReady or Mismatch, naming what disagrees.
    """
    folder = artifact.current(index)
    same = previous.folder.parents[1] == folder.parents[1]
    if same and artifact.read_manifest(folder).milvus == previous.manifest.milvus:
        return previous.renewed()
    return open_store(index)


def open_store(index: Path, contents: bool = True) -> Index | MilvusIndex:
    """Opens the current version of an index, verified; its items lie on disk or in Milvus.

    Without `contents` only sizes are compared, for programs that change an index at a cost in proportion to the change.
    Raises NotReady or Mismatch, naming what disagrees.
    """
    folder = artifact.current(index)
    manifest = artifact.read_manifest(folder)
    if manifest.milvus is None:
        return open_index(index, contents)
    artifact.verify_files(folder, manifest, contents)
    return open_milvus_index(folder, manifest, manifest.milvus)
