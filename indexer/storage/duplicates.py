"""The near-duplicates of an index, as `python -m indexer.duplicates` leaves them beside the versions for whoever shows them."""

from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from indexer.metric import Metric
from indexer.storage import artifact
from training.errors import NotFound
from training.files import read_record, write_text

FORMAT: Final[Literal[2]] = 2
MOST_ITEMS: Final = 100_000  # in the file, by whole groups, largest first
_MOST_BYTES: Final = 2**26  # of the file; so many items take up to 11 MB
REMEDY: Final = "`python -m indexer.duplicates`"
_OURS: Final = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
_Count = Annotated[int, Field(ge=0, le=2**53)]
_Distance = Annotated[float, Field(ge=0)]
_Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class GroupRecord(BaseModel):
    """Items that are linked by pairs within the threshold: the representative, then the others, nearest to it first."""

    model_config = _OURS

    ids: list[_Count] = Field(min_length=2)
    sha256s: list[_Sha256]  # of the items' files, by which a later index tells whether an id is still the same photograph's
    distances: list[_Distance]  # from the representative

    @model_validator(mode="after")
    def _of_one_length(self) -> Self:
        if not len(self.ids) == len(self.sha256s) == len(self.distances):
            raise ValueError("should have as many ids as sha256s and distances")
        return self


class DuplicatesRecord(BaseModel):
    """What was looked for, in which state of the index, and the groups that were found, largest first."""

    model_config = _OURS

    format: Literal[2] = FORMAT
    created: str = Field(max_length=40)  # ISO 8601, UTC
    fingerprint: str = Field(min_length=1, max_length=128)  # of the model that made the vectors
    index_version: _Count
    metric: Metric | Literal["hamming"]
    threshold: _Distance  # the largest distance between two items that are linked
    chosen: str = Field(max_length=1000)  # how the threshold was, in words
    compared: _Count  # items
    found: _Count  # groups; not all of them are in the file where they hold more than MOST_ITEMS
    groups: list[GroupRecord]


def write(index: Path, record: DuplicatesRecord) -> None:
    """Leaves a record in an index folder, in place of the one before."""
    write_text(index / artifact.DUPLICATES, record.model_dump_json() + "\n")


def read(index: Path) -> DuplicatesRecord:
    """The record in an index folder. Raises NotFound where there is none, Mismatch where it is damaged or of another format."""
    absent = NotFound(f"nobody has looked for near-duplicates in this index; {REMEDY} does")
    return read_record(index / artifact.DUPLICATES, DuplicatesRecord, _MOST_BYTES, absent, REMEDY)
