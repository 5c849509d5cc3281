"""Requests that no browser sends: damaged and hostile photographs, in bodies and headers that are wrong in their own ways.

Everything is made from a seed and a number, so a request that does harm can be made again: `request(seed, number)`.
"""

import base64
import json
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Final, NamedTuple

import numpy as np
from PIL import Image

from tests.conftest import encoded, photograph

KEY: Final = "a key for the fuzzed service"
BOMB: Final = 60_000  # pixels a side, as declared
Random = np.random.Generator
Mutation = Callable[[Random, str, bytes], bytes]  # the photograph's name in `photographs`, and its bytes


class RawRequest(NamedTuple):
    """One request."""

    method: str
    path: str  # with the query
    headers: list[tuple[bytes, bytes]]  # without Host and Content-Length
    body: bytes
    what: str  # for people


@cache
def photographs() -> dict[str, bytes]:
    """Good files of every format that is accepted, in many of its kinds; the name begins with the format's."""
    image = photograph(5, (90, 120, 160))
    alpha = image.copy()
    alpha.putalpha(Image.linear_gradient("L").resize(image.size))
    deep = Image.fromarray((np.arange(72 * 96, dtype=np.uint32) * 9).astype(np.uint16).reshape(72, 96))

    def frames() -> list[Image.Image]:
        return [photograph(seed) for seed in (6, 7, 8)]  # an image remembers the encoder that it was last written by

    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    files = {
        "jpeg": encoded(image.copy(), exif=exif, icc_profile=b"\0" * 200, comment=b"a comment"),
        "jpeg progressive": encoded(image.copy(), progressive=True),
        "jpeg grey": encoded(image.convert("L")),
        "jpeg cmyk": encoded(image.convert("CMYK")),
        "jpeg mpo": encoded(image.copy(), "MPO", save_all=True, append_images=frames()),
        "png": encoded(image.copy(), "PNG", exif=exif, icc_profile=b"\0" * 200),
        "png palette": encoded(image.quantize(16), "PNG", transparency=3),
        "png bilevel": encoded(image.convert("1"), "PNG"),
        "png deep": encoded(deep, "PNG"),
        "png alpha": encoded(alpha, "PNG"),
        "png animated": encoded(image.copy(), "PNG", save_all=True, append_images=frames()),
        "webp": encoded(image.copy(), "WEBP", exif=exif),
        "webp lossless": encoded(alpha, "WEBP", lossless=True),
        "webp animated": encoded(image.copy(), "WEBP", save_all=True, append_images=frames()),
        "gif": encoded(image.copy(), "GIF"),
        "gif animated": encoded(image.copy(), "GIF", save_all=True, append_images=frames()),
        "bmp": encoded(image.copy(), "BMP"),
        "bmp palette": encoded(image.quantize(16), "BMP"),
        "tiff": encoded(image.copy(), "TIFF", exif=exif),
        "tiff deep": encoded(deep, "TIFF"),
        "tiff float": encoded(image.convert("F"), "TIFF"),
        "tiff pages": encoded(image.copy(), "TIFF", save_all=True, append_images=frames()),
        "tiff fax": encoded(image.convert("1"), "TIFF", compression="group4"),
    }
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        files[f"tiff {compression}"] = encoded(image.copy(), "TIFF", compression=compression)
    return files


def requests(seed: int, count: int) -> Iterator[RawRequest]:
    """`count` requests, always the same for a seed."""
    return (request(seed, number) for number in range(count))


def request(seed: int, number: int) -> RawRequest:
    """The request with this number."""
    rng = np.random.default_rng([seed, number])
    kind = rng.choice(["file", "multipart", "json", "query"], p=[0.6, 0.17, 0.17, 0.06])
    return {"file": _file, "multipart": _multipart, "json": _json, "query": _query}[kind](rng)


def good(data: bytes) -> RawRequest:
    """A request that classifies this photograph."""
    return RawRequest("POST", "/classify", *_form([_part(data)]), "good")


def mutated(rng: Random) -> tuple[bytes, str]:
    """A photograph that something was done to, and what."""
    name = str(rng.choice(list(photographs())))
    data, what = photographs()[name], name
    for _ in range(1 if rng.random() < 0.8 else 2):
        mutation = str(rng.choice(list(MUTATIONS)))
        data, what = MUTATIONS[mutation](rng, name, data), f"{what}, {mutation}"
    return data, what


