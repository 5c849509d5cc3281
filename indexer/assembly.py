"""Shards of features -> a published version: vectors, codes, short-list, and what they recall.

The rows pass through memory a block at a time; training takes a sample of them.
"""

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from indexer.changes import write_deleted, write_shard
from indexer.codes import autoencoder
from indexer.features import FeatureBlock
from indexer.milvus.index import collections, drop_unused, move
from indexer.search.shortlists import derive
from indexer.storage import artifact
from indexer.storage.segment import SegmentWriter, write_codes
from training.images.preprocess import ImageLimits


@dataclass(frozen=True)
class Plan:
    """What an index is to hold beside the vectors."""

    bits: int = 128  # of the codes; 0 for none
    pixel_codes: bool = False  # whether to keep raw pixels and their codes too, for comparison
    shortlist: str = "principal"  # see indexer/search/shortlist.py
    seed: int = 0
    store: str = ""  # Milvus to put the items into; see place.parse


@dataclass(frozen=True)
class Assembled:
    """What became of the shards."""

    version: int
    kept: int
    rejects: list[dict[str, str]]


def assemble(index: Path, shards: Iterable[FeatureBlock], root: Path, width: int, plan: Plan, **facts: Any) -> Assembled:
    """Writes, trains, encodes, measures and publishes; returns what was published, or version 0 where there was no item.

    `facts` are the fields of Manifest that the shards do not tell.
    """
    partial = artifact.new_version(index)
    writer = SegmentWriter(partial / "0", width, plan.pixel_codes)
    rejects: list[dict[str, str]] = []
    for shard in shards:
        write_shard(writer, shard, root, range(len(shard.items)), writer.rows)
        rejects += shard.rejects
    kept = writer.finish()
    if not kept:
        shutil.rmtree(partial)
        return Assembled(0, 0, rejects)
    (partial / artifact.REJECTS).write_text("".join(json.dumps(reject) + "\n" for reject in rejects))
    write_deleted(partial, np.empty(0, np.int64))
    if plan.bits:
        _learn(partial, plan, artifact.VECTORS, artifact.CODES, artifact.AUTOENCODER)
    if plan.pixel_codes:
        _learn(partial, plan, artifact.PIXELS, artifact.PIXEL_CODES, artifact.PIXEL_AUTOENCODER)
    shortlist, recall = derive(partial, plan.shortlist, plan.bits, plan.seed)
    milvus = None
    if plan.store:
        limits = ImageLimits.model_validate(facts["limits"])
        milvus = move(partial, plan.store, root, facts["fingerprint"], width, limits)
    before = collections(index)
    version = artifact.publish(
        index,
        partial,
        width=width,
        bits=plan.bits,
        pixel_bits=plan.bits if plan.pixel_codes else 0,
        kept=kept,
        rejected=len(rejects),
        next_id=kept,
        segments=[] if milvus else [kept],
        milvus=milvus,
        shortlist=shortlist,
        recall=recall,
        **facts,
    )
    drop_unused(before)
    return Assembled(version, kept, rejects)


def _learn(partial: Path, plan: Plan, of: str, to: str, name: str) -> None:
    rows = np.load(partial / "0" / of, mmap_mode="r")
    learned = autoencoder.train(rows, plan.bits, plan.seed)
    autoencoder.save(learned, partial / name)
    write_codes(partial / "0", learned, of, to)
