"""The work that requests need of the model and the index: decoded on every core, batched for the network and for searches.

No HTTP here. Legend: B batch, C channels, H height, W width, Q queries, V views, K classes, D feature width.
"""

import asyncio
import gc
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final, Literal, TypeAlias, TypeVar

import numpy as np
import torch
from starlette.concurrency import run_in_threadpool
from torch import Tensor

from indexer.arrays import Vectors
from indexer.features import feature_block
from indexer.metric import no_direction
from indexer.opening import OpenStore
from indexer.search.calibration import scale_of
from indexer.search.mode import choose
from indexer.storage import artifact
from indexer.store import START, Filter, Mode, Query, Store, without_codes
from service.batching import Batcher, Result, Worker
from service.cursor import Cursor
from service.decoding import Decoders
from service.metrics import Metrics
from service.pair import CurrentPair, Pair
from service.settings import ServiceSettings
from service.stages import Stages
from training.checkpoint import Model
from training.errors import BadValue, FC7Error, NotFound, NotReady, TryAgain
from training.files import write_bytes
from training.images.folders import Example, ReadResult
from training.images.preprocess import SIZE, Photograph, decode

T = TypeVar("T")
_DIGITS: Final = 4  # of percentiles and probabilities
_MOST_NAMED: Final = 10  # labels in one note
_SEARCHES: Final = 5  # of one page, of whose hits some are removed meanwhile
_FEATURES_KEPT: Final = 256  # of uploads that have further pages
_MOST_LONG: Final = 4  # requests for many passes of the network, which take seconds each, one after the other
_ORIGINALS: Final = 4  # items' own files that are in memory at once
_MOST_SLOW: Final = 64  # of the work for `slowly` that is done, or waits for it
_OF_WHOLE_FEATURES: Final = "only distances of whole features, by the index's metric, are calibrated; columns=both has them"
# id, distance, label, path; percentile and probability of the same class, where these are known
Neighbor: TypeAlias = tuple[int, float, str, str, float | None, float | None]
Best: TypeAlias = list[tuple[int, float]]  # numbers of classes with their probabilities, most probable first


@dataclass(frozen=True)
class Page:
    """Some of a query's neighbours, nearest first, and where the next page begins."""

    neighbors: list[Neighbor]  # the garbage collector leaves such tuples alone
    next: Cursor | None  # None at the end
    buckets: int | None  # codes looked up, in the mode "ball"
    note: str | None = None  # which labels of the filter no item has, or that none passes it
    uncalibrated: str | None = None  # why it is not known what the distances mean


@dataclass(frozen=True)
class Upload:
    """A photograph that a client sends: its file's bytes, and what they decode to."""

    data: bytes
    photograph: Photograph
    sha256: str  # of the bytes; hexadecimal


@dataclass(frozen=True)
class Subject:
    """What neighbours are looked for of: the item `item`, or a float32 (D,) vector."""

    item: int | None = None
    vector_D: Vectors | None = None
    leave_out: frozenset[int] = frozenset()  # items that are no neighbours of it
    examples: int = 1  # photographs that it stands for: of several it is not known what class they are
    inexact: bool = False  # whether the last bits of the vector may be others the next time, as those of a photograph's FC7 are


@dataclass(frozen=True)
class NetworkQuery:
    """What the network is to say of one photograph."""

    pixels_CHW: Tensor
    views: int = 1
    top: int = 0  # classes to name; 0 where FC7 is wanted


@dataclass(frozen=True)
class Prediction:
    """What the network says of one photograph."""

    feature_D: Vectors  # FC7 of its first view
    best: list[Best]  # by the mean over its views, then by each view


@dataclass(frozen=True)
class _Search:
    store: OpenStore
    query: Query
    spare: int  # hits beyond k, of which one tells whether there is a next page


