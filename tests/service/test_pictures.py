"""Photographs of every kind, and files that only look like one: seen as they are, or refused before they cost."""

import io
import shutil
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from httpx import Response
from numpy.typing import NDArray
from PIL import Image, ImageFile

from service.app import create_app
from service.settings import ServiceSettings
from tests.conftest import COLOURS, encoded, photograph
from tests.service import mutations
from tests.service.asgi import exchange
from tests.service.calls import PHOTO, assert_problem, send
from training.images.preprocess import ImageLimits, decode

KEY = {"X-API-Key": "key"}
MOST_BYTES = 2_000_000
SIDE = 256  # a photograph of this size is taken as it is
Pixels = NDArray[Any]


@pytest.fixture(scope="module")
def growing(index: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(index, tmp_path_factory.mktemp("pictures") / "deep" / "index", symlinks=True))


@pytest.fixture(scope="module")
def client(model: Path, growing: Path) -> Iterator[TestClient]:
    settings = ServiceSettings(model=model, index=growing, api_key="key", max_image_bytes=MOST_BYTES)
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


def distances(client: TestClient, data: bytes) -> list[float]:
    """What is found for a picture: its distances from the first items."""
    response = send(client, "/neighbors?k=1000&mode=exact", data)
    assert response.status_code == 200, response.text
    found = {n["id"]: n["distance"] for n in response.json()["results"][0]["neighbors"]}
    return [found[item] for item in range(24)]


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, more: bytes = b"") -> bytes:
    """A PNG file written by hand; each row of `rows` begins with its filter, 0."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = chunk(b"IHDR", header) + more + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def png_of(pixels: Pixels, depth: int, colour: int, more: bytes = b"") -> bytes:
    """A PNG of (H, W, C) samples, 8 or 16 bits each."""
    samples = pixels.astype(">u2" if depth == 16 else "u1").reshape(len(pixels), -1)
    return png(pixels.shape[1], len(pixels), depth, colour, b"".join(b"\0" + row.tobytes() for row in samples), more)


def picture(seed: int = 4) -> Image.Image:
    return photograph(seed, COLOURS["green"], (SIDE, SIDE))


def on_white(pixels: Pixels, alpha: Pixels) -> Pixels:
    """(H, W, 3) colours of which (H, W) `alpha` shows, 0..255."""
    share = alpha[..., None] / 255
    blended: Pixels = pixels * share + 255 * (1 - share)
    return blended


def grey(pixels: Pixels) -> Pixels:
    return np.repeat(pixels[..., None], 3, 2)


def made(image: Image.Image, format: str = "JPEG", **options: Any) -> bytes:
    """The file of a copy: an image remembers the encoder that it was last written by."""
    return encoded(image.copy(), format, **options)


@cache
def zoo() -> dict[str, tuple[bytes, Pixels, int]]:
    """Files, the (256, 256, 3) pixels that they show, and how far off a lossy one may be."""
    image = picture()
    rgb = np.asarray(image).astype(np.int64)
    light = np.asarray(image.convert("L")).astype(np.int64)
    ramp = np.tile(np.arange(SIDE), (SIDE, 1))
    few = image.quantize(16)
    shown = np.asarray(few.convert("RGB")).astype(np.int64)
    clear = np.where(np.asarray(few) == 3, 0, 255)
    bilevel = image.convert("1")
    black_white = grey(np.asarray(bilevel).astype(np.int64) * 255)
    alpha = image.copy()
    alpha.putalpha(Image.fromarray(ramp.astype(np.uint8)))
    cmyk = Image.new("CMYK", (SIDE, SIDE), (40, 90, 200, 30))
    transform = made(cmyk, quality=100).find(b"Adobe") + 11
    ycck = bytearray(made(cmyk, quality=100))
    ycck[transform] = 2

    def several() -> dict[str, Any]:
        return {"save_all": True, "append_images": [picture(seed) for seed in (5, 6)]}

    files: dict[str, tuple[bytes, Pixels, int]] = {
        "png": (made(image, "PNG"), rgb, 0),
        "png interlaced": (interlaced(), grey(np.full((SIDE, SIDE), 77)), 0),
        "png animated": (made(image, "PNG", **several()), rgb, 0),
        "png grey 16": (png_of((light * 257)[..., None], 16, 0), grey(light), 1),
        "png rgb 16": (png_of(rgb * 256 + 128, 16, 2), rgb, 1),
        "png rgba 16": (png_of(np.dstack([rgb, ramp]) * 257, 16, 6), on_white(rgb, ramp), 1),
        "png grey and alpha": (png_of(np.dstack([light, ramp]), 8, 4), on_white(grey(light), ramp), 1),
        "png grey and alpha 16": (png_of(np.dstack([light, ramp]) * 257, 16, 4), on_white(grey(light), ramp), 1),
        "png rgba": (made(alpha, "PNG"), on_white(rgb, ramp), 1),
        "png palette": (made(few, "PNG"), shown, 0),
        "png palette with a clear colour": (made(few, "PNG", transparency=3), on_white(shown, clear), 0),
        "png rgb with a clear colour": (
            png_of(np.where(clear[..., None] == 0, 7, 99) + np.zeros((1, 1, 3), int), 8, 2, chunk(b"tRNS", b"\0\x07" * 3)),
            grey(np.where(clear == 0, 255, 99)),
            0,
        ),
        "png bilevel": (made(bilevel, "PNG"), black_white, 0),
        "png with an odd profile": (made(image, "PNG", icc_profile=b"\0\xffjunk" * 99), rgb, 0),
        "jpeg": (made(image, quality=95), rgb, 12),
        "jpeg progressive": (made(image, quality=95, progressive=True), rgb, 12),
        "jpeg grey": (made(image.convert("L"), quality=95), grey(light), 6),
        "jpeg with an odd profile": (made(image, quality=95, icc_profile=b"\0\xffjunk" * 9999), rgb, 12),
        "jpeg cmyk": (made(cmyk, quality=100), np.full((SIDE, SIDE, 3), ink([40, 90, 200], 30)), 3),
        "jpeg ycck": (bytes(ycck), np.full((SIDE, SIDE, 3), ink(ycc_by_hand(255 - 40, 255 - 90, 255 - 200), 30)), 3),
        "jpeg of several pictures": (made(image, "MPO", quality=95, **several()), rgb, 12),
        "gif": (made(few, "GIF"), shown, 0),
        "gif animated": (made(few, "GIF", **several()), shown, 0),
        "webp": (made(image, "WEBP", quality=95), rgb, 24),
        "webp lossless": (made(alpha, "WEBP", lossless=True, exact=True), on_white(rgb, ramp), 1),
        "webp animated": (made(image, "WEBP", lossless=True, **several()), rgb, 0),
        "bmp": (made(image, "BMP"), rgb, 0),
        "bmp palette": (made(few, "BMP"), shown, 0),
        "bmp bilevel": (made(bilevel, "BMP"), black_white, 0),
        "tiff": (made(image, "TIFF"), rgb, 0),
        "tiff pages": (made(image, "TIFF", **several()), rgb, 0),
        "tiff of 64 bits": (made(image, "TIFF", big_tiff=True), rgb, 0),
        "tiff grey 16": (made(Image.fromarray((light * 257).astype(np.uint16)), "TIFF"), grey(light), 1),
        "tiff cmyk": (made(cmyk, "TIFF"), np.full((SIDE, SIDE, 3), ink([40, 90, 200], 30)), 1),
        "tiff group3": (made(bilevel, "TIFF", compression="group3"), black_white, 0),
        "tiff group4": (made(bilevel, "TIFF", compression="group4"), black_white, 0),
        "tiff jpeg": (made(image, "TIFF", compression="jpeg", quality=95), rgb, 24),
    }
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits", "lzma", "zstd"):
        files[f"tiff {compression}"] = made(image, "TIFF", compression=compression), rgb, 0
    return files


def interlaced() -> bytes:
    """A grey PNG in the seven passes of Adam7."""
    starts = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    rows = b""
    for x, y, across, down in starts:
        rows += (b"\0" + b"\x4d" * len(range(x, SIDE, across))) * len(range(y, SIDE, down))
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 0, 0, 0, 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def ink(cmy: list[float], black: float) -> list[float]:
    """The colour of inks on white paper, 0..255 each."""
    return [(255 - black) * (255 - amount) / 255 for amount in cmy]


def ycc_by_hand(y: float, cb: float, cr: float) -> list[float]:
    """JFIF's conversion to RGB."""
    rgb = [y + 1.402 * (cr - 128), y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128), y + 1.772 * (cb - 128)]
    return [min(255.0, max(0.0, value)) for value in rgb]


