"""The command that takes the documentation's pictures takes one of every tab that has something to show."""

from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser

from tests import screenshots


def test_every_tab_has_its_picture_or_is_named(
    browser: Browser, model: Path, index: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photograph = next((images / "test" / "red").iterdir())
    paths = ["--model", str(model), "--index", str(index), "--photograph", str(photograph), "--out", str(tmp_path)]
    screenshots.take(browser, screenshots.options([*paths, "--width", "400", "--height", "300"]))
    said = capsys.readouterr().out.splitlines()
    assert {line.partition(":")[0] for line in said} >= {"search", "units", "collection", "status"}
    taken = [line for line in said if "left out" not in line]
    for name in ("page", "page-collection", "page-status"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.size == (400, 300)
    assert len(taken) == len(list(tmp_path.iterdir()))
