"""Photographs -> features, files' facts and thumbnails, a block at a time; an interrupted run keeps its blocks.

Legend: B batch, C channels, H height, W width, N examples, D feature width, P raw pixels (32 x 32 RGB), U units of all layers, M
units that have maps.
"""

import hashlib
import io
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate, chain, islice, pairwise
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.nn import functional as F

from indexer.arrays import Vectors, blocks
from indexer.metric import NO_DIRECTION, Metric, have_vectors, vectors_of
from training.checkpoint import Model, name_of
from training.errors import FC7Error, Mismatch, NotFinite
from training.files import printable, write_tensors
from training.images.folders import Example, ReadResult, Reject, read_photographs, stamp
from training.images.preprocess import ImageLimits, Photograph
from training.program import progress

BLOCK_ROWS = 1024
BATCH = 64
THUMBNAIL = 160
RAW_SIZE = 32
SHADES = 4  # of each of red, green and blue, in a histogram of colours


@dataclass(frozen=True)
class FileFacts:
    """What a photograph's file tells of the item that it becomes."""

    path: str  # below the source folder, with forward slashes
    label: str  # the folder it lies in; "" for none
    size: int  # bytes
    width: int  # pixels, as stored
    height: int
    format: str  # "JPEG", "PNG", ...
    sha256: str  # of the file
    thumbnail_size: int  # bytes


@dataclass(frozen=True)
class Activations:
    """How strongly photographs excite each unit at most, and where; see training/network/units.py."""

    values_NU: Vectors
    positions_NM: NDArray[np.int16]


@dataclass(frozen=True)
class FeatureBlock:
    """What came of up to 1024 examples."""

    features_ND: Vectors
    pixels_NP: NDArray[np.uint8] | None  # where they were asked for
    files: list[FileFacts]  # one for each row
    thumbnails: bytes  # JPEG files, one after the other
    rejects: list[Reject]
    folder: Path | None = None  # that the paths are below, where it is another than that of the blocks beside it
    activations: Activations | None = None  # where they were asked for

    def without(self, rows: Collection[int], rejects: Iterable[Reject]) -> Self:
        """The block without some rows, and with more rejects."""
        if not rows:
            return replace(self, rejects=[*self.rejects, *rejects])
        kept = [row for row in range(len(self.files)) if row not in rows]
        return replace(
            self,
            features_ND=self.features_ND[kept],
            pixels_NP=None if self.pixels_NP is None else self.pixels_NP[kept],
            files=[self.files[row] for row in kept],
            thumbnails=b"".join(jpeg for row, jpeg in enumerate(self.jpegs()) if row not in rows),
            rejects=[*self.rejects, *rejects],
            activations=self.activations and Activations(self.activations.values_NU[kept], self.activations.positions_NM[kept]),
        )

    def in_metric(self, metric: Metric) -> Self:
        """The block with what an index of this metric compares for features; those that it cannot compare are rejects."""
        rows: list[int] = np.flatnonzero(~have_vectors(self.features_ND, metric)).tolist()
        block = self.without(rows, [Reject(self.files[row].path, NO_DIRECTION) for row in rows])
        return replace(block, features_ND=vectors_of(block.features_ND, metric))

    def jpegs(self) -> list[bytes]:
        """The thumbnail of each row."""
        ends = accumulate((file.thumbnail_size for file in self.files), initial=0)
        return [self.thumbnails[start:end] for start, end in pairwise(ends)]