@pytest.mark.parametrize("name", zoo())
def test_a_picture_of_any_kind_is_what_it_shows(client: TestClient, name: str) -> None:
    data, pixels, tolerance = zoo()[name]
    seen = decode(data, ImageLimits()).pixels_CHW.numpy().transpose(1, 2, 0)
    assert np.abs(seen - pixels.astype(np.float64)).max() <= tolerance
    assert send(client, "/classify", data).status_code == 200
    plain = distances(client, encoded(Image.fromarray(seen), "PNG"))
    np.testing.assert_allclose(distances(client, data), plain, rtol=1e-4)


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("JPEG", {"quality": 100, "subsampling": 0}),
    ],
)
def test_a_picture_that_was_taken_sideways_is_seen_upright(client: TestClient, format: str, options: dict[str, Any]) -> None:
    """EXIF's orientation says where the first row and the first column of what is stored belong."""
    upright = np.asarray(photograph(4, COLOURS["red"], (400, 256)))
    transposed = upright.transpose(1, 0, 2)
    stored = {
        1: upright,  # the first row is the top, the first column the left side
        2: upright[:, ::-1],  # top, right
        3: upright[::-1, ::-1],  # bottom, right
        4: upright[::-1],  # bottom, left
        5: transposed,  # left, top
        6: transposed[::-1],  # right, top
        7: transposed[::-1, ::-1],  # right, bottom
        8: transposed[:, ::-1],  # left, bottom
    }
    plain = distances(client, encoded(Image.fromarray(upright), format, **options))
    for orientation, pixels in stored.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encoded(Image.fromarray(np.ascontiguousarray(pixels)), format, exif=exif, **options)
        np.testing.assert_allclose(distances(client, data), plain, rtol=6e-2 if format == "JPEG" else 1e-4)
        assert send(client, "/classify", data).status_code == 200


