"""What an evaluation found, for programs, for people and as a picture: evaluation.json, evaluation.md, evaluation.png."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from pydantic import BaseModel

from indexer.evaluation.intervals import Interval, Verdict
from indexer.evaluation.protocol import CUTS, NEIGHBORS, PRECISIONS, Figure, Latency, MethodResult
from indexer.evaluation.splits import Split
from indexer.metric import Metric
from indexer.search.ways import AUTOENCODER, COLOURS, RAW_AUTOENCODER
from training.files import replacing, write_text

PROTOCOL: Final = (
    "Relevant to a query is every indexed photograph with its label. mAP is over the whole ranking; mAP@N over its first N "
    "places, divided by the relevant photographs that so many places could hold. recall@k is the share of the k exact nearest "
    "neighbours by FC7 that is among the first k, 10 in 100 that of the 10 nearest among the first 100. For equal distances: the "
    "expected value over random orders. Autoencoders and baselines are fitted to the database, and figures of what has chance in "
    "it are means over seeds. Intervals are of 95 %: over the queries by the bootstrap, over the seeds by Student's t. A figure "
    "has + where it is better than that of the method with =, and - where it is worse: where the interval of the difference, "
    "over the queries and over the seeds, leaves 0 out. What has no codes is compared with exact search by the index's metric, "
    "codes with the autoencoder's of as many bits, a column with random halves of the components, and another layer with the "
    "index's by the same distance. Labels seen is the share of the indexed photographs that the network was "
    "trained on, with their labels."
)
_COLOURS: Final = {
    "FC7, Euclidean": "black",
    "FC7, cosine": "dimgray",
    "FC6, Euclidean": "teal",
    "FC6, cosine": "tab:cyan",
    "conv5, Euclidean": "tab:olive",
    "conv5, cosine": "gold",
    AUTOENCODER: "tab:red",
    "ITQ": "tab:blue",
    "LSH": "tab:green",
    "PCA-sign": "tab:purple",
    f"{COLOURS}, Hellinger": "tab:orange",
    "raw pixels, Euclidean": "tab:gray",
    RAW_AUTOENCODER: "tab:brown",
}
_MARKS: Final[dict[Verdict | None, str]] = {"better": "+", "worse": "-", "not told apart": " ", None: " "}
_COLUMNS: Final = 4
_HEADS: Final = ("top-1  ", "P@5  ", "mAP  ", "over queries", "over seeds", "recall@10")  # for a terminal
_WIDTHS: Final = (10, 10, 10, 18, 18, 11)


class Report(BaseModel):
    """What an evaluation found: the network's share of right classes, and the figures of every method and of every mode."""

    index_version: int
    layer: str = "FC7"  # that the index is made of
    metric: Metric  # that its features are compared by
    queries: int
    database: int
    classifier_top1: float
    labels_seen: float | None  # share of the database that the network was trained on; None where it is not known
    protocol: str = PROTOCOL
    configuration: dict[str, Any] = {}  # the settings
    machine: str = ""
    splits: dict[str, Split] = {}
    methods: list[MethodResult] = []
    latencies: list[Latency] = []

    def table(self) -> str:
        """Every method in a line, for a terminal."""
        lines = [
            f"{self.queries} queries, none of them indexed, against {self.database} photographs; {self._labels()}",
            f"{'':36s}bits" + "".join(f"{head:>{width}s}" for head, width in zip(_HEADS, _WIDTHS, strict=True)),
            f"{'AlexNet, centre view':40s}{self.classifier_top1:>8.3f}",
        ]
        for method in self.methods:
            average, recall = method.mean_average_precision.get(0), method.recall.get(10)
            places = [method.precision.get(1), method.precision.get(5), average]
            cells = [_cell(figure, method, 3) for figure in places]
            cells += [_span(average.over_queries), _span(average.over_seeds)] if average else ["", ""]
            cells.append(f"{recall.expected:.3f}" if recall else "")
            line = "".join(f"{cell:>{width}s}" for cell, width in zip(cells, _WIDTHS, strict=True))
            lines.append(f"{method.name:36s}{method.bits or '':>4}{line}".rstrip())
        lines.append("+ better, - worse than = by more than the intervals of 95 %; codes than the autoencoder's of as many bits")
        return "\n".join(lines)

    def speed(self) -> str:
        """Every mode of search in a line, for a terminal."""
        lines = [f"{'one query, its 10 nearest':32s}{'p50':>10s}{'p99':>10s}{'queries/s':>11s}"]
        for one in self.latencies:
            lines.append(f"{one.mode:32s}{one.p50_ms:>7.3g} ms{one.p99_ms:>7.3g} ms{one.queries_per_second:>11.0f}")
        return "\n".join(lines)

    def _labels(self) -> str:
        if self.labels_seen is None:
            return "the model does not say what it was trained on"
        return f"the network was trained on {self.labels_seen:.0%} of them with their labels"

    def markdown(self) -> str:
        """The whole protocol as Markdown."""
        heads = ["", "bits", "bytes an item", "labels seen", "mAP", "over queries", "over seeds", "mAP@1000", "mAP@5000"]
        heads += ["P@1", "P@5", "P@10", "P@100", "P@1000", "recall@10", "recall@100", "10 in 100"]
        orders = ["", "bits", "mAP, expected", "worst order of equals", "best"]
        parts = [
            f"{self.queries} queries, none of them indexed, against {self.database} photographs; {self._labels()}. "
            f"{self.layer} is compared by the {self.metric} distance.",
            PROTOCOL,
            _rows(heads, map(_cells, self.methods)),
            _rows(orders, (_of_orders(method) for method in self.methods if method.bits and method.mean_average_precision)),
            *_differences(self.methods),
            _rows(
                ["mode", "bytes an item", "p50, ms", "p95, ms", "p99, ms", "queries a second, together"],
                (
                    [one.mode, f"{one.bytes_per_item}"]
                    + [f"{ms:.3g}" for ms in (one.p50_ms, one.p95_ms, one.p99_ms)]
                    + [f"{one.queries_per_second:.0f}"]
                    for one in self.latencies
                ),
            ),
            f"Single queries for the 10 nearest, encoding included where there are codes; {self.machine}.",
            "\n".join(
                f"- {name}: {split.file}, {split.photographs} photographs, SHA-256 {split.sha256}"
                for name, split in self.splits.items()
            ),
            "![Precision and recall](evaluation.png)",
        ]
        return "\n\n".join(parts) + "\n"

    def write(self, folder: Path) -> None:
        """Writes the three files, each in one step."""
        write_text(folder / "evaluation.md", self.markdown())
        with replacing(folder / "evaluation.png") as path:
            _picture(self.methods).savefig(path, format="png", dpi=100)
        write_text(folder / "evaluation.json", self.model_dump_json(indent=2) + "\n")


