"""The files that an index leaves out, as it grows and shrinks: a file is one reject, and none once it is an item."""

from collections.abc import Collection, Iterable
from pathlib import Path

from indexer.features import FeatureBlock
from indexer.storage.artifact import RejectRecord
from indexer.storage.originals import recorded_root
from training.files import printable


class Rejects:
    """Rejects by their files, whichever folder above a file was given."""

    def __init__(self, index: Path, records: Iterable[RejectRecord]) -> None:
        self._index = index
        self._by_file = {_file_of(record.folder, record.path): record for record in records}

    @property
    def records(self) -> list[RejectRecord]:
        """Those that are rejects now."""
        return list(self._by_file.values())

    def take(self, block: FeatureBlock, root: Path) -> None:
        """Notes the rejects of a block that is added, whose paths are below `root`; what it has items of are none any more."""
        folder = recorded_root(self._index, block.folder or root)
        for file in block.files:
            self._by_file.pop(_file_of(folder, printable(file.path)), None)
        self._by_file |= {_file_of(record.folder, record.path): record for record in reject_records(self._index, root, block)}

    def forget_copies(self, sha256s: Collection[str]) -> None:
        """Leaves out those that are copies of items of these hashes, which are removed."""
        self._by_file = {file: record for file, record in self._by_file.items() if record.sha256 not in sha256s}


def reject_records(index: Path, root: Path, block: FeatureBlock) -> list[RejectRecord]:
    """The rejects of a block whose paths are below `root`, or below its own folder."""
    folder = recorded_root(index, block.folder or root)
    return [RejectRecord(folder, reject.path, reject.reason, reject.sha256) for reject in block.rejects]


def _file_of(folder: str, path: str) -> str:
    """What a file is called whichever folder above it was given; `path` as it is printed."""
    return f"{folder}/{path}"
