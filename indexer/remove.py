"""Removes items from an index: `python -m indexer.remove --ids 17 --ids 23`."""

from pathlib import Path

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from indexer.opening import open_store
from indexer.store import Store
from training.errors import FC7Error, NotFound
from training.files import patiently
from training.images.folders import hash_example, list_examples
from training.program import Settings, progress, run_program


class RemoveSettings(Settings):
    """Remove items from an index: by id, or all whose files' bytes are those of the photographs in a folder.

    They are found no more in any mode, nor are their thumbnails; `python -m indexer.compact` takes them out of the files too.
    The photographs themselves stay, but for those that came over HTTP.
    """

    model_config = SettingsConfigDict(cli_prog_name="python -m indexer.remove")

    index: Path = Field(Path("var/index"), description="index folder")
    ids: list[int] = Field([], description="ids of items, as answers give them")
    data: Path | None = Field(None, description="folder of photographs whose items are removed")

    @model_validator(mode="after")
    def _one_of_both(self) -> "RemoveSettings":
        if bool(self.ids) == (self.data is not None):
            raise ValueError("give ids or data: which items are to be removed")
        return self


def main(settings: RemoveSettings) -> None:
    """Removes, publishes and reports. Raises NotFound, and then removes nothing, where an item is not there."""
    with patiently(settings.index):
        store = open_store(settings.index, contents=False)
        ids = sorted(set(settings.ids)) or _of_folder(settings.data, store)
        after = store.remove(ids)
    print(f"{len(ids)} items removed: version {after.version_number} holds {len(after)}")


def _of_folder(data: Path | None, store: Store) -> list[int]:
    assert data is not None  # noqa: S101  settings have one where they have no ids
    examples = [example for example in list_examples(data, "all") if not example.reason]
    hashes, unread = set(), []
    for example in progress(examples, len(examples), "reading"):
        try:
            hashes.add(hash_example(data, example.path))
        except (OSError, FC7Error) as error:
            unread.append(f"{example.shown}: {error}")
    if unread:
        print(f"{len(unread)} of {len(examples)} files cannot be read, and none of them can be an item; the first is {unread[0]}")
    ids = sorted(set(store.holding(hashes).values()))
    if not ids:
        raise NotFound(f"none of the {len(examples)} files below {data} is an item of the index")
    return ids


if __name__ == "__main__":
    run_program(RemoveSettings, main)
