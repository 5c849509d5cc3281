"""Several runs at a time: their lines, their errors, and how they end together. Scripts stand in for training."""

import os
import signal
import sys
import textwrap
from pathlib import Path

import pytest

from training.errors import FC7Error
from training.run import several
from training.run.several import Runs

# python -m training.train HOW FILE: what a run of training does, without the training
SCRIPT = f"""\
#!{sys.executable} -S
import os, signal, sys

how, file = sys.argv[3:]
print(how, os.environ["OMP_NUM_THREADS"], os.getpgid(0) == os.getpid(), flush=True)
if how == "fail":
    open(file).read()  # of a pipe: until the other runs
    print("a warning\\nlr must be above 0", file=sys.stderr)
    sys.exit(2)
if how == "wait":
    stops = []
    signal.signal(signal.SIGINT, lambda *_: stops.append(1))
    open(file, "w").close()
    while not stops:
        signal.pause()
    open(file + ".stops", "w").write("saved")
    sys.exit(130)
"""


@pytest.fixture(autouse=True)
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts the script in the place of Python, and has two cores."""
    path = tmp_path / "python"
    path.write_text(textwrap.dedent(SCRIPT))
    path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(path))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)


def test_the_lines_of_runs_are_shown_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Runs({f"seed-{i}": ["end", ""] for i in range(3)}, tmp_path / "logs").finish()
    assert sorted(capsys.readouterr().out.splitlines()) == [f"seed-{i}: end 1 True" for i in range(3)]


def test_a_run_alone_has_all_cores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Runs({"seed-0": ["end", ""]}, tmp_path).finish()
    assert capsys.readouterr().out == "seed-0: end 2 True\n"


def test_where_one_fails_the_others_save_and_those_that_wait_do_not_begin(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "pipe")
    pipe = str(tmp_path / "pipe")
    with pytest.raises(FC7Error, match=r"^bad ended with status 2: lr must be above 0$"):
        Runs({"good": ["wait", pipe], "bad": ["fail", pipe], "later": ["end", ""]}, tmp_path).finish()
    assert (tmp_path / "pipe.stops").read_text() == "saved"
    assert "later" not in capsys.readouterr().out


def test_ctrl_c_is_passed_on_and_the_runs_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")

    def interrupt(_futures: object) -> object:
        (tmp_path / "pipe").read_text()  # until the run has begun
        signal.raise_signal(signal.SIGINT)
        return ()

    monkeypatch.setattr(several, "as_completed", interrupt)
    with pytest.raises(KeyboardInterrupt):
        Runs({"seed-0": ["wait", str(tmp_path / "pipe")]}, tmp_path).finish()
    assert (tmp_path / "pipe.stops").read_text() == "saved"
