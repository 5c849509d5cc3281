"""Pictures of the page for the documentation, one a tab, from a built model and index: `make screenshots`.

    python -m tests.screenshots --model var/model --index var/index --photograph FILE --out .readme

A tab whose index was built without what it shows is left out, and said to be. `--width 360 --dark --out FOLDER` shows a phone's.
"""

import argparse
import io
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from tests.browser.visit import Visit, serving

COLOURS: Final = 256  # of a picture's palette, which makes a third of the file


def shots(visit: Visit, photograph: Path) -> Iterator[tuple[str, Page | str]]:
    """Each tab's name, and the page that shows it, or why it does not."""
    page = visit.open()
    links = page.get_by_role("navigation", name="Tabs").get_by_role("link")
    for name in [link.get_attribute("data-tab") or "" for link in links.all()]:
        visit.open(f"#/{name}")
        chooser = page.locator(".dropzone input[type=file]").first
        if chooser.count() and not page.get_by_role("alert").count():
            chooser.set_input_files(photograph)
            page.wait_for_url("**photo=u1*")
            visit.settled()
        page.wait_for_load_state("networkidle")
        page.evaluate("document.activeElement.blur()")
        alert = page.get_by_role("alert")
        yield name, alert.first.inner_text() if alert.count() else page


def take(browser: Browser, arguments: argparse.Namespace) -> None:
    """Writes the pictures."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    with serving(arguments.model, arguments.index) as address:
        context = browser.new_context(
            viewport={"width": arguments.width, "height": arguments.height}, color_scheme="dark" if arguments.dark else "light"
        )
        for name, shown in shots(Visit(context.new_page(), address), arguments.photograph):
            path = arguments.out / ("page.png" if name == "search" else f"page-{name}.png")
            if isinstance(shown, str):
                print(f"{name}: left out, as the page says: {' '.join(shown.split())}")
                continue
            picture = Image.open(io.BytesIO(shown.screenshot())).convert("RGB")
            picture.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
            print(f"{name}: {path}, {path.stat().st_size:,} bytes")
        context.close()


def options(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", type=Path, default=Path("var/model"), help="model folder")
    parser.add_argument("--index", type=Path, default=Path("var/index"), help="index folder, made with that model")
    parser.add_argument("--photograph", type=Path, required=True, help="what is dropped on the page")
    parser.add_argument("--out", type=Path, default=Path(".readme"), help="folder for the pictures")
    parser.add_argument("--width", type=int, default=1200, help="of the window, pixels")
    parser.add_argument("--height", type=int, default=900, help="of the window, pixels")
    parser.add_argument("--dark", action="store_true", help="dark colours")
    return parser.parse_args(words)


if __name__ == "__main__":
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        take(chromium, options())
        chromium.close()
