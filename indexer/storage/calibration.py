"""What distances of an index mean, as `python -m indexer.calibrate` measured it: calibration.json, a file of a version."""

from typing import Annotated, Final, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from indexer.metric import Metric
from indexer.storage import artifact
from indexer.storage.artifact import WithManifest
from training.errors import Mismatch, NotFound
from training.files import read_record

FORMAT: Final[Literal[1]] = 1
MOST_SAMPLED: Final = 5000  # items that a query is compared with to tell which distances are its usual ones, by their codes
MOST_VECTORS: Final = 1000  # and by their vectors: the first of these
MOST_PAIRS: Final = 10_000  # random pairs of items
LEAST_SAMPLED: Final = 2  # of which a spread can be told
_MOST_BYTES: Final = 2**22  # of the file; 5 000 ids and three measures take 0.3 MB
REMEDY: Final = "`python -m indexer.calibrate` with photographs that are neither indexed nor trained on"
Measure = Metric | Literal["hamming"]
_OURS: Final = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
_Count = Annotated[int, Field(ge=0, le=2**53)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Distance = Annotated[float, Field(ge=0, le=1e12)]
_Text = Annotated[str, Field(min_length=1, max_length=100)]


class Bin(BaseModel):
    """Pairs that are given nearly the same probability."""

    model_config = _OURS

    predicted: _Share  # the mean of what they are given
    observed: _Share  # the share that is of the same class
    interval: tuple[_Share, _Share]  # of 95 %, over the queries
    weight: _Share  # of all pairs


class Quality(BaseModel):
    """How far probabilities are from what is observed."""

    model_config = _OURS

    error: _Share  # expected calibration error
    brier: _Share  # mean squared difference of probability and truth


class Measurement(Quality):
    """How good a calibration is on one kind of pairs, of queries that it was not fitted to."""

    pairs: _Text  # which pairs of a query and an item
    interval: tuple[_Share, _Share]  # of the error: 95 %, over the queries
    floor: _Share  # the error that chance alone would show with so few queries
    others: dict[_Text, Quality] = Field(max_length=10)  # simpler ways to tell probabilities, on the same pairs
    bins: list[Bin] = Field(min_length=1, max_length=100)


class DistanceRecord(BaseModel):
    """What distances of one measure mean."""

    model_config = _OURS

    measure: Measure
    random: list[_Distance] = Field(min_length=1, max_length=MOST_PAIRS)  # distances of random pairs of items, ascending
    steps: list[Annotated[float, Field(ge=-1e9, le=1e9)]] = Field(min_length=1, max_length=MOST_PAIRS)
    chances: list[_Share]  # at each step the probability of the same class, falling; in between along straight lines
    measurements: list[Measurement] = Field(max_length=10)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if len(self.steps) != len(self.chances):
            raise ValueError("should have as many steps as chances")
        if np.any(np.diff(self.random) < 0) or np.any(np.diff(self.steps) < 0) or np.any(np.diff(self.chances) > 0):
            raise ValueError("should have distances and steps that rise, and chances that fall")
        return self


class CalibrationRecord(BaseModel):
    """Which queries were asked of which index, and what came of it for each measure of distance."""

    model_config = _OURS

    format: Literal[1] = FORMAT
    created: str = Field(max_length=40)  # ISO 8601, UTC
    fingerprint: str = Field(min_length=1, max_length=128)  # of the model that made the vectors
    index_version: _Count  # that was asked
    items: _Count  # that it held
    next_id: _Count  # ids from here on came since
    data: Annotated[str, Field(max_length=4096)]  # the folder that the queries are from
    queries: tuple[_Count, _Count]  # of each half; each is measured by what is fitted to the other
    unknown: _Count  # of all queries, those whose class no item has
    labels_seen: _Share | None  # share of the items that the network was trained on; None where it does not say
    sample: list[_Count] = Field(min_length=1, max_length=MOST_SAMPLED)  # ids of items that each query is compared with
    distances: list[DistanceRecord] = Field(min_length=1, max_length=2)

    def of(self, measure: Measure) -> DistanceRecord | None:
        """What distances of a measure mean, where that was measured."""
        return next((one for one in self.distances if one.measure == measure), None)


def is_there(version: WithManifest) -> bool:
    """Whether a version has a calibration."""
    return artifact.CALIBRATION in version.manifest.files


def picture(version: WithManifest) -> bytes:
    """Its reliability plot, a PNG. Raises like `read`."""
    read(version)
    path = version.folder / artifact.RELIABILITY
    try:
        return path.read_bytes()
    except OSError as error:
        raise Mismatch(f"{path} cannot be read: {error.strerror}; {REMEDY} draws it anew") from error


def read(version: WithManifest) -> CalibrationRecord:
    """The calibration of a version. Raises NotFound where it has none, Mismatch where it is damaged or another model's."""
    if not is_there(version):
        raise NotFound(f"nobody has measured what distances mean in this index; {REMEDY} does")
    path = version.folder / artifact.CALIBRATION
    absent = Mismatch(f"{path} is not there; {REMEDY} writes it anew")
    record = read_record(path, CalibrationRecord, _MOST_BYTES, absent, REMEDY)
    if record.fingerprint != version.manifest.fingerprint:
        raise Mismatch(
            f"{path} is of the model {record.fingerprint[:12]}, the index of {version.manifest.fingerprint[:12]}; "
            f"{REMEDY} writes it anew"
        )
    return record
