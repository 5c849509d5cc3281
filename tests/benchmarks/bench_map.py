"""Maps of made-up features by several libraries, how long they take and how true they are; and how fast the page moves one.

    python tests/benchmarks/bench_map.py --rows 10000
    python tests/benchmarks/bench_map.py --rows 100000 --page

Every library gets the same rows: the principal components in bytes of synthetic FC7 (mixture.py), or of an index (`--index`).
Trustworthiness and recall are of 10 neighbours of `--queries` rows, each among all, by the vectors themselves. Seconds are those
of the processor, all threads together. Libraries other than openTSNE and scikit-learn are not among our dependencies.

`--page` moves the map of so many made-up points by a key press a frame for SECONDS, in a window of 1280 x 900 of Debian's
chromium, and counts frames; its line says what draws: without a graphics card that is SwiftShader, on the processor.
"""

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from playwright.sync_api import Route, sync_playwright  # noqa: E402

from indexer.analysis import layout  # noqa: E402
from indexer.arrays import Components, Vectors, sample  # noqa: E402
from indexer.codes import principal  # noqa: E402
from indexer.index import open_index  # noqa: E402
from tests.benchmarks.machine import heading  # noqa: E402
from tests.benchmarks.mixture import Mixture  # noqa: E402
from tests.browser.visit import serving  # noqa: E402

ITEMS_PER_CLUSTER: Final = 50
K: Final = 10
SECONDS: Final = 8
WINDOW: Final = {"width": 1280, "height": 900}
COUNT_FRAMES: Final = """seconds => new Promise((done) => {
  const stage = document.querySelector(".stage");
  const times = [];
  const keys = ["ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"];
  const step = (now) => {
    times.push(now);
    if (now - times[0] > 1000 * seconds) return done(times);
    const key = keys[(times.length >> 4) % 4];
    stage.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
    requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
})"""
RENDERER: Final = """() => {
  const gl = document.querySelector("canvas.points").getContext("webgl2");
  return gl ? gl.getParameter(gl.getExtension("WEBGL_debug_renderer_info").UNMASKED_RENDERER_WEBGL) : "a plain canvas";
}"""
Rows = Callable[[], Iterator[Vectors]]


def tsne(rows: Vectors, seed: int) -> Any:
    """scikit-learn's t-SNE by Barnes and Hut."""
    from sklearn.manifold import TSNE

    return TSNE(init="pca", random_state=seed).fit_transform(rows)


def umap(rows: Vectors, seed: int) -> Any:
    """umap-learn, as it is."""
    from umap import UMAP

    return UMAP(random_state=seed).fit_transform(rows)


def pacmap(rows: Vectors, seed: int) -> Any:
    """PaCMAP, as it is."""
    from pacmap import PaCMAP

    return PaCMAP(random_state=seed).fit_transform(rows, init="pca")


def localmap(rows: Vectors, seed: int) -> Any:
    """LocalMAP, as it is."""
    from pacmap import LocalMAP

    return LocalMAP(random_state=seed).fit_transform(rows, init="pca")


def trimap(rows: Vectors, seed: int) -> Any:
    """TriMap, as it is; it takes no seed."""
    from trimap import TRIMAP

    return TRIMAP().fit_transform(rows)


def pymde(rows: Vectors, seed: int) -> Any:
    """PyMDE, preserving neighbours."""
    import pymde as library

    library.seed(seed)
    return library.preserve_neighbors(torch.from_numpy(rows)).embed().numpy()


