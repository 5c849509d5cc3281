"""What every benchmark says before its figures: on which machine, of which commit, by which command."""

import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch

ROOT: Final = Path(__file__).resolve().parents[2]


def heading(instructions: Sequence[str], *versions: str) -> str:
    """Processor, threads, those of the instructions that it has, versions, commit and command."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    lines = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
    facts = {key.strip(): value.strip() for key, value in lines.items()}
    flags = facts.get("flags", "").split()
    has = " ".join(flag for flag in instructions if flag in flags)
    commit = subprocess.run(["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True)
    return (
        f"{facts.get('model name', platform.processor())}, {torch.get_num_threads()} threads, {has}\n"
        f"{', '.join([f'Python {platform.python_version()}', *versions])}\n"
        f"commit {commit.stdout.strip()}; python {' '.join(sys.argv)}"
    )
