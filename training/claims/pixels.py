"""Photographs as one packed array, on the device that trains: any crop of any batch by one gather.

Legend: N photographs, B batch, C channels (RGB), S height and width of a square, H height, W width, P values of a conv1 kernel.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from training.errors import FC7Error, Mismatch, NotReady
from training.files import write_tensors
from training.images.folders import Part, list_examples, read_photographs
from training.images.preprocess import ImageLimits, Photograph
from training.network.alexnet import KERNELS
from training.program import progress
from training.run import draws
from training.run.whitening import PATCH, power

_PARTS: Final[tuple[Part, Part]] = ("train", "test")
_PATCHES: Final = 20_000
_ROOT: Final = "root"  # what a packed file calls the folder that its photographs are from


@dataclass(frozen=True)
class Pixels:
    """Photographs of one part and their classes, in an order that says nothing of them: by the SHA-256 of their files."""

    squares_NCSS: Tensor  # uint8
    labels_N: Tensor  # int64

    def __len__(self) -> int:
        return len(self.labels_N)

    @property
    def classes(self) -> int:
        """How many there are."""
        return int(self.labels_N.max()) + 1

    def only(self, chosen: slice | Tensor) -> "Pixels":
        """Some of them, by their numbers or by a mask."""
        return Pixels(self.squares_NCSS[chosen], self.labels_N[chosen])

    def to(self, device: torch.device) -> "Pixels":
        """These on another device."""
        return Pixels(self.squares_NCSS.to(device), self.labels_N.to(device))

    def mean_CSS(self) -> Tensor:
        """Their mean: float32 (3, S, S)."""
        blocks = [block.sum(0, dtype=torch.int64) for block in self.squares_NCSS.split(4096)]
        return (torch.stack(blocks).sum(0) / len(self)).float()

    def covariance_33(self) -> NDArray[np.float64]:
        """Covariance of the red, green and blue of all their pixels, on 0..255: float64 (3, 3)."""
        sums, products = torch.zeros(3, dtype=torch.float64), torch.zeros(3, 3, dtype=torch.float64)
        for block in self.squares_NCSS.split(256):
            every_CX = block.transpose(0, 1).flatten(1).double()
            sums += every_CX.sum(1).cpu()
            products += (every_CX @ every_CX.T).cpu()
        means = sums / (count := self.squares_NCSS[:, 0].numel())
        return np.asarray((products / count - means[:, None] * means).numpy())


def views(squares_BCSS: Tensor, mean_CSS: Tensor, tops_B: Tensor, lefts_B: Tensor, mirrored_B: Tensor, size: int) -> Tensor:
    """A crop of each square, less the mean at its place, mirrored where said so: float32 (B, 3, size, size), channels-last."""
    steps_W = torch.arange(size, device=squares_BCSS.device)
    rows_BH = tops_B[:, None] + steps_W
    columns_BW = lefts_B[:, None] + torch.where(mirrored_B[:, None], size - 1 - steps_W, steps_W)
    rows_BH1, columns_B1W = rows_BH[:, :, None], columns_BW[:, None, :]
    batch_B11 = torch.arange(len(squares_BCSS), device=squares_BCSS.device)[:, None, None]
    crops_BHWC = squares_BCSS.permute(0, 2, 3, 1)[batch_B11, rows_BH1, columns_B1W]
    means_BHWC = mean_CSS.permute(1, 2, 0)[rows_BH1, columns_B1W]
    return (crops_BHWC - means_BHWC).permute(0, 3, 1, 2)


def fixed_views(squares_BCSS: Tensor, mean_CSS: Tensor, size: int, ten: bool) -> Iterator[Tensor]:
    """The centre view; or four corners, the centre, and the mirror image of each: float32 (B, 3, size, size) each."""
    end = squares_BCSS.shape[-1] - size
    middle = (end // 2, end // 2)
    places = ((0, 0), (0, end), (end, 0), (end, end), middle) if ten else (middle,)
    count, device = len(squares_BCSS), squares_BCSS.device
    for top, left in places:
        for mirrored in (False, True) if ten else (False,):
            tops_B, lefts_B = torch.full((count,), top, device=device), torch.full((count,), left, device=device)
            yield views(squares_BCSS, mean_CSS, tops_B, lefts_B, torch.full((count,), mirrored, device=device), size)


def whitening(pixels: Pixels, mean_CSS: Tensor, scale: float, exponent: float) -> Tensor:
    """What training/run/whitening.py makes of random patches of these photographs: float32 (P, P)."""
    count, margin = min(_PATCHES, 20 * len(pixels)), pixels.squares_NCSS.shape[-1] - KERNELS[0]
    drawn = draws.crops(0, 0, 0, count, margin)
    picks_B = torch.arange(count, device=mean_CSS.device) % len(pixels)
    tops_B, lefts_B, mirrored_B = torch.tensor([drawn.tops_B, drawn.lefts_B, drawn.mirrored_B], device=mean_CSS.device)
    products_PP = torch.zeros(PATCH, PATCH, dtype=torch.float64, device=mean_CSS.device)
    for some in torch.arange(count, device=mean_CSS.device).split(1024):
        squares_BCSS = pixels.squares_NCSS[picks_B[some]]
        patches_BCHW = views(squares_BCSS, mean_CSS, tops_B[some], lefts_B[some], mirrored_B[some].bool(), KERNELS[0])
        patches_BP = patches_BCHW.flatten(1).double() * scale
        products_PP += patches_BP.T @ patches_BP
    return power(products_PP.cpu() / count, -exponent).float().to(mean_CSS.device)


def pack(root: Path, path: Path, side: int) -> None:
    """Writes both parts of an image folder as squares of `side` pixels. Raises NotReady where it is not one with both parts."""
    if not root.is_dir():
        raise NotReady(f"no image folder at {root}, and no packed photographs at {path}; python -m training.datasets makes one")
    tensors: dict[str, Tensor] = {}
    classes = sorted({example.label for example in list_examples(root, "train")})
    for part in _PARTS:
        examples = list_examples(root, part)
        reads = progress(read_photographs(root, examples, ImageLimits(), side), len(examples), f"packing {part}")
        kept, rejects = [], []
        for read in reads:
            if not isinstance(read.outcome, Photograph):
                rejects.append(f"{read.example.shown}: {read.outcome}")
            elif read.example.label not in classes:
                rejects.append(f"{read.example.shown}: no photograph to train on is of its class")
            else:
                kept.append((read.sha256, classes.index(read.example.label), read.outcome.pixels_CHW))
        print(f"{len(kept)} photographs of the part {part!r}, {len(rejects)} rejected", flush=True)
        for reject in rejects:
            print(f"  rejected {reject}")
        kept.sort(key=lambda item: item[0])
        if not kept:
            raise NotReady(f"no photograph of the part {part!r} below {root} can be read")
        tensors[part] = torch.stack([pixels_CSS for _, _, pixels_CSS in kept])
        tensors[f"{part}.labels"] = torch.tensor([label for _, label, _ in kept])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(path, tensors, {"classes": "\n".join(classes), _ROOT: str(root.resolve())})


def load(path: Path) -> tuple[Pixels, Pixels]:
    """The training part and the test part of packed photographs. Raises FC7Error where the file is not one of those."""
    try:
        with safe_open(path, "pt") as file:
            train, test = (Pixels(file.get_tensor(part), file.get_tensor(f"{part}.labels")) for part in _PARTS)
        for part in (train, test):
            count, *shape = part.squares_NCSS.shape
            if (
                not count
                or shape != [3, *shape[1:2] * 2]
                or part.squares_NCSS.dtype != torch.uint8
                or len(part.labels_N) != count
            ):
                raise ValueError("no squares with a class each")
    except Exception as error:
        raise FC7Error(f"{path} does not hold packed photographs ({error}); remove it to pack them anew") from error
    return train, test


def check_packed_from(path: Path, option: str, root: Path) -> None:
    """Raises Mismatch, naming `option`, where the photographs of a packed file are those of another folder than `root`.

    A folder that is no longer there is not looked for: what is packed serves without.
    """
    try:
        with safe_open(path, "pt") as file:
            packed = (file.metadata() or {}).get(_ROOT)
    except SafetensorError as error:
        raise FC7Error(f"{path} does not hold packed photographs ({error}); remove it to pack them anew") from error
    if packed and root.is_dir() and str(root.resolve()) != packed:
        raise Mismatch(
            f"{path} holds the photographs of {packed}, which the runs beside it saw, and {option} is {root.resolve()}; "
            "give another --out"
        )


def counts(path: Path) -> tuple[int, int]:
    """How many photographs both parts of a packed file have."""
    train, test = load(path)
    return len(train), len(test)
