"""The pages: links lead somewhere, the README is short, commands are run, tables are true. tests/pages.py runs the commands."""

import importlib
import re
import shlex
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from indexer.storage import artifact
from indexer.storage.artifact import Manifest
from service.app import create_app
from service.metrics import Metrics
from service.settings import ServiceSettings
from tests import pages
from tests.pages import ELSEWHERE, GIVEN, ROOT, RUNS, Command
from training.program import Settings, parse

PAGES = pages.pages()
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
COMMANDS = [
    pytest.param(command, id=f"{name}: {command.text[:80]}")
    for name, page in zip(NAMES, PAGES, strict=True)
    for command in pages.commands(page)
]
PROGRAMS = {
    "training": (
        "train",
        "evaluate",
        "datasets",
        "pretrained",
        "profiles",
        "figure3",
        "filters",
        "invariance",
        "patches",
        "vit",
        "claims.__main__",
    ),
    "indexer": ("build", "add", "remove", "compact", "evaluate", "duplicates", "fidelity", "calibrate"),
    "service": ("__main__",),
}


def without_code(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """What GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", without_code(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def section(page: str, heading: str) -> str:
    """What stands below a heading, up to the next of its rank or above."""
    text = (ROOT / page).read_text()
    rank = len(heading) - len(heading.lstrip("#"))
    found = re.search(rf"^{re.escape(heading)}$(.*?)(?=^#{{1,{rank}}} |\Z)", text, re.DOTALL | re.MULTILINE)
    assert found, f"{page} has no section {heading!r}"
    return found[1]


def first_cells(text: str) -> list[str]:
    """The names in the first column of the tables of a text: what is in backquotes there."""
    return [name for row in re.findall(r"^\| (`.*?) \|", text, re.MULTILINE) for name in re.findall("`([^`]+)`", row)]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_link_to_a_file_or_a_section_leads_there(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://)([^)\s]+)\)", without_code(page))
    assert links
    for link in links:
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        target = target / "README.md" if target.is_dir() else target
        assert target.is_file(), f"{link}: no such file"
        assert not anchor or anchor in anchors(target), f"{link}: no such section"


def test_headings_of_a_page_differ() -> None:
    for page in PAGES:
        headings = re.findall(r"^#+ .+$", without_code(page), re.MULTILINE)
        assert len(headings) == len(anchors(page)), page


def test_the_readme_is_short() -> None:
    assert (ROOT / "README.md").stat().st_size <= 10_000


def test_every_page_is_a_story_and_every_story_a_page() -> None:
    assert set(GIVEN) == set(NAMES)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_run_or_listed_with_what_runs_it_or_why_nothing_can(command: Command) -> None:
    text = re.sub(r"^(\w+=\S+ )+", "", command.text)
    assert command.text in ELSEWHERE or text.startswith(RUNS)


def test_the_list_of_what_is_not_run_names_commands_of_pages_and_tests_that_are_there() -> None:
    assert set(ELSEWHERE) <= {command.text for page in PAGES for command in pages.commands(page)}
    for path in re.findall(r"tests/[\w/]+\.py", " ".join(ELSEWHERE.values())):
        assert (ROOT / path).is_file(), path


def settings_of(program: str) -> type[Settings]:
    """The settings that a program of ours is started with."""
    for package, names in PROGRAMS.items():
        for name in names:
            importlib.import_module(f"{package}.{name}")
    kinds, found = [Settings], {}
    while kinds:
        kind = kinds.pop()
        found[kind.model_config.get("cli_prog_name")] = kind
        kinds += kind.__subclasses__()
    return found[f"python -m {program}"]


OURS = [param for param in COMMANDS if re.search(r"-m (training|indexer|service)\b", param.values[0].text)]  # type: ignore[union-attr]


@pytest.mark.parametrize("command", OURS)
def test_a_command_of_ours_has_the_options_that_the_page_gives_it(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FC7_DATA", "FC7_MODEL", "FC7_INDEX"):
        monkeypatch.delenv(name, raising=False)
    words = shlex.split(re.sub(r" 2> \S+", "", command.text))
    program, *options = words[words.index("-m") + 1 :]
    parse(settings_of(program), options)


def test_the_service_has_the_endpoints_parameters_and_errors_that_its_page_lists() -> None:
    description = create_app(ServiceSettings()).openapi()
    operations = {
        f"{method.upper()} {path}": operation
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    }
    page = "service/README.md"
    headings = re.findall(r"^### ([A-Z]+ /.*)$", section(page, "## Endpoints"), re.MULTILINE)
    assert set(headings) == set(operations)
    assert re.findall(r"^\| \[`([A-Z]+ /[^`]*)`\]", section(page, "## Endpoints"), re.MULTILINE) == headings
    for heading, operation in operations.items():
        asked = [parameter["name"] for parameter in operation.get("parameters", []) if parameter["in"] == "query"]
        assert sorted(first_cells(section(page, f"### {heading}"))) == sorted(asked), heading
    errors = {status for operation in operations.values() for status in operation["responses"] if status >= "400"}
    assert errors <= set(re.findall(r"^\| (\d+) \|", section(page, "## Errors"), re.MULTILINE))


def test_the_index_has_the_files_and_the_manifest_the_fields_that_the_page_lists() -> None:
    text = section("indexer/README.md", "## Format on disk")
    assert first_cells(section("indexer/README.md", "### The manifest")) == list(Manifest.model_fields)
    files = {value for name, value in vars(artifact).items() if name.isupper() and isinstance(value, str) and "." in value}
    assert {artifact.MANIFEST, artifact.VECTORS, artifact.CATALOG} <= files
    assert files <= set(first_cells(text))
    assert f"| `format` | {artifact.FORMAT} |" in text


def test_the_metrics_are_those_that_the_page_lists() -> None:
    text = section("docker/README.md", "## Metrics")
    metrics = Metrics()
    metrics.observe_model(lambda: ("0a", "paper"))
    metrics.observe_index(lambda: (1, 2))
    metrics.answered("GET", "/info", 200, 0.1)
    families = list(text_string_to_metric_families(metrics.text().decode()))
    ours = [family for family in families if re.fullmatch("fc7_.*(?<!_created)", family.name)]
    names = {f"{family.name}_total" if family.type == "counter" else family.name for family in ours}
    assert set(first_cells(text)) == names
    for family in ours:
        values = {
            value for sample in family.samples for name, value in sample.labels.items() if name in ("stage", "reason", "outcome")
        }
        for value in values:
            assert f"`{value}`" in text, f"{family.name}: {value}"
