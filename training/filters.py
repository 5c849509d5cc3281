"""Measures and draws a model's first layer: `python -m training.filters --model DIR --out FILE.png`."""

import json
from dataclasses import asdict
from pathlib import Path

from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict

from training import checkpoint
from training.analysis import kernels, pictures
from training.analysis.kernels import FirstLayer, Range, Summary
from training.files import write_bytes
from training.program import Settings, aligned, run_program


class FiltersSettings(Settings):
    """Measure the kernels of a model's first layer and draw them as figure 3 of the paper, column 0 above and column 1 below.

    The table has the mean of every statistic by column and, beside it, that of white noise of the same shape with the interval
    which holds 95 of 100 noise kernels. A mean within that interval says nothing of learning.

    norm           Euclidean length of the weights
    chroma         share of the energy (the sum of squared weights) that differs between red, green and blue
    low_share      share of the energy at frequencies below 0.25 cycles a pixel, half of Nyquist's
    dc_share       share of the energy at frequency 0
    participation  how evenly the energy is spread over the spectrum: 1 evenly, 1/121 in one bin of an 11 x 11 kernel
    selectivity    how much the energy goes in one direction: 0 in all alike, 1 in one
    frequency      of bars, cycles a pixel; 0 for a blob
    bandwidth      octaves between the frequencies of half amplitude, where there are two
    explained      share of the energy that the nearest Gabor function explains
    structured     kernels with more than half of their energy below 0.25 cycles a pixel, and not dead
    oriented       structured kernels with a dc_share below 0.5 and a selectivity above 0.4
    gabor          kernels of which a Gabor function explains half or more
    dead           kernels with a norm below 0.2 of the median
    duplicates     kernels with a cosine above 0.95, up to sign, to another
    """

    model_config = SettingsConfigDict(cli_prog_name="python -m training.filters")

    model: Path = Field(Path("var/model"), description="model folder")
    out: Path | None = Field(None, description="picture to write, .png or .svg; none where it is not given")
    json_out: Path | None = Field(None, description="file for all figures of every kernel, as JSON")
    order: pictures.Order = Field("index", description="of the kernels within each column; norm goes downwards")
    scaling: pictures.Scaling = Field("own", description="each kernel by its own largest weight, or all together by the largest")
    channel: pictures.Channel | None = Field(None, description="one channel in grey; all three in colour where it is not given")
    scale: int = Field(5, ge=1, le=pictures.LARGEST_SCALE, description="pixels of the picture for each of a kernel")

    @field_validator("out")
    @classmethod
    def _drawable(cls, out: Path | None) -> Path | None:
        if out and out.suffix not in (".png", ".svg"):
            raise ValueError("a name that ends in .png or .svg")
        return out


def main(settings: FiltersSettings) -> None:
    """Prints the table, and writes what the settings name."""
    model = checkpoint.load(settings.model, untrained_too=True)
    weight, columns = model.net.conv1.weight, model.net.config.columns
    layer = kernels.first_layer(weight, columns)
    print(f"{layer.verdict}\n\n{table(layer)}")
    if settings.out:
        style = pictures.Style(settings.order, settings.scaling, settings.channel, settings.scale)
        if settings.out.suffix == ".svg":
            content = pictures.figure3_svg(weight, columns, layer.kernels, style, layer.verdict).encode()
        else:
            content = pictures.png(pictures.figure3(weight, columns, layer.kernels, style))
        write_bytes(settings.out, content)
    if settings.json_out:
        described = {
            "model": model.fingerprint,
            "verdict": layer.verdict,
            "noise_like": layer.noise_like,
            "columns": [asdict(column) for column in layer.columns],
            "whole": asdict(layer.whole),
            "noise": asdict(layer.noise),
            "kernels": [kernels.described(kernel) for kernel in layer.kernels],
        }
        write_bytes(settings.json_out, json.dumps(described, indent=1, allow_nan=False).encode() + b"\n")


def table(layer: FirstLayer) -> str:
    """Means and counts by column and of the whole, with noise's beside them: a line each."""
    summaries = [*layer.columns, layer.whole] if len(layer.columns) > 1 else [layer.whole]
    names = [f"column {i}" for i in range(len(layer.columns))] + ["both"] if len(layer.columns) > 1 else ["all"]
    rows = [["", *names, "white noise"], ["kernels", *(str(part.kernels) for part in summaries), ""]]
    for name in kernels.COUNTS:
        rows.append([name, *(str(part.counts[name]) for part in summaries), f"{layer.noise.shares[name]:.1%}"])
    for name in kernels.STATISTICS:
        rows.append([name, *(_mean(part, name) for part in summaries), _range(layer.noise.ranges.get(name))])
    return aligned(rows, numbers=True)


def _mean(part: Summary, name: str) -> str:
    mean = part.means[name]
    return "-" if mean is None else f"{mean:.3g}"


def _range(spread: Range | None) -> str:
    return f"{spread.mean:.3g} ({spread.low:.3g} to {spread.high:.3g})" if spread else ""


if __name__ == "__main__":
    run_program(FiltersSettings, main)
