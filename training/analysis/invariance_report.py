"""How far FC7, codes and neighbours moved, for programs and for people: report.json, report.md."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from training.analysis.invariance import MEASURES, Distances, Divisor, Measure, Spread
from training.analysis.perturbations import PERTURBATIONS, POINTS, Kind
from training.errors import NotFound
from training.files import read_record, write_text

FORMAT: Final[Literal[1]] = 1
REMEDY: Final = "`python -m training.invariance --index INDEX --model MODEL --data PHOTOGRAPHS`"
SAYS: Final = (
    "Every photograph is perturbed as its square of 256 pixels, before the crop; values are rounded and clipped to 0..255, and "
    "what moves pixels fills in the square's reflection. l2 is |f - f0| / |f0|; share is l2 as a share of the mean l2 between "
    "photographs of different classes; angle is in degrees; bits are those that flip of a code; overlap is the share of the ten "
    "nearest neighbours that stay. Intervals are of 95 %: over photographs by the bootstrap, over networks by Student's t."
)
_MOST_BYTES: Final = 2**22  # of the file; two groups of networks take 0.2 MB
_DIGITS: Final[dict[Measure, int]] = {"l2": 3, "angle": 1, "share": 3, "bits": 1, "overlap": 2}
_OURS: Final = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, from_attributes=True)
_Fingerprint = Annotated[str, Field(min_length=1, max_length=128)]
_Text = Annotated[str, Field(max_length=1000)]
_Count = Annotated[int, Field(ge=0, le=2**53)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Pair = Annotated[list[float], Field(min_length=2, max_length=2)]


class SpreadRecord(BaseModel):
    """A mean over photographs and networks, and where 95 in 100 such means lie."""

    model_config = _OURS

    mean: float
    photographs: _Pair  # over other photographs
    networks: _Pair | None  # over networks of other seeds

    @classmethod
    def of(cls, spread: Spread) -> Self:
        """The record of what was found."""
        return cls(mean=spread.mean, photographs=[*spread.photographs], networks=spread.networks and [*spread.networks])


class Point(BaseModel):
    """One level of a perturbation."""

    model_config = _OURS

    level: float
    clipped: _Share | None  # of the values, at 0 or 255; None of a difference
    measures: dict[Measure, SpreadRecord]


class Curve(BaseModel):
    """The moves over all levels of one perturbation."""

    model_config = _OURS

    kind: Kind
    unit: _Text
    identity: float  # the level at which nothing changes
    points: list[Point] = Field(max_length=100)


class DistancesRecord(BaseModel):
    """How far different photographs are from each other, by one measure."""

    model_config = _OURS

    same: float | None  # of one class
    other: float | None  # of different classes


class DivisorRecord(BaseModel):
    """What LRN adds to k after one layer, as a share of k."""

    model_config = _OURS

    median: float
    highest: float  # of 99 in 100 values


class Networks(BaseModel):
    """One network, or several that differ in their seed."""

    model_config = _OURS

    fingerprints: list[_Fingerprint] = Field(min_length=1, max_length=100)
    lrn_after: list[int] = Field(max_length=5)
    divisors: dict[str, DivisorRecord] = Field(max_length=5)  # by the layer that LRN follows, of the first network
    distances: dict[Measure, DistancesRecord]  # means over the networks
    curves: list[Curve] = Field(max_length=len(PERTURBATIONS))


class InvarianceRecord(BaseModel):
    """What was measured, on what, and what was found."""

    model_config = _OURS

    format: Literal[1] = FORMAT
    created: str = Field(max_length=40)  # ISO 8601, UTC
    fingerprint: _Fingerprint  # of the first network
    layer: str = Field(max_length=10)  # that the features are of
    index_version: _Count | None  # among whose items the neighbours are; None where among the photographs
    neighbors_among: _Count  # photographs or items
    data: _Text  # the name of the folder or file
    part: str = Field(max_length=10)  # "" for a single photograph
    photographs: _Count
    seed: _Count
    covariance: list[Annotated[list[float], Field(min_length=3, max_length=3)]] = Field(min_length=3, max_length=3)  # of RGB
    machine: _Text
    commit: _Text
    seconds: float
    says: _Text = SAYS
    networks: Networks
    beside: Networks | None
    difference: list[Curve] | None = Field(max_length=len(PERTURBATIONS))  # `networks` less `beside`, paired


def curves(measures: Mapping[Measure, Sequence[Spread]], clipped_P: Sequence[float] | None) -> list[Curve]:
    """The points of POINTS, gathered by perturbation."""
    found: dict[Kind, list[Point]] = {kind: [] for kind in PERTURBATIONS}
    for point, (kind, level) in enumerate(POINTS):
        found[kind].append(
            Point(
                level=level,
                clipped=None if clipped_P is None else clipped_P[point],
                measures={measure: SpreadRecord.of(spreads[point]) for measure, spreads in measures.items()},
            )
        )
    return [
        Curve(kind=kind, unit=PERTURBATIONS[kind].unit, identity=PERTURBATIONS[kind].identity, points=points)
        for kind, points in found.items()
    ]


def networks(
    fingerprints: Sequence[str],
    lrn_after: Sequence[int],
    divisors: Mapping[int, Divisor],
    distances: Mapping[Measure, Distances],
    of_networks: list[Curve],
) -> Networks:
    """The record of what was found of networks."""
    return Networks(
        fingerprints=[*fingerprints],
        lrn_after=[*lrn_after],
        divisors={f"conv{layer}": DivisorRecord.model_validate(divisor) for layer, divisor in divisors.items()},
        distances={measure: DistancesRecord.model_validate(found) for measure, found in distances.items()},
        curves=of_networks,
    )


def write(path: Path, record: InvarianceRecord) -> None:
    """Writes a record in one step."""
    write_text(path, record.model_dump_json(indent=1) + "\n")


def read(path: Path) -> InvarianceRecord:
    """What `write` wrote. Raises NotFound where there is none, Mismatch where it is damaged or of another format."""
    absent = NotFound(f"nobody has measured what the features of this collection ignore; {REMEDY} does")
    return read_record(path, InvarianceRecord, _MOST_BYTES, absent, REMEDY)


def markdown(record: InvarianceRecord) -> str:
    """All points in a table, and what they are beside: Markdown."""
    among = (
        f"the {record.neighbors_among} items of version {record.index_version} of the index"
        if record.index_version is not None
        else f"the {record.neighbors_among} photographs themselves"
    )
    part = f", part {record.part}" if record.part else ""
    parts = [
        f"{record.photographs} photographs of {record.data}{part}, seed {record.seed}; features of {record.layer}; "
        f"neighbours among {among}.",
        record.says,
        _distances(record),
        *(_divisors(name, group) for name, group in _groups(record).items() if group.divisors),
    ]
    for name, group in _groups(record).items():
        several = f", {len(group.fingerprints)} networks" if len(group.fingerprints) > 1 else ""
        parts += [f"## {name.capitalize()}{several}", _table(group.curves)]
    if record.difference:
        parts += ["## Model less beside, paired", _table(record.difference)]
    parts += [f"{record.machine}; commit {record.commit or 'unknown'}; {record.seconds:.0f} s."]
    return "\n\n".join(parts) + "\n"


def _groups(record: InvarianceRecord) -> dict[str, Networks]:
    return {"model": record.networks} | ({"beside": record.beside} if record.beside else {})


def _distances(record: InvarianceRecord) -> str:
    rows = []
    for name, group in _groups(record).items():
        for kind in ("same", "other"):
            cells = (getattr(group.distances[measure], kind) if measure in group.distances else None for measure in MEASURES)
            label = f"{name}: {'of the same class' if kind == 'same' else 'of different classes'}"
            shown = (
                "" if cell is None else f"{cell:.{_DIGITS[measure]}f}" for measure, cell in zip(MEASURES, cells, strict=True)
            )
            rows.append([label, *shown])
    return _rows(["two photographs", *MEASURES], rows)


def _divisors(name: str, group: Networks) -> str:
    found = "; ".join(f"{layer}: {one.median:.2g} ({one.highest:.2g})" for layer, one in group.divisors.items())
    return f"What LRN adds to k in {name}, as a share of k, median (and of 99 in 100 values): {found}."


def _table(of: Sequence[Curve]) -> str:
    measures = [measure for measure in MEASURES if measure in of[0].points[0].measures]
    with_clipped = of[0].points[0].clipped is not None
    heads = ["", "level", *(["clipped"] if with_clipped else []), *measures]
    rows = [
        [
            f"{curve.kind}, {curve.unit}" if i == 0 else "",
            f"{point.level:g}",
            *([f"{point.clipped:.0%}" if point.clipped else ""] if with_clipped else []),
            *(_cell(point.measures[measure], _DIGITS[measure]) for measure in measures),
        ]
        for curve in of
        for i, point in enumerate(curve.points)
    ]
    return _rows(heads, rows)


def _cell(spread: SpreadRecord, digits: int) -> str:
    show: Callable[[Sequence[float]], str] = lambda pair: f"{pair[0]:.{digits}f}, {pair[1]:.{digits}f}"  # noqa: E731
    over = f" {{{show(spread.networks)}}}" if spread.networks else ""
    return f"{spread.mean:.{digits}f} [{show(spread.photographs)}]{over}"


def _rows(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [heads, ["---"] * len(heads), *rows])
