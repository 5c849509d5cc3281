"""The curves of an invariance report as a picture: a panel for each perturbation."""

from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from training.analysis.invariance import Measure
from training.analysis.invariance_report import Curve, InvarianceRecord, Networks
from training.analysis.perturbations import KINDS

_COLUMNS: Final = 3
_TICKS: Final = (0.25, 0.5, 0.7, 1, 1.5, 2, 4)  # of what multiplies
_COLOURS: Final = ("tab:blue", "tab:orange")
_STYLES: Final = {"same": "--", "other": ":"}
_CLASSES: Final = {"same": "another of its class", "other": "one of another class"}
_LABELS: Final[dict[Measure, str]] = {
    "l2": "|f - f0| / |f0|",
    "angle": "angle, degrees",
    "share": "share of the distance to another class",
    "bits": "bits that flip",
    "overlap": "of ten neighbours, share that stays",
}


def picture(record: InvarianceRecord, measure: Measure, names: tuple[str, str] = ("model", "beside")) -> Figure:
    """One measure over the levels of every perturbation, with bands of 95 % over photographs, or over several networks.

    Horizontal lines are the distances between different photographs.
    """
    groups = [record.networks, *([record.beside] if record.beside else [])]
    figure = Figure((11, 8.6), layout="constrained")
    grid = figure.subplots(-(-len(KINDS) // _COLUMNS), _COLUMNS)
    for place, axes in enumerate(grid.flat):
        for group, colour, name in zip(groups, _COLOURS, names, strict=False):
            _draw(axes, group.curves[place], measure, colour, name)
            _draw_distances(axes, group, measure, colour, f", {name}" if len(groups) > 1 else "")
        axes.set_xlabel(f"{KINDS[place]}: {record.networks.curves[place].unit}")
        axes.grid(alpha=0.3)
    figure.supylabel(_LABELS[measure])
    top = max(axes.get_ylim()[1] for axes in grid.flat)
    for axes in grid.flat:
        axes.set_ylim(0, top)
    figure.legend(*grid.flat[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    return figure


def _draw(axes: Axes, curve: Curve, measure: Measure, colour: str, name: str) -> None:
    """The points by their level, with the identity among them: on a logarithmic axis where it multiplies."""
    still = 1.0 if measure == "overlap" else 0.0
    rows = [(point.level, point.measures[measure]) for point in curve.points]
    points = [(level, found.mean, *(found.networks or found.photographs)) for level, found in rows]
    points = sorted([*points, (curve.identity, still, still, still)])
    levels, means, lows, highs = zip(*points, strict=True)
    axes.plot(levels, means, "-o", color=colour, markersize=3, label=name)
    axes.fill_between(levels, lows, highs, color=colour, alpha=0.2)
    if curve.kind in ("gain", "scale"):
        axes.set_xscale("log", base=2)
        ticks = [tick for tick in _TICKS if levels[0] <= tick <= levels[-1]]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    if curve.kind == "mirror":
        axes.set_xticks(levels, ["no", "yes"])
    if curve.kind == "jpeg":
        axes.set_xlim(max(levels), min(levels))


def _draw_distances(axes: Axes, group: Networks, measure: Measure, colour: str, name: str) -> None:
    found = group.distances.get(measure)
    for kind, style in _STYLES.items():
        value = getattr(found, kind, None)
        if value is not None:
            axes.axhline(value, color=colour, linestyle=style, linewidth=1, label=f"{_CLASSES[kind]}{name}")
