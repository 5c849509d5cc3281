"""What an evaluation found, for programs, for people and as a picture: evaluation.json, evaluation.md, evaluation.png."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from pydantic import BaseModel

from indexer.evaluation.methods import AUTOENCODER, EXACT, RAW_AUTOENCODER, RAW_EXACT
from indexer.evaluation.protocol import Figure, Latency, MethodResult
from indexer.evaluation.splits import Split
from indexer.metric import Metric
from training.files import replacing

PROTOCOL: Final = (
    "Relevant to a query is every indexed photograph with its label. mAP is over the whole ranking; mAP@N over its first N "
    "places, divided by the relevant photographs that so many places could hold. recall@k is the share of the k exact nearest "
    "neighbours by FC7 that is among the first k, 10 in 100 that of the 10 nearest among the first 100. For equal distances: the "
    "expected value over random orders; in brackets the worst and the best order. Autoencoders and baselines are fitted to the "
    "database."
)
_COLOURS: Final = {
    EXACT: "black",
    AUTOENCODER: "tab:red",
    "ITQ": "tab:blue",
    "LSH": "tab:green",
    "PCA-sign": "tab:purple",
    RAW_EXACT: "tab:gray",
    RAW_AUTOENCODER: "tab:brown",
}
_EVERY_PANEL: Final = (EXACT, RAW_EXACT)  # drawn with every length
_COLUMNS: Final = 4


class Report(BaseModel):
    """Shares of right answers over the queries: of the single best class, and of the five nearest neighbours; and the rest."""

    index_version: int
    metric: Metric  # that FC7 is compared by
    queries: int
    database: int
    classifier_top1: float
    fc7_nearest_top1: float
    fc7_precision_at_5: float
    raw_nearest_top1: float
    raw_precision_at_5: float
    protocol: str = PROTOCOL
    configuration: dict[str, Any] = {}  # the settings
    machine: str = ""
    splits: dict[str, Split] = {}
    methods: list[MethodResult] = []
    latencies: list[Latency] = []

    def table(self) -> str:
        """The first figures for a terminal, with ratios to the baseline."""
        top1, precision = self.raw_nearest_top1 or np.nan, self.raw_precision_at_5 or np.nan
        rows = [
            ("AlexNet, centre view", f"{self.classifier_top1:.3f} {self.classifier_top1 / top1:6.2f}x", ""),
            (
                f"FC7, {self.metric} neighbours",
                f"{self.fc7_nearest_top1:.3f} {self.fc7_nearest_top1 / top1:6.2f}x",
                f"{self.fc7_precision_at_5:.3f} {self.fc7_precision_at_5 / precision:6.2f}x",
            ),
            ("raw 32 x 32 pixels, neighbours", f"{self.raw_nearest_top1:.3f}   1.00x", f"{self.raw_precision_at_5:.3f}   1.00x"),
        ]
        head = f"{self.queries} queries, none of them indexed, against {self.database} photographs (x: times the raw pixels)"
        lines = [f"{name:32s}{top:18s}{p5:18s}".rstrip() for name, top, p5 in [("", "top-1 accuracy", "P@5"), *rows]]
        return "\n".join([head, *lines])

    def summary(self) -> str:
        """Every method and every mode in a line each, for a terminal."""
        lines = [f"{'':32s}{'bits':>4s}{'mAP':>8s}{'P@10':>8s}{'recall@10':>11s}"]
        for method in self.methods:
            figures = [method.mean_average_precision.get(0), method.precision.get(10), method.recall.get(10)]
            average, right, recall = ("" if figure is None else f"{figure.expected:.3f}" for figure in figures)
            lines.append(f"{method.name:32s}{method.bits or '':>4}{average:>8s}{right:>8s}{recall:>11s}".rstrip())
        lines.append(f"\n{'one query, its 10 nearest':32s}{'p50':>8s}{'p99':>8s}{'queries/s':>11s}")
        for one in self.latencies:
            lines.append(f"{one.mode:32s}{one.p50_ms:>5.3g} ms{one.p99_ms:>5.3g} ms{one.queries_per_second:>11.0f}")
        return "\n".join(lines)

    def markdown(self) -> str:
        """The whole protocol as Markdown."""
        heads = ["", "bits", "bytes an item", "mAP", "mAP@1000", "mAP@5000", "P@1", "P@10", "P@100", "P@1000"]
        heads += ["recall@10", "recall@100", "10 in 100"]
        parts = [
            f"{self.queries} queries, none of them indexed, against {self.database} photographs. FC7 is compared by the "
            f"{self.metric} distance.",
            PROTOCOL,
            _rows(heads, map(_cells, self.methods)),
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
        with replacing(folder / "evaluation.md") as path:
            path.write_text(self.markdown())
        with replacing(folder / "evaluation.png") as path:
            _picture(self.methods).savefig(path, format="png", dpi=100)
        with replacing(folder / "evaluation.json") as path:
            path.write_text(self.model_dump_json(indent=2) + "\n")


def _rows(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cells(method: MethodResult) -> list[str]:
    averages, precision, recall = method.mean_average_precision, method.precision, method.recall
    return [
        method.name,
        str(method.bits or ""),
        str(method.bytes_per_item),
        _cell(averages.get(0), with_range=method.bits > 0),
        *(_cell(averages.get(depth)) for depth in (1000, 5000)),
        *(_cell(precision.get(depth)) for depth in (1, 10, 100, 1000)),
        *(_cell(recall.get(depth)) for depth in (10, 100)),
        _cell(method.ten_in_hundred),
    ]


def _cell(figure: Figure | None, with_range: bool = False) -> str:
    if figure is None:
        return ""
    around = f" ({figure.worst:.3f} to {figure.best:.3f})" if with_range else ""
    return f"{figure.expected:.4f}{around}"


def _picture(methods: Sequence[MethodResult]) -> Picture:
    """Precision over recall, a panel for each length; bands from the worst to the best order of equal distances."""
    lengths = sorted({method.bits for method in methods if method.curve and method.bits}) or [0]
    columns = min(_COLUMNS, len(lengths))
    rows = -(-len(lengths) // columns)
    picture = Picture(figsize=(1 + 3.5 * columns, 0.8 + 3.2 * rows), layout="constrained")
    panels = picture.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for panel, bits in zip(panels, lengths, strict=False):
        for method in methods:
            if method.curve and (method.bits == bits or method.name in _EVERY_PANEL):
                _draw(panel, method)
        panel.set_title(f"{bits} bits" if bits else "")
        panel.set_xlim(0, 1)
        panel.set_ylim(0, 1)
    for panel in panels[len(lengths) :]:
        panel.axis("off")
    picture.supxlabel("recall")
    picture.supylabel("precision")
    handles = {label: line for panel in picture.axes for line, label in zip(*panel.get_legend_handles_labels(), strict=True)}
    picture.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=_COLUMNS, frameon=False)
    return picture


def _draw(panel: Axes, method: MethodResult) -> None:
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
