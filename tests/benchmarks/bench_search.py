"""Searches beside FAISS's flat indexes, in turns: `make bench-search`. For a quiet machine.

exact      one query, and 256 together, against float32 rows of the harder mixture (tests/benchmarks/mixture.py): IndexFlatL2,
           whose single query uses one thread; a matrix product with both; indexer.scan where the rows lie in an index's file, and
           where they lie at multiples of their numbers' size.
columns    one query against whole rows as they lie in an index's file, and against one half of each, where it lies and copied
           out of the rows; by distance and by the angle of what is compared; with native.c, then with NumPy.
hamming    one query against random codes of 128 bits, exact, ties in order: IndexBinaryFlat; indexer.scan.
two-stage  one query against an index made as `indexer.build` makes it, autoencoder and all: IndexFlatL2, then each short-list, as
           long as the build chose it; recall@10 is against exact search, of queries that are not in the index. Both mixtures, and
           vectors of real indexes: --features TRAIN.faiss TEST.faiss, as often as wanted.
metric     one query in two stages against two indexes of the same features, by Euclidean distance and by cosine. Queries are
           features, so that the second takes them to length 1 each time.
grow       adding 1 % of the rows to an index of the rest, beside building one of all.
million    an index of 1 000 000 rows built and searched by a process that may not allocate more than 6 GiB; 20 GB of disk.
           Resident beyond that are pages of mapped files, which the system takes back when it needs them.

The peer's index and ours see the same queries. A turn is a call that does not count and `--queries` that do, of 256 queries
together 2; medians are of all.

Tried, and not kept: distances in float64 throughout (bound by arithmetic: 135 ms of a core for 100 000 rows, 63 with float32
first); reading ahead by prefetch instructions in the exact scan (up to 20 % slower); a look at the sum after every 256 or 512
components instead of at each doubling (up to 50 % slower where few rows can be left early); headers that put the rows of FAISS's
files at multiples of 64 bytes, for which it has only wrappers: where they lie, the exact scan takes 2 % longer.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import faiss  # noqa: E402
import numpy as np  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

from indexer.arrays import aligned  # noqa: E402
from indexer.assembly import Plan, Source, assemble  # noqa: E402
from indexer.index import Index, open_index  # noqa: E402
from indexer.metric import Metric, lengths_of, vectors_of  # noqa: E402
from indexer.scans import native, scan  # noqa: E402
from indexer.search import shortlists  # noqa: E402
from indexer.storage import artifact  # noqa: E402
from indexer.storage import flat as flat_files  # noqa: E402
from indexer.storage.draft import Draft  # noqa: E402
from indexer.storage.flat import Flat, FlatWriter, open_flat  # noqa: E402
from indexer.storage.segment import code_bytes  # noqa: E402
from indexer.store import Query  # noqa: E402
from tests.benchmarks.machine import heading  # noqa: E402
from tests.benchmarks.mixture import Mixture  # noqa: E402
from tests.indexer.synthetic import block  # noqa: E402
from training.images.preprocess import ImageLimits  # noqa: E402
from training.program import keep_freed_memory  # noqa: E402

WIDTH: Final = 4096
INSTRUCTIONS: Final = ("avx2", "avx512f", "avx512_vpopcntdq", "avx512_vnni")
BITS: Final = 128
K: Final = 10
BLOCK_ROWS: Final = 1000
TOGETHER: Final = 256  # queries
CALLS_TOGETHER: Final = 2  # a turn
EASY, HARD = 50, 5  # items a cluster
MEMORY: Final = 6 * 2**30
SOURCE: Final = Source(Path("/c"), "m" * 64, WIDTH, ImageLimits())
Vectors = NDArray[np.float32]
Search = Callable[[int], Any]  # by the number of the query


def in_turns(ways: dict[str, Search], rounds: int, calls: int) -> dict[str, list[float]]:
    """Seconds of every call of each way."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds):
        for name, search in ways.items():
            search(turn)
            for call in range(calls):
                started = time.perf_counter()
                search(turn * calls + call)
                seconds[name].append(time.perf_counter() - started)
    return seconds


