"""The Claims tab: all of them, one of them, and those that are shipped."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Visits
from tests.browser.visit import PHONE, serving
from tests.training.claims.made import made_report
from training.claims.record import REPORT, SHIPPED


@pytest.fixture
def address(model: Path, index: Path, tmp_path: Path) -> Iterator[str]:
    """A service that knows what the claims came to."""
    (tmp_path / REPORT).write_text(made_report().model_dump_json())
    with serving(model, index, claims=tmp_path) as address:
        yield address


def test_all_claims_stand_in_a_table_and_each_has_a_page_of_its_own(visits: Visits, address: str) -> None:
    visit = visits(address)
    page = visit.open("#/claims")
    expect(page.get_by_text("Not measured here.")).to_have_count(0)
    expect(page.get_by_role("region", name="All claims")).to_contain_text("no LRN less LRN, AlexNet-67: -0.07, not resolved")
    expect(page.get_by_role("img", name="Neighbours found: mAP, FC7 codes less raw-pixel codes 11.83")).to_be_visible()
    visit.assert_accessible()
    page.get_by_role("link", name="What is said of relu").click()
    visit.settled()
    expect(page.get_by_role("heading", level=2)).to_have_text("Claims: relu")
    expect(page.get_by_role("region", name="Differences of relu")).to_contain_text("> 3.92 times")
    expect(page.get_by_role("img", name="Training error over epochs, starts of 2012")).to_be_visible()
    visit.assert_accessible()


def test_brightness_is_drawn_over_its_levels(visits: Visits, address: str) -> None:
    visit = visits(address)
    page = visit.open("#/claims/brightness")
    expect(page.get_by_role("img", name="How far FC7 moves. Gain: pixels times")).to_be_visible()
    expect(page.get_by_role("region", name="Differences of brightness")).to_contain_text("0.15")
    visit.assert_accessible()


def test_a_claim_reads_on_a_phone_in_the_dark(visits: Visits, address: str) -> None:
    visit = visits(address, viewport=PHONE, color_scheme="dark")
    page = visit.open("#/claims/lrn")
    expect(page.get_by_role("region", name="Differences of lrn")).to_contain_text("same direction, smaller")
    visit.assert_accessible()


def test_results_that_are_shipped_say_whose_they_are(visits: Visits, model: Path, index: Path) -> None:
    machine = json.loads((SHIPPED / REPORT).read_bytes())["machine"]
    with serving(model, index) as address:
        visit = visits(address, viewport=PHONE)
        page = visit.open("#/claims")
        expect(page.get_by_text("Not measured here.")).to_be_visible()
        expect(page.get_by_text("python -m training.claims --quick")).to_be_visible()
        expect(page.get_by_text(machine)).to_be_visible()
        expect(page.get_by_role("img", name="Figure 3 over seeds")).to_be_visible()
        expect(page.get_by_role("img", name="Training error over epochs, starts of 2012")).to_be_visible()
        visit.assert_accessible()


def test_rows_of_which_nothing_is_published_are_opened_by_hand(visits: Visits, model: Path, index: Path) -> None:
    with serving(model, index) as address:
        visit = visits(address)
        row = visit.open("#/claims").get_by_role("row").filter(has_text="ReLU reaches 25 %")
        expect(row.get_by_text("epochs to 25 %, tanh over ReLU, all photographs")).to_be_visible()
        other = row.get_by_text("error when ReLU is there, tanh less ReLU, all photographs")
        expect(other).to_be_hidden()
        row.get_by_text("more").click()
        expect(other).to_be_visible()
        visit.assert_accessible()
