"""What libtiff, below Pillow, says of a file: kept for whoever decodes it, where it would go to descriptor 2 without a name.

One function of a process takes the errors of libtiff. Ours is called on the thread that decodes, and so each error is of the file
that this thread has in hand. Of all libraries below Pillow, libtiff alone writes to descriptor 2.
"""

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from PIL import _imaging

_LONGEST: Final = 200  # bytes of a message; the buffer's last is 0
_NO_NAME: Final = b"tempfile.tif"  # Pillow's, of every file


@dataclass
class Errors:
    """The errors of one file: the first, and how many there were."""

    first: str = ""
    count: int = 0

    def __str__(self) -> str:
        return f"{self.first} (and {self.count - 1} more)" if self.count > 1 else self.first


class _Thread(threading.local):
    errors: Errors | None = None


_thread: Final = _Thread()


@contextmanager
def errors_of_a_file() -> Iterator[Errors]:
    """Collects the errors that libtiff finds on this thread; it is one file that is decoded meanwhile."""
    before, _thread.errors = _thread.errors, Errors()
    try:
        yield _thread.errors
    finally:
        _thread.errors = before


# void handler(const char *module, const char *format, va_list); a va_list is passed as one pointer on every system with Pillow
_Handler = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p)


def _note(module: bytes | None, format: int, arguments: int) -> None:
    errors = _thread.errors
    if errors is None:
        return
    errors.count += 1
    if errors.count == 1:
        buffer = ctypes.create_string_buffer(_LONGEST)
        _vsnprintf(buffer, len(buffer), ctypes.c_void_p(format), ctypes.c_void_p(arguments))
        where = module if module and module != _NO_NAME else b"libtiff"
        errors.first = f"{where.decode(errors='replace')}: {buffer.value.decode(errors='replace')}"


_vsnprintf: Final = ctypes.CDLL(None).vsnprintf
_handler: Final = _Handler(_note)  # which must live as long as the process


def _install() -> None:
    """Sets the handlers of the libtiff that Pillow is linked with; does nothing where Pillow has none, or hides it."""
    libraries = ctypes.CDLL(_imaging.__file__)  # symbols are looked for in what it is linked with too
    try:
        set_errors, set_warnings = libraries.TIFFSetErrorHandler, libraries.TIFFSetWarningHandler
    except AttributeError:
        return
    set_errors.restype = set_warnings.restype = ctypes.c_void_p
    set_errors(_handler)
    set_warnings(None)  # they are about tags, of which only those that pixels need are left


_install()