def report(seconds: dict[str, list[float]], notes: dict[str, str] | None = None) -> None:
    """A line a way; the first is what the others are compared with."""
    first = statistics.median(next(iter(seconds.values())))
    for name, values in seconds.items():
        median, p95 = statistics.median(values), float(np.quantile(values, 0.95))
        note = (notes or {}).get(name, "")
        print(f"  {name:22}{1e3 * median:9.3f} ms p50  {1e3 * p95:9.3f} p95  {first / median:7.1f}x  {note}", flush=True)


def flat(vectors_ND: Vectors) -> tuple[Any, Vectors]:
    """FAISS's flat index and its own array, so that there is but one copy."""
    index = faiss.IndexFlatL2(vectors_ND.shape[1])
    index.add(np.ascontiguousarray(vectors_ND))
    return index, faiss.rev_swig_ptr(index.get_xb(), vectors_ND.size).reshape(vectors_ND.shape)


def stored(rows: NDArray[Any], kind: Flat, folder: str) -> NDArray[Any]:
    """The rows as an index has them: mapped from a file of FAISS's, at no multiple of their numbers' size."""
    path = Path(folder) / "rows.faiss"
    writer = FlatWriter(path, kind, rows.shape[1])
    writer.write(np.arange(len(rows)), rows)
    writer.close()
    return open_flat(path, kind, None)[1]