def _rows(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cell.rstrip() for cell in cells)} |" for cells in lines)


def _cells(method: MethodResult) -> list[str]:
    averages, precision, recall = method.mean_average_precision, method.precision, method.recall
    average = averages.get(0)
    return [
        method.name,
        str(method.bits or ""),
        str(method.bytes_per_item),
        "?" if method.labels_seen is None else f"{method.labels_seen:.0%}",
        _cell(average, method),
        _span(average.over_queries if average else None),
        _span(average.over_seeds if average else None),
        *(_cell(averages.get(depth), method) for depth in CUTS),
        *(_cell(precision.get(depth), method) for depth in PRECISIONS),
        *(_cell(recall.get(depth), method) for depth in NEIGHBORS),
        _cell(method.ten_in_hundred, method),
    ]


def _of_orders(method: MethodResult) -> list[str]:
    figure = method.mean_average_precision[0]
    return [method.name, str(method.bits), *(f"{value:.4f}" for value in (figure.expected, figure.worst, figure.best))]


def _differences(methods: Sequence[MethodResult]) -> list[str]:
    """Columns and other layers beside what they are compared with, where there are any; and how far halves agree."""
    named = [method for method in methods if method.is_paired and 0 in method.mean_average_precision]
    rows = [
        [
            method.name,
            method.compared_with,
            *(_difference(figure) for figure in (method.mean_average_precision[0], method.precision.get(10))),
        ]
        for method in named
    ]
    halves = [method for method in methods if method.other_half]
    shares = [
        [method.name, *(_share(figure) for figure in (method.recall.get(10), method.other_half)), _difference(method.other_half)]
        for method in halves
    ]
    heads = ["", "compared with", "mAP, difference", "P@10, difference"]
    tables = [_rows(heads, rows)] if rows else []
    return tables + ([_rows(["", "overlap@10 with both", "with the other half", "difference"], shares)] if shares else [])


