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


def drawn_files() -> set[str]:
    """The files of the README's tree, whose folders end in / and whose entries are indented below them."""
    block = re.search(r"```text\n(service/.*?)```", README, re.DOTALL)
    assert block
    found, folders = set(), [""]
    for line in block[1].splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        name = line.split("#")[0].strip()
        folders = folders[: depth + 1]
        if name.endswith("/"):
            folders.append(folders[-1] + name)
        elif name:
            found |= {folders[-1] + part for part in name.split()}
    return found


def test_the_readme_draws_every_file_and_no_other() -> None:
    folders = ("service", "training", "indexer", "docker", "tests", ".ci", ".readme")
    files = {path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()}
    files |= {path for path in ROOT.iterdir() if path.is_file()}
    ignored = re.compile(r"__pycache__|\.egg-info|(^|/)__init__\.py$|^\.git$|^\.coverage|\.so$")
    present = {name for path in files if not ignored.search(name := path.relative_to(ROOT).as_posix())}
    assert drawn_files() == present


def test_the_readme_lists_every_setting_of_the_service_with_its_default() -> None:
    rows = re.findall(r"^\| `FC7_(\w+)` \| `([^`]*)` \| (.+) \|$", README, re.MULTILINE)
    fields = ServiceSettings.model_fields.items()
    assert rows == [(name.upper(), str(field.default), field.description) for name, field in fields]
