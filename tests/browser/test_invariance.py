"""The Invariance tab: a photograph's curves, the collection's beside them, and what is told where nothing was measured."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Visits
from tests.browser.visit import PHONE, Visit, serving
from tests.service.calls import PHOTO
from training import invariance
from training.program import parse


@pytest.fixture(scope="module")
def measured(model: Path, index: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service of an index with a report."""
    folder = tmp_path_factory.mktemp("measured")
    copy = Path(shutil.copytree(index, folder / "index", symlinks=True))
    given = [f"--model={model}", f"--data={images}", f"--index={copy}", f"--out={folder / 'out'}", "--photographs=4"]
    invariance.main(parse(invariance.InvarianceSettings, given))
    with serving(model, copy) as address:
        yield address


def test_a_photograph_of_ones_own_has_its_curves_and_pictures_beside_the_collections(visits: Visits, measured: str) -> None:
    visit = visits(measured)
    page = visit.open("#/invariance")
    expect(page.get_by_role("heading", level=3)).to_have_count(9)
    expect(page.get_by_role("list", name="Gain: the photograph at each level")).to_have_count(0)
    visit.assert_accessible()
    page.get_by_label("choose a file").set_input_files({"name": "red.jpg", "mimeType": "image/jpeg", "buffer": PHOTO})
    expect(page.get_by_role("heading", level=2)).to_have_text("What FC7 ignores of red.jpg")
    visit.settled()
    expect(page.get_by_role("list", name="Gain: the photograph at each level").get_by_role("listitem")).to_have_count(8)
    chart = page.get_by_role("img", name="Bias: pixels plus. angle of FC7, degrees")
    expect(chart.locator(".band")).to_have_count(1)
    expect(chart.locator("path.line")).to_have_count(4)
    visit.assert_accessible()


def test_another_measure_is_in_the_address_and_an_item_can_be_measured(visits: Visits, measured: str) -> None:
    visit = visits(measured, viewport=PHONE, color_scheme="dark")
    page = visit.open("#/invariance?photo=4")
    page.get_by_label("How far by").select_option("overlap")
    expect(page).to_have_url(f"{measured}/#/invariance?photo=4&measure=overlap")
    expect(page.get_by_role("img", name="Turn: degrees to the left. share of the ten neighbours that stays")).to_be_visible()
    visit.assert_accessible()
    visit.open("#/invariance?photo=4&measure=overlap")
    expect(page.get_by_label("How far by")).to_have_value("overlap")
    page.get_by_text("All figures of this photograph").click()
    expect(page.get_by_role("region", name="All figures").get_by_role("row")).to_have_count(53)


def test_without_a_report_the_command_is_named_and_a_photograph_has_its_curves_all_the_same(visit: Visit) -> None:
    visit.expect("404")
    page = visit.open("#/invariance")
    expect(page.get_by_role("status")).to_contain_text("python -m training.invariance --index")
    visit.open("#/invariance?photo=4")
    expect(page.get_by_role("heading", level=3)).to_have_count(9)
    chart = page.get_by_role("img", name="Gain: pixels times. angle of FC7, degrees")
    expect(chart.locator("path.line")).to_have_count(1)
    visit.assert_accessible()


def test_an_item_that_is_not_there_is_an_error(visit: Visit) -> None:
    visit.expect("404")
    page = visit.open("#/invariance?photo=999")
    expect(page.get_by_role("alert")).to_contain_text("no item has the id 999")
