"""What pyproject.toml asks for, what the image installs of it, and what a wheel holds."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.lowest import PROJECT, dependencies, lowest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("training", "indexer", "service")
SOURCES = {"training/network/native.c", "indexer/scans/native.c"}


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_image_installs_one_version_of_every_dependency_and_one_that_is_allowed(machine: str) -> None:
    [python] = re.findall(r"^FROM python:(\d+\.\d+)", (ROOT / "docker" / "Dockerfile").read_text(), re.MULTILINE)
    changes = {"platform_machine": machine, "python_version": python, "python_full_version": f"{python}.0"}
    image = {**default_environment(), **changes, "sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}

    def needed(requirement: Requirement) -> bool:
        return requirement.marker is None or requirement.marker.evaluate({name: str(value) for name, value in image.items()})

    installed: dict[str, str] = {}
    for line in re.findall(r"^(\w.+?) \\$", (ROOT / "docker" / "requirements.txt").read_text(), re.MULTILINE):
        pin = Requirement(line)
        [bound] = pin.specifier
        assert bound.operator == "=="
        if needed(pin):
            assert canonicalize_name(pin.name) not in installed
            installed[canonicalize_name(pin.name)] = bound.version
    texts = [*PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"]["demo"]]
    for requirement in map(Requirement, [*texts, *PROJECT["build-system"]["requires"]]):
        if needed(requirement):
            assert installed[canonicalize_name(requirement.name)] in requirement.specifier


def test_every_dependency_has_a_lowest_version() -> None:
    assert len({lowest(requirement) for requirement in dependencies()}) == len(dependencies())
    assert lowest(Requirement("a>=1.2,<2; sys_platform == 'linux'")) == 'a==1.2; sys_platform == "linux"'
    assert lowest(Requirement("b==1.2.3")) == "b==1.2.3"
    with pytest.raises(ValueError, match="c<2 must have one lower bound"):
        lowest(Requirement("c<2"))


def test_a_wheel_holds_every_module_the_page_the_claims_the_types_and_the_licence(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path)]
    without_compiler = {**os.environ, "CC": "false"}  # what is compiled is optional, and takes long
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(source)], env=without_compiler, check=True)
    [path] = tmp_path.glob("fc7-*.whl")
    with ZipFile(path) as wheel:
        held = {name for name in wheel.namelist() if ".dist-info/" not in name}
        [metadata] = [wheel.read(name).decode() for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
        [licence] = [wheel.read(name) for name in wheel.namelist() if name.endswith(".dist-info/licenses/LICENSE")]
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    files += [ROOT / package / "py.typed" for package in PACKAGES]
    shipped = [ROOT / "service" / "web", ROOT / "training" / "claims" / "results"]
    files += [path for folder in shipped for path in folder.rglob("*") if path.is_file()]
    assert held == {path.relative_to(ROOT).as_posix() for path in files} | SOURCES
    assert "License-Expression: MIT" in metadata.splitlines()
    assert licence == (ROOT / "LICENSE").read_bytes()