@dataclass(frozen=True)
class Extraction:
    """What to extract, and where an interrupted run keeps what it has done."""

    model: Model
    root: Path
    examples: Sequence[Example]
    limits: ImageLimits
    with_pixels: bool
    work: Path
    max_bad_fraction: float = 1.0
    with_activations: bool = False

    def run(self, share: int = 0, shares: int = 1) -> None:
        """Writes the blocks that are not there yet; of several ranks, each its share of them.

        Features are the same whether or not a run was interrupted, and whoever made which: batches never cross a block's edge.
        Raises FC7Error where more files are rejected than allowed.
        """
        self.work.mkdir(parents=True, exist_ok=True)
        todo = [(part, path) for part, path in list(self._parts())[share::shares] if not _is_complete(path)]
        photographs = read_photographs(self.root, chain.from_iterable(part for part, _ in todo), self.limits)
        reads = iter(progress(photographs, sum(len(part) for part, _ in todo), f"{name_of(self.model.layer)} features"))
        rejects: list[Reject] = []
        for part, path in todo:
            block = feature_block(self.model, islice(reads, len(part)), self.with_pixels, self.with_activations)
            _write(path, block)
            self._check(rejects, block)
        next(reads, None)

    def __iter__(self) -> Iterator[FeatureBlock]:
        """The blocks of all examples, in order, that runs have written. Raises FC7Error like `run`."""
        rejects: list[Reject] = []
        for _, path in self._parts():
            block = _read(path)
            self._check(rejects, block)
            yield block

    def _check(self, rejects: list[Reject], block: FeatureBlock) -> None:
        rejects += block.rejects
        if len(rejects) > self.max_bad_fraction * len(self.examples):
            raise FC7Error(
                f"{len(rejects)} of {len(self.examples)} files are rejected so far, more than max_bad_fraction="
                f"{self.max_bad_fraction} of them, the first {rejects[0].path}: {rejects[0].reason}; nothing is published"
            )

    def _parts(self) -> Iterator[tuple[Sequence[Example], Path]]:
        for rows in blocks(len(self.examples), BLOCK_ROWS):
            part = self.examples[rows]
            yield part, self.work / f"{self._key(part)}.safetensors"

    def _key(self, part: Sequence[Example]) -> str:
        what = f"{self.with_pixels}\n{self.with_activations}"
        facts = f"{self.model.fingerprint}\n{self.limits.model_dump_json()}\n{what}\n{stamp(self.root, part)}"
        return hashlib.sha256(facts.encode()).hexdigest()[:32]


def feature_blocks(
    model: Model, root: Path, examples: Sequence[Example], limits: ImageLimits, what: str, with_pixels: bool = False
) -> Iterator[FeatureBlock]:
    """The blocks of examples, in order, which are kept nowhere; the progress bar shows `what`."""
    reads = iter(progress(read_photographs(root, examples, limits), len(examples), what))
    for rows in blocks(len(examples), BLOCK_ROWS):
        yield feature_block(model, islice(reads, rows.stop - rows.start), with_pixels)
    next(reads, None)  # so that the bar counts the last one


def feature_block(model: Model, reads: Iterator[ReadResult], with_pixels: bool, with_activations: bool = False) -> FeatureBlock:
    """Features, files' facts and thumbnails of photographs that have been read, and the reasons of those that could not."""
    activations = [_no_activations(model)]
    features = [np.empty((0, model.width), np.float32)]
    raw = [np.empty((0, 3 * RAW_SIZE**2), np.uint8)]
    files: list[FileFacts] = []
    thumbnails: list[bytes] = []
    rejects: list[Reject] = []
    while batch := list(islice(reads, BATCH)):
        pixels = []
        for read in batch:
            if isinstance(read.outcome, Photograph):
                pixels.append(read.outcome.pixels_CHW)
                thumbnails.append(thumbnail_of(read.outcome))
                files.append(_facts(read, read.outcome, len(thumbnails[-1])))
            else:
                rejects.append(Reject(read.example.shown, str(read.outcome)))
        if pixels:
            pixels_BCHW = torch.stack(pixels)
            try:
                if with_activations:
                    features_BD, excitation = model.features_and_units(pixels_BCHW)
                    positions_BM = excitation.positions_BM.numpy().astype(np.int16)
                    activations.append(Activations(excitation.values_BU.numpy(), positions_BM))
                else:
                    features_BD = model.features(pixels_BCHW)
                features.append(features_BD.numpy())
            except NotFinite as error:
                first = files[len(files) - len(pixels) + error.positions[0]]
                raise Mismatch(f"{error}; the first is {printable(first.path)}") from error
            raw.append(raw_pixels(pixels_BCHW))
    return FeatureBlock(
        np.concatenate(features),
        np.concatenate(raw) if with_pixels else None,
        files,
        b"".join(thumbnails),
        rejects,
        activations=_joined(activations) if with_activations else None,
    )


