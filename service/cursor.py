"""Where the next page of an answer begins, as a text that a client hands back with the same question.

It holds the mode and the last hit's position in the order, so the pages go on after it whatever was added or removed meanwhile.
"""

import base64
import hashlib
import json
import math
import struct
from dataclasses import asdict, dataclass
from typing import Final

from indexer.store import MODES, Filter, Mode
from training.errors import BadValue

_POSITION: Final = struct.Struct("<Bdq")  # number of the mode, key, id
_SEAL_BYTES: Final = 13  # with the position 30 bytes, which take 40 characters and no padding


@dataclass(frozen=True)
class Question:
    """What a cursor is bound to: the search whose pages it goes through."""

    model: str  # fingerprint
    metric: str  # of the index
    subject: str  # tells what neighbours are looked for of from everything else
    filter: Filter
    max_distance: float | None
    radius: int | None


@dataclass(frozen=True)
class Cursor:
    """The position after which the next page begins."""

    mode: Mode
    key: float  # of store.Hits, exact
    id: int

    def text(self, question: Question) -> str:
        """The cursor for the next page of the answer to `question`, in characters that a URL takes as they are."""
        position = _POSITION.pack(MODES.index(self.mode), self.key, self.id)
        return base64.urlsafe_b64encode(position + _seal(position, question)).decode()


def read(text: str, question: Question) -> Cursor:
    """The cursor that was given for this question. Raises BadValue for a damaged one and for another question's."""
    try:
        data = base64.b64decode(text.encode(), b"-_", validate=True)
        position = data[: _POSITION.size]
        number, key, item = _POSITION.unpack(position)
        sealed = data[_POSITION.size :] == _seal(position, question) and base64.urlsafe_b64encode(data).decode() == text
        if sealed and number < len(MODES) and math.isfinite(key):
            return Cursor(MODES[number], key, item)
    except (ValueError, struct.error):
        pass
    raise BadValue("cursor", text, "the `next` of an answer to this same question, undamaged")


def _seal(position: bytes, question: Question) -> bytes:
    return hashlib.sha256(position + json.dumps(asdict(question), sort_keys=True).encode()).digest()[:_SEAL_BYTES]