@pytest.mark.parametrize("size", [(1, 1), (1, 40_000), (40_000, 1), (2, 3)])
def test_a_picture_of_any_shape_is_its_central_square(client: TestClient, size: tuple[int, int]) -> None:
    width, height = size
    row = b"\0" + b"\x28\x5a\xc8" * width
    data = png(width, height, 8, 2, row * height)
    np.testing.assert_allclose(
        distances(client, data), distances(client, encoded(Image.new("RGB", (9, 9), (0x28, 0x5A, 0xC8)), "PNG")), rtol=1e-4
    )


# Files that are made to cost


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails where pixels would be decoded."""

    def fail(*_: object) -> None:
        raise AssertionError("pixels were decoded")

    kinds = [Image.Image, ImageFile.ImageFile]
    while kinds:
        kind = kinds.pop()
        if "load" in vars(kind):
            monkeypatch.setattr(kind, "load", fail)
        kinds += kind.__subclasses__()


def webp_of_another_size(**options: object) -> bytes:
    data = bytearray(encoded(photograph(5), "WEBP", **options))
    if options:
        data[21:25] = struct.pack("<I", struct.unpack("<I", data[21:25])[0] | 2**28 - 1)  # 14 bits each, less 1
    else:
        offset = data.find(b"\x9d\x01\x2a") + 3
        data[offset : offset + 4] = struct.pack("<HH", 16_383, 16_383)
    return bytes(data)


def tiff_of_tiles(side: int) -> bytes:
    """One pixel of a tile of side x side."""
    data = zlib.compress(bytes(side * side), 9)
    entries = [(256, 1), (257, 1), (258, 8), (259, 8), (262, 1), (277, 1), (322, side), (323, side), (324, 8), (325, len(data))]
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(entries)) + directory + bytes(4)


def jpeg_of_many_scans() -> bytes:
    """A progressive one, whose last scan comes 10 000 times."""
    data = encoded(Image.new("RGB", (64, 64), "red"), progressive=True)
    return data[:-2] + data[data.rfind(b"\xff\xda") : -2] * 10_000 + data[-2:]


SCANS = jpeg_of_many_scans()
BOMBS = {
    name: mutations.with_dimensions(name, data, 64_000, 60_000)  # a JPEG is decoded at an eighth of its size, and counts so
    for name, data in mutations.photographs().items()
    if name not in ("webp", "webp lossless", "tiff float")
}


@pytest.mark.parametrize("path", ["/classify", "/neighbors"])
@pytest.mark.parametrize("name", BOMBS)
def test_a_picture_of_too_many_pixels_is_refused_by_its_header(
    client: TestClient, no_decoding: None, name: str, path: str
) -> None:
    assert_problem(send(client, path, BOMBS[name]), 413, "64000", "60000", "max_image_pixels=50000000")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (webp_of_another_size(), "16383 x 16383"),
        (webp_of_another_size(lossless=True), "16384 x 16384"),
        (png(2**31 - 1, 2**31 - 1, 8, 2, b""), "2147483647 x 2147483647"),
        (png(1, 50_000_001, 8, 0, b""), "1 x 50000001"),
        (tiff_of_tiles(8000), "1 x 1 pixels, which count as 64000000"),
    ],
)
def test_what_would_take_much_memory_is_refused_by_its_header(
    client: TestClient, no_decoding: None, data: bytes, words: str
) -> None:
    assert_problem(send(client, "/classify", data), 413, words, "max_image_pixels=50000000")


def test_a_file_of_too_many_bytes_is_refused_before_it_is_looked_at(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("the file was looked at")

    assert send(client, "/classify", PHOTO + bytes(MOST_BYTES - len(PHOTO))).status_code == 200
    monkeypatch.setattr(Image, "open", fail)
    data = PHOTO + bytes(MOST_BYTES + 1 - len(PHOTO))
    assert_problem(send(client, "/classify", data), 413, f"{MOST_BYTES + 1} bytes", f"max_image_bytes={MOST_BYTES}")


def test_a_jpeg_that_goes_over_its_pixels_again_and_again_is_refused(client: TestClient, no_decoding: None) -> None:
    assert_problem(send(client, "/classify", SCANS), 422, "more than 10000 parts")


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
def test_a_chunk_that_unpacks_to_a_hundred_megabytes_does_not(client: TestClient, kind: bytes) -> None:
    packed = zlib.compress(bytes(100_000_000), 9)
    more = chunk(kind, b"k\0\1\0\0\0" + packed if kind == b"iTXt" else b"k\0\0" + packed)
    data = png_of(np.full((8, 8, 3), 200), 8, 2, more)
    tracemalloc.start()
    try:
        response = send(client, "/classify", data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert response.status_code in (200, 422), response.text
    assert peak < 20_000_000


# Files that are not what they should be


SINGLE = [name for name in mutations.photographs() if not any(word in name for word in ("animated", "pages", "mpo", "float"))]


@pytest.mark.parametrize("name", SINGLE)
def test_a_picture_that_was_cut_off_is_refused(client: TestClient, name: str) -> None:
    data = mutations.photographs()[name]
    for tenths in range(1, 10):
        response = send(client, "/classify", data[: len(data) * tenths // 10])
        # without its head it cannot be told what it was
        assert response.status_code in ((415, 422) if tenths < 5 else (422,)), tenths
        assert_problem(response, response.status_code)
    assert_problem(send(client, "/classify", data[:1]), 415)


@pytest.mark.parametrize("name", ["png animated", "gif animated", "tiff pages", "jpeg mpo"])
def test_the_first_of_several_pictures_is_seen_where_the_others_were_cut_off(client: TestClient, name: str) -> None:
    data = mutations.photographs()[name]
    np.testing.assert_allclose(distances(client, data[: len(data) * 7 // 10]), distances(client, data), rtol=1e-4)


SIGNATURES = (b"GIF8", b"\x89PNG", b"RIFF", b"BM", b"II*", b"\xff\xd8", b"\0\0\1\0", b"\0\0\0\x18ftyp")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 1000,
        b"hello",
        b"<!doctype html><script>alert(1)</script>",
        b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
        b"%PDF-1.7\n" + PHOTO,
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99),
        b"\0\0\0\x18ftypavif\0\0\0\0mif1avif" + bytes(99),
        b"\0\0\1\0\1\0\x10\x10" + bytes(99),
        b"8BPS\0\1" + bytes(99),
        b"P6 1 1 255\n123",
        b"GIF89a",
        b"\x89PNG\r\n\x1a\n",
        b"RIFF\0\0\0\0WEBP",
        b"BM",
        b"II*\0",
        b"\xff\xd8\xff",
        b"#!/bin/sh\n",
        b"PK\3\4" + PHOTO,
    ],
)
def test_what_is_no_picture_is_told_which_are(client: TestClient, data: bytes) -> None:
    for path in ("/classify", "/neighbors"):
        response = send(client, path, data)
        if data.startswith(SIGNATURES):
            assert_problem(response, 422, "damaged or truncated image")
        else:
            assert_problem(response, 415, "JPEG, PNG, WebP, GIF, BMP, TIFF" if data else "empty")


@cache
def polyglots() -> dict[str, tuple[bytes, bytes, str]]:
    """Files that are a picture and something else: the file, the picture alone, and its media type."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("index.html", "<script>alert(1)</script>")
    script = b"<html><script>alert(1)</script>"
    few = photograph(9).quantize(16)
    gif, plain = encoded(few, "GIF"), encoded(few, "PNG")
    comment = b"\x21\xfe" + bytes([len(script)]) + script + b"\0"
    after_palette = 13 + 3 * 2 ** ((gif[10] & 7) + 1)
    return {
        "jpeg and zip": (PHOTO + archive.getvalue(), PHOTO, "image/jpeg"),
        "gif and html": (gif[:after_palette] + comment + gif[after_palette:], gif, "image/gif"),
        "png and html": (plain[:33] + chunk(b"tEXt", b"a\0" + script) + plain[33:], plain, "image/png"),
        "bmp and html": (encoded(few, "BMP") + script, encoded(few, "BMP"), "image/bmp"),
        "several pictures": (mutations.photographs()["jpeg mpo"], mutations.photographs()["jpeg mpo"], "image/jpeg"),
    }


