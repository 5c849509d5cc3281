"""Training of the code layer: weights whose signs are codes, from principal components alone, without labels.

Krizhevsky & Hinton (2011) make the code layer binary by noise before the sigmoid, or by rounding: rounding, with a gradient that
passes straight through, won by 0.01 to 0.06 of mAP at 16, 64 and 256 bits (Caltech-101, part of the database held out). The loss
then sees the very codes that are compared; noise leaves sums between the two values, and rounding those later costs something.

A code is to tell the mean of a row's neighbourhood, rather than the row (what only one row has is noise to a search), and to be
nearer to the codes of the row's neighbours than to those of other rows of the batch.

Rows are trained on with noise. Without it, where rows are few, the layers learn them by heart and end below ITQ's rotation of the
neighbourhoods, which they start from: .669 of mAP against .679 with 936 photographs of fruit, asked with others, and ITQ of the
rows themselves at .660. With noise of 0.75 of each component's spread it is .683. With 1 000 rows of Caltech-101 it gains .015;
with 2 000 of CIFAR-10 noise of the whole spread loses .006. What did not help as much: a third of the steps (.677), less contrast
(.676), dropout of the hidden units (.675).

Legend: N rows, P principal components, U hidden units, B bits, K neighbours.
"""

import math
from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import Tensor
from torch.nn import functional

from training.program import progress

Objective = Literal["both", "neighborhood", "reconstruction"]
_HIDDEN: Final = 512
_NEIGHBORS: Final = 10
_NEAREST: Final = 5  # of them are drawn nearer
_ROTATED: Final = 128  # leading components that the first codes are made of
_BATCH: Final = 256
_STEPS: Final = 1500
_STEPS_A_ROW: Final = 0.5  # at most, where rows are few
_RATE: Final = 4e-3
_LIKENESS: Final = 0.3  # weight of the second loss, against 1 of the first
_TEMPERATURE: Final = 0.2
_BALANCE: Final = 0.1
_NOISE: Final = 0.75  # on what is trained on, against the spread of each component
_TINY: Final = 1e-12


@dataclass(frozen=True)
class CodeLayers:
    """The layers before the code, in the units of the components that they were trained on."""

    linear_PB: Tensor
    hidden_PU: Tensor
    bias_U: Tensor
    output_UB: Tensor
    bias_B: Tensor
    figures: dict[str, float]  # balance, correlation, error; see CodeReport


def learn(z_NP: Tensor, bits: int, seed: int, objective: Objective) -> CodeLayers:
    """Trains on centred float32 (N, P) components of rows of unit length. The decoder serves the training alone."""
    generator = torch.Generator().manual_seed(seed)
    scale = float(z_NP.square().sum(1).mean().sqrt())
    scale = scale if scale > 1e-6 else 1.0  # features that are all the same
    z_NP = z_NP / scale
    nearest_NK = _neighbors(z_NP)
    target_NP = z_NP
    if objective != "reconstruction":
        target_NP = _smoothed(z_NP, nearest_NK)
        target_NP = _smoothed(target_NP, _neighbors(target_NP))
        target_NP = target_NP / target_NP.square().sum(1).mean().sqrt().clamp_min(_TINY)
    layers = _initial(target_NP, bits, generator)
    likeness = _LIKENESS if objective == "both" else 0
    _descend(layers, z_NP, target_NP, nearest_NK[:, :_NEAREST], likeness, generator)
    linear_PB, hidden_PU, bias_U, output_UB, bias_B = (layer.detach() for layer in layers[:5])
    code_NB = torch.where(_sums(layers, z_NP).detach() > 0, 1.0, -1.0)
    decoder_BP, shift_P = _least_squares(code_NB, z_NP)
    figures = _figures(code_NB, code_NB @ decoder_BP + shift_P - z_NP, z_NP)
    return CodeLayers(linear_PB / scale, hidden_PU / scale, bias_U, output_UB, bias_B, figures)


def _neighbors(z_NP: Tensor) -> Tensor:
    """The K other rows of largest cosine: int64 (N, K); K is 10, or N - 1 where that is less; a lone row is its own."""
    unit_NP = functional.normalize(z_NP, dim=1)
    parts = []
    for rows in torch.arange(len(z_NP)).split(1000):
        cosine_RN = unit_NP[rows] @ unit_NP.T
        cosine_RN[torch.arange(len(rows)), rows] = -2
        parts.append(cosine_RN.topk(max(1, min(_NEIGHBORS, len(z_NP) - 1)), dim=1)[1])
    return torch.cat(parts)


def _smoothed(z_NP: Tensor, nearest_NK: Tensor) -> Tensor:
    """Means of every row and its neighbours, the neighbours weighted by their cosines."""
    unit_NP = functional.normalize(z_NP, dim=1)
    parts = []
    for rows, nearest_RK in zip(torch.arange(len(z_NP)).split(1000), nearest_NK.split(1000), strict=True):
        weight_RK = torch.einsum("rp,rkp->rk", unit_NP[rows], unit_NP[nearest_RK]).clamp_min(0)
        total_RP = z_NP[rows] + torch.einsum("rk,rkp->rp", weight_RK, z_NP[nearest_RK])
        parts.append(total_RP / (1 + weight_RK.sum(1, keepdim=True)))
    return torch.cat(parts)


