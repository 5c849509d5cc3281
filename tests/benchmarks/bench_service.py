"""The service under load over loopback: `make bench-service`, or this file with --parts. For a quiet machine.

classify   32 clients that POST photographs of 50 kB to /classify of a full-size network of random weights, each its next one when
           the last is answered: the service as it is, and one that may not batch (FC7_MAX_BATCH_SIZE=1), in turns with the
           floor: a process that does nothing but decode and forward, decoding ahead of the forward passes or in between.
neighbors  POST /neighbors?id=..&k=10, any of 100 000 items, by 8, 16 and 32 clients.
overload   photographs at twice the rate that `classify` found (or that is measured first) for --overload-seconds; fails where an
           answer is anything but 200 or 503. Memory is what the process allocated (RssAnon), sampled every second.

The load is made by a process of its own (tests/benchmarks/load.py). Meanwhile one more connection asks for /healthz, 50 ms after
each answer. Services that wait for their turn have no work. Figures are medians of the rounds.
"""

import argparse
import asyncio
import io
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402

from indexer.assembly import Plan, Source, assemble  # noqa: E402
from indexer.index import open_index  # noqa: E402
from tests.benchmarks import load  # noqa: E402
from tests.benchmarks.load import Summary  # noqa: E402
from tests.benchmarks.machine import heading  # noqa: E402
from tests.benchmarks.mixture import Mixture  # noqa: E402
from tests.indexer.synthetic import block  # noqa: E402
from training import checkpoint  # noqa: E402
from training.images.preprocess import ImageLimits, Photograph, decode  # noqa: E402
from training.network.alexnet import AlexNet, AlexNetConfig  # noqa: E402
from training.network.initialisation import initialise  # noqa: E402
from training.program import keep_freed_memory  # noqa: E402

INSTRUCTIONS: Final = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16")
PHOTOGRAPHS: Final = 64
BYTES: Final = range(40_000, 60_001)  # of a photograph
SIDE: Final = 500  # pixels of the longer side, or some more
CLIENTS: Final = 32
SEARCHERS: Final = (8, 16, 32)
OVERLOAD_CLIENTS: Final = 512
BATCH: Final = 32
BLOCK_ROWS: Final = 1000
UNBATCHED: Final = {"FC7_MAX_BATCH_SIZE": "1"}


