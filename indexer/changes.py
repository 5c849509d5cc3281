"""Changes of an index: what is added becomes a segment of its own, what is removed a line in a list; all published in one step.

The work is in proportion to the change. So that there are never many segments, a new one takes in those before it that are no
larger, but never the first, which only `compact` rewrites. Whoever calls holds the index (training.files.exclusively).

Legend: N rows.
"""

import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.features import FeatureBlock
from indexer.search.shortlists import CODES, derive, encode_principal
from indexer.storage import artifact
from indexer.storage.originals import forget_uploads
from indexer.storage.rows import RowWriter
from indexer.storage.segment import SegmentWriter, open_segment, write_codes
from indexer.storage.version import Version
from indexer.store import Item
from training.errors import NotReady


def add(version: Version, shards: Iterable[FeatureBlock], root: Path) -> tuple[list[int], bool]:
    """Publishes the version with these items too.

    Returns the ids they got, row for row, and whether anything was new: a file whose bytes are an item's already keeps its id.
    """
    manifest = version.manifest
    partial = artifact.new_version(version.index)
    fresh, ids, rejects, next_id = partial / "new", [], [], manifest.next_id
    writer = SegmentWriter(fresh, manifest.width, manifest.pixel_bits > 0)
    known: dict[str, int] = {}
    for shard in shards:
        known |= holding(version, [fields["sha256"] for fields in shard.items])
        keep = []
        for row, fields in enumerate(shard.items):
            if fields["sha256"] not in known:
                known[fields["sha256"]] = next_id
                next_id += 1
                keep.append(row)
            ids.append(known[fields["sha256"]])
        first = next_id - len(keep)
        write_shard(writer, shard, root, keep, first)
        rejects += shard.rejects
    writer.finish()
    if not writer.rows:
        shutil.rmtree(partial)
        return ids, False
    kept_segments = _merge_tail(version, partial, writer.rows)
    segments = [*manifest.segments[:kept_segments], len(np.load(partial / str(kept_segments) / artifact.IDS, mmap_mode="r"))]
    _write_codes(version, partial / str(kept_segments))
    if version.principal:
        encode_principal(partial / str(kept_segments), version.principal)
    untouched = [n for n in manifest.files if "/" not in n or int(n.split("/")[0]) < kept_segments]
    changed = {artifact.DELETED, artifact.REJECTS}
    artifact.take_over(version.folder, partial, [name for name in untouched if name not in changed])
    merged = np.concatenate([np.empty(0, np.int64), *(s.ids_N for s in version.segments[kept_segments:])])
    deleted = np.setdiff1d(version.deleted, merged)
    write_deleted(partial, deleted)
    old_rejects = (version.folder / artifact.REJECTS).read_text()
    (partial / artifact.REJECTS).write_text(old_rejects + "".join(json.dumps(reject) + "\n" for reject in rejects))
    _publish(
        version,
        partial,
        kept=manifest.kept + writer.rows,
        rejected=manifest.rejected + len(rejects),
        deleted=len(deleted),
        next_id=next_id,
        segments=segments,
    )
    return ids, True


def remove(version: Version, ids: Sequence[int]) -> None:
    """Publishes the version without these items, which are there; files of theirs that came over HTTP are deleted."""
    gone = [item for segment in version.segments for item in segment.catalog.items(ids).values()]
    partial = artifact.new_version(version.index)
    artifact.take_over(version.folder, partial, [name for name in version.manifest.files if name != artifact.DELETED])
    deleted = np.union1d(version.deleted, np.array(ids, np.int64))
    write_deleted(partial, deleted)
    _publish(version, partial, kept=sum(version.manifest.segments) - len(deleted), deleted=len(deleted))
    forget_uploads(version.index, gone)


