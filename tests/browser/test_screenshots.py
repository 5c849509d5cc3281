"""The command that takes the documentation's pictures takes one of every tab that has something to show."""

import subprocess
import sys
from pathlib import Path

from PIL import Image

from tests.browser.conftest import executable

ROOT = Path(__file__).resolve().parents[2]


def test_every_tab_has_its_picture_or_is_named(model: Path, index: Path, images: Path, tmp_path: Path) -> None:
    executable()
    photograph = next((images / "test" / "red").iterdir())
    done = subprocess.run(
        [sys.executable, "-m", "tests.screenshots", "--model", model, "--index", index, "--photograph", photograph,
         "--out", tmp_path, "--width", "400", "--height", "300"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name in ("page", "page-units", "page-status"):
        assert Image.open(tmp_path / f"{name}.png").size == (400, 300)
        assert f"{name}.png: " in done.stdout
