"""Log lines, read back by json."""

import json
import logging
import re
import warnings
from collections.abc import Iterator
from contextvars import copy_context
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service import logs
from service.app import create_app
from service.settings import ServiceSettings
from tests.conftest import damaged_fax
from tests.service.calls import assert_problem


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """What went to stderr; nothing may go to stdout."""
    out, err = capsys.readouterr()
    assert out == ""
    assert not err or err.endswith("\n")
    return [json.loads(line) for line in err.splitlines()]


def test_a_line_says_when_how_grave_who_and_what(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    before = datetime.now(UTC)
    logging.getLogger("fc7.service").warning("%d of %s", 3, "four", extra={"version": 7})
    [line] = lines(capsys)
    time = line.pop("time")
    assert line == {"level": "WARNING", "logger": "fc7.service", "message": "3 of four", "version": 7}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", time)
    assert abs((datetime.fromisoformat(time) - before).total_seconds()) < 60


def test_a_line_carries_the_id_of_its_request_and_of_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()

    def serve(request_id: str) -> None:
        logs.request_id.set(request_id)
        logging.getLogger("fc7").info("inside")

    for request_id in ("a", "b"):
        copy_context().run(serve, request_id)
    logging.getLogger("fc7").info("outside")
    assert [line.get("request_id", "absent") for line in lines(capsys)] == ["a", "b", "absent"]


@pytest.mark.parametrize(
    "text", ["a\nb", "a\r\nb", '{"level": "x"}\n', "\u2028\u2029\x85\x0b\x0c", "\x1b[31m", '"\\', "\udcff", "ü"]
)
def test_no_text_breaks_a_line(capsys: pytest.CaptureFixture[str], text: str) -> None:
    logs.configure()
    logging.getLogger("fc7").info("got %s", text, extra={"path": text})
    [line] = lines(capsys)
    assert (line["message"], line["path"]) == (f"got {text}", text)


def test_an_exception_is_told_with_its_traceback_on_the_same_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    try:
        raise ValueError("of\nno use")
    except ValueError:
        logging.getLogger("fc7").exception("failed")
    [line] = lines(capsys)
    assert (line["level"], line["message"]) == ("ERROR", "failed")
    assert line["exception"].startswith("Traceback (most recent call last):\n")
    assert line["exception"].endswith("ValueError: of\nno use")


def test_what_json_does_not_know_is_written_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    logging.getLogger("fc7").info("odd", extra={"odd": {1: object()}, "when": datetime(2012, 12, 3, tzinfo=UTC)})
    [line] = lines(capsys)
    assert line["when"] == "2012-12-03T00:00:00+00:00"
    assert "object" in str(line["odd"])


def test_warnings_of_python_and_lines_of_uvicorn_go_the_same_way(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logs.configure()
        warnings.warn("soon gone", DeprecationWarning, stacklevel=1)
    logging.getLogger("uvicorn.error").warning("Started [%d]", 5, extra={"color_message": "Started [\x1b[36m%d\x1b[0m]"})
    warned, started = lines(capsys)
    assert (warned["logger"], warned["level"]) == ("py.warnings", "WARNING")
    assert "DeprecationWarning: soon gone" in warned["message"]
    assert set(started) == {"time", "level", "logger", "message"}
    assert started["message"] == "Started [5]"


def test_configuring_again_does_not_say_everything_twice(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    logs.configure()
    logging.getLogger("fc7").info("once")
    logging.getLogger("fc7").debug("never")
    assert [line["message"] for line in lines(capsys)] == ["once"]


def test_what_libtiff_says_of_a_photograph_is_told_to_its_sender_and_breaks_no_line(
    model: Path, index: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    logs.configure()
    with TestClient(create_app(ServiceSettings(model=model, index=index))) as client:
        for path in ("/classify", "/neighbors"):
            assert_problem(client.post(path, files={"image": damaged_fax()}), 422, "Fax4Decode: ")
    out, err = capfd.readouterr()  # what goes to descriptor 2 too
    assert out == ""
    paths = [json.loads(line).get("path") for line in err.splitlines()]
    assert [path for path in paths if path] == ["/classify", "/neighbors"]
