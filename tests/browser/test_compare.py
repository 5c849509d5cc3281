"""The Compare tab: rows of neighbours by every way, one followed through all; what an index lacks; a service that is gone."""

from pathlib import Path

from playwright.sync_api import expect

from indexer import build
from tests.browser.conftest import Visits
from tests.browser.visit import PHONE, Visit, serving
from tests.conftest import COLOURS, encoded, photograph

ROWS = 8


def test_rows_of_an_item_and_a_neighbour_followed_through_them(visits: Visits, model: Path, images: Path, tmp_path: Path) -> None:
    build.main(build.BuildSettings(model=model, data=images, index=tmp_path, part="train", bits=16, raw_pixel_codes=True))
    with serving(model, tmp_path) as address:
        visit = visits(address, viewport=PHONE, color_scheme="dark")
        page = visit.open("#/compare?id=3&k=5")
        expect(page.get_by_role("heading", level=2)).to_have_text("Compare: item 3")
        rows = page.get_by_role("list", name="Neighbours by")
        expect(rows).to_have_count(ROWS)
        for row in rows.all():
            expect(row.get_by_role("listitem")).to_have_count(5)
        expect(page.get_by_role("img", name="% of the neighbours by FC7, Euclidean")).to_have_count(ROWS - 1)
        visit.assert_accessible()
        first = rows.first.get_by_role("button").first
        first.focus()
        first.press("Enter")
        expect(first).to_have_attribute("aria-pressed", "true")
        marked = page.locator("[aria-pressed=true]").count()
        assert marked > 1
        page.reload()
        visit.settled()
        expect(page.locator("[aria-pressed=true]")).to_have_count(marked)
        rows.first.get_by_role("link").first.click()
        expect(page.get_by_role("heading", level=2)).not_to_have_text("Compare: item 3")
        page.go_back()
        expect(page.get_by_role("heading", level=2)).to_have_text("Compare: item 3")


def test_a_photograph_of_ones_own_is_compared_and_what_the_index_lacks_is_told(visit: Visit) -> None:
    page = visit.open("#/compare")
    expect(page.get_by_role("list", name="Photographs to start with").get_by_role("listitem")).to_have_count(12)
    visit.assert_accessible()
    data = encoded(photograph(77, COLOURS["red"]))
    page.locator("input[type=file]").first.set_input_files({"name": "mine.jpg", "mimeType": "image/jpeg", "buffer": data})
    expect(page.get_by_role("heading", level=2)).to_have_text("Compare: mine.jpg")
    visit.settled()
    expect(page.get_by_role("list", name="Neighbours by")).to_have_count(ROWS - 2)
    lacking = page.get_by_role("region", name="raw pixels, Euclidean")
    expect(lacking.locator("code")).to_have_text("python -m indexer.build --raw-pixel-codes")
    visit.assert_accessible()


def test_what_is_not_there_is_an_error_that_can_be_tried_again(visit: Visit) -> None:
    visit.expect("404")
    page = visit.open("#/compare?id=99")
    expect(page.get_by_role("alert")).to_contain_text("no item has the id 99")
    expect(page.get_by_role("button", name="Try again")).to_be_visible()


def test_a_service_that_is_gone_is_an_error(visits: Visits, model: Path, index: Path) -> None:
    with serving(model, index) as address:
        visit = visits(address)
        page = visit.open("#/compare")
        visit.expect("ERR_CONNECTION_REFUSED", "Failed to fetch")
    page.get_by_role("link", name="red").first.click()
    expect(page.get_by_role("alert")).to_contain_text("The service does not answer")
