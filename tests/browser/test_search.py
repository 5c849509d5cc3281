"""The Search tab: a photograph's classes and neighbours, filters, examples, several photographs, and what goes wrong."""

import re
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import FilePayload, Page, Route, expect

from indexer.opening import open_store
from tests.browser.conftest import Visits
from tests.browser.visit import PHONE, Visit, serving
from tests.conftest import COLOURS, encoded, photograph

RED = encoded(photograph(77, COLOURS["red"]))
PHOTO: FilePayload = {"name": "photo.jpg", "mimeType": "image/jpeg", "buffer": RED}
TEXT: FilePayload = {"name": "a.txt", "mimeType": "text/plain", "buffer": b"text"}
FOLDER: FilePayload = {"name": "folder", "mimeType": "", "buffer": b""}
OTHER: FilePayload = {"name": "other.jpg", "mimeType": "image/jpeg", "buffer": encoded(photograph(78, COLOURS["blue"]))}


def paths(page: Page) -> list[str]:
    """The paths of the neighbours that are shown, in order."""
    links = page.get_by_role("list", name="Neighbours", exact=True).get_by_role("link")
    return [(link.get_attribute("title") or "").partition("\n")[0] for link in links.all()]


def neighbors(address: str, **parameters: str | int | list[str]) -> list[str]:
    """The paths that the service itself answers for the photograph."""
    answer = httpx.post(f"{address}/neighbors", params=parameters, files={"image": RED})
    return [found["path"] for found in answer.json()["results"][0]["neighbors"]]


def choose(visit: Visit, *files: FilePayload) -> Page:
    visit.page.locator(".dropzone input[type=file]").first.set_input_files(list(files))
    visit.page.wait_for_url("**/*photo=u*")
    return visit.settled()


def test_a_chosen_photograph_gets_its_classes_and_its_neighbours(visit: Visit) -> None:
    visit.open()
    page = choose(visit, PHOTO)
    assert paths(page) == neighbors(visit.address, k=12)
    expect(page.get_by_role("list", name="Classes").get_by_role("listitem")).to_have_count(3)
    expect(page.locator(".dropzone img")).to_have_attribute("alt", "photo.jpg")
    visit.assert_accessible()
    page.get_by_label("ten views").check()
    visit.settled()
    assert "views=10" in page.url
    page.get_by_role("button", name="More").click()
    expect(page.get_by_role("list", name="Neighbours", exact=True).get_by_role("listitem")).to_have_count(24)
    expect(page.get_by_role("button", name="More")).to_be_hidden()
    assert paths(page) == neighbors(visit.address, k=24)


def test_filters_are_in_the_address_and_come_back_with_it(visit: Visit) -> None:
    visit.open()
    page = choose(visit, PHOTO)
    page.get_by_label("label", exact=True).fill("blue")
    page.get_by_label("label", exact=True).press("Enter")
    chosen = page.get_by_role("list", name="Labels chosen")
    expect(chosen.get_by_role("button")).to_have_text("blue")
    visit.settled()
    assert paths(page) == neighbors(visit.address, k=12, label="blue")
    page.get_by_label("path begins").fill("train/blue/00")
    page.get_by_role("spinbutton", name="neighbours").fill("3")
    page.get_by_role("spinbutton", name="neighbours").press("Enter")
    visit.settled()
    expect(page.get_by_role("list", name="Neighbours", exact=True).get_by_role("listitem")).to_have_count(3)
    assert paths(page) == neighbors(visit.address, k=3, label="blue", path_prefix="train/blue/00")
    chosen.get_by_role("button").click()
    page.get_by_label("path begins").fill("none/")
    page.get_by_label("path begins").press("Enter")
    expect(page.get_by_text("no item", exact=False)).to_be_visible()
    page.get_by_role("link", name="Status").click()
    visit.settled()
    page.go_back()
    visit.settled()
    expect(page.get_by_label("path begins")).to_have_value("none/")


def test_a_column_alone_is_chosen_by_the_keyboard_on_a_phone_and_is_in_the_address(visits: Visits, served: str) -> None:
    visit = visits(served, viewport=PHONE)
    visit.open()
    page = choose(visit, PHOTO)
    summary = page.get_by_text("Options", exact=True)
    summary.focus()
    summary.press("Enter")
    columns = page.get_by_label("columns")
    expect(columns).to_have_value("both")
    columns.focus()
    page.keyboard.type("column 1")
    visit.settled()
    page.wait_for_url("**columns=1*")
    assert paths(page) == neighbors(served, k=12, columns=1) != neighbors(served, k=12)
    expect(page.get_by_text("Column 1's half of them alone is compared.", exact=False)).to_be_visible()
    visit.assert_accessible()
    page.get_by_role("list", name="Neighbours", exact=True).get_by_role("link").nth(3).click()
    expect(page).to_have_url(re.compile(r"columns=1&photo=\d+$"))
    visit.settled()
    expect(columns).to_have_value("1")
    columns.select_option("both")
    visit.settled()
    assert "columns" not in page.url