def _no_activations(model: Model) -> Activations:
    shapes = model.units.values()
    units = sum(shape.columns * shape.units for shape in shapes)
    of_maps = sum(shape.columns * shape.units for shape in shapes if shape.side)
    return Activations(np.empty((0, units), np.float32), np.empty((0, of_maps), np.int16))


def _joined(parts: Sequence[Activations]) -> Activations:
    return Activations(np.concatenate([part.values_NU for part in parts]), np.concatenate([part.positions_NM for part in parts]))


def raw_pixels(pixels_BCHW: Tensor) -> NDArray[np.uint8]:
    """The squares at 32 x 32 pixels, by the mean of each 8 x 8: uint8 (B, 3, 256, 256) -> (B, 3072)."""
    small: NDArray[np.uint8] = F.adaptive_avg_pool2d(pixels_BCHW.float(), RAW_SIZE).round().to(torch.uint8).flatten(1).numpy()
    return small


def colour_histogram(pixels_BCHW: Tensor) -> Vectors:
    """Square roots of the shares of 4 x 4 x 4 colours: uint8 (B, 3, H, W) -> float32 (B, 64), rows of length 1."""
    red_BHW, green_BHW, blue_BHW = (pixels_BCHW // (256 // SHADES)).unbind(1)
    colours_BX = ((red_BHW * SHADES + green_BHW) * SHADES + blue_BHW).flatten(1)
    counts = [torch.bincount(colours_X, minlength=SHADES**3) for colours_X in colours_BX]
    shares_BL: Vectors = (torch.stack(counts) / colours_BX.shape[1]).sqrt().numpy()
    return shares_BL


def _facts(read: ReadResult, photograph: Photograph, thumbnail_size: int) -> FileFacts:
    return FileFacts(
        path=read.example.path,
        label=read.example.label,
        size=read.size,
        width=photograph.width,
        height=photograph.height,
        format=photograph.format,
        sha256=read.sha256,
        thumbnail_size=thumbnail_size,
    )


def thumbnail_of(photograph: Photograph) -> bytes:
    """The central square at 160 x 160 pixels, a JPEG file's bytes."""
    image = Image.fromarray(photograph.pixels_CHW.permute(1, 2, 0).numpy()).resize((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _write(path: Path, block: FeatureBlock) -> None:
    thumbnails = torch.from_numpy(np.frombuffer(bytearray(block.thumbnails), np.uint8))
    tensors = {"features": torch.from_numpy(block.features_ND), "thumbnails": thumbnails}
    if block.pixels_NP is not None:
        tensors["pixels"] = torch.from_numpy(block.pixels_NP)
    if block.activations:
        tensors["activations"] = torch.from_numpy(block.activations.values_NU)
        tensors["positions"] = torch.from_numpy(block.activations.positions_NM)
    items = [asdict(file) for file in block.files]
    rejects = [asdict(reject) for reject in block.rejects]
    write_tensors(path, tensors, {"items": json.dumps(items), "rejects": json.dumps(rejects)})


def _is_complete(path: Path) -> bool:
    try:
        with safe_open(path, "numpy"):
            return True
    except (FileNotFoundError, SafetensorError):
        return False


def _read(path: Path) -> FeatureBlock:
    with safe_open(path, "numpy") as file:
        metadata, names = file.metadata(), file.keys()
        has_activations = "activations" in names
        return FeatureBlock(
            file.get_tensor("features"),
            file.get_tensor("pixels") if "pixels" in names else None,
            [FileFacts(**facts) for facts in json.loads(metadata["items"])],
            file.get_tensor("thumbnails").tobytes(),
            [Reject(**reject) for reject in json.loads(metadata["rejects"])],
            activations=Activations(file.get_tensor("activations"), file.get_tensor("positions")) if has_activations else None,
        )
