"""What every benchmark says before its figures: on which machine, of which commit, by which command."""

import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch

from training.program import machine

ROOT: Final = Path(__file__).resolve().parents[2]


def heading(instructions: Sequence[str], *versions: str) -> str:
    """Processor, threads, those of the instructions that it has, versions, commit and command."""
    info = Path("/proc/cpuinfo")
    flags = re.findall(r"^flags\s*: (.*)$", info.read_text() if info.is_file() else "", re.MULTILINE)
    has = " ".join(name for name in instructions if name in "".join(flags[:1]).split())
    commit = subprocess.run(["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True)
    return (
        f"{machine()}, {torch.get_num_threads()} threads, {has}\n"
        f"{', '.join([f'Python {platform.python_version()}', *versions])}\n"
        f"commit {commit.stdout.strip()}; python {' '.join(sys.argv)}"
    )
