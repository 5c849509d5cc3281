"""What training reads: photographs as 256 x 256 squares, any batch at any time, with their classes and their statistics.

A first pass over the training part decodes every photograph once. It keeps the squares in one file where the disk has room for
them (192 KiB a photograph); elsewhere they are decoded anew whenever they are asked for.

Legend: N photographs, B batch, C channels (RGB), H height, W width, 32 the bytes of a SHA-256.
"""

import json
import os
import shutil
from array import array
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import astuple, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from training.errors import FC7Error, Mismatch, NotReady
from training.files import sync, write_tensors
from training.images.folders import Examples, ReadResult, Reject, held_out, read_photograph, read_photographs, stamp
from training.images.preprocess import SIZE, ImageLimits, Photograph
from training.images.statistics import Statistics
from training.program import progress

Keep = Literal["auto", "always", "never"]
_PIXELS, _PASS = "squares.u8", "squares.safetensors"
_SQUARE: Final = 3 * SIZE * SIZE  # bytes
_SAVE_EVERY: Final = 2**13


@dataclass(frozen=True)
class PickedSquares:
    """The squares at some positions."""

    pixels_BCHW: Tensor  # uint8 (B', 3, 256, 256): those that could be read, in the order of the positions
    read_B: Tensor  # bool (B,): which positions they are of
    rejects: list[Reject]  # one for each of the others


class _SquaresFile:
    """Squares read from the file that the first pass wrote."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, picks: list[int]) -> PickedSquares:
        # not a memory map: as fast, other threads run on while the disk is waited for, and a short file is an error, not a signal
        pixels = np.empty((len(picks), _SQUARE), np.uint8)
        with self._path.open("rb", buffering=0) as file:
            for square, pick in zip(pixels, picks, strict=True):
                if os.preadv(file.fileno(), [square.data], pick * _SQUARE) != _SQUARE:
                    raise Mismatch(
                        f"{self._path} ends before photograph {pick}; remove {self._path.parent / _PASS} to decode anew"
                    )
        return PickedSquares(torch.from_numpy(pixels).view(-1, 3, SIZE, SIZE), torch.ones(len(picks), dtype=torch.bool), [])


class _SquaresDecoder:
    """Squares decoded from the data set's own files, on every core."""

    def __init__(self, root: Path, examples: Examples, digests_N32: NDArray[np.uint8], limits: ImageLimits) -> None:
        self._root, self._examples, self._digests_N32, self._limits = root, examples, digests_N32, limits
        self._pool = ThreadPoolExecutor(os.cpu_count(), "decode")

    def read(self, picks: list[int]) -> PickedSquares:
        pixels = np.empty((len(picks), 3, SIZE, SIZE), np.uint8)
        outcomes = list(self._pool.map(self._read_into, pixels, picks))
        rejects = [outcome for outcome in outcomes if outcome]
        if rejects and not self._root.is_dir():
            raise NotReady(f"the data set's folder {self._root} is gone; bring it back, and the same command goes on")
        read_B = np.array([outcome is None for outcome in outcomes], bool)
        return PickedSquares(torch.from_numpy(pixels[read_B] if rejects else pixels), torch.from_numpy(read_B), rejects)

    def _read_into(self, square_CHW: NDArray[np.uint8], pick: int) -> Reject | None:
        """Fills `square_CHW`, or says why it could not be read."""
        read = read_photograph(self._root, self._examples[pick], self._limits)
        if isinstance(read.outcome, FC7Error):
            return Reject(read.example.shown, str(read.outcome))
        if read.sha256 != self._digests_N32[pick].tobytes().hex():
            return Reject(read.example.shown, "has changed since the first pass")
        square_CHW[:] = read.outcome.pixels_CHW.numpy()
        return None