class Engine:
    """Owns the threads that work: decoders, one for the network and searches, one for changes of the index."""

    def __init__(self, settings: ServiceSettings, metrics: Metrics) -> None:
        """Loads what is there. What is missing or does not fit is kept as the reason that requests for it are told."""
        self._settings, self._metrics = settings, metrics
        self._decoders = Decoders(settings.limits())
        self._originals = asyncio.Semaphore(_ORIGINALS)
        self._decoding = 0  # photographs that are being decoded or wait for it
        self._answers = ThreadPoolExecutor(1, "answer")
        self._slow = {name: ThreadPoolExecutor(1, name) for name in ("measure", "look")}
        self._slowly = 0  # of those who wait for these
        self._worker = Worker("compute")
        self.current = CurrentPair(
            settings.model,
            settings.index,
            self._warm_up,
            settings.deadline_ms / 1e3,
            lambda good: metrics.swapped("swapped" if good else "refused"),
        )
        queue, batch = settings.max_queue, settings.max_batch_size
        wait_s = settings.max_wait_ms / 1e3
        self._network: Batcher[Model, NetworkQuery, Prediction] = Batcher(
            predict, self._worker, batch, wait_s, queue, lambda: self._decoding > 0, lambda size: metrics.batch("forward", size)
        )
        self._long, self._turn = 0, asyncio.Lock()  # of requests for many passes
        self._single = asyncio.Lock()  # of work that needs the network once
        self._features: OrderedDict[tuple[str, str], Vectors] = OrderedDict()
        self._searches: Batcher[_Search, Subject, Page] = Batcher(
            _pages, self._worker, batch, 0.0, queue, lambda: False, lambda size: metrics.batch("search", size)
        )

    @property
    def model(self) -> Model:
        """The model that answers. Raises NotReady with the reason where there is none."""
        return self.current.model

    @property
    def pair(self) -> Pair:
        """The model and the index that answer. Raises NotReady with the reason where there are none."""
        return self.current.pair

    def check_room(self, photographs: int = 1, searches: int = 0) -> None:
        """Raises TryAgain where no room is left for so many photographs, which wait for decoders too, or queries."""
        if photographs:
            self._network.check(self._decoding + photographs)
        if searches:
            self._searches.check(searches)

    async def read(self, work: Callable[[], T]) -> T:
        """Awaits the result of work that is too slow for the event loop, though it needs neither the model nor the index."""
        return await self._decoders.read(work)

    async def decode(self, data: bytes, stages: Stages) -> Upload:
        """Decodes one image. Raises BadImage or ImageTooLarge, and TryAgain like check_room."""
        self.check_room()
        limits = self._settings.limits()

        def decoded() -> tuple[Upload, float]:
            began = time.perf_counter()
            upload = Upload(data, decode(data, limits), hashlib.sha256(data).hexdigest())
            return upload, time.perf_counter() - began

        self._decoding += 1
        try:
            upload, seconds = await self._decoders.decode(data, decoded)
        finally:
            self._decoding -= 1
            # whoever waits for this one's company, which comes after the next await or never
            asyncio.get_running_loop().call_soon(self._network.consider)
        stages.record("decode", seconds)
        return upload

    async def decode_original(self, read: Callable[[], bytes], stages: Stages) -> Upload:
        """Decodes an item's own file, which `read` gives: few are in memory at once, however many requests name one."""
        self.check_room()
        async with self._originals:
            return await self.decode(await run_in_threadpool(read), stages)

    async def form(self, work: Callable[[], T]) -> T:
        """Awaits the result of work on an answer that is too long for the event loop. One is done at a time."""
        return await asyncio.get_running_loop().run_in_executor(self._answers, _without_collecting, work)

    async def slowly(self, thread: Literal["measure", "look"], work: Callable[[], T]) -> T:
        """Awaits the result of work of a second or more. One is done at a time by each thread, and no other thread waits for it.

        Work that nobody awaits any more is left out if it has not begun, and ended if it has. Raises TryAgain where too much
        waits.
        """
        if self._slowly >= _MOST_SLOW:
            raise TryAgain("queue_full", f"{self._slowly} requests wait for work that takes long already")
        self._slowly += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._slow[thread], work)
        finally:
            self._slowly -= 1

    async def classify(self, model: Model, photograph: Photograph, views: int, top: int, stages: Stages) -> list[Best]:
        """The `top` most probable classes by the mean over 1 or 10 views; then by each view, in preprocess.ten_views' order."""
        query = NetworkQuery(photograph.pixels_CHW, views, min(top, len(model.classes)))
        return _recorded(await self._network(model, query, views), "forward", stages).best

    async def feature(self, model: Model, photograph: Photograph, stages: Stages) -> Vectors:
        """FC7 of the centre view: float32 (D,)."""
        return _recorded(await self._network(model, NetworkQuery(photograph.pixels_CHW)), "forward", stages).feature_D

    @contextmanager
    def long(self) -> Iterator[None]:
        """A place among the requests for many passes of the network. Raises TryAgain at once where all are taken."""
        if self._long >= _MOST_LONG:
            raise TryAgain("queue_full", f"{self._long} requests for many passes of the network are being answered already")
        self._long += 1
        try:
            yield
        finally:
            self._long -= 1

    async def each_view(self, model: Model, batches: Iterator[Tensor], stages: Stages) -> tuple[Vectors, Vectors]:
        """FC7 (V, D) and the probabilities (V, K) of many views, float32 (B, 3, size, size) at a time.

        One such request is worked on at a time, of those who have a place by `long`, and others' batches go through the network
        between two of its own.
        """

        def next_answers() -> tuple[Vectors, Vectors] | None:
            x_BCHW = next(batches, None)
            if x_BCHW is None:
                return None
            features_BD, chances_BK = model.answers_of_views(x_BCHW)
            return features_BD.numpy(), chances_BK.numpy()

        async with self._turn:
            began, found = time.perf_counter(), []
            while answers := await self._worker.run(next_answers):
                found.append(answers)
        stages.record("forward", time.perf_counter() - began)
        features, chances = zip(*found, strict=True)
        return np.concatenate(features), np.concatenate(chances)

    async def network(self, work: Callable[[], T]) -> T:
        """Awaits the result of work that needs the network once. Others' batches go through it between two such."""
        async with self._single:
            return await self._worker.run(work)

    def keep_feature(self, model: Model, name: str, feature_D: Vectors) -> None:
        """Keeps the feature of an uploaded photograph that has further pages, as one of the last few.

        Computed again its last bits may be others, and with them the order of items that differ by no more.
        """
        self._features[model.fingerprint, name] = feature_D.copy()  # not the whole batch with it
        self._features.move_to_end((model.fingerprint, name))
        if len(self._features) > _FEATURES_KEPT:
            self._features.popitem(last=False)

    def kept_feature(self, model: Model, name: str) -> Vectors | None:
        """The feature that was kept, if it still is."""
        return self._features.get((model.fingerprint, name))

    async def vector(self, store: Store, item: int) -> Vectors:
        """The feature of an indexed photograph, float32 (D,). Raises NotFound."""
        vector: Vectors = (await self._worker.run(lambda: store.vectors([item])))[0]
        return vector

    def mode(self, store: OpenStore, requested: Mode | Literal["auto"] | None = None) -> tuple[Mode, str]:
        """How to search, and why: as the request says, else as the setting does."""
        chosen = requested or self._settings.search
        if chosen == "auto":
            shortlist = store.manifest.shortlist
            return choose(len(store), store.width, shortlist.kind if shortlist else "", self._settings.search_memory_bytes)
        if not requested and chosen == "code" and not store.bits:
            raise NotReady(f"search is set to {chosen}, but {without_codes('the index')}")
        return chosen, "asked for" if requested else f"search is set to {chosen}"

    async def search(self, store: OpenStore, subject: Subject, query: Query, stages: Stages) -> Page:
        """A page of neighbours. Raises NotFound for an item that is not there."""
        search = _Search(store, query, 1 + len(subject.leave_out))
        return _recorded(await self._searches(search, subject), "search", stages)

    async def add(self, uploads: Sequence[Upload], label: str) -> tuple[int, list[tuple[int, bool] | BadValue]]:
        """Adds photographs to the index: its version then, the id of each, and whether it was there already.

        Instead of these, the error of a photograph whose feature the index's metric has not. Raises like CurrentPair.change.
        """
        if not uploads:
            return self.pair.store.version_number, []
        once = {upload.sha256: upload for upload in uploads}
        version, ids, fresh = await self.current.change(lambda pair: self._add(pair, once, label))
        answers: list[tuple[int, bool] | BadValue] = []
        for upload in uploads:
            if upload.sha256 not in ids:
                answers.append(no_direction("image"))
                continue
            answers.append((ids[upload.sha256], upload.sha256 not in fresh))
            fresh.discard(upload.sha256)  # the second copy in a request is there already
        return version, answers

    async def remove(self, item: int) -> None:
        """Removes an item from the index, and its file where it was uploaded. Raises NotFound, and like CurrentPair.change."""
        await self.current.change(lambda pair: (pair.store.remove([item]), None))

    def close(self) -> None:
        """Waits for running work and lets go of threads and files."""
        self._decoders.close()
        self._answers.shutdown()
        for thread in self._slow.values():
            thread.shutdown(cancel_futures=True)
        self.current.close()
        self._worker.close()

    def _warm_up(self, model: Model) -> None:
        # the first pass is slow
        self._worker.submit(lambda: model.fc7(torch.zeros(1, 3, SIZE, SIZE, dtype=torch.uint8))).result()

    def _add(self, pair: Pair, uploads: dict[str, Upload], label: str) -> tuple[OpenStore, tuple[int, dict[str, int], set[str]]]:
        """The store with what is new of `uploads`, which are by SHA-256; its version, the ids, and which were new.

        Those whose features the store's metric has not are left out.
        """
        store = pair.store
        ids = store.holding(uploads)
        unknown = [_read_result(upload, label) for sha256, upload in uploads.items() if sha256 not in ids]
        if not unknown:
            return store, (store.version_number, ids, set())
        with_pixels = store.manifest.pixel_bits > 0
        block = (
            self._worker.submit(lambda: feature_block(pair.model, iter(unknown), with_pixels)).result().in_metric(store.metric)
        )
        fresh = block.files
        if fresh:
            root = (self._settings.index / artifact.UPLOADS).resolve()
            root.mkdir(exist_ok=True)
            try:
                for file in fresh:
                    write_bytes(root / file.path, uploads[file.sha256].data)
                store, added = store.add([replace(block, rejects=[])], root)
            except BaseException:
                with suppress(FC7Error, OSError):  # where it cannot be told what was published, all stay
                    published = store.renewed().holding(uploads)
                    for file in fresh:
                        if file.sha256 not in published:
                            (root / file.path).unlink(missing_ok=True)
                raise
            ids |= {file.sha256: item for file, item in zip(fresh, added, strict=True)}
        return store, (store.version_number, ids, {file.sha256 for file in fresh})


