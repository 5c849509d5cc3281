"""Prints a constraint for each dependency of the programs: its lowest version in pyproject.toml. For pip, in `make lowest`."""

import tomllib
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

PROJECT: dict[str, Any] = tomllib.loads((Path(__file__).resolve().parents[1] / "pyproject.toml").read_text())


def dependencies() -> list[Requirement]:
    """The dependencies, and those of every extra but the developers'."""
    project = PROJECT["project"]
    extras = [texts for name, texts in project["optional-dependencies"].items() if name != "dev"]
    return [Requirement(text) for texts in [project["dependencies"], *extras] for text in texts]


def lowest(requirement: Requirement) -> str:
    """The same requirement of its lowest version alone. Raises ValueError where it names none."""
    versions = [bound.version for bound in requirement.specifier if bound.operator in (">=", "==")]
    if len(versions) != 1:
        raise ValueError(f"{requirement} must have one lower bound, got {versions}")
    return f"{requirement.name}=={versions[0]}" + (f"; {requirement.marker}" if requirement.marker else "")


if __name__ == "__main__":
    print("\n".join(map(lowest, dependencies())))
