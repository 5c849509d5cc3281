"""Several runs of training.train at a time, each in a process of its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from threading import Lock

from training.errors import FC7Error
from training.files import printable


class Runs:
    """As many runs at a time as there are cores, each by its name: it heads the lines that the run prints.

    Two runs of one thread each do not wait for each other, as two threads of one run do at every layer.
    """

    def __init__(self, options: Mapping[str, Sequence[str]], logs: Path) -> None:
        """`options` of training.train for every run; what a run writes to its standard error goes to logs/<name>.log."""
        self._options, self._logs = options, logs
        self._cores = os.cpu_count() or 1
        self._at_once = min(self._cores, len(options))
        self._lock = Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self._stopping = False

    def finish(self) -> None:
        """Runs all to their end.

        Raises FC7Error where one fails. The others are then told to save and to stop, as by Ctrl-C, and so they are by Ctrl-C.
        """
        self._logs.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(self._at_once, "run") as pool:
            futures = [pool.submit(self._run, name) for name in self._options]
            try:
                for future in as_completed(futures):
                    future.result()
            except BaseException:
                self._stop()
                raise

    def _run(self, name: str) -> None:
        log = self._logs / f"{name}.log"
        with log.open("w", encoding="utf-8") as errors:
            process = self._start(name, errors.fileno())
            if process is None:
                return
            with process:
                for line in process.stdout or ():
                    print(f"{name}: {line.rstrip()}", flush=True)
        with self._lock:
            self._running.remove(process)
        if process.returncode and not self._stopping:
            lines = log.read_text("utf-8", "replace").splitlines()
            raise FC7Error(
                f"{name} ended with status {process.returncode}: {printable(lines[-1]) if lines else 'no reason given'}"
            )

    def _start(self, name: str, errors: int) -> subprocess.Popen[str] | None:
        with self._lock:
            if self._stopping:
                return None
            process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", "training.train", *self._options[name]],
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, "OMP_NUM_THREADS": str(self._cores // self._at_once)},
                text=True,
                process_group=0,  # else Ctrl-C reached it twice: from the terminal and from here
            )
            self._running.add(process)
            return process

    def _stop(self) -> None:
        with self._lock:
            self._stopping = True
            for process in self._running:
                process.send_signal(signal.SIGINT)