def as_sent(image: Image.Image) -> bytes | None:
    """A JPEG of 40 to 60 kB; None where no quality gives one."""
    for side in (SIDE, SIDE * 3 // 2):
        smaller = image.copy()
        smaller.thumbnail((side, side))
        for quality in (85, 90, 80, 75, 95, 65, 50):
            buffer = io.BytesIO()
            smaller.save(buffer, "JPEG", quality=quality)
            if len(buffer.getvalue()) in BYTES:
                return buffer.getvalue()
    return None


def read_photographs(folder: Path) -> Iterator[bytes]:
    """From all over a folder of photographs."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    for path in np.random.default_rng(0).permutation(np.array(paths, object)):
        with Image.open(path) as image:
            data = as_sent(image.convert("RGB"))
        if data:
            yield data


def made_photographs() -> Iterator[bytes]:
    """Smooth pictures with a texture, 500 x 375."""
    for seed in itertools.count():
        rng = np.random.default_rng(seed)
        coarse = Image.fromarray(rng.normal(128, 50, (12, 16, 3)).clip(0, 255).astype(np.uint8))
        smooth = np.asarray(coarse.resize((SIDE, SIDE * 3 // 4), Image.Resampling.BICUBIC))
        data = as_sent(Image.fromarray((smooth + rng.normal(0, 9, smooth.shape)).clip(0, 255).astype(np.uint8)))
        if data:
            yield data


def photographs(folder: Path | None) -> list[bytes]:
    found = list(itertools.islice(read_photographs(folder) if folder else made_photographs(), PHOTOGRAPHS))
    if len(found) < PHOTOGRAPHS:
        sys.exit(
            f"bench_service: {folder} has {len(found)} photographs that can be made to take 40 to 60 kB, {PHOTOGRAPHS} are needed"
        )
    return found


def classify_request(data: bytes) -> bytes:
    head = b'--b0undary\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    headers = [(b"Content-Type", b"multipart/form-data; boundary=b0undary")]
    return load.http("POST", "/classify", headers, head + data + b"\r\n--b0undary--\r\n")


def make_model(folder: Path) -> None:
    """The paper's network with random weights, unless a model is there."""
    if not (folder / checkpoint.DESCRIPTION).exists():
        net = AlexNet(AlexNetConfig(pixel_scale=(1 / 64,) * 3))
        initialise(net, "fan-in", 0)
        names = [f"class {i}" for i in range(net.config.classes)]
        checkpoint.save(folder, net, names, torch.full((3, 256, 256), 110.0))


def make_index(folder: Path, model: str, rows: int, width: int) -> None:
    """An index of made-up features that goes with the model, unless it is there."""
    if (folder / "current").exists():
        with closing(open_index(folder, contents=False)) as index:
            if index.fingerprint == model and len(index) == rows:
                return
    blocks = enumerate(
        block_ND[start : start + BLOCK_ROWS]
        for block_ND in Mixture(rows, 50, width).blocks()
        for start in range(0, len(block_ND), BLOCK_ROWS)
    )
    source = Source(Path("/c"), model, width, ImageLimits())
    assemble(folder, (block(rows_ND, number * BLOCK_ROWS) for number, rows_ND in blocks), source, Plan())


class Service:
    """A service in a process of its own."""

    def __init__(self, process: "subprocess.Popen[str]", port: int) -> None:
        self.process, self.port = process, port

    def allocated(self) -> int:
        """Bytes of memory that the process allocated and has resident."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("RssAnon:")).split()[1]) * 1024

    def closed(self, requests: Path, clients: int, seconds: float) -> tuple[Summary, Summary]:
        """What came of a closed loop, and of /healthz beside it."""
        return load.finish(load.start(self.port, requests, clients, seconds, "--beside", "/healthz"))


@contextmanager
def service(model: Path, index: Path, log: Path, **settings: str) -> Iterator[Service]:
    """Starts the service on a free port and stops it in the end. What it writes to the standard error goes to `log`."""
    command = [sys.executable, "-m", "service", "--port", "0", "--model", str(model), "--index", str(index)]
    with (
        log.open("ab") as errors,
        subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **settings}, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        try:
            assert process.stdout
            address = next((m for line in process.stdout if (m := re.search(r"http://127\.0\.0\.1:(\d+)", line))), None)
            if not address:
                sys.exit(f"the service did not start: {log.read_text()[-1000:]}")
            yield Service(process, int(address[1]))
        finally:
            process.terminate()


def rounds(arguments: argparse.Namespace) -> str:
    return f"{arguments.rounds} rounds of {arguments.seconds:g} s"


def answered(what: str, runs: Sequence[tuple[Summary, Summary]], note: str = "") -> float:
    """Prints a line; gives the median of requests/s. Ends the program where a request was not answered by 200."""
    summaries, health = [run[0] for run in runs], [run[1] for run in runs]
    for summary in [*summaries, *health]:
        if set(summary.statuses) != {"200"} or summary.failures:
            sys.exit(f"bench_service: {what}: {summary}")
    per_s = statistics.median(summary.per_s for summary in summaries)
    p50, p99 = (1e3 * statistics.median(getattr(summary, name) for summary in summaries) for name in ("p50_s", "p99_s"))
    print(
        f"  {what:26}{per_s:9.1f} requests/s  {p50:8.1f} ms p50  {p99:8.1f} p99"
        f"   /healthz {1e3 * max(s.p99_s for s in health):6.1f} p99 {1e3 * max(s.max_s for s in health):7.1f} max  {note}",
        flush=True,
    )
    return per_s


def bench_classify(arguments: argparse.Namespace, folder: Path) -> float:
    """Requests/s of the service as it is."""
    model, requests = folder / "model", folder / "classify.bin"
    sent = photographs(arguments.photographs)
    load.write_requests(requests, map(classify_request, sent))
    mean = statistics.mean(map(len, sent)) / 1e3
    print(f"\nclassify: {CLIENTS} clients, {len(sent)} photographs of {mean:.0f} kB, {rounds(arguments)}")
    ways: dict[str, dict[str, str]] = {"ours": {}, "batches of 1": UNBATCHED}
    found: dict[str, list[tuple[Summary, Summary]]] = {way: [] for way in ways}
    floors: dict[str, list[float]] = {"decoding ahead": [], "in between": []}
    with ExitStack() as stack:
        services = {
            way: stack.enter_context(service(model, folder / "none", folder / f"{way}.log", **env)) for way, env in ways.items()
        }
        for running in services.values():
            running.closed(requests, CLIENTS, min(2.0, arguments.seconds))
        for _ in range(arguments.rounds):
            for way, running in services.items():
                found[way].append(running.closed(requests, CLIENTS, arguments.seconds))
            for way in floors:
                floors[way].append(floor(model, requests, arguments.seconds, way))
    one = answered("batches of 1", found["batches of 1"])
    ratio = statistics.median(a[0].per_s / b[0].per_s for a, b in zip(found["ours"], found["batches of 1"], strict=True))
    ours = answered("ours", found["ours"], f"{ratio:.2f} times batches of 1")
    for way, rates in floors.items():
        print(f"  {'floor, ' + way:26}{statistics.median(rates):9.1f} images/s")
    best = max(statistics.median(rates) for rates in floors.values())
    print(f"  ours reaches {ours / best:.1%} of the floor, batches of 1 {one / best:.1%}", flush=True)
    return ours


def floor(model: Path, requests: Path, seconds: float, way: str) -> float:
    """Images/s of decoding and forward passes alone, in a process of their own."""
    command = [sys.executable, __file__, "--work", way, str(model), str(requests), str(seconds)]
    return float(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))


def work_floor(way: str, folder: Path, requests: Path, seconds: float) -> float:
    """The process of `floor`."""
    keep_freed_memory()
    model = checkpoint.load(folder)
    files = [request[request.index(b"\xff\xd8") :] for request in load.read_requests(requests)]
    limits, next_file = ImageLimits(), itertools.cycle(files)
    with ThreadPoolExecutor(os.cpu_count()) as pool:

        def batch() -> list[Future[Photograph]]:
            return [pool.submit(decode, next(next_file), limits) for _ in range(BATCH)]

        def forward(decoded: list[Future[Photograph]]) -> None:
            pixels_BCHW = torch.stack([photograph.result().pixels_CHW for photograph in decoded])
            model.probabilities(pixels_BCHW).topk(1)

        forward(batch())
        ahead = deque([batch()] if way == "decoding ahead" else [])
        images, started = 0, time.perf_counter()
        while (now := time.perf_counter()) < started + seconds:
            ahead.append(batch())
            forward(ahead.popleft())
            images += BATCH
        return images / (now - started)


def bench_neighbors(arguments: argparse.Namespace, folder: Path) -> None:
    described, requests, log = checkpoint.read_description(folder / "model"), folder / "neighbors.bin", folder / "neighbors.log"
    width = described.config.fc7_width
    make_index(folder / "index", described.fingerprint(), arguments.rows, width)
    ids = np.random.default_rng(1).integers(0, arguments.rows, 50_000).tolist()
    load.write_requests(requests, (load.http("POST", f"/neighbors?id={item}&k=10") for item in ids))
    with service(folder / "model", folder / "index", log) as running:
        _, answer = asyncio.run(load.Connection("127.0.0.1", running.port).ask(load.http("POST", "/neighbors?id=0&k=10")))
        mode = json.loads(answer)["mode"]
        print(f"\nneighbors: k=10, {arguments.rows} items x {width}, mode {mode}, {rounds(arguments)}")
        found: dict[int, list[tuple[Summary, Summary]]] = {clients: [] for clients in SEARCHERS}
        running.closed(requests, max(SEARCHERS), min(2.0, arguments.seconds))
        for _ in range(arguments.rounds):
            for clients in SEARCHERS:
                found[clients].append(running.closed(requests, clients, arguments.seconds))
    for clients, summaries in found.items():
        answered(f"{clients} clients", summaries)


def bench_overload(arguments: argparse.Namespace, folder: Path, capacity: float | None) -> None:
    requests = folder / "classify.bin"
    load.write_requests(requests, map(classify_request, photographs(arguments.photographs)))
    with service(folder / "model", folder / "none", folder / "overload.log") as running:
        running.closed(requests, CLIENTS, min(2.0, arguments.seconds))
        capacity = capacity or running.closed(requests, CLIENTS, arguments.seconds)[0].per_s
        options = ("--rate", str(2 * capacity), "--beside", "/healthz")
        print(f"\noverload: {2 * capacity:.1f} requests/s, twice the capacity, for {arguments.overload_seconds} s")
        process = load.start(running.port, requests, OVERLOAD_CLIENTS, arguments.overload_seconds, *options)
        memory = []  # bytes, each second
        while process.poll() is None:
            memory.append(running.allocated())
            with suppress(subprocess.TimeoutExpired):
                process.wait(1)
        summary, health = load.finish(process)
    settled = np.array(memory[60:] or memory) / 2**20
    slope = np.polyfit(np.arange(len(settled)), settled, 1)[0] * 3600 if len(settled) > 1 else 0.0
    print(
        f"  statuses {summary.statuses}, connections failed {summary.failures}, not sent {summary.not_sent}\n"
        f"  answers of 200: {summary.per_s:.1f}/s, {1e3 * summary.p50_s:.1f} ms p50, {1e3 * summary.p99_s:.1f} p99, "
        f"{1e3 * summary.max_s:.1f} max\n"
        f"  /healthz {1e3 * health.p99_s:.1f} ms p99, {1e3 * health.max_s:.1f} max, {health.statuses}\n"
        f"  memory {settled[0]:.0f} MiB after {min(60, len(memory))} s, {settled[-1]:.0f} at the end: "
        f"{settled[-1] - settled[0]:+.1f} MiB, {slope:+.1f} MiB/h, at most {settled.max():.0f}",
        flush=True,
    )
    if not set(summary.statuses) <= {"200", "503"} or summary.failures or set(health.statuses) != {"200"} or health.failures:
        sys.exit("bench_service: under overload an answer was neither 200 nor 503, or none came")


PARTS: Final = ("classify", "neighbors", "overload")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20, help="a round")
    parser.add_argument("--overload-seconds", type=float, default=600)
    parser.add_argument("--rows", type=int, default=100_000, help="items of the part `neighbors`")
    parser.add_argument("--photographs", type=Path, help="folder of JPEG files; made where not given")
    parser.add_argument("--folder", type=Path, help="where model and index are made and kept; a temporary one where not given")
    parser.add_argument("--work", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        way, model, requests, seconds = arguments.work
        print(json.dumps(work_floor(way, Path(model), Path(requests), float(seconds))))
        return
    print(heading(INSTRUCTIONS, f"PyTorch {torch.__version__}", f"{os.cpu_count()} cores for service and load"), flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder, capacity = arguments.folder or Path(temporary), None
        make_model(folder / "model")
        if "classify" in arguments.parts:
            capacity = bench_classify(arguments, folder)
        if "neighbors" in arguments.parts:
            bench_neighbors(arguments, folder)
        if "overload" in arguments.parts:
            bench_overload(arguments, folder, capacity)


if __name__ == "__main__":
    main()
