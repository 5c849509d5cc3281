"""Compiles native.c of both packages with AddressSanitizer and UndefinedBehaviorSanitizer and runs their tests: `make sanitize`.

The libraries go into a copy of the repository: those of the checkout stay as they are.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from functools import partial
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FLAGS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g", "-O1", "-fPIC", "-shared")
TESTS = (
    "tests/test_native.py::test_the_installation_has_built_what_a_compiler_can_build",
    "tests/training/network/test_native.py",
    "tests/training/network/test_lrn.py",
    "tests/indexer/scans",
)
# Reads the first row behind a table of four: where nothing stops this, nothing is checked
BEYOND = """
import ctypes
import numpy as np
from indexer.scans import native
table, rows, squared = np.zeros((4, 4096), np.float32), np.array([4]), np.empty(1)
query = table[0].copy()
pointers = [ctypes.c_void_p(array.ctypes.data) for array in (query, rows, squared)]
numbers = [ctypes.c_int64(number) for number in (1, 1)]
print("loaded", native.library()._name, flush=True)
native.library().fc7_squared_distances(ctypes.byref(native._Vectors(table).struct()), *pointers[:2], *numbers, pointers[2])
"""


def build(compiler: str, copy: Path) -> None:
    """Compiles the extensions of a copy of the repository beside their modules."""
    for extension in tomllib.loads((copy / "pyproject.toml").read_text())["tool"]["setuptools"]["ext-modules"]:
        library = copy / (extension["name"].replace(".", "/") + EXTENSION_SUFFIXES[0])
        flags = [*(flag for flag in extension["extra-compile-args"] if flag != "-O3"), *FLAGS]
        links = [*extension["extra-link-args"], "-lm"]
        subprocess.run([compiler, *flags, *extension["sources"], "-o", library, *links], cwd=copy, check=True)


def library(compiler: str, name: str) -> str:
    """Where a compiler finds a library; its name alone, which the loader looks for, where it does not."""
    return subprocess.run([compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()


def main() -> int:
    """Builds, sees one read beyond the end stopped, and runs the tests; the exit status of pytest."""
    compiler = shutil.which("gcc")
    if not compiler:
        print("gcc is not installed", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="fc7-sanitize-") as folder:
        copy = Path(folder)
        for name in ("training", "indexer", "service", "tests"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        build(compiler, copy)
        # with C++'s library: where a module that throws brings it later, AddressSanitizer has not found how to throw
        libraries = " ".join(library(compiler, name) for name in ("libasan.so", "libstdc++.so.6"))
        # Python itself is not instrumented: what it leaves behind at its end is no leak of ours
        preload = {"LD_PRELOAD": libraries, "ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"}
        run = partial(subprocess.run, cwd=copy, env={**os.environ, **preload}, check=False)
        beyond = run([sys.executable, "-c", BEYOND], capture_output=True, text=True)
        if f"loaded {copy}" not in beyond.stdout or "AddressSanitizer: heap-buffer-overflow" not in beyond.stderr:
            print(beyond.stdout, beyond.stderr, "a read beyond the end was not seen", sep="\n", file=sys.stderr)
            return 1
        # not captured: what a sanitizer says before it ends the process would be lost
        return run([sys.executable, "-m", "pytest", "-x", "--capture=no", *TESTS]).returncode


if __name__ == "__main__":
    sys.exit(main())
