"""Image files as boxes of parts: which kind a file is, and a copy of it that holds its pixels and nothing else.

Pillow and the libraries below it read whatever a file says about itself: EXIF blocks, colour profiles, comments, previews, tables
of any length. None of that is needed for pixels, all of it may be damaged, and some of it is made to cost gigabytes. So a decoder
is given no such parts; the one fact wanted of them, which way is up, is read here. Every number that comes from a file is an
integer of ours within bounds before anything is computed with it.
"""

import re
import struct
from dataclasses import dataclass, replace
from typing import Final

from training.errors import BadImage, NotAnImage

_MOST_PARTS: Final = 10_000  # of a file, with about ten as a rule; each costs as much as a few hundred pixels
_MOST_BLOCKS: Final = 400_000  # of a GIF, of up to 255 bytes
_MOST_TILES: Final = 4096  # of a JPEG 2000
_MOST_STRIPS: Final = 100_000  # of a TIFF; one a row is common
_TIFF_SIZES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_TIFF_INTEGERS: Final = {3: "H", 4: "I", 16: "Q"}  # type -> struct's letter
_BYTE, _LONG8 = 1, 16
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _ORIENTATION, _SAMPLES = 256, 257, 258, 259, 262, 274, 277
_STRIP_OFFSETS, _ROWS, _STRIP_SIZES, _MAX_SAMPLE, _PLANAR, _PREDICTOR, _COLOURS = 273, 278, 279, 281, 284, 317, 320
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_SIZES, _EXTRA, _SAMPLE_FORMAT, _SMAX_SAMPLE = 322, 323, 324, 325, 338, 339, 341
_JPEG_TABLES, _SUBFILE, _SUB_DIRECTORIES, _DNG_VERSION = 347, 254, 330, 50_706
# Compressions of a TIFF that Pillow's library, as its wheels have it, does not read
_TIFF_COMPRESSIONS: Final = {
    22_610: "JPEG XR",
    33_003: "JPEG 2000",
    33_004: "JPEG 2000",
    33_005: "JPEG 2000",
    34_712: "JPEG 2000",
    34_887: "LERC",
    34_892: "JPEG of a raw file",
    34_933: "PNG",
    34_934: "JPEG XR",
    50_001: "WebP",
    50_002: "JPEG XL",
    52_546: "JPEG XL",
}
_HEVC_BRANDS: Final = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"hevm", b"hevs")
# tag -> (lowest, highest, most values) of the integers that pixels are found by
_TIFF_TAGS: Final[dict[int, tuple[int, int, int]]] = {
    _SUBFILE: (0, 2**32 - 1, 1),
    _WIDTH: (1, 2**31 - 1, 1),
    _HEIGHT: (1, 2**31 - 1, 1),
    _BITS: (1, 128, 8),
    _COMPRESSION: (1, 65_535, 1),
    _PHOTOMETRIC: (0, 65_535, 1),
    266: (1, 2, 1),  # order of bits
    _STRIP_OFFSETS: (0, 2**32 - 1, _MOST_STRIPS),
    _ORIENTATION: (0, 65_535, 1),
    _SAMPLES: (1, 8, 1),
    _ROWS: (1, 2**32 - 1, 1),
    _STRIP_SIZES: (0, 2**32 - 1, _MOST_STRIPS),
    _MAX_SAMPLE: (0, 2**32 - 1, 8),
    _PLANAR: (1, 2, 1),
    292: (0, 7, 1),  # fax
    293: (0, 3, 1),
    _PREDICTOR: (1, 3, 1),
    _COLOURS: (0, 65_535, 3 * 65_536),
    _TILE_WIDTH: (1, 2**31 - 1, 1),
    _TILE_HEIGHT: (1, 2**31 - 1, 1),
    _TILE_OFFSETS: (0, 2**32 - 1, _MOST_STRIPS),
    _TILE_SIZES: (0, 2**32 - 1, _MOST_STRIPS),
    332: (1, 2, 1),  # inks
    334: (1, 8, 1),
    _EXTRA: (0, 65_535, 8),
    _SAMPLE_FORMAT: (1, 6, 8),
    _SMAX_SAMPLE: (0, 2**32 - 1, 8),
    530: (1, 4, 2),  # sizes and place of the colours of YCbCr
    531: (1, 2, 1),
}
_TIFF_HINTS: Final = frozenset((_SUBFILE, _MAX_SAMPLE, _SMAX_SAMPLE, _ORIENTATION, 332, 334))  # which pixels can be read without
_TIFF_LAYOUT: Final = {
    _PHOTOMETRIC: "PhotometricInterpretation",
    _SAMPLES: "SamplesPerPixel",
    _BITS: "BitsPerSample",
    _SAMPLE_FORMAT: "SampleFormat",
    _EXTRA: "ExtraSamples",
    _COMPRESSION: "Compression",
}
_TIFF_NUMBERS: Final = {529: 3, 532: 6}  # rationals: tag -> how many; of YCbCr


