"""Finds the near-duplicates of a collection: `python -m indexer.duplicates`."""

from datetime import UTC, datetime
from pathlib import Path

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from indexer.grouping import choice, groups, report
from indexer.grouping.choice import Choice
from indexer.grouping.groups import Group, Threshold
from indexer.opening import OpenStore, fitted, open_store
from indexer.storage import duplicates
from indexer.storage.duplicates import DuplicatesRecord, GroupRecord
from training import checkpoint
from training.checkpoint import Model
from training.errors import BadValue, Mismatch, NotReady
from training.program import Settings, run_program


class DuplicatesSettings(Settings):
    """Find near-duplicates among all items of an index, in groups: each item is within a distance of another of its group.

    So groups are chains, whose ends may be farther apart. The representative of a group is its largest photograph. The groups are
    left in the index folder too, for GET /duplicates. A distance that is not given is chosen from those in the index: at most 1 %
    of the photographs may be linked to one that shows something else.
    """

    model_config = SettingsConfigDict(
        cli_prog_name="python -m indexer.duplicates", env_prefix_target="all", validate_by_name=True, validate_by_alias=True
    )

    index: Path = Field(Path("var/index"), description="index folder")
    model: Path = Field(
        Path("var/model"),
        description="model folder that the index was made with; where it is there, a distance is chosen by copies too",
    )
    max_distance: float | None = Field(
        None,
        ge=0,
        le=1e9,
        description="largest distance of two that are linked, by the index's metric; where neither this nor radius is given, one "
        "is chosen and said",
    )
    radius: int | None = Field(None, ge=0, description="instead, the bits in which the codes of two that are linked may differ")
    json_file: Path | None = Field(None, validation_alias="json", description="JSON file to write all groups to")
    csv_file: Path | None = Field(None, validation_alias="csv", description="CSV file to write all groups to")
    html_file: Path | None = Field(
        None,
        validation_alias="html",
        description=f"contact sheet to write: one HTML file with thumbnails of the {report.SHEET_GROUPS} largest groups",
    )

    @model_validator(mode="after")
    def _one_threshold(self) -> "DuplicatesSettings":
        if self.radius is not None and self.max_distance is not None:
            raise ValueError("give radius or max_distance, not both: codes are compared, or vectors")
        return self


def main(settings: DuplicatesSettings) -> None:
    """Compares, writes, and prints the largest groups. What is interrupted has written nothing by halves."""
    for name, path in (("json", settings.json_file), ("csv", settings.csv_file), ("html", settings.html_file)):
        if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
            raise BadValue(name, str(path), "a file, in a folder that is there")
    index = settings.index.resolve()
    store = open_store(index)
    chosen = _choice(settings, store)
    found = groups.find(store, chosen.threshold)
    heading = report.summary(found, chosen, len(store))
    if settings.json_file:
        report.write_json(settings.json_file, found, chosen, index)
    if settings.csv_file:
        report.write_csv(settings.csv_file, found, index)
    if settings.html_file:
        report.write_html(settings.html_file, found, heading, store, index)
    duplicates.write(index, _record(store, chosen, found))
    print(heading)
    if found:
        print(report.table(found, index))


def _choice(settings: DuplicatesSettings, store: OpenStore) -> Choice:
    if settings.radius is not None:
        return Choice(Threshold("hamming", settings.radius), "as given")
    if settings.max_distance is not None:
        return Choice(Threshold(store.metric, settings.max_distance), "as given")
    return choice.choose(store, _model(settings, store), store.manifest.limits)


def _model(settings: DuplicatesSettings, store: OpenStore) -> Model | None:
    """The model, or None where none was given and the default folder has not the index's."""
    try:
        return fitted(store, checkpoint.load(settings.model))
    except (NotReady, Mismatch) as error:
        if "model" in settings.model_fields_set:
            raise
        print(f"the distance is chosen without copies of photographs, for want of --model: {error}")
        return None


def _record(store: OpenStore, chosen: Choice, found: list[Group]) -> DuplicatesRecord:
    kept, items = [], 0
    for group in found:
        items += len(group.items)
        if items > duplicates.MOST_ITEMS:
            break
        ids, hashes = [item.id for item in group.items], [item.sha256 for item in group.items]
        kept.append(GroupRecord(ids=ids, sha256s=hashes, distances=group.distances.tolist()))
    return DuplicatesRecord(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        fingerprint=store.fingerprint,
        index_version=store.version_number,
        metric=chosen.threshold.metric,
        threshold=chosen.threshold.most,
        chosen=chosen.how,
        compared=len(store),
        found=len(found),
        groups=kept,
    )


if __name__ == "__main__":
    run_program(DuplicatesSettings, main)
