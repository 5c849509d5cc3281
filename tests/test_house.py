"""The house as its pages draw it: what may import what, true trees, a true settings table, documented names."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from indexer.codes import autoencoder
from indexer.storage import artifact
from service.settings import ServiceSettings
from training import checkpoint

ROOT = Path(__file__).resolve().parents[1]
# What each room, and each module at a package's door, may import of its own package. A command may import whatever is not one.
ROOMS = {
    "training": {
        "errors": "",
        "compiled": "",
        "files": "errors",
        "program": "errors files",
        "network": "errors compiled files program",
        "images": "errors compiled files program",
        "record": "images",
        "checkpoint": "errors files network images record",
        "run": "errors files program network images record",
        "weights": "errors files network images",
        "analysis": "errors files network images",
        "claims": "errors files program network images record run analysis",
    },
    "indexer": {
        "arrays": "",
        "metric": "arrays",
        "features": "arrays metric",
        "store": "arrays metric features",
        "scans": "arrays",
        "codes": "arrays scans",
        "storage": "arrays metric features store scans codes",
        "search": "arrays metric features store scans codes storage",
        "grouping": "arrays metric store codes scans storage search",
        "changes": "arrays metric features store codes storage search",
        "milvus": "arrays metric features store scans codes storage search",
        "index": "arrays metric features store codes storage search changes",
        "assembly": "arrays metric features store codes storage search analysis changes milvus",
        "opening": "store storage index milvus",
        "evaluation": "arrays metric features store codes storage search index opening",
        "analysis": "arrays metric features store codes storage search index opening evaluation",
    },
    "service": {
        "metrics": "",
        "logs": "",
        "schemas": "",
        "client": "",
        "http11": "",
        "settings": "",
        "cursor": "",
        "batching": "",
        "decoding": "",
        "stages": "metrics",
        "errors": "metrics schemas",
        "connections": "metrics schemas http11 settings errors",
        "middleware": "metrics logs schemas settings errors",
        "pair": "errors",
        "engine": "metrics settings batching decoding pair stages cursor errors",
        "routes": "metrics schemas settings errors middleware pair stages cursor engine",
        "app": "metrics settings errors middleware engine routes",
    },
}
COMMANDS = {
    *(
        f"training.{name}"
        for name in ("train", "evaluate", "datasets", "pretrained", "profiles", "figure3", "filters", "patches", "vit")
    ),
    *(f"indexer.{name}" for name in ("build", "add", "remove", "compact", "evaluate", "duplicates", "fidelity", "calibrate")),
    "training.claims.__main__",
    "training.invariance",
    "service.__main__",
}
# What a package may import of the packages below it.
BELOW = {
    "training": set[str](),
    "indexer": {f"training.{room}" for room in ("errors", "compiled", "files", "program", "images", "checkpoint")},
    "service": {
        *(f"training.{room}" for room in ("errors", "files", "program", "images", "checkpoint")),
        *(f"indexer.{room}" for room in ("arrays", "metric", "features", "store", "storage", "search", "opening")),
    },
}
ANALYSES = {"training.analysis", "training.claims", "indexer.analysis"}  # which only commands and routes import
# What may import of the packages above its own: a command and a claim that measure the whole way of a photograph, to its code and
# its neighbours, though they are of the network. Whatever else lies below knows nothing of them.
ABOVE = {
    "training.invariance": {f"indexer.{room}" for room in ("opening", "search", "storage", "store")},
    "training.claims.paper.codes": {f"indexer.{room}" for room in ("codes", "evaluation", "features")},
}
MODULES = sorted(path for package in ROOMS for path in (ROOT / package).rglob("*.py") if path.name != "__init__.py")
PAGES = ("service", "training", "indexer", "docker", "tests")


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def room_of(module: str) -> str:
    return ".".join(module.split(".")[:2])


def imported(path: Path) -> set[str]:
    """The modules of this repository that a module imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {dotted(path) for path in MODULES} & names


def allowed(module: str) -> set[str]:
    """The rooms that a module may import from."""
    package, room = room_of(module).split(".")
    own = set(ROOMS[package]) if module in COMMANDS else {room, *ROOMS[package][room].split()}
    analyses = ANALYSES if module in COMMANDS or (package, room) == ("service", "routes") else set()
    return {f"{package}.{name}" for name in own} | BELOW[package] | analyses | ABOVE.get(module, set())


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_room_imports_what_the_table_allows_and_never_a_command(path: Path) -> None:
    imports = imported(path) - {dotted(path)}
    assert not imports & COMMANDS
    assert {room_of(name) for name in imports} <= allowed(dotted(path))


def test_the_table_names_every_room_and_every_command() -> None:
    modules = {dotted(path) for path in MODULES}
    assert {room_of(module) for module in modules - COMMANDS} == {
        f"{package}.{room}" for package in ROOMS for room in ROOMS[package]
    }
    assert set(ABOVE) <= modules
    # a claim is found by its name, in a folder, so that nothing takes on what it imports
    assert not any(imported(path) & (set(ABOVE) - COMMANDS) for path in MODULES)
    runs = {dotted(path) for path in MODULES if '__name__ == "__main__"' in path.read_text() or path.name == "__main__.py"}
    assert runs == COMMANDS


def test_no_rooms_and_no_modules_go_round_in_a_circle() -> None:
    for rooms in ROOMS.values():
        list(TopologicalSorter({room: names.split() for room, names in rooms.items()}).static_order())
    list(TopologicalSorter({dotted(path): imported(path) - {dotted(path)} for path in MODULES}).static_order())


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_public_names_say_what_they_are(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert not tree.body or ast.get_docstring(tree)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{node.name} has no docstring"


def drawn(page: Path, top: str) -> set[str]:
    """The paths that a page's tree draws below `top`, once each: folders end in /, and what is in them is indented below them."""
    block = re.search(rf"```text\n({top}.*?)```", page.read_text(), re.DOTALL)
    assert block
    found, folders = list[str](), [""]
    for line in block[1].splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        names = line.split("#")[0].split()
        folders = folders[: depth + 1]
        found += [folders[-1] + name for name in names]
        folders += [folders[-1] + name for name in names if name.endswith("/")]
    assert len(set(found)) == len(found), sorted({path for path in found if found.count(path) > 1})
    return set(found)


def present() -> set[str]:
    """The files of the repository and the folders that they are in, these with a / at the end; not what tools leave there."""
    tools = re.compile(
        r"(^|/)(__pycache__|\.\w+_cache|\.schemathesis|\.venv[^/]*|\.hypothesis|\.cache|\.git|build|var[^/]*|\w+\.egg-info)/|/__init__\.py$|\.so$|^\.git$"
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


def test_the_page_of_the_service_lists_every_setting_with_its_default() -> None:
    page = (ROOT / "service" / "README.md").read_text()
    rows = re.findall(r"^\| `FC7_(\w+)` \| `([^`]*)` \| (.+) \|$", page, re.MULTILINE)
    fields = ServiceSettings.model_fields.items()
    assert rows == [(name.upper(), str(field.default), field.description) for name, field in fields]


def test_the_changelog_names_the_formats_of_this_version_first() -> None:
    table = re.search(r"## Formats on disk\n.*?\|---\|.*?\n(\|.*?)\n", (ROOT / "CHANGELOG.md").read_text(), re.DOTALL)
    assert table
    assert [int(cell) for cell in table[1].split("|")[2:-1]] == [checkpoint.FORMAT, artifact.FORMAT, autoencoder.FORMAT]
