"""Rewrites an index without what has been removed: `python -m indexer.compact`."""

import time
from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from indexer import changes
from indexer.index import open_index
from indexer.storage import artifact
from indexer.storage.originals import sweep_uploads
from indexer.storage.version import open_version
from training.files import patiently
from training.program import Settings, keep_freed_memory, run_program


class CompactSettings(Settings):
    """Rewrite an index as one segment, without the rows of removed items, and make its short-list anew. Ids stay.

    It takes as long as reading and writing the whole index, and as much room again while both versions are there.
    """

    model_config = SettingsConfigDict(cli_prog_name="python -m indexer.compact")

    index: Path = Field(Path("var/index"), description="index folder")


def main(settings: CompactSettings) -> None:
    """Compacts, publishes and reports."""
    keep_freed_memory()
    started = time.monotonic()
    with patiently(settings.index):
        version = open_version(settings.index, contents=False)
        before = version.manifest
        changes.compact(version)
        index = open_index(settings.index, contents=False)
        after = index.version
        sweep_uploads(settings.index, index, artifact.reject_records(after.folder))
    seconds = time.monotonic() - started
    print(
        f"{before.deleted} removed items taken out and {len(before.segments)} segments made one, in {seconds:.1f} s: "
        f"version {after.number} holds {after.manifest.kept}"
    )


if __name__ == "__main__":
    run_program(CompactSettings, main)
