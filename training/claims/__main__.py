"""The paper's claims, measured again: `python -m training.claims --quick`."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import torch
from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from training.claims import drawing, pixels, table, workers
from training.claims.arm import SIDE, Data, RunResult, RunSpec
from training.claims.claim import Claim, claims
from training.claims.plan import Plan
from training.claims.record import REPORT, Report
from training.claims.report import report
from training.claims.scale import SCALES, Size, work
from training.claims.workers import Place
from training.errors import BadValue, NotReady
from training.files import exclusively, write_text
from training.program import Settings, commit, machine, progress, run_program

PACKED: Final = "packed"
_FEWEST: Final = 5  # photographs, of which a pilot holds out a fifth
_ON_GPU: Final = 12  # processes that share one


class ClaimsSettings(Settings):
    """Measure the paper's claims again at a size that two cores can run, with seeds, intervals and pictures.

    --quick takes under 10 minutes on two cores: one seed, which shows a direction and no more. --full takes 3 to 4 hours there,
    --long about 1.5 hours. --large needs a GPU. A claim is a module of training/claims/paper. Rates are chosen by runs with a
    seed of their own; test photographs are looked at once, at the end of each run. Interrupted, the same command goes on where
    it was.

    The results: OUT/claims.json, OUT/claims.md (a table), OUT/figure1.svg, OUT/forest.svg, OUT/figure3.svg and
    OUT/brightness.svg.
    """

    model_config = SettingsConfigDict(cli_prog_name="python -m training.claims")
    resumes = True

    out: Path = Field(Path("var/claims"), description="folder for results, and for runs to go on from")
    cifar: Path = Field(Path("var/cifar10"), description="image folder of CIFAR-10, with train and test")
    caltech: Path = Field(Path("var/caltech"), description="image folder of Caltech-101, split with --per-class 30")
    quick: bool = Field(False, description="under 10 minutes on two cores: one seed, direction only")
    full: bool = Field(False, description="3 to 4 hours on two cores")
    large: bool = Field(False, description="all photographs and more epochs, for a GPU")
    long: bool = Field(False, description="the four-layer network trained to its end, and no other claim; 1.5 hours on two cores")
    only: tuple[str, ...] = Field((), description="claims to measure, as in relu,lrn; all where not given")
    seeds: int | None = Field(None, ge=1, le=1000, description="seeds of every arm; each claim's own number where not given")
    device: str = Field("auto", description="cpu or cuda; auto takes a GPU where there is one")
    processes: int | None = Field(None, ge=1, le=64, description="runs at a time; as many as cores, or 12 on a GPU")
    minutes: float | None = Field(None, gt=0, description="stop after so many and report what is there; the same command goes on")
    commit: str | None = Field(None, description="commit to note in the results; Git is asked where it is not given")
    page: Path | None = Field(
        None, description="page to write the table into, between its markers; JSON and pictures go to claims/results beside it"
    )

    @model_validator(mode="after")
    def _one_size(self) -> "ClaimsSettings":
        if self.quick + self.full + self.large + self.long != 1:
            raise ValueError("give one of --quick, --full, --large and --long")
        return self

    @property
    def size(self) -> Size:
        """Which of the four was given."""
        return "quick" if self.quick else "full" if self.full else "large" if self.large else "long"


def main(settings: ClaimsSettings) -> None:
    """Makes the runs that are missing, and reports on all that are there."""
    chosen = _chosen(settings.only, settings.size)
    if settings.page:
        table.check(settings.page)  # before hours of runs
    with exclusively(settings.out):
        place = _place(settings, {arm.data for claim in chosen for arm in claim.arms.values()})
        photographs = {data: pixels.counts(path) for data, path in place.packed.items()}
        for data, (train, _) in photographs.items():
            if train < _FEWEST:
                raise NotReady(f"{place.packed[data]} has {train} photographs to train on; pilots need {_FEWEST}")
        scale = SCALES[settings.size]
        available = {data: train for data, (train, _) in photographs.items()}
        plan = Plan(chosen, scale, place, available, settings.seeds)
        counts = f"{len(plan.pilots())} pilots and {len(plan.runs())} runs"
        print(f"{settings.size}: {counts} on {place.device}, {place.processes} at a time", flush=True)
        until = None if settings.minutes is None else time.monotonic() + 60 * settings.minutes
        complete = _run(plan.pilots(), plan, "pilots", until) and _run(plan.runs(), plan, "runs", until) and _examine(plan, until)
        used: dict[Data, dict[Literal["train", "test"], int]] = {
            data: {"train": min(scale.images[data], train), "test": min(scale.tests[data], test)}
            for data, (train, test) in photographs.items()
        }
        found = report(plan, settings.size, used)
        write(settings.out, found, settings.page)
        print(table.table(found))
        if not complete:
            print("not all runs are made; the same command goes on")


def write(out: Path, found: Report, page: Path | None) -> None:
    """Writes the results into a folder, and into a page where one is given."""
    folders = [out]
    if page:
        folders.append(page.parent / "claims" / "results")
    files = {REPORT: found.model_dump_json(), "claims.md": table.table(found), **drawing.pictures(found)}
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            if folder == out or name != "claims.md":
                write_text(folder / name, text + "\n")
    if page:
        table.replace_in(page, found)


def _chosen(names: Sequence[str], size: Size) -> list[Claim]:
    every = [claim for claim in claims() if claim.long == (size == "long")]
    if unknown := sorted(set(names) - {claim.name for claim in every}):
        raise BadValue("only", unknown[0], f"one of {', '.join(claim.name for claim in every)}")
    return [claim for claim in every if not names or claim.name in names]


def _place(settings: ClaimsSettings, data: set[Data]) -> Place:
    """Photographs packed, and where to work."""
    device = settings.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    present = torch.cuda.device_count()
    if device not in ("cpu", *(("cuda", *(f"cuda:{i}" for i in range(present))) if present else ())):
        raise BadValue("device", device, f"auto, cpu, or a CUDA device of this machine, which has {present}")
    roots: dict[Data, Path] = {"cifar": settings.cifar, "caltech": settings.caltech}
    packed: dict[Data, Path] = {name: settings.out / PACKED / f"{name}.safetensors" for name in roots if name in data}
    for name, path in packed.items():
        if path.is_file():
            pixels.check_packed_from(path, f"--{name}", roots[name])
        else:
            pixels.pack(roots[name], path, SIDE[name])
    cores = os.cpu_count() or 1
    processes = settings.processes or (cores if device == "cpu" else min(cores, _ON_GPU))
    return Place(settings.out, packed, device, processes, (_machine(device), settings.commit or commit()))


def _machine(device: str) -> str:
    return machine() if device == "cpu" else f"{torch.cuda.get_device_name(device)}, {machine()}"


def _run(specs: Sequence[RunSpec], plan: Plan, what: str, until: float | None) -> bool:
    """Makes the runs that are missing; whether none is left when the time is over."""
    left = plan.left(specs)
    total, done, begun = sum(map(work, left)), 0.0, time.monotonic()
    number = 0
    for number, spec in enumerate(workers.train(plan.place, left, until), 1):
        result = plan.made(spec)
        done += work(spec)
        elapsed = time.monotonic() - begun
        if result:
            print(_line(what, number, len(left), result, elapsed * (total - done) / done), flush=True)
    return number == len(left)


def _examine(plan: Plan, until: float | None) -> bool:
    """As _run, for what claims measure of the networks that runs left."""
    left = plan.examinations()
    if not left:
        return True
    done = list(progress(workers.examine(plan.place, left, until), len(left), "examining", "networks"))
    return len(done) == len(left)


def _line(what: str, number: int, count: int, result: RunResult, left_s: float) -> str:
    spec = result.spec
    network = " ".join([spec.arm.data, spec.arm.start, *(f"{name}={value}" for name, value in spec.arm.net.items())])
    more = "" if spec.arm.colour == "none" else f" colour={spec.arm.colour}"
    return (
        f"{what} {number}/{count}  {network}{more}  rate {spec.rate:g}  seed {spec.seed}  {len(result.curve)} epochs  "
        f"error {result.error:.4f}  {result.seconds:.0f} s  {left_s / 60:.1f} min left"
    )


if __name__ == "__main__":
    run_program(ClaimsSettings, main)
