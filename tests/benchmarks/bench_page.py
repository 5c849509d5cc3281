"""The page in a real browser on a large made-up index: `make bench-page`.

    python tests/benchmarks/bench_page.py --items 10000

The time is from asking for the address to the tab being there, from when on it can be used: nothing in it is `aria-busy`. Each
visit is a new window, with an empty cache. Rows and thumbnails are made up, the network is small: neither is what is timed.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from playwright.sync_api import Browser, sync_playwright  # noqa: E402

from indexer.assembly import Plan, Source, assemble  # noqa: E402
from indexer.features import FeatureBlock, FileFacts  # noqa: E402
from tests.benchmarks.machine import heading  # noqa: E402
from tests.browser.visit import serving  # noqa: E402
from tests.conftest import SmallConfig, encoded, photograph  # noqa: E402
from training import checkpoint  # noqa: E402
from training.images.preprocess import ImageLimits  # noqa: E402
from training.network.alexnet import AlexNet  # noqa: E402
from training.network.initialisation import initialise  # noqa: E402

PLACES: Final = ("", "#/search?photo=5", "#/units", "#/collection", "#/collection?label=label+7", "#/status")
LABELS: Final = 100
_BLOCK: Final = 1000


def block(first: int, rows: int, width: int) -> FeatureBlock:
    """Made-up photographs from a number on."""
    rng = np.random.default_rng(first)
    thumbnails = [encoded(photograph(number % 50, size=(160, 160))) for number in range(first, first + rows)]
    files = [
        FileFacts(
            path=f"label {number % LABELS}/{number:06d}.jpg", label=f"label {number % LABELS}", size=1, width=160, height=160,
            format="JPEG", sha256=f"{number:064x}", thumbnail_size=len(thumbnail),
        )
        for number, thumbnail in enumerate(thumbnails, first)
    ]  # fmt: skip
    features_ND = np.maximum(rng.normal(size=(rows, width)), 0).astype(np.float32)
    return FeatureBlock(features_ND, None, files, b"".join(thumbnails), [])


def make(folder: Path, items: int) -> tuple[Path, Path]:
    """A small model, and an index of so many items."""
    model, index = folder / "model", folder / "index"
    net = AlexNet(SmallConfig(classes=3))
    initialise(net, "fan-in", seed=1)
    checkpoint.save(model, net.eval(), ["a", "b", "c"], torch.full((3, 256, 256), 110.0))
    index.mkdir()
    width = 32
    source = Source(folder, checkpoint.load(model).fingerprint, width, ImageLimits())
    assemble(index, (block(first, min(_BLOCK, items - first), width) for first in range(0, items, _BLOCK)), source, Plan(bits=0))
    return model, index


def seconds(browser: Browser, address: str, place: str) -> float:
    """From asking for a place in a new window to its being there."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    page = context.new_page()
    start = time.perf_counter()
    page.goto(f"{address}/{place}", wait_until="commit")
    page.wait_for_selector("main[aria-busy=false]:not(:has([aria-busy=true]))")
    spent = time.perf_counter() - start
    context.close()
    return spent


def main() -> None:
    """Makes the index, and visits each place several times."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--items", type=int, default=10_000, help="photographs in the index")
    parser.add_argument("--visits", type=int, default=7, help="of each place, in turns")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        model, index = make(Path(folder), arguments.items)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        print(heading((), f"chromium {browser.version}"))
        with serving(model, index) as address:
            times: dict[str, list[float]] = {place: [] for place in PLACES}
            for _ in range(arguments.visits):
                for place in PLACES:
                    times[place].append(seconds(browser, address, place))
        browser.close()
    print(f"| place, {arguments.items} items | first visit of the service | median | slowest |\n|---|---|---|---|")
    for place, (first, *others) in times.items():
        print(f"| `/{place}` | {first:.2f} s | {statistics.median(others):.2f} s | {max(others):.2f} s |")


if __name__ == "__main__":
    main()
