"""The Status tab: what is served and how it is doing."""

from pathlib import Path

from playwright.sync_api import expect

from tests.browser.conftest import Visits
from tests.browser.visit import Visit, serving
from training import checkpoint


def test_it_shows_what_is_served(visit: Visit, model: Path) -> None:
    visit.open("#/search?photo=5")
    page = visit.open("#/status")
    expect(page.get_by_text("Ready:", exact=False)).to_be_visible()
    expect(page.get_by_text(checkpoint.load(model).fingerprint)).to_be_visible()
    expect(page.get_by_role("region", name="Files of the index").get_by_role("row", name="vectors.faiss")).to_contain_text(
        "bytes"
    )
    search = page.get_by_role("region", name="Stages of the work").get_by_role("row", name="the search")
    expect(search.get_by_role("cell").nth(1)).not_to_have_text("0")
    expect(page.get_by_role("img", name="Mean time of each stage")).to_be_visible()
    visit.assert_accessible()


def test_without_an_index_it_says_what_makes_one(visits: Visits, model: Path, tmp_path: Path) -> None:
    with serving(model, tmp_path / "none") as address:
        visit = visits(address)
        visit.expect("503")
        page = visit.open("#/status")
        expect(page.get_by_role("alert")).to_contain_text("python -m indexer.build")
        expect(page.get_by_text(checkpoint.load(model).fingerprint)).to_be_visible()
        visit.assert_accessible()
