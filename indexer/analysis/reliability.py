"""A calibration for people: a table for a terminal, and a reliability plot."""

import io

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from indexer.analysis.calibration import BASE_RATE, LOGISTIC, RAW, SEEN
from indexer.storage.calibration import CalibrationRecord, DistanceRecord, Measurement

_OTHERS = (BASE_RATE, LOGISTIC, RAW, SEEN)


def table(record: CalibrationRecord) -> str:
    """Every measurement in a line: the expected calibration error, and that of simpler ways, each with its Brier score."""
    lines = [
        f"{sum(record.queries)} queries in halves of {record.queries[0]} and {record.queries[1]}; each is measured by what is "
        "fitted to the other",
        f"{'error / Brier score':24s}{'isotonic':>14s}{'95 %':>15s}{'floor':>7s}" + "".join(f"{name:>15s}" for name in _OTHERS),
    ]
    for one in record.distances:
        for measured in one.measurements:
            low, high = measured.interval
            cells = [f"{one.error:.3f} / {one.brier:.4f}" for one in (measured.others[name] for name in _OTHERS)]
            lines.append(
                f"{one.measure + ', ' + measured.pairs:24s}{measured.error:>5.3f} / {measured.brier:.4f}"
                f"{f'{low:.3f} to {high:.3f}':>16s}{measured.floor:>7.3f}" + "".join(f"{cell:>15s}" for cell in cells)
            )
    return "\n".join(lines)


def picture(record: CalibrationRecord) -> bytes:
    """A PNG: the share of the same class over the predicted probability, a row for each measure and a panel for each kind."""
    rows, columns = len(record.distances), max(len(one.measurements) for one in record.distances)
    drawing = Picture(figsize=(3.4 * columns, 3.9 * rows), layout="constrained")
    for row, one in enumerate(record.distances):
        for column, measured in enumerate(one.measurements):
            _draw(drawing.add_subplot(rows, columns, 1 + row * columns + column), one, measured)
    buffer = io.BytesIO()
    drawing.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()


def _draw(panel: Axes, one: DistanceRecord, measured: Measurement) -> None:
    predicted = [bin.predicted for bin in measured.bins]
    panel.plot((0, 1), (0, 1), color="silver", linewidth=1)
    panel.vlines(predicted, *zip(*(bin.interval for bin in measured.bins), strict=True), color="tab:blue", linewidth=1)
    panel.plot(predicted, [bin.observed for bin in measured.bins], "o", color="tab:blue", markersize=4)
    panel.set(
        title=f"{one.measure}, {measured.pairs}\nerror {measured.error:.3f}",
        xlabel="probability told",
        ylabel="share of the same class",
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
        aspect="equal",
    )
