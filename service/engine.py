"""The model and the index that answer, and the work that a request needs of them. No HTTP here.

Legend: B batch, C channels, H height, W width, Q queries, D feature width.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from indexer import artifact
from indexer.artifact import OpenIndex
from indexer.catalog import Item
from training import checkpoint
from training.checkpoint import Model
from training.errors import FC7Error, NotReady
from training.preprocess import ImageLimits, Photograph, decode

T = TypeVar("T")
Neighbours = list[tuple[Item, float]]
_log = logging.getLogger("fc7.service")


class Engine:
    """Decodes on every core, runs the network for one request at a time, and searches; all off the event loop."""

    def __init__(self, model: Path, index: Path, limits: ImageLimits) -> None:
        """Loads what is there. What is missing or does not fit is kept as the reason that requests for it are told."""
        self._limits = limits
        self._decoders = ThreadPoolExecutor(os.cpu_count(), "decode")
        self._worker = ThreadPoolExecutor(1, "network")
        self._model = _load(lambda: checkpoint.load(model))
        self._index = _load(lambda: self._open(index))
        if isinstance(self._model, Model):
            self._model.fc7(torch.zeros(1, 3, 256, 256, dtype=torch.uint8))  # the first pass is slow

    @property
    def model(self) -> Model:
        """The loaded model. Raises NotReady with the reason where there is none."""
        return _present(self._model)

    @property
    def index(self) -> OpenIndex:
        """The opened index. Raises NotReady with the reason where there is none."""
        return _present(self._index)

    async def decode(self, data: bytes) -> Photograph:
        """Decodes one image. Raises BadImage or ImageTooLarge."""
        return await asyncio.get_running_loop().run_in_executor(self._decoders, decode, data, self._limits)

    async def classify(self, photographs: Sequence[Photograph], views: int, top: int) -> list[list[tuple[str, float]]]:
        """The `top` most probable classes of each photograph, with their probabilities, averaged over 1 or 10 views."""
        model = self.model
        probabilities_BK = await self._run(lambda: model.probabilities(_stack(photographs), views))
        values, positions = probabilities_BK.topk(min(top, len(model.classes)))
        return [
            [(model.classes[i], p) for i, p in zip(row, chances, strict=True)]
            for row, chances in zip(positions.tolist(), values.tolist(), strict=True)
        ]

    async def neighbours(self, photographs: Sequence[Photograph], k: int) -> list[Neighbours]:
        """The k nearest indexed photographs of each, with Euclidean distances between FC7 features."""
        index, model = self.index, self.model

        def search() -> list[Neighbours]:
            return _search(index, model.fc7(_stack(photographs)).numpy(), k)

        return await self._run(search)

    async def neighbours_of_item(self, item: Item, k: int) -> Neighbours:
        """The k indexed photographs nearest to one of them, which comes first."""
        index = self.index
        return (await self._run(lambda: _search(index, index.vectors.vector(item.id)[None], k)))[0]

    def close(self) -> None:
        """Waits for running work and lets go of threads and files."""
        self._decoders.shutdown()
        self._worker.shutdown()
        if isinstance(self._index, OpenIndex):
            self._index.catalog.close()

    def _open(self, folder: Path) -> OpenIndex:
        index = artifact.open_index(folder)
        artifact.check_pair(index, self.model.fingerprint)
        return index

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, work)


def _load(loader: Callable[[], T]) -> T | FC7Error:
    try:
        return loader()
    except FC7Error as error:
        reason = error
    except OSError as error:
        reason = NotReady(f"{error.filename} cannot be read: {error.strerror}")
    _log.warning("%s", reason)
    return reason


def _present(loaded: T | FC7Error) -> T:
    if isinstance(loaded, FC7Error):
        raise NotReady(str(loaded)) from loaded
    return loaded


def _stack(photographs: Sequence[Photograph]) -> Tensor:
    return torch.stack([photograph.pixels_CHW for photograph in photographs])


def _search(index: OpenIndex, queries_QD: NDArray[np.float32], k: int) -> list[Neighbours]:
    hits = index.vectors.search(queries_QD, k)
    return [
        list(zip(index.catalog.items(ids), distances, strict=True))
        for ids, distances in zip(hits.ids_QK.tolist(), hits.distances_QK.tolist(), strict=True)
    ]
