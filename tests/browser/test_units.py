"""The Units tab: the first layer's kernels, and a page for each."""

from playwright.sync_api import expect

from tests.browser.visit import Visit


def test_a_kernel_has_its_page_and_leads_to_the_next(visit: Visit) -> None:
    page = visit.open("#/units")
    kernels = page.get_by_role("list", name="Kernels of column 0").get_by_role("link")
    expect(kernels).to_have_count(4)
    visit.assert_accessible()
    kernels.nth(1).click()
    visit.settled()
    heading = page.get_by_role("heading", level=2)
    expect(heading).to_have_text("Kernel 1 of column 0")
    expect(heading).to_be_focused()
    expect(page.get_by_role("list", name="The most exciting photographs").get_by_role("listitem")).to_have_count(9)
    visit.assert_accessible()
    page.get_by_role("link", name="next").click()
    expect(heading).to_have_text("Kernel 2 of column 0")
    page.go_back()
    expect(heading).to_have_text("Kernel 1 of column 0")


def test_a_kernel_that_is_not_there_is_an_error(visit: Visit) -> None:
    visit.expect("404")
    page = visit.open("#/units/conv1/0/99")
    expect(page.get_by_role("alert")).to_contain_text("2 column(s) of 4 kernels")
