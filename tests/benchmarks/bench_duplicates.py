"""Near-duplicates of photographs that are changed a little, found by FC7 and by perceptual hashes: `make bench-duplicates`.

    python tests/benchmarks/bench_duplicates.py --data caltech --part test --model owt

The photographs are halved by their SHA-256. In each half every photograph is the collection, and each of `--sources` of them is
changed in every way of CHANGES and looked for. A pair of a changed photograph and one of the collection is right where the second
is what the first was made from. Every method has one threshold, chosen on the first half: the largest at which no more than WRONG
of its photographs, as they are, are linked to another. The table is of the second half, by those thresholds.

Recall is the share of changed photographs whose own pair is within the threshold, precision the share of right pairs among those
within it. Of photographs that are copies of each other to begin with, mirrored perhaps, one is kept: of those whose 32 x 32
pixels differ by less than COPIES, as a root mean square.

The network should not have been trained on the photographs. The codes' autoencoder is trained on FC7 of the first half.
"""

import argparse
import hashlib
import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import imagehash  # noqa: E402
import numpy as np  # noqa: E402
import PIL  # noqa: E402
import torch  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from PIL import Image, ImageDraw, ImageOps  # noqa: E402

from indexer.codes import autoencoder  # noqa: E402
from indexer.grouping.copies import Change, Picture, brightened, cropped, recompressed, scaled  # noqa: E402
from tests.benchmarks.machine import heading  # noqa: E402
from training import checkpoint  # noqa: E402
from training.checkpoint import Model  # noqa: E402
from training.images.folders import list_examples, read_bytes  # noqa: E402
from training.images.preprocess import ImageLimits, decode  # noqa: E402
from training.program import keep_freed_memory, progress  # noqa: E402

WRONG: Final = 0.01
COPIES: Final = 12.0  # of 255; at 10.7 there are two scans of one photograph in Caltech-101, at 12.1 two photographs
BITS: Final = 128
_QUALITY: Final = 90  # of a changed photograph's JPEG file
_BATCH: Final = 64
_HASHES: Final = {"pHash": imagehash.phash, "dHash": imagehash.dhash, "wHash": imagehash.whash}
_LIMITS: Final = ImageLimits()
Matrix = NDArray[np.float64]


def turned(degrees: float) -> Change:
    """Turned about its centre, the corners black."""
    return lambda picture: picture.rotate(degrees, Image.Resampling.BICUBIC)


def captioned(picture: Picture) -> Picture:
    """With a line of text on white over its lowest tenth."""
    picture = picture.copy()
    height = max(8, picture.height // 10)
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, picture.height - height, *picture.size), fill="white")
    draw.text((4, picture.height - height), "a photograph of ours", fill="black", font_size=0.8 * height)
    return picture


CHANGES: Final[dict[str, Change]] = {
    "JPEG of quality 70": recompressed(70),
    "JPEG of quality 50": recompressed(50),
    "JPEG of quality 30": recompressed(30),
    "scaled to 50 %": scaled(0.5),
    "scaled to 75 %": scaled(0.75),
    "scaled to 150 %": scaled(1.5),
    "2 % cropped off": cropped(0.02),
    "5 % cropped off": cropped(0.05),
    "10 % cropped off": cropped(0.1),
    "10 % brighter": brightened(1.1),
    "20 % brighter": brightened(1.2),
    "20 % darker": brightened(0.8),
    "turned by 2 degrees": turned(2),
    "with a caption": captioned,
    "mirrored": ImageOps.mirror,
}


@dataclass(frozen=True)
class Descriptors:
    """What the methods know of some photographs, row by row."""

    features_ND: NDArray[np.float32]
    hashes: dict[str, NDArray[np.bool_]]  # (N, bits), by the name of the hash


@dataclass(frozen=True)
class Half:
    """A collection, and what is looked for in it: the changed photographs of each change, made from the sources in order."""

    collection: Descriptors
    sources: NDArray[np.int64]  # rows of the collection
    changed: dict[str, Descriptors]


