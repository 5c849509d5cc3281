"""The claims as pictures, in SVG: figure 1 over seeds, all differences with their intervals, figure 3's columns over seeds."""

import html
import math
from collections.abc import Iterator, Sequence
from typing import Final

from training.claims.record import Curve, Moves, Report, Row

_WIDTH: Final = 760
_COLOURS: Final[dict[str, str]] = {"relu": "#1f6fb4", "tanh": "#c4451c", "abs-tanh": "#3a8f3a"}
_BETWEEN: Final = 28.0  # labels of an axis, pixels
_NAMES: Final[dict[str, str]] = {"relu": "ReLU", "tanh": "tanh", "abs-tanh": "|tanh|"}
# one drawing for light and dark pages
_STYLE: Final = (
    "<style>text{font:12px sans-serif;fill:#222}.faint{fill:#666}.line{stroke:#999}.mark{stroke:#222;fill:#222}.page{fill:#fff}"
    "@media(prefers-color-scheme:dark){text{fill:#ddd}.faint{fill:#999}.line{stroke:#666}.mark{stroke:#ddd;fill:#ddd}"
    ".page{fill:#161616}}</style>"
)


def pictures(report: Report) -> dict[str, str]:
    """File name -> SVG, of what there is to draw."""
    drawn = {"forest.svg": forest(report)}
    if report.figure1:
        drawn["figure1.svg"] = figure1(report.figure1)
    rows = [row for claim in report.claims for row in claim.rows if row.unit == "g"]
    if rows:
        drawn["figure3.svg"] = dots(rows)
    if report.brightness:
        drawn["brightness.svg"] = brightness(report.brightness)
    return drawn


def figure1(curves: Sequence[Curve]) -> str:
    """The training error of every network over its epochs, a panel for each setting; a dashed line at 25 %, as in the paper."""
    settings = list(dict.fromkeys(curve.setting for curve in curves))
    panel, height, left, top = _WIDTH // len(settings) - 60, 240, 50, 40
    parts: list[str] = []
    for i, setting in enumerate(settings):
        x0 = left + i * (panel + 60)
        some = [curve for curve in curves if curve.setting == setting]
        longest = max(len(curve.errors) for curve in some)
        parts += [_text(x0, top - 18, setting)]
        for share in (0.0, 0.25, 0.5, 0.75):
            y = top + height * (1 - share)
            dashes = ' stroke-dasharray="5 4"' if share == 0.25 else ""
            parts += [f'<line class="line" x1="{x0}" y1="{y:.1f}" x2="{x0 + panel}" y2="{y:.1f}"{dashes}/>']
            parts += [_text(x0 - 6, y + 4, f"{share:.0%}", "end")]
        ticks = range(0, longest + 1, max(1, round(longest / 6)))
        parts += [_text(x0 + panel * tick / longest, top + height + 18, str(tick), "middle") for tick in ticks]
        for curve in some:
            points = " ".join(
                f"{x0 + panel * (e + 0.5) / longest:.1f},{top + height * (1 - error):.1f}" for e, error in enumerate(curve.errors)
            )
            colour = _COLOURS[curve.nonlinearity]
            parts += [f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.6"/>']
            end = points.split(" ")[-1].split(",")
            parts += [f'<circle cx="{end[0]}" cy="{end[1]}" r="2.5" fill="{colour}"/>']
    for i, (unit, colour) in enumerate(_COLOURS.items()):
        x, y = left + 90 * i, top + height + 38
        parts += [f'<line x1="{x}" y1="{y}" x2="{x + 20}" y2="{y}" stroke="{colour}" stroke-width="2"/>']
        parts += [_text(x + 26, y + 4, _NAMES[unit])]
    parts += [_text(_WIDTH - 10, top + height + 42, "epochs; running training error, a line a seed", "end", "faint")]
    return _svg(top + height + 56, parts, "Training error over epochs of networks of ReLU, tanh and |tanh| units")


def brightness(moves: Sequence[Moves]) -> str:
    """How far FC7 of every network moves, over gain (by its logarithm) and over bias, a panel each."""
    arms = list(dict.fromkeys(one.arm for one in moves))
    colours = dict(zip(arms, _COLOURS.values(), strict=False))
    highest = max(max(one.moves) for one in moves) or 1.0
    panel, height, left, top = _WIDTH // 2 - 65, 240, 50, 40
    parts: list[str] = []
    for i, kind in enumerate(dict.fromkeys(one.kind for one in moves)):
        x0 = left + i * (panel + 60)
        some = [one for one in moves if one.kind == kind]
        places = [math.log2(level) if kind == "gain" else level for level in some[0].levels]
        low, high = places[0], places[-1]
        xs = [x0 + panel * (place - low) / (high - low) for place in places]
        parts += [_text(x0, top - 18, {"gain": "pixels times", "bias": "pixels plus"}[kind])]
        parts += [f'<line class="line" x1="{x0}" y1="{top + height}" x2="{x0 + panel}" y2="{top + height}"/>']
        ends = [-_BETWEEN, *xs]
        labels = zip(xs, some[0].levels, ends, strict=False)
        parts += [_text(x, top + height + 18, f"{level:g}", "middle") for x, level, before in labels if x - before >= _BETWEEN]
        for tick in _ticks(0.0, highest, logs=False):
            parts += [_text(x0 - 6, top + height * (1 - tick / highest) + 4, f"{tick:g}", "end")]
        for one in some:
            ys = (top + height * (1 - move / highest) for move in one.moves)
            points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))
            parts += [f'<polyline points="{points}" fill="none" stroke="{colours[one.arm]}" stroke-width="1.6"/>']
    y = top + height + 38
    for i, arm in enumerate(arms):
        x = left + 90 * i
        parts += [f'<line x1="{x}" y1="{y}" x2="{x + 20}" y2="{y}" stroke="{colours[arm]}" stroke-width="2"/>']
        parts += [_text(x + 26, y + 4, arm)]
    parts += [_text(_WIDTH - 10, y + 4, "move of FC7 as a share of that between classes; a line a seed", "end", "faint")]
    return _svg(y + 18, parts, "How far FC7 moves with brightness, with LRN and without")


