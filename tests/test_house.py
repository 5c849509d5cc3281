"""The house as the README draws it: one direction of imports, a true tree, a true settings table, documented names."""

import ast
import re
from pathlib import Path

import pytest

from service.settings import ServiceSettings

ROOT = Path(__file__).resolve().parents[1]
RANKS = {"training": 0, "indexer": 1, "service": 2}
COMMANDS = {
    "training.train",
    "training.evaluate",
    "training.datasets",
    "training.pretrained",
    "training.profiles",
    "indexer.build",
    "indexer.evaluate",
    "service.__main__",
}
MODULES = sorted(path for package in RANKS for path in (ROOT / package).rglob("*.py"))
PAGES = ("service", "training", "indexer", "docker", "tests")
README = (ROOT / "README.md").read_text()


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_never_point_upward_and_never_at_a_command(path: Path) -> None:
    rank = RANKS[path.relative_to(ROOT).parts[0]]
    for name in imported(path):
        assert RANKS.get(name.split(".")[0], -1) <= rank, f"{path.name} imports {name}"
        assert name not in COMMANDS, f"{path.name} imports the command {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_public_names_say_what_they_are(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert not tree.body or ast.get_docstring(tree)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{node.name} has no docstring"


def drawn(page: Path, top: str) -> set[str]:
    """The paths that a page's tree draws below `top`: folders end in /, and what is in them is indented below them."""
    block = re.search(rf"```text\n({top}.*?)```", page.read_text(), re.DOTALL)
    assert block
    found, folders = set(), [""]
    for line in block[1].splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        names = line.split("#")[0].split()
        folders = folders[: depth + 1]
        found |= {folders[-1] + name for name in names}
        folders += [folders[-1] + name for name in names if name.endswith("/")]
    return found


def present() -> set[str]:
    """The files of the repository and the folders that they are in, these with a / at the end; not what tools leave there."""
    tools = re.compile(
        r"(^|/)(__pycache__|\.\w+_cache|\.venv|\.hypothesis|\.cache|\.git|build|var[^/]*|\w+\.egg-info)/|/__init__\.py$|\.so$|^\.git$"
    )
    paths = [
        path.relative_to(ROOT)
        for path in ROOT.rglob("*")
        if path.is_file() and not tools.search(path.relative_to(ROOT).as_posix())
    ]
    return {path.as_posix() for path in paths} | {f"{folder.as_posix()}/" for path in paths for folder in path.parents[:-1]}


PRESENT = present()


@pytest.mark.parametrize("package", PAGES)
def test_a_package_draws_every_file_of_its_own_and_no_other(package: str) -> None:
    assert drawn(ROOT / package / "README.md", f"{package}/") == {path for path in PRESENT if path.startswith(f"{package}/")}


def test_the_readme_draws_every_room_and_no_other() -> None:
    rooms = {path for path in PRESENT if path.endswith("/") and path.count("/") <= 2}
    assert drawn(ROOT / "README.md", "service/") == rooms | {path for path in PRESENT if "/" not in path}


def test_the_readme_lists_every_setting_of_the_service_with_its_default() -> None:
    rows = re.findall(r"^\| `FC7_(\w+)` \| `([^`]*)` \| (.+) \|$", README, re.MULTILINE)
    fields = ServiceSettings.model_fields.items()
    assert rows == [(name.upper(), str(field.default), field.description) for name, field in fields]