METHODS: Final[dict[str, Callable[[Vectors, int], Any]]] = {
    "components": lambda rows, seed: rows[:, :2],
    "ours": lambda rows, seed: layout.by_tsne((rows + 128).astype(np.uint8), seed),
    "scikit-learn": tsne,
    "umap": umap,
    "pacmap": pacmap,
    "localmap": localmap,
    "trimap": trimap,
    "pymde": pymde,
}


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000, help="made-up rows")
    parser.add_argument("--index", type=Path, help="an index whose rows are placed instead")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--page", action="store_true", help="count the page's frames instead")
    arguments = parser.parse_args()
    print(heading(["avx2", "avx512f"], f"load {os.getloadavg()[0]:.1f}"))
    if arguments.page:
        return print_frames(arguments.rows)
    components_NP, vectors = rows_of(arguments)
    rows_NP = components_NP.astype(np.float32) - 128
    queries = np.sort(np.random.default_rng(7).permutation(len(rows_NP))[: arguments.queries])
    print(f"{len(rows_NP)} rows of {rows_NP.shape[1]} components\n")
    print(f"| method | s | trustworthiness | recall@{K} |\n|---|---|---|---|")
    for name in arguments.methods.split(","):
        began = time.process_time()
        places_N2 = np.asarray(METHODS[name](rows_NP, arguments.seed), np.float64)
        seconds = time.process_time() - began
        trustworthiness, recall = layout.measure(layout.within(places_N2), queries, vectors, K)
        print(f"| {name} | {seconds:.1f} | {trustworthiness:.4f} | {recall:.3f} |", flush=True)
    return None


def rows_of(arguments: argparse.Namespace) -> tuple[Components, Rows]:
    """Principal components, and what gives the vectors that they are of, a block at a time."""
    if arguments.index:
        store = open_index(arguments.index)
        vectors_ND = store.vectors(store.ids().tolist())
        return principal.train(vectors_ND, 0).encode(vectors_ND)[0], lambda: iter([vectors_ND])
    mixture = Mixture(arguments.rows, ITEMS_PER_CLUSTER)
    wanted = sample(arguments.rows, np.random.default_rng(0))
    basis = principal.train(np.concatenate(list(layout.chosen(mixture.blocks(), wanted))), 0)
    return np.concatenate([basis.encode(block)[0] for block in mixture.blocks()]), mixture.blocks


def print_frames(count: int) -> None:
    """Moves a map of so many points in 100 clusters, and prints the frames a second."""
    rng = np.random.default_rng(0)
    numbers_N = rng.integers(0, 100, count)
    places_N2 = layout.within(rng.normal(0, 8, (100, 2))[numbers_N] + rng.normal(0, 1, (count, 2)))
    parts = [np.array([count], "<u4"), np.ones(count, "<u4"), places_N2.T.astype("<u2"), numbers_N.astype("<u2")]
    points = b"FC7P" + b"".join(part.tobytes() for part in parts)
    labels = [{"label": f"label {number}", "count": int((numbers_N == number).sum())} for number in range(100)]
    answer = {"labels": labels, "shown": count, "since": 0, "removed": 0, "method": "t-SNE", "library": "", "parameters": {}}
    answer |= {"neighbors": 0, "model": "made up", "layer": "fc7", "index_version": 1, "points": "/map/points?state=0"}

    def fulfil(route: Route) -> None:
        if "/map/points?" in route.request.url:
            route.fulfill(body=points, content_type="application/octet-stream")
        else:
            route.fulfill(body=json.dumps(answer), content_type="application/json")

    with serving(Path("none"), Path("none")) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport=WINDOW)  # type: ignore[arg-type]
        page.route(f"{address}/map", fulfil)
        page.route(f"{address}/map/points?*", fulfil)
        began = time.monotonic()
        page.goto(f"{address}/#/map")
        page.wait_for_selector(".stage[aria-busy=false]")
        print(
            f"\n{count} points, {len(points)} bytes: there after {time.monotonic() - began:.1f} s, by {page.evaluate(RENDERER)}"
        )
        for zoom in (1, 4):
            page.goto(f"{address}/#/map?zoom={zoom}")
            page.wait_for_selector(".stage[aria-busy=false]")
            times = np.diff(page.evaluate(COUNT_FRAMES, SECONDS))
            rate, late = 1000 / times.mean(), np.quantile(times, 0.95)
            print(f"zoom {zoom}: {rate:.0f} frames a second, 95 % of the frames within {late:.0f} ms")
        browser.close()


if __name__ == "__main__":
    main()