@dataclass(frozen=True)
class Container:
    """A file's pixels, and what it says about them."""

    kind: str  # Pillow's name of the file's format
    data: bytes  # for the decoder
    orientation: int = 1  # EXIF's, 1 to 8
    scans: int = 1  # of a JPEG: how often a decoder goes over all pixels
    progressive: bool = False  # of a JPEG: whether all coefficients are kept until the end
    levels: int = 0  # of a JPEG 2000: how often its size can be halved
    bits: int = 8  # of each of a PNG's values, as stored
    highest: int = 0  # of a TIFF: the value that is white; 0 where it does not say
    inverted: bool = False  # of a TIFF: 0 is white
    signed: bool = False  # of a TIFF
    tile_pixels: int = 0  # of a TIFF: pixels of one of its tiles, or strips
    layout: str = ""  # of a TIFF: what its tags say of its pixels
    picture: str = ""  # of an ICO that holds a file of another format: which


def open_container(data: bytes) -> Container:
    """The pixels of an image file. Raises NotAnImage, saying what a file is instead, and BadImage for one that is damaged."""
    kind = kind_of(data)
    try:
        return _READERS[kind](data) if kind in _READERS else Container(kind, data)
    except (struct.error, IndexError, OverflowError) as error:
        raise BadImage(f"damaged or truncated image: its {kind} headers are cut short") from error


def kind_of(data: bytes) -> str:
    """Pillow's name of the format of an image file. Raises NotAnImage, saying what the file is, for all others."""
    if not data:
        raise NotAnImage("image is empty (0 bytes)")
    for kind, start in _STARTS:
        if data.startswith(start):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        return _kind_of_boxes(data)
    for what, at, start in _OTHERS:
        if data.startswith(start, at if at >= 0 else max(0, len(data) + at)):
            raise NotAnImage(f"is {what}, and not an image in one of the formats {_NAMES}")
    raise NotAnImage(f"{'is text, and ' if _is_text(data) else ''}not an image in one of the formats {_NAMES}")


