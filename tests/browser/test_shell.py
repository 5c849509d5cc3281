"""What holds the tabs together: addresses, focus, keys, slow answers, a path prefix, a service that is gone or wants a key."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, Route, expect
from starlette.types import Receive, Scope, Send

from service.app import create_app
from service.settings import ServiceSettings
from tests.browser.conftest import Visits
from tests.browser.visit import PHONE, Visit, running, serving

KEY = "a key"
DESK = {"width": 1280, "height": 800}


def bar(page: Page) -> Locator:
    """The bar of tabs."""
    return page.get_by_role("navigation", name="Tabs")


def tabs(page: Page) -> list[str]:
    """The addresses of the bar."""
    return [link.get_attribute("href") or "" for link in bar(page).get_by_role("link").all()]


@pytest.mark.parametrize(("scheme", "viewport"), [("light", PHONE), ("dark", DESK)], ids=["phone", "desk"])
def test_every_tab_opens_is_accessible_and_has_its_own_title(
    visits: Visits, served: str, scheme: str, viewport: dict[str, int]
) -> None:
    visit = visits(served, color_scheme=scheme, viewport=viewport)
    visit.expect("404", "503")  # of what the small index was built without
    page = visit.open()
    titles = set()
    for address in tabs(page):
        visit.open(address)
        expect(bar(page).locator("[aria-current=page]")).to_have_attribute("href", address)
        titles.add(page.title())
        visit.assert_accessible()
    assert len(titles) == len(tabs(page)) >= 4


def test_back_and_forward_go_between_tabs_and_the_heading_has_the_focus(visit: Visit) -> None:
    page = visit.open()
    expect(page.locator("body")).to_be_focused()
    heading = page.get_by_role("heading", level=2)
    page.get_by_role("link", name="Units").click()
    expect(heading).to_have_text("Units")
    expect(heading).to_be_focused()
    page.get_by_role("link", name="Status").click()
    expect(heading).to_have_text("Status")
    page.go_back()
    expect(heading).to_have_text("Units")
    expect(heading).to_be_focused()
    page.go_forward()
    expect(heading).to_have_text("Status")


def test_the_keyboard_alone_goes_from_the_bar_to_a_neighbours_neighbours(visit: Visit) -> None:
    page = visit.open("#/search?photo=5")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Search")).to_be_focused()
    page.keyboard.press("End")
    expect(page.get_by_role("link", name="Status")).to_be_focused()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=2)).to_have_text("Status")
    page.go_back()
    visit.settled()
    page.keyboard.press("Tab")
    expect(page.locator(".dropzone input").first).to_be_focused()
    like = page.locator(".card:nth-child(2) button[aria-label^=Like]")
    for _ in range(40):
        page.keyboard.press("Tab")
        if like.evaluate("button => button === document.activeElement"):
            break
    page.keyboard.press("Enter")
    page.wait_for_url("**like=5&like=*")


def test_on_a_phone_the_tab_that_is_shown_is_in_sight_in_the_bar(visits: Visits, served: str) -> None:
    page = visits(served, viewport=PHONE).open("#/status")
    expect(bar(page).get_by_role("link", name="Status")).to_be_in_viewport(ratio=1)
    expect(bar(page).get_by_role("link", name="Search")).not_to_be_in_viewport()


def test_an_unknown_address_is_an_error_and_the_bar_leads_on(visit: Visit) -> None:
    page = visit.open("#/nowhere/at/all")
    expect(page.get_by_role("alert")).to_contain_text("#/nowhere/at/all leads nowhere")
    visit.assert_accessible()
    page.get_by_role("link", name="Units").click()
    visit.settled()
    expect(page.get_by_role("alert")).to_have_count(0)


def test_an_address_that_is_not_well_formed_is_shown_or_refused_but_breaks_nothing(visit: Visit) -> None:
    visit.expect("404", "422")
    for place in ("#/%E0%A4%A", "#/units/conv1/%00/..%2f", "#/search?photo=%E0%A4%A", "#/search?photo=-1&k=x", "#//", "#?a"):
        visit.open(place)
        expect(visit.page.get_by_role("heading", level=2)).not_to_be_empty()


def test_a_slow_answer_of_a_tab_that_was_left_is_dropped(visit: Visit) -> None:
    held: list[Route] = []
    visit.page.route("**/filters", lambda route: held.append(route))
    page = visit.page
    page.goto(f"{visit.address}/#/units")
    page.wait_for_selector("main[aria-busy=true]")
    page.get_by_role("link", name="Status").click()
    visit.settled()
    for route in held:
        route.continue_()
    expect(page.get_by_role("heading", level=2)).to_have_text("Status")
    expect(page.get_by_role("list", name="Kernels of column 0")).to_have_count(0)
    page.unroute_all()
    page.go_back()
    visit.settled()
    expect(page.get_by_role("list", name="Kernels of column 0")).to_have_count(1)


def test_an_answer_that_is_cut_off_is_none(visit: Visit) -> None:
    visit.page.route("**/items/3", lambda route: route.fulfill(body='{"id": 3', content_type="application/json"))
    page = visit.open("#/compare?id=3")
    expect(page.get_by_role("alert")).to_contain_text("The service does not answer")


def test_a_part_that_cannot_be_fetched_is_an_error_with_a_way_on(visit: Visit) -> None:
    visit.expect("ERR_FAILED")
    visit.page.route("**/tabs/units.js", lambda route: route.abort())
    page = visit.open("#/units")
    expect(page.get_by_role("alert")).to_contain_text("could not be loaded")
    page.unroute_all()
    page.get_by_role("button", name="Try again").click()
    visit.settled()
    expect(page.get_by_role("list", name="Kernels of column 0")).to_have_count(1)


def test_when_the_service_is_gone_every_tab_says_so_and_tries_again(visits: Visits, model: Path, index: Path) -> None:
    with serving(model, index) as address:
        port = int(address.rpartition(":")[2])
        visit = visits(address)
        visit.expect("ERR_CONNECTION_REFUSED")
        page = visit.open("#/units")
        visit.open("#/search?photo=5")
    page.get_by_role("list", name="Neighbours", exact=True).get_by_role("link").nth(1).click()
    visit.settled()
    expect(page.get_by_role("alert")).to_contain_text("Is it still running?")
    with serving(model, index, port=port):
        page.get_by_role("button", name="Try again").click()
        visit.settled()
        expect(page.get_by_role("list", name="Neighbours", exact=True).get_by_role("listitem")).to_have_count(12)


@contextmanager
def proxied(model: Path, index: Path, strips: bool) -> Iterator[str]:
    """A service below /a/fc7, behind a proxy that takes that off the paths or does not: the address of the page."""
    app = create_app(ServiceSettings(model=model, index=index, root_path="/a/fc7"))

    async def proxy(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            assert scope["path"].startswith("/a/fc7/"), scope["path"]
            if strips:
                scope = {**scope, "path": scope["path"].removeprefix("/a/fc7")}
        await app(scope, receive, send)

    with running(proxy) as address:
        yield f"{address}/a/fc7"


@pytest.mark.parametrize("strips", [True, False], ids=["strips", "keeps"])
def test_all_of_it_works_below_a_path(visits: Visits, model: Path, index: Path, strips: bool) -> None:
    with proxied(model, index, strips) as address:
        visit = visits(address)
        visit.expect("404", "503")
        page = visit.open("#/search?photo=5")
        image = page.get_by_role("list", name="Neighbours", exact=True).locator("img").first
        assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") == 160
        for place in tabs(page):
            visit.open(place)
            expect(page.get_by_role("heading", level=2)).not_to_be_empty()
        visit.open("#/units/conv1/0/1")
        picture = page.get_by_role("img", name="Kernel 1 of column 0: its weights")
        assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0


def test_where_reading_needs_the_key_the_browser_asks_for_it(visits: Visits, model: Path, index: Path) -> None:
    with serving(model, index, api_key=KEY, api_key_for_reads=True) as address:
        visit = visits(address, http_credentials={"username": "anybody", "password": KEY})
        page = visit.open("#/search?photo=5")
        image = page.get_by_role("list", name="Neighbours", exact=True).locator("img").first
        assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") == 160