@dataclass(frozen=True)
class Squares:
    """The photographs that training can use; one is named by its position among them, 0 <= i < N."""

    labels_N: Tensor  # int64 (N,), positions in `classes`
    classes: list[str]
    mean_CHW: Tensor  # float32 (3, 256, 256)
    statistics: Statistics
    digests_N32: NDArray[np.uint8]  # (N, 32): the SHA-256 of each file
    examples: Examples  # N, in the same order
    rejects: list[Reject]
    _source: _SquaresFile | _SquaresDecoder

    def read(self, picks_B: Tensor) -> PickedSquares:
        """The photographs at int64 (B,) positions. What can no longer be read, or has changed, is a reject and no exception.

        May be called from any thread. Raises NotReady where the data set's folder is gone, Mismatch where kept squares are.
        """
        return self._source.read(picks_B.tolist())

    def hashes_and_paths(self) -> Iterator[tuple[str, str]]:
        """The SHA-256, hexadecimal, and the path of each photograph, in order."""
        for digest, example in zip(self.digests_N32, self.examples, strict=True):
            yield digest.tobytes().hex(), example.path

    def held_out_N(self, share: float) -> NDArray[np.bool_]:
        """Which photographs are held out to validate on, about this share of them: bool (N,)."""
        return held_out(self.digests_N32, share)


@dataclass
class _FirstPass:
    """Notes of the first pass on the first `done` examples: one file, written now and then and at the end."""

    source: str  # what the files and the limits were
    keeps: bool  # whether decoded squares are in _PIXELS
    done: int = 0
    positions: "array[int]" = field(default_factory=lambda: array("q"))  # of the usable examples
    digests: bytearray = field(default_factory=bytearray)
    rejects: list[Reject] = field(default_factory=list)
    statistics: Statistics = field(default_factory=Statistics)

    def take(self, read: ReadResult) -> Photograph | None:
        """Notes what reading the next example gave; returns the photograph where it is usable."""
        usable = isinstance(read.outcome, Photograph) and bool(read.example.label)
        if isinstance(read.outcome, Photograph) and usable:
            self.positions.append(self.done)
            self.digests += bytes.fromhex(read.sha256)
            self.statistics.add(read.outcome.pixels_CHW)
        else:
            reason = read.outcome if isinstance(read.outcome, FC7Error) else "lies in no class's folder"
            self.rejects.append(Reject(read.example.shown, str(reason)))
        self.done += 1
        return read.outcome if isinstance(read.outcome, Photograph) and usable else None

    def save(self, folder: Path) -> None:
        rejects = json.dumps([astuple(reject) for reject in self.rejects])
        tensors = {
            "positions": torch.from_numpy(np.array(self.positions, np.int64)),
            "digests": torch.from_numpy(np.frombuffer(self.digests, np.uint8)),
            "rejected": torch.from_numpy(np.frombuffer(bytearray(rejects, "ascii"), np.uint8)),
            "sums": torch.from_numpy(self.statistics.sums_CHW),
            "products": torch.from_numpy(self.statistics.products_33),
        }
        write_tensors(folder / _PASS, tensors, {"source": self.source, "keeps": str(self.keeps), "done": str(self.done)})


def prepare_squares(
    root: Path, examples: Examples, folder: Path, limits: ImageLimits, keep: Keep = "auto", *, only_open: bool = False
) -> Squares:
    """Passes once over `examples` with notes in `folder`, or opens what an earlier pass over the same files noted there.

    `keep` says whether decoded squares stay in `folder`; auto: where they take less than half of the free disk. An interrupted
    pass goes on. With `only_open` nothing is written: Mismatch where there is no complete pass over the same files.
    Raises NotReady where fewer than two classes are left, FC7Error where the disk has no room.
    """
    folder.mkdir(parents=True, exist_ok=True)
    source = f"{stamp(root, examples)} {limits.model_dump_json()}"
    if only_open:
        notes = _load(folder / _PASS)
        if not notes or notes.source != source or notes.done < len(examples):
            raise Mismatch(f"the photographs below {root} changed while they were read; run the same command again")
    else:
        notes = _resume(folder, source, len(examples), keep)
    if notes.done < len(examples):
        _pass_over(root, examples, folder, limits, notes)
    usable = examples.take(np.array(notes.positions, np.int64))
    numbers, labels_N = np.unique(usable.labels_N, return_inverse=True)
    names = [usable.label_names[number] for number in numbers]
    classes = sorted(names)
    if len(classes) < 2:
        rejects = "".join(f"\n  rejected {reject.path}: {reject.reason}" for reject in notes.rejects[:5])
        (folder / _PASS).unlink()
        raise NotReady(
            f"training needs {root}/<class>/<photograph> for at least two classes; of {len(examples)} files "
            f"{len(usable)} can be used, of the classes {classes}{rejects}"
        )
    position_of_number = np.array([classes.index(name) for name in names])
    digests_N32 = np.frombuffer(notes.digests, np.uint8).reshape(-1, 32)
    return Squares(
        labels_N=torch.from_numpy(position_of_number[labels_N]),
        classes=classes,
        mean_CHW=notes.statistics.mean_CHW,
        statistics=notes.statistics,
        digests_N32=digests_N32,
        examples=usable,
        rejects=notes.rejects,
        _source=_SquaresFile(folder / _PIXELS) if notes.keeps else _SquaresDecoder(root, usable, digests_N32, limits),
    )


