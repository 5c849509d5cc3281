"""Debian's chromium, driven by Playwright; a service of the small index; visits that fail where anything goes wrong."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.browser.visit import Visit, serving

CHROMIUM = "chromium"
MUST_VARIABLE = "FC7_BROWSER"  # set where these tests must not be skipped

Visits = Callable[..., Visit]


def executable() -> str:
    """Where the browser is. Skips the test where there is none, but fails where there must be one."""
    path = shutil.which(CHROMIUM)
    if path is None:
        reason = f"no {CHROMIUM} on PATH (apt-get install {CHROMIUM})"
        if os.environ.get(MUST_VARIABLE):
            pytest.fail(f"{reason}, and {MUST_VARIABLE} is set")
        pytest.skip(f"{reason}; {MUST_VARIABLE}=1 makes this a failure")
    return path


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """One browser for the tests of this folder; a visit is a window of its own."""
    path = executable()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def served(model: Path, index: Path) -> Iterator[str]:
    """The address of a service of the small index, which nobody changes."""
    with serving(model, index) as address:
        yield address


@pytest.fixture
def visits(browser: Browser) -> Iterator[Visits]:
    """Begins visits: of an address, and with options of the window such as viewport=PHONE or color_scheme="dark"."""
    with ExitStack() as stack:
        begun: list[Visit] = []

        def begin(address: str, **options: Any) -> Visit:
            context = stack.enter_context(browser.new_context(**options))
            begun.append(Visit(context.new_page(), address))
            return begun[-1]

        yield begin
        for visit in begun:
            visit.check()


@pytest.fixture
def visit(visits: Visits, served: str) -> Visit:
    """A visit of the small index."""
    return visits(served)
