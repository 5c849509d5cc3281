"""Photographs -> FC7 features, catalogue entries and thumbnails, a shard at a time; an interrupted run keeps its shards.

Legend: B batch, C channels, H height, W width, N examples, D feature width.
"""

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError, safe_open

from training.checkpoint import Model
from training.data import Example, ReadResult, read_photographs, stamp
from training.files import write_tensors
from training.preprocess import ImageLimits, Photograph
from training.program import progress

SHARD = 1024
BATCH = 64
THUMBNAIL = 160


@dataclass(frozen=True)
class Shard:
    """What came of up to 1024 examples."""

    features_ND: NDArray[np.float32]
    items: list[dict[str, Any]]  # the fields of catalog.Item that the file itself gives, one for each row
    thumbnails: bytes  # JPEG files, one after the other, items[i]["thumbnail_size"] bytes each
    rejects: list[dict[str, str]]  # path and reason


def extract(model: Model, root: Path, examples: Sequence[Example], limits: ImageLimits, work: Path) -> Iterator[Shard]:
    """Yields the shards of `examples` in order; those that an earlier run left in `work` for the same files are read back.

    Features are the same whether or not the run was interrupted: batches never cross a shard's edge.
    """
    work.mkdir(parents=True, exist_ok=True)
    parts = [examples[start : start + SHARD] for start in range(0, len(examples), SHARD)]
    paths = [work / f"{_key(model, root, part, limits)}.safetensors" for part in parts]
    missing = {path for path in paths if not _is_complete(path)}
    todo = [part for part, path in zip(parts, paths, strict=True) if path in missing]
    photographs = read_photographs(root, chain.from_iterable(todo), limits)
    reads = iter(progress(photographs, sum(map(len, todo)), "FC7 features"))
    for part, path in zip(parts, paths, strict=True):
        if path in missing:
            _write(path, _extract(model, islice(reads, len(part))))
        yield _read(path)
    next(reads, None)


def _extract(model: Model, reads: Iterator[ReadResult]) -> Shard:
    features = [np.empty((0, model.net.config.fc7_width), np.float32)]
    items: list[dict[str, Any]] = []
    thumbnails: list[bytes] = []
    rejects: list[dict[str, str]] = []
    while batch := list(islice(reads, BATCH)):
        pixels = []
        for read in batch:
            if isinstance(read.outcome, Photograph):
                pixels.append(read.outcome.pixels_CHW)
                thumbnails.append(_thumbnail(read.outcome))
                items.append(_fields(read, read.outcome, len(thumbnails[-1])))
            else:
                rejects.append({"path": read.example.shown, "reason": str(read.outcome)})
        if pixels:
            features.append(model.fc7(torch.stack(pixels)).numpy())
    return Shard(np.concatenate(features), items, b"".join(thumbnails), rejects)


def _fields(read: ReadResult, photograph: Photograph, thumbnail_size: int) -> dict[str, Any]:
    return {
        "path": read.example.path,
        "label": read.example.label,
        "size": read.size,
        "width": photograph.width,
        "height": photograph.height,
        "format": photograph.format,
        "sha256": read.sha256,
        "thumbnail_size": thumbnail_size,
    }


def _thumbnail(photograph: Photograph) -> bytes:
    image = Image.fromarray(photograph.pixels_CHW.permute(1, 2, 0).numpy()).resize((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _key(model: Model, root: Path, part: Sequence[Example], limits: ImageLimits) -> str:
    parts = f"{model.fingerprint}\n{limits.model_dump_json()}\n{stamp(root, part)}"
    return hashlib.sha256(parts.encode()).hexdigest()[:32]


def _write(path: Path, shard: Shard) -> None:
    thumbnails = torch.from_numpy(np.frombuffer(bytearray(shard.thumbnails), np.uint8))
    tensors = {"features": torch.from_numpy(shard.features_ND), "thumbnails": thumbnails}
    write_tensors(path, tensors, {"items": json.dumps(shard.items), "rejects": json.dumps(shard.rejects)})


def _is_complete(path: Path) -> bool:
    try:
        with safe_open(path, "numpy"):
            return True
    except (FileNotFoundError, SafetensorError):
        return False


def _read(path: Path) -> Shard:
    with safe_open(path, "numpy") as file:
        metadata = file.metadata()
        return Shard(
            file.get_tensor("features"),
            json.loads(metadata["items"]),
            file.get_tensor("thumbnails").tobytes(),
            json.loads(metadata["rejects"]),
        )
