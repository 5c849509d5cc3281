"""Made-up blocks of features for tests: no photographs, no network; and what is asked of hits and files."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from indexer.assembly import Plan, Source, assemble
from indexer.features import FeatureBlock, FileFacts
from indexer.index import open_index
from indexer.storage import artifact
from indexer.store import Filter, Hits
from training.images.preprocess import ImageLimits

WIDTH = 32
SEGMENT = (
    artifact.VECTORS,
    artifact.CODES,
    artifact.COMPONENTS,
    artifact.LENGTHS,
    artifact.CATALOG,
    artifact.THUMBNAILS,
)
SOURCE = Source(Path("/c"), "m" * 64, WIDTH, ImageLimits(max_image_bytes=1, max_image_pixels=1))
FIRST_TIME = datetime(2026, 1, 1, tzinfo=UTC)
LABELS = ("apple", "pear", 'it\'s "quoted" %_')


def features(rows: int, seed: int = 0, width: int = WIDTH) -> np.ndarray:
    """Sparse, not negative, with equal rows among them: float32 (rows, width)."""
    rng = np.random.default_rng(seed)
    x_ND = np.maximum(rng.normal(size=(rows, width)), 0).astype(np.float32) * 5
    x_ND[rows // 2 : rows // 2 + rows // 8] = x_ND[: rows // 8]
    return x_ND


def at_an_odd_address(array: np.ndarray) -> np.ndarray:
    """The same numbers, none of which lies at a multiple of its size, as in a mapped file of FAISS."""
    data = np.empty(array.nbytes + 1, np.uint8)
    odd: np.ndarray = np.ndarray(array.shape, array.dtype, data[1 - data.ctypes.data % 2 :].data)
    odd[:] = array
    assert odd.ctypes.data % 2 == 1
    return odd


def block(features_ND: np.ndarray, first: int = 0, pixels: bool = False) -> FeatureBlock:
    """A block of photographs named after their number, from `first` on."""
    files, thumbnails = [], []
    for number in range(first, first + len(features_ND)):
        thumbnails.append(b"thumbnail %d" % number)
        files.append(
            FileFacts(
                path=f"{number:05d}.jpg",
                label=LABELS[number % len(LABELS)],
                size=1000 + number,
                width=96,
                height=72,
                format="JPEG",
                sha256=hashlib.sha256(b"%d" % number).hexdigest(),
                thumbnail_size=len(thumbnails[-1]),
            )
        )
    raw = np.random.default_rng(first).integers(0, 256, (len(features_ND), 3072), np.uint8) if pixels else None
    return FeatureBlock(features_ND, raw, files, b"".join(thumbnails), [])


def passes(item: int, filter: Filter, added: datetime = FIRST_TIME) -> bool:
    """Whether a photograph of `block` passes a filter."""
    label = LABELS[item % len(LABELS)]
    wanted = not filter.labels or label in filter.labels
    wanted &= (filter.added_after is None or added >= filter.added_after) and (
        filter.added_before is None or added < filter.added_before
    )
    return wanted and label not in filter.exclude_labels and f"{item:05d}.jpg".startswith(filter.path_prefix)


def two_stage_index(folder: Path, fingerprint: str = "m" * 64, width: int = WIDTH) -> np.ndarray:
    """Makes an index of 3400 items whose short-list is 50 long, so that two stages are two stages; returns their vectors.

    The items are two segments; row i is the item with the id i. There are no codes, which take minutes to train.
    """
    x_ND = features(3400, width=width)
    folder.mkdir(exist_ok=True)
    blocks = [block(x_ND[start : start + 1000], start) for start in range(0, 3000, 1000)]
    assemble(folder, blocks, Source(Path("/c"), fingerprint, width, ImageLimits()), Plan(bits=0))
    store, _ = open_index(folder).add([block(x_ND[3000:], 3000)], Path("/c"))
    assert store.manifest.shortlist is not None
    assert store.manifest.shortlist.length < min(store.manifest.segments)
    store.close()
    return x_ND


def check(hits: Hits, row: int, expected: list[tuple[int, float]]) -> None:
    """Ids in order, and distances, are as expected."""
    got = hits.of(row)
    assert [item for item, _, _ in got] == [item for item, _ in expected]
    np.testing.assert_allclose([distance for _, distance, _ in got], [distance for _, distance in expected], rtol=1e-6)
