"""FC7 codes against raw-pixel codes (section 6.1, its end).

The paper: images are alike where their FC7 vectors are near by Euclidean distance, and an autoencoder that makes short binary
codes of those should beat one on raw pixels, which retrieves similar patterns of edges whether or not they mean the same. Here:
the index's autoencoder of 128 bits on FC7 of AlexNet-67's centre views, and on the same photographs at 32 x 32 pixels. Training
photographs are the database, test photographs the queries; relevant is what has the query's class, and a query of a class that
the database has not is left out. mAP over the whole ranking and precision at 10 are expected over orders of equal distances; a
bootstrap over queries stands beside the interval over seeds. In a second arm the network learns the classes of even number
alone, and database and queries are of the others. Beside: FC7 itself, by distance and by angle; ITQ of its rows at length 1;
FC7 before training; raw pixels; histograms of colours, by Hellinger. It would be nothing if codes of FC7 found no more than
codes of raw pixels. The paper gives no figure.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import torch

from indexer.codes import autoencoder, baselines
from indexer.evaluation.intervals import Resamples
from indexer.evaluation.protocol import GroundTruth, Measurement
from indexer.features import colour_histogram, raw_pixels
from training.claims import trainer
from training.claims.claim import Claim, Comparison, Left, Results
from training.claims.measuring import features
from training.claims.networks import CALTECH
from training.claims.pixels import Pixels

BITS = 128
KEYS = {"mAP": ("map", 0), "P@10": ("precision", 10)}
CODES, PIXEL_CODES = "FC7 codes", "raw-pixel codes"
FC7, ANGLE, ITQ, UNTRAINED, RAW, COLOURS = BESIDE = ("FC7", "FC7 by angle", "ITQ", "untrained FC7", "raw pixels", "colours")
ARMS = {"labels seen": CALTECH, "labels never seen": CALTECH.model_copy(update={"half_of_classes": True})}


def measure(results: Results) -> list[Comparison]:
    """What codes of FC7 find more than codes of raw pixels, and than what stands beside."""
    seeds = range(results.seeds)
    of_arms = {name: [results.figures("codes", arm, seed) or {} for seed in seeds] for name, arm in ARMS.items()}
    rows = [row for name, figures in of_arms.items() for key in KEYS for row in _less(key, PIXEL_CODES, name, figures)]
    return rows + [row for name, figures in of_arms.items() for other in BESIDE for row in _less("mAP", other, name, figures)]


def examine(left: Left) -> dict[str, float]:
    """Each figure of each way, where so few photographs have it, and the interval over queries of the difference."""
    parts = (left.train, left.test)
    held, asked = (some.only(some.labels_N % 2 == 1) for some in parts) if left.arm.half_of_classes else parts
    asked = asked.only(torch.isin(asked.labels_N, held.labels_N))
    if not len(asked):
        return {}
    runs, resamples, figures = dict(_ways(left, held, asked)), Resamples.of(len(asked)), dict[str, float]()
    for key, of in KEYS.items():
        known = {name: run.values[of] for name, run in runs.items() if of in run.values}
        figures |= {f"{key} {name}": float(values_Q.mean()) for name, values_Q in known.items()}
        if known:
            figures[f"{key} low"], figures[f"{key} high"] = resamples.interval(known[CODES] - known[PIXEL_CODES])
    return figures


def _ways(left: Left, held: Pixels, asked: Pixels) -> Iterator[tuple[str, Measurement]]:
    before = trainer.initial(left.net.config, left.seed).to(left.mean_CSS.device)
    fc7, untrained = ([features(net, some.squares_NCSS, left.mean_CSS) for some in (held, asked)] for net in (left.net, before))
    pixels = [raw_pixels(some.squares_NCSS.cpu()).astype(np.float32) for some in (held, asked)]
    colours = [colour_histogram(some.squares_NCSS.cpu()) for some in (held, asked)]
    truth = GroundTruth(held.labels_N.cpu().numpy(), asked.labels_N.cpu().numpy())
    for name, rows in {FC7: fc7, UNTRAINED: untrained, RAW: pixels, COLOURS: colours}.items():
        yield name, truth.measure_vectors(name, rows[0], rows[1], "Euclidean")[0]
    yield ANGLE, truth.measure_vectors(ANGLE, fc7[0], fc7[1], "cosine")[0]
    coders = [(name, rows, autoencoder.train(rows[0], BITS, left.seed)) for name, rows in ((CODES, fc7), (PIXEL_CODES, pixels))]
    lengths = (BITS,) if np.ptp(fc7[0], 0).any() else ()  # no ITQ of rows that are all one, nor of fewer rows than bits
    fitted = baselines.fit(fc7[0], lengths, (left.seed,), raw_rows=False)
    for name, rows, coder in (*coders, *((name, fc7, coders[left.seed]) for name, _, coders in fitted if name == ITQ)):
        yield name, truth.measure_codes(coder.encode(rows[0]), coder.encode(rows[1]), np.empty((len(asked), 0), np.int64))


def _less(key: str, other: str, name: str, of_seeds: list[Mapping[str, float]]) -> Iterator[Comparison]:
    if known := [figures for figures in of_seeds if f"{key} {other}" in figures]:
        codes, others = (np.array([100 * figures[f"{key} {way}"] for figures in known]) for way in (CODES, other))
        note = f"{codes.mean():.1f} and {others.mean():.1f}"
        if other == PIXEL_CODES:
            low, high = min(figures[f"{key} low"] for figures in known), max(figures[f"{key} high"] for figures in known)
            note += f"; over queries, all seeds' intervals lie within [{100 * low:+.1f}, {100 * high:+.1f}]"
        yield Comparison(f"{key}, {CODES} less {other}, {name}", "precision", (codes - others).tolist(), note=note)


CLAIM = Claim(
    name="codes",
    section="6.1b",
    says="Codes of FC7 retrieve better than codes of raw pixels",
    published="should be better, no figure",
    nothing="codes of FC7 find no more than codes of raw pixels",
    arms=ARMS,
    measure=measure,
    examine=examine,
    seeds=3,
)
