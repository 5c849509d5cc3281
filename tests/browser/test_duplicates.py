"""Near-duplicates in the tab Collection: where a filter leaves none, that is what is said."""

import shutil
from pathlib import Path

from playwright.sync_api import expect

from indexer import duplicates
from tests.browser.conftest import Visits
from tests.browser.visit import serving


def test_a_filter_that_leaves_no_group_is_not_taken_for_a_collection_without_any(
    visits: Visits, model: Path, index: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(index, tmp_path / "index", symlinks=True))
    duplicates.main(duplicates.DuplicatesSettings(index=folder, max_distance=0))
    with serving(model, folder) as address:
        visit = visits(address)
        page = visit.open("#/collection/near-duplicates")
        expect(page.get_by_text("No two photographs are near enough to each other.")).to_be_visible()
        page = visit.open("#/collection/near-duplicates?label=red")
        expect(page.get_by_text("No two photographs that pass the filter are near enough")).to_be_visible()
