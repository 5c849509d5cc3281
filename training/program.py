"""What every command has in common: settings from defaults, environment and command line; errors to exit statuses; progress."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn, TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings, CliApp, SettingsConfigDict
from tqdm import tqdm

from training.errors import BadSettings, BadValue, FC7Error

T = TypeVar("T")


class Settings(BaseSettings):
    """Base of one typed class per program: defaults, then `FC7_*` from the environment, then the command line."""

    model_config = SettingsConfigDict(
        env_prefix="FC7_",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
        frozen=True,
        extra="ignore",
    )


S = TypeVar("S", bound=Settings)


def run_program(settings_type: type[S], main: Callable[[S], None], argv: Sequence[str] | None = None) -> NoReturn:
    """Parses settings, runs `main`, and exits: 0 done, 1 an error of ours, 2 a wrong setting, 130 interrupted."""
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
    except KeyboardInterrupt:
        sys.exit(_complain(program, "interrupted; the same command goes on where this one stopped", 130))
    sys.exit(0)


def parse(settings_type: type[S], argv: Sequence[str] | None = None) -> S:
    """Reads settings from the environment and `argv` (default: the process's own).

    Raises BadValue for the first wrong one, BadSettings for what does not go together.
    """
    try:
        return CliApp.run(settings_type, cli_args=None if argv is None else list(argv))
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:
            raise BadSettings(expected(first["msg"])) from error
        raise BadValue(".".join(map(str, first["loc"])), first["input"], expected(first["msg"])) from error


def expected(message: str) -> str:
    """Pydantic's "Input should be ..." as the tail of "field must be ..."."""
    return message.removeprefix("Value error, ").removeprefix("Input should be ")


def progress(items: Iterable[T], total: int, what: str, unit: str = "images") -> Iterator[T]:
    """Passes `items` on behind a progress bar with rate and time left; where the output is no terminal, a line now and then.

    Of several ranks under torchrun, the first shows it.
    """
    interval = 0.2 if sys.stderr.isatty() else 10.0
    quiet = os.environ.get("RANK", "0") != "0"
    yield from tqdm(items, total=total, desc=what, unit=f" {unit}", mininterval=interval, dynamic_ncols=True, disable=quiet)


@contextmanager
def asked_to_stop() -> Iterator[Callable[[], bool]]:
    """Holds back Ctrl-C and SIGTERM, once, so that a step can be finished: gives a function that says whether one has come."""
    came: list[int] = []

    def note(signum: int, frame: FrameType | None) -> None:
        if came:
            signal.default_int_handler(signum, frame)
        came.append(signum)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
    print(f"{program}: {text}", file=sys.stderr)
    return status
