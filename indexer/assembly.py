"""Blocks of features -> a published version: vectors, codes, short-list, and what they recall.

The rows pass through memory a block at a time; training takes a sample of them.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from indexer.analysis import layout
from indexer.analysis.atlas import AtlasMaker
from indexer.arrays import Rows, Vectors, sample
from indexer.changes import write_rows
from indexer.codes import autoencoder, principal
from indexer.features import FeatureBlock
from indexer.metric import Metric
from indexer.milvus.index import collections, drop_unused, new_collection
from indexer.search import shortlists
from indexer.search.shortlist import ByCodes
from indexer.search.shortlists import CODES, PRINCIPAL, LeaveOneOut, Measurement
from indexer.storage.artifact import BuildConfiguration, Manifest, MilvusRecord, RejectRecord
from indexer.storage.atlas import LayerRecord
from indexer.storage.draft import Draft
from indexer.storage.originals import SourceFolders, recorded_root
from indexer.storage.rejects import reject_records
from indexer.store import normalised, now
from training.checkpoint import FeatureLayer
from training.files import printable
from training.images.folders import Reject
from training.images.preprocess import ImageLimits
from training.program import progress


@dataclass(frozen=True)
class Source:
    """Where blocks of features come from."""

    folder: Path  # that the items' paths are below
    fingerprint: str  # of the model that made them
    width: int  # components of a feature
    limits: ImageLimits
    layers: Mapping[str, LayerRecord] | None = None  # of the model, where blocks have its activations and an atlas is wanted
    layer: FeatureLayer = "fc7"  # whose values they are


@dataclass(frozen=True)
class Plan:
    """What an index is to hold beside the vectors."""

    bits: int = 128  # of the codes; 0 for none
    metric: Metric = "euclidean"
    pixel_codes: bool = False  # whether to keep raw pixels and their codes too, for comparison
    shortlist: str = PRINCIPAL  # see indexer/search/shortlist.py
    store: str = ""  # Milvus to put the items into, whose short-list are the codes; see connection.parse
    map: bool = False  # whether to place the items on a plane
    configuration: BuildConfiguration = field(default_factory=BuildConfiguration)


@dataclass(frozen=True)
class BuildResult:
    """What became of the blocks."""

    version_number: int  # 0: there was no item, and nothing is published
    kept: int
    rejects: list[RejectRecord]


class _Prepared:
    """Blocks of what the metric compares, in which every photograph is there once, by its bytes; its copies are rejects.

    Can be gone through again.
    """

    def __init__(self, feature_blocks: Iterable[FeatureBlock], metric: Metric) -> None:
        self._feature_blocks, self._metric = feature_blocks, metric

    def __iter__(self) -> Iterator[FeatureBlock]:
        paths: dict[bytes, str] = {}
        for block in (block.in_metric(self._metric) for block in self._feature_blocks):
            copies: dict[int, Reject] = {}
            for row, file in enumerate(block.files):
                first = paths.setdefault(bytes.fromhex(file.sha256), file.path)
                if first is not file.path:
                    copies[row] = Reject(printable(file.path), f"is a copy of {printable(first)}, which is indexed", file.sha256)
            yield block.without(copies.keys(), copies.values())


@dataclass
class _Contents:
    """What a draft has been given."""

    rows: int = 0
    rejects: list[RejectRecord] = field(default_factory=list)
    measurement: Measurement | None = None
    milvus: MilvusRecord | None = None
    atlas: AtlasMaker | None = None

    def take(self, block: FeatureBlock, rejects: list[RejectRecord]) -> None:
        """Notes what a block adds."""
        self.rows += len(block.files)
        self.rejects += rejects
        if self.atlas:
            self.atlas.take(block)


def assemble(index: Path, feature_blocks: Iterable[FeatureBlock], source: Source, plan: Plan) -> BuildResult:
    """Writes, trains, encodes, measures and publishes.

    The blocks are gone through once for an index on disk, and three times for one in Milvus; some times more for a map.
    """
    draft = Draft(index)
    feature_blocks = _Prepared(feature_blocks, plan.metric)
    folders = SourceFolders()
    contents = _Contents(atlas=AtlasMaker(source.fingerprint, source.layers) if source.layers else None)
    (_in_milvus if plan.store else _on_disk)(contents, index, draft, feature_blocks, source, plan, folders)
    if contents.measurement is None:
        draft.discard()
        return BuildResult(0, 0, contents.rejects)
    if contents.atlas:
        draft.write_atlas(contents.atlas.atlas())
    if plan.map:
        _write_layout(draft, feature_blocks, source, plan, contents.rows)
    draft.write_rejects(contents.rejects)
    draft.write_deleted(np.empty(0, np.int64))
    before = collections(index)
    manifest = Manifest(
        fingerprint=source.fingerprint,
        layer=source.layer,
        metric=plan.metric,
        width=source.width,
        bits=plan.bits,
        pixel_bits=plan.bits if plan.pixel_codes else 0,
        kept=contents.rows,
        rejected=len(contents.rejects),
        next_id=contents.rows,
        limits=source.limits,
        sources=folders.sources,
        linked=folders.linked,
        segments=[] if contents.milvus else [contents.rows],
        shortlist=contents.measurement.shortlist,
        recall=contents.measurement.recall,
        configuration=plan.configuration,
        milvus=contents.milvus,
    )
    number = draft.publish(manifest)
    drop_unused(index, before)
    return BuildResult(number, contents.rows, contents.rejects)


def _on_disk(
    contents: _Contents,
    index: Path,
    draft: Draft,
    feature_blocks: Iterable[FeatureBlock],
    source: Source,
    plan: Plan,
    folders: SourceFolders,
) -> None:
    segment, seed, added = draft.segment(0), plan.configuration.seed, now()
    writer = segment.writer(source.width, plan.pixel_codes)
    for block in feature_blocks:
        write_rows(writer, block, index, source.folder, range(len(block.files)), writer.rows, added, folders)
        contents.take(block, reject_records(index, source.folder, block))
    writer.finish()
    if not contents.rows:
        return
    if plan.bits:
        encoder = autoencoder.train(segment.vectors(), plan.bits, seed)
        draft.write_autoencoder(encoder)
        segment.write_codes(encoder)
    if plan.pixel_codes:
        encoder = autoencoder.train(segment.pixels(), plan.bits, seed)
        draft.write_pixel_autoencoder(encoder)
        segment.write_pixel_codes(encoder)
    contents.measurement = shortlists.make(draft, segment, plan.shortlist, plan.bits, seed)


def _in_milvus(
    contents: _Contents,
    index: Path,
    draft: Draft,
    feature_blocks: Iterable[FeatureBlock],
    source: Source,
    plan: Plan,
    folders: SourceFolders,
) -> None:
    """Counts the rows, trains on a sample of them, and measures while they go to Milvus; on disk there is only what encodes."""
    blocks, seed = 0, plan.configuration.seed
    for block in feature_blocks:
        folders.take(recorded_root(index, block.folder or source.folder), [file.path for file in block.files])
        contents.take(block, reject_records(index, source.folder, block))
        blocks += 1
    if not contents.rows:
        return
    queries = LeaveOneOut(contents.rows, seed)
    # those that autoencoder.train would take of all rows
    training_rows = sample(contents.rows, np.random.default_rng(seed))
    sample_ND, queries_QD = _rows(feature_blocks, training_rows, queries.rows_Q)
    encoder = autoencoder.train(sample_ND, plan.bits, seed)
    del sample_ND
    draft.write_autoencoder(encoder)
    codes = []

    def compared() -> Iterator[FeatureBlock]:
        first = 0
        for block in progress(feature_blocks, blocks, "into Milvus", "blocks"):
            if block.files:
                queries.compare(block.features_ND, queries_QD, first)
                codes.append(encoder.encode(block.features_ND))
                first += len(block.files)
            yield block

    with new_collection(plan.store, encoder, source.fingerprint, source.limits, plan.metric) as (store, contents.milvus):
        store.fill(compared(), source.folder, index)
        codes_NW = np.concatenate(codes)
        contents.measurement = shortlists.measure(ByCodes(codes_NW), CODES, queries, queries_QD, codes_NW)


def _write_layout(draft: Draft, feature_blocks: Iterable[FeatureBlock], source: Source, plan: Plan, rows: int) -> None:
    """Takes the components of the short-list where it is of principal components, and else makes such."""
    seed = plan.configuration.seed
    if plan.shortlist == PRINCIPAL:
        components_NP = draft.segment(0).components()[0]
    else:
        [sample_ND] = _rows(feature_blocks, sample(rows, np.random.default_rng(seed)))
        basis = principal.train(sample_ND, seed)
        del sample_ND
        components_NP = np.concatenate([basis.encode(block.features_ND)[0] for block in feature_blocks if block.files])
    labels = [normalised(file.label) for block in feature_blocks for file in block.files]
    places = layout.make(components_NP, labels, lambda: (block.features_ND for block in feature_blocks), source.fingerprint, seed)
    draft.write_layout(places)


def _rows(feature_blocks: Iterable[FeatureBlock], *wanted: Rows) -> list[Vectors]:
    """The features of some rows, and of others, each in ascending order."""
    parts: list[list[Vectors]] = [[] for _ in wanted]
    first = 0
    for block in feature_blocks:
        end = first + len(block.files)
        for part, rows in zip(parts, wanted, strict=True):
            part.append(block.features_ND[rows[(rows >= first) & (rows < end)] - first])
        first = end
    return [np.concatenate(part) for part in parts]
