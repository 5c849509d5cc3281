"""Several runs at a time, each in a process of its own that keeps the photographs for the next.

Two runs of one thread each do not wait for each other, as two threads of one run do at every layer. A small network leaves most
of a GPU idle, so several processes share it.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path

import torch

from training.claims import measuring, pixels, trainer
from training.claims.arm import Data, RunResult, RunSpec
from training.claims.pixels import Pixels
from training.errors import FC7Error
from training.files import replacing, write_tensors
from training.program import keep_freed_memory

RUNS, MODELS, STATES = "runs", "models", "states"


@dataclass(frozen=True)
class Place:
    """Where runs find photographs, leave results, and work."""

    out: Path
    packed: dict[Data, Path]
    device: str
    processes: int
    made_by: tuple[str, str]  # machine, commit

    def result(self, spec: RunSpec) -> Path:
        """The file of a run's result."""
        return self.out / RUNS / f"{spec.name}.json"


def read_result(path: Path) -> RunResult | None:
    """A result that a run wrote; None where there is none."""
    try:
        return RunResult.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise FC7Error(f"{path} is not the result of a run of this version; remove it") from error


def finish(place: Place, left: Sequence[RunSpec], until: float | None = None) -> Iterator[RunResult]:
    """Makes runs that are not there yet, in order, and gives each as it ends.

    At the time `until` of the monotonic clock, or where the consumer leaves, by Ctrl-C say, runs in progress stop after their
    step; with the same place they go on later.
    """
    if not left:
        return
    for folder in (RUNS, MODELS, STATES):
        (place.out / folder).mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    count = min(place.processes, len(left))
    with ProcessPoolExecutor(count, context, _begin, (place, count, stop, os.getpid())) as pool:
        futures: set[Future[str]] = {pool.submit(_run, spec.model_dump_json()) for spec in left}
        try:
            while futures:
                timeout = None if until is None else max(0.0, until - time.monotonic())
                done, futures = wait(futures, timeout, FIRST_COMPLETED)
                if not done:
                    return
                for future in done:
                    yield RunResult.model_validate_json(future.result())
        except BrokenProcessPool as error:
            raise FC7Error("a process that trained was ended from outside, for its memory perhaps; see --processes") from error
        finally:
            stop.set()
            for future in futures:
                future.cancel()


_worker: "_Worker"


@dataclass
class _Worker:
    """What a process of the pool keeps from run to run."""

    place: Place
    stop: Event
    parent: int
    parts: dict[Data, tuple[Pixels, Pixels]]

    def stopping(self) -> bool:
        return self.stop.is_set() or os.getppid() != self.parent

    def of(self, data: Data) -> tuple[Pixels, Pixels]:
        if data not in self.parts:
            train, test = pixels.load(self.place.packed[data])
            device = torch.device(self.place.device)
            self.parts[data] = (train.to(device), test.to(device))
        return self.parts[data]


def _begin(place: Place, count: int, stop: Event, parent: int) -> None:
    global _worker
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the parent says when
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // count) if place.device == "cpu" else 1)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    keep_freed_memory()
    _worker = _Worker(place, stop, parent, {})


def _run(text: str) -> str:
    spec, place = RunSpec.model_validate_json(text), _worker.place
    state = place.out / STATES / f"{spec.name}.safetensors"
    if _worker.stopping():
        raise measuring.Stopped
    result, net = trainer.run(spec, _worker.of(spec.arm.data), state, _worker.stopping, place.made_by)
    if spec.arm.data == "caltech" and not spec.pilot:
        write_tensors(place.out / MODELS / f"{spec.name}.safetensors", {"conv1.weight": net.conv1.weight.cpu()})
    with replacing(place.result(spec)) as path:
        path.write_text(result.model_dump_json() + "\n", encoding="utf-8")
    state.unlink(missing_ok=True)
    return result.model_dump_json()
