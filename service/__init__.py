"""HTTP, and nothing but HTTP."""

from importlib.metadata import version

__version__ = version("fc7")
