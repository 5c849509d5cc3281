"""The model and the index that answer, and the work that a request needs of them. No HTTP here.

Legend: B batch, C channels, H height, W width, Q queries, D feature width.
"""

import asyncio
import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeVar

import numpy as np
import torch

from indexer import artifact
from indexer.auto import choose
from indexer.catalog import Item
from indexer.extract import shard_of
from indexer.opening import open_store
from indexer.store import Mode, Query, Store, Vectors
from service.collection import Collection, Opened, load, present
from service.cursor import Cursor
from service.settings import ServiceSettings
from training import checkpoint
from training.checkpoint import Model
from training.data import Example, ReadResult
from training.errors import NotReady
from training.files import replacing
from training.preprocess import Photograph, decode

T = TypeVar("T")
DUPLICATE_SHARE: Final = 0.25


@dataclass(frozen=True)
class Page:
    """Some of a query's neighbours, nearest first, and where the next page begins."""

    neighbours: list[tuple[Item, float]]
    next: Cursor | None  # None at the end
    buckets: int | None  # codes looked up, in the mode "ball"


@dataclass(frozen=True)
class Upload:
    """A photograph that was sent: its file's bytes, and what they decode to."""

    data: bytes
    photograph: Photograph
    sha256: str  # of the bytes; hexadecimal