@pytest.mark.parametrize("name", polyglots())
def test_a_picture_that_is_something_else_too_is_only_ever_a_picture(client: TestClient, name: str) -> None:
    data, alone, media_type = polyglots()[name]
    np.testing.assert_allclose(distances(client, data), distances(client, alone), rtol=1e-4)
    answer = client.post("/items", files=[("image", ("index.html", data, "text/html"))], headers=KEY)
    [added] = answer.json()["results"]
    response = client.get(f"/items/{added['id']}/image")
    assert (response.status_code, response.content) == (200, data)
    assert response.headers["content-type"] == media_type
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'self'" in response.headers["content-security-policy"]
    assert client.get(f"/items/{added['id']}/thumbnail").headers["content-type"] == "image/jpeg"


@pytest.mark.parametrize(("name", "kind"), [("a.png", "image/png"), ("a.html", "text/html"), ("a.txt", "x/y"), ("a", "")])
def test_what_a_file_calls_itself_does_not_matter(client: TestClient, name: str, kind: str) -> None:
    response = client.post("/classify", files=[("image", (name, PHOTO, kind))])
    assert response.status_code == 200
    assert response.json()["results"][0]["classes"] == send(client, "/classify", PHOTO).json()["results"][0]["classes"]
    assert_problem(client.post("/classify", files=[("image", ("a.jpg", b"hello", "image/jpeg"))]), 415)


