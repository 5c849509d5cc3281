"""Changes of an index: what is added becomes a segment of its own, what is removed a line in a list; all published in one step.

The work is in proportion to the change. So that there are never many segments, a new one takes in those before it that are no
larger, but never the first, which only `compact` rewrites. Whoever calls holds the index (training.files.exclusively).

Legend: N rows.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from indexer.features import FeatureBlock
from indexer.metric import vectors_of
from indexer.search import shortlists
from indexer.search.shortlists import CODES
from indexer.storage import artifact
from indexer.storage.artifact import Manifest, RejectRecord, WithManifest
from indexer.storage.draft import Draft
from indexer.storage.originals import SourceFolders, forget_uploads, recorded_root
from indexer.storage.rejects import Rejects
from indexer.storage.segment import SegmentDraft, SegmentWriter
from indexer.storage.version import Version
from indexer.store import Item, now
from training.errors import NotReady


def add(version: Version, feature_blocks: Iterable[FeatureBlock], root: Path) -> tuple[list[int], bool]:
    """Publishes the version with these items too.

    Returns the ids they got, row for row, and whether a version was published: not where every file was an item already, by its
    bytes, or a reject. A file is one reject, however often it is added, and none once it is an item.
    """
    manifest = version.manifest.model_copy()
    draft = Draft(version.index)
    segment = draft.segment(len(version.segments))
    writer = segment.writer(manifest.width, manifest.pixel_bits > 0)
    folders = SourceFolders(manifest.sources, manifest.linked)
    ids: list[int] = []
    before = artifact.reject_records(version.folder)
    rejects = Rejects(version.index, before)
    known: dict[str, int] = {}
    added_at = now()
    for block in feature_blocks:
        known |= holding(version, [file.sha256 for file in block.files])
        new = []
        first = manifest.next_id
        for row, file in enumerate(block.files):
            if file.sha256 not in known:
                known[file.sha256] = manifest.next_id
                manifest.next_id += 1
                new.append(row)
            ids.append(known[file.sha256])
        block = replace(block, features_ND=vectors_of(block.features_ND, manifest.metric))
        write_rows(writer, block, version.index, root, new, first, added_at, folders)
        rejects.take(block, root)
    added = writer.finish()
    manifest.rejected = len(rejects.records)
    if not added:
        segment.discard()
        return ids, _publish_rejects(version, draft, manifest, before, rejects.records)
    kept_segments, segment, rows = _merge_tail(version, draft, segment, added)
    _encode(segment, version)
    if version.principal:
        segment.write_components(version.principal)
    draft.take_over(version, kept_segments, without={artifact.DELETED, artifact.REJECTS})
    merged = np.concatenate([np.empty(0, np.int64), *(s.ids_N for s in version.segments[kept_segments:])])
    deleted = np.setdiff1d(version.deleted, merged)
    draft.write_deleted(deleted)
    draft.write_rejects(rejects.records)
    manifest.kept += added
    manifest.sources, manifest.linked = folders.sources, folders.linked
    manifest.deleted = len(deleted)
    manifest.segments = [*manifest.segments[:kept_segments], rows]
    draft.publish(manifest)
    return ids, True


def remove(version: Version, ids: Sequence[int]) -> None:
    """Publishes the version without these items, which are there; files of theirs that came over HTTP are deleted.

    A reject that is a copy of such an item is none any more.
    """
    gone = [item for segment in version.segments for item in segment.catalog.items(ids).values()]
    hashes = {item.sha256 for item in gone}
    rejects = Rejects(version.index, artifact.reject_records(version.folder))
    rejects.forget_copies(hashes)
    manifest = version.manifest.model_copy()
    draft = Draft(version.index)
    draft.take_over(version, len(version.segments), without={artifact.DELETED, artifact.REJECTS})
    draft.write_rejects(rejects.records)
    manifest.rejected = len(rejects.records)
    deleted = np.union1d(version.deleted, np.array(ids, np.int64))
    draft.write_deleted(deleted)
    manifest.deleted = len(deleted)
    manifest.kept = sum(manifest.segments) - len(deleted)
    draft.publish(manifest)
    forget_uploads(version.index, gone)


def compact(version: Version) -> None:
    """Publishes the same items as one segment, without the rows of those that were removed; the short-list is made anew."""
    manifest = version.manifest.model_copy()
    if not manifest.kept:
        raise NotReady(f"every item of {version.index} has been removed; `python -m indexer.build` makes an index anew")
    artifact.verify_segments(version.folder, manifest, 0)
    draft = Draft(version.index)
    segment = draft.segment(0)
    writer = segment.writer(manifest.width, manifest.pixel_bits > 0)
    for old in version.segments:
        writer.copy(old, version.deleted)
    manifest.segments, manifest.deleted = [writer.finish()], 0
    draft.take_over(version, 0, without={artifact.DELETED, artifact.PRINCIPAL, artifact.FAISS})
    _encode(segment, version)
    draft.write_deleted(np.empty(0, np.int64))
    kind = manifest.shortlist.kind if manifest.shortlist else CODES
    measurement = shortlists.make(draft, segment, kind, manifest.bits, manifest.configuration.seed)
    manifest.shortlist, manifest.recall = measurement.shortlist, measurement.recall
    draft.publish(manifest)


def attach(index: Path, version: WithManifest, files: Mapping[str, bytes]) -> int:
    """Publishes the same items beside these files of the version, which replace those of their names; the version's number."""
    draft = Draft(index)
    draft.take_over(version, len(version.manifest.segments), without=files.keys())
    for name, data in files.items():
        draft.write(name, data)
    return draft.publish(version.manifest)


