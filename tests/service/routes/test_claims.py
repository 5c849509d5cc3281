"""GET /reports/claims gives what the command left."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.routes import claims
from service.settings import ServiceSettings
from tests.service.calls import assert_problem
from tests.training.claims.made import made_report
from training.claims.record import REPORT

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def client(model: Path, index: Path, tmp_path: Path) -> Iterator[TestClient]:
    settings = ServiceSettings(model=model, index=index, claims=tmp_path)
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


def test_the_report_comes_as_it_was_written(client: TestClient, tmp_path: Path) -> None:
    (tmp_path / REPORT).write_text(made_report().model_dump_json(indent=1))
    answer = client.get("/reports/claims")
    assert answer.status_code == 200
    assert answer.json() == {**made_report().model_dump(), "shipped": False}


SHIPPED = json.loads((ROOT / "training" / "claims" / "results" / "claims.json").read_text())


def test_a_folder_without_results_gives_those_that_are_shipped_and_says_so(client: TestClient) -> None:
    assert client.get("/reports/claims").json() == {**SHIPPED, "shipped": True}


def test_no_folder_gives_the_results_that_are_shipped(model: Path, index: Path) -> None:
    with TestClient(create_app(ServiceSettings(model=model, index=index))) as client:
        assert client.get("/reports/claims").json() == {**SHIPPED, "shipped": True}


def test_a_report_that_cannot_be_read_is_503(client: TestClient, tmp_path: Path) -> None:
    (tmp_path / REPORT).mkdir()
    assert_problem(client.get("/reports/claims"), 503, "claims.json cannot be read")


@pytest.mark.parametrize("text", ["[]", "nonsense", json.dumps({"format": 1})])
def test_what_is_no_report_is_503(client: TestClient, tmp_path: Path, text: str) -> None:
    (tmp_path / REPORT).write_text(text)
    assert_problem(client.get("/reports/claims"), 503, "is not a report of claims of this version")


def test_a_report_with_what_is_no_number_is_503(client: TestClient, tmp_path: Path) -> None:
    (tmp_path / REPORT).write_text(json.dumps({**made_report().model_dump(), "seconds": float("nan")}))
    assert_problem(client.get("/reports/claims"), 503, "is not a report of claims of this version")


def test_a_report_that_is_too_long_is_not_read(client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "LARGEST", 10)
    (tmp_path / REPORT).write_text(made_report().model_dump_json())
    assert_problem(client.get("/reports/claims"), 503, "more than 10 bytes")