def compact(version: Version) -> None:
    """Publishes the same items as one segment, without the rows of those that were removed; the short-list is made anew."""
    manifest = version.manifest
    if not manifest.kept:
        raise NotReady(f"every item of {version.index} has been removed; `python -m indexer.build` makes an index anew")
    partial = artifact.new_version(version.index)
    writer = SegmentWriter(partial / "0", manifest.width, manifest.pixel_bits > 0)
    for segment in version.segments:
        writer.copy(segment, version.deleted)
    writer.finish()
    names = {artifact.REJECTS, artifact.AUTOENCODER, artifact.PIXEL_AUTOENCODER} & set(manifest.files)
    artifact.take_over(version.folder, partial, names)
    _write_codes(version, partial / "0")
    write_deleted(partial, np.empty(0, np.int64))
    kind = manifest.shortlist.kind if manifest.shortlist else CODES
    shortlist, recall = derive(partial, kind, manifest.bits, manifest.configuration.get("seed", 0))
    _publish(version, partial, segments=[writer.rows], deleted=0, shortlist=shortlist, recall=recall)


def holding(version: Version, sha256s: Sequence[str]) -> dict[str, int]:
    """Which of these files are items of a version: SHA-256 -> id; the smallest where several are."""
    rows = [row for segment in version.segments for row in segment.catalog.holding(sha256s)]
    live = ~np.isin(np.array([item for _, item in rows], np.int64), version.deleted)
    return {sha256: item for (sha256, item), here in reversed(list(zip(rows, live, strict=True))) if here}


def write_shard(writer: SegmentWriter, shard: FeatureBlock, root: Path, keep: Sequence[int], first_id: int) -> None:
    """Appends the rows `keep` of a shard, as items numbered from `first_id` on."""
    sizes = [fields["thumbnail_size"] for fields in shard.items]
    ends = np.cumsum(sizes)
    items = [Item(id=first_id + i, root=str(root.resolve()), thumbnail_start=0, **shard.items[row]) for i, row in enumerate(keep)]
    thumbnails = b"".join(shard.thumbnails[ends[row] - sizes[row] : ends[row]] for row in keep)
    pixels = None if shard.pixels_NP is None else shard.pixels_NP[list(keep)]
    writer.add(items, shard.features_ND[list(keep)], pixels, thumbnails)


def write_deleted(folder: Path, ids_N: NDArray[np.int64]) -> None:
    """Writes the list of removed items, ascending."""
    writer = RowWriter(folder / artifact.DELETED, np.int64, None)
    writer.write(ids_N)
    writer.close()


def _merge_tail(version: Version, partial: Path, rows: int) -> int:
    """Makes the segment that was written to `new` the next one, with those before it that are no larger; returns its number."""
    number = len(version.segments)
    while number > 1 and len(version.segments[number - 1]) <= rows:
        number -= 1
        rows += len(version.segments[number])
    if number == len(version.segments):
        (partial / "new").rename(partial / str(number))
        return number
    manifest = version.manifest
    writer = SegmentWriter(partial / str(number), manifest.width, manifest.pixel_bits > 0)
    for segment in version.segments[number:]:
        writer.copy(segment, version.deleted)
    writer.copy(open_segment(partial / "new", manifest.width, 0, 0, 0), np.empty(0, np.int64))
    writer.finish()
    shutil.rmtree(partial / "new")
    return number


def _write_codes(version: Version, folder: Path) -> None:
    if version.autoencoder:
        write_codes(folder, version.autoencoder, artifact.VECTORS, artifact.CODES)
    if version.pixel_autoencoder:
        write_codes(folder, version.pixel_autoencoder, artifact.PIXELS, artifact.PIXEL_CODES)


def _publish(version: Version, partial: Path, **changes: Any) -> None:
    facts = dict(version.manifest) | changes
    known = facts.pop("files")
    for name in ("created", "format"):
        del facts[name]
    taken = {name: record for name, record in known.items() if _is_same(version.folder / name, partial / name)}
    artifact.publish(version.index, partial, taken, **facts)


def _is_same(old: Path, new: Path) -> bool:
    return new.exists() and new.samefile(old)
