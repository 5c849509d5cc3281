"""Files and pictures answered by the book: validators, conditions and ranges (RFC 9110, sections 8, 13 and 14)."""

import hashlib
import os
import re
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import formatdate
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO, Final

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

_CHUNK_BYTES: Final = 2**16
_TAG: Final = re.compile(r'(?:^|,)[ \t]*(W/)?("[!#-~\x80-\xff]*")[ \t]*(?=,|$)')
_RANGE_SET: Final = re.compile(r"(?i:bytes)=[ \t]*((?:[0-9]+-[0-9]*|-[0-9]+)(?:[ \t]*,[ \t]*(?:[0-9]+-[0-9]*|-[0-9]+))*)[ \t]*")
_DATES: Final = ("%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %d %H:%M:%S %Y")
_MOST_DIGITS: Final = 18  # of a position that a file can have


@dataclass(frozen=True)
class _Validators:
    """What tells one state of a file or picture from another."""

    etag: str
    size: int
    modified_s: int | None  # since 1970


def answer(request: Request, content: bytes | Path, media_type: str) -> Response:
    """These bytes, or this file, as the answer of a GET; 304 or a part of them where that is what the request's headers ask for.

    A set of several ranges is answered with the whole. Raises HTTPException (412, 416), and OSError for a file that cannot be
    opened.
    """
    if isinstance(content, bytes):
        validators = _Validators(f'"{hashlib.sha256(content).hexdigest()}"', len(content), None)
        status, headers, start, end = _decide(request.headers, validators)
        body = None if status is HTTPStatus.NOT_MODIFIED else content[start:end]
        return Response(body, status, headers, None if body is None else media_type)
    with ExitStack() as closing:
        file = closing.enter_context(content.open("rb"))
        about = os.fstat(file.fileno())
        etag = f'"{about.st_mtime_ns:x}-{about.st_ino:x}-{about.st_size:x}"'
        validators = _Validators(etag, about.st_size, min(int(about.st_mtime), int(time.time())))
        status, headers, start, end = _decide(request.headers, validators)
        if status is HTTPStatus.NOT_MODIFIED:
            return Response(None, status, headers)
        closing.pop_all()
        return _FilePart(file, start, end, status, headers, media_type)


def _decide(asked: Headers, validators: _Validators) -> tuple[HTTPStatus, dict[str, str], int, int]:
    """Status and headers of the answer, and where what it holds begins and ends."""
    headers = {"Cache-Control": "no-cache", "ETag": validators.etag}
    if validators.modified_s is not None:
        headers["Last-Modified"] = formatdate(validators.modified_s, usegmt=True)
    if _is_unchanged(asked, validators):
        return HTTPStatus.NOT_MODIFIED, headers, 0, 0
    headers["Accept-Ranges"] = "bytes"
    part = _part(asked, validators)
    if part is None:
        return HTTPStatus.OK, headers, 0, validators.size
    start, end = part
    headers["Content-Range"] = f"bytes {start}-{end - 1}/{validators.size}"
    return HTTPStatus.PARTIAL_CONTENT, headers, start, end


class _FilePart(Response):
    """The bytes from `start` to `end` of an open file, which is read as the client takes them, and then closed."""

    def __init__(self, file: BinaryIO, start: int, end: int, status: int, headers: Mapping[str, str], media_type: str) -> None:
        self._file, self._start, self._end = file, start, end
        super().__init__(None, status, {**headers, "Content-Length": str(end - start)}, media_type)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            self._file.seek(self._start)
            left = self._end - self._start
            while left:
                chunk = await run_in_threadpool(self._file.read, min(_CHUNK_BYTES, left))
                if not chunk:
                    raise OSError(f"{self._file.name} has become shorter while it was sent")
                left -= len(chunk)
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._file.close()


def _is_unchanged(asked: Headers, validators: _Validators) -> bool:
    """Whether 304 is the answer, by the order of section 13.2.2. Raises HTTPException where a precondition fails."""
    etag, modified_s = validators.etag, validators.modified_s
    if "if-match" in asked:
        tags = _tags(asked, "if-match")
        if tags is not None and ("", etag) not in tags:
            raise _failed("If-Match")
    elif (since_s := _date(asked.get("if-unmodified-since"))) is not None and modified_s is not None and modified_s > since_s:
        raise _failed("If-Unmodified-Since")
    if "if-none-match" in asked:
        tags = _tags(asked, "if-none-match")
        return tags is None or etag in {tag for _, tag in tags}
    since_s = _date(asked.get("if-modified-since"))
    return since_s is not None and modified_s is not None and modified_s <= since_s


def _part(asked: Headers, validators: _Validators) -> tuple[int, int] | None:
    """Start and end of the one range that is asked for; None for the whole. Raises HTTPException where it lies outside."""
    size = validators.size
    ranges = _RANGE_SET.fullmatch(",".join(asked.getlist("range")))
    if not ranges or not _is_current(asked.get("if-range"), validators):
        return None
    parts = []
    for one in ranges[1].split(","):
        first, last = (_position(digits) for digits in one.strip(" \t").split("-"))
        if first is None:
            start, end = max(size - (last or 0), 0), size
        elif last is None or last >= first:
            start, end = first, size if last is None else min(last + 1, size)
        else:
            return None  # not well made, and so all of it is as if it were not there
        if start < end:
            parts.append((start, end))
    if not parts:
        raise HTTPException(
            HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
            f"Range lies outside the {size} bytes that there are",
            {"Content-Range": f"bytes */{size}"},
        )
    return parts[0] if len(parts) == 1 else None


def _is_current(validator: str | None, validators: _Validators) -> bool:
    """Whether If-Range is left out, or names what there is by a strong validator."""
    if validator is None or validator == validators.etag:
        return True
    date_s = _date(validator)
    # what has changed within this second may change in it again
    return date_s is not None and date_s == validators.modified_s and date_s < int(time.time())


def _tags(headers: Headers, name: str) -> list[tuple[str, str]] | None:
    """The entity tags of a list as ("W/" or "", tag); None for `*`."""
    value = ",".join(headers.getlist(name)).strip(" \t")
    return None if value == "*" else _TAG.findall(value)


def _date(text: str | None) -> int | None:
    """Seconds since 1970 of an HTTP date in one of its three forms; None for anything else."""
    for form in _DATES if text else ():
        try:
            return int(datetime.strptime(str(text).strip(), form).replace(tzinfo=UTC).timestamp())
        except ValueError:
            pass
    return None


def _position(digits: str) -> int | None:
    """A number of any length, cut where it lies beyond every file anyway; None for no digits."""
    return int(digits.lstrip("0")[: _MOST_DIGITS + 1] or "0") if digits else None


def _failed(header: str) -> HTTPException:
    return HTTPException(HTTPStatus.PRECONDITION_FAILED, f"{header} does not hold for what there is now")