def _untouched(_rng: Random, _name: str, data: bytes) -> bytes:
    return data


def _truncated(rng: Random, _name: str, data: bytes) -> bytes:
    return data[: rng.integers(0, len(data))] if data else data


def _bits_flipped(rng: Random, _name: str, data: bytes) -> bytes:
    changed = bytearray(data)
    for offset in rng.integers(0, 8 * len(data), int(2 ** rng.uniform(0, 7))) if data else ():
        changed[offset // 8] ^= 1 << (offset % 8)
    return bytes(changed)


def _run_overwritten(rng: Random, _name: str, data: bytes) -> bytes:
    length = int(2 ** rng.uniform(0, 10))
    run = rng.bytes(length) if rng.random() < 0.5 else bytes([rng.choice([0, 0x7F, 0xFF])]) * length
    start = int(rng.integers(0, len(data) + 1))
    return data[:start] + run + data[start + length :]


def _run_removed(rng: Random, _name: str, data: bytes) -> bytes:
    start = int(rng.integers(0, len(data) + 1))
    return data[:start] + data[start + int(2 ** rng.uniform(0, 8)) :]


def _run_repeated(rng: Random, _name: str, data: bytes) -> bytes:
    start, end = sorted(rng.integers(0, len(data) + 1, 2).tolist())
    return data[:end] + data[start:end] * int(rng.integers(1, 20)) + data[end:]


def _header_overwritten(rng: Random, _name: str, data: bytes) -> bytes:
    start = int(rng.integers(0, 64))
    value = int(rng.choice([0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]))
    order = "<" if rng.random() < 0.5 else ">"
    return data[:start] + struct.pack(f"{order}I", value) + data[start + 4 :]


def _dimensions_blown_up(rng: Random, name: str, data: bytes) -> bytes:
    """Declares BOMB x BOMB pixels, or BOMB in one direction, where the format says its size."""
    width, height = [(BOMB, BOMB), (BOMB, 1), (1, BOMB), (BOMB, 0), (0, 0)][rng.integers(0, 5)]
    return with_dimensions(name, data, width, height)


def with_dimensions(name: str, data: bytes, width: int, height: int) -> bytes:
    """The file with another size in its header, and checksums that fit; as it was where the header is not found."""
    changed = bytearray(data)
    match name.split()[0]:
        case "png" if len(data) > 33:
            changed[16:24] = struct.pack(">II", width, height)
            changed[29:33] = struct.pack(">I", zlib.crc32(changed[12:29]))
        case "jpeg":
            for frame in (b"\xff\xc0\x00", b"\xff\xc2\x00"):
                offset = data.find(frame)
                if 0 < offset < len(data) - 9:
                    changed[offset + 5 : offset + 9] = struct.pack(">HH", height, width)
        case "gif" if len(data) > 10:
            changed[6:10] = struct.pack("<HH", width, height)
            offset = data.find(b"\x2c\0\0\0\0")  # the first frame
            if 0 < offset < len(data) - 9:
                changed[offset + 5 : offset + 9] = struct.pack("<HH", width, height)
        case "bmp" if len(data) > 26:
            changed[18:26] = struct.pack("<ii", width, -height)
        case "webp":
            offset = data.find(b"VP8X")
            if 0 < offset < len(data) - 18:
                changed[offset + 12 : offset + 18] = (
                    struct.pack("<I", max(width, 1) - 1)[:3] + struct.pack("<I", max(height, 1) - 1)[:3]
                )
        case "tiff" if data[:4] == b"II*\0" and len(data) > 8:
            for offset in _tiff_entries(data):
                tag = struct.unpack_from("<H", data, offset)[0]
                if tag in (256, 257):
                    changed[offset + 2 : offset + 12] = struct.pack("<HII", 4, 1, width if tag == 256 else height)
    return bytes(changed)


def _tiff_entries(data: bytes) -> list[int]:
    """Where the entries of a little-endian TIFF's first directory begin."""
    start = struct.unpack_from("<I", data, 4)[0]
    if start + 2 > len(data):
        return []
    count = struct.unpack_from("<H", data, start)[0]
    return [offset for offset in range(start + 2, start + 2 + 12 * count, 12) if offset + 12 <= len(data)]


def _tiff_entry_changed(rng: Random, _name: str, data: bytes) -> bytes:
    data = data if data[:4] == b"II*\0" and len(data) > 8 else photographs()["tiff tiff_lzw"]
    changed = bytearray(data)
    for offset in rng.permutation(_tiff_entries(data))[:2].tolist():
        value = int(rng.choice([0, 1, 8, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, len(data)]))
        field = int(rng.integers(0, 4))
        if field == 0:
            changed[offset + 2 : offset + 4] = struct.pack("<H", rng.integers(0, 20))
        elif field == 1:
            changed[offset + 4 : offset + 8] = struct.pack("<I", value)
        else:
            changed[offset + 8 : offset + 12] = struct.pack("<I", value)
    return bytes(changed)


def _tiff_directory_loops(rng: Random, _name: str, data: bytes) -> bytes:
    data = data if data[:4] == b"II*\0" and len(data) > 8 else photographs()["tiff"]
    entries = _tiff_entries(data)
    if not entries:
        return data
    start, end = struct.unpack_from("<I", data, 4)[0], entries[-1] + 12
    changed = bytearray(data)
    changed[end : end + 4] = struct.pack("<I", rng.choice([start, end, 4, len(data)]))
    if rng.random() < 0.5:  # an entry of the directory is the directory of EXIF or of more images
        changed[entries[-1] : entries[-1] + 12] = struct.pack("<HHII", rng.choice([34665, 330, 34853]), 4, 1, start)
    return bytes(changed)


def overlapping_tags(tags: int, size: int) -> bytes:
    """A TIFF directory whose `tags` entries all have the same `size` bytes for their value, which so are there `tags` times."""
    entries = [(256, 3, 1, 8), (257, 3, 1, 8), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8), (279, 4, 1, 64)]
    values = 8 + 2 + 12 * (len(entries) + tags) + 4
    entries += [(40_000 + tag, 7, size, values) for tag in range(tags)]
    directory = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + directory + bytes(4) + bytes(size)