def test_of_a_mode_and_a_column_that_do_not_go_together_the_last_stands(visit: Visit) -> None:
    page = visit.open("#/search?photo=5&mode=code")
    columns, mode = page.get_by_label("columns"), page.get_by_role("combobox", name="search")
    columns.select_option("0")
    visit.settled()
    expect(mode).to_have_value("")
    assert page.url.endswith("photo=5&columns=0")
    mode.select_option("exact")
    visit.settled()
    assert page.url.endswith("photo=5&columns=0&mode=exact")
    mode.select_option("two-stage")
    visit.settled()
    expect(columns).to_have_value("both")
    assert page.url.endswith("photo=5&mode=two-stage")
    expect(page.get_by_role("alert")).to_have_count(0)


def test_where_no_column_can_be_compared_alone_none_is_offered(visit: Visit) -> None:
    def whole(route: Route) -> None:
        body = route.fetch().json()
        body["index"]["columns"] = ["both"]
        route.fulfill(json=body)

    visit.page.route("**/info", whole)
    page = visit.open("#/search?photo=5")
    expect(page.get_by_role("spinbutton", name="neighbours")).to_be_visible()
    expect(page.get_by_label("columns")).to_have_count(0)


def test_a_neighbour_leads_to_its_own_neighbours_and_back_again(visit: Visit, index: Path) -> None:
    page = visit.open("#/search?photo=5")
    store = open_store(index)
    expect(page.locator(".dropzone img")).to_have_attribute("alt", store.items([5])[0].path)
    first = paths(page)
    assert first[0] == store.items([5])[0].path
    itself, other = (page.get_by_role("list", name="Neighbours", exact=True).get_by_role("listitem").nth(i) for i in (0, 1))
    expect(itself).to_contain_text("this photograph")
    expect(itself).not_to_contain_text("distance")
    expect(itself.get_by_role("button")).to_have_count(0)
    expect(other).to_contain_text("distance")
    expect(other.get_by_role("button")).to_have_count(3)
    page.get_by_role("list", name="Neighbours", exact=True).get_by_role("link").nth(3).click()
    visit.settled()
    page.wait_for_url("**/#/search?photo=*")
    assert paths(page)[0] == first[3]
    page.go_back()
    visit.settled()
    expect(page.locator(".dropzone img")).to_have_attribute("alt", first[0])
    assert paths(page) == first


def test_examples_like_and_unlike_are_searched_together(visit: Visit, index: Path) -> None:
    page = visit.open("#/search?photo=5")
    found = page.get_by_role("list", name="Neighbours", exact=True)
    found.get_by_role("button", name="Like").nth(2).click()
    page.wait_for_url("**like=5&like=*")
    visit.settled()
    liked = page.url.partition("?like=")[2].split("&like=")
    expected = httpx.post(f"{visit.address}/neighbors", params={"k": 12}, files=[("like_id", (None, one)) for one in liked])
    assert paths(page) == [found["path"] for found in expected.json()["results"][0]["neighbors"]]
    found.get_by_role("button", name="Unlike").last.click()
    page.wait_for_url("**unlike=*")
    visit.settled()
    expect(page.get_by_role("list", name="Unlike these").get_by_role("listitem")).to_have_count(1)
    visit.assert_accessible()
    page.get_by_role("list", name="Unlike these").get_by_role("button").click()
    visit.settled()
    expect(page.get_by_role("list", name="Unlike these").get_by_role("listitem")).to_have_count(0)
    page.get_by_label("Unlike a photograph of your own, too").set_input_files([OTHER])
    page.wait_for_url("**unlike=u1*")
    visit.settled()
    expect(page.get_by_role("list", name="Unlike these").get_by_role("img", name="other.jpg")).to_be_visible()


def test_several_photographs_are_searched_one_by_one_or_together(visit: Visit) -> None:
    visit.open()
    page = choose(visit, PHOTO, OTHER)
    expect(page.get_by_role("list", name="Neighbours of photo.jpg").get_by_role("listitem")).to_have_count(6)
    expect(page.get_by_role("list", name="Neighbours of other.jpg").get_by_role("listitem")).to_have_count(6)
    visit.assert_accessible()
    page.get_by_role("link", name="Search by all of them together").click()
    visit.settled()
    expect(page.get_by_role("list", name="Like these").get_by_role("listitem")).to_have_count(2)
    expect(page.get_by_text("Of the examples together.", exact=False)).to_be_visible()


