"""What a run measures, step by step and epoch by epoch: `steps.jsonl`, `metrics.jsonl`, and TensorBoard where asked for."""

import json
import os
from pathlib import Path
from typing import Any, Final, TextIO

from pydantic import BaseModel, ConfigDict

from training.errors import BadValue
from training.files import replacing, write_text
from training.record import EpochRow
from training.run.position import Position

STEPS: Final = "steps.jsonl"
EPOCHS: Final = "metrics.jsonl"


class StepRow(BaseModel):
    """What a run measured in one step, a line of `steps.jsonl`."""

    model_config = ConfigDict(frozen=True)

    epoch: int
    step: int  # within the epoch, from 0
    loss: float  # mean over the step's photographs
    lr: float
    images_per_second: float


class RunLog:
    """Writers of one run, for `with`. Each row is a JSON object on a line of its own."""

    def __init__(self, folder: Path | None, tensorboard: bool, at: Position) -> None:
        """Goes on where the run stands: rows that an interrupted run wrote after it are dropped. No folder, no writing."""
        self._folder, self._curve = folder, list(at.curve)
        self._steps: TextIO | None = None
        self._board: Any = None
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
            self._board = _board(folder / "tensorboard", at.steps) if tensorboard else None
            _keep_before(folder / STEPS, at.epoch, at.step)
            self._write_curve(folder)
            self._steps = (folder / STEPS).open("a")

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *_: object) -> None:
        for writer in (self._steps, self._board):
            if writer:
                writer.close()

    def step(self, row: StepRow, number: int) -> None:
        """Adds the row of one step; `number` counts steps over all epochs."""
        if self._steps:
            self._steps.write(_line(row))
        self._show("step", row, number)

    def epoch(self, row: EpochRow) -> None:
        """Adds the row of one epoch."""
        self._curve.append(row)
        if self._folder:
            self.flush()
            self._write_curve(self._folder)
        self._show("epoch", row, row.epoch)

    def flush(self) -> None:
        """Has everything written so far on the disk."""
        for writer in (self._steps, self._board):
            if writer:
                writer.flush()
        if self._steps:
            os.fsync(self._steps.fileno())

    def _write_curve(self, folder: Path) -> None:
        write_text(folder / EPOCHS, "".join(map(_line, self._curve)))

    def _show(self, kind: str, row: StepRow | EpochRow, number: int) -> None:
        if self._board:
            for name, value in row.model_dump(exclude={"epoch", "step"}, exclude_none=True).items():
                self._board.add_scalar(f"{kind}/{name}", value, number)


def _line(row: StepRow | EpochRow) -> str:
    return json.dumps(row.model_dump(exclude_none=True)) + "\n"


def _keep_before(path: Path, epoch: int, step: int) -> None:
    with replacing(path) as temporary, temporary.open("w") as file:
        if not path.is_file():
            return
        with path.open() as lines:
            for line in lines:
                try:
                    row = StepRow.model_validate_json(line)
                    if (row.epoch, row.step) >= (epoch, step):
                        break
                except ValueError:  # the last line of a run that was killed while writing it
                    break
                file.write(line)


def _board(folder: Path, steps: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise BadValue(
            "tensorboard", True, "false, or the extra `tensorboard` installed: pip install 'fc7[tensorboard]'"
        ) from error
    return SummaryWriter(str(folder), purge_step=steps + 1)
