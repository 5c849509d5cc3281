"""What every command does with settings, errors and interruptions."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import torch
from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from training.errors import BadSettings, BadValue, FC7Error, NotReady
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


class Demanding(Settings):
    """A command that cannot do without its settings.

    Its second paragraph.
    """

    model_config = SettingsConfigDict(cli_prog_name="demanding")

    data: Path = Field(description="folder")
    share: float = Field(0.5, ge=0, le=1, description="of the photographs")
    layers: list[int] = Field([], description="numbers of layers")
    keys: dict[str, SecretStr] = Field({}, description="secrets, by name")


def test_a_wrong_variable_is_named_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("fc7_max_wait_ms", "-6")
    with pytest.raises(BadValue, match=r"max_wait_ms must be greater than or equal to 0 in FC7_MAX_WAIT_MS, got '-6'"):
        parse(Example, [])
    with pytest.raises(BadValue, match=r"max_wait_ms must be greater than or equal to 0, got '-7'"):
        parse(Example, ["--max-wait-ms", "-7"])


def test_all_wrong_settings_are_named_a_line_each(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FC7_LAYERS", "1,2")
    with pytest.raises(SystemExit) as stopped:
        run_program(Demanding, lambda _settings: None, ["--share=2"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.splitlines() == [
        "demanding: data is missing: give --data or FC7_DATA",
        "share must be less than or equal to 1, got '2'",
        """layers must be a list, as ["a", "b"], in FC7_LAYERS, got '1,2'""",
    ]


def test_lists_come_from_the_environment_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FC7_LAYERS", "[1, 2]")
    assert parse(Demanding, ["--data", "x"]).layers == [1, 2]
    monkeypatch.setenv("FC7_LAYERS", '[1, "two"]')
    with pytest.raises(BadValue, match=r"layers\.1 must be a valid integer, .* in FC7_LAYERS, got 'two'"):
        parse(Demanding, ["--data", "x"])


@pytest.mark.parametrize("value", ['{"a": ["hush"]}', '["hush"]', "hush"])
def test_secrets_are_never_shown(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FC7_KEYS", value)
    with pytest.raises(BadValue, match=r"keys.* must be a valid .* in FC7_KEYS, got SecretStr") as refused:
        parse(Demanding, ["--data", "x"])
    assert "hush" not in str(refused.value)
    assert (refused.value.__cause__, refused.value.__context__) == (None, None)
    with pytest.raises(BadSettings, match="data is missing") as several:
        parse(Demanding, [])
    assert "hush" not in str(several.value)


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (NotReady("no model at x"), 1, "example: no model at x"),
        (FC7Error("disk"), 1, "example: disk"),
        (BadValue("k", 0, "at least 1"), 2, "example: k must be at least 1, got 0"),
        (OSError(28, "No space left on device", "/x"), 1, "example: No space left on device: /x"),
        (MemoryError(), 1, "example: there is not enough memory (MemoryError); smaller batches and fewer processes take less"),
        (KeyboardInterrupt(), 130, "example: interrupted; the same command begins anew"),
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


@pytest.mark.parametrize(
    "take",
    [
        lambda: torch.empty(2**55, dtype=torch.uint8),
        lambda: np.empty(2**55, np.uint8),
        lambda: _raise(torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2.00 GiB")),
    ],
)
def test_memory_that_is_not_there_is_one_line_that_says_what_takes_less(
    take: Callable[[], object], capsys: pytest.CaptureFixture[str]
) -> None:
    def run(_settings: Example) -> None:
        take()

    with pytest.raises(SystemExit) as stopped:
        run_program(Example, run, [])
    assert stopped.value.code == 1
    told = capsys.readouterr().err
    assert re.fullmatch(
        r"example: there is not enough memory \(.*llocat.*\); smaller batches and fewer processes take less\n", told
    )


def test_another_error_of_pytorchs_is_not_taken_for_it() -> None:
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        run_program(Example, lambda _settings: _raise(RuntimeError("mat1 and mat2 shapes cannot be multiplied")), [])


def _raise(error: Exception) -> NoReturn:
    raise error


def test_an_interrupted_program_says_that_it_goes_on_only_where_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    class Resuming(Example):
        """A program that keeps what it has done."""

        resumes = True

    def interrupt(_settings: Example) -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit):
        run_program(Resuming, interrupt, [])
    assert capsys.readouterr().err == "example: interrupted; the same command goes on where this one stopped\n"


def test_help_teaches_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run_program(Example, lambda _settings: None, ["--help"])
    text = capsys.readouterr().out
    assert "--max-wait-ms" in text
    assert "longest wait" in text
    assert "An example of a command." in text


def test_help_shows_every_paragraph_from_the_margin(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run_program(Demanding, lambda _settings: None, ["--help"])
    assert "\nA command that cannot do without its settings.\n\nIts second paragraph.\n" in capsys.readouterr().out


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


def test_two_that_write_a_file_at_once_each_write_all_of_it(tmp_path: Path) -> None:
    target = tmp_path / "file"
    with replacing(target) as last:
        last.write_text("from the one that ends last, ")
        with replacing(target) as first:
            first.write_text("whole")
        assert target.read_text() == "whole"
        with last.open("a") as file:
            file.write("whole too")
    assert target.read_text() == "from the one that ends last, whole too"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("name", ["caf\udce9", "a\nb", "\x1b[0m"])
def test_a_path_that_cannot_be_recorded_is_refused_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    class PathSettings(Settings):
        data: Path = Path("data")

    with pytest.raises(BadValue, match="data must be a path in UTF-8 without control characters"):
        parse(PathSettings, ["--data", str(tmp_path / name)])
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    with pytest.raises(BadValue, match="data must be a path in UTF-8 without control characters"):
        parse(PathSettings, [])
