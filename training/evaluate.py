"""Measures a model's top-1 and top-5 error: `python -m training.evaluate --model DIR --data DIR`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from pydantic_settings import SettingsConfigDict
from torch import Tensor
from tqdm import tqdm

from training import checkpoint
from training.errors import NotReady
from training.images.folders import Part, list_examples, read_photographs
from training.images.preprocess import ImageLimits, Photograph
from training.program import Settings, keep_freed_memory, progress, run_program
from training.record import ErrorRates

BATCH = 64


class EvaluateSettings(Settings):
    """Measure top-1 and top-5 error of a model, from the centre view and from ten views averaged, as in the paper."""

    model_config = SettingsConfigDict(cli_prog_name="python -m training.evaluate")

    model: Path = Field(Path("var/model"), description="model folder")
    data: Path = Field(Path("var/images"), description="image folder")
    part: Part = Field("test", description="part of the data set to measure on")
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="arithmetic of the forward pass; bfloat16 is several times faster where the processor has it"
    )


@dataclass
class ErrorCounts:
    """How many photographs' classes were not the first, or not among the first five, by probability."""

    views: Literal[1, 10]
    photographs: int = 0
    top1: int = 0
    top5: int = 0

    def add(self, probabilities_BK: Tensor, labels_B: Tensor) -> None:
        """Counts a batch: float (B, classes) against int64 (B,)."""
        best = probabilities_BK.topk(min(5, probabilities_BK.shape[1])).indices
        hits = best == labels_B[:, None]
        self.photographs += len(labels_B)
        self.top1 += int((~hits[:, 0]).sum())
        self.top5 += int((~hits.any(1)).sum())

    def rates(self) -> ErrorRates:
        """Shares of the photographs counted."""
        return ErrorRates(
            views=self.views,
            photographs=self.photographs,
            top1_error=self.top1 / self.photographs,
            top5_error=self.top5 / self.photographs,
        )


def main(settings: EvaluateSettings) -> None:
    """Prints the error rates and writes them into the model's description."""
    keep_freed_memory()
    model = checkpoint.load(settings.model)
    with torch.autocast("cpu", torch.bfloat16, enabled=settings.precision == "bfloat16"):
        rows = [counts.rates() for counts in measure(model, settings.data, settings.part)]
    for row in rows:
        print(f"{row.views:2} view(s)  top-1 error {row.top1_error:.4f}  top-5 error {row.top5_error:.4f}")
    checkpoint.write_errors(settings.model, settings.part, rows)


def measure(model: checkpoint.Model, data: Path, part: Part) -> list[ErrorCounts]:
    """Error counts of `model` from the centre view and from ten views; photographs that do not decode are left out and named.

    Raises NotReady where no photograph has a class that the model knows.
    """
    counts = [ErrorCounts(1), ErrorCounts(10)]
    for pixels_BCHW, labels_B in _batches(data, part, model.classes):
        for count in counts:
            count.add(model.probabilities(pixels_BCHW, count.views), labels_B)
    if not counts[0].photographs:
        raise NotReady(f"no photograph of the part {part!r} below {data} has a class that the model knows")
    return counts


def _batches(data: Path, part: Part, classes: list[str]) -> Iterator[tuple[Tensor, Tensor]]:
    position = {name: i for i, name in enumerate(classes)}
    examples = list_examples(data, part)
    pixels: list[Tensor] = []
    labels: list[int] = []
    for read in progress(read_photographs(data, examples, ImageLimits()), len(examples), f"evaluating {part}"):
        if not isinstance(read.outcome, Photograph):
            tqdm.write(f"left out {read.example.shown}: {read.outcome}")
        elif read.example.label not in position:
            tqdm.write(f"left out {read.example.shown}: the model has no class {read.example.label!r}")
        else:
            pixels.append(read.outcome.pixels_CHW)
            labels.append(position[read.example.label])
        if len(labels) == BATCH:
            yield torch.stack(pixels), torch.tensor(labels)
            pixels, labels = [], []
    if labels:
        yield torch.stack(pixels), torch.tensor(labels)


if __name__ == "__main__":
    run_program(EvaluateSettings, main)