def forest(report: Report) -> str:
    """Every comparison: its mean, its interval, its seeds as dots, and the published figure as a diamond; 0, or 1, is nothing."""
    parts: list[str] = []
    y = 20
    every = [row for claim in report.claims for row in claim.rows]
    for title, rows in (
        ("difference of error, points, beside a published one", [r for r in every if r.unit == "points" and r.published]),
        (
            "difference of error, points, of which nothing is published",
            [r for r in every if r.unit == "points" and not r.published],
        ),
        ("ratio of epochs, logarithmic", [r for r in every if r.unit == "times"]),
        ("|g| of the columns' chroma", [r for r in every if r.unit == "g"]),
        ("how far FC7 moves, as a share of the distance between photographs", [r for r in every if r.unit == "share"]),
        ("difference of mAP or of precision at 10, points: above 0 is better", [r for r in every if r.unit == "precision"]),
    ):
        if not rows:
            continue
        parts += [_text(10, y, title, css="faint")]
        drawn = list(_rows(rows, y + 18))
        parts += drawn
        y += 18 + 22 * len(rows) + 44
    parts += [_text(10, y, "dots: seeds; bar: mean and 95 % interval over seeds; diamond: published", css="faint")]
    return _svg(y + 14, parts, "Every claim's difference with its interval over seeds, beside the published figure")


def dots(rows: Sequence[Row]) -> str:
    """|g| of the columns' chroma beyond chance, of every seed."""
    parts = [_text(10, 20, "how far apart the columns' chroma lies: |g| beyond that of random groups, a dot a seed", css="faint")]
    parts += _rows(rows, 40)
    return _svg(40 + 22 * len(rows) + 40, parts, "How far columns lie apart in colour, seed by seed, beside the controls")


def _rows(rows: Sequence[Row], top: int) -> Iterator[str]:
    """A line for each row, below one axis; ratios by their logarithm."""
    logs = rows[0].unit == "times"

    def at(value: float) -> float:
        return math.log(max(value, 1e-3)) if logs else value

    known = [at(v) for r in rows for v in (*r.seeds, r.mean, r.low, r.high, r.published) if v is not None] + [0.0]
    low, high = min(known), max(known)
    if low == high:
        low, high = low - 1, high + 1
    left, right = 390, _WIDTH - 20

    def x(value: float) -> float:
        return left + (right - left) * (at(value) - low) / (high - low)

    bottom = top + 22 * len(rows)
    nothing = 1.0 if logs else 0.0
    yield f'<line class="line" x1="{x(nothing):.1f}" y1="{top - 10}" x2="{x(nothing):.1f}" y2="{bottom}"/>'
    for tick in _ticks(low, high, logs):
        yield _text(x(tick), bottom + 14, f"{tick:g}", "middle", "faint")
    for i, row in enumerate(rows):
        y = top + 22 * i + 4
        yield _text(left - 14, y + 4, row.label, "end")
        if row.low is not None and row.high is not None:
            yield f'<line class="mark" x1="{x(row.low):.1f}" y1="{y}" x2="{x(row.high):.1f}" y2="{y}" stroke-width="1.5"/>'
        for seed in row.seeds:
            yield f'<circle cx="{x(seed):.1f}" cy="{y}" r="2.5" fill="#1f6fb4" fill-opacity="0.6"/>'
        yield f'<line class="mark" x1="{x(row.mean):.1f}" y1="{y - 6}" x2="{x(row.mean):.1f}" y2="{y + 6}" stroke-width="2"/>'
        if row.censored:
            yield _text(x(row.mean) + 5, y - 3, "&gt;", escaped=True)
        if row.published is not None:
            centre = x(row.published)
            yield f'<path d="M{centre:.1f} {y - 6}l5 6l-5 6l-5 -6z" fill="none" stroke="#c4451c" stroke-width="1.5"/>'


def _ticks(low: float, high: float, logs: bool) -> list[float]:
    if logs:
        return [tick for tick in (0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 32) if low - 1e-9 <= math.log(tick) <= high + 1e-9]
    step = 10 ** math.floor(math.log10(high - low))
    step = next(times * step for times in (0.25, 0.5, 1, 2, 5) if (high - low) / (times * step) <= 8)
    return [round(step * i, 6) for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _text(x: float, y: float, text: str, anchor: str = "start", css: str = "", escaped: bool = False) -> str:
    kind = f' class="{css}"' if css else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{kind}>{text if escaped else html.escape(text)}</text>'


def _svg(height: float, parts: Sequence[str], says: str) -> str:
    size = f'viewBox="0 0 {_WIDTH} {height:.0f}" width="{_WIDTH}" height="{height:.0f}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{html.escape(says)}">'
    return f'{head}{_STYLE}<rect class="page" width="100%" height="100%"/>{"".join(parts)}</svg>'