_NAMES: Final = "JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, JPEG 2000, ICO and, with the extra heic, HEIC"
_STARTS: Final = (
    ("JPEG", b"\xff\xd8\xff"),
    ("PNG", b"\x89PNG\r\n\x1a\n"),
    ("GIF", b"GIF87a"),
    ("GIF", b"GIF89a"),
    ("BMP", b"BM"),
    ("TIFF", b"II*\0"),
    ("TIFF", b"MM\0*"),
    ("TIFF", b"II+\0"),
    ("TIFF", b"MM\0+"),
    ("JPEG2000", b"\xff\x4f\xff\x51"),
    ("JPEG2000", b"\0\0\0\x0cjP  \r\n\x87\n"),
    ("ICO", b"\0\0\x01\0"),
)
_OTHERS: Final = (
    ("a JPEG XL image", 0, b"\xff\x0a"),
    ("a JPEG XL image", 0, b"\0\0\0\x0cJXL \r\n\x87\n"),
    ("a JPEG XR image", 0, b"II\xbc\x01"),
    ("a PDF document", 0, b"%PDF"),
    ("a PostScript document", 0, b"%!PS"),
    ("a Photoshop document", 0, b"8BPS"),
    ("an OpenEXR image", 0, b"v/1\x01"),
    ("a Radiance image", 0, b"#?R"),
    ("a Radiance image", 0, b"#?r"),
    ("a DDS texture", 0, b"DDS "),
    *(("a Blizzard texture", 0, start) for start in (b"BLP1", b"BLP2", b"FTEX")),
    ("a Khronos texture", 0, b"\xabKTX "),
    *(("a camera's raw file", 0, start) for start in (b"IIU\0", b"IIRO", b"IIRS", b"MMOR", b"FUJIFILM", b"FOVb", b"\0MRM")),
    ("a camera's raw file", 6, b"HEAPCCDR"),
    *(("a Netpbm image", 0, b"P%d%c" % (kind, end)) for kind in range(1, 8) for end in b" \t\r\n#"),
    *(("a portable float map", 0, start) for start in (b"PF\n", b"Pf\n")),
    *(("a PCX image", 0, b"\n%c\1" % version) for version in (0, 2, 3, 4, 5)),
    ("a DCX image", 0, b"\xb1\x68\xde\x3a"),
    *(("a Silicon Graphics image", 0, start) for start in (b"\1\xda\0", b"\1\xda\1")),
    ("a Sun raster image", 0, b"\x59\xa6\x6a\x95"),
    ("a Targa image", -18, b"TRUEVISION-XFILE.\0"),
    *(("an animation (FLIC)", 4, start) for start in (b"\x11\xaf", b"\x12\xaf")),
    ("an icon of macOS (ICNS)", 0, b"icns"),
    ("a mouse pointer (CUR)", 0, b"\0\0\2\0"),
    ("a bitmap without the header of a BMP file (DIB)", 0, b"\x28\0\0\0"),
    ("a Windows metafile", 0, b"\xd7\xcd\xc6\x9a"),
    ("a Windows metafile", 40, b" EMF"),
    ("a PostScript document", 0, b"\xc5\xd0\xd3\xc6"),
    ("a GIMP image", 0, b"gimp xcf"),
    ("a Paint Shop Pro image", 0, b"Paint Shop Pro Image File"),
    ("a Microsoft Paint image", 0, b"DanM"),
    ("a Photo CD image", 2048, b"PCD_"),
    ("an XPM image", 0, b"/* XPM */"),
    ("a DjVu document", 0, b"AT&TFORM"),
    ("an IFF image", 8, b"ILBM"),
    ("a BPG image", 0, b"BPG\xfb"),
    ("a FLIF image", 0, b"FLIF"),
    ("a LERC raster", 0, b"CntZImage "),
    ("a LERC raster", 0, b"Lerc2 "),
    ("weather data (GRIB)", 0, b"GRIB"),
    ("weather data (BUFR)", 0, b"BUFR"),
    ("an HDF5 file", 0, b"\x89HDF\r\n\x1a\n"),
    ("an array of NumPy", 0, b"\x93NUMPY"),
    ("a QOI image", 0, b"qoif"),
    ("a DICOM image", 128, b"DICM"),
    ("a FITS image", 0, b"SIMPLE  ="),
    ("a video (AVI)", 8, b"AVI "),
    ("a sound (WAV)", 8, b"WAVE"),
    ("a video (Matroska or WebM)", 0, b"\x1aE\xdf\xa3"),
    ("a video (MPEG)", 0, b"\0\0\x01\xba"),
    ("a video (MPEG)", 0, b"\0\0\x01\xb3"),
    ("a video (QuickTime)", 4, b"moov"),
    ("a video (QuickTime)", 4, b"mdat"),
    ("a sound (MP3)", 0, b"ID3"),
    ("a sound (Ogg)", 0, b"OggS"),
    ("a ZIP archive, or a document that is one", 0, b"PK\x03\x04"),
    ("a gzip archive", 0, b"\x1f\x8b"),
    ("a 7z archive", 0, b"7z\xbc\xaf\x27\x1c"),
    ("a RAR archive", 0, b"Rar!\x1a\x07"),
    ("a bzip2 archive", 0, b"BZh"),
    ("an xz archive", 0, b"\xfd7zXZ\0"),
    ("a Zstandard archive", 0, b"\x28\xb5\x2f\xfd"),
    ("a tar archive", 257, b"ustar"),
    *(("a font", 0, start) for start in (b"\0\1\0\0\0", b"OTTO", b"ttcf", b"wOFF", b"wOF2", b"STARTFONT")),
    ("a program", 0, b"\x7fELF"),
    ("a program", 0, b"MZ"),
    ("an SQLite database", 0, b"SQLite format 3\0"),
    ("an Office document", 0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"),
    ("a web page", 0, b"<!DOCTYPE html"),
    ("a web page", 0, b"<!doctype html"),
    ("a web page", 0, b"<html"),
    ("an SVG drawing", 0, b"<svg"),
    ("XML text, an SVG drawing perhaps", 0, b"<?xml"),
    ("a pointer of Git LFS and not the file itself", 0, b"version https://git-lfs"),
)


def _kind_of_boxes(data: bytes) -> str:
    size = min(int.from_bytes(data[:4]), 1024)
    brands = [data[8:12], *(data[at : at + 4] for at in range(16, size, 4))]
    if b"avif" in brands or b"avis" in brands:
        return "AVIF"
    if any(brand in brands for brand in _HEVC_BRANDS):
        return "HEIF"
    if brands[0] in (b"mif1", b"msf1", b"heif"):
        return "HEIF"
    if brands[0] == b"jp2 ":
        return "JPEG2000"
    if brands[0] == b"crx ":
        raise NotAnImage(f"is a camera's raw file, and not an image in one of the formats {_NAMES}")
    raise NotAnImage(f"is a video (MP4 or QuickTime), and not an image in one of the formats {_NAMES}")


def _is_text(data: bytes) -> bool:
    try:
        head = data[:4096].decode("utf-8", "strict" if len(data) <= 4096 else "ignore")
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character.isspace() for character in head)


