"""What the service answers, field by field; the OpenAPI description is made of these."""

import re
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from indexer.metric import Metric
from indexer.search.ways import Way
from indexer.store import Mode
from training.checkpoint import FeatureLayer
from training.images.preprocess import Corner


def _written(pattern: str, what: str) -> BeforeValidator:
    """Refuses numbers in a text that are written otherwise; pydantic would take 1_0, +1 and 1.0 for integers."""
    matches: Callable[[str], object] = re.compile(pattern).fullmatch

    def check(value: object) -> object:
        if isinstance(value, str) and not matches(value):
            raise PydanticCustomError("number", "Input should be {what}", {"what": what})
        return value

    return BeforeValidator(check)


# numbers in paths and queries, as JSON writes them
Whole = Annotated[int, _written("0|-?[1-9][0-9]*", "a whole number in plain digits")]
Number = Annotated[float, _written(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?", "a number in plain digits")]


_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?(Z|[+-][0-9]{2}:[0-9]{2})")


def _time(value: object) -> object:
    with suppress(ValueError):
        if isinstance(value, str) and _TIME.fullmatch(value):
            return datetime.fromisoformat(value)
    raise PydanticCustomError("time", "Input should be a time with its zone, as 2026-11-26T10:00:00Z or with %2B02:00 for Z")


Time = Annotated[datetime, BeforeValidator(_time)]  # ISO 8601, in queries

Layer = Literal["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"]
UnitOrder = Literal["index", "selectivity", "active", "maximum"]

Note = Annotated[
    str | None,
    Field(
        exclude_if=lambda note: note is None,
        description="which labels of the filter no item has, or that no item passes it; else left out",
    ),
]


IndexedLayer = Annotated[FeatureLayer, Field(description="of the model, whose values are the features", examples=["fc7"])]
Uncalibrated = Annotated[
    str | None,
    Field(
        exclude_if=lambda reason: reason is None,
        description="why percentile and same_class are null, and what makes them; else left out",
    ),
]


class FieldError(BaseModel):
    """One wrong value of a request."""

    field: str
    value: str | None = Field(None, description="as it was sent; cut when long")
    detail: str


class Problem(BaseModel):
    """What went wrong, as application/problem+json (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[FieldError] | None = None


class ClassProbability(BaseModel):
    """One class and its probability."""

    model_config = ConfigDict(populate_by_name=True)

    label: str = Field(alias="class", examples=["Granny-Smith"])
    probability: float = Field(examples=[0.93])


class ViewClasses(BaseModel):
    """What one of the ten views alone says."""

    corner: Corner
    mirrored: bool
    classes: list[ClassProbability] = Field(description="most probable first")


class ClassifiedImage(BaseModel):
    """The classes of one image, or why there are none."""

    name: str = Field(description="the file name that was sent, or the name given", examples=["apple.jpg"])
    classes: list[ClassProbability] | None = Field(None, description="most probable first; the mean over the views")
    views: list[ViewClasses] | None = Field(None, description="with per_view=true, each view by itself")
    error: Problem | None = None


class Timings(BaseModel):
    """Milliseconds by stage; of several inputs the longest of each, since they are worked on side by side."""

    queue: float | None = Field(None, description="waiting for a batch to begin")
    decode: float | None = Field(None, description="bytes to pixels")
    forward: float | None = Field(None, description="the network's pass of the batch")
    search: float | None = Field(None, description="the search of the batch")


class ClassifyAnswer(BaseModel):
    """The answer of POST /classify: one result for each image, in the order sent."""

    model: str = Field(description="fingerprint of the model", examples=["5a0c0f..."])
    views: Literal[1, 10]
    results: list[ClassifiedImage]
    timings_ms: Timings | None = Field(None, description="with timings=true")


class UnitActivityAnswer(BaseModel):
    """What one unit says of a photograph."""

    unit: int = Field(description="its place in its column, 0-based")
    largest: float = Field(description="of its map, after the nonlinearity")
    mean: float
    active: float = Field(description="share of its map above 0")
    peak: list[int] = Field(description="row and column of the largest in its map", examples=[[3, 12]])
    box: list[int] = Field(description="left, top, right and bottom of its map in /activations.png of scale 1")


class ColumnActivityAnswer(BaseModel):
    """What the units of one column of a layer say of a photograph."""

    column: int = Field(description="0 is the first GPU's")
    units: int
    side: int = Field(description="height and width of a map; 1 where the layer is fully connected")
    mean: float
    active: float = Field(description="share of all values above 0")
    silent: int = Field(description="units that are nowhere above 0")
    size: list[int] = Field(description="width and height of /activations.png of scale 1")
    strongest: list[UnitActivityAnswer] = Field(description="by the largest value, downwards")


class ActivationsAnswer(BaseModel):
    """The answer of POST /activations; /activations.png is the picture of a column's maps."""

    model: str = Field(description="fingerprint of the model", examples=["5a0c0f..."])
    layer: str = Field(examples=["conv2"])
    index_version: int | None = Field(description="where the photograph is an item; else null")
    name: str = Field(description="the file name that was sent, or the item's id")
    columns: list[ColumnActivityAnswer]


class ViewAnswer(ViewClasses):
    """One of the ten views, and where it is in /views.png."""

    box: list[int] = Field(description="left, top, right and bottom in /views.png, pixels", examples=[[0, 0, 224, 224]])


class ViewsAnswer(BaseModel):
    """The answer of POST /views; /views.png shows the ten views."""

    model: str = Field(description="fingerprint of the model", examples=["5a0c0f..."])
    layer: Literal["fc8"] = "fc8"
    index_version: int | None = Field(description="where the photograph is an item; else null")
    name: str = Field(description="the file name that was sent, or the item's id")
    classes: list[ClassProbability] = Field(description="most probable first; the mean over the views")
    views: list[ViewAnswer]


class HeatAnswer(BaseModel):
    """What each part of a photograph is worth."""

    name: str = Field(description="the file name that was sent, or the item's id")
    id: int | None = Field(description="the item; null for a photograph that was sent")
    grid: list[list[float]] = Field(description="what each cell is worth, 8 rows of 8, from the top left")
    box: list[float] = Field(
        description="where the grid lies in the square: left, top, right and bottom as shares of its side",
        examples=[[0.0625, 0.0625, 0.9375, 0.9375]],
    )
    photograph: str = Field(description="the square as a data: address of a JPEG of 256 x 256 pixels")
    overlay: str = Field(
        description="the same grid as a data: address of a PNG to lay over it: orange above 0, violet below, "
        "the more opaque the more it is worth"
    )


class OcclusionAnswer(BaseModel):
    """The answer of POST /occlusion."""

    model: str = Field(description="fingerprint of the model", examples=["5a0c0f..."])
    layer: Literal["fc8"] = "fc8"
    index_version: int | None = Field(description="where the photograph is an item; else null")
    label: str = Field(alias="class", description="whose probability is looked at", examples=["Granny-Smith"])
    probability: float = Field(description="of the class, nothing covered", examples=[0.93])
    lowest: float = Field(description="of the class with the square covered that lowers it most")
    classes: list[ClassProbability] = Field(description="the most probable with that square covered")
    covered: list[float] = Field(description="that square: left, top, right and bottom as shares of the side")
    windows: int = Field(description="squares that were covered, one at a time", examples=[74])
    heat: HeatAnswer = Field(description="by how much the probability falls, the mean over the squares that cover a cell")

    model_config = ConfigDict(populate_by_name=True)


class ExplainAnswer(BaseModel):
    """The answer of POST /explain."""

    model: str = Field(description="fingerprint of the model", examples=["5a0c0f..."])
    layer: IndexedLayer
    index_version: int = Field(examples=[1])
    metric: Metric = Field(description="of the distances, as the index is", examples=["euclidean"])
    distance: float = Field(description="of the two, nothing covered", examples=[7.26])
    windows: int = Field(description="squares that were covered in each, one at a time", examples=[74])
    query: HeatAnswer = Field(
        description="what parts of the query bring the two together: by how much their distance grows with the part covered, "
        "less the mean growth of the distances from items spread over the collection, in the unit of the metric"
    )
    neighbor: HeatAnswer = Field(description="the same of the neighbour, with the query whole")


class ItemAnswer(BaseModel):
    """An indexed photograph."""

    id: int = Field(examples=[17])
    path: str = Field(description="below the folder that it was added from", examples=["train/Granny-Smith/0a1b2c3d4e5f6071.jpg"])
    label: str = Field(description="the folder it lies in, or what it was uploaded with", examples=["Granny-Smith"])
    width: int = Field(description="pixels", examples=[348])
    height: int = Field(description="pixels", examples=[348])
    size: int = Field(description="bytes", examples=[18231])
    format: str = Field(examples=["JPEG"])
    sha256: str
    added: datetime = Field(description="when it came into the index, UTC", examples=["2026-11-26T10:00:00.123456Z"])
    image: str = Field(description="where its file is served", examples=["/items/17/image"])
    thumbnail: str = Field(description="where its thumbnail is served", examples=["/items/17/thumbnail"])


class ItemsAnswer(BaseModel):
    """The answer of GET /items."""

    model: str = Field(description="fingerprint of the model", examples=["5a0c0f..."])
    index_version: int = Field(examples=[1])
    of: int = Field(description="items that pass, on all pages", examples=[1117])
    items: list[ItemAnswer] = Field(description="in order of their ids")
    next: str | None = Field(None, description="`cursor` of the page after this one; null at the end")
    note: Note = None


class LabelCount(BaseModel):
    """A label of the index."""

    label: str = Field(description="empty for items without one", examples=["Granny-Smith"])
    items: int = Field(description="how many have it", examples=[82])


class LabelsAnswer(BaseModel):
    """The answer of GET /labels."""

    model: str = Field(description="fingerprint of the model", examples=["5a0c0f..."])
    index_version: int = Field(examples=[1])
    items: int = Field(description="items of all labels", examples=[1117])
    of: int = Field(description="labels, on all pages", examples=[14])
    labels: list[LabelCount] = Field(description="in order of the labels")
    next: str | None = Field(None, description="`cursor` of the page after this one; null at the end")


class Neighbor(BaseModel):
    """A photograph near a query."""

    id: int = Field(examples=[17])
    distance: float = Field(description="between FC7 features, or bits between codes: as `metric` says", examples=[12.5])
    percentile: float | None = Field(
        None,
        description="of 100 random pairs of indexed photographs, how many are as near or nearer; null where the index is not "
        "calibrated, and in groups of near-duplicates",
        examples=[0.31],
    )
    same_class: float | None = Field(
        None,
        description="the probability that it is of the query's class, as measured with photographs that were neither indexed nor "
        "trained on; null where the index is not calibrated, for a query of several examples, and in groups of near-duplicates",
        examples=[0.92],
    )
    label: str = Field(examples=["Granny-Smith"])
    path: str = Field(examples=["train/Granny-Smith/0a1b2c3d4e5f6071.jpg"])
    image: str = Field(examples=["/items/17/image"])
    thumbnail: str = Field(examples=["/items/17/thumbnail"])


class NeighborsOfOne(BaseModel):
    """The neighbours of one query, or why there are none."""

    name: str = Field(description="the file name that was sent, the name given, or the id", examples=["apple.jpg"])
    neighbors: list[Neighbor] | None = Field(None, description="nearest first; equal distances in order of id")
    buckets: int | None = Field(None, description="with mode=ball, how many codes were looked up")
    next: str | None = Field(None, description="`cursor` of the page after this one; null at the end")
    note: Note = None
    error: Problem | None = None


class NeighborsAnswer(BaseModel):
    """The answer of POST /neighbors: one result for each query, in the order sent."""

    model: str = Field(description="fingerprint of the model", examples=["5a0c0f..."])
    layer: IndexedLayer
    index_version: int = Field(examples=[1])
    mode: Mode = Field(description="how it was searched", examples=["exact"])
    columns: Literal["0", "1", "both"] = Field(description="whose components were compared", examples=["both"])
    metric: Literal["euclidean", "cosine", "hamming"] = Field(
        description="of the distances: hamming (bits) in the modes code and ball, else the index's own: euclidean, or cosine "
        "(1 - cos, from 0 to 2)",
        examples=["euclidean"],
    )
    results: list[NeighborsOfOne]
    uncalibrated: Uncalibrated = None
    timings_ms: Timings | None = Field(None, description="with timings=true")


class ComparedNeighbor(Neighbor):
    """A neighbour by one way, and where it is by the reference."""

    rank: int | None = Field(description="its place by the reference, from 1; null where that is not among the `ranked` first")
    move: int | None = Field(description="by how many places it comes earlier than by the reference; negative: later")


class ComparedWay(BaseModel):
    """The neighbours by one way, or why there are none."""

    way: Way
    name: str = Field(description="what an evaluation calls it", examples=["FC7, cosine"])
    metric: Literal["euclidean", "cosine", "hamming", "hellinger"] = Field(
        description="of the distances: of features, raw pixels, codes (bits), or histograms of 64 colours (from 0 to 1)"
    )
    neighbors: list[ComparedNeighbor] | None = Field(description="nearest first; null where there is a reason")
    overlap: float | None = Field(description="share of the reference's k neighbours that are among these", examples=[0.8])
    reason: str | None = Field(description="why there are no neighbours, and the command that mends it")


class CompareAnswer(BaseModel):
    """The answer of POST /compare: the neighbours of one query by every way."""

    model: str = Field(description="fingerprint of the model", examples=["5a0c0f..."])
    layer: Layer
    index_version: int = Field(examples=[1])
    name: str = Field(description="the file name that was sent, the name given, or the id", examples=["apple.jpg"])
    k: int = Field(description="neighbours of each way")
    reference: Way = Field(description="the first way that has neighbours, which the others are compared with")
    ranked: int = Field(description="neighbours by the reference among which ranks are told")
    ways: list[ComparedWay]


class DuplicatesAnswer(BaseModel):
    """The answer of GET /items/{id}/duplicates."""

    model: str = Field(description="fingerprint of the model", examples=["5a0c0f..."])
    layer: IndexedLayer
    index_version: int = Field(examples=[1])
    mode: Mode = Field(description="how it was searched", examples=["exact"])
    metric: Metric = Field(description="of the distances, as the index is", examples=["euclidean"])
    id: int = Field(description="the item that the others are near", examples=[17])
    max_distance: float = Field(description="how far a near-duplicate may be", examples=[8.25])
    neighbors: list[Neighbor] = Field(description="nearest first; equal distances in order of id")
    next: str | None = Field(None, description="`cursor` of the page after this one; null at the end")
    note: Note = None
    uncalibrated: Uncalibrated = None


class Group(BaseModel):
    """Items that are linked, directly or by way of others, by pairs within the threshold."""

    size: int = Field(description="items of the group; with a filter, of those that pass it and are looked at", examples=[3])
    farthest: float = Field(description="distance of the farthest item from the representative; may be beyond the threshold")
    items: list[Neighbor] = Field(
        description="the representative, which is the largest photograph, at 0; then by distance from it, max_neighbors at most"
    )


class GroupsAnswer(BaseModel):
    """The answer of GET /duplicates."""

    model: str = Field(description="fingerprint of the model", examples=["5a0c0f..."])
    layer: IndexedLayer
    index_version: int = Field(description="that the items are shown of", examples=[3])
    compared_version: int = Field(description="in which groups were looked for; what was added since is in none", examples=[2])
    compared: int = Field(description="items that were compared", examples=[1117])
    created: str = Field(description="when groups were looked for, ISO 8601", examples=["2026-11-26T10:00:00+00:00"])
    metric: Metric | Literal["hamming"]
    threshold: float = Field(description="the largest distance of two items that are linked", examples=[8.25])
    chosen: str = Field(description="how that distance was chosen, in words", examples=["as given"])
    found: int = Field(description="groups that were found", examples=[12])
    groups: list[Group] = Field(description="largest first, as they were found")
    next: str | None = Field(None, description="`cursor` of the page after this one; null at the end")
    note: Note = None


class MapLabel(BaseModel):
    """A label on the map."""

    label: str = Field(description="empty: items without one", examples=["Granny-Smith"])
    count: int = Field(description="items on the map", examples=[91])


class MapAnswer(BaseModel):
    """The answer of GET /map."""

    model: str = Field(description="fingerprint of the model", examples=["5a0c0f..."])
    layer: IndexedLayer
    index_version: int = Field(examples=[3])
    items: int = Field(description="in the index", examples=[1120])
    shown: int = Field(description="of these, on the map", examples=[1117])
    since: int = Field(description="of these, added since the map was made, and not on it", examples=[3])
    removed: int = Field(description="items that were on it, and have been removed", examples=[0])
    method: Literal["t-SNE", "principal components"]
    library: str = Field(description="with its version; empty where the method needs none", examples=["openTSNE 1.0.4"])
    parameters: dict[str, int] = Field(examples=[{"components": 192, "neighbors": 15, "steps": 750}])
    sampled: int = Field(description="items that the next three are of, each among all", examples=[200])
    neighbors: int = Field(description="of each that were compared; 0 where there are too few items", examples=[10])
    trustworthiness: float = Field(description="1: nothing is near on the map that is far by features", examples=[0.89])
    neighbor_recall: float = Field(description="share of the neighbours by features that are those on the map", examples=[0.29])
    labels: list[MapLabel] = Field(description="commonest first as the map was made: the order of colours; at most 1000")
    more_labels: int = Field(description="labels beyond these", examples=[0])
    points: str = Field(description="where the items' places are", examples=["/map/points?state=5a0c0f..."])
    bytes: int = Field(description="of these, before compression", examples=[11178])


class QualityAnswer(BaseModel):
    """How far probabilities are from what is observed."""

    error: float = Field(description="expected calibration error: mean |told - observed| over 15 bins of equally many pairs")
    brier: float = Field(description="Brier score: mean squared difference of probability and truth")


class BinAnswer(BaseModel):
    """Pairs that are given nearly the same probability."""

    predicted: float = Field(description="the mean of what they are given")
    observed: float = Field(description="the share that is of the same class")
    interval: list[float] = Field(description="of the share: 95 %, by the bootstrap over the queries")
    weight: float = Field(description="share of all pairs")


class MeasurementAnswer(QualityAnswer):
    """How good the probabilities are on one kind of pairs, of queries that they were not fitted to."""

    pairs: str = Field(description="which items each query is paired with", examples=["first 10"])
    interval: list[float] = Field(description="of the error: 95 %, by the bootstrap over the queries")
    floor: float = Field(description="what probabilities without error would be measured at, with so few queries")
    others: dict[str, QualityAnswer] = Field(description="simpler ways to tell probabilities, on the same pairs")
    bins: list[BinAnswer] = Field(description="the reliability plot, by rising probability")


class DistanceAnswer(BaseModel):
    """What distances of one measure mean."""

    measure: Literal["euclidean", "cosine", "hamming"]
    random: list[float] = Field(description="distances of random pairs: 101, from the nearest (0 %) to the farthest (100 %)")
    steps: list[float] = Field(description="standard deviations beyond the mean of a query's distances, rising")
    chances: list[float] = Field(description="the probability of the same class there, falling; in between along straight lines")
    measurements: list[MeasurementAnswer]


class CalibrationAnswer(BaseModel):
    """The answer of GET /reports/calibration."""

    model: str = Field(description="fingerprint of the model", examples=["5a0c0f..."])
    index_version: int = Field(description="that answers now", examples=[3])
    measured_version: int = Field(description="that was asked; what was added or removed since changes little", examples=[2])
    items: int = Field(description="that it held", examples=[1117])
    added: int = Field(description="items that came since", examples=[0])
    created: str = Field(description="when, ISO 8601", examples=["2026-11-26T10:00:00+00:00"])
    queries: list[int] = Field(
        description="photographs asked with, of each half; each is measured by what is fitted to the other"
    )
    unknown: int = Field(description="of these, photographs whose class no item has")
    labels_seen: float | None = Field(
        description="share of the items that the network was trained on; null where it is not known"
    )
    distances: list[DistanceAnswer]
    picture: str = Field(description="the reliability plot", examples=["/reports/calibration.png"])


class AddedImage(BaseModel):
    """The item that one photograph became, or why there is none."""

    name: str = Field(description="the file name that was sent", examples=["apple.jpg"])
    id: int | None = Field(None, examples=[17])
    known: bool | None = Field(
        None, description="whether the very same file was in the index already, and keeps its id and label"
    )
    error: Problem | None = None


class AddAnswer(BaseModel):
    """The answer of POST /items: one result for each photograph, in the order sent."""

    index_version: int = Field(description="of the index with these in it", examples=[2])
    results: list[AddedImage]


class GaborAnswer(BaseModel):
    """The Gabor function nearest to a kernel."""

    x: float = Field(description="its centre, pixels from the middle of the left column to the right")
    y: float = Field(description="its centre, pixels from the middle of the top row down")
    frequency: float = Field(description="cycles a pixel")
    orientation: float = Field(description="of its bars, degrees counter-clockwise from horizontal")
    width: float = Field(description="standard deviation of its envelope across the bars, pixels")
    length: float = Field(description="standard deviation of its envelope along the bars, pixels")
    amplitudes: list[float] = Field(description="of red's, green's and blue's wave, in units of the weights")
    phases: list[float] = Field(description="of red, green and blue at the centre, degrees: 0 and 180 even, 90 and -90 odd")
    explained: float = Field(description="share of the kernel's energy that it explains, 0..1")
    bandwidth: float | None = Field(
        description="octaves between the frequencies of half amplitude; null where the lower is not above 0"
    )


class KernelAnswer(BaseModel):
    """One first-layer kernel."""

    index: int
    column: int = Field(description="0 is the first GPU's, shown above; 1 the second's, below")
    unit: int = Field(description="its place in its column, 0-based")
    norm: float = Field(description="Euclidean length of its weights")
    dead: bool = Field(description="whether its norm is below 0.2 of the median")
    duplicate_of: int | None = Field(description="index of the kernel most like it, where their cosine is above 0.95, up to sign")
    chroma: float = Field(description="share of its energy that differs between red, green and blue, 0..1")
    low_share: float = Field(description="share of its energy at frequencies below 0.25 cycles a pixel, half of Nyquist's")
    dc_share: float = Field(description="share of its energy at frequency 0")
    participation: float = Field(
        description="how evenly its energy is spread over the spectrum: 1 evenly, 1/121 in one bin of 121"
    )
    selectivity: float = Field(description="how much its energy goes in one direction: 0 in all alike, 1 in one")
    orientation: float = Field(description="of its bars and edges, degrees counter-clockwise from horizontal, 0..180")
    frequency: float = Field(description="of its bars, cycles a pixel; 0 for a blob")
    bandwidth: float | None = Field(
        description="octaves between the frequencies of half amplitude; null where the lower is not above 0"
    )
    explained: float = Field(description="share of its energy that the nearest Gabor function explains, 0..1")
    structured: bool = Field(description="whether it is alive with a low_share above 0.5")
    oriented: bool = Field(description="whether it is structured with a dc_share below 0.5 and a selectivity above 0.4")
    gabor: GaborAnswer | None = Field(description="the nearest Gabor function, where it explains half of the energy or more")
    box: list[int] = Field(
        description="left, top, right and bottom in /filters.png of scale 1 and order index", examples=[[1, 1, 12, 12]]
    )
    page: str = Field(description="its page, for people", examples=["/#/units/conv1/0/17"])


class SummaryAnswer(BaseModel):
    """Some kernels together."""

    kernels: int
    counts: dict[str, int] = Field(description="how many are structured, oriented, a Gabor function, dead or duplicates")
    means: dict[str, float | None] = Field(description="of their figures; null where no kernel has one")


class RangeAnswer(BaseModel):
    """A figure of white noise."""

    mean: float
    low: float = Field(description="2.5 of 100 noise kernels are below")
    high: float = Field(description="2.5 of 100 noise kernels are above")


class NoiseAnswer(BaseModel):
    """What kernels of white noise have, of the same shape: what says nothing of learning."""

    shares: dict[str, float] = Field(description="of noise kernels that are what `counts` names")
    ranges: dict[str, RangeAnswer] = Field(description="of what `means` names, but for the norm")


class FiltersAnswer(BaseModel):
    """The first layer in figures; /filters.png is its picture."""

    model: str
    shape: list[int] = Field(description="kernels, channels, height, width", examples=[[96, 3, 11, 11]])
    verdict: str = Field(description="what the kernels show, in a sentence")
    noise_like: bool = Field(description="whether of twenty kernels no more than one is structured, or a Gabor function")
    size: list[int] = Field(description="width and height of /filters.png of scale 1", examples=[[193, 75]])
    columns: list[SummaryAnswer]
    whole: SummaryAnswer
    noise: NoiseAnswer
    kernels: list[KernelAnswer]


class AtlasInfo(BaseModel):
    """What the atlas of units is of."""

    photographs: int = Field(description="that it was made of", examples=[1117])
    kept: int = Field(description="photographs of a unit at most", examples=[16])
    removed: int = Field(description="of the photographs, those that have been removed since; they are left out", examples=[0])
    since: int = Field(description="items that came since, which are not in it", examples=[0])


class UnitActivity(BaseModel):
    """A unit of the network by what excites it."""

    column: int
    unit: int = Field(description="its place in its column")
    stands_for: str | None = Field(description="the class, of a unit of fc8; else null", examples=["Granny-Smith"])
    dead: bool = Field(description="whether no photograph excites it above 0; a unit of fc8 never is")
    active: float = Field(description="share of the photographs that excite it above 0", examples=[0.42])
    mean: float = Field(description="of what each photograph excites it to at most")
    maximum: float
    photographs: int = Field(description="those of it that are still there", examples=[16])
    label: str | None = Field(description="the most common label of these; null where there are none", examples=["Watermelon"])
    label_share: float = Field(description="of these photographs that have that label, 0..1", examples=[0.94])
    label_entropy: float = Field(description="of the labels of these photographs, bits: 0 where all have one", examples=[0.34])
    crops: str = Field(description="what it sees in the best of them, as one picture", examples=["/units/conv5/1/33/crops.jpg"])
    page: str = Field(description="its page, for people", examples=["/#/units/conv5/1/33"])


class LayerUnits(BaseModel):
    """The units of a layer."""

    layer: Layer
    columns: int = Field(description="1 for fc8, which hears every column", examples=[2])
    units: int = Field(description="of a column", examples=[128])
    side: int = Field(description="height and width of a unit's map; 0 where the layer has none", examples=[13])
    field: int = Field(description="height and width of what a unit in the middle of its map sees, pixels", examples=[163])
    square: int = Field(description="height and width of the square that a photograph becomes, pixels", examples=[256])
    nonlinearity: str | None = Field(description="after which activations are taken; null for none", examples=["relu"])
    dead: int | None = Field(description="units that no photograph excites above 0; null without an atlas", examples=[3])
    most_selective: list[UnitActivity] = Field(description="whose photographs have the fewest labels, by entropy")
    least_selective: list[UnitActivity]


class UnitsAnswer(BaseModel):
    """The answer of GET /units: the layers, and whether there is an atlas of their units."""

    model: str
    index_version: int | None = Field(description="null where no index answers")
    atlas: AtlasInfo | None = Field(description="null where the index was built without one")
    note: str | None = Field(description="what makes an atlas, where there is none")
    layers: list[LayerUnits] = Field(description="from the image on")


class UnitListAnswer(BaseModel):
    """Some units of a layer's column."""

    model: str
    index_version: int
    layer: Layer
    column: int
    order: UnitOrder
    atlas: AtlasInfo
    units: list[UnitActivity]
    of: int = Field(description="units of the column", examples=[128])
    next: int | None = Field(description="`start` of the units that follow; null at the end", examples=[48])


class ExcitedAnswer(BaseModel):
    """A photograph that excites a unit."""

    id: int
    label: str
    path: str
    activation: float = Field(description="after the nonlinearity, but of fc8")
    box: list[float] = Field(
        description="what the unit sees of the thumbnail: left, top, right and bottom as shares of its side",
        examples=[[0.1, 0.2, 0.143, 0.243]],
    )
    crop: str = Field(description="the same as a picture", examples=["/units/conv5/1/33/photographs/0.png"])
    image: str
    thumbnail: str


class UnitAnswer(BaseModel):
    """One unit: what excites it, and of conv1 its kernel with noise beside it."""

    model: str
    index_version: int | None = Field(description="null where no index answers")
    layer: Layer
    column: int
    unit: int
    atlas: AtlasInfo | None = Field(description="null for a kernel of conv1 where the index was built without one")
    note: str | None = Field(description="what makes an atlas, where there is none")
    activity: UnitActivity | None
    photographs: list[ExcitedAnswer] = Field(description="the most exciting first; equal ones in order of id")
    kernel: KernelAnswer | None = Field(description="of conv1; else null")
    noise: NoiseAnswer | None = Field(description="of conv1; else null")
    picture: str | None = Field(description="of conv1's kernel; else null", examples=["/units/conv1/0/17.png"])
    spectrum: str | None = Field(description="of conv1's kernel; else null", examples=["/units/conv1/0/17/spectrum.png"])


class ModelInfo(BaseModel):
    """The model that answers."""

    fingerprint: str
    profile: str
    classes: list[str]
    parameters: int
    training: dict[str, Any] = Field(description="how it was made, where that is known")
    metrics: dict[str, Any]


class IndexInfo(BaseModel):
    """The index that answers."""

    version: int
    created: str
    items: int
    rejected: int
    layer: IndexedLayer
    metric: Metric = Field(description="of the distances between features", examples=["euclidean"])
    width: int = Field(description="components of a feature")
    bits: int = Field(description="of a short code; 0 where there are none")
    bytes: int = Field(description="size of all its files")
    parts: dict[str, int] = Field(
        description="what it holds: the size of its files by their names, those of one name in several segments together",
        examples=[{"vectors.faiss": 18_301_000, "codes.faiss": 17_900}],
    )
    mode: Mode = Field(description="of a search that names none")
    reason: str = Field(description="why it is searched so")
    recall: dict[str, float] = Field(description="of the other modes against exact search, as measured when it was built")
    calibrated: bool = Field(description="whether it is known what its distances mean; see GET /reports/calibration")
    mapped: bool = Field(description="whether it has a map; see GET /map")
    columns: list[Literal["0", "1", "both"]] = Field(description="what `columns` of POST /neighbors may be here")


class InfoAnswer(BaseModel):
    """What is loaded, and what the service allows."""

    version: str
    model: ModelInfo | None
    index: IndexInfo | None
    settings: dict[str, Any] = Field(description="what a request may hold and take")


class ReloadAnswer(BaseModel):
    """The pair that answers from now on."""

    model: str = Field(description="fingerprint of the model", examples=["5a0c0f..."])
    index_version: int = Field(examples=[2])
    changed: bool = Field(description="whether it is another than before")


class Health(BaseModel):
    """Answers of /healthz and /readyz."""

    status: Literal["ok", "ready"]


class PerturbedPoint(BaseModel):
    """One level of a perturbation, and how far the photograph moves by it."""

    level: float = Field(examples=[1.5])
    clipped: float = Field(description="share of the values that were clipped at 0 or 255", examples=[0.02])
    l2: float = Field(description="|f - f0| / |f0|, f0 the feature of the photograph as it is", examples=[0.21])
    angle: float = Field(description="between f and f0, degrees", examples=[11.4])
    bits: int | None = Field(None, description="that flip of its code; null where the index has none", examples=[9])
    overlap: float | None = Field(
        None, description="share of its ten neighbours that stay; null where the index has hardly more items", examples=[0.8]
    )
    picture: str | None = Field(None, description="with pictures=true, the perturbed photograph: a data: address")


class PerturbationCurve(BaseModel):
    """One perturbation at every level."""

    kind: str = Field(examples=["gain"])
    unit: str = Field(description="what the level counts", examples=["pixels times"])
    identity: float = Field(description="the level at which nothing changes", examples=[1.0])
    points: list[PerturbedPoint]


class InvarianceAnswer(BaseModel):
    """The answer of POST /invariance."""

    model: str = Field(description="fingerprint of the model", examples=["5a0c0f..."])
    layer: IndexedLayer
    index_version: int = Field(examples=[1])
    name: str = Field(description="the file name that was sent, the name given, or the id", examples=["apple.jpg"])
    id: int | None = Field(None, description="of the item, where it is one", examples=[17])
    colour_of: Literal["collection", "photograph"] = Field(description="whose colours the steps of `colour` follow from")
    bits: int | None = Field(None, description="of a code", examples=[128])
    neighbors: int | None = Field(None, description="that are looked at", examples=[10])
    curves: list[PerturbationCurve]
