"""The ways in which neighbours are found, by name: the rows of an evaluation, and of a comparison of one query."""

from typing import Final, Literal, get_args

from indexer.metric import Metric
from indexer.storage.version import Version
from indexer.store import Query, Store, metric_of, without_codes
from training.checkpoint import FeatureLayer, name_of
from training.errors import BadValue

Way = Literal["euclidean", "angle", "code", "pixel-code", "pixels", "colours", "column-0", "column-1"]
WAYS: Final[tuple[Way, ...]] = get_args(Way)
AUTOENCODER: Final = "autoencoder"
RAW_PIXELS: Final = "raw pixels"
RAW_AUTOENCODER: Final = f"{RAW_PIXELS}, autoencoder"
COLOURS: Final = "colour histogram"
HELLINGER: Final = "Hellinger"
COLUMNS: Final = ("column 0", "column 1")
MEASURE_OF: Final[dict[Metric, Literal["Euclidean", "cosine"]]] = {"euclidean": "Euclidean", "cosine": "cosine"}


def title(way: Way, layer: FeatureLayer) -> str:
    """What an evaluation calls a way, for an index of this layer."""
    of_layer = {
        "euclidean": MEASURE_OF["euclidean"],
        "angle": MEASURE_OF["cosine"],
        "column-0": COLUMNS[0],
        "column-1": COLUMNS[1],
    }
    others = {
        "code": AUTOENCODER,
        "pixel-code": RAW_AUTOENCODER,
        "pixels": f"{RAW_PIXELS}, {MEASURE_OF['euclidean']}",
        "colours": f"{COLOURS}, {HELLINGER}",
    }
    return others[way] if way in others else f"{name_of(layer)}, {of_layer[way]}"


def query_of(way: Way, k: int, without: tuple[int, ...]) -> Query | None:
    """The search of a store that a way is; None for those that go by other means than its features and codes."""
    match way:
        case "euclidean" | "angle":
            return Query(k, metric="euclidean" if way == "euclidean" else "cosine", without=without)
        case "code":
            return Query(k, "code", without=without)
        case "column-0" | "column-1":
            return Query(k, without=without, columns=0 if way == "column-0" else 1)
    return None


def lacking(way: Way, store: Store, version: Version | None, columns: int) -> str | None:
    """Why neighbours cannot be found so in a store of a network of so many columns, and what can be done; None where they can.

    `version` is the store's on disk; None for one in Milvus.
    """
    match way:
        case "euclidean" | "angle":
            metric: Metric = "euclidean" if way == "euclidean" else "cosine"
            if version is None and metric != store.metric:
                return f"Milvus compares by the index's metric, {store.metric}; `python -m indexer.build` makes an index on disk"
            try:
                metric_of(Query(1, metric=metric), store.metric)
            except BadValue as error:
                return str(error)
        case "code" if not store.bits:
            return without_codes("this index")
        case "pixel-code" | "pixels" if version is None or not version.manifest.pixel_bits:
            return "this index keeps no raw pixels; `python -m indexer.build --raw-pixel-codes` keeps them, and makes their codes"
        case "column-0" | "column-1" if columns == 1:
            return "the network of this index has one column; `python -m training.profiles` tells which have two"
        case "column-0" | "column-1" if version is None:
            return "Milvus compares whole vectors; `python -m indexer.build` makes an index on disk, of which halves are compared"
    return None
