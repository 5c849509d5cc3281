"""What the unit atlas adds to a build: builds with and without it, in turns: `make bench-atlas DATA=FOLDER MODEL=FOLDER`.

    python tests/benchmarks/bench_atlas.py --data caltech --model model --photographs 1000 --bits 0

Each build is a process of its own, into a folder of its own, of the same photographs, which are spread evenly over the data set.
Where a pair begins with which changes from pair to pair. Without codes (--bits 0) nothing but features, thumbnails and the
short-list is made, so the share of the atlas is the largest that it can be. Processor seconds hold on a busy machine, too.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from indexer.storage import artifact  # noqa: E402
from tests.benchmarks.machine import heading  # noqa: E402
from training.images.folders import list_examples  # noqa: E402

INSTRUCTIONS: Final = ("avx2", "avx512f")
WAYS: Final = ("alone", "with the atlas")


@dataclass(frozen=True)
class Cost:
    """What one build took."""

    seconds: float
    processor_s: float
    memory: int  # bytes, at most

    def __str__(self) -> str:
        return f"{self.seconds:7.1f} s, {self.processor_s:7.1f} s of processors, {self.memory / 1e6:5.0f} MB"


def build(data: Path, model: Path, index: Path, bits: int, atlas: bool) -> Cost:
    """Builds an index in a process of its own."""
    folders = ["--data", str(data), "--model", str(model), "--index", str(index)]
    command = [sys.executable, "-m", "indexer.build", *folders, "--bits", str(bits), *["--atlas"] * atlas]
    began = time.perf_counter()
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} ended with {status}")
    return Cost(time.perf_counter() - began, usage.ru_utime + usage.ru_stime, 1024 * usage.ru_maxrss)


def chosen(data: Path, count: int, folder: Path) -> Path:
    """A folder of links to so many photographs of a data set, evenly spread; 0: the data set itself."""
    examples = list_examples(data, "all")
    if not count or count >= len(examples):
        return data
    for number in range(count):
        example = examples[number * len(examples) // count]
        (folder / example.label).mkdir(parents=True, exist_ok=True)
        (folder / example.label / f"{number:06d}{Path(example.path).suffix}").symlink_to(data.resolve() / example.path)
    return folder


def main() -> None:
    """Prints each pair, then the medians and what they are to each other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of photographs, without tar files")
    parser.add_argument("--model", type=Path, required=True, help="model folder")
    parser.add_argument("--photographs", type=int, default=1000, help="of the data set; 0 for all")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--bits", type=int, default=128, help="of the codes; 0 for none")
    options = parser.parse_args()
    print(heading(INSTRUCTIONS))
    with tempfile.TemporaryDirectory() as temporary:
        data = chosen(options.data, options.photographs, Path(temporary, "photographs"))
        costs: dict[str, list[Cost]] = {way: [] for way in WAYS}
        for pair in range(options.pairs):
            for way in WAYS if pair % 2 == 0 else WAYS[::-1]:
                index = Path(temporary, way)
                costs[way].append(build(data, options.model, index, options.bits, way != WAYS[0]))
                print(f"pair {pair + 1}, {way:<14s} {costs[way][-1]}, load {os.getloadavg()[0]:.1f}", flush=True)
        manifest = artifact.read_manifest(artifact.current(Path(temporary, WAYS[1])))
    print(f"{manifest.kept} photographs, atlas.safetensors of {manifest.files[artifact.ATLAS].bytes / 1e6:.2f} MB")
    for name in ("seconds", "processor_s"):
        ratios = [getattr(other, name) / getattr(one, name) for one, other in zip(*costs.values(), strict=True)]
        print(f"{name}: with the atlas {median(ratios):.3f} times as much, of {' '.join(f'{ratio:.3f}' for ratio in ratios)}")


if __name__ == "__main__":
    main()
