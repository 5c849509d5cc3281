"""Where the next page of an answer begins, as a text that a client hands back with the same question.

It holds the mode and the last hit's position in the order, so the pages go on after it whatever was added or removed meanwhile.
In two stages it holds the first page's ids too: what a short-list gave cannot be told again once the index has changed.
"""

import base64
import hashlib
import json
import math
import struct
from dataclasses import asdict, dataclass
from typing import Final

from indexer.store import LARGEST_ID, MODES, Columns, Filter, Mode
from training.errors import BadValue

MOST_GIVEN: Final = 1000  # ids: at 16 million items 4 kB of text, in a URL of which proxies take 8
_POSITION: Final = struct.Struct("<BdqB")  # number of the mode, key, id, bytes of each id that was given
_SEAL_BYTES: Final = 12  # with the position 30 bytes, which take 40 characters and no padding
LONGEST: Final = (_POSITION.size + 8 * MOST_GIVEN + _SEAL_BYTES) * 4 // 3 + 1  # characters


@dataclass(frozen=True)
class Question:
    """What a cursor is bound to: the search whose pages it goes through."""

    model: str  # fingerprint
    metric: str  # of the index
    subject: str  # tells what neighbours are looked for of from everything else
    filter: Filter
    max_distance: float | None
    radius: int | None
    columns: Columns = "both"


@dataclass(frozen=True)
class Cursor:
    """The position after which the next page begins."""

    mode: Mode
    key: float  # of store.Hits, exact
    id: int
    given: tuple[int, ...] = ()  # in two stages: the ids on the first page

    def text(self, question: Question) -> str:
        """The cursor for the next page of the answer to `question`, in characters that a URL takes as they are."""
        width = -(-max(self.given, default=0).bit_length() // 8) or 1
        position = _POSITION.pack(MODES.index(self.mode), self.key, self.id, width)
        content = position + b"".join(item.to_bytes(width, "little") for item in self.given)
        return base64.urlsafe_b64encode(content + _seal(content, question)).decode().rstrip("=")


def read(text: str, question: Question) -> Cursor:
    """The cursor that was given for this question. Raises BadValue for a damaged one and for another question's.

    The seal has no key: anybody can make one. So no cursor that is read has numbers that no search could have given.
    """
    try:
        content = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))[:-_SEAL_BYTES]
        number, key, last, width = _POSITION.unpack_from(content)
        starts = range(_POSITION.size, len(content), width)
        given = tuple(int.from_bytes(content[start : start + width], "little") for start in starts)
        found = Cursor(MODES[number], key, last, given)
        possible = 0 <= key < math.inf and last >= -1 and len(given) <= MOST_GIVEN and max(given, default=0) <= LARGEST_ID
        if possible and found.text(question) == text:
            return found
    except (ValueError, IndexError, OverflowError, struct.error):
        pass
    raise BadValue("cursor", text, "the `next` of an answer to this same question, undamaged")


def _seal(content: bytes, question: Question) -> bytes:
    return hashlib.sha256(content + json.dumps(asdict(question), sort_keys=True, default=str).encode()).digest()[:_SEAL_BYTES]
