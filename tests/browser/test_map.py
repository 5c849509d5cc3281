"""The Map tab: points that can be moved, chosen, outlined and filtered, by mouse, keys and fingers; no WebGL; no map."""

import re
import shutil
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from indexer import build
from indexer.index import open_index
from indexer.storage import layout
from tests.browser.conftest import Visits
from tests.browser.visit import PHONE, Visit, serving

POINTS = re.compile(r"/map/points\?")
SLOW = "GPU stall due to ReadPixels"  # chromium's remark where there is no graphics card
NO_WEBGL = """const get = HTMLCanvasElement.prototype.getContext;
HTMLCanvasElement.prototype.getContext = function (kind) { return kind === "2d" ? get.call(this, kind) : null; };"""
STYLE = Path(__file__).resolve().parents[2] / "service/web/tabs/map.css"


@pytest.fixture(scope="module")
def mapped(model: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mapped") / "index"
    build.main(build.BuildSettings(model=model, data=images, index=folder, part="train", bits=0, map=True))
    return folder


@pytest.fixture(scope="module")
def address(model: Path, mapped: Path) -> Iterator[str]:
    with serving(model, mapped) as address:
        yield address


def place_of(folder: Path, item: int) -> tuple[float, float]:
    """Where an item lies, from the left and from the top, of the map's whole."""
    places = layout.read(open_index(folder)).places_N2 / layout.LARGEST
    return float(places[item, 0]), 1 - float(places[item, 1])


def pixels_of(page: Page, folder: Path, item: int) -> tuple[float, float]:
    """Where an item of the map is in the window, by the address that the page has written."""
    place = place_of(folder, item)
    wide, high = np.ptp(layout.read(open_index(folder)).places_N2 / layout.LARGEST, 0)
    box = page.locator(".stage").bounding_box()
    assert box
    x, y, zoom = (float(re.search(rf"{name}=([\d.]+)", page.url)[1]) for name in ("x", "y", "zoom"))  # type: ignore[index]
    scale = 0.94 * zoom * min((box["width"] - 2) / wide, (box["height"] - 2) / high)
    left, top = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    return left + (place[0] - x) * scale, top + (place[1] - y) * scale


def looking(visits: Visits, address: str, place: str = "#/map", **options: object) -> Visit:
    visit = visits(address, **options)
    visit.expect(SLOW)
    visit.open(place)
    expect(visit.page).to_have_url(re.compile("zoom="))
    return visit


def test_a_photograph_that_is_not_on_the_map_is_said_to_be_not(visits: Visits, address: str) -> None:
    page = looking(visits, address, "#/map?photo=999").page
    expect(page.get_by_text("Photograph 999 is not on the map.")).to_be_visible()


def test_a_point_is_chosen_by_the_mouse_and_searched_from(visits: Visits, address: str, mapped: Path) -> None:
    visit = looking(visits, address)
    page = visit.page
    expect(page.get_by_text("24 photographs; those that are near each other are alike by FC7.")).to_be_visible()
    visit.assert_accessible()
    page.mouse.move(*pixels_of(page, mapped, 7))
    expect(page.locator(".tip img")).to_have_attribute("src", re.compile(r"items/\d+/thumbnail"))
    page.mouse.click(*pixels_of(page, mapped, 7))
    page.get_by_role("link", name="Search from photograph 7", exact=True).click()
    expect(page).to_have_url(re.compile("#/search.*photo=7"))
    visit.settled()


def test_a_neighbour_and_what_was_asked_about_lead_to_their_places_on_the_map(visits: Visits, address: str, mapped: Path) -> None:
    visit = visits(address, viewport=PHONE)
    visit.expect(SLOW)
    page = visit.open("#/search?photo=7")
    visit.assert_accessible()
    neighbour = page.get_by_role("list", name="Neighbours").get_by_role("listitem").nth(1)
    lead = neighbour.get_by_role("link", name="on the map")
    [id] = re.findall(r"items/(\d+)/", neighbour.locator("img").get_attribute("src") or "")
    ways = [(lead, int(id)), (page.get_by_role("link", name="See it on the map"), 7)]
    for link, item in ways:
        link.focus()
        page.keyboard.press("Enter")
        x, y = place_of(mapped, item)
        expect(page).to_have_url(re.compile(f"#/map.x={x:.4f}&y={y:.4f}&zoom=6.00&photo={item}$"))
        expect(page.get_by_role("link", name=f"Search from photograph {item}", exact=True)).to_be_visible()
        visit.settled()
        page.go_back()
        visit.settled()


def test_without_a_map_nothing_leads_to_one(visit: Visit) -> None:
    page = visit.open("#/search?photo=7")
    expect(page.get_by_role("list", name="Neighbours").get_by_role("listitem")).to_have_count(12)
    expect(page.locator("a[href*='#/map?']")).to_have_count(0)


def test_few_points_in_view_have_their_thumbnails(visits: Visits, address: str) -> None:
    visit = looking(visits, address, "#/map?photo=7")
    pictures = visit.page.locator(".pictures img")
    expect(pictures.first).to_be_visible()
    sources = [picture.get_attribute("src") for picture in pictures.all()]
    assert len(sources) == len(set(sources)) <= 24
    assert "items/7/thumbnail" in sources
    visit.assert_accessible()


def test_keys_alone_move_choose_and_search(visits: Visits, address: str) -> None:
    visit = looking(visits, address)
    page = visit.page
    stage = page.get_by_role("application")
    stage.focus()
    for key in ("+", "+", "ArrowRight", "ArrowDown"):
        page.keyboard.press(key)
    expect(page).to_have_url(re.compile("zoom=2.25"))
    assert float(re.search(r"x=([\d.]+)", page.url)[1]) > 0.5  # type: ignore[index]
    page.keyboard.press("0")
    expect(page).to_have_url(re.compile(r"x=0\.5000&y=0\.5000&zoom=1\.00"))
    page.keyboard.press("Enter")
    link = page.get_by_role("link", name=re.compile("Search from photograph"))
    link.focus()
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("#/search.*photo="))
    visit.settled()


