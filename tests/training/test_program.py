"""What every command does with settings, errors and interruptions."""

from pathlib import Path

import pytest
from pydantic import Field
from pydantic_settings import SettingsConfigDict

from training.errors import BadValue, FC7Error, NotReady
from training.files import replacing
from training.program import Settings, parse, run_program


class Example(Settings):
    """An example of a command."""

    model_config = SettingsConfigDict(cli_prog_name="example")

    max_wait_ms: int = Field(5, ge=0, description="longest wait")


def test_the_command_line_wins_over_the_environment_and_that_over_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse(Example, []).max_wait_ms == 5
    monkeypatch.setenv("FC7_MAX_WAIT_MS", "6")
    assert parse(Example, []).max_wait_ms == 6
    assert parse(Example, ["--max-wait-ms", "7"]).max_wait_ms == 7


def test_a_wrong_setting_is_named_with_its_value() -> None:
    with pytest.raises(BadValue, match="max_wait_ms must be greater than or equal to 0, got '-5'"):
        parse(Example, ["--max-wait-ms=-5"])


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (NotReady("no model at x"), 1, "example: no model at x"),
        (FC7Error("disk"), 1, "example: disk"),
        (BadValue("k", 0, "at least 1"), 2, "example: k must be at least 1, got 0"),
        (OSError(28, "No space left on device", "/x"), 1, "example: No space left on device: /x"),
        (KeyboardInterrupt(), 130, "example: interrupted; the same command goes on where this one stopped"),
    ],
)
def test_errors_become_one_line_and_an_exit_status(
    error: BaseException, status: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_settings: Example) -> None:
        raise error

    with pytest.raises(SystemExit) as stopped:
        run_program(Example, fail, [])
    assert stopped.value.code == status
    assert capsys.readouterr().err == words + "\n"


def test_help_teaches_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run_program(Example, lambda _settings: None, ["--help"])
    text = capsys.readouterr().out
    assert "--max-wait-ms" in text
    assert "longest wait" in text
    assert "An example of a command." in text


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")

    def interrupted() -> None:
        with replacing(target) as path:
            path.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    assert target.read_text() == "old"
    with replacing(target) as path:
        path.write_text("new")
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]
