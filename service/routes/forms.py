"""A form (multipart/form-data) taken apart: what a field holds is told by its name, whatever else its headers say."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote_to_bytes

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from training.errors import BadValue

MEDIA_TYPE: Final = "multipart/form-data"
PHOTOGRAPHS: Final = "image"
LIKE, UNLIKE = "like", "unlike"
_MOST_OTHERS: Final = 100  # fields that are no photographs
_PIECE: Final = 2**18  # bytes that are copied while the event loop stands
_EXTENDED: Final = re.compile(r"""(?i)\*\s*=\s*"?(utf-8|iso-8859-1)'[^';]*'([^\s";]*)""")  # RFC 8187, after a parameter's name


@dataclass(frozen=True)
class Form:
    """A form: its photographs as (name, bytes), and its other fields as (name, bytes)."""

    images: list[tuple[str, bytes]]
    others: list[tuple[str, bytes]]
    like: list[tuple[str, bytes]] = field(default_factory=list)  # photographs that are examples of one query
    unlike: list[tuple[str, bytes]] = field(default_factory=list)


@dataclass
class _Part:
    header: bytearray = field(default_factory=bytearray)  # the name of the one that is being read
    value: bytearray = field(default_factory=bytearray)
    disposition: str = ""
    pieces: list[bytes] = field(default_factory=list)
    latest: bytearray = field(default_factory=bytearray)

    def add(self, data: memoryview) -> None:
        """Takes the next of its content."""
        self.latest.extend(data)
        if len(self.latest) >= _PIECE:
            self.pieces.append(bytes(self.latest))
            self.latest.clear()

    def content(self) -> bytes:
        """All of it; joined from `bytes`, which the interpreter does while other threads run, as it copies no other array."""
        return b"".join([*self.pieces, bytes(self.latest)])


async def read(content_type: str, body: AsyncIterator[bytes], most_images: int) -> "Parts":
    """The parts that a body holds. Raises BadValue for one that is not well made, or has more parts than may be."""
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not boundary or any(mark in boundary for mark in b';"\\'):
        raise _not_well_made(f"the boundary {boundary.decode('latin-1')[:100]!r}")
    parts = Parts(boundary, most_images)
    async for chunk in body:
        parts.feed(chunk)
    return parts


class Parts:
    """The parts of a body that comes in pieces."""

    def __init__(self, boundary: bytes, most_images: int) -> None:
        self.size = 0  # bytes that came
        self._parts: list[_Part] = []
        self._most_images, self._most = most_images, most_images + _MOST_OTHERS
        self._ended = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": lambda data, start, end: self._parts[-1].header.extend(data[start:end]),
                    "on_header_value": lambda data, start, end: self._parts[-1].value.extend(data[start:end]),
                    "on_header_end": self._end_header,
                    "on_part_data": lambda data, start, end: self._parts[-1].add(memoryview(data)[start:end]),
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise _not_well_made(str(error)) from error

    def feed(self, chunk: bytes) -> None:
        """Takes the next piece. Raises BadValue."""
        self.size += len(chunk)
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise _not_well_made(str(error)) from error

    def form(self) -> Form:
        """The form, once all is here; not for the event loop where that is much. Raises BadValue for one that cannot be."""
        if not self._ended:  # a part that was cut off would be left out without a word
            raise _not_well_made("no boundary at the end")
        photographs: dict[str, list[tuple[str, bytes]]] = {PHOTOGRAPHS: [], LIKE: [], UNLIKE: []}
        others = []
        while self._parts:  # emptied, so that the bytes are there but once
            part = self._parts.pop(0)
            name, file_name = (_parameter(part.disposition, parameter) for parameter in ("name", "filename"))
            if name is None:
                raise _not_well_made("a part without a name")
            if name in photographs:
                photographs[name].append((file_name or name, part.content()))
            elif file_name is not None:
                raise BadValue(PHOTOGRAPHS, f"the file field {name[:100]!r}", "the name of every file's field")
            else:
                others.append((name, part.content()))
        count = sum(map(len, photographs.values()))
        if count > self._most_images:
            raise BadValue(PHOTOGRAPHS, f"{count} files", f"at most {self._most_images} files a request")
        return Form(photographs[PHOTOGRAPHS], others, photographs[LIKE], photographs[UNLIKE])

    def _begin(self) -> None:
        if len(self._parts) == self._most:
            raise _not_well_made(f"more than {self._most} parts")
        self._parts.append(_Part())

    def _end_header(self) -> None:
        part = self._parts[-1]
        if part.header.lower() == b"content-disposition":
            part.disposition = part.value.decode("latin-1")
        part.header.clear()
        part.value.clear()

    def _end(self) -> None:
        self._ended = True


def _parameter(disposition: str, name: str) -> str | None:
    """A parameter, also in the extended notation that RFC 7578 forbids, where it stands alone."""
    plain = parse_options_header(disposition)[1].get(name.encode())
    if plain is not None:
        return _decoded(plain)
    start = re.search(rf"(?i);\s*{name}(?=\*)", disposition)
    extended = start and _EXTENDED.match(disposition, start.end())
    return _decoded(unquote_to_bytes(extended[2]), extended[1]) if extended else None


def _decoded(data: bytes, encoding: str = "utf-8") -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _not_well_made(what: str) -> BadValue:
    return BadValue("body", what, "a well-made form")
