"""Where the next page of an answer begins, as a text that a client hands back with the same question.

It holds the mode and the last hit's place in the order, so the pages go on after it whatever was added or removed meanwhile.
"""

import base64
import hashlib
import json
import math
import struct
from dataclasses import dataclass
from typing import Final

from indexer.store import MODES, Mode
from training.errors import BadValue

_PLACE: Final = struct.Struct("<Bdq")  # number of the mode, key, id
_SEAL_BYTES: Final = 13  # with the place 30 bytes, which take 40 characters and no padding


@dataclass(frozen=True)
class Cursor:
    """The place after which the next page begins."""

    mode: Mode
    key: float  # of store.Hits, exact
    id: int

    def text(self, question: dict[str, object]) -> str:
        """The cursor for the next page of the answer to `question`, in characters that a URL takes as they are."""
        place = _PLACE.pack(MODES.index(self.mode), self.key, self.id)
        return base64.urlsafe_b64encode(place + _seal(place, question)).decode()


def read(text: str, question: dict[str, object]) -> Cursor:
    """The cursor that was given for this question. Raises BadValue for a damaged one and for another question's."""
    try:
        data = base64.b64decode(text.encode(), b"-_", validate=True)
        place = data[: _PLACE.size]
        number, key, item = _PLACE.unpack(place)
        if data[_PLACE.size :] == _seal(place, question) and number < len(MODES) and math.isfinite(key):
            return Cursor(MODES[number], key, item)
    except (ValueError, struct.error):
        pass
    raise BadValue("cursor", text, "the `next` of an answer to this same question, undamaged")


def _seal(place: bytes, question: dict[str, object]) -> bytes:
    return hashlib.sha256(place + json.dumps(question, sort_keys=True).encode()).digest()[:_SEAL_BYTES]