def bench_exact(arguments: argparse.Namespace) -> None:
    mixture = Mixture(arguments.rows, HARD)
    index, vectors_ND = flat(mixture.array())
    queries_QD = mixture.queries(TOGETHER)
    squares_N = np.einsum("nd,nd->n", vectors_ND, vectors_ND)

    def product(asked_QD: Vectors) -> NDArray[np.int64]:
        about_QN = squares_N - 2 * (asked_QD @ vectors_ND.T)
        nearest_QK = np.argpartition(about_QN, K)[:, :K]
        order_QK = np.take_along_axis(about_QN, nearest_QK, 1).argsort(1)
        rows_QK: NDArray[np.int64] = np.take_along_axis(nearest_QK, order_QK, 1)
        return rows_QK

    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        mapped_ND = stored(vectors_ND, flat_files.VECTORS, folder)
        for q in range(20):
            ours, theirs = scan.exact(mapped_ND, queries_QD[q : q + 1], K), index.search(queries_QD[q : q + 1], K)
            np.testing.assert_array_equal(ours[1], theirs[1])
        np.testing.assert_array_equal(scan.exact(mapped_ND, queries_QD, K)[1], product(queries_QD))
        ways: dict[str, Callable[[Vectors], Any]] = {
            "IndexFlatL2": lambda asked_QD: index.search(asked_QD, K),
            "matrix product": product,
            "ours": lambda asked_QD: scan.exact(mapped_ND, asked_QD, K),
            "ours, rows aligned": lambda asked_QD: scan.exact(vectors_ND, asked_QD, K),
        }
        for together, calls in ((1, arguments.queries), (TOGETHER, CALLS_TOGETHER)):
            print(f"\nexact: the {K} nearest of {arguments.rows} x {WIDTH} float32, queries together: {together}")
            blocks_QD = np.split(queries_QD, TOGETHER // together)

            def of(way: Callable[[Vectors], Any], blocks_QD: list[Vectors] = blocks_QD) -> Search:
                return lambda call: way(blocks_QD[call % len(blocks_QD)])

            report(in_turns({name: of(way) for name, way in ways.items()}, arguments.rounds, calls))


def bench_columns(arguments: argparse.Namespace) -> None:
    mixture, half = Mixture(arguments.rows, HARD), WIDTH // 2
    queries_QD = mixture.queries(TOGETHER)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        mapped_ND = stored(mixture.array(), flat_files.VECTORS, folder)

        def of(rows_ND: Vectors, by_angle: bool = False) -> Search:
            asked_QD = vectors_of(queries_QD[:, : rows_ND.shape[1]], "cosine" if by_angle else "euclidean")
            lengths_N = lengths_of(rows_ND) if by_angle else None
            return lambda q: scan.exact(rows_ND, asked_QD[q % TOGETHER : q % TOGETHER + 1], K, lengths_N=lengths_N)

        ways = {
            "whole rows": of(mapped_ND),
            "halves": of(mapped_ND[:, :half]),
            "halves, copied out": of(mapped_ND[:, :half].copy()),
            "whole rows by angle": of(mapped_ND, by_angle=True),
            "halves by angle": of(mapped_ND[:, :half], by_angle=True),
        }
        print(f"\ncolumns: the {K} nearest of {arguments.rows} x {WIDTH} float32 and of their first halves")
        report(in_turns(ways, arguments.rounds, arguments.queries))
        library, native.library = native.library, cache(lambda: None)
        print("  without native.c")
        report(in_turns({name: way for name, way in ways.items() if "copied" not in name}, 1, 2))
        native.library = library


def bench_hamming(arguments: argparse.Namespace) -> None:
    rng = np.random.default_rng(0)
    for rows in arguments.codes:
        index: Any = faiss.IndexBinaryFlat(BITS)
        index.add(rng.integers(0, 256, (rows, BITS // 8), np.uint8))
        codes_NW = faiss.rev_swig_ptr(index.xb.data(), rows * BITS // 8).reshape(rows, BITS // 8)
        queries_QW = rng.integers(0, 256, (100, BITS // 8), np.uint8)
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            mapped_NW = stored(codes_NW, flat_files.CODES, folder)
            for q in range(20):
                ours, theirs = scan.hamming(mapped_NW, queries_QW[q : q + 1], K), index.search(queries_QW[q : q + 1], K)
                np.testing.assert_array_equal(ours[0], theirs[0])
            print(f"\nhamming: the {K} nearest of {rows} codes of {BITS} bits, {BITS // 8} bytes an item")
            ways: dict[str, Search] = {
                "IndexBinaryFlat": lambda q, index=index, asked=queries_QW: index.search(asked[q % 100 : q % 100 + 1], K),  # type: ignore[misc]
                "ours": lambda q, codes=mapped_NW, asked=queries_QW: scan.hamming(codes, asked[q % 100 : q % 100 + 1], K),  # type: ignore[misc]
            }
            report(in_turns(ways, arguments.rounds, arguments.queries))


def feature_blocks(blocks: Iterable[Vectors]) -> Iterator[Any]:
    """Blocks of features as a build's extraction hands them over."""
    first = 0
    for block_ND in blocks:
        for start in range(0, len(block_ND), BLOCK_ROWS):
            rows_ND = block_ND[start : start + BLOCK_ROWS]
            yield block(rows_ND, first)
            first += len(rows_ND)


def build(folder: Path, blocks: Iterable[Vectors], kind: str, bits: int = BITS, metric: Metric = "euclidean") -> Index:
    assemble(folder, feature_blocks(blocks), SOURCE, Plan(bits=bits, shortlist=kind, metric=metric))
    return open_index(folder)


def with_shortlist(index: Index, kind: str, folder: Path) -> Index:
    """The same index with another short-list; its autoencoder is not trained again."""
    draft, manifest = Draft(folder), index.manifest.model_copy()
    draft.take_over(index.version, 1, without={artifact.PRINCIPAL, artifact.FAISS, artifact.COMPONENTS, artifact.LENGTHS})
    measurement = shortlists.make(draft, draft.segment(0), kind, BITS, seed=0)
    manifest.shortlist, manifest.recall = measurement.shortlist, measurement.recall
    draft.publish(manifest)
    return open_index(folder, contents=False)


def bytes_an_item(index: Index, kind: str) -> float:
    """What a short-list keeps beside the vectors."""
    files = index.manifest.files
    if kind == "codes":
        return code_bytes(BITS)
    names = [f"0/{artifact.COMPONENTS}", f"0/{artifact.LENGTHS}"] if kind == "principal" else [artifact.FAISS]
    return sum(files[name].bytes for name in names) / len(index)


def bench_two_stage(arguments: argparse.Namespace) -> None:
    for items in (EASY, HARD):
        mixture = Mixture(arguments.rows, items)
        compare_shortlists(f"mixture, {items} items a cluster", mixture.array(), mixture.queries(200), arguments)
    for train, test in arguments.features or []:
        queries_ND, rows_ND = (open_flat(Path(file), flat_files.VECTORS, WIDTH)[1] for file in (test, train))
        chosen = np.sort(np.random.default_rng(0).permutation(len(queries_ND))[:200])
        compare_shortlists(train, rows_ND, queries_ND[chosen], arguments)


def compare_shortlists(name: str, vectors_ND: Vectors, queries_QD: Vectors, arguments: argparse.Namespace) -> None:
    rows, number = len(vectors_ND), len(queries_QD)
    flat_index, vectors_ND = flat(aligned(vectors_ND))
    exact_QK = scan.exact(vectors_ND, queries_QD, K)[1]
    print(f"\ntwo-stage: {name}, {rows} x {WIDTH}, {number} queries")
    seconds: dict[str, list[float]] = {}
    notes: dict[str, str] = {}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        index = build(Path(folder), [vectors_ND], arguments.shortlists[0])
        for kind in arguments.shortlists:
            index = index if kind == arguments.shortlists[0] else with_shortlist(index, kind, Path(folder))
            record = index.manifest.shortlist
            assert record
            query = Query(k=K, mode="two-stage")

            def search(q: int, index: Index = index, query: Query = query) -> Any:
                return index.search(queries_QD[q % number : q % number + 1], query)

            found = [search(q).ids_QK[0] for q in range(number)]
            recall = np.mean([np.isin(exact, ids).mean() for exact, ids in zip(exact_QK, found, strict=True)])
            notes[kind] = (
                f"recall@10 {recall:.4f}, {record.length} compared (chosen at {record.recall_at_10:.4f}), "
                f"{bytes_an_item(index, kind):.0f} bytes an item"
            )
            ways: dict[str, Search] = {"IndexFlatL2": lambda q: flat_index.search(queries_QD[q % number : q % number + 1], K)}
            turns = in_turns(ways | {kind: search}, arguments.rounds, arguments.queries)
            seconds["IndexFlatL2"] = seconds.get("IndexFlatL2", []) + turns["IndexFlatL2"]
            seconds[kind] = turns[kind]
    report(seconds, notes)


def bench_metric(arguments: argparse.Namespace) -> None:
    mixture = Mixture(arguments.rows, HARD)
    queries_QD = mixture.queries(200)
    metrics: tuple[Metric, ...] = ("euclidean", "cosine")
    ways: dict[str, Search] = {}
    notes: dict[str, str] = {}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for metric in metrics:
            index = build(Path(folder) / metric, mixture.blocks(), "principal", bits=0, metric=metric)
            exact_QK = index.search(queries_QD, Query(k=K)).ids_QK

            def search(q: int, index: Index = index) -> Any:
                return index.search(queries_QD[q % 200 : q % 200 + 1], Query(k=K, mode="two-stage"))

            recall = np.mean([np.isin(exact_K, search(q).ids_QK[0]).mean() for q, exact_K in enumerate(exact_QK)])
            assert index.manifest.shortlist
            ways[metric] = search
            notes[metric] = f"recall@10 {recall:.4f}, {index.manifest.shortlist.length} compared"
        print(f"\nmetric: two stages, the {K} nearest of {arguments.rows} x {WIDTH}")
        report(in_turns(ways, arguments.rounds, arguments.queries), notes)


def bench_grow(arguments: argparse.Namespace) -> None:
    vectors_ND = Mixture(arguments.rows + arguments.rows // 100, HARD).array()
    seconds: dict[str, list[float]] = {"building all": [], "adding 1 %": []}
    for _ in range(arguments.rounds):
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            started = time.perf_counter()
            build(Path(folder) / "all", [vectors_ND], arguments.shortlists[0]).close()
            seconds["building all"].append(time.perf_counter() - started)
            index = build(Path(folder) / "most", [vectors_ND[: arguments.rows]], arguments.shortlists[0])
            started = time.perf_counter()
            index.add([block(vectors_ND[arguments.rows :], arguments.rows)], Path("/c"))
            seconds["adding 1 %"].append(time.perf_counter() - started)
    print(f"\ngrow: {len(vectors_ND)} rows, features given")
    report(seconds)


def bench_million(arguments: argparse.Namespace) -> None:
    print(f"\nmillion: {arguments.million} x {WIDTH}, 50 items a cluster; at most {MEMORY / 2**30:.0f} GiB allocated", flush=True)
    command = [
        sys.executable,
        __file__,
        "--work",
        str(arguments.million),
        *(["--folder", str(arguments.folder)] * bool(arguments.folder)),
    ]
    if subprocess.run(command).returncode:
        sys.exit("bench_search: the million rows failed")


def work_million(rows: int, folder: Path | None) -> None:
    """The process of `million`."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    keep_freed_memory()
    peak = {"RssAnon": 0, "VmHWM": 0}

    def watch() -> None:
        while True:
            peak.update({name: max(peak[name], value) for name, value in memory().items()})
            time.sleep(0.05)

    threading.Thread(target=watch, daemon=True).start()
    mixture = Mixture(rows, EASY)
    queries_QD = mixture.queries(20)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        started = time.perf_counter()
        index = build(Path(place), mixture.blocks(), "principal")
        print(f"  built and opened in {time.perf_counter() - started:.0f} s, {peak['RssAnon'] / 2**30:.2f} GiB", flush=True)
        exact = [index.search(query_D[None], Query(k=K)) for query_D in queries_QD[:3]]
        print(f"  exact search           {peak['RssAnon'] / 2**30:.2f} GiB", flush=True)
        two_stage = Query(k=K, mode="two-stage")
        index.search(queries_QD[:1], two_stage)
        seconds, found = [], []
        for query_D in queries_QD:
            started = time.perf_counter()
            found.append(index.search(query_D[None], two_stage))
            seconds.append(time.perf_counter() - started)
        recall = np.mean([np.isin(a.ids_QK, b.ids_QK).mean() for a, b in zip(exact, found, strict=False)])
        median = 1e3 * statistics.median(seconds)
        print(f"  two-stage              {median:.2f} ms p50, recall@10 {recall:.3f} of {len(exact)} queries")
    print(f"  peak: {peak['RssAnon'] / 2**30:.2f} GiB allocated, {peak['VmHWM'] / 2**30:.2f} GiB with pages of mapped files")


def memory() -> dict[str, int]:
    """Resident bytes: allocated now, and the peak with mapped files."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(lines[name].split()[0]) * 1024 for name in ("RssAnon", "VmHWM")}


PARTS: Final[dict[str, Callable[[argparse.Namespace], None]]] = {
    "exact": bench_exact,
    "columns": bench_columns,
    "hamming": bench_hamming,
    "two-stage": bench_two_stage,
    "metric": bench_metric,
    "grow": bench_grow,
    "million": bench_million,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=[part for part in PARTS if part != "million"])
    parser.add_argument("--rows", type=int, default=100_000, help="vectors of the mixtures")
    parser.add_argument("--codes", type=int, nargs="+", default=[1_000_000, 10_000_000], help="numbers of codes")
    parser.add_argument("--million", type=int, default=1_000_000, help="rows of the part `million`")
    parser.add_argument("--shortlists", nargs="+", default=["principal", "codes", "PCA128,HNSW32"])
    parser.add_argument("--features", nargs=2, action="append", metavar=("TRAIN.faiss", "TEST.faiss"), help="vectors of indexes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--queries", type=int, default=20, help="a turn")
    parser.add_argument("--folder", type=Path, help="where indexes are made; a temporary one where not given")
    parser.add_argument("--work", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work_million(arguments.work, arguments.folder)
        return
    compiled = f"native.c {'compiled' if native.library() else 'not compiled'}"
    print(heading(INSTRUCTIONS, f"NumPy {np.__version__}", f"FAISS {faiss.__version__}", compiled), flush=True)
    for part in arguments.parts:
        PARTS[part](arguments)


if __name__ == "__main__":
    main()
