"""The claims as a Markdown table, and its place in a page."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from training.claims.record import Report, Row
from training.claims.scale import Size
from training.errors import Mismatch
from training.files import write_text

BEGIN: Final = "<!-- claims: written by python -m training.claims -->"
END: Final = "<!-- claims: end -->"
_PLACE: Final = re.compile(f"{re.escape(BEGIN)}\n.*?{re.escape(END)}", re.DOTALL)
_HEAD: Final = ("claim", "compared", "here", "seeds +/-", "published", "could have been seen", "verdict")
_SIZES: Final[dict[Size, str]] = {
    "quick": "--quick: one seed, direction only",
    "full": "--full",
    "large": "--large",
    "long": "--long",
}


def table(report: Report) -> str:
    """A line of what was measured where, and a row for each comparison."""
    lines = [_measured(report), "", f"| {' | '.join(_HEAD)} |", "|" + "---|" * len(_HEAD)]
    for claim in report.claims:
        for i, row in enumerate(claim.rows):
            lines.append(f"| {' | '.join([f'{claim.name} ({claim.section[:3]})' if i == 0 else '', *_cells(row)])} |")
    return "\n".join(lines)


def check(page: Path) -> None:
    """Raises Mismatch where a page has no markers, or its folder takes no files."""
    if not _PLACE.search(page.read_text("utf-8")):
        raise Mismatch(f"{page} has no lines {BEGIN} and {END} for the table to stand between")
    if not os.access(page.parent, os.W_OK):
        raise Mismatch(f"{page} cannot be replaced: nothing can be written into {page.parent}")


def replace_in(page: Path, report: Report) -> None:
    """Writes the table between the page's markers. Raises Mismatch where it has none."""
    check(page)
    new = f"{BEGIN}\n{table(report)}\n{END}"
    write_text(page, _PLACE.sub(lambda _: new, page.read_text("utf-8")))


def figure(row: Row, value: float | None, sign: bool = True) -> str:
    """A figure of a row in its unit."""
    if value is None:
        return "-"
    if row.unit == "times":
        return f"{value:.2f} x"
    return f"{value:{'+' if sign else ''}.2f}"


def _measured(report: Report) -> str:
    photographs = (
        ", ".join(
            f"{data}: {counts['train']:,} photographs to train on, {counts['test']:,} to test, {report.epochs[data]} epochs"
            for data, counts in report.photographs.items()
        )
        .replace(",", " ")
        .replace("  ", ", ")
    )
    return (
        f"`{_SIZES[report.size]}`; {photographs}; {report.machine}; PyTorch {report.torch}; commit {report.commit}; "
        f"{report.seconds / 3600:.1f} hours of training, all runs added up."
    )


def _cells(row: Row) -> Iterator[str]:
    yield row.label.replace("|", "\\|") + (f" ({row.note.replace('|', chr(92) + '|')})" if row.note else "")
    interval = "-" if row.low is None else f"[{figure(row, row.low)}, {figure(row, row.high)}]"
    p = "" if row.p is None else f", McNemar p {row.p:.2g}"
    yield f"{'> ' if row.censored else ''}{figure(row, row.mean)} {interval}{p}"
    yield f"{row.positive}/{row.negative}"
    yield figure(row, row.published)
    needed = "" if row.seeds_for_published is None else f"; {row.seeds_for_published} seeds for the published"
    yield figure(row, row.detectable, sign=False) + needed
    yield row.verdict
