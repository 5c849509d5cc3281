"""A visit of the page by a real browser, and a real service to visit."""

import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import uvicorn
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import ConsoleMessage, Page, Request, expect
from starlette.types import ASGIApp

from service.app import create_app
from service.settings import ServiceSettings

PATIENCE_S: Final = 30
expect.set_options(timeout=1000 * PATIENCE_S)
SERIOUS: Final = ("serious", "critical")
STRAY = """() => {
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
  while (texts.nextNode())
    if (["false", "null", "undefined", "NaN", "[object Object]"].includes(texts.currentNode.data.trim()))
      found.push(texts.currentNode.parentNode.outerHTML.slice(-200));
  return found;
}"""
# The address that the page shows. It is behind the browser's between a click and the event that tells the page of it
SHOWN: Final = """
window.shown = location.href;
const replaceState = history.replaceState.bind(history);
history.replaceState = (...given) => { replaceState(...given); window.shown = location.href; };
window.addEventListener("hashchange", () => { window.shown = location.href; });
"""
CAUGHT_UP: Final = """() => new Promise((resolve) => {
  const look = () => (window.shown === location.href ? resolve() : setTimeout(look));
  look();
})"""
PHONE: Final = {"width": 360, "height": 740}


@contextmanager
def serving(model: Path, index: Path, port: int = 0, **settings: Any) -> Iterator[str]:
    """A service of these two folders in a thread: its address, without the slash at the end."""
    with running(create_app(ServiceSettings(model=model, index=index, **settings)), port) as address:
        yield address


@contextmanager
def running(app: ASGIApp, port: int = 0) -> Iterator[str]:
    """An application in a thread: its address."""
    server = uvicorn.Server(uvicorn.Config(app, ws="none", log_config=None, timeout_graceful_shutdown=1))
    listener = socket.create_server(("127.0.0.1", port))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
        listener.close()


class Visit:
    """One window of the browser at one service; all that goes wrong in it is in `problems`."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.address = address
        self.problems: list[str] = []
        self._expected: list[str] = []
        page.set_default_timeout(1000 * PATIENCE_S)
        page.add_init_script(SHOWN)
        page.on("console", self._note_message)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("request", self._note_request)

    def _note_message(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(f"{message.text} {message.location['url']}")

    def _note_request(self, request: Request) -> None:
        if not request.url.startswith((self.address, "blob:", "data:")):
            self.problems.append(f"a request to {request.url}")

    def expect(self, *patterns: str) -> None:
        """Says which problems the test brings about itself, as regular expressions."""
        self._expected += patterns

    def open(self, place: str = "") -> Page:
        """Opens the page at a place, as in `#/units`, and waits until it is there."""
        self.page.goto("about:blank")  # so that another fragment alone is an opening too
        self.page.goto(f"{self.address}/{place}")
        return self.settled()

    def settled(self) -> Page:
        """The page, once the tab has been shown and nothing of it is still being asked for."""
        self.page.evaluate(CAUGHT_UP)
        self.page.wait_for_selector("main[aria-busy=false]:not(:has([aria-busy=true]))")
        return self.page

    def assert_accessible(self) -> None:
        """axe finds nothing serious, the page is no wider than its window, and no value that is none is shown as text."""
        found = Axe().run(self.page).response["violations"]
        serious = [
            (one["id"], one["help"], [node["html"][:200] for node in one["nodes"][:3]])
            for one in found
            if one["impact"] in SERIOUS
        ]
        assert not serious, json.dumps(serious, indent=1)
        wide, window = self.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert wide <= window, f"the page is {wide} pixels wide in a window of {window}"
        stray = self.page.evaluate(STRAY)
        assert not stray, stray

    def check(self) -> None:
        """Nothing went wrong but what was expected."""
        left = [text for text in self.problems if not any(re.search(pattern, text) for pattern in self._expected)]
        assert not left, left