def holding(version: Version, sha256s: Sequence[str]) -> dict[str, int]:
    """Which of these files are items of a version: SHA-256 -> id; the smallest where several are."""
    rows = [row for segment in version.segments for row in segment.catalog.holding(sha256s)]
    live = ~np.isin(np.array([item for _, item in rows], np.int64), version.deleted)
    return {sha256: item for (sha256, item), here in reversed(list(zip(rows, live, strict=True))) if here}


def write_rows(
    writer: SegmentWriter,
    block: FeatureBlock,
    index: Path,
    root: Path,
    rows: Sequence[int],
    first_id: int,
    added: int,
    folders: SourceFolders,
) -> None:
    """Appends rows of a block, as items numbered from `first_id` on that are added at `added`; see Item.

    Their paths are below `root`, or the block's folder. `folders` notes where they lie.
    """
    folder, jpegs = recorded_root(index, block.folder or root), block.jpegs()
    items = [Item.of(block.files[row], first_id + i, folder, added) for i, row in enumerate(rows)]
    pixels = None if block.pixels_NP is None else block.pixels_NP[list(rows)]
    folders.take(folder, [item.path for item in items])
    writer.add(items, block.features_ND[list(rows)], pixels, [jpegs[row] for row in rows])


def _publish_rejects(
    version: Version, draft: Draft, manifest: Manifest, before: list[RejectRecord], after: list[RejectRecord]
) -> bool:
    """Publishes the same items beside other rejects, where these are others."""
    if after == before:
        draft.discard()
        return False
    draft.take_over(version, len(version.segments), without={artifact.REJECTS})
    draft.write_rejects(after)
    draft.publish(manifest)
    return True


def _merge_tail(version: Version, draft: Draft, added: SegmentDraft, rows: int) -> tuple[int, SegmentDraft, int]:
    """Puts what was added into one segment with those before it that are no larger: its number, itself, and its rows."""
    number, size = len(version.segments), rows
    while number > 1 and len(version.segments[number - 1]) <= size:
        number -= 1
        size += len(version.segments[number])
    if number == len(version.segments):
        return number, added, rows
    artifact.verify_segments(version.folder, version.manifest, number)  # what is copied is signed anew
    merged = draft.segment(number)
    writer = merged.writer(version.manifest.width, version.manifest.pixel_bits > 0)
    for segment in version.segments[number:]:
        writer.copy(segment, version.deleted)
    tail = added.open(version.manifest.width)
    writer.copy(tail, np.empty(0, np.int64))
    tail.catalog.close()
    added.discard()
    return number, merged, writer.finish()


def _encode(segment: SegmentDraft, version: Version) -> None:
    if version.autoencoder:
        segment.write_codes(version.autoencoder)
    if version.pixel_autoencoder:
        segment.write_pixel_codes(version.pixel_autoencoder)