# Names and paths


NAMES = [
    b"../../etc/passwd",
    b"/etc/passwd",
    b"..\\..\\windows\\system.ini",
    b"a\0b.jpg",
    b"a\x01\x1b[31m\x7f.jpg",
    b"x" * 4000,
    b"\xed\xa0\x80.jpg",  # a surrogate
    b"\xff\xfe",
    "\u202egpj.exe".encode(),
    b".",
    b"..",
    b"CON",
    b"%2e%2e%2fx",
    b"<script>alert(1)</script>",
    b"a.jpg; filename*=utf-8''b.jpg",
]


def form(name: bytes, data: bytes) -> dict[str, Any]:
    """A request's body and headers, with a name that no client would send."""
    body = b'--b\r\nContent-Disposition: form-data; name="image"; filename="' + name + b'"\r\n\r\n' + data + b"\r\n--b--\r\n"
    return {"content": body, "headers": {"content-type": "multipart/form-data; boundary=b", **KEY}}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_only_ever_shown(client: TestClient, growing: Path, name: bytes) -> None:
    """It names no file: what is added lies in the index's own folder, under the hash of its bytes."""
    root = growing.parent.parent
    before = {path for path in root.rglob("*") if not path.is_relative_to(growing)}
    data = encoded(photograph(NAMES.index(name) + 900))
    for path in ("/classify", "/neighbors", "/items"):
        response: Response = client.post(path, **form(name, data))
        assert response.status_code in (200, 422), response.text
        if response.status_code == 200:
            [result] = response.json()["results"]
            assert isinstance(result["name"], str)
            assert not any(byte < 32 for byte in response.content)
    assert {path for path in root.rglob("*") if not path.is_relative_to(growing)} == before
    for upload in (growing / "uploads").iterdir():
        assert len(upload.stem) == 64
        assert set(upload.stem) <= set("0123456789abcdef")