def test_an_address_leads_to_the_same_view_labels_and_photograph(visits: Visits, address: str, mapped: Path) -> None:
    [item] = open_index(mapped).items([7])
    place = f"#/map?x=0.4000&y=0.6000&zoom=3.00&photo=7&label={item.label}&only=yes"
    page = looking(visits, address, place).page
    expect(page.get_by_role("link", name="Search from photograph 7", exact=True)).to_be_visible()
    expect(page.locator(".legend li input:checked")).to_have_count(1)
    expect(page.get_by_role("checkbox", name=item.label)).to_be_checked()
    expect(page.get_by_label("only these")).to_be_checked()
    page.get_by_role("application").press("ArrowUp")
    expect(page).to_have_url(re.compile(rf"x=0\.4000&y=0\.[1-5]\d*&zoom=3\.00&photo=7&label={item.label}&only=yes$"))


def test_labels_are_filtered_and_listed(visits: Visits, address: str) -> None:
    visit = looking(visits, address)
    page = visit.page
    page.get_by_role("button", name="List what is in view").click()
    expect(page.get_by_role("heading", name="24 photographs in view")).to_be_visible()
    boxes = page.get_by_role("list", name="Labels").get_by_role("checkbox")
    counts = [int(text) for text in page.locator(".legend small").all_text_contents()]
    assert sum(counts) == 24
    names = page.get_by_role("list", name="Labels").locator("label span:not(.dot)").all_text_contents()
    boxes.nth(0).uncheck()
    page.get_by_label("only these").check()
    page.get_by_role("button", name="List what is in view").click()
    expect(page.get_by_role("heading", name=f"{24 - counts[0]} photographs in view")).to_be_visible()
    expect(page).to_have_url(re.compile("label=.*only=yes"))
    again = page.url.split("/#")[1]
    visit.open(f"#{again}")
    expect(page.get_by_role("checkbox", name=names[0])).not_to_be_checked()
    expect(page.get_by_role("list", name="Labels").locator("label span:not(.dot)")).to_have_text([*names[1:], names[0]])
    expect(page.get_by_label("only these")).to_be_checked()
    visit.assert_accessible()


@pytest.mark.parametrize("way", ["shift", "button"])
def test_a_lasso_lists_what_is_within(visits: Visits, address: str, mapped: Path, way: str) -> None:
    visit = looking(visits, address)
    page = visit.page
    if way == "shift":
        page.keyboard.down("Shift")
    else:
        page.get_by_role("button", name="Lasso").click()
    x, y = pixels_of(page, mapped, 7)
    page.mouse.move(x - 5, y - 5)
    page.mouse.down()
    for corner in ((x + 5, y - 5), (x + 5, y + 5), (x - 5, y + 5)):
        page.mouse.move(*corner)
    page.mouse.up()
    inside = page.get_by_role("list", name="Photographs within the outline")
    expect(inside.locator("a[href='#/search?photo=7']")).to_be_visible()


