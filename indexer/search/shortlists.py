"""The short-lists of an index: made for its first segment, as long as their measured recall asks; opened for all.

Legend: N rows, Q queries, K neighbours, R rows of a short-list.
"""

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from indexer.arrays import blocks
from indexer.codes import principal
from indexer.codes.principal import Principal
from indexer.scans import scan
from indexer.search import faiss_shortlist
from indexer.search.faiss_shortlist import ByFaiss
from indexer.search.shortlist import ByCodes, ByPrincipal, Shortlist
from indexer.storage import artifact
from indexer.storage.artifact import ShortlistRecord
from indexer.storage.rows import RowWriter
from indexer.storage.segment import Segment
from indexer.storage.version import Version
from training.errors import BadSettings

CODES: Final = "codes"
PRINCIPAL: Final = "principal"
TARGET: Final = 0.995  # recall@10 of both stages that the length of a short-list is chosen for
_QUERIES: Final = 200
_K: Final = 10
_LADDER: Final = (50, 100, 150, 200, 300, 400, 600, 800, 1200, 1600, 2400, 3200, 4800, 6400, 9600, 12800)


def check(kind: str, width: int, bits: int) -> None:
    """Raises BadValue or BadSettings for a short-list that cannot be made of vectors of this width and codes of these bits."""
    if kind == CODES and not bits:
        raise BadSettings("shortlist codes needs codes; give --bits too")
    if kind not in (CODES, PRINCIPAL):
        faiss_shortlist.check(kind, width, bits)


def derive(partial: Path, kind: str, bits: int, seed: int) -> tuple[ShortlistRecord, dict[str, float]]:
    """Makes the short-list of the first segment of a version that is being written, and measures codes and both stages.

    The queries are rows of the segment, held out: none is its own neighbour. The list is as long as a recall@10 of TARGET needs.
    """
    folder = partial / "0"
    vectors_ND = np.load(folder / artifact.VECTORS, mmap_mode="r")
    codes_NW = np.load(folder / artifact.CODES, mmap_mode="r") if bits else None
    if kind == PRINCIPAL:
        learned = principal.train(vectors_ND, seed)
        learned.save(partial / artifact.PRINCIPAL)
        encode_principal(folder, learned)
    elif kind != CODES:
        rows = codes_NW if faiss_shortlist.is_binary(kind) and codes_NW is not None else vectors_ND
        faiss_shortlist.build(kind, rows, partial / artifact.FAISS, bits, seed)
    made = _first(kind, partial, codes_NW, vectors_ND)
    own = np.sort(np.random.default_rng(seed + 1).permutation(len(vectors_ND))[:_QUERIES])
    queries_QD = np.array(vectors_ND[own])
    codes_QW = None if codes_NW is None else codes_NW[own]
    nearest = scan.exact(vectors_ND, queries_QD, _K + 1)[1]
    recalls: dict[int, float] = {}
    for length in _LADDER:
        recalls[length] = _recall(made.candidates(queries_QD, codes_QW, length, None), nearest, own)
        if recalls[length] >= TARGET or length >= len(vectors_ND):
            break
    length = min((length for length, recall in recalls.items() if recall >= max(recalls.values())), key=int)
    measured = {"two-stage": recalls[length]}
    if codes_NW is not None and codes_QW is not None:
        measured["codes"] = _recall(scan.hamming(codes_NW, codes_QW, _K + 1)[1], nearest, own)
    return ShortlistRecord(kind=kind, length=length, recall_at_10=recalls[length]), measured


def encode_principal(folder: Path, learned: Principal) -> None:
    """Writes the principal components of a segment's vectors."""
    rows_ND = np.load(folder / artifact.VECTORS, mmap_mode="r")
    components = RowWriter(folder / artifact.COMPONENTS, np.uint8, learned.basis_DP.shape[1])
    lengths = RowWriter(folder / artifact.LENGTHS, np.float32, 2)
    for block in blocks(len(rows_ND)):
        components_NP, lengths_N2 = learned.encode(rows_ND[block])
        components.write(components_NP)
        lengths.write(lengths_N2)
    components.close()
    lengths.close()


def open_shortlists(version: Version) -> list[Shortlist | None]:
    """What proposes the rows of each segment, None where all are compared."""
    record = version.manifest.shortlist
    if record is None:
        return [None] * len(version.segments)
    made: list[Shortlist | None] = []
    for number, segment in enumerate(version.segments):
        if record.kind == PRINCIPAL and version.principal and segment.components_NP is not None:
            assert segment.lengths_N2 is not None  # noqa: S101
            made.append(ByPrincipal(version.principal, segment.components_NP, segment.lengths_N2))
        elif record.kind != CODES and number == 0:
            made.append(ByFaiss(version.folder / artifact.FAISS, record.kind, len(segment)))
        else:
            made.append(_by_codes(segment))
    return made


def _by_codes(segment: Segment) -> Shortlist | None:
    return None if segment.codes_NW is None else ByCodes(segment.codes_NW)


def _first(kind: str, partial: Path, codes_NW: NDArray[np.uint8] | None, vectors_ND: NDArray[np.float32]) -> Shortlist:
    folder = partial / "0"
    if kind == PRINCIPAL:
        arrays = (np.load(folder / name, mmap_mode="r") for name in (artifact.COMPONENTS, artifact.LENGTHS))
        return ByPrincipal(principal.load(partial / artifact.PRINCIPAL, vectors_ND.shape[1]), *arrays)
    if kind == CODES:
        assert codes_NW is not None  # noqa: S101  checked before anything was built
        return ByCodes(codes_NW)
    return ByFaiss(partial / artifact.FAISS, kind, len(vectors_ND))


def _recall(found_QR: NDArray[np.int64], nearest_QK: NDArray[np.int64], own_Q: NDArray[np.int64]) -> float:
    """The mean share of a query's neighbours, itself apart, that are among the rows found."""
    shares = []
    for found, nearest, own in zip(found_QR, nearest_QK, own_Q, strict=True):
        wanted = nearest[(nearest != own) & (nearest >= 0)][:_K]
        if len(wanted):
            shares.append(np.isin(wanted, found).mean())
    return float(np.mean(shares)) if shares else 1.0