def lend_squares(folder: Path, to: Path) -> None:
    """Gives the complete pass in `folder` to the folder of another run, by hard links; `to` may have begun its own already.

    Where the file system has no hard links nothing is given, and the run makes its own pass.
    """
    to.mkdir(parents=True, exist_ok=True)
    with suppress(OSError):
        for name in (_PIXELS, _PASS):  # the notes last, as they describe the pixels
            if (folder / name).is_file() and not (to / name).exists():
                (to / name).hardlink_to(folder / name)


def _pass_over(root: Path, examples: Examples, folder: Path, limits: ImageLimits, notes: _FirstPass) -> None:
    rest = examples[notes.done :]
    reads = iter(progress(read_photographs(root, rest, limits), len(rest), "first pass"))
    while notes.done < len(examples):
        start = len(notes.positions)
        photographs = filter(None, map(notes.take, islice(reads, _SAVE_EVERY)))
        if notes.keeps:
            _write(folder / _PIXELS, start, photographs)
        else:
            deque(photographs, maxlen=0)
        notes.save(folder)
    next(reads, None)


def _write(path: Path, start: int, photographs: Iterable[Photograph]) -> None:
    try:
        with path.open("r+b") as file:
            file.seek(start * _SQUARE)
            for photograph in photographs:
                file.write(photograph.pixels_CHW.numpy().data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise FC7Error(f"{path} cannot be written: {error.strerror}; the same command goes on once it can") from error


def _resume(folder: Path, source: str, count: int, keep: Keep) -> _FirstPass:
    """What an earlier pass left for the same source, where it can be gone on with; else a new one."""
    pixels = folder / _PIXELS
    notes = _load(folder / _PASS)
    if notes and notes.source == source and keep in ("auto", "always" if notes.keeps else "never"):
        size = pixels.stat().st_size if pixels.is_file() else 0
        if not notes.keeps or size >= len(notes.positions) * _SQUARE:
            return notes
    (folder / _PASS).unlink(missing_ok=True)  # nothing, however this ends, describes pixels that are about to change
    pixels.unlink(missing_ok=True)
    sync(folder)
    needed, free = count * _SQUARE, shutil.disk_usage(folder).free
    if keep == "always" and needed > free:
        raise FC7Error(f"decoded photographs need {needed / 1e9:.1f} GB, {folder} has {free / 1e9:.1f} GB left")
    keeps = keep == "always" or (keep == "auto" and 2 * needed < free)
    if keeps:
        pixels.touch()
    return _FirstPass(source, keeps)


def _load(path: Path) -> _FirstPass | None:
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata()
            notes = _FirstPass(metadata["source"], metadata["keeps"] == "True", int(metadata["done"]))
            notes.positions.frombytes(file.get_tensor("positions").tobytes())
            notes.digests += file.get_tensor("digests").tobytes()
            notes.rejects = [Reject(*facts) for facts in json.loads(file.get_tensor("rejected").tobytes())]
            notes.statistics = Statistics(len(notes.positions), file.get_tensor("sums"), file.get_tensor("products"))
            return notes
    except (FileNotFoundError, SafetensorError, KeyError):
        return None
