"""The Collection tab: labels, items, near-duplicates, and changes with the key."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import FilePayload, Page, expect

from indexer import duplicates
from tests.browser.conftest import Visits
from tests.browser.visit import Visit, serving
from tests.conftest import encoded, photograph

KEY = "a k\u00e9y"
NEW: FilePayload = {"name": "new.jpg", "mimeType": "image/jpeg", "buffer": encoded(photograph(901))}
TEXT: FilePayload = {"name": "text.jpg", "mimeType": "image/jpeg", "buffer": b"no photograph"}


@pytest.fixture(scope="module")
def growing(model: Path, index: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service whose index may be changed, with near-duplicates looked for."""
    copy = shutil.copytree(index, tmp_path_factory.mktemp("growing") / "index", symlinks=True)
    duplicates.main(duplicates.DuplicatesSettings(index=copy, max_distance=1e6))
    with serving(model, copy, api_key=KEY) as address:
        yield address


def items(page: Page) -> list[str]:
    """The names of the items that are shown."""
    return page.get_by_role("list", name="Items").get_by_role("listitem").locator("b").all_inner_texts()


def test_items_are_browsed_by_label_and_path(visit: Visit) -> None:
    page = visit.open("#/collection")
    labels = page.get_by_role("navigation", name="Labels").get_by_role("link")
    assert [text.split() for text in labels.all_inner_texts()] == [["all", "24"], ["blue", "8"], ["green", "8"], ["red", "8"]]
    assert len(items(page)) == 24
    visit.assert_accessible()
    labels.nth(2).click()
    page.wait_for_url("**label=green")
    visit.settled()
    assert items(page) == [f"{i:03d}.jpg" for i in range(8)]
    page.get_by_label("path begins").fill("train/green/003")
    page.get_by_label("path begins").press("Enter")
    page.wait_for_url("**path_prefix=*")
    visit.settled()
    assert items(page) == ["003.jpg"]
    page.get_by_role("list", name="Items").get_by_role("link").click()
    visit.settled()
    expect(page.get_by_role("heading", level=2)).to_have_text("003.jpg")
    expect(page.get_by_text("train/green/003.jpg")).to_be_visible()
    visit.assert_accessible()
    page.go_back()
    visit.settled()
    assert items(page) == ["003.jpg"]


def test_many_items_come_by_pages(visits: Visits, model: Path, index: Path) -> None:
    with serving(model, index, max_neighbors=10) as address:
        visit = visits(address)
        page = visit.open("#/collection")
        assert len(items(page)) == 10
        more = page.get_by_role("button", name="More", exact=True)
        more.click()
        expect(page.get_by_role("list", name="Items").get_by_role("listitem")).to_have_count(20)
        more.click()
        expect(page.get_by_role("list", name="Items").get_by_role("listitem")).to_have_count(24)
        expect(more).to_be_hidden()


def test_what_is_not_there_is_said(visit: Visit) -> None:
    visit.expect("404")
    page = visit.open("#/collection?label=none")
    expect(page.get_by_text("no item has the label 'none'")).to_be_visible()
    visit.open("#/collection/99")
    expect(page.get_by_role("alert")).to_contain_text("99")
    visit.open("#/collection/near-duplicates")
    expect(page.get_by_role("alert")).to_contain_text("python -m indexer.duplicates")
    visit.assert_accessible()
    visit.open("#/collection/elsewhere")
    expect(page.get_by_role("alert")).to_contain_text("no view elsewhere")


def test_near_duplicates_lead_to_neighbours(visits: Visits, growing: str) -> None:
    visit = visits(growing)
    page = visit.open("#/collection/near-duplicates")
    group = page.get_by_role("list", name="A group of 24")
    expect(group.get_by_role("listitem")).to_have_count(24)
    visit.assert_accessible()
    page.get_by_label("path begins").fill("train/red")
    page.get_by_label("path begins").press("Enter")
    expect(page.get_by_role("list", name="A group of 8").get_by_role("listitem")).to_have_count(8)
    assert "path_prefix=train" in page.url
    page.get_by_role("link", name="000.jpg").first.click()
    visit.settled()
    expect(page.get_by_role("heading", level=2)).to_have_text("Search")


def test_photographs_are_added_and_removed_with_the_key_alone(visits: Visits, growing: str) -> None:
    visit = visits(growing)
    visit.expect("401")
    page = visit.open("#/collection/add")
    chooser = page.locator(".dropzone input[type=file]").first
    chooser.set_input_files([NEW])  # no key: the field asks for it, and nothing is sent
    expect(page.get_by_label("key")).to_be_focused()
    page.get_by_label("key").fill("another")
    chooser.set_input_files([NEW])
    expect(page.get_by_role("alert")).to_contain_text("not the one that was set")
    page.get_by_label("key").fill(KEY)
    page.get_by_label("label of all").fill("grey")
    chooser.set_input_files([NEW, TEXT])
    outcome = page.get_by_role("region", name="What became of the photographs")
    expect(outcome).to_contain_text("item 24, added")
    expect(outcome.get_by_role("row", name="text.jpg")).to_contain_text("image")
    visit.assert_accessible()
    chooser.set_input_files([NEW])
    expect(outcome).to_contain_text("which was there already")
    page.get_by_role("link", name="item 24").click()
    visit.settled()
    assert KEY not in page.url
    assert httpx.get(f"{growing}/items/24").json()["label"] == "grey"
    page.get_by_text("Remove", exact=True).click()
    expect(page.get_by_label("key")).to_have_value(KEY)  # kept by this window
    page.get_by_role("button", name="Remove it from the index").click()
    page.wait_for_url("**#/collection?label=grey")
    visit.settled()
    assert httpx.get(f"{growing}/items/24").status_code == 404
    assert visits(growing).open("#/collection/add").get_by_label("key").input_value() == ""


def test_where_the_service_has_no_key_the_page_says_so(visit: Visit) -> None:
    visit.expect("403")
    page = visit.open("#/collection/add")
    page.get_by_label("key").fill("any")
    page.locator(".dropzone input[type=file]").first.set_input_files([NEW])
    expect(page.get_by_role("alert")).to_contain_text("FC7_API_KEY")
