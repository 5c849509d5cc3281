"""native.c of both packages: where a compiler is, both are built, load, and are free of what its warnings find."""

import ctypes
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from indexer.scans import native as scans
from training.network import native as network

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = {"training.network._native": network.library, "indexer.scans._native": scans.library}
EXTENSIONS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["ext-modules"]
COMPILER = shutil.which("gcc") or shutil.which("cc")
with_each_extension = pytest.mark.parametrize("extension", EXTENSIONS, ids=lambda extension: extension["name"])
pytestmark = pytest.mark.skipif(not COMPILER or sys.platform != "linux", reason="no compiler with OpenMP is expected here")


def test_every_extension_is_one_of_these() -> None:
    assert {extension["name"] for extension in EXTENSIONS} == set(LIBRARIES)


@with_each_extension
def test_the_installation_has_built_what_a_compiler_can_build(extension: dict[str, Any]) -> None:
    assert LIBRARIES[extension["name"]]() is not None, f"{extension['sources']} did not build or does not load; install anew"


@pytest.mark.slow
@with_each_extension
def test_it_compiles_without_a_warning_by_the_flags_of_the_installation(extension: dict[str, Any], tmp_path: Path) -> None:
    flags = ["-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", *extension["extra-compile-args"]]
    built = tmp_path / "native.so"
    command = [str(COMPILER), *flags, *extension["sources"], "-o", str(built), *extension["extra-link-args"], "-lm"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    ctypes.CDLL(str(built))