def _jpeg(data: bytes) -> Container:
    """Up to the end of the first picture; phones put others, and videos, behind it."""
    kept, at, parts, orientation, scans, progressive = [data[:2]], 2, 0, 1, 0, False
    while True:
        marker = data[at + 1] if data[at] == 0xFF else 0
        parts += 1
        if parts > _MOST_PARTS:
            raise BadImage(f"image file of more than {_MOST_PARTS} parts")
        if marker == _END_OF_IMAGE:
            kept.append(data[at : at + 2])
            break
        if marker in _JPEG_KINDS:
            raise BadImage(f"{_JPEG_KINDS[marker]} is not read; save it as a JPEG of the usual kind, or as a PNG")
        if marker in (0, 1, 0xFF) or 0xD0 <= marker <= 0xD8:  # filling, junk between parts, or a marker without contents
            at += 1
            continue
        begin, at = at, at + 2 + int.from_bytes(data[at + 2 : at + 4])
        start = data[begin + 4 : begin + 9]
        if marker == 0xE1 and start == b"Exif\0" and orientation == 1:
            orientation = orientation_in(data[begin + 10 : at])
        if marker == _START_OF_SCAN:
            scans += 1
            after = _NEXT_MARKER.search(data, at)
            at = after.start() if after else len(data)
        if not (0xE0 <= marker <= 0xEF or marker == 0xFE) or (marker, start) in ((0xE0, b"JFIF\0"), (0xEE, b"Adobe")):
            kept.append(data[begin:at])
        if marker in _JPEG_FRAMES and data[begin + 4] != 8:
            raise BadImage(f"a JPEG of {data[begin + 4]} bits a value is not read; those of 8 are")
        progressive |= marker in (0xC2, 0xC6, 0xCA, 0xCE)
        if at + 1 >= len(data):  # cut short, which the decoder finds too
            break
    if not scans:
        raise BadImage("damaged or truncated image: it ends before its pixels begin")
    return Container("JPEG", b"".join(kept), orientation, scans=scans, progressive=progressive or scans > 1)


_JPEG_FRAMES: Final = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)
_JPEG_KINDS: Final = {
    **dict.fromkeys((0xC3, 0xC7, 0xCB, 0xCF), "a lossless JPEG"),
    **dict.fromkeys((0xC5, 0xC6, 0xCD, 0xCE), "a hierarchical JPEG"),
    0xF7: "a JPEG-LS image",
}
_START_OF_SCAN: Final = 0xDA
_END_OF_IMAGE: Final = 0xD9
_NEXT_MARKER: Final = re.compile(b"\xff[\x01-\xcf\xd9-\xfe]")  # neither a stuffed 255 nor a restart


def _png(data: bytes) -> Container:
    kept, at, parts, orientation = [data[:8]], 8, 0, 1
    while at + 8 <= len(data):
        size, name = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8]
        if name in (b"IHDR", b"PLTE", b"tRNS", b"IDAT"):
            kept.append(data[at : at + 12 + size])
        elif name == b"eXIf":
            orientation = orientation_in(data[at + 8 : at + 8 + size].removeprefix(b"Exif\0\0"))
        at, parts = at + 12 + size, parts + 1
        if parts > _MOST_PARTS:
            raise BadImage(f"image file of more than {_MOST_PARTS} parts")
        if name == b"IEND":
            break
    return Container("PNG", b"".join([*kept, _PNG_END]), orientation, bits=data[24])