def _initial(target_NP: Tensor, bits: int, generator: torch.Generator) -> list[Tensor]:
    """ITQ's rotation (Gong & Lazebnik 2011) of the leading components, and hidden units without influence yet.

    Fewer components than bits are rotated into a tight frame.
    """
    components = target_NP.shape[1]
    used = min(bits, components, _ROTATED)
    leading_NP = target_NP[:, :used]
    rotation_PB = torch.linalg.qr(torch.randn(bits, bits, generator=generator))[0][:used]
    for _ in range(50):
        u, _, vt = torch.linalg.svd(leading_NP.T @ torch.sign(leading_NP @ rotation_PB), full_matrices=False)
        rotation_PB = u @ vt
    rotation_PB = functional.pad(rotation_PB, (0, 0, 0, components - used))
    hidden_PU = torch.randn(components, _HIDDEN, generator=generator) / math.sqrt(components)
    return [
        rotation_PB * math.sqrt(bits),
        hidden_PU,
        torch.zeros(_HIDDEN),
        torch.zeros(_HIDDEN, bits),
        torch.zeros(bits),
        rotation_PB.T / math.sqrt(bits),
        torch.zeros(components),
    ]


def _sums(layers: list[Tensor], z_NP: Tensor) -> Tensor:
    linear_PB, hidden_PU, bias_U, output_UB, bias_B = layers[:5]
    return z_NP @ linear_PB + torch.relu(z_NP @ hidden_PU + bias_U) @ output_UB + bias_B


def _descend(
    layers: list[Tensor], z_NP: Tensor, target_NP: Tensor, nearest_NK: Tensor, likeness: float, generator: torch.Generator
) -> None:
    """Adam on three losses: reconstruction of the target, neighbours told from other rows, bits in balance."""
    for layer in layers:
        layer.requires_grad_()
    decoder_BP, shift_P = layers[5:]
    batch = min(_BATCH, len(z_NP))
    steps = min(_STEPS, math.ceil(_STEPS_A_ROW * len(z_NP)))
    optimiser = torch.optim.Adam(layers, _RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    order = torch.cat([torch.randperm(len(z_NP), generator=generator) for _ in range(-(-steps * batch // len(z_NP)))])
    own_R = torch.arange(batch)
    spread_P = _NOISE * z_NP.std(0, correction=0)
    for step in progress(range(steps), steps, f"autoencoder, {decoder_BP.shape[0]} bits", "steps"):
        rows = order[step * batch : (step + 1) * batch]
        drawn = nearest_NK[rows, torch.randint(nearest_NK.shape[1], (batch,), generator=generator)]
        x_NP = z_NP[torch.cat([rows, drawn])]
        soft_NB = torch.tanh(_sums(layers, x_NP + spread_P * torch.randn(x_NP.shape, generator=generator)))
        code_NB = soft_NB + (torch.where(soft_NB > 0, 1.0, -1.0) - soft_NB).detach()  # the gradient is that of soft
        row_RB, neighbour_RB = code_NB[:batch], code_NB[batch:]
        alike_RR = row_RB @ neighbour_RB.T / (decoder_BP.shape[0] * _TEMPERATURE)
        loss = (
            (row_RB @ decoder_BP + shift_P - target_NP[rows]).square().sum(1).mean()
            + likeness * functional.cross_entropy(alike_RR, own_R)
            + _BALANCE * row_RB.mean(0).square().mean()
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()


def _least_squares(code_NB: Tensor, z_NP: Tensor) -> tuple[Tensor, Tensor]:
    """The decoder of least squared error for the rows themselves: (B, P), and its shift (P,). A ridge serves bits that repeat."""
    code_NB, z_NP = code_NB.double(), z_NP.double()
    centred_NB = code_NB - code_NB.mean(0)
    products_BB = centred_NB.T @ centred_NB + 1e-3 * len(code_NB) * torch.eye(code_NB.shape[1], dtype=torch.float64)
    decoder_BP = torch.linalg.solve(products_BB, centred_NB.T @ (z_NP - z_NP.mean(0)))
    return decoder_BP.float(), (z_NP.mean(0) - code_NB.mean(0) @ decoder_BP).float()


def _figures(code_NB: Tensor, difference_NP: Tensor, z_NP: Tensor) -> dict[str, float]:
    ones_B = (code_NB.mean(0) + 1) / 2
    centred_NB = code_NB - code_NB.mean(0)
    spread_B = centred_NB.square().mean(0).sqrt().clamp_min(_TINY)
    apart_BB = ~torch.eye(len(ones_B), dtype=torch.bool)
    correlation = (centred_NB.T @ centred_NB / len(code_NB) / torch.outer(spread_B, spread_B))[apart_BB].abs()
    figures = {
        "ones_least": ones_B.min(),
        "ones_most": ones_B.max(),
        "correlation_mean": correlation.mean(),
        "correlation_most": correlation.max(),
        "error": difference_NP.square().sum() / z_NP.square().sum().clamp_min(_TINY),
    }
    return {name: round(float(value), 4) for name, value in figures.items()}