class Engine:
    """Decodes on every core, runs the network for one request at a time, and searches; all off the event loop."""

    def __init__(self, settings: ServiceSettings) -> None:
        """Loads what is there. What is missing or does not fit is kept as the reason that requests for it are told."""
        self._settings = settings
        self._decoders = ThreadPoolExecutor(os.cpu_count(), "decode")
        self._worker = ThreadPoolExecutor(1, "network")
        self._model = load(lambda: checkpoint.load(settings.model))
        self._collection = Collection(settings.index, self._open)
        if isinstance(self._model, Model):
            self._model.fc7(torch.zeros(1, 3, 256, 256, dtype=torch.uint8))  # the first pass is slow

    @property
    def model(self) -> Model:
        """The loaded model. Raises NotReady with the reason where there is none."""
        return present(self._model)

    @property
    def store(self) -> Opened:
        """The index as it is now. Raises NotReady with the reason where there is none."""
        return self._collection.store

    async def decode(self, data: bytes) -> Upload:
        """Decodes one image. Raises BadImage or ImageTooLarge."""
        limits = self._settings.limits()

        def decoded() -> Upload:
            return Upload(data, decode(data, limits), hashlib.sha256(data).hexdigest())

        return await asyncio.get_running_loop().run_in_executor(self._decoders, decoded)

    async def classify(self, photographs: Sequence[Photograph], views: int, top: int) -> list[list[tuple[str, float]]]:
        """The `top` most probable classes of each photograph, with their probabilities, averaged over 1 or 10 views."""
        model = self.model
        pixels_BCHW = torch.stack([photograph.pixels_CHW for photograph in photographs])
        probabilities_BK = await self._run(lambda: model.probabilities(pixels_BCHW, views))
        values, positions = probabilities_BK.topk(min(top, len(model.classes)))
        return [
            [(model.classes[i], p) for i, p in zip(row, chances, strict=True)]
            for row, chances in zip(positions.tolist(), values.tolist(), strict=True)
        ]

    async def features(self, photographs: Sequence[Photograph]) -> Vectors:
        """FC7 of each photograph, float32 (Q, D)."""
        model = self.model
        none_0D = np.empty((0, model.net.config.fc7_width), np.float32)

        def features() -> Vectors:
            # one at a time: in a batch the last bits would depend on the others, and a cursor's place with them
            return np.concatenate([none_0D, *(model.fc7(photograph.pixels_CHW[None]).numpy() for photograph in photographs)])

        return await self._run(features)

    async def vector(self, store: Store, item: int) -> Vectors:
        """The feature of an indexed photograph, float32 (1, D). Raises NotFound."""
        return await self._run(lambda: store.vectors([item]))

    def mode(self, store: Opened, asked: Mode | Literal["auto"] | None = None) -> tuple[Mode, str]:
        """How to search, and why: as the request asks, else as the setting says."""
        chosen = asked or self._settings.search
        if chosen == "auto":
            made = store.manifest.shortlist
            return choose(len(store), store.width, made.kind if made else "", self._settings.search_memory_bytes)
        if not asked and chosen == "code" and not store.bits:
            raise NotReady(
                f"search is set to {chosen}, but the index has no codes; `python -m indexer.build --bits 128` makes them"
            )
        return chosen, "asked for" if asked else f"search is set to {chosen}"

    async def search(self, store: Store, queries_QD: Vectors, query: Query, leave_out: int | None = None) -> list[Page]:
        """A page of neighbours for each query; the item `leave_out` is not among them."""
        return await self._run(lambda: _pages(store, queries_QD, query, leave_out))

    async def add(self, uploads: Sequence[Upload], label: str) -> tuple[int, list[tuple[int, bool]]]:
        """Adds photographs to the index: its version then, the id of each, and whether it was there already.

        Raises like Collection.change.
        """
        if not uploads:
            return self.store.version, []
        model, once = self.model, {upload.sha256: upload for upload in uploads}
        version, ids, fresh = await self._collection.change(lambda store: self._add(model, store, once, label))
        answers = []
        for upload in uploads:
            answers.append((ids[upload.sha256], upload.sha256 not in fresh))
            fresh.discard(upload.sha256)  # the second copy in a request is there already
        return version, answers

    async def remove(self, item: int) -> None:
        """Removes an item from the index, and its file where it was uploaded. Raises NotFound, and like Collection.change."""
        await self._collection.change(lambda store: (store.remove([item]), None))

    def close(self) -> None:
        """Waits for running work and lets go of threads and files."""
        self._decoders.shutdown()
        self._collection.close()
        self._worker.shutdown()

    def _open(self, known: Opened | None) -> Opened:
        store: Opened = known.renewed() if known else open_store(self._settings.index)
        artifact.check_pair(store, self.model.fingerprint)
        return store

    def _add(
        self, model: Model, store: Opened, uploads: dict[str, Upload], label: str
    ) -> tuple[Opened, tuple[int, dict[str, int], set[str]]]:
        """The store with what is new of `uploads`, which are by SHA-256; its version, the ids of all, and which were new."""
        ids = store.holding(uploads)
        fresh = [_read_result(upload, label) for sha256, upload in uploads.items() if sha256 not in ids]
        if fresh:
            shard = self._worker.submit(shard_of, model, iter(fresh), store.manifest.pixel_bits > 0).result()
            root = (self._settings.index / artifact.UPLOADS).resolve()
            root.mkdir(exist_ok=True)
            for read in fresh:
                with replacing(root / read.example.path) as path:
                    path.write_bytes(uploads[read.sha256].data)
            store, added = store.add([shard], root)
            ids |= {read.sha256: item for read, item in zip(fresh, added, strict=True)}
        return store, (store.version, ids, {read.sha256 for read in fresh})

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, work)


def _read_result(upload: Upload, label: str) -> ReadResult:
    example = Example(f"{upload.sha256}.{upload.photograph.format.lower()}", label)
    return ReadResult(example, upload.sha256, len(upload.data), upload.photograph)


def _pages(store: Store, queries_QD: Vectors, query: Query, leave_out: int | None) -> list[Page]:
    spare = 1 if leave_out is None else 2  # one more hit tells whether there is a next page
    hits = store.search(queries_QD, replace(query, k=query.k + spare))
    pages = []
    for row in range(len(queries_QD)):
        found = [hit for hit in hits.of(row) if hit[0] != leave_out]
        shown = found[: query.k]
        items = store.items([item for item, _, _ in shown])
        pages.append(
            Page(
                [(item, distance) for item, (_, distance, _) in zip(items, shown, strict=True)],
                Cursor(query.mode, shown[-1][2], shown[-1][0]) if len(found) > query.k else None,
                None if hits.buckets_Q is None else int(hits.buckets_Q[row]),
            )
        )
    return pages
