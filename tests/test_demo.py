"""The demo's script, with programs that only say that they ran."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "docker" / "demo.sh"
# Takes its time to save when it is told to stop, as training does
PROGRAM = """#!/bin/sh
[ "$1" = -m ] || exit 0
echo "$2" >>"$RAN"
[ "$2" = "$LONG" ] || exit 0
stop() { sleep 0.2; echo saved >>"$RAN"; exit 130; }
trap stop INT TERM
echo waiting
while :; do sleep 0.05; done
"""
STAGES = [
    "training.datasets",
    "training.train",
    "indexer.build",
    "indexer.duplicates",
    "training.evaluate",
    "indexer.evaluate",
    "indexer.calibrate",
    "service",
]


def start(folder: Path, long: str) -> subprocess.Popen[str]:
    python = folder / "bin" / "python"
    python.parent.mkdir()
    python.write_text(PROGRAM)
    python.chmod(0o755)
    environment = {"PATH": f"{python.parent}:{os.environ['PATH']}", "FC7_HOME": str(folder / "var")}
    return subprocess.Popen(
        [SCRIPT],
        env=environment | {"RAN": str(folder / "ran"), "LONG": long},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def ran(folder: Path) -> list[str]:
    return (folder / "ran").read_text().split()


def test_the_demo_runs_its_stages_in_turn(tmp_path: Path) -> None:
    output, _ = start(tmp_path, "none").communicate(timeout=30)
    assert ran(tmp_path) == STAGES
    assert [line[3:6] for line in output.splitlines() if line.startswith("== ")] == [f"{stage}/7" for stage in range(1, 8)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("stage", ["training.train", "training.evaluate", "indexer.evaluate", "indexer.calibrate", "service"])
def test_a_demo_that_is_stopped_waits_for_its_stage_to_save_and_begins_no_other(
    tmp_path: Path, stage: str, number: signal.Signals
) -> None:
    with start(tmp_path, stage) as demo:
        assert demo.stdout
        assert any("waiting" in line for line in demo.stdout)
        os.killpg(demo.pid, number)
        assert demo.wait(30) == (130 if stage == "service" else 128 + number)
    assert ran(tmp_path) == [*STAGES[: STAGES.index(stage) + 1], "saved"]
