"""Processes of the command, and signals: nobody is left behind, nothing is printed that only its authors can read."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.training.claims.conftest import write_packed

ROOT = Path(__file__).resolve().parents[3]
PATIENCE_S = 120.0
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="reads children from /proc")]


@pytest.fixture
def command(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """`--quick` on made photographs, in a process group of its own as in a terminal, while its two workers import PyTorch."""
    write_packed(tmp_path / "out" / "packed" / "cifar.safetensors", 32, 200, 8)
    options = ["--quick", "--only", "relu", "--device", "cpu", "--processes", "2", "--out", str(tmp_path / "out")]
    with subprocess.Popen(
        [sys.executable, "-m", "training.claims", *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        _wait(lambda: sum(map(_imports_torch, _workers(process.pid))) == 2)
        yield process
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def test_ctrl_c_while_processes_begin_ends_all_of_them_with_one_line(command: subprocess.Popen[str]) -> None:
    workers = _workers(command.pid)
    os.killpg(command.pid, signal.SIGINT)
    _, errors = command.communicate(timeout=PATIENCE_S)
    assert errors == "python -m training.claims: interrupted; the same command goes on where this one stopped\n"
    assert command.returncode == 130
    assert not any(map(_lives, workers))


def test_processes_end_when_their_parent_is_killed(command: subprocess.Popen[str]) -> None:
    workers = _workers(command.pid)
    command.kill()
    _wait(lambda: not any(map(_lives, workers)))


def test_a_process_that_is_killed_ends_the_command_and_the_others(command: subprocess.Popen[str]) -> None:
    workers = _workers(command.pid)
    os.kill(workers[0], signal.SIGKILL)
    _, errors = command.communicate(timeout=PATIENCE_S)
    assert errors.endswith("ended from outside, for its memory perhaps; see --processes\n")
    assert "Traceback" not in errors
    assert command.returncode == 1
    assert not any(map(_lives, workers))


def _workers(parent: int) -> list[int]:
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def _imports_torch(process: int) -> bool:
    return "libtorch" in Path(f"/proc/{process}/maps").read_text()


def _lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def _wait(told: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not told():
        assert time.monotonic() < end
        time.sleep(0.02)