_PNG_END: Final = b"\0\0\0\0IEND\xaeB\x60\x82"


def _webp(data: bytes) -> Container:
    kept, at, parts, orientation, frames = [], 12, 0, 1, 0
    end = min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    while at + 8 <= end:
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        part = data[at : at + 8 + size + size % 2]
        frames += name == b"ANMF"
        if name == b"VP8X" and size >= 10:
            kept.append(part[:8] + bytes([part[8] & ~0x2C]) + part[9:])  # no colour profile, no EXIF, no XMP
        elif name in (b"VP8 ", b"VP8L", b"ALPH", b"ANIM") or (name == b"ANMF" and frames == 1):
            kept.append(part)
        elif name == b"EXIF":
            orientation = orientation_in(part[8:].removeprefix(b"Exif\0\0"))
        at, parts = at + len(part), parts + 1
        if parts > _MOST_PARTS:
            raise BadImage(f"image file of more than {_MOST_PARTS} parts")
    contents = b"".join(kept)
    return Container("WEBP", b"RIFF" + (len(contents) + 4).to_bytes(4, "little") + b"WEBP" + contents, orientation)


def _gif(data: bytes) -> Container:
    """The first frame alone."""
    at = 13 + _gif_colours(data[10])
    kept, parts, blocks = [data[:at]], 0, 0
    while True:
        begin, introducer = at, data[at]
        if introducer == 0x2C:
            at += 11 + _gif_colours(data[at + 9])
        elif introducer == 0x21:
            at += 2
        elif introducer == 0:
            at += 1
            continue
        else:
            raise BadImage("damaged or truncated image: it ends before its first frame")
        while size := data[at]:
            at += 1 + size
            blocks += 1
            if blocks > _MOST_BLOCKS:
                raise BadImage(f"image file of more than {_MOST_BLOCKS} parts")
        at += 1
        parts += 1
        if parts > _MOST_PARTS:
            raise BadImage(f"image file of more than {_MOST_PARTS} parts")
        if introducer == 0x2C:
            return Container("GIF", b"".join([*kept, data[begin:at], b";"]))
        if data[begin + 1] == 0xF9:  # which colour is transparent
            kept.append(data[begin:at])


