"""Hostile requests to a running service: `make fuzz-service`, or this file with --requests and --seed.

mutations  the requests of tests/service/mutations.py over loopback, several at once. An answer that the interface does not have,
           one that is no problem where it should be, and none within --timeout are failures; `--only NUMBER` sends one of them.
clients    200 connections that send half a request and wait, and then go: others are answered meanwhile, by 503 if need be, and
           served afterwards.
described  schemathesis over the whole OpenAPI description.

The service has a small network and an index made for the run. Ends with 1 where something failed.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from indexer import build  # noqa: E402
from tests.benchmarks.bench_service import Service, service  # noqa: E402
from tests.benchmarks.load import Connection, http  # noqa: E402
from tests.benchmarks.machine import heading  # noqa: E402
from tests.conftest import COLOURS, SmallConfig, write_photographs  # noqa: E402
from tests.service import mutations  # noqa: E402
from tests.service.mutations import RawRequest  # noqa: E402
from tests.service.test_fuzz import ALLOWED  # noqa: E402
from training import checkpoint  # noqa: E402
from training.network.alexnet import AlexNet  # noqa: E402
from training.network.initialisation import initialise  # noqa: E402

CLIENTS: Final = 8
IDLERS: Final = 200
HOST: Final = "127.0.0.1"
CHECKS: Final = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
SLOW_S: Final = 1.0


def make(folder: Path) -> tuple[Path, Path]:
    """A small model and an index of 24 photographs, and where they are."""
    write_photographs(folder / "images" / "train", 8)
    net = AlexNet(SmallConfig(classes=len(COLOURS)))
    initialise(net, "fan-in", seed=1)
    checkpoint.save(folder / "model", net, sorted(COLOURS), torch.full((3, 256, 256), 110.0))
    settings = build.BuildSettings(model=folder / "model", data=folder / "images", index=folder / "index", part="train")
    build.main(settings)
    return folder / "model", folder / "index"


def raw(request: RawRequest) -> bytes:
    return http(request.method, request.path, request.headers, request.body)


def wrong(request: RawRequest, status: int, body: bytes) -> str | None:
    """What is wrong with an answer; None if nothing is."""
    if status not in ALLOWED:
        return f"status {status}: {body[:300]!r}"
    if status >= 400 and request.method != "HEAD":
        try:
            if json.loads(body)["status"] == status:
                return None
        except (ValueError, KeyError, TypeError):
            pass
        return f"status {status} without a problem: {body[:300]!r}"
    return None


class Mutations:
    """Sends requests by their number and keeps what came of them."""

    def __init__(self, running: Service, arguments: argparse.Namespace) -> None:
        self._running, self._seed, self._timeout_s = running, arguments.seed, arguments.timeout
        self.statuses: Counter[int] = Counter()
        self.slow: list[tuple[float, int]] = []
        self.failures: dict[int, str] = {}

    async def run(self, numbers: Iterator[int]) -> None:
        """Sends the requests over CLIENTS connections."""
        await asyncio.gather(*(self._client(numbers) for _ in range(CLIENTS)))

    async def _client(self, numbers: Iterator[int]) -> None:
        connection = Connection(HOST, self._running.port, self._timeout_s)
        for number in numbers:
            request = mutations.request(self._seed, number)
            started = time.perf_counter()
            failure = await self._failure(connection, request)
            if failure:
                self.failures[number] = f"{request.method} {request.path[:60]} {request.what[:100]}: {failure}"
                print(f"  --only {number}: {self.failures[number]}", flush=True)
            if (seconds := time.perf_counter() - started) > SLOW_S:
                self.slow.append((seconds, number))
        connection.close()

    async def _failure(self, connection: Connection, request: RawRequest) -> str | None:
        try:
            status, body = await connection.ask(raw(request))
        except TimeoutError:
            return f"no answer within {self._timeout_s:g} s"
        except (OSError, EOFError, ValueError) as error:
            return f"no answer: {error!r}"
        self.statuses[status] += 1
        if status == 200 and request.path == "/items":
            return await self._added(connection, body)
        return wrong(request, status, body)

    async def _added(self, connection: Connection, body: bytes) -> str | None:
        """What is wrong with the items that were added; None if nothing is."""
        for result in json.loads(body)["results"]:
            for path in ("", "/image", "/thumbnail", "/duplicates?max_distance=1") if result.get("id") is not None else ():
                where = f"/items/{result['id']}{path}"
                status, answer = await connection.ask(http("GET", where))
                if status != 200:
                    return f"GET {where}: {status} {answer[:300]!r}"
        return None


async def ask_good(running: Service) -> tuple[int, bytes]:
    connection = Connection(HOST, running.port)
    try:
        return await connection.ask(raw(mutations.good(mutations.photographs()["jpeg"])))
    finally:
        connection.close()


def fuzz_mutations(running: Service, arguments: argparse.Namespace) -> bool:
    """Whether all was well."""
    numbers = range(arguments.requests) if arguments.only is None else [arguments.only]
    print(f"\nmutations: {len(numbers)} requests, seed {arguments.seed}, {CLIENTS} at once", flush=True)
    before = asyncio.run(ask_good(running))
    allocated, most, done = running.allocated(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.1) and running.process.poll() is None:
            most[0] = max(most[0], running.allocated())

    watcher = threading.Thread(target=watch)
    watcher.start()
    found = Mutations(running, arguments)
    asyncio.run(found.run(iter(numbers)))
    done.set()
    watcher.join()
    print(f"  statuses {dict(sorted(found.statuses.items()))}, {len(found.failures)} failures")
    for seconds, number in sorted(found.slow, reverse=True)[:5]:
        print(f"  {seconds:.1f} s: --only {number}: {mutations.request(arguments.seed, number).what[:100]}")
    same = asyncio.run(ask_good(running)) == before
    mebi = [value / 2**20 for value in (allocated, most[0], running.allocated())]
    print("  memory {:.0f} MiB before, {:.0f} at most, {:.0f} after;".format(*mebi), "a photograph's answer is", end=" ")
    print("the same" if same else "another", flush=True)
    return same and not found.failures


async def idle(running: Service, sent: bytes, timeout_s: float) -> bool:
    """Whether others are answered while IDLERS connections have sent this and nothing more, and served after they have gone."""
    writers = []
    for _ in range(IDLERS):
        _, writer = await asyncio.open_connection(HOST, running.port)
        writer.write(sent)
        await writer.drain()
        writers.append(writer)
    started = time.perf_counter()
    health = Connection(HOST, running.port, 10)
    status, _ = await health.ask(http("GET", "/healthz"))
    asked = time.perf_counter()
    meanwhile, _ = await ask_good(running)
    answered = time.perf_counter()
    for writer in writers:
        writer.transport.abort()
    afterwards, end = 503, time.perf_counter() + timeout_s
    while afterwards == 503 and time.perf_counter() < end:
        await asyncio.sleep(0.05)
        afterwards, _ = await ask_good(running)
    health.close()
    print(
        f"  {len(sent)} bytes sent: /healthz {status} in {1e3 * (asked - started):.0f} ms, /classify meanwhile {meanwhile} in "
        f"{1e3 * (answered - asked):.0f} ms, afterwards {afterwards}",
        flush=True,
    )
    return (status, afterwards) == (200, 200) and meanwhile in (200, 503)


def fuzz_clients(running: Service, arguments: argparse.Namespace) -> bool:
    """Whether all was well."""
    print(f"\nclients: {IDLERS} that send half a request", flush=True)
    whole = raw(mutations.good(mutations.photographs()["jpeg"]))
    parts = [whole[:10], whole[: whole.index(b"\r\n\r\n") + 4], whole[:-100]]
    good = [asyncio.run(idle(running, part, arguments.timeout)) for part in parts]
    return all(good)


def fuzz_described(running: Service, arguments: argparse.Namespace) -> bool:
    """Whether all was well."""
    print(f"\ndescribed: {arguments.examples} examples an operation", flush=True)
    command = [
        str(Path(sys.executable).with_name("st")),
        "run",
        f"http://{HOST}:{running.port}/openapi.json",
        f"--checks={CHECKS}",
        f"--max-examples={arguments.examples}",
        f"--seed={arguments.seed}",
        f"--request-timeout={arguments.timeout}",
        f"--header=X-API-Key: {mutations.KEY}",
        "--phases=examples,coverage,fuzzing",
        "--suppress-health-check=all",
        "--generation-database=none",
        "--continue-on-failure",
        "--no-color",
    ]
    with tempfile.TemporaryDirectory() as here:  # in which it leaves a folder of its own
        return subprocess.run(command, cwd=here).returncode == 0


PARTS: Final = {"mutations": fuzz_mutations, "clients": fuzz_clients, "described": fuzz_described}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--requests", type=int, default=5000, help="mutated requests")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="send the mutated request with this number alone")
    parser.add_argument("--examples", type=int, default=200, help="of the part `described`, an operation")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timeout", type=float, default=30, help="seconds that an answer may take")
    arguments = parser.parse_args()
    print(heading((), f"PyTorch {torch.__version__}"), flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model, index = make(folder)
        with service(model, index, folder / "log", FC7_API_KEY=mutations.KEY, OMP_NUM_THREADS="1") as running:
            parts = ["mutations"] if arguments.only is not None else arguments.parts
            good = [PARTS[part](running, arguments) for part in parts]
            ended = running.process.poll()
        if ended is not None or not all(good):
            sys.exit(f"fuzz_service: something failed; the log ends with\n{(folder / 'log').read_text()[-3000:]}")


if __name__ == "__main__":
    main()
