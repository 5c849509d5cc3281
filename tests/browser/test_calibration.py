"""What distances mean: on the cards of a search, and in the tab Status."""

import re
from pathlib import Path

from playwright.sync_api import expect

from tests.browser.conftest import Visits
from tests.browser.visit import PHONE, Visit, serving


def test_cards_tell_the_same_class_and_status_how_well_that_is_known(visits: Visits, model: Path, calibrated: Path) -> None:
    with serving(model, calibrated) as address:
        visit = visits(address, viewport=PHONE)
        page = visit.open("#/search?photo=5")
        first = page.get_by_role("list", name="Neighbours").get_by_role("listitem").nth(1)
        expect(first).to_contain_text(re.compile(r"distance \d+\.\d\s*\d+ % same class"))
        expect(first.get_by_role("link")).to_have_attribute("title", re.compile(r"Of 100 random pairs .* of the query's class"))
        page = visit.open("#/status")
        report = page.get_by_role("region", name="What distances mean")
        expect(report).to_contain_text("measured with 9 photographs")
        expect(report.get_by_role("heading", level=4)).to_have_text(["Euclidean distance", "Bits of codes"])
        expect(report.get_by_role("img")).to_have_count(2)
        expect(report.get_by_role("table").first).to_contain_text("first 50")
        visit.assert_accessible()


def test_without_calibration_cards_have_distances_and_status_says_what_makes_one(visit: Visit) -> None:
    page = visit.open("#/search?photo=5")
    first = page.get_by_role("list", name="Neighbours").get_by_role("listitem").nth(1)
    expect(first).to_contain_text("distance")
    expect(first).not_to_contain_text("same class")
    page = visit.open("#/status")
    expect(page.get_by_role("region", name="What distances mean")).to_contain_text("python -m indexer.calibrate")
    visit.assert_accessible()
