"""Decoding: what is accepted, how it is turned and cropped, what is refused before memory is spent; and the views."""

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from tests.conftest import encoded, photograph
from training.errors import BadImage, ImageTooLarge, NotAnImage
from training.images.containers import orientation_in
from training.images.preprocess import Crops, ImageLimits, centre_view, cost, decode, ten_views, training_view
from training.run import draws

LIMITS = ImageLimits()


def pixels(data: bytes) -> np.ndarray:
    return decode(data, LIMITS).pixels_CHW.numpy()


@pytest.mark.parametrize("size", [(256, 256), (512, 256), (256, 700)])
def test_shorter_side_256_and_central_square_are_taken_exactly(size: tuple[int, int]) -> None:
    image = photograph(1, size=size)
    left, top = (size[0] - 256) // 2, (size[1] - 256) // 2
    expected = np.asarray(image.crop((left, top, left + 256, top + 256))).transpose(2, 0, 1)
    np.testing.assert_array_equal(pixels(encoded(image, "PNG")), expected)


def test_smaller_photographs_are_scaled_up_and_say_their_own_size() -> None:
    decoded = decode(encoded(photograph(1, size=(40, 30))), LIMITS)
    assert decoded.pixels_CHW.shape == (3, 256, 256)
    assert decoded.pixels_CHW.dtype == torch.uint8
    assert (decoded.format, decoded.width, decoded.height) == ("JPEG", 40, 30)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(orientation: int) -> None:
    upright = Image.new("RGB", (256, 256), "black")
    ImageDraw.Draw(upright).rectangle((0, 0, 127, 63), fill="white")
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # orientation -> the transposition that a camera's sensor made
    stored = upright.transpose(Image.Transpose(undo[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(pixels(encoded(stored, "PNG", exif=exif)), np.asarray(upright).transpose(2, 0, 1))


def test_transparency_is_laid_on_white() -> None:
    image = Image.new("RGBA", (256, 256), (200, 0, 0, 0))
    assert pixels(encoded(image, "PNG")).min() == 255
    palette = Image.new("P", (256, 256), 3)
    palette.putpalette([0, 0, 0] * 256)
    assert pixels(encoded(palette, "PNG", transparency=3)).min() == 255


def test_sixteen_bit_grey_keeps_its_tones() -> None:
    ramp = np.tile(np.arange(256, dtype=np.uint16) * 257, (256, 1))
    expected = np.tile(np.arange(256, dtype=np.uint8), (256, 1))
    np.testing.assert_array_equal(pixels(encoded(Image.fromarray(ramp), "PNG"))[1], expected)


@pytest.mark.parametrize("mode", ["L", "CMYK", "1"])
def test_other_pixel_kinds_become_rgb(mode: str) -> None:
    image = photograph(3, size=(256, 256))
    data = encoded(image.convert(mode), "TIFF")
    expected = np.asarray(image.convert(mode).convert("RGB")).transpose(2, 0, 1)
    np.testing.assert_array_equal(pixels(data), expected)


def test_the_first_frame_of_an_animation_is_taken() -> None:
    frames = [Image.new("RGB", (256, 256), colour) for colour in ("white", "black")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert pixels(data).min() == 255


def png_header(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    checksum = struct.pack(">I", zlib.crc32(b"IHDR" + header))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + header + checksum


@pytest.mark.parametrize(("width", "height"), [(8000, 8000), (60_000, 60_000), (2**31 - 1, 2**31 - 1)])
def test_pixels_are_limited_by_the_header_alone(width: int, height: int) -> None:
    with pytest.raises(ImageTooLarge, match=r"\d pixels"):
        decode(png_header(width, height) + b"\0\0\0\0IDAT", LIMITS)


def test_bytes_are_limited() -> None:
    with pytest.raises(ImageTooLarge, match="image has 11 bytes, more than max_image_bytes=10"):
        decode(b"x" * 11, ImageLimits(max_image_bytes=10))


def test_a_sliver_costs_no_more_than_a_square() -> None:
    assert pixels(encoded(Image.new("RGB", (20_000, 1)), "PNG")).shape == (3, 256, 256)


SMOOTH = photograph(4, size=(256, 256)).resize((8, 8)).resize((300, 256), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "AVIF", "JPEG2000", "HEIF", "ICO"])
def test_every_format_is_read_whatever_the_files_name_is(format: str) -> None:
    image = SMOOTH.crop((0, 0, 256, 256)) if format == "ICO" else SMOOTH
    decoded = decode(encoded(image, format, **({"sizes": [(256, 256)]} if format == "ICO" else {})), LIMITS)
    assert (decoded.format, decoded.width, decoded.height) == (format, *image.size)
    left = (image.width - 256) // 2
    expected = np.asarray(image.crop((left, 0, left + 256, 256))).transpose(2, 0, 1)
    assert np.abs(decoded.pixels_CHW.numpy().astype(int) - expected).mean() < 3


@pytest.mark.parametrize("bitmap_format", ["png", "bmp"])
def test_the_largest_picture_of_an_icon_is_taken(bitmap_format: str) -> None:
    icon = Image.new("RGBA", (64, 64), (10, 200, 30, 255))
    small = Image.new("RGBA", (16, 16), (200, 10, 30, 255))
    data = encoded(icon, "ICO", sizes=[(16, 16), (64, 64)], append_images=[small], bitmap_format=bitmap_format)
    decoded = decode(data, LIMITS)
    assert (decoded.format, decoded.width) == ("ICO", 64)
    assert decoded.pixels_CHW[:, 128, 128].tolist() == [10, 200, 30]


@pytest.mark.parametrize(("bitmap_format", "side"), [("png", 64), ("bmp", 64), ("bmp", 256)])
def test_an_icon_is_as_large_as_its_picture_and_not_as_it_says(bitmap_format: str, side: int) -> None:
    icon = Image.new("RGBA", (side, side), (10, 200, 30, 255))
    data = bytearray(encoded(icon, "ICO", sizes=[(side, side)], bitmap_format=bitmap_format))
    data[6:8] = 48, 32
    decoded = decode(bytes(data), LIMITS)
    assert (decoded.width, decoded.height) == (side, side)
    assert decoded.pixels_CHW[:, 128, 128].tolist() == [10, 200, 30]


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"\xff\x0a" + bytes(20), "is a JPEG XL image"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(20), "is a JPEG XL image"),
        (b"%PDF-1.7 ...", "is a PDF document"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp42", "is a video"),
        (b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", "is a video"),
        (b"\x1aE\xdf\xa3" + bytes(20), "is a video"),
        (b"RIFF\0\0\0\0AVI LIST", "is a video"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is an SVG drawing"),
        (b"PK\x03\x04" + bytes(20), "is a ZIP archive"),
        ("Viele Gr\u00fc\u00dfe\n".encode(), "is text, and not an image"),
        (b"8BPS\0\1", "is a Photoshop document"),
        (b"P6\n1 1 255\n123", "is a Netpbm image"),
        (b"P3 # plain\n1 1 255 1 2 3", "is a Netpbm image"),
        (b"Pf\n1 1\n-1.0\n\0\0\0\0", "is a portable float map"),
        (b"v/1\x01\2\0\0\0", "is an OpenEXR image"),
        (b"#?RADIANCE\n", "is a Radiance image"),
        (b"\n\5\1\x08" + bytes(124), "is a PCX image"),
        (bytes(18) + b"\1\2\3" + bytes(8) + b"TRUEVISION-XFILE.\0", "is a Targa image"),
        (b"\1\xda\1\1\0\3", "is a Silicon Graphics image"),
        (b"\0\0\1\0\x12\xaf"[2:] + bytes(9), "not an image in one of the formats"),
        (bytes(4) + b"\x12\xaf" + bytes(122), "is an animation"),
        (b"\0\0\2\0\1\0\x20\x20", "is a mouse pointer"),
        (b"icns\0\0\0\x08", "is an icon of macOS"),
        (b"\xc5\xd0\xd3\xc6" + bytes(26), "is a PostScript document"),
        (b"\xd7\xcd\xc6\x9a" + bytes(18), "is a Windows metafile"),
        (b"\1\0\0\0" + bytes(36) + b" EMF", "is a Windows metafile"),
        (b"/* XPM */\nstatic char *a[] = {", "is an XPM image"),
        (b"#define WIDTH 3\n", "is text, and not an image"),
        (b"gimp xcf file\0", "is a GIMP image"),
        (b"IIU\0\x18\0\0\0", "is a camera's raw file"),
        (b"II\x1a\0\0\0HEAPCCDR", "is a camera's raw file"),
        (b"II*\0\x10\0\0\0CR\2\0" + bytes(20), "is a camera's raw file"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "is a camera's raw file"),
        (b"\0\1\0\0\0\x0c\0\x80", "is a font"),
        (b"name".ljust(257, b"\0") + b"ustar\0" + b"00", "is a tar archive"),
        (b"BZh91AY&SY", "is a bzip2 archive"),
        (bytes(range(1, 99)), "^not an image in one of the formats JPEG, PNG"),
    ],
)
def test_what_is_no_image_is_named(data: bytes, what: str) -> None:
    with pytest.raises(NotAnImage, match=what):
        decode(data, LIMITS)


def test_a_heic_image_without_its_reader_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(SMOOTH, "HEIF")
    monkeypatch.setattr("training.images.preprocess.READS_HEIC", False)
    with pytest.raises(NotAnImage, match=r"is a HEIC image, which is read with the extra heic: pip install 'fc7\[heic\]'"):
        decode(data, LIMITS)


JUNK = (
    *(b"", b"\0", b"junk", b"II*\0", b"MM\0*\xff\xff\xff\xff", b"\xff" * 9),
    b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x05\0" * 400,
)


@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_metadata_that_cannot_be_read_takes_no_pixels(format: str, junk: bytes) -> None:
    options: dict[str, object] = {"exif": junk, "icc_profile": junk, "xmp": junk} if junk else {"comment": "\0\xff"}
    if format == "AVIF":
        options.pop("exif", None)  # of junk, Pillow writes none
    np.testing.assert_array_equal(pixels(encoded(SMOOTH, format, **options)), pixels(encoded(SMOOTH, format)))


CHUNKS = (b"eXIf", b"iCCP", b"zTXt", b"iTXt", b"tEXt", b"gAMA", b"cHRM", b"sBIT", b"acTL", b"fcTL", b"tIME", b"oFFs")


@pytest.mark.parametrize("name", CHUNKS)
def test_a_png_is_read_whatever_its_other_chunks_are(name: bytes) -> None:
    data = encoded(SMOOTH, "PNG")
    for at in (33, len(data) - 12):
        for junk in (b"", b"x", b"a\0\0" + zlib.compress(bytes(10**7)), b"\xff" * 99):
            chunk = len(junk).to_bytes(4) + name + junk + b"\0\0\0\0"  # and a wrong sum
            np.testing.assert_array_equal(pixels(data[:at] + chunk + data[at:]), pixels(data))


@pytest.mark.parametrize("marker", [*range(0xE0, 0xF0), 0xFE])
def test_a_jpeg_is_read_whatever_its_other_segments_are(marker: int) -> None:
    data = encoded(SMOOTH)
    starts = (b"", b"MPF\0II*\0\xff\xff\xff\xff", b"ICC_PROFILE\0\x01\x02x", b"http://ns.adobe.com/xap/1.0/\0<", b"JFXX\0")
    for junk in (*starts, b"Photoshop 3.0\x008BIM\xff", b"Exif\0\0II*\0"):
        segment = bytes([0xFF, marker]) + (len(junk) + 2).to_bytes(2) + junk
        np.testing.assert_array_equal(pixels(data[:2] + segment + data[2:]), pixels(data))
    np.testing.assert_array_equal(pixels(data + b"\xff\xd8\xff\xdb" + bytes(99)), pixels(data))


def test_orientation_is_read_from_both_orders_of_bytes_and_bounds_hold() -> None:
    for order, text in (("<", b"II*\0"), (">", b"MM\0*")):
        exif = text + struct.pack(f"{order}IHHHIHH", 8, 1, 0x0112, 3, 1, 6, 0)
        assert orientation_in(exif) == 6
        assert [orientation_in(exif[:end]) for end in range(len(exif) - 2)] == [1] * (len(exif) - 2)
        assert orientation_in(text + struct.pack(f"{order}IHHHIHH", 8, 1, 0x0112, 3, 1, 9, 0)) == 1


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "entry",
    [
        *(struct.pack("<HHIHH", 0x0112, 3, 1, value, 0) for value in (0, 9, 255, 65_535)),
        struct.pack("<HHI4s", 0x0112, 2, 2, b"6\0\0\0"),
        struct.pack("<HHII", 0x0112, 3, 2**31, 6),
    ],
)
def test_an_orientation_that_is_none_turns_nothing(format: str, entry: bytes) -> None:
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4)
    np.testing.assert_array_equal(pixels(encoded(SMOOTH, format, exif=exif)), pixels(encoded(SMOOTH, format)))


@pytest.mark.parametrize("entry", [(3, [0]), (3, [9]), (3, [255]), (1, [54]), (4, [2**32 - 1]), (3, [6, 6, 6])])
def test_an_orientation_of_a_tiff_that_is_none_turns_nothing(entry: tuple[int, list[int]]) -> None:
    grey = bytes(range(256)) * 256
    np.testing.assert_array_equal(pixels(tiff(grey, {274: entry})), pixels(tiff(grey, {})))


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF", "AVIF", "HEIF", "MPO"])
def test_the_first_of_several_pictures_is_taken(format: str) -> None:
    others = [SMOOTH.rotate(180), Image.new("RGB", SMOOTH.size, "white")]
    several = encoded(SMOOTH, format, save_all=True, append_images=others)
    alone = pixels(encoded(SMOOTH, "JPEG" if format == "MPO" else format)).astype(int)
    assert np.abs(pixels(several) - alone).mean() < 2


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_colours_of_a_palette_show_through_one_by_one(bits: int) -> None:
    """Even colours of the palette are transparent, odd ones are not."""
    count = 2**bits
    row = np.arange(256) * count // 256
    number = int("".join(format(value, f"0{bits}b") for value in row.tolist()), 2)
    grey = [value * 255 // (count - 1) for value in range(count)]
    palette = (b"PLTE", bytes(value for value in grey for _ in "RGB"))
    data = png(256, 256, bits, 3, (b"\0" + number.to_bytes(32 * bits)) * 256, bytes(255 * (i % 2) for i in range(count)), palette)
    expected = np.where(row % 2 == 0, 255, np.array(grey)[row])
    np.testing.assert_array_equal(pixels(data), np.broadcast_to(expected, (3, 256, 256)))


@pytest.mark.parametrize("alpha", [0, 32_896, 65_535])
@pytest.mark.parametrize("premultiplied", [False, True])
def test_alpha_of_16_bits_is_laid_on_white(alpha: int, premultiplied: bool) -> None:
    ramp = np.tile(np.arange(256), (256, 1))
    colours = np.stack([ramp, ramp.T, 255 - ramp], -1)
    share = alpha / 65_535
    stored = colours * 257 * (share if premultiplied else 1)
    four = np.concatenate([stored, np.full((256, 256, 1), alpha)], -1).astype("<u2").tobytes()
    tags = {258: (3, [16] * 4), 262: (3, [2]), 277: (3, [4]), 338: (3, [1 if premultiplied else 2])}
    expected = (colours * share + 255 * (1 - share)).transpose(2, 0, 1)
    assert np.abs(pixels(tiff(four, tags)) - expected).max() <= 2


def test_a_jpeg_of_four_inks_is_seen_with_and_without_adobes_mark() -> None:
    marked = encoded(SMOOTH.convert("CMYK"), quality=95)
    at = marked.index(b"Adobe") - 4
    unmarked = marked[:at] + marked[at + 2 + int.from_bytes(marked[at + 2 : at + 4]) :]
    left = (SMOOTH.width - 256) // 2
    expected = np.asarray(SMOOTH.crop((left, 0, left + 256, 256))).transpose(2, 0, 1)
    for data in (marked, unmarked):
        assert np.abs(pixels(data).astype(int) - expected).mean() < 3


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("value", [0, 1])
def test_a_grey_that_is_transparent_is_white(bits: int, value: int) -> None:
    mark = struct.pack(">H", value)
    for stored in (0, 1):
        number = int.from_bytes(stored.to_bytes(bits // 8)) if bits >= 8 else sum(stored << bits * i for i in range(8 // bits))
        row = b"\0" + number.to_bytes(max(1, bits // 8)) * (256 * bits // 8 // max(1, bits // 8))
        shown = 255 if stored == value else stored * 255 // (2**bits - 1)
        decoded = pixels(png(256, 256, bits, 0, row * 256, mark))
        assert (decoded.min(), decoded.max()) == (shown, shown)


@pytest.mark.parametrize("bits", [8, 16])
def test_a_colour_that_is_transparent_is_white(bits: int) -> None:
    colour = (200, 100, 50)
    stored = b"".join(bytes([value] * (bits // 8)) for value in colour)
    mark = struct.pack(">HHH", *(value * 257 if bits == 16 else value for value in colour))
    assert pixels(png(256, 256, bits, 2, (b"\0" + stored * 256) * 256, mark)).min() == 255
    assert pixels(png(256, 256, bits, 2, (b"\0" + stored * 256) * 256, bytes(6)))[0].max() == 200


def test_what_shows_through_is_white_in_every_mode() -> None:
    clear = Image.new("RGBA", (256, 256), (0, 0, 0, 0))
    for image, format in ((clear, "PNG"), (clear.convert("LA"), "PNG"), (clear, "TIFF"), (clear, "WEBP"), (clear, "AVIF")):
        assert pixels(encoded(image, format)).min() >= 254


def png(
    width: int, height: int, bits: int, colours: int, rows: bytes, transparent: bytes = b"", *more: tuple[bytes, bytes]
) -> bytes:
    """A PNG file written out by hand."""
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0))]
    parts += [*more, (b"tRNS", transparent)] if transparent else more
    parts += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    chunks = [len(data).to_bytes(4) + name + data + zlib.crc32(name + data).to_bytes(4) for name, data in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def tiff(pixels: bytes, tags: dict[int, tuple[int, list[int]]], order: str = "<", big: bool = False) -> bytes:
    """A TIFF file written out by hand: tag -> (type, values), over those of one strip of 256 x 256 grey values."""
    sizes = {1: "B", 3: "H", 4: "I", 8: "h", 9: "i", 11: "f", 16: "Q"}
    offset, count, inline = ("Q", "Q", 8) if big else ("I", "H", 4)
    head = 16 if big else 8
    all_tags = {
        **{256: (3, [256]), 257: (3, [256]), 258: (3, [8]), 259: (3, [1]), 262: (3, [1]), 273: (4, [head]), 277: (3, [1])},
        **{278: (3, [256]), 279: (4, [len(pixels)])},
    } | tags
    body, entries = bytes(head) + pixels, b""
    for tag, (kind, values) in sorted(all_tags.items()):
        data = struct.pack(f"{order}{len(values)}{sizes[kind]}", *values)
        if len(data) > inline:
            data, body = struct.pack(f"{order}{offset}", len(body)), body + data
        entries += struct.pack(f"{order}HH{offset}", tag, kind, len(values)) + data.ljust(inline, b"\0")
    start = (b"II" if order == "<" else b"MM") + struct.pack(
        f"{order}HHH" if big else f"{order}H", *((43, 8, 0) if big else (42,))
    )
    start += struct.pack(f"{order}{offset}", len(body))
    return start + body[head:] + struct.pack(f"{order}{count}", len(all_tags)) + entries + bytes(inline)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_tiff_of_either_order_of_bytes_and_either_size_of_offsets_is_read(order: str, big: bool) -> None:
    ramp = np.tile(np.arange(256), (256, 1))
    kind = 16 if big else 4
    grey = ramp.astype("u1").tobytes()
    np.testing.assert_array_equal(pixels(tiff(grey, {}, order, big))[1], ramp)
    rows = [(16 if big else 8) + 256 * row for row in range(256)]
    strips = {273: (kind, rows), 278: (kind, [1]), 279: (3, [256] * 256)}
    np.testing.assert_array_equal(pixels(tiff(grey, strips, order, big))[1], ramp)
    sixteen = (ramp * 257).astype(f"{order}u2").tobytes()
    np.testing.assert_array_equal(pixels(tiff(sixteen, {258: (3, [16])}, order, big))[1], ramp)
    twelve = (ramp * 16).astype(f"{order}u2").tobytes()
    np.testing.assert_array_equal(pixels(tiff(twelve, {258: (3, [16]), 281: (3, [4095])}, order, big))[1], ramp)
    colours = np.stack([ramp, ramp.T, 255 - ramp], -1)
    eight = {258: (3, [8, 8, 8]), 262: (3, [2]), 277: (3, [3])}
    np.testing.assert_array_equal(pixels(tiff(colours.astype("u1").tobytes(), eight, order, big)), colours.transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("marker", "what"),
    [
        (0xC3, "a lossless JPEG is not read"),
        (0xC7, "a lossless JPEG is not read"),
        (0xCB, "a lossless JPEG is not read"),
        (0xC5, "a hierarchical JPEG is not read"),
        (0xF7, "a JPEG-LS image is not read"),
    ],
)
def test_a_jpeg_of_another_process_is_named_and_not_called_damaged(marker: int, what: str) -> None:
    data = encoded(SMOOTH)
    frame = data.index(b"\xff\xc0\0\x11\x08")
    with pytest.raises(BadImage, match=f"^{what}"):
        decode(data[: frame + 1] + bytes([marker]) + data[frame + 2 :], LIMITS)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_of_12_bits_is_named_and_not_called_damaged(progressive: bool) -> None:
    data = bytearray(encoded(SMOOTH, progressive=progressive))
    frame = data.index(b"\xff\xc2\0\x11\x08" if progressive else b"\xff\xc0\0\x11\x08")
    data[frame + 4] = 12
    with pytest.raises(BadImage, match=r"^a JPEG of 12 bits a value is not read; those of 8 are"):
        decode(bytes(data), LIMITS)


def test_a_png_whose_pixels_are_all_there_is_read_without_its_end() -> None:
    data = encoded(SMOOTH, "PNG")
    assert data[-12:] == b"\0\0\0\0IEND\xaeB\x60\x82"
    for cut in range(1, 13):
        np.testing.assert_array_equal(pixels(data[:-cut]), pixels(data))
    with pytest.raises(BadImage):
        decode(data[:-20], LIMITS)


@pytest.mark.parametrize(
    ("tags", "what"),
    [
        ({259: (3, [50_001])}, "a TIFF compressed as WebP is not read"),
        ({259: (3, [34_712])}, "a TIFF compressed as JPEG 2000 is not read"),
        ({259: (3, [34_887])}, "a TIFF compressed as LERC is not read"),
        ({258: (3, [64])}, "64-bit integers as pixels have no agreed range"),
        ({258: (3, [64]), 339: (3, [6])}, "complex numbers as pixels have no agreed range"),
        ({258: (3, [64]), 339: (3, [3])}, "floating-point pixels have no agreed range"),
        (
            {258: (3, [10])},
            "a TIFF of PhotometricInterpretation 1, SamplesPerPixel 1, BitsPerSample 10, Compression 1 is not read",
        ),
        ({258: (3, [16]), 339: (3, [4])}, "a TIFF of .*, BitsPerSample 16, SampleFormat 4, Compression 1 is not read"),
        ({259: (3, [12_345])}, "a TIFF of .*, Compression 12345 is not read"),
    ],
)
def test_a_tiff_of_a_kind_that_is_not_read_is_named_and_not_called_damaged(
    tags: dict[int, tuple[int, list[int]]], what: str
) -> None:
    with pytest.raises(BadImage, match=f"^{what}"):
        decode(tiff(bytes(2**19), tags), LIMITS)


def test_a_bitmap_of_a_kind_that_is_not_read_is_not_called_damaged() -> None:
    data = bytearray(encoded(SMOOTH, "BMP"))
    data[28:30] = (2).to_bytes(2, "little")  # bits a pixel
    with pytest.raises(BadImage, match=r"^of a kind that is not read: Unsupported BMP pixel depth"):
        decode(bytes(data), LIMITS)


@pytest.mark.parametrize(
    ("tags", "raw"),
    [
        ({50_706: (1, [1, 4, 0, 0])}, True),  # DNGVersion
        ({254: (4, [1]), 330: (4, [8, 8])}, True),  # a preview, with the photograph in another directory: NEF, ARW
        ({254: (4, [0]), 330: (4, [8, 8])}, False),  # smaller copies beside the picture itself
        ({254: (4, [1])}, False),
    ],
)
def test_a_cameras_raw_file_is_named_and_its_preview_not_taken_for_it(tags: dict[int, tuple[int, list[int]]], raw: bool) -> None:
    data = tiff(b"\x55" * 2**16, tags)
    if not raw:
        assert (pixels(data) == 0x55).all()
        return
    with pytest.raises(NotAnImage, match=r"^is a camera's raw file"):
        decode(data, LIMITS)


def test_pixels_that_begin_as_a_raw_file_does_make_none() -> None:
    data = tiff(b"CR\2\0" + b"\x55" * (2**16 - 4), {})
    assert pixels(data)[0, 1, 0] == 0x55


def test_bits_of_more_samples_than_a_tiff_has_are_the_first_ones() -> None:
    assert (pixels(tiff(b"\x55" * 2**16, {258: (3, [8, 16, 16])})) == 0x55).all()
    with pytest.raises(BadImage, match="tag 258 of a TIFF is not of 3 samples"):
        decode(tiff(bytes(3 * 2**16), {258: (3, [8, 8]), 262: (3, [2]), 277: (3, [3])}), LIMITS)


def test_values_of_a_tiff_go_to_where_the_file_says() -> None:
    ramp = np.tile(np.arange(256), (256, 1))
    twelve = (ramp * 16).astype("<u2").tobytes()
    for tag in (281, 341):
        np.testing.assert_array_equal(pixels(tiff(twelve, {258: (3, [16]), tag: (3, [4095])}))[1], ramp)
    packed = b"".join(
        bytes([v >> 4 & 255, (v & 15) << 4 | w >> 8, w & 255])
        for row in ramp.tolist()
        for v, w in zip([value * 16 for value in row[::2]], [value * 16 for value in row[1::2]], strict=True)
    )
    np.testing.assert_array_equal(pixels(tiff(packed, {258: (3, [12])}))[1], ramp)
    sixteen = (ramp * 257).astype("<u2").tobytes()
    np.testing.assert_array_equal(pixels(tiff(sixteen, {258: (3, [16])}))[1], ramp)
    np.testing.assert_array_equal(pixels(tiff(sixteen, {258: (3, [16]), 262: (3, [0])}))[1], 255 - ramp)
    wide = (ramp * 2**24).astype("<u4").tobytes()
    np.testing.assert_array_equal(pixels(tiff(wide, {258: (3, [32]), 341: (4, [2**32 - 1])}))[1], ramp)


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({258: (3, [32])}, "32-bit integers as pixels have no agreed range"),
        ({258: (3, [32]), 339: (3, [2])}, "signed integers as pixels have no agreed range"),
        ({258: (3, [16]), 339: (3, [2])}, "signed integers as pixels have no agreed range"),
        ({258: (3, [32]), 339: (3, [3])}, "floating-point pixels have no agreed range"),
    ],
)
def test_pixels_without_a_range_are_refused(tags: dict[int, tuple[int, list[int]]], reason: str) -> None:
    with pytest.raises(BadImage, match=reason):
        decode(tiff(bytes(2**18), tags), LIMITS)


@pytest.mark.parametrize("tag", [256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 317, 322, 323, 324, 325, 338, 339, 530])
def test_tags_of_a_tiff_are_integers_within_bounds_or_it_is_refused(tag: int) -> None:
    tiles = {322: (4, [2000]), 323: (4, [2 * 10**6]), 325: (4, [64])} if tag == 324 else {}
    reasons = []
    hostile: list[tuple[int, list[int]]] = [
        *((1, [255] * 2000), (3, [65535]), (4, [2**32 - 1]), (4, [0]), (9, [-1]), (8, [-1, 2]), (11, [2]), (4, [2**31] * 3000)),
        (3, [1, 2]),
    ]
    for value in hostile:
        try:
            decode(tiff(bytes(2**16), tiles | {tag: value}), LIMITS)
        except (BadImage, ImageTooLarge) as error:
            reasons.append(str(error))
    assert len(reasons) >= 4
    assert not [reason for reason in reasons if "object" in reason or "'" in reason]  # no words of Python's


def test_tiles_that_are_larger_than_allowed_are_refused_by_their_size() -> None:
    with pytest.raises(BadImage, match="tag 322 of a TIFF is not 1 integers or fewer"):
        decode(tiff(bytes(64), {322: (1, [7] * 2000), 323: (4, [2_000_000]), 324: (4, [8]), 325: (4, [64])}), LIMITS)
    with pytest.raises(ImageTooLarge, match="count as 4000000000"):
        decode(tiff(bytes(64), {322: (4, [2000]), 323: (4, [2_000_000]), 324: (4, [8]), 325: (4, [64])}), LIMITS)


def test_tags_that_all_lie_over_the_same_bytes_are_not_read() -> None:
    data = tiff(bytes(2**16), {})
    at = int.from_bytes(data[4:8], "little")
    count = int.from_bytes(data[at : at + 2], "little")
    more = b"".join(struct.pack("<HHII", tag, 7, len(data), 0) for tag in range(40_000, 43_000))
    crowded = data[:at] + struct.pack("<H", count + 3000) + data[at + 2 : at + 2 + 12 * count] + more + bytes(4)
    np.testing.assert_array_equal(pixels(crowded), pixels(data))
    with pytest.raises(BadImage, match="of a TIFF lies beyond its end"):
        decode(tiff(bytes(2**16), {})[:at] + struct.pack("<H", 1) + struct.pack("<HHII", 273, 4, 90_000, 0) + bytes(4), LIMITS)


def test_large_photographs_of_phones_and_panoramas_are_read() -> None:
    for size in ((8192, 6144), (12_000, 9000), (16_000, 3000)):
        decoded = decode(encoded(Image.new("RGB", size, (10, 120, 40)), quality=50), LIMITS)
        assert (decoded.width, decoded.height) == size
    with pytest.raises(ImageTooLarge, match=r"8192 x 6144 pixels, more than max_image_pixels=50000000"):
        decode(encoded(Image.new("1", (8192, 6144)), "PNG"), LIMITS)
    with pytest.raises(ImageTooLarge, match=r"2000 x 2000 pixels, which count as 500000, more than max_image_pixels=499999"):
        decode(encoded(Image.new("RGB", (2000, 2000))), ImageLimits(max_image_pixels=499_999))
    with pytest.raises(ImageTooLarge, match=r"2000 x 2000 pixels, which count as 2000000, more than max_image_pixels=1999999"):
        decode(encoded(Image.new("RGB", (2000, 2000)), progressive=True), ImageLimits(max_image_pixels=1_999_999))


@pytest.mark.parametrize(
    "data", [b"", b"not an image", b"GIF89a", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\xff\xd8\xff\xe0" + b"\0" * 64]
)
def test_what_is_not_an_image_is_refused(data: bytes) -> None:
    with pytest.raises(BadImage):
        decode(data, LIMITS)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "HEIF", "JPEG2000", "ICO"])
def test_truncated_files_are_refused_or_decoded_never_anything_else(format: str) -> None:
    data = encoded(photograph(5), format)
    for share in (0.1, 0.5, 0.9):
        with pytest.raises(BadImage):
            decode(data[: int(len(data) * share)], LIMITS)


def test_damaged_files_are_refused_or_decoded_never_anything_else() -> None:
    rng = np.random.default_rng(0)
    files = [bytearray(encoded(photograph(5), format)) for format in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")]
    for trial in range(300):
        data = bytearray(files[trial % len(files)])
        for position in rng.integers(0, len(data), 3):
            data[position] = rng.integers(256)
        try:
            decode(bytes(data), ImageLimits(max_image_pixels=1_000_000))
        except (BadImage, ImageTooLarge):
            continue


def test_views_are_crops_with_the_mean_of_their_own_place_subtracted() -> None:
    image = torch.arange(3 * 256 * 256).view(1, 3, 256, 256) % 251
    mean = torch.linspace(0, 100, 3 * 256 * 256).view(3, 256, 256)
    full = image.float() - mean
    image = image.to(torch.uint8)
    torch.testing.assert_close(centre_view(image, mean, 224), full[..., 16:240, 16:240])
    views = list(ten_views(image, mean, 224))
    assert len(views) == 10
    for view, mirrored, (top, left) in zip(views[::2], views[1::2], [(0, 0), (0, 32), (32, 0), (32, 32), (16, 16)], strict=True):
        torch.testing.assert_close(view, full[..., top : top + 224, left : left + 224])
        torch.testing.assert_close(mirrored, view.flip(-1))


def test_views_of_squares_of_128_are_crops_of_block_means() -> None:
    rng = np.random.default_rng(4)
    pixels, mean = rng.integers(256, size=(2, 3, 256, 256), dtype=np.uint8), rng.uniform(0, 255, (3, 256, 256)).astype(np.float32)
    full = (pixels.astype(np.float64) - mean).reshape(2, 3, 128, 2, 128, 2).mean((3, 5))
    image, mean_CHW = torch.from_numpy(pixels), torch.from_numpy(mean)
    np.testing.assert_allclose(centre_view(image, mean_CHW, 67, 128), full[..., 30:97, 30:97], atol=1e-4)
    places = [(0, 0), (0, 61), (61, 0), (61, 61), (30, 30)]
    views = list(ten_views(image, mean_CHW, 67, 128))
    for (top, left), view, mirrored in zip(places, views[::2], views[1::2], strict=True):
        crop = full[..., top : top + 67, left : left + 67]
        np.testing.assert_allclose(view, crop, atol=1e-4)
        np.testing.assert_allclose(mirrored, crop[..., ::-1], atol=1e-4)
    crops = Crops([5, 61], [61, 8], [False, True], torch.zeros(2, 3))
    views_BCHW = training_view(image, mean_CHW, 67, crops, 128)
    np.testing.assert_allclose(views_BCHW[0], full[0, :, 5:72, 61:128], atol=1e-4)
    np.testing.assert_allclose(views_BCHW[1], full[1, :, 61:128, 8:75][..., ::-1], atol=1e-4)


def test_training_views_are_crops_or_mirrored_crops_and_follow_from_the_draws() -> None:
    image = torch.arange(256 * 256).view(1, 1, 256, 256).expand(1, 3, 256, 256) % 253
    image = image.to(torch.uint8).repeat(16, 1, 1, 1)
    mean = torch.zeros(3, 256, 256)
    views = training_view(image, mean, 224, draws.crops(7, 1, 0, 16, 32))
    again = training_view(image, mean, 224, draws.crops(7, 1, 0, 16, 32))
    torch.testing.assert_close(views, again, rtol=0, atol=0)
    crops = image[0, 0].float().unfold(0, 224, 1).unfold(1, 224, 1)
    mirrored = 0
    for view in views[:, 0]:
        plain = bool((crops == view).flatten(2).all(-1).any())
        assert plain != bool((crops == view.flip(-1)).flatten(2).all(-1).any())
        mirrored += not plain
    assert 0 < mirrored < 16


def test_a_decoded_image_does_not_depend_on_the_container() -> None:
    image = photograph(9, size=(300, 280))
    first, *others = (pixels(encoded(image, format)) for format in ("PNG", "BMP", "TIFF"))
    for other in others:
        np.testing.assert_array_equal(other, first)


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"}),
        ("WEBP", {"save_all": True, "append_images": [photograph(2, size=(300, 701))]}),
        ("PNG", {}),
        ("TIFF", {}),
        ("JPEG", {"progressive": True}),
    ],
)
def test_decoding_costs_the_pixels_that_the_header_states(format: str, options: dict[str, object]) -> None:
    data = encoded(photograph(1, size=(300, 701)), format, **options)
    assert cost(data, LIMITS) == (300 * 701 * 4 // 3 if format == "WEBP" else 300 * 701)


def test_a_jpeg_costs_the_pixels_that_it_is_scaled_down_to_and_the_time_of_all() -> None:
    assert cost(encoded(photograph(1, size=(300, 301))), LIMITS) == 300 * 301
    assert cost(encoded(photograph(1, size=(600, 601))), LIMITS) == 300 * 301
    assert cost(encoded(photograph(1, size=(4096, 2048))), LIMITS) == 4096 * 2048 // 8


@pytest.mark.parametrize("chunk", [b"VP8X", b"VP8L", b"VP8 "])
def test_a_webp_of_too_many_pixels_is_refused_before_it_is_opened(chunk: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    side = 7072
    body = {
        b"VP8X": bytes(4) + 2 * (side - 1).to_bytes(3, "little"),
        b"VP8L": b"\x2f" + ((side - 1) | (side - 1) << 14).to_bytes(4, "little") + bytes(9),
        b"VP8 ": b"\x10\0\0\x9d\x01\x2a" + 2 * side.to_bytes(2, "little"),
    }[chunk]
    data = b"RIFF" + (12 + len(body)).to_bytes(4, "little") + b"WEBP" + chunk + len(body).to_bytes(4, "little") + body
    monkeypatch.setattr(Image, "open", None)
    for reads in (decode, cost):
        with pytest.raises(ImageTooLarge, match=f"{side} x {side} pixels"):
            reads(data, LIMITS)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"])
def test_what_is_refused_by_its_header_costs_nothing(format: str) -> None:
    data = encoded(photograph(1, size=(300, 200)), format)
    with pytest.raises(ImageTooLarge, match="300 x 200"):
        cost(data, ImageLimits(max_image_pixels=59_999))
    with pytest.raises(ImageTooLarge, match="bytes"):
        cost(data, ImageLimits(max_image_bytes=len(data) - 1))
    for damaged in (b"", data[:3], b"RIFF\0\0\0\0WEBP", b"RIFF\0\0\0\0WEBPVP8X"):
        with pytest.raises(BadImage):
            cost(damaged, LIMITS)
