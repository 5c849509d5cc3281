"""Several runs at a time, each in a process of its own that keeps the photographs for the next.

Two runs of one thread each do not wait for each other, as two threads of one run do at every layer. A small network leaves most
of a GPU idle, so several processes share it.
"""

import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import TypeVar

import torch
from pydantic import BaseModel
from safetensors import SafetensorError
from safetensors.torch import load_file

from training.claims import measuring, pixels, trainer
from training.claims.arm import Data, Figures, RunSpec
from training.claims.claim import Left, claims
from training.claims.pixels import Pixels
from training.errors import FC7Error
from training.files import write_tensors, write_text
from training.network.alexnet import AlexNet
from training.program import keep_freed_memory

RUNS, MODELS, STATES, FIGURES = "runs", "models", "states", "figures"
Record = TypeVar("Record", bound=BaseModel)
Work = TypeVar("Work")


@dataclass(frozen=True)
class Examination:
    """What a claim measures of the network that a run left."""

    claim: str
    spec: RunSpec


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

    def model(self, spec: RunSpec) -> Path:
        """The file of the weights that a run of AlexNet-67 left."""
        return self.out / MODELS / f"{spec.name}.safetensors"

    def figures(self, examination: Examination) -> Path:
        """The file of what a claim measured of a run's network."""
        return self.out / FIGURES / f"{examination.claim}-{examination.spec.name}.json"


def read_record(kind: type[Record], path: Path) -> Record | None:
    """What a process wrote; None where it has not."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise FC7Error(f"{path} is not a {kind.__name__} of this version; remove it") from error


def train(place: Place, left: Sequence[RunSpec], until: float | None = None) -> Iterator[RunSpec]:
    """Makes runs that are not there yet, in order, and gives each as it ends; its result is on disk then.

    At the time `until` of the monotonic clock, or where the consumer leaves, by Ctrl-C say, runs in progress stop after their
    step; with the same place they go on later.
    """
    return _each(place, _train, left, until)


def examine(place: Place, left: Sequence[Examination], until: float | None = None) -> Iterator[Examination]:
    """As `train`, for what claims measure of the networks that runs left."""
    return _each(place, _examine, left, until)


def _each(place: Place, do: Callable[[Work], None], left: Sequence[Work], until: float | None) -> Iterator[Work]:
    if not left:
        return
    for folder in (RUNS, MODELS, STATES, FIGURES):
        (place.out / folder).mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    count = min(place.processes, len(left))
    with ProcessPoolExecutor(count, context, _begin, (place, count, stop)) as pool:
        with _signals_held():
            works = {pool.submit(do, work): work for work in left}
        futures: set[Future[None]] = set(works)
        try:
            while futures:
                timeout = None if until is None else max(0.0, until - time.monotonic())
                done, futures = wait(futures, timeout, FIRST_COMPLETED)
                if not done:
                    return
                for future in done:
                    future.result()
                    yield works[future]
        except BrokenProcessPool as error:
            for process in multiprocessing.active_children():
                process.kill()  # which the pool would wait for
            raise FC7Error("a process that trained was ended from outside, for its memory perhaps; see --processes") from error
        finally:
            stop.set()
            for future in futures:
                future.cancel()


@contextmanager
def _signals_held() -> Iterator[None]:
    """Ctrl-C and SIGTERM come after the block. Processes begun in it never get them: their parent says when they stop."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_worker: "_Worker"


@dataclass
class _Worker:
    """What a process of the pool keeps from run to run."""

    place: Place
    stop: Event
    parts: dict[Data, tuple[Pixels, Pixels]]

    def stopping(self) -> bool:
        return self.stop.is_set()

    def of(self, data: Data) -> tuple[Pixels, Pixels]:
        if data not in self.parts:
            train, test = pixels.load(self.place.packed[data])
            device = torch.device(self.place.device)
            self.parts[data] = (train.to(device), test.to(device))
        return self.parts[data]


def _begin(place: Place, count: int, stop: Event) -> None:
    global _worker
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // count) if place.device == "cpu" else 1)
    keep_freed_memory()
    os.environ["RANK"] = "1"  # the parent alone shows progress
    _worker = _Worker(place, stop, {})


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)  # it was killed, and nobody else would end this process


def _train(spec: RunSpec) -> None:
    place = _worker.place
    state = place.out / STATES / f"{spec.name}.safetensors"
    if _worker.stopping():
        raise measuring.Stopped
    _tensor_float(not spec.arm.float32)
    result, net = trainer.run(spec, _worker.of(spec.arm.data), state, _worker.stopping, place.made_by)
    if spec.arm.data == "caltech" and not spec.pilot:
        write_tensors(place.model(spec), {name: tensor.cpu() for name, tensor in net.state_dict().items()})
    _write(place.result(spec), result)
    state.unlink(missing_ok=True)


def _examine(examination: Examination) -> None:
    spec, place = examination.spec, _worker.place
    if _worker.stopping():
        raise measuring.Stopped
    [measure] = [claim.examine for claim in claims() if claim.name == examination.claim and claim.examine]
    train, test = _worker.of(spec.arm.data)
    learned, _ = trainer.parts(spec, train, test)
    _tensor_float(not spec.arm.float32)
    net = AlexNet(spec.arm.alexnet(train.classes)).to(torch.device(place.device)).to(memory_format=torch.channels_last).eval()
    path = place.model(spec)
    try:
        net.load_state_dict(load_file(path, place.device))
    except (SafetensorError, RuntimeError) as error:
        raise FC7Error(f"{path} does not hold weights of its run; remove it, and the same command makes the run again") from error
    left = Left(spec.arm, spec.seed, net, train.only(slice(spec.images)), test.only(slice(spec.tests)), learned.mean_CSS())
    diverged = not all(weights.isfinite().all() for weights in net.parameters())
    figures = {} if diverged else measure(left)
    _write(place.figures(examination), Figures(figures=figures if all(map(math.isfinite, figures.values())) else {}))


def _tensor_float(on: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = on


def _write(path: Path, record: BaseModel) -> None:
    write_text(path, record.model_dump_json() + "\n")