def jpeg(picture: Picture, quality: int = _QUALITY) -> bytes:
    """The bytes of a JPEG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def without_copies(files: Sequence[bytes]) -> list[bytes]:
    """Photographs of which none is a copy of one before it, nor a mirrored one, of which Caltech-101 has a hundred."""
    small = [Image.open(io.BytesIO(data)).convert("RGB").resize((32, 32), Image.Resampling.BOX) for data in files]
    pixels_NYXC = np.stack([np.asarray(picture, np.float64) for picture in small])
    rows_NP, mirrored_NP = (pixels.reshape(len(files), -1) for pixels in (pixels_NYXC, pixels_NYXC[:, :, ::-1]))
    squares_N = np.square(rows_NP).sum(1)
    is_copy = np.zeros(len(files), np.bool_)
    for others_NP in (rows_NP, mirrored_NP):
        means_NN = (squares_N[:, None] + squares_N - 2 * rows_NP @ others_NP.T) / rows_NP.shape[1]
        is_copy |= np.tril(means_NN < COPIES**2, -1).any(1)
    return [data for data, copy in zip(files, is_copy, strict=True) if not copy]


def describe(model: Model, files: Sequence[bytes], what: str) -> Descriptors:
    """The descriptors of photographs, given as files."""
    features: list[NDArray[np.float32]] = []
    hashes: dict[str, list[NDArray[np.bool_]]] = {name: [] for name in _HASHES}
    waiting = progress(files, len(files), what)
    while batch := list(islice(waiting, _BATCH)):
        features.append(model.fc7(torch.stack([decode(data, _LIMITS).pixels_CHW for data in batch])).numpy())
        for data in batch:
            picture = Image.open(io.BytesIO(data)).convert("RGB")
            for name, hash_of in _HASHES.items():
                hashes[name].append(hash_of(picture).hash.reshape(-1))
    return Descriptors(np.concatenate(features), {name: np.stack(rows) for name, rows in hashes.items()})


def read_half(model: Model, files: Sequence[bytes], sources: int, name: str) -> Half:
    """Describes one half; the sources are the first by hash."""
    rows = np.arange(min(sources, len(files)))
    pictures = [Image.open(io.BytesIO(data)).convert("RGB") for data in files[:sources]]
    changed = {}
    for change, made in CHANGES.items():
        changed[change] = describe(model, [jpeg(made(picture)) for picture in pictures], f"{name}, {change}")
    return Half(describe(model, files, f"{name}, as they are"), rows, changed)


def methods(encoder: autoencoder.Autoencoder) -> dict[str, Callable[[Descriptors, Descriptors], Matrix]]:
    """Distances (Q, N) between all of one and all of another, by the name of the method."""

    def euclidean(one: Descriptors, other: Descriptors) -> Matrix:
        a_QD, b_ND = one.features_ND.astype(np.float64), other.features_ND.astype(np.float64)
        squared = np.square(a_QD).sum(1)[:, None] + np.square(b_ND).sum(1) - 2 * (a_QD @ b_ND.T)
        root: Matrix = np.sqrt(np.maximum(squared, 0))
        return root

    def cosine(one: Descriptors, other: Descriptors) -> Matrix:
        a_QD, b_ND = (d.features_ND / np.linalg.norm(d.features_ND, axis=1, keepdims=True) for d in (one, other))
        distances: Matrix = 1 - (a_QD @ b_ND.T).astype(np.float64)
        return distances

    def codes(one: Descriptors, other: Descriptors) -> Matrix:
        bits = (np.unpackbits(encoder.encode(d.features_ND), axis=1).astype(np.bool_) for d in (one, other))
        return hamming(*bits)

    def by_hash(name: str) -> Callable[[Descriptors, Descriptors], Matrix]:
        return lambda one, other: hamming(one.hashes[name], other.hashes[name])

    ours = {"FC7, Euclidean": euclidean, "FC7, cosine": cosine, f"codes of {BITS} bits": codes}
    return ours | {name: by_hash(name) for name in _HASHES}


def hamming(one_QB: NDArray[np.bool_], other_NB: NDArray[np.bool_]) -> Matrix:
    """Bits in which rows differ, (Q, N)."""
    a_QB, b_NB = one_QB.astype(np.float64), other_NB.astype(np.float64)
    distances: Matrix = a_QB.sum(1)[:, None] + b_NB.sum(1) - 2 * (a_QB @ b_NB.T)
    return distances


def right_and_wrong(distances_QN: Matrix, sources: NDArray[np.int64]) -> tuple[Matrix, Matrix]:
    """The distances of right pairs, and of wrong ones."""
    right = np.zeros(distances_QN.shape, np.bool_)
    right[np.arange(len(sources)), sources] = True
    return distances_QN[right], distances_QN[~right]


def nearest_others(distances_NN: Matrix) -> Matrix:
    """How far each photograph of a collection is from the nearest other, (N,)."""
    others: Matrix = np.where(np.eye(len(distances_NN), dtype=np.bool_), np.inf, distances_NN).min(1)
    return others


def choose(right: Matrix, nearest_N: Matrix) -> float:
    """The largest distance of a right pair that no more than WRONG of the photographs are within of another; -1 for none."""
    thresholds = np.unique(right)
    good = thresholds[np.searchsorted(np.sort(nearest_N), thresholds, "right") <= WRONG * len(nearest_N)]
    return float(good[-1]) if len(good) else -1.0


def figures(right: Matrix, wrong: Matrix, threshold: float) -> tuple[float, float]:
    """Recall and precision; a precision of nothing is 1."""
    found, false = int((right <= threshold).sum()), int((wrong <= threshold).sum())
    return found / len(right), found / (found + false) if found + false else 1.0


def report(choosing: Half, testing: Half, encoder: autoencoder.Autoencoder) -> str:
    """The table of the second half, in Markdown."""
    ways = methods(encoder)
    rows: dict[str, list[str]] = {name: [] for name in (*CHANGES, "all together", "linked as they are", "threshold")}
    for distances in ways.values():
        pairs = [right_and_wrong(distances(half, choosing.collection), choosing.sources) for half in choosing.changed.values()]
        threshold = choose(
            np.concatenate([right for right, _ in pairs]),
            nearest_others(distances(choosing.collection, choosing.collection)),
        )
        pairs = [right_and_wrong(distances(half, testing.collection), testing.sources) for half in testing.changed.values()]
        everything = tuple(np.concatenate(parts) for parts in zip(*pairs, strict=True))
        for change, (right, wrong) in zip((*CHANGES, "all together"), (*pairs, everything), strict=True):
            rows[change].append("{:.3f} / {:.3f}".format(*figures(right, wrong, threshold)))
        linked = nearest_others(distances(testing.collection, testing.collection)) <= threshold
        rows["linked as they are"].append(f"{linked.mean():.4f}")
        rows["threshold"].append(f"{threshold:.4g}")
    lines = [f"| recall / precision | {' | '.join(ways)} |", "|---" * (len(ways) + 1) + "|"]
    lines += [f"| {change} | {' | '.join(cells)} |" for change, cells in rows.items()]
    length = float(np.median(np.linalg.norm(choosing.collection.features_ND, axis=1)))
    lines.append(f"\nThe median length of FC7 in the first half is {length:.4g}.")
    return "\n".join(lines)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="photographs, in a folder as training.train takes it")
    parser.add_argument("--part", choices=("all", "train", "test"), default="all")
    parser.add_argument("--model", type=Path, required=True, help="model folder")
    parser.add_argument("--sources", type=int, default=150, help="photographs of each half that are changed and looked for")
    arguments = parser.parse_args()
    keep_freed_memory()
    print(heading((), f"imagehash {imagehash.__version__}", f"Pillow {PIL.__version__}"), flush=True)
    model = checkpoint.load(arguments.model)
    examples = list_examples(arguments.data, arguments.part)
    files = {hashlib.sha256(data).hexdigest(): data for data in (read_bytes(arguments.data, e.path, _LIMITS) for e in examples)}
    # by the end of the hash: the beginning is what tells a training from a test photograph
    ordered = sorted(files, key=lambda sha256: sha256[::-1])
    halves = [without_copies([files[sha256] for sha256 in ordered if (sha256[-1] < "8") == first]) for first in (True, False)]
    print(f"{len(halves[0])} photographs to choose thresholds, {len(halves[1])} to test; {arguments.sources} of each changed")
    choosing, testing = (
        read_half(model, half, arguments.sources, name) for half, name in zip(halves, ("choosing", "testing"), strict=True)
    )
    encoder = autoencoder.train(choosing.collection.features_ND, BITS)
    print(report(choosing, testing, encoder))


if __name__ == "__main__":
    main()