def _gif_colours(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _jpeg2000(data: bytes) -> Container:
    at = data.find(b"\xff\x4f\xff\x51")
    if at < 0:
        raise BadImage("damaged or truncated image: it has no JPEG 2000 codestream")
    right, bottom, left, top, width, height, first, second, channels = struct.unpack_from(">8IH", data, at + 8)
    if not (width and height and right > max(left, first) and bottom > max(top, second)) or not 1 <= channels <= 4:
        raise BadImage(f"damaged image: a JPEG 2000 of {channels} channels, whose sizes do not go together")
    if -(-(right - first) // width) * -(-(bottom - second) // height) > _MOST_TILES:
        raise BadImage(f"JPEG 2000 of more than {_MOST_TILES} tiles")
    at += 2
    for _ in range(100):
        marker, size = int.from_bytes(data[at : at + 2]), int.from_bytes(data[at + 2 : at + 4])
        if marker == 0xFF52:
            return Container("JPEG2000", data, levels=data[at + 9])
        at += 2 + size
    raise BadImage("damaged or truncated image: its JPEG 2000 codestream says nothing of its coding")


def _ico(data: bytes) -> Container:
    """The largest picture of an icon, which is a PNG file, or a bitmap that Pillow reads as an icon of this one."""
    entries = [data[at : at + 16] for at in range(6, 6 + 16 * min(int.from_bytes(data[4:6], "little"), 256), 16)]
    largest = max(entries, key=lambda entry: (entry[0] or 256, int.from_bytes(entry[6:8], "little")), default=b"")
    size, at = struct.unpack("<II", largest[8:16])
    picture = data[at : at + size]
    if picture.startswith(b"\x89PNG\r\n\x1a\n"):
        return replace(_png(picture), kind="ICO", picture="PNG")
    width, height = struct.unpack("<ii", picture[4:12])
    if not (0 < width <= 1024 and 0 < height <= 2048):
        raise BadImage(f"icon of {width} x {height // 2} pixels")
    size_in_entry = bytes((width & 255, height // 2 & 255))  # the bitmap's own; Pillow warns of another
    return Container("ICO", data[:4] + b"\1\0" + size_in_entry + largest[2:12] + (22).to_bytes(4, "little") + picture)


def _avif(data: bytes) -> Container:
    """Without EXIF, which way is up being said by the boxes that the decoder reads."""
    at = 0
    for _ in range(_MOST_PARTS):
        size, name = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8]
        if name == b"meta":
            end = at + size
            return Container("AVIF", data[:at] + data[at:end].replace(b"Exif", b"none") + data[end:])
        if size < 8:
            break
        at += size
    return Container("AVIF", data)


def orientation_in(exif: bytes) -> int:
    """Which way is up in an EXIF block, 1 to 8; 1 where it does not say, or is damaged."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if not order:
        return 1
    try:
        (at,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, at)
        for entry in range(at + 2, at + 2 + 12 * min(count, _MOST_PARTS), 12):
            tag, kind, number, value = struct.unpack_from(f"{order}HHIH", exif, entry)
            if (tag, kind, number) == (_ORIENTATION, 3, 1):
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def _tiff(data: bytes) -> Container:
    """The first image of a TIFF: its directory rewritten with what pixels need, appended, and named by the header.

    What comes out is never a BigTIFF, of which Pillow reads those in little-endian order alone.
    """
    order = "<" if data[:2] == b"II" else ">"
    values, entries, others = _tiff_entries(data, order)
    # of whose directories the first is of a preview
    if (
        data[:11] == b"II*\0\x10\0\0\0CR\2"
        or _DNG_VERSION in others
        or (_SUB_DIRECTORIES in others and values.get(_SUBFILE, [0])[0] & 1)
    ):
        raise NotAnImage(f"is a camera's raw file, and not an image in one of the formats {_NAMES}")
    for tag in (_WIDTH, _HEIGHT):
        if tag not in values:
            raise BadImage("damaged or truncated image: a TIFF that does not say its size")
    _check_tiff(values)
    width, height = values[_WIDTH][0], values[_HEIGHT][0]
    padding = bytes(-len(data) % 8)
    at = len(data) + len(padding)
    header = data[:2] + struct.pack(f"{order}HI", 42, at)
    bits = _bits(values)
    tiled = _TILE_OFFSETS in values
    return Container(
        "TIFF",
        header + data[len(header) :] + padding + _tiff_directory(entries, order, at),
        values.get(_ORIENTATION, [1])[0] if values.get(_ORIENTATION, [1])[0] in range(1, 9) else 1,
        bits=bits,
        highest=max(values.get(_SMAX_SAMPLE, values.get(_MAX_SAMPLE, [0]))) or (2**bits - 1 if bits < 32 else 0),
        inverted=values.get(_PHOTOMETRIC) == [0],
        layout=", ".join(f"{name} {' '.join(map(str, values[tag]))}" for tag, name in _TIFF_LAYOUT.items() if tag in values),
        signed=2 in values.get(_SAMPLE_FORMAT, [1]),
        tile_pixels=values[_TILE_WIDTH][0] * values[_TILE_HEIGHT][0]
        if tiled
        else width * min(height, values.get(_ROWS, [height])[0]),
    )


def _tiff_directory(entries: "dict[int, _Entry]", order: str, at: int) -> bytes:
    """The directory, which will lie at `at`, and behind it the values that have no room in it."""
    behind = at + 2 + 12 * len(entries) + 4
    directory, values = struct.pack(f"{order}H", len(entries)), bytearray()
    for tag, (kind, number, written) in sorted(entries.items()):
        directory += struct.pack(f"{order}HHI", tag, kind, number)
        if len(written) > 4:
            directory += struct.pack(f"{order}I", behind + len(values))
            values += written + bytes(len(written) % 2)
        else:
            directory += written.ljust(4, b"\0")
    return directory + bytes(4) + values


_Entry = tuple[int, int, bytes]  # of a TIFF's directory: type, number of values, and these as written


def _tiff_entries(data: bytes, order: str) -> tuple[dict[int, list[int]], dict[int, _Entry], set[int]]:
    """Of the first directory: the integers of each tag that is wanted, its entry, and the tags that are not wanted."""
    big = data[2:4] in (b"+\0", b"\0+")
    head, form, size, inline = ("Q", f"{order}HHQ", 20, 8) if big else ("H", f"{order}HHI", 12, 4)
    pointer = f"{order}Q" if big else f"{order}I"
    (at,) = struct.unpack_from(pointer, data, 8 if big else 4)
    (count,) = struct.unpack_from(f"{order}{head}", data, at)
    at += struct.calcsize(head)
    if count > _MOST_PARTS:
        raise BadImage(f"image file of more than {_MOST_PARTS} parts")
    values: dict[int, list[int]] = {}
    entries: dict[int, _Entry] = {}
    others: set[int] = set()
    taken = 0
    for entry in range(at, at + count * size, size):
        tag, kind, number = struct.unpack_from(form, data, entry)
        if tag not in _TIFF_TAGS and tag not in _TIFF_NUMBERS and tag != _JPEG_TABLES:
            others.add(tag)
            continue
        if tag in entries:
            continue
        length = number * _TIFF_SIZES.get(kind, 1)
        start = entry + size - inline if length <= inline else struct.unpack_from(pointer, data, entry + size - inline)[0]
        taken += length
        if start + length > len(data) or taken > len(data):
            raise BadImage(f"damaged or truncated image: tag {tag} of a TIFF lies beyond its end")
        written = data[start : start + length]
        if tag in _TIFF_TAGS:
            if (kind, number) == (_BYTE, 1):
                kind, written = 3, struct.pack(f"{order}H", data[start])
            try:
                values[tag] = _integers(written, order, tag, kind, number)
            except BadImage:
                if tag in _TIFF_HINTS:
                    continue
                raise
            if kind == _LONG8:
                kind, written = 4, struct.pack(f"{order}{number}I", *values[tag])
            if tag == _ORIENTATION:  # which Pillow would turn it by
                continue
        elif (tag in _TIFF_NUMBERS and (kind, number) != (5, _TIFF_NUMBERS[tag])) or (tag == _JPEG_TABLES and kind != 7):
            continue
        entries[tag] = kind, number, written
    return values, entries, others


def _integers(written: bytes, order: str, tag: int, kind: int, number: int) -> list[int]:
    lowest, highest, most = _TIFF_TAGS[tag]
    if kind not in _TIFF_INTEGERS or not 1 <= number <= most:
        raise BadImage(f"damaged image: tag {tag} of a TIFF is not {most} integers or fewer")
    found = list(struct.unpack_from(f"{order}{number}{_TIFF_INTEGERS[kind]}", written))
    if min(found) < lowest or max(found) > highest:
        raise BadImage(f"damaged image: tag {tag} of a TIFF is not within {lowest} and {highest}")
    return found


def _bits(values: dict[int, list[int]]) -> int:
    """Of the largest sample of a TIFF; those of samples that it has not are left out, as Pillow does."""
    return max(values.get(_BITS, [1])[: values.get(_SAMPLES, [1])[0]])


def _check_tiff(values: dict[int, list[int]]) -> None:
    """Raises BadImage where the tags of a TIFF do not go together."""
    tiled = _TILE_OFFSETS in values
    if tiled and not (_TILE_WIDTH in values and _TILE_HEIGHT in values):
        raise BadImage("damaged image: a TIFF of tiles that does not say their size")
    if not tiled and _STRIP_OFFSETS not in values:
        raise BadImage("damaged image: a TIFF without pixels")
    samples = values.get(_SAMPLES, [1])[0]
    for tag in (_BITS, _SAMPLE_FORMAT):
        if 1 < len(values.get(tag, [1])) < samples:
            raise BadImage(f"damaged image: tag {tag} of a TIFF is not of {samples} samples")
    compression, bits = values.get(_COMPRESSION, [1])[0], _bits(values)
    if compression in _TIFF_COMPRESSIONS:
        raise BadImage(f"a TIFF compressed as {_TIFF_COMPRESSIONS[compression]} is not read; save it with another compression")
    for kind, what in ((3, "floating-point pixels"), (5, "pairs of integers as pixels"), (6, "complex numbers as pixels")):
        if kind in values.get(_SAMPLE_FORMAT, [1]):
            raise BadImage(f"{what} have no agreed range")
    if bits > 32:
        raise BadImage(f"{bits}-bit integers as pixels have no agreed range")


_READERS: Final = {
    "JPEG": _jpeg,
    "PNG": _png,
    "WEBP": _webp,
    "GIF": _gif,
    "JPEG2000": _jpeg2000,
    "ICO": _ico,
    "AVIF": _avif,
    "TIFF": _tiff,
}
