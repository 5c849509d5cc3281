"""The training part decoded once: every photograph's 256 x 256 square in one memory-mapped file, and the mean image.

Legend: N examples, C channels (RGB), H height, W width.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training.data import Example, read_photographs, stamp
from training.errors import FC7Error, NotReady
from training.files import replacing, sync
from training.preprocess import SIZE, ImageLimits, Photograph
from training.program import progress

_PIXELS, _MEAN, _LIST = "views.npy", "mean.npy", "views.json"


@dataclass(frozen=True)
class Batch:
    """What reading some photographs gave."""

    pixels_BCHW: Tensor  # uint8, those that could be read, in the order asked for
    read_B: Tensor  # bool: which of those asked for these are
    problems: list[tuple[str, str]]  # path and reason, for the others


@dataclass(frozen=True)
class Views:
    """What a training run reads: photographs ready for cropping, their classes, and the mean to subtract."""

    pixels_NCHW: Tensor  # uint8 (N, 3, 256, 256), memory-mapped
    labels_N: Tensor  # int64 (N,), positions in `classes`
    classes: list[str]
    mean_CHW: Tensor  # float32 (3, 256, 256)
    kept: list[tuple[str, str]]  # (SHA-256, path) of each photograph, in the order of pixels_NCHW
    rejected: list[tuple[str, str]]  # (path, reason)
    files: str  # the stamp of the files they were made from

    @property
    def covariance_33(self) -> Any:
        sample = self.pixels_NCHW[:: max(1, len(self.pixels_NCHW) // 64)]
        return np.cov(sample.permute(1, 0, 2, 3).reshape(3, -1).double().numpy(), bias=True)

    def read(self, picks_B: Tensor) -> Batch:
        """Photographs by their positions."""
        return Batch(self.pixels_NCHW[picks_B], torch.ones(len(picks_B), dtype=torch.bool), [])


def prepare_views(root: Path, examples: Sequence[Example], folder: Path, limits: ImageLimits) -> Views:
    """Decodes `examples` into `folder`, or opens what an earlier run decoded there from the same files.

    Raises NotReady where fewer than two classes are left, FC7Error where the disk has no room.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = stamp(root, examples)
    source = f"{files} {limits.model_dump_json()}"
    listing = _read_listing(folder)
    if listing.get("source") != source:
        (folder / _LIST).unlink(missing_ok=True)  # no list, however this ends, describes pixels that are about to change
        sync(folder)
        listing = {"source": source, **_decode(root, examples, folder, limits)}
        with replacing(folder / _LIST) as path:
            path.write_text(json.dumps(listing))
    classes = sorted(set(listing["labels"]))
    if len(classes) < 2:
        rejected = "".join(f"\n  rejected {path}: {reason}" for path, reason in listing["rejected"][:5])
        (folder / _LIST).unlink()
        raise NotReady(
            f"training needs {root}/<class>/<photograph> for at least two classes; of {len(examples)} files "
            f"{len(listing['labels'])} can be used, of the classes {classes}{rejected}"
        )
    pixels = np.load(folder / _PIXELS, mmap_mode="c")
    position = {name: i for i, name in enumerate(classes)}
    return Views(
        torch.from_numpy(pixels[: len(listing["labels"])]),
        torch.tensor([position[label] for label in listing["labels"]]),
        classes,
        torch.from_numpy(np.load(folder / _MEAN)),
        [(sha256, path) for sha256, path in listing["kept"]],
        [(path, reason) for path, reason in listing["rejected"]],
        files,
    )


def _decode(root: Path, examples: Sequence[Example], folder: Path, limits: ImageLimits) -> dict[str, Any]:
    shape = (len(examples), 3, SIZE, SIZE)
    needed, free = int(np.prod(shape)), shutil.disk_usage(folder).free
    if needed > free:
        raise FC7Error(f"decoded photographs need {needed / 1e9:.1f} GB, {folder} has {free / 1e9:.1f} GB left")
    kept: list[tuple[str, str]] = []
    labels: list[str] = []
    rejected: list[tuple[str, str]] = []
    total_CHW = np.zeros(shape[1:], np.int64)
    with replacing(folder / _PIXELS) as path:
        pixels = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
        for read in progress(read_photographs(root, examples, limits), len(examples), "decoding"):
            if isinstance(read.outcome, Photograph) and read.example.label:
                pixels[len(kept)] = read.outcome.pixels_CHW.numpy()
                total_CHW += pixels[len(kept)]
                kept.append((read.sha256, read.example.path))
                labels.append(read.example.label)
            else:
                reason = read.outcome if isinstance(read.outcome, FC7Error) else "lies in no class's folder"
                rejected.append((read.example.shown, str(reason)))
        pixels.flush()
    with replacing(folder / _MEAN) as path, path.open("wb") as file:
        np.save(file, (total_CHW / max(len(kept), 1)).astype(np.float32))
    return {"kept": kept, "labels": labels, "rejected": rejected}


def _read_listing(folder: Path) -> dict[str, Any]:
    try:
        listing: dict[str, Any] = json.loads((folder / _LIST).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return listing if (folder / _PIXELS).is_file() and (folder / _MEAN).is_file() else {}
