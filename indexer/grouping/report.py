"""Groups of near-duplicates for people and programs: a table, JSON, CSV, and a contact sheet in HTML."""

import base64
import csv
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any, Final

from indexer.grouping.choice import Choice
from indexer.grouping.groups import Group
from indexer.storage.originals import folder_of
from indexer.store import Item, Store
from training.files import printable, replacing, write_text
from training.program import progress

SHEET_GROUPS: Final = 200  # of a contact sheet
SHEET_PICTURES: Final = 24  # of a group on it
_NAMES: Final = {"euclidean": "Euclidean", "cosine": "cosine", "hamming": "Hamming"}
_ROWS: Final = 20  # of the table
_COLUMNS: Final = ("group", "id", "file", "label", "width", "height", "size", "format", "sha256", "distance")
# How cells begin that spreadsheets evaluate (OWASP, "CSV Injection"), in full width too, which some take for the same.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_HEAD: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>Near-duplicates</title>
<style>
body { font: 14px/1.4 system-ui, sans-serif; margin: 1.5rem; background: Canvas; color: CanvasText; color-scheme: light dark; }
ul { display: flex; flex-wrap: wrap; gap: .75rem; list-style: none; margin: 0; padding: 0; }
li { width: 160px; overflow-wrap: anywhere; font-size: 12px; }
li:first-child img { outline: 3px solid Highlight; }
img { display: block; width: 160px; height: 160px; }
</style>
"""


def summary(groups: Sequence[Group], chosen: Choice, compared: int) -> str:
    """What was found, and on a line of its own how the threshold was chosen."""
    items = sum(len(group.items) for group in groups)
    within = f"{chosen.threshold.most:.4g} by {_NAMES[chosen.threshold.metric]} distance"
    found = f"{len(groups)} groups of {items} among {compared} items, linked by pairs within {within}."
    return f"{found}\nThat distance is {chosen.how}."


def table(groups: Sequence[Group], index: Path) -> str:
    """The largest groups in a line each, for a terminal."""
    lines = [f"{'items':>7s}{'farthest':>10s}  representative"]
    for group in groups[:_ROWS]:
        lines.append(f"{len(group.items):>7d}{group.farthest:>10.4g}  {printable(_file(index, group.items[0]))}")
    if len(groups) > _ROWS:
        lines.append(f"and {len(groups) - _ROWS} more groups")
    return "\n".join(lines)


def write_json(path: Path, groups: Sequence[Group], chosen: Choice, index: Path) -> None:
    """Writes all groups with what the catalogue says of their items; the representative of each comes first."""
    content = {
        "metric": chosen.threshold.metric,
        "threshold": chosen.threshold.most,
        "chosen": chosen.how,
        "groups": [
            {"farthest": group.farthest, "items": [_facts(index, item, group, i) for i, item in enumerate(group.items)]}
            for group in groups
        ],
    }
    write_text(path, json.dumps(content, indent=1) + "\n")


def write_csv(path: Path, groups: Sequence[Group], index: Path) -> None:
    """Writes a line an item, with a header; groups are numbered from 1, the representative of each comes first.

    A text that a spreadsheet would take for a formula has an apostrophe before it, which shows it as text.
    """
    with replacing(path) as temporary, temporary.open("w", newline="") as file:
        rows = csv.DictWriter(file, _COLUMNS)
        rows.writeheader()
        for number, group in enumerate(groups, 1):
            for place, item in enumerate(group.items):
                facts = _facts(index, item, group, place)
                rows.writerow({"group": number} | {name: _as_text(value) for name, value in facts.items()})


def write_html(path: Path, groups: Sequence[Group], heading: str, store: Store, index: Path) -> None:
    """Writes the first SHEET_GROUPS groups as one page that needs nothing else, thumbnails included."""
    shown = groups[:SHEET_GROUPS]
    with replacing(path) as temporary, temporary.open("w") as file:
        file.write(f"{_HEAD}<h1>Near-duplicates</h1>\n<p>{escape(heading)}\n")
        file.write("The first picture of a group is its representative; the others have their distance from it.</p>\n")
        for number, group in enumerate(progress(shown, len(shown), "contact sheet", "groups"), 1):
            file.write(f"<h2>{number}: {len(group.items)} items, the farthest at {group.farthest:.4g}</h2>\n<ul>\n")
            for item, distance in zip(group.items[:SHEET_PICTURES], group.distances, strict=False):
                file.write(_picture(store, item, float(distance), index))
            file.write("</ul>\n")
            if len(group.items) > SHEET_PICTURES:
                file.write(f"<p>and {len(group.items) - SHEET_PICTURES} more</p>\n")
        if len(groups) > len(shown):
            file.write(f"<p>and {len(groups) - len(shown)} smaller groups, which the JSON and the CSV have</p>\n")


def _picture(store: Store, item: Item, distance: float, index: Path) -> str:
    data, name = base64.b64encode(store.thumbnail(item)).decode(), escape(printable(_file(index, item)))
    facts = f"{distance:.4g}, {item.width} x {item.height}, {item.size} bytes, {item.id}"
    return f'<li><img alt="" src="data:image/jpeg;base64,{data}">{facts}<br>{name}</li>\n'


def _facts(index: Path, item: Item, group: Group, place: int) -> dict[str, Any]:
    return {
        "id": item.id,
        "file": _file(index, item),
        "label": item.label,
        "width": item.width,
        "height": item.height,
        "size": item.size,
        "format": item.format,
        "sha256": item.sha256,
        "distance": float(group.distances[place]),
    }


def _as_text(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _file(index: Path, item: Item) -> str:
    return str(folder_of(index, item.root) / item.path)