def _read_result(upload: Upload, label: str) -> ReadResult:
    example = Example(f"{upload.sha256}.{upload.photograph.format.lower()}", label)
    return ReadResult(example, upload.sha256, len(upload.data), upload.photograph)


def _recorded(result: Result[T], stage: Literal["forward", "search"], stages: Stages) -> T:
    stages.record("queue", result.waited_s)
    stages.record(stage, result.worked_s)
    return result.value


def predict(model: Model, queries: list[NetworkQuery]) -> list[Prediction]:
    """One pass of the network for several photographs; what is made of it is made here, off the event loop."""
    features_VD, chances_VK = model.answers([query.pixels_CHW for query in queries], [query.views for query in queries])
    of_views = _best(chances_VK, max(query.top for query in queries))
    predictions, start = [], 0
    for query in queries:
        end = start + query.views
        best = [row[: query.top] for row in of_views[start:end]]
        mean = best if query.views == 1 else _best(chances_VK[start:end].mean(0, keepdim=True), query.top)
        predictions.append(Prediction(features_VD[start].numpy(), mean + best))
        start = end
    return predictions


def _best(chances_VK: Tensor, top: int) -> list[Best]:
    if not top:
        return [[] for _ in chances_VK]
    values, classes = chances_VK.topk(top)
    return [list(zip(*row, strict=True)) for row in zip(classes.tolist(), values.tolist(), strict=True)]


