"""The short-lists of an index: made for its first segment, as long as their measured recall asks; opened for all.

Recall is leave-one-out: the queries are rows of the index, none its own neighbour. The autoencoder and the components may have
been trained on the same rows.

Legend: N rows, Q queries, D width of a vector, K neighbours, R rows of a short-list.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from indexer.arrays import Codes, Keys, Rows, Vectors
from indexer.codes import principal
from indexer.scans import scan
from indexer.search import faiss_shortlist
from indexer.search.faiss_shortlist import ByFaiss
from indexer.search.shortlist import NEIGHBORS, ByCodes, ByPrincipal, Shortlist
from indexer.storage.artifact import ShortlistRecord
from indexer.storage.draft import Draft
from indexer.storage.segment import Segment, SegmentDraft
from indexer.storage.version import Version
from training.errors import BadSettings, Mismatch

CODES: Final = "codes"
PRINCIPAL: Final = "principal"
TARGET: Final = 0.995  # recall@10 of both stages that the length of a short-list is chosen for
_QUERIES: Final = 200
_LADDER: Final = (50, 100, 150, 200, 300, 400, 600, 800, 1200, 1600, 2400, 3200, 4800, 6400, 9600, 12800)


def check(kind: str, width: int, bits: int) -> None:
    """Raises BadValue or BadSettings for a short-list that cannot be made of vectors of this width and codes of these bits."""
    if kind == CODES and not bits:
        raise BadSettings("shortlist codes needs codes; give --bits too")
    if kind not in (CODES, PRINCIPAL):
        faiss_shortlist.check(kind, width, bits)


@dataclass(frozen=True)
class Measurement:
    """A short-list that has been measured, and leave-one-out recall@10 by name: of both stages, and of codes."""

    shortlist: ShortlistRecord
    recall: dict[str, float]


class LeaveOneOut:
    """Queries that are rows of an index themselves, and the neighbours that each has among the other rows."""

    def __init__(self, rows: int, seed: int) -> None:
        """Chooses the queries of an index of this many rows."""
        self.rows = rows
        self.rows_Q: Rows = np.sort(np.random.default_rng(seed + 1).permutation(rows)[:_QUERIES])
        self._keys_QK: Keys = np.empty((len(self.rows_Q), 0))
        self._nearest_QK: Rows = np.empty((len(self.rows_Q), 0), np.int64)

    def compare(self, vectors_ND: Vectors, queries_QD: Vectors, first: int = 0) -> None:
        """Looks for neighbours among rows of the index, the rows from `first` on."""
        keys_QK, rows_QK = scan.exact(vectors_ND, queries_QD, NEIGHBORS + 1)
        keys_QK = np.concatenate([self._keys_QK, keys_QK], 1)
        rows_QK = np.concatenate([self._nearest_QK, rows_QK + first], 1)
        order = np.lexsort((rows_QK, keys_QK), axis=1)[:, : NEIGHBORS + 1]
        self._keys_QK, self._nearest_QK = np.take_along_axis(keys_QK, order, 1), np.take_along_axis(rows_QK, order, 1)

    def recall(self, rows_QR: Rows) -> float:
        """The mean share of a query's NEIGHBORS, itself apart, that are among these rows."""
        shares = []
        for rows, nearest, own in zip(rows_QR, self._nearest_QK, self.rows_Q, strict=True):
            neighbors = nearest[nearest != own][:NEIGHBORS]
            if len(neighbors):
                shares.append(np.isin(neighbors, rows).mean())
        return float(np.mean(shares)) if shares else 1.0


def make(draft: Draft, segment: SegmentDraft, kind: str, bits: int, seed: int) -> Measurement:
    """Makes the short-list of a draft's first segment, and measures it and the codes."""
    vectors_ND = segment.vectors()
    codes_NW = segment.codes() if bits else None
    shortlist = _make(draft, segment, kind, vectors_ND, codes_NW, bits, seed)
    queries = LeaveOneOut(len(vectors_ND), seed)
    queries_QD = np.array(vectors_ND[queries.rows_Q])
    queries.compare(vectors_ND, queries_QD)
    return measure(shortlist, kind, queries, queries_QD, codes_NW)


def measure(shortlist: Shortlist, kind: str, queries: LeaveOneOut, queries_QD: Vectors, codes_NW: Codes | None) -> Measurement:
    """Chooses the length of a short-list, as long as a recall@10 of TARGET needs, by queries compared with every row."""
    codes_QW = None if codes_NW is None else codes_NW[queries.rows_Q]
    recalls: dict[int, float] = {}
    for length in _LADDER:
        recalls[length] = queries.recall(shortlist.candidates(queries_QD, codes_QW, length, None))
        if recalls[length] >= TARGET or length >= queries.rows:
            break
    length = min(length for length, recall in recalls.items() if recall >= max(recalls.values()))
    by_name = {"two-stage": recalls[length]}
    if codes_NW is not None and codes_QW is not None:
        by_name["codes"] = queries.recall(scan.hamming(codes_NW, codes_QW, NEIGHBORS + 1)[1])
    return Measurement(ShortlistRecord(kind=kind, length=length, recall_at_10=recalls[length]), by_name)


def open_shortlists(version: Version) -> list[Shortlist | None]:
    """What proposes the rows of each segment, None where all are compared."""
    record = version.manifest.shortlist
    if record is None:
        return [None] * len(version.segments)
    shortlists: list[Shortlist | None] = []
    for number, segment in enumerate(version.segments):
        if record.kind == PRINCIPAL and version.principal and segment.components_NP is not None:
            assert segment.lengths_N2 is not None  # noqa: S101
            shortlists.append(ByPrincipal(version.principal, segment.components_NP, segment.lengths_N2))
        elif record.kind != CODES and number == 0:
            shortlists.append(_by_faiss(version.faiss_file, record.kind, segment.vectors_ND, segment.codes_NW))
        else:
            shortlists.append(_by_codes(segment))
    return shortlists


def _by_codes(segment: Segment) -> Shortlist | None:
    return None if segment.codes_NW is None else ByCodes(segment.codes_NW)


def _make(
    draft: Draft, segment: SegmentDraft, kind: str, vectors_ND: Vectors, codes_NW: Codes | None, bits: int, seed: int
) -> Shortlist:
    if kind == CODES:
        assert codes_NW is not None  # noqa: S101  checked before anything was built
        return ByCodes(codes_NW)
    if kind == PRINCIPAL:
        components = principal.train(vectors_ND, seed)
        draft.write_principal(components)
        segment.write_components(components)
        return ByPrincipal(components, *segment.components())
    rows = codes_NW if faiss_shortlist.is_binary(kind) and codes_NW is not None else vectors_ND
    faiss_shortlist.build(kind, rows, draft.faiss_file, bits, seed)
    return _by_faiss(draft.faiss_file, kind, vectors_ND, codes_NW)


def _by_faiss(path: Path, kind: str, vectors_ND: Vectors, codes_NW: Codes | None) -> Shortlist:
    if not faiss_shortlist.is_binary(kind):
        return ByFaiss(path, kind, *vectors_ND.shape)
    if codes_NW is None:
        raise Mismatch(f"{path} is a short-list over codes, and the index has none")
    return ByFaiss(path, kind, len(codes_NW), 8 * codes_NW.shape[1])
