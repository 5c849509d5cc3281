"""The Layers tab: a photograph through the network, an item or one's own, and what goes wrong."""

import re
from pathlib import Path

import httpx
from playwright.sync_api import FilePayload, expect

from tests.browser.conftest import Visits
from tests.browser.visit import PHONE, Visit, serving
from tests.conftest import COLOURS, encoded, photograph

PHOTO: FilePayload = {"name": "photo.jpg", "mimeType": "image/jpeg", "buffer": encoded(photograph(77, COLOURS["red"]))}


def test_one_begins_with_an_item_and_sees_its_class_views_and_maps(visit: Visit) -> None:
    page = visit.open("#/layers")
    page.get_by_role("list", name="Photographs to look at").get_by_role("link").nth(2).click()
    visit.settled()
    item = re.search(r"photo=(\d+)", page.url)
    assert item
    expect(page.get_by_role("heading", level=2)).to_contain_text("Layers: train/")
    views = page.get_by_role("list", name="The ten views").get_by_role("listitem")
    expect(views).to_have_count(10)
    answer = httpx.post(f"{visit.address}/views?id={item[1]}").json()
    expect(views.first).to_contain_text(answer["views"][0]["classes"][0]["class"])
    expect(views.nth(1)).to_contain_text("top left, mirrored")
    expect(page.locator(".pile img").first).to_have_attribute("alt", re.compile("what the class hangs on lies most"))
    expect(page.get_by_role("region", name="conv1, column 1")).to_contain_text("4, of 55 x 55")
    strongest = page.get_by_role("list", name="The strongest of conv1, column 1").get_by_role("link").first
    expect(strongest).to_have_attribute("href", re.compile(r"^#/units/conv1/1/\d$"))
    visit.assert_accessible()


def test_the_layer_and_the_class_are_in_the_address_and_come_back_with_it(visit: Visit) -> None:
    page = visit.open("#/layers?photo=3")
    page.get_by_role("combobox", name="Layer").select_option("fc7")
    visit.settled()
    expect(page.get_by_role("region", name="fc7, column 0")).to_contain_text("16")
    page.get_by_role("combobox", name="Class").select_option("green")
    visit.settled()
    assert "layer=fc7" in page.url
    assert "class=green" in page.url
    page.reload()
    visit.settled()
    expect(page.get_by_role("combobox", name="Class")).to_have_value("green")
    expect(page.get_by_text(re.compile("^green has a probability of"))).to_be_visible()
    expect(page.get_by_role("list", name="The strongest of fc7, column 0").get_by_role("listitem")).to_have_count(12)


def test_the_heat_can_be_taken_off(visit: Visit) -> None:
    page = visit.open("#/layers?photo=3")
    expect(page.locator(".overlay")).to_be_visible()
    page.get_by_label("heat over the photograph").uncheck()
    expect(page.locator(".overlay")).to_be_hidden()


def test_a_photograph_of_ones_own_is_seen_on_a_phone_in_the_dark(visits: Visits, served: str) -> None:
    visit = visits(served, viewport=PHONE, color_scheme="dark")
    page = visit.open("#/layers")
    page.locator(".dropzone input[type=file]").first.set_input_files([PHOTO])
    page.wait_for_url("**/*photo=u1*")
    visit.settled()
    expect(page.get_by_role("heading", level=2)).to_have_text("Layers: photo.jpg")
    expect(page.get_by_role("list", name="The ten views").get_by_role("listitem")).to_have_count(10)
    visit.assert_accessible()


def test_what_is_not_there_is_said(visit: Visit) -> None:
    visit.expect("404")
    page = visit.open("#/layers?photo=999")
    expect(page.get_by_role("alert")).to_contain_text("999")
    page = visit.open("#/layers/elsewhere")
    expect(page.get_by_role("alert")).to_contain_text("no page elsewhere")


def test_without_a_model_the_command_that_makes_one_is_named(visits: Visits, tmp_path: Path) -> None:
    with serving(tmp_path / "model", tmp_path / "index") as address:
        visit = visits(address)
        visit.expect("503")
        page = visit.open("#/layers")
        expect(page.get_by_role("alert")).to_contain_text("training.train")