def _difference(figure: Figure | None) -> str:
    if figure is None or figure.difference is None:
        return ""
    return f"{figure.difference:+.4f}, {_span(figure.difference_over_queries)} {_MARKS[figure.verdict]}"


def _share(figure: Figure | None) -> str:
    return "" if figure is None else f"{figure.expected:.4f}, {_span(figure.over_queries)}"


def _cell(figure: Figure | None, method: MethodResult, digits: int = 4) -> str:
    if figure is None:
        return ""
    return f"{figure.expected:.{digits}f} {_MARKS[figure.verdict] if method.compared_with else '='}"


def _span(interval: Interval | None) -> str:
    return "" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"


def _picture(methods: Sequence[MethodResult]) -> Picture:
    """Precision over recall, a panel for each length, and mAP with its intervals below."""
    drawn = [method for method in methods if method.curve and method.name in _COLOURS]
    lengths = sorted({method.bits for method in drawn if method.bits}) or [0]
    columns = min(_COLUMNS, len(lengths))
    rows = -(-len(lengths) // columns)
    picture = Picture(figsize=(max(8, 1 + 3.5 * columns), 3.8 + 3.2 * rows), layout="constrained")
    grid = picture.add_gridspec(rows + 1, columns)
    for i, bits in enumerate(lengths):
        panel = picture.add_subplot(grid[i // columns, i % columns])
        for method in drawn:
            if method.bits in {bits, 0}:
                _draw(panel, method)
        panel.set(title=f"{bits} bits" if bits else "", xlim=(0, 1), ylim=(0, 1), xlabel="recall", ylabel="precision")
    _draw_averages(picture.add_subplot(grid[rows, :]), [method for method in drawn if method.bits in {max(lengths), 0}])
    handles = {label: line for panel in picture.axes for line, label in zip(*panel.get_legend_handles_labels(), strict=True)}
    picture.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=_COLUMNS, frameon=False)
    return picture


def _draw(panel: Axes, method: MethodResult) -> None:
    """The curve, and a band from the worst to the best order of equal distances."""
    points = list(method.curve.values())
    recall = [recall.expected for recall, _ in points]
    colour = _COLOURS[method.name]
    panel.plot(recall, [precision.expected for _, precision in points], color=colour, label=method.name, linewidth=1.5)
    panel.fill_between(
        recall,
        [precision.worst for _, precision in points],
        [precision.best for _, precision in points],
        color=colour,
        alpha=0.12,
    )


def _draw_averages(panel: Axes, methods: Sequence[MethodResult]) -> None:
    """mAP, with a thin line for the interval over the queries and a thick one for that over the seeds."""
    for row, method in enumerate(methods):
        figure, colour = method.mean_average_precision[0], _COLOURS[method.name]
        panel.plot(figure.expected, row, "o", color=colour, markersize=4)
        for interval, width in ((figure.over_queries, 1), (figure.over_seeds, 3)):
            if interval:
                panel.plot(interval, (row, row), color=colour, linewidth=width)
    names = [f"{method.name}, {method.bits} bits" if method.bits else method.name for method in methods]
    panel.set(yticks=range(len(names)), xlabel="mAP, with its intervals over queries (thin) and seeds (thick)")
    panel.set_yticklabels(names, fontsize=8)
    panel.invert_yaxis()