def _pages(search: _Search, subjects: list[Subject]) -> list[Page]:
    """A page for each subject. Raises NotFound for a subject that is not there, TryAgain where hits are gone again and again."""
    store, query = search.store, search.query
    if query.after and len(subjects) > 1:
        return [page for subject in subjects for page in _pages(search, [subject])]
    items = [subject.item for subject in subjects if subject.item is not None]
    stored = iter(store.vectors(items) if items else ())
    queries_QD = np.stack([next(stored) if subject.vector_D is None else subject.vector_D for subject in subjects])
    if query.after and subjects[0].inexact:
        query = replace(query, after=_distance_again(store, queries_QD[0], query, query.after))
    for _ in range(_SEARCHES):
        hits = store.search(queries_QD, replace(query, k=query.k + search.spare))
        rows = [[hit for hit in hits.of(i) if hit[0] not in subject.leave_out] for i, subject in enumerate(subjects)]
        pages = [row[: query.k] for row in rows]
        with suppress(NotFound):  # an item that was removed since it was found, which in Milvus is gone from every store
            items_by_id = {item.id: item for item in store.items(list({item for page in pages for item, _, _ in page}))}
            break
    else:
        raise TryAgain("busy", "what is found is removed before it is told; try again when less is")
    note = note_of(store, query.filter, bool(hits.ids_QK[:, :1].max(initial=-1) >= 0))
    meanings, uncalibrated = _meanings(search, subjects, queries_QD, pages)
    return [
        Page(
            [
                (item, distance, items_by_id[item].label, items_by_id[item].path, *meaning)
                for (item, distance, _), meaning in zip(page, meanings[i], strict=True)
            ],
            _next(query, page, is_last=len(row) <= query.k),
            None if hits.buckets_Q is None else int(hits.buckets_Q[i]),
            note,
            uncalibrated,
        )
        for i, (row, page) in enumerate(zip(rows, pages, strict=True))
    ]