def test_a_very_long_name_is_refused_or_shown(client: TestClient) -> None:
    response: Response = client.post("/classify", **form(b"x" * 10_000, PHOTO))
    assert response.status_code in (200, 422)
    assert len(response.content) < 20_000


@pytest.mark.parametrize(
    "path",
    [
        "/items/../image",
        "/items/../../../../etc/passwd/image",
        "/items/%2e%2e%2f%2e%2e%2fetc%2fpasswd/image",
        "/items/..%5c..%5cx/image",
        "/items/0/image/../../../../../etc/passwd",
        "/items/0/../../../service/app.py",
        "/web/../app.py",
        "/web/../../README.md",
        "/web/%2e%2e/app.py",
        "/web/..%2fapp.py",
        "/web/..\\app.py",
        "/web/....//app.py",
        "/web//etc/passwd",
        "/web/\0",
        "/web/main.js\0.html",
        "/web/" + "../" * 50 + "etc/passwd",
        "/web/" + "a" * 5000,
        "//etc/passwd",
        "/uploads/x",
        "/../pyproject.toml",
    ],
)
def test_no_path_leads_out_of_what_is_served(client: TestClient, path: str) -> None:
    """As the server hands it over, where no client has tidied it up."""
    assert client.portal
    answer = client.portal.call(exchange, client.app, "GET", path)
    assert answer.status in (404, 422), answer.body[:200]
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["/items/%2e%2e/image", "/web/%2e%2e/app.py", "/web/..%2fapp.py", "/web/%5c..%5capp.py"])
def test_no_written_path_leads_out_either(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code in (404, 422)
    assert_problem(response, response.status_code)