def test_two_fingers_zoom_on_a_phone(visits: Visits, address: str) -> None:
    visit = looking(visits, address, viewport=PHONE, has_touch=True, color_scheme="dark")
    page = visit.page
    box = page.locator(".stage").bounding_box()
    assert box
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    touch = page.context.new_cdp_session(page)
    for kind, apart in (("touchStart", 20), ("touchMove", 40), ("touchMove", 60)):
        fingers = [{"x": x - apart, "y": y, "id": 0}, {"x": x + apart, "y": y, "id": 1}]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    expect(page).to_have_url(re.compile(r"zoom=(2\.[5-9]|3\.)"))
    visit.settled()
    visit.assert_accessible()


def test_without_webgl_a_plain_canvas_shows_the_same(visits: Visits, address: str, mapped: Path) -> None:
    visit = visits(address)
    visit.page.add_init_script(NO_WEBGL)
    page = visit.open("#/map")
    expect(page).to_have_url(re.compile("zoom="))
    page.get_by_text("How the map was made").click()
    expect(page.get_by_text("a plain canvas")).to_be_visible()
    x, y = pixels_of(page, mapped, 7)
    box = page.locator("canvas.points").bounding_box()
    assert box
    drawn = f"document.querySelector('canvas.points').getContext('2d').getImageData({x - box['x']}, {y - box['y']}, 1, 1).data[3]"
    assert page.evaluate(drawn) > 100
    page.mouse.click(x, y)
    expect(page.get_by_role("link", name="Search from photograph 7", exact=True)).to_be_visible()


def test_a_context_that_is_lost_goes_on_as_a_plain_canvas(visits: Visits, address: str) -> None:
    visit = looking(visits, address)
    visit.expect("WebGL.*CONTEXT_LOST", "loseContext")
    page = visit.page
    page.evaluate("document.querySelector('canvas.points').getContext('webgl2').getExtension('WEBGL_lose_context').loseContext()")
    page.wait_for_function("document.querySelector('canvas.points').getContext('2d')")
    visit.settled()


def test_an_index_without_a_map_says_what_makes_one(visit: Visit) -> None:
    visit.expect("404")
    page = visit.open("#/map")
    expect(page.get_by_text("This index has no map.")).to_be_visible()
    expect(page.get_by_text("python -m indexer.build --map")).to_be_visible()
    visit.assert_accessible()


def test_a_service_that_is_gone_is_told_and_asked_again(visits: Visits, address: str) -> None:
    visit = visits(address)
    visit.expect("Failed to load resource", SLOW)
    visit.page.route(POINTS, lambda route: route.abort())
    page = visit.open("#/map")
    expect(page.get_by_role("alert")).to_contain_text("The service does not answer")
    page.unroute(POINTS)
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_text("24 photographs; those")).to_be_visible()
    visit.settled()


def test_what_came_since_and_what_was_removed_is_told(visits: Visits, model: Path, mapped: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(mapped, tmp_path / "index", symlinks=True))
    open_index(folder).remove([3]).close()
    with serving(model, folder) as address:
        visit = looking(visits, address)
        expect(
            visit.page.get_by_text("23 photographs; those that are near each other are alike by FC7. 1 was removed")
        ).to_be_visible()


MATRICES = {  # Machado, Oliveira and Fernandes 2009, of linear RGB
    "all": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def lab(linear_N3: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of linear RGB."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(np.maximum(linear_N3 @ to_xyz.T / [0.9505, 1, 1.089], 0.008856)).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("vision", MATRICES)
def test_the_colours_differ_for_every_kind_of_vision_and_stand_out(scheme: int, vision: str) -> None:
    pairs = re.findall(r"--map-\d: light-dark\((#\w{6}), (#\w{6})\)", STYLE.read_text())
    assert len(pairs) == 9
    paper = ("#ffffff", "#1d2229")[scheme]
    values = np.array(
        [[int(text[i : i + 2], 16) / 255 for i in (1, 3, 5)] for text in (*(pair[scheme] for pair in pairs), paper)]
    )
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    colours = lab(np.clip(linear @ np.array(MATRICES[vision]).T, 0, 1))[:-1]
    assert min(np.linalg.norm(one - other) for one, other in combinations(colours, 2)) > 20
    light = linear @ [0.2126, 0.7152, 0.0722] + 0.05
    contrast = np.maximum(light[1:-1], light[-1]) / np.minimum(light[1:-1], light[-1])
    assert contrast.min() >= 3
