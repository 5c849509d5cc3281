"""What every command has in common: settings from defaults, environment and command line; errors to exit statuses; progress."""

import ctypes
import difflib
import inspect
import os
import platform
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar, Final, NoReturn, TypeVar, get_args

from pydantic import SecretStr, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, CliApp, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict
from tqdm import tqdm

from training.errors import BadSettings, BadValue, FC7Error
from training.files import is_text, printable

T = TypeVar("T")
PREFIX: Final = "FC7_"
FILE_VARIABLE: Final = "FC7_SETTINGS"  # names the file of the programs that read one
_NO_MEMORY: Final = re.compile("out of memory|can't allocate memory", re.IGNORECASE)  # of PyTorch's RuntimeErrors


class Settings(BaseSettings):
    """Base of one typed class per program: defaults, then `FC7_*` from the environment, then the command line."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
        frozen=True,
        extra="ignore",
    )

    resumes: ClassVar[bool] = False  # whether the program, interrupted and run again, goes on where it stopped

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.__doc__ = cls.__doc__ and inspect.cleandoc(cls.__doc__)  # which --help shows as it is

    @field_validator("*", mode="after")
    @classmethod
    def _recordable(cls, value: Any) -> Any:
        """Paths are written into what is made, resolved and as UTF-8."""
        if isinstance(value, Path) and not is_text(str(value.resolve())):
            raise ValueError("a path in UTF-8 without control characters, resolved too")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What `parse` reads below the command line."""
        return init_settings, _Environment(settings_cls)


class _Environment(EnvSettingsSource):
    """The environment; a list that is not JSON is left to validation, which names it beside all else that is wrong."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return value


S = TypeVar("S", bound=Settings)


def aligned(rows: Sequence[Sequence[str]], numbers: bool = False) -> str:
    """Rows of cells as lines, in columns as wide as their widest cell; with `numbers` all but the first column end in line."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        padded = zip(row, widths, strict=True)
        cells = [cell.rjust(width) if numbers and i else cell.ljust(width) for i, (cell, width) in enumerate(padded)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def run_program(settings_type: type[S], main: Callable[[S], None], argv: Sequence[str] | None = None) -> NoReturn:
    """Parses settings, runs `main`, and exits: 0 done, 1 an error of ours or no memory, 2 a wrong setting, 130 interrupted."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    program = settings_type.model_config.get("cli_prog_name") or "fc7"
    try:
        main(parse(settings_type, argv))
    except (BadValue, BadSettings) as error:
        sys.exit(_complain(program, str(error), 2))
    except FC7Error as error:
        sys.exit(_complain(program, str(error), 1))
    except OSError as error:
        sys.exit(_complain(program, f"{error.strerror or error}" + (f": {error.filename}" if error.filename else ""), 1))
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not _NO_MEMORY.search(str(error)):
            raise
        what = " ".join(str(error).split())[:200] or type(error).__name__
        sys.exit(_complain(program, f"there is not enough memory ({what}); smaller batches and fewer processes take less", 1))
    except KeyboardInterrupt:
        then = "goes on where this one stopped" if settings_type.resumes else "begins anew"
        sys.exit(_complain(program, f"interrupted; the same command {then}", 130))
    sys.exit(0)


def parse(settings_type: type[S], argv: Sequence[str] | None = None) -> S:
    """Reads settings from the environment and `argv` (default: the process's own).

    Raises BadValue for one wrong value, BadSettings for several, a line each, and for what does not go together.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    try:
        return CliApp.run(settings_type, cli_args=arguments)
    except ValidationError as error:
        wrong = [_named(settings_type, item, arguments) for item in error.errors()]
    # outside the handler: a traceback would show pydantic's error, and with it secrets
    raise wrong[0] if len(wrong) == 1 else BadSettings("\n".join(map(str, wrong)))


def expected(message: str) -> str:
    """Pydantic's "Input should be ..." as the tail of "field must be ..."."""
    message = message.removeprefix("Value error, ").removeprefix("Input should be ")
    return re.sub(r"^(\w+) should have ", lambda kind: f"a {kind[1].lower()} with ", message)


def _named(settings_type: type[Settings], item: ErrorDetails, arguments: Sequence[str]) -> BadValue | BadSettings:
    """One of pydantic's errors as ours: the setting, its value unless that is secret, and where it was given."""
    path, value = ".".join(map(str, item["loc"])), item["input"]
    if not path:
        return BadSettings(expected(item["msg"]))
    name = str(item["loc"][0])
    option, variable = f"--{name.replace('_', '-')}", PREFIX + name.upper()
    if item["type"] == "missing":
        return BadSettings(f"{path} is missing: give {option} or {variable}")
    if item["type"] == "extra_forbidden":
        close = difflib.get_close_matches(name, settings_type.model_fields, 1)
        hint = f"did you mean {close[0]}?" if close else "--help lists all that there are"
        return BadSettings(f"{path} in {os.environ.get(FILE_VARIABLE)} is not a setting; {hint}")
    if _is_secret(settings_type.model_fields[name].annotation):
        value = SecretStr(str(value))
    wanted = 'a list, as ["a", "b"],' if item["type"] in ("list_type", "tuple_type") else expected(item["msg"])
    if not any(argument.split("=")[0] == option for argument in arguments):
        wanted += f" in {variable if variable in map(str.upper, os.environ) else os.environ.get(FILE_VARIABLE)}"
    return BadValue(path, value, wanted)


def _is_secret(annotation: object) -> bool:
    return annotation is SecretStr or any(map(_is_secret, get_args(annotation)))


def progress(items: Iterable[T], total: int, what: str, unit: str = "images") -> Iterator[T]:
    """Passes `items` on behind a progress bar with rate and time left; where the output is no terminal, a line now and then.

    Of several ranks under torchrun, the first shows it.
    """
    interval = 0.2 if sys.stderr.isatty() else 10.0
    quiet = os.environ.get("RANK", "0") != "0"
    yield from tqdm(items, total=total, desc=what, unit=f" {unit}", mininterval=interval, dynamic_ncols=True, disable=quiet)


@contextmanager
def delayed_stop() -> Iterator[Callable[[], bool]]:
    """Holds back Ctrl-C and SIGTERM, once, so that a step can be finished: gives a function that says whether one has come."""
    signals: list[int] = []

    def note(signum: int, frame: FrameType | None) -> None:
        if signals:
            signal.default_int_handler(signum, frame)
        signals.append(signum)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(signals)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def machine() -> str:
    """The processor and how many cores it has, for those who read times."""
    info = Path("/proc/cpuinfo")
    model = re.search(r"^model name\s*: (.+)$", info.read_text() if info.is_file() else "", re.MULTILINE)
    return f"{model[1] if model else platform.machine()}, {os.cpu_count()} cores"


def commit() -> str:
    """The commit of the sources that run, with -dirty where they are changed; "" where git cannot say."""
    try:
        told = subprocess.run(  # noqa: S603
            ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--exclude=*"],  # noqa: S607
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return told.stdout.strip() if told.returncode == 0 else ""


def keep_freed_memory() -> None:
    """Lets glibc keep large freed blocks instead of returning them to the kernel each time.

    Every activation is such a block, and faulting its pages in anew is a third of a training step on two cores. Does nothing on
    other C libraries.
    """
    m_trim_threshold, m_mmap_max = -1, -4
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(m_mmap_max, 0)
    mallopt(m_trim_threshold, 2**31 - 1)


def _complain(program: str, text: str, status: int) -> int:
    print(f"{program}: " + "\n".join(map(printable, text.split("\n"))), file=sys.stderr)
    return status