def _overlapping(rng: Random, _name: str, _data: bytes) -> bytes:
    tags = overlapping_tags(int(rng.integers(1, 500)), int(rng.integers(5, 20_000)))
    return [tags, with_chunk(photographs()["png"], b"eXIf", tags), with_segment(photographs()["jpeg"], 0xE1, b"Exif\0\0" + tags)][
        rng.integers(0, 3)
    ]


def _magic_swapped(rng: Random, _name: str, data: bytes) -> bytes:
    magic = (b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0", b"MM\0*", b"RIFF\0\0\0\0WEBP", b"%PDF-1.7\n")
    start = bytes(rng.choice(np.array(magic, object)))
    return start + data[len(start) :]


def _followed(rng: Random, _name: str, data: bytes) -> bytes:
    return data + bytes(rng.choice(np.array(list(photographs().values()), object)))


def _polyglot(rng: Random, _name: str, data: bytes) -> bytes:
    page = b"<html><script>alert(document.domain)</script></html>"
    archive = b"PK\x03\x04\x14" + bytes(25) + b"PK\x05\x06" + bytes(18)
    return [
        b"GIF89a/*" + data + b"*/=1;" + page,
        data + page,
        data + archive,
        b"%PDF-1.7\n" + data,
        b"#!/bin/sh\nexit\n" + data,
        page,
        archive,
    ][rng.integers(0, 7)]


def _nothing(rng: Random, _name: str, data: bytes) -> bytes:
    return [b"", b"\0", data[:1], b"\n" * 100, b"\xff" * 10_000][rng.integers(0, 5)]


def with_chunk(png: bytes, kind: bytes, content: bytes) -> bytes:
    """The PNG with one more chunk before its pixels."""
    chunk = struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return png[:33] + chunk + png[33:]


def with_segment(jpeg: bytes, marker: int, content: bytes) -> bytes:
    """The JPEG with one more segment, or as many as it takes, after its first marker."""
    pieces = [content[i : i + 65_533] for i in range(0, max(len(content), 1), 65_533)]
    return jpeg[:2] + b"".join(struct.pack(">BBH", 0xFF, marker, len(piece) + 2) + piece for piece in pieces) + jpeg[2:]


def _chunk_added(rng: Random, _name: str, _data: bytes) -> bytes:
    bomb = zlib.compress(bytes(2**24), 9)
    kind, content = [
        (b"zTXt", b"Comment\0\0" + bomb),
        (b"iTXt", b"Comment\0\1\0en\0\0" + bomb),
        (b"tEXt", b"Comment\0" + b"x" * 2**20),
        (b"iCCP", b"profile\0\0" + bomb),
        (b"iCCP", rng.bytes(300)),
        (b"eXIf", rng.bytes(300)),
        (b"tRNS", rng.bytes(500)),
        (b"PLTE", rng.bytes(767)),
        (b"gAMA", b""),
        (b"IHDR", rng.bytes(13)),
        (b"acTL", struct.pack(">II", 2**31 - 1, 0)),
        (b"fcTL", rng.bytes(26)),
        (rng.bytes(4), b""),
    ][rng.integers(0, 13)]
    name = str(rng.choice(["png", "png palette", "png deep", "png alpha", "png animated"]))
    return with_chunk(photographs()[name], kind, content)


def _segment_added(rng: Random, _name: str, _data: bytes) -> bytes:
    marker, content = [
        (0xE2, b"ICC_PROFILE\0\1\1" + rng.bytes(300)),
        (0xE2, b"ICC_PROFILE\0\0\xff"),
        (0xE2, b"MPF\0" + rng.bytes(100)),
        (0xE1, b"Exif\0\0" + rng.bytes(300)),
        (0xE1, b"http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation='6'" + b"<" * 10_000),
        (0xED, b"Photoshop 3.0\0" + rng.bytes(300)),
        (0xEE, b"Adobe" + rng.bytes(7)),
        (0xE0, b"JFIF" + rng.bytes(3)),
        (0xDD, struct.pack(">H", rng.choice([0, 1, 0xFFFF]))),
        (0xDB, rng.bytes(65)),
        (0xC4, rng.bytes(40)),
        (0xFE, b"x" * 1_000_000),
    ][rng.integers(0, 12)]
    name = str(rng.choice(["jpeg", "jpeg progressive", "jpeg grey", "jpeg cmyk", "jpeg mpo"]))
    return with_segment(photographs()[name], marker, content)


def _orientation_odd(rng: Random, _name: str, _data: bytes) -> bytes:
    """EXIF whose orientation has a wrong value, type or count, and whose directories lead to one another."""
    value = int(rng.choice([0, 1, 5, 8, 9, 255, 65_535, 2**31, 2**32 - 1]))
    entries = [
        struct.pack("<HHII", 0x0112, rng.integers(0, 14), rng.choice([0, 1, 2, 1000, 2**32 - 1]), value),
        struct.pack("<HHII", 0x8769, 4, 1, 8),
        struct.pack("<HHII", 0xA005, 4, 1, 8),
    ]
    exif = struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + b"".join(entries) + struct.pack("<I", 8)
    if rng.random() < 0.5:
        return with_segment(photographs()["jpeg grey"], 0xE1, b"Exif\0\0" + exif)
    return with_chunk(photographs()["png alpha"], b"eXIf", exif)


def with_scans(jpeg: bytes, times: int) -> bytes:
    """A progressive JPEG whose last scan comes `times` times more."""
    last = jpeg.rfind(b"\xff\xda")
    return jpeg[:-2] + jpeg[last:-2] * times + jpeg[-2:]


def _scans_repeated(rng: Random, _name: str, _data: bytes) -> bytes:
    return with_scans(photographs()["jpeg progressive"], int(rng.integers(10, 3000)))


def _restarts_added(rng: Random, _name: str, _data: bytes) -> bytes:
    data = with_segment(photographs()["jpeg"], 0xDD, b"\0\1")
    return data[:-2] + b"".join(bytes([0xFF, 0xD0 + i % 8]) for i in range(int(rng.integers(1, 10_000)))) + data[-2:]


def _comments_added(rng: Random, _name: str, _data: bytes) -> bytes:
    gif, times = photographs()["gif"], int(rng.integers(1, 5000))
    offset = gif.find(b"\x2c\0\0\0\0")
    return gif[:offset] + b"\x21\xfe\x01x\0" * times + gif[offset:]


def _small_parts_added(rng: Random, _name: str, _data: bytes) -> bytes:
    times = int(rng.integers(1, 5000))
    if rng.random() < 0.5:
        return with_chunk(photographs()["png"], b"", b"")[:33] + _empty_chunk(b"teSt") * times + photographs()["png"][33:]
    return photographs()["jpeg"][:2] + b"\xff\xe5\0\2" * times + photographs()["jpeg"][2:]


def _empty_chunk(kind: bytes) -> bytes:
    return bytes(4) + kind + struct.pack(">I", zlib.crc32(kind))


MUTATIONS: Final[dict[str, Mutation]] = {
    "untouched": _untouched,
    "truncated": _truncated,
    "bits flipped": _bits_flipped,
    "a run overwritten": _run_overwritten,
    "a run removed": _run_removed,
    "a run repeated": _run_repeated,
    "header overwritten": _header_overwritten,
    "dimensions blown up": _dimensions_blown_up,
    "a TIFF entry changed": _tiff_entry_changed,
    "TIFF directories loop": _tiff_directory_loops,
    "overlapping tags": _overlapping,
    "magic swapped": _magic_swapped,
    "followed by another": _followed,
    "polyglot": _polyglot,
    "nothing": _nothing,
    "a PNG chunk added": _chunk_added,
    "a JPEG segment added": _segment_added,
    "an odd orientation": _orientation_odd,
    "scans repeated": _scans_repeated,
    "restarts added": _restarts_added,
    "GIF comments added": _comments_added,
    "small parts added": _small_parts_added,
}
_NAMES: Final = (
    b"a.jpg", b"", b"../../etc/passwd", b"C:\\windows\\x.jpg", b"a\tb\x01\x7f.jpg", b"x" * 5000, b"\xff\xfe.jpg",
    "ü😀.jpg".encode(),
    b"a.jpg\0.html", b"<script>alert(1)</script>", b"%00%0d%0aX: y", b"a;b=c", b'a\\"b', b"+2AA-", b"\\ud800", b"a..b", b"xn--a",
)  # fmt: skip
_CHARSETS: Final = (
    b"utf-8", b"utf-7", b"utf-16", b"utf-32", b"idna", b"punycode", b"unicode_escape", b"raw_unicode_escape", b"undefined",
    b"hex",
    b"zlib", b"rot13", b"mbcs", b"", b"nonsense", b"x" * 300, b"\xff", b"charmap", b"oem",
)  # fmt: skip
_PATHS: Final = ("/classify", "/neighbors", "/items")


def _path(rng: Random) -> str:
    return str(rng.choice(_PATHS, p=[0.6, 0.3, 0.1]))


def _part(data: bytes, name: bytes = b"image", filename: bytes | None = b"a.jpg", kind: bytes = b"image/jpeg") -> bytes:
    named = b"" if filename is None else b'; filename="' + filename + b'"'
    return b'Content-Disposition: form-data; name="' + name + b'"' + named + b"\r\nContent-Type: " + kind + b"\r\n\r\n" + data


def _form(parts: list[bytes], boundary: bytes = b"b0undary") -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Headers and body of a form."""
    body = b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts) + b"--" + boundary + b"--\r\n"
    return _headers(b"multipart/form-data; boundary=" + boundary), body


def _headers(kind: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"Content-Type", kind), (b"X-API-Key", KEY.encode())]


def _file(rng: Random) -> RawRequest:
    """A mutated photograph, alone or among others, in a good form or in good JSON."""
    several = [mutated(rng) for _ in range(1 if rng.random() < 0.8 else int(rng.integers(2, 6)))]
    what = "; ".join(what for _, what in several)
    path = _path(rng)
    query = str(rng.choice(["", "?views=10", "?timings=true"])) if path == "/classify" else ""
    if rng.random() < 0.7 or path == "/items":
        return RawRequest("POST", path + query, *_form([_part(data) for data, _ in several]), f"form: {what}")
    inputs = [{"image": base64.b64encode(data).decode()} for data, _ in several]
    return RawRequest(
        "POST", path + query, _headers(b"application/json"), json.dumps({"inputs": inputs}).encode(), f"json: {what}"
    )


def _multipart(rng: Random) -> RawRequest:
    """A form that is wrong; its photograph is good."""
    photo = photographs()["jpeg"]
    filename = bytes(rng.choice(np.array(_NAMES, object)))
    part = _part(photo, filename=filename)
    what = str(
        rng.choice([
            "as it should be", "charset", "content type", "boundary", "no final boundary", "wrong length", "no name",
            "no headers",
            "duplicate headers", "nested", "many parts", "many fields", "long header", "line feeds", "between", "encoding",
            "text",
        ])
    )  # fmt: skip
    headers, body = _form([part])
    match what:
        case "charset":
            charset = bytes(rng.choice(np.array(_CHARSETS, object)))
            headers[0] = (b"Content-Type", headers[0][1] + b"; charset=" + charset)
            what = f"charset {charset.decode('latin-1')}"
        case "content type":
            kinds = [b"multipart/form-data", b"", b"text/plain", b"application/x-www-form-urlencoded",
                     b"multipart/mixed; boundary=b0undary",
                     b"MULTIPART/FORM-DATA; BOUNDARY=b0undary", b"multipart/form-data; boundary=other", b"image/jpeg",
                     b"\xff\xfe",
                     b"multipart/form-data;" * 200, b"application/json; charset=utf-16"]  # fmt: skip
            headers[0] = (b"Content-Type", bytes(rng.choice(np.array(kinds, object))))
        case "boundary":
            boundary = bytes(rng.choice(np.array([b"x" * 300, b"-", b"\xe4\xf6", b'"', b'"a b"', b"", b"'", b"a;b"], object)))
            headers, body = _form([part], boundary)
        case "no final boundary":
            body = body[: -int(rng.integers(1, 30))]
        case "wrong length":
            body = _form([b"Content-Length: %d\r\n" % rng.choice([0, 1, 2**40]) + part])[1]
        case "no name":
            body = _form([part.replace(b' name="image";', b"")])[1]
        case "no headers":
            body = _form([photo, b"\r\n" + photo])[1]
        case "duplicate headers":
            body = _form([b'Content-Disposition: form-data; name="label"\r\n' * int(rng.integers(1, 500)) + part])[1]
        case "nested":
            inner = _form([part], b"inner")[1]
            body = _form([_part(inner, kind=b"multipart/mixed; boundary=inner")])[1]
        case "many parts":
            body = _form([_part(b"x")] * int(rng.integers(30, 2500)))[1]
        case "many fields":
            body = _form([_part(b"x", b"other", None)] * int(rng.integers(30, 2500)))[1]
        case "long header":
            body = _form([b"X: " + b"y" * int(2 ** rng.uniform(8, 20)) + b"\r\n" + part])[1]
        case "line feeds":
            body = body.replace(b"\r\n", b"\n")
        case "between":
            body = rng.bytes(100) + body.replace(b"\r\n--", rng.bytes(10) + b"\r\n--") + rng.bytes(100)
        case "encoding":
            headers.append((b"Content-Encoding", bytes(rng.choice(np.array([b"gzip", b"br", b"identity", b"x"], object)))))
            body = _form([b"Content-Transfer-Encoding: base64\r\n" + _part(base64.b64encode(photo))])[1]
        case "text":
            body = _form([_part(photo, filename=None), _part(b"\xff\xfe", b"label", None)])[1]
    path = _path(rng)
    return RawRequest("POST", path, headers, body, f"multipart: {what}; file name {filename[:40]!r}")


def _json(rng: Random) -> RawRequest:
    """JSON that is wrong."""
    image = base64.b64encode(photographs()["jpeg"]).decode()
    path = str(rng.choice(["/classify", "/neighbors"]))
    inputs: list[Any] = [
        [], {}, None, "image", 7, [None], [[]], ["image"], [{}], [{"image": None}], [{"image": 1}], [{"image": ""}],
        [{"image": "====" * 9}],
        [{"image": image[:-1]}], [{"image": image + "\n"}], [{"image": "data:image/jpeg;base64," + image}],
        [{"image": image.replace("/", "_")}],
        [{"image": "ü" + image}], [{"image": "\ud800"}], [{"name": "\ud800", "image": image}], [{"name": "\0" * 20,
        "image": image}],
        [{"name": "x" * 100_000, "image": image}], [{"name": 3, "image": image}], [{"image": image, "id": 0}], [{"image": image,
        "other": 1}],
        [{"id": 0}], [{"id": -1}], [{"id": 10**400}], [{"id": 2**63}], [{"id": 0.5}], [{"id": "0"}], [{"id": True}],
        [{"id": None}],
        [{"id": 999_999_999}], [{"id": 0}, {"id": 999_999_999}], [{"id": 0}] * 40, [{"vector": []}], [{"vector": [0.0] * 32}],
        [{"vector": [0.0] * 4096}], [{"vector": [float("nan")] * 32}], [{"vector": [float("inf")] * 32}],
        [{"vector": [1e308] * 32}],
        [{"vector": [-1e-320] * 32}], [{"vector": [10**400] * 32}], [{"vector": ["0"] * 32}], [{"vector": [[0]] * 32}],
        [{"vector": [True] * 32}], [{"vector": {}}], [{"vector": [0] * 100_000}], [{"image": image}, {"image": "?"},
        {"image": image}],
        [{"image": image}] * 3,
    ]  # fmt: skip
    number = int(rng.integers(0, len(inputs) + 12))
    if number < len(inputs):
        body = json.dumps({"inputs": inputs[number]}).encode()
        return RawRequest("POST", path, _headers(b"application/json"), body, f"json: inputs {body[:60]!r}")
    bodies = [
        b"", b"{", b"null", b"[]", b'"x"', b"NaN", b"1e999", b"[" * 100_000, b'{"inputs":' * 50_000, b"\xff\xfe{}",
        b'{"inputs": [{"id": 0}], "inputs": 1}',
        json.dumps({"inputs": [{"image": image}]}).encode("utf-16"),
    ]  # fmt: skip
    body = bodies[number - len(inputs)]
    kind = bytes(
        rng.choice(np.array([b"application/json", b"application/json; charset=utf-16", b"application/vnd.api+json"], object))
    )
    return RawRequest("POST", path, _headers(kind), body, f"json: {body[:60]!r} as {kind.decode()}")


def _query(rng: Random) -> RawRequest:
    """Parameters, paths, methods and headers that are wrong; the photograph is good."""
    headers, body = _form([_part(photographs()["jpeg"])])
    method, path = [
        ("POST", "/classify?views=1&views=10&top=5&top=x"), ("POST", "/classify?top=" + "9" * 5000), ("POST",
        "/classify?top=%ff"),
        ("POST", "/classify?views=%00"), ("POST", "/classify?per_view=maybe"), ("POST", "/neighbors?k=1e3"), ("POST",
        "/neighbors?k=-0"),
        ("POST", "/neighbors?max_distance=nan"), ("POST", "/neighbors?max_distance=1e400"), ("POST", "/neighbors?radius=3"),
        ("POST", "/neighbors?mode=ball"), ("POST", "/neighbors?mode=ball&radius=256&k=50"), ("POST", "/neighbors?cursor=%ff%00"),
        ("POST", "/neighbors?cursor=" + "A" * 40), ("POST", "/neighbors?label=%ed%a0%80"), ("POST",
        "/neighbors?label=" + "x" * 9000),
        ("POST", "/neighbors?" + "label=a&" * 99 + "exclude_label=%00&path_prefix=%25"),
        ("POST", "/neighbors?label=%00"), ("POST", "/neighbors?mode=code&max_distance=0"), ("POST", "/neighbors?id=0"),
        ("GET", "/items/0/duplicates?max_distance=-1"), ("GET", "/items/0/duplicates?k=1&cursor=" + "_" * 100), ("GET",
        "/items/%2e%2e"),
        ("GET", "/items/0/image/../.."), ("GET", "/web/%2e%2e%2fapp.py"), ("GET", "/web/..%5capp.py"), ("GET", "/web/%00"),
        ("GET", "/web/" + "a" * 5000), ("GET", "/%ff%fe"), ("PUT", "/classify"), ("TRACE", "/classify"), ("OPTIONS", "/classify"),
        ("DELETE", "/items/-1"), ("DELETE", "/items/999999"), ("PATCH", "/items/0"), ("HEAD", "/classify"), ("GET", "/classify"),
    ][rng.integers(0, 37)]  # fmt: skip
    odd = [(b"X-Request-ID", b"\xff\x01" * 50), (b"X-Request-ID", b"x" * 5000), (b"Authorization", b"Bearer"),
           (b"Authorization", b"\xff"),
           (b"If-None-Match", b'"'), (b"Range", b"bytes=-1,5-3,0-0"), (b"Accept", b"nothing/at-all"), (b"Origin", b"null"),
           (b"X", b"y")]  # fmt: skip
    extra = odd[rng.integers(0, len(odd))]
    return RawRequest(method, path, [*headers, extra], body, f"query: {method} {path[:60]} with {extra[0].decode()}")
