"""The Units tab: layers, columns, units and what excites them; kernels alone where there is no atlas."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Visits
from tests.browser.visit import PHONE, Visit, serving


@pytest.fixture(scope="module")
def seen(model: Path, atlas_index: Path) -> Iterator[str]:
    """The address of a service of an index with an atlas."""
    with serving(model, atlas_index) as address:
        yield address


def test_a_kernel_has_its_page_and_leads_to_the_next(visit: Visit) -> None:
    page = visit.open("#/units")
    kernels = page.get_by_role("list", name="Kernels of column 0").get_by_role("link")
    expect(kernels).to_have_count(4)
    expect(page.get_by_text("no atlas of its units")).to_contain_text("python -m indexer.build --atlas")
    visit.assert_accessible()
    kernels.nth(1).click()
    visit.settled()
    heading = page.get_by_role("heading", level=2)
    expect(heading).to_have_text("Kernel 1 of column 0")
    expect(heading).to_be_focused()
    expect(page.get_by_text("no atlas of its units")).to_be_visible()
    visit.assert_accessible()
    page.get_by_role("link", name="next").click()
    expect(heading).to_have_text("Kernel 2 of column 0")
    page.go_back()
    expect(heading).to_have_text("Kernel 1 of column 0")


def test_units_are_gone_through_by_layer_column_and_key(visits: Visits, seen: str) -> None:
    visit = visits(seen)
    page = visit.open("#/units")
    visit.assert_accessible()
    page.get_by_role("link", name="conv5").click()
    heading = page.get_by_role("heading", level=2)
    expect(heading).to_have_text("Units of conv5, column 0")
    units = page.get_by_role("list", name="Units").get_by_role("listitem")
    expect(units).to_have_count(6)
    visit.assert_accessible()
    page.get_by_label("order").select_option("selectivity")
    visit.settled()
    expect(page).to_have_url(f"{seen}/#/units/conv5/0?order=selectivity")
    page.get_by_role("link", name="column 1").click()
    expect(heading).to_have_text("Units of conv5, column 1")
    units.nth(2).get_by_role("link").click()
    expect(heading).to_have_text("Conv5 unit 2 of column 1")
    visit.settled()
    visit.assert_accessible()
    entries = page.evaluate("history.length")
    page.keyboard.press("ArrowRight")
    expect(heading).to_have_text("Conv5 unit 3 of column 1")
    for column, unit in ((1, 2), (1, 1), (1, 0), (0, 5)):
        page.keyboard.press("ArrowLeft")
        expect(heading).to_have_text(f"Conv5 unit {unit} of column {column}")
        expect(page).to_have_url(f"{seen}/#/units/conv5/{column}/{unit}")
    assert page.evaluate("history.length") == entries  # a key that is held leaves no trail to go back along
    page.go_back()
    expect(heading).to_have_text("Units of conv5, column 1")


def test_a_page_of_units_that_cannot_be_had_is_said(visits: Visits, seen: str) -> None:
    visit = visits(seen)
    visit.expect("ERR_FAILED")
    page = visit.open("#/units/fc6/0?start=8")
    page.route("**/units/fc6/0?k=48", lambda route: route.abort())
    page.get_by_role("button", name="Previous").click()
    expect(page.get_by_role("alert")).to_contain_text("Is it still running?")


def test_no_key_is_lost_while_the_unit_before_is_on_its_way(visits: Visits, seen: str) -> None:
    visit = visits(seen)
    page = visit.open("#/units/conv5/0/1")
    page.route("**/units/conv5/0/*", lambda route: None)  # their answers never come
    for key in ("ArrowRight", "ArrowRight", "ArrowRight", "ArrowLeft"):
        page.keyboard.press(key)
    expect(page).to_have_url(f"{seen}/#/units/conv5/0/3")
    page.unroute_all()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("heading", level=2)).to_have_text("Conv5 unit 4 of column 0")
    visit.settled()
    expect(page.get_by_role("list", name="The most exciting photographs").get_by_role("listitem")).not_to_have_count(0)


def test_a_unit_of_fc8_is_its_class_with_its_photographs(visits: Visits, seen: str) -> None:
    visit = visits(seen, viewport=PHONE, color_scheme="dark")
    page = visit.open("#/units/fc8/0/2")
    expect(page.get_by_role("heading", level=2)).to_have_text("red: fc8 unit 2")
    photographs = page.get_by_role("list", name="The most exciting photographs").get_by_role("listitem")
    expect(photographs).to_have_count(16)
    visit.assert_accessible()
    page.get_by_role("link", name="fc6").click()
    expect(page.get_by_role("list", name="Units").get_by_role("listitem")).to_have_count(16)
    visit.settled()
    visit.assert_accessible()


def test_a_unit_or_layer_that_is_not_there_is_an_error(visits: Visits, seen: str) -> None:
    visit = visits(seen)
    visit.expect("404")
    page = visit.open("#/units/conv1/0/99")
    expect(page.get_by_role("alert")).to_contain_text("2 column(s) of 4 kernels")
    page = visit.open("#/units/conv7")
    expect(page.get_by_role("alert")).to_contain_text("There is no layer conv7 here")


def test_without_an_atlas_the_command_is_shown(visit: Visit) -> None:
    page = visit.open("#/units/conv5/1")
    expect(page.get_by_role("status")).to_contain_text("python -m indexer.build --atlas")
    visit.assert_accessible()
