"""Libraries of compiled C that an installation puts beside a module."""

import ctypes
from contextlib import suppress
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path


def compiled_beside(module: str) -> ctypes.CDLL | None:
    """The library `_native` that an installation compiled beside a module's file; None where there is none that loads."""
    for suffix in EXTENSION_SUFFIXES:
        path = Path(module).with_name(f"_native{suffix}")
        if path.is_file():
            with suppress(OSError):
                return ctypes.CDLL(str(path))
    return None
