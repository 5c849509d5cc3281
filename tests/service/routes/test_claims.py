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
from training.claims.record import REPORT, Report


@pytest.fixture
def client(model: Path, index: Path, tmp_path: Path) -> Iterator[TestClient]:
    settings = ServiceSettings(model=model, index=index, claims=tmp_path)
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


def test_the_report_comes_as_it_was_written(client: TestClient, tmp_path: Path) -> None:
    (tmp_path / REPORT).write_text(made_report().model_dump_json(indent=1))
    answer = client.get("/reports/claims")
    assert answer.status_code == 200
    assert Report.model_validate_json(answer.content) == made_report()


def test_claims_that_are_not_measured_are_404_with_the_command(client: TestClient) -> None:
    assert_problem(client.get("/reports/claims"), 404, "python -m training.claims --quick --out")


@pytest.mark.parametrize("text", ["[]", "nonsense", json.dumps({"format": 1})])
def test_what_is_no_report_is_503(client: TestClient, tmp_path: Path, text: str) -> None:
    (tmp_path / REPORT).write_text(text)
    assert_problem(client.get("/reports/claims"), 503, "is not a report of claims of this version")


def test_a_report_that_is_too_long_is_not_read(client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "LARGEST", 10)
    (tmp_path / REPORT).write_text(made_report().model_dump_json())
    assert_problem(client.get("/reports/claims"), 503, "more than 10 bytes")