def test_of_several_one_that_is_not_there_leaves_the_others(visit: Visit) -> None:
    visit.expect("404")
    page = visit.open("#/search?photo=5&photo=999")
    expect(page.get_by_role("region", name="photograph 5").get_by_role("listitem")).to_have_count(6)
    expect(page.get_by_role("region", name="photograph 999").get_by_role("alert")).to_contain_text("No item has the id 999")


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_a_photograph_is_dropped_or_pasted(visit: Visit, way: str) -> None:
    page = visit.open()
    page.evaluate(
        """([way, bytes]) => {
          const given = new DataTransfer();
          given.items.add(new File([Uint8Array.from(bytes)], "given.jpg", { type: "image/jpeg" }));
          const event = way === "drop"
            ? new DragEvent("drop", { dataTransfer: given, bubbles: true, cancelable: true })
            : new ClipboardEvent("paste", { clipboardData: given, bubbles: true });
          document.body.dispatchEvent(event);
        }""",
        [way, list(RED)],
    )
    page.wait_for_url("**/*photo=u1")
    visit.settled()
    assert paths(page) == neighbors(visit.address, k=12)


def test_a_phone_offers_its_camera_and_nothing_is_too_wide(visits: Visits, served: str) -> None:
    visit = visits(served, viewport=PHONE, has_touch=True, is_mobile=True)
    page = visit.open("#/search?photo=5")
    expect(page.locator("input[capture=environment]")).to_have_count(1)
    visit.assert_accessible()


def test_a_file_that_is_no_photograph_is_an_error_and_the_next_is_not(visit: Visit) -> None:
    visit.expect("415")
    visit.open()
    page = choose(visit, {"name": "text.jpg", "mimeType": "image/jpeg", "buffer": b"no photograph"})
    expect(page.get_by_role("alert")).to_contain_text("image")
    page.locator(".dropzone input[type=file]").first.set_input_files([PHOTO])
    page.wait_for_url("**/*photo=u2")
    visit.settled()
    expect(page.get_by_role("alert")).to_have_count(0)


def test_an_upload_that_is_too_large_is_an_error(visits: Visits, model: Path, index: Path) -> None:
    with serving(model, index, max_request_bytes=5_000) as address:
        visit = visits(address)
        visit.expect("413")
        visit.open()
        page = choose(visit, {"name": "large.jpg", "mimeType": "image/jpeg", "buffer": RED + bytes(10_000)})
        expect(page.get_by_role("alert").first).to_contain_text("max_request_bytes=5000")


@pytest.mark.parametrize("tab", ["search", "compare", "layers", "invariance"])
def test_an_upload_of_before_a_reload_says_so_and_can_be_chosen_once_more(visit: Visit, tab: str) -> None:
    visit.expect("404")  # of what the small index was built without
    page = visit.open(f"#/{tab}?photo=u7")
    expect(page.get_by_role("alert")).to_contain_text("Choose it once more")
    expect(page.get_by_role("button", name="Try again")).to_have_count(0)
    page.locator(".dropzone input[type=file]").first.set_input_files([PHOTO])
    page.wait_for_url("**/*photo=u1*")
    visit.settled()
    expect(page.get_by_role("alert")).to_have_count(0)


@pytest.mark.parametrize("tab", ["search", "compare", "layers", "invariance"])
def test_text_is_refused_once_and_not_to_be_tried_again(visit: Visit, tab: str) -> None:
    visit.expect("404", "415")
    page = visit.open(f"#/{tab}")
    choose(visit, TEXT)
    expect(page.get_by_role("alert")).to_contain_text("This file is text, and not an image")
    expect(page.get_by_role("button", name="Try again")).to_have_count(0)


def test_what_has_no_kind_is_told_to_be_no_photograph(visit: Visit) -> None:
    page = visit.open()
    page.locator(".dropzone input[type=file]").first.set_input_files([FOLDER])
    expect(page.get_by_role("alert")).to_contain_text("as in photo.jpg")
    visit.assert_accessible()


def test_without_an_index_the_page_says_what_makes_one(visits: Visits, model: Path, tmp_path: Path) -> None:
    with serving(model, tmp_path / "none") as address:
        visit = visits(address)
        visit.expect("503")
        page = visit.open()
        expect(page.get_by_role("alert")).to_contain_text("index")
        visit.assert_accessible()
