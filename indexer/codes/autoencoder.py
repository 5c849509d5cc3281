"""FC7 -> a short binary code, so that neighbours can be looked for by Hamming distance; the same on raw pixels.

A row is scaled to length 1, taken to its principal components, and through a layer of rectified units beside a linear path to B
sums, whose signs are the code. Every weight and every value between layers lies on a grid coarse enough that all sums of products
are exact: a code depends on its row alone, not on what it was encoded together with, nor on the machine or the order of sums.

Legend: N rows, D width of a feature, P principal components, U hidden units, B bits, W bytes of a code.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open

from indexer.arrays import Codes, Floats, Rows, Vectors, blocks, sample
from indexer.codes import binarise, principal
from indexer.codes.binarise import Objective
from indexer.scans import native
from training.errors import BadValue, Mismatch, NotReady
from training.files import write_tensors
from training.program import progress

BITS: Final = (16, 28, 32, 48, 64, 128, 256)
FORMAT: Final = 2
_DESCRIPTION: Final = "autoencoder"
_BLOCK: Final = 1024  # rows held in float64 at once

# Products of two multiples of 2^-12 are multiples of 2^-24, and their sums stay below 1 in magnitude: float32 holds them exactly.
# Likewise multiples of 2^-20 and 2^-16 with sums below 2^17 in float64.
_UNIT: Final = 2.0**12
_VALUE: Final = 2.0**20
_WEIGHT: Final = 2.0**16
_MOST_D: Final = 8192  # columns whose squares of 20 bits add up exactly in float64
_SHORT: Final = 1 - (np.ceil(np.sqrt(_MOST_D) / 2) + 1) / _UNIT  # rounding lengthens by at most half a step times sqrt(D)


class CodeReport(BaseModel):
    """How codes were trained, and what they are like on the rows trained on."""

    model_config = ConfigDict(extra="forbid")

    format: int = FORMAT
    bits: int
    width: int  # components of a feature
    components: int  # principal components kept
    hidden: int  # rectified units
    rows: int  # trained on
    rows_given: int
    seed: int
    seconds: float
    ones_least: float  # share of rows that have the bit, of the bit that fewest have; 0.5 is balance
    ones_most: float
    correlation_mean: float  # between two different bits, absolute; 0 is decorrelated
    correlation_most: float
    error: float  # of the best linear decoder: squared error, as a share of the variance of the principal components


@dataclass(frozen=True)
class Autoencoder:
    """Vectors to codes. The length of a row makes no difference to its code; a row of zeros has one too."""

    basis_DP: Vectors  # on the grid of 2^-12
    mean_P: Floats
    linear_PB: Floats  # these four on the grid of 2^-16
    hidden_PU: Floats
    bias_U: Floats
    output_UB: Floats
    bias_B: Floats
    report: CodeReport

    @property
    def bits(self) -> int:
        """Bits of a code."""
        return self.report.bits

    @property
    def width(self) -> int:
        """Components of a feature."""
        return self.report.width

    def encode(self, features_ND: Vectors) -> Codes:
        """Codes of float32 (N, D) features: uint8 (N, W); bit i is bit i % 8 of byte i // 8, bits past the last are 0.

        Raises BadValue where features are not finite, or not D wide.
        """
        width = self.bits + -self.bits % 16  # 28 are kept in 32
        codes_NW = np.zeros((len(features_ND), width // 8), np.uint8)
        for block in blocks(len(features_ND), _BLOCK):
            components_NP = self._components(_checked(features_ND[block], self.width))
            hidden_NU = _on_grid(np.maximum(native.product(components_NP, self.hidden_PU) + self.bias_U, 0), _VALUE)
            sums_NB = native.product(components_NP, self.linear_PB) + native.product(hidden_NU, self.output_UB)
            above_NB = sums_NB + self.bias_B > 0
            packed = np.packbits(above_NB, axis=1, bitorder="little")
            codes_NW[block, : packed.shape[1]] = packed
        return codes_NW

    def _components(self, block_ND: Vectors) -> Floats:
        return _on_grid(_project(block_ND, self.basis_DP) - self.mean_P, _VALUE)


def train(features_ND: Vectors, bits: int, seed: int = 0, objective: Objective = "both") -> Autoencoder:
    """Trains on float32 (N, D) features, or on a sample where there are more than SAMPLE_ROWS; a memory map is read in blocks.

    The same features and seed give the same autoencoder on the same machine. Raises BadValue for bits that are not one of BITS,
    and for features that are not finite or not a table.
    """
    if bits not in BITS:
        raise BadValue("bits", bits, f"one of {', '.join(map(str, BITS))}")
    if features_ND.ndim != 2 or not features_ND.size or features_ND.shape[1] > _MOST_D:
        raise BadValue("features", features_ND.shape, f"a table of at least one row and of 1 to {_MOST_D} columns")
    started = time.monotonic()
    width = features_ND.shape[1]
    rows = sample(len(features_ND), np.random.default_rng(seed))
    basis_DP = _unit_grid(_principal(features_ND, rows))
    z_NP = np.concatenate([_project(features_ND[rows[block]], basis_DP) for block in blocks(len(rows), _BLOCK)])
    mean_P = _on_grid(z_NP.mean(0), _VALUE)
    layers = binarise.learn(torch.from_numpy(z_NP - mean_P).float(), bits, seed, objective)
    report = CodeReport(
        bits=bits,
        width=width,
        components=basis_DP.shape[1],
        hidden=layers.hidden_PU.shape[1],
        rows=len(rows),
        rows_given=len(features_ND),
        seed=seed,
        seconds=round(time.monotonic() - started, 1),
        **layers.figures,
    )
    return Autoencoder(
        basis_DP=basis_DP,
        mean_P=mean_P,
        linear_PB=_on_grid(layers.linear_PB.double().numpy(), _WEIGHT),
        hidden_PU=_on_grid(layers.hidden_PU.double().numpy(), _WEIGHT),
        bias_U=_on_grid(layers.bias_U.double().numpy(), _WEIGHT),
        output_UB=_on_grid(layers.output_UB.double().numpy(), _WEIGHT),
        bias_B=_on_grid(layers.bias_B.double().numpy(), _WEIGHT),
        report=report,
    )


def save(autoencoder: Autoencoder, path: Path) -> None:
    """Writes a safetensors file, whose metadata hold the report."""
    arrays = {name: torch.from_numpy(getattr(autoencoder, name)) for name in _shapes(autoencoder.report)}
    write_tensors(path, arrays, {_DESCRIPTION: autoencoder.report.model_dump_json()})


def load(path: Path) -> Autoencoder:
    """Reads what `save` wrote. Raises NotReady where there is no file, Mismatch where it is damaged or something else."""
    if not path.is_file():
        raise NotReady(f"no autoencoder at {path}; `python -m indexer.build --bits 128` makes one")
    try:
        with safe_open(path, "numpy") as file:
            report = CodeReport.model_validate_json((file.metadata() or {}).get(_DESCRIPTION, ""))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValidationError, OSError) as error:
        raise Mismatch(f"{path} is not an autoencoder, or a damaged one: {error}") from error
    if report.format != FORMAT:
        raise Mismatch(f"{path} has format {report.format}, this program reads format {FORMAT}")
    shapes = {name: array.shape for name, array in arrays.items()}
    if shapes != _shapes(report):
        raise Mismatch(f"{path} holds {shapes}, its description says {_shapes(report)}")
    kinds = {name: np.dtype(np.float32 if name == "basis_DP" else np.float64) for name in shapes}
    if {name: array.dtype for name, array in arrays.items()} != kinds:
        raise Mismatch(f"{path} holds numbers of other types than an autoencoder's")
    if report.bits not in BITS or not all(np.isfinite(array).all() for array in arrays.values()):
        raise Mismatch(f"{path} has {report.bits} bits, or numbers that are not finite")
    return Autoencoder(**arrays, report=report)


def _shapes(report: CodeReport) -> dict[str, tuple[int, ...]]:
    d, p, u, b = report.width, report.components, report.hidden, report.bits
    return {
        "basis_DP": (d, p),
        "mean_P": (p,),
        "linear_PB": (p, b),
        "hidden_PU": (p, u),
        "bias_U": (u,),
        "output_UB": (u, b),
        "bias_B": (b,),
    }


def _checked(block_ND: Vectors, width: int) -> Vectors:
    if block_ND.ndim != 2 or block_ND.shape[1] != width:
        raise BadValue("features", block_ND.shape, f"a table of {width} columns")
    if not np.isfinite(block_ND).all():
        raise BadValue("features", "NaN or infinity", "finite")
    return block_ND


def _on_grid(values: Floats, steps: float) -> Floats:
    """The nearest multiples of 1 / steps."""
    rounded: Floats = np.rint(values * steps) / steps
    return rounded


def _unit_grid(values: NDArray[np.floating]) -> Vectors:
    """Vectors of unit length, by _SHORT shorter, on a grid on which the product of two is exact."""
    grid: Vectors = (np.rint(values * (_SHORT * _UNIT)) / _UNIT).astype(np.float32)
    return grid


def _project(block_ND: Vectors, basis_DP: Vectors) -> Floats:
    """Principal components of rows taken at length 1, before their mean is taken off."""
    components_NP: Floats = native.product(_scaled(block_ND), basis_DP).astype(np.float64) / _SHORT**2
    return components_NP


def _scaled(block_ND: Vectors) -> Vectors:
    """Rows at length _SHORT on the grid. A row of zeros stays."""
    x_ND = np.asarray(block_ND, np.float64)
    largest_N = np.abs(x_ND).max(1, keepdims=True)
    largest_N[largest_N == 0] = 1
    x_ND = np.rint(x_ND / largest_N * _VALUE)
    length_N = np.sqrt(np.einsum("nd,nd->n", x_ND, x_ND))[:, None]
    return _unit_grid(x_ND / np.maximum(length_N, 1))


def _principal(features_ND: Vectors, rows: Rows) -> Vectors:
    """Principal directions, float32 (D, P), of the rows at length _SHORT."""
    width = features_ND.shape[1]
    sum_D = torch.zeros(width, dtype=torch.float64)
    squares_DD = torch.zeros(width, width, dtype=torch.float64)
    parts = list(blocks(len(rows), _BLOCK))
    for block in progress(parts, len(parts), "principal components", "blocks"):
        x_ND = torch.from_numpy(_scaled(_checked(features_ND[rows[block]], width)))
        sum_D += x_ND.sum(0, dtype=torch.float64)
        squares_DD += x_ND.T @ x_ND
    mean_D = sum_D / len(rows)
    covariance_DD = squares_DD / len(rows) - torch.outer(mean_D, mean_D)
    directions_DP: Vectors = principal.leading_directions(covariance_DD).numpy()
    return directions_DP