def _meanings(
    search: _Search, subjects: list[Subject], queries_QD: Vectors, pages: list[list[tuple[int, float, float]]]
) -> tuple[list[list[tuple[float | None, float | None]]], str | None]:
    """Percentile and probability of the same class of every neighbour; and why these are not known, where they are not."""
    if search.query.columns != "both" or search.query.metric not in (None, search.store.metric):
        return [[(None, None)] * len(page) for page in pages], _OF_WHOLE_FEATURES
    try:
        scale = scale_of(search.store, search.query.mode)
    except FC7Error as error:
        return [[(None, None)] * len(page) for page in pages], str(error)
    usual = scale.usual(queries_QD)
    meanings: list[list[tuple[float | None, float | None]]] = []
    for i, (subject, page) in enumerate(zip(subjects, pages, strict=True)):
        distances_K = np.array([distance for _, distance, _ in page])
        percentiles = scale.percentiles(distances_K).round(_DIGITS).tolist()
        chances = scale.chances(usual.steps(i, distances_K)).round(_DIGITS).tolist()
        meanings.append(list(zip(percentiles, chances if subject.examples == 1 else [None] * len(page), strict=True)))
    return meanings, None


def _without_collecting(work: Callable[[], T]) -> T:
    """The result of `work`, during which no garbage is looked for among its many objects, since that stops all threads."""
    gc.disable()
    try:
        return work()
    finally:
        gc.enable()


def _next(query: Query, page: list[tuple[int, float, float]], is_last: bool) -> Cursor | None:
    """Where the page after this one begins."""
    if query.mode == "two-stage" and query.after is None:
        # what the short-list missed may be within max_distance though nothing else on the list is
        given = tuple(item for item, _, _ in page)
        return None if is_last and query.max_distance is None else Cursor(query.mode, *START, given)
    return None if is_last else Cursor(query.mode, page[-1][2], page[-1][0], query.without)


def note_of(store: Store, filter: Filter, found: bool) -> str | None:
    """What no item has of what a filter asks for. The label "" is never missed: it is asked for where some may have none."""
    labels = () if found and len(filter.labels) == 1 else filter.labels
    asked = dict.fromkeys((*labels, *filter.exclude_labels))
    unknown = islice((label for label in asked if label and not store.count(Filter((label,)))), _MOST_NAMED)
    if names := ", ".join(f"{label!r:.100}" for label in unknown):
        return f"no item has the label {names}"
    if found or filter == Filter(filter.labels) or store.count(filter):
        return None
    return "no item passes the filter"


def _distance_again(store: Store, query_D: Vectors, query: Query, after: tuple[float, int]) -> tuple[float, int]:
    """The last hit of the page before by its distance from this query, whose last bits may be others than that page's."""
    if after == START or (query.mode in ("code", "ball") and not store.bits):
        return after  # and where codes are missing the search says so
    try:
        return store.key(query_D, after[1], query), after[1]
    except NotFound:
        return after
