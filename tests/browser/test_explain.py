"""Why two are near: a window over the neighbours, an address of its own, and what goes wrong."""

import re

from playwright.sync_api import expect

from tests.browser.conftest import Visits
from tests.browser.visit import PHONE, Visit


def test_a_neighbour_says_why_it_is_near_and_leads_to_a_page_of_its_own(visit: Visit) -> None:
    page = visit.open("#/search?photo=5")
    why = page.get_by_role("button", name=re.compile("^Why is .* near")).nth(1)
    why.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    visit.settled()
    expect(dialog.locator(".pile .overlay")).to_have_count(2)
    expect(dialog).to_contain_text("brings them together")
    visit.assert_accessible()
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(why).to_be_focused()
    why.click()
    page.get_by_role("link", name="as a page of its own").click()
    page.wait_for_url("**/#/layers/why?photo=5&neighbor=*")
    visit.settled()
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_role("heading", level=2)).to_have_text(re.compile(r"Why is photograph \d+ near photograph 5\?"))
    expect(page.locator(".pile .overlay")).to_have_count(2)


def test_the_page_of_a_pair_is_read_on_a_phone(visits: Visits, served: str) -> None:
    visit = visits(served, viewport=PHONE)
    page = visit.open("#/layers/why?photo=3&neighbor=4")
    expect(page.get_by_text("Nothing covered, they are at distance")).to_be_visible()
    pictures = page.locator(".pile img:not(.overlay)")
    expect(pictures.first).to_have_attribute("alt", re.compile("^the query: what brings the two together lies most"))
    expect(pictures.last).to_have_attribute("alt", re.compile("^the neighbour: "))
    visit.assert_accessible()


def test_a_neighbour_that_is_not_there_is_said_and_can_be_tried_again(visit: Visit) -> None:
    visit.expect("404")
    page = visit.open("#/layers/why?photo=3&neighbor=999")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("999")
    expect(alert.get_by_role("button", name="Try again")).to_be_visible()
    page = visit.open("#/layers/why?photo=3")
    expect(page.get_by_role("alert")).to_contain_text("a photo and a neighbor")
