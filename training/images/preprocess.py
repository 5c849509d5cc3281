"""bytes -> upright RGB photograph -> 256 x 256 pixels -> the views the network sees. One home for training, index and queries.

Legend: B batch, C channels (RGB), H height, W width. Pixels are on the 0..255 scale throughout.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Final, Literal, get_args

import numpy as np
import torch
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from training.errors import BadImage, ImageTooLarge, NotAnImage

# The limits below are ours and are checked from the header; Pillow's own would cut them short.
Image.MAX_IMAGE_PIXELS = None
SIZE: Final = 256
PIXEL_BYTES: Final = 15  # of memory that decoding takes a pixel at most; but 20 of a WebP
# Pillow's name of each format that is read -> the endings of its files' names
FORMATS: Final = {
    "JPEG": ("jpg", "jpeg", "jpe"),
    "PNG": ("png",),
    "WEBP": ("webp",),
    "GIF": ("gif",),
    "BMP": ("bmp",),
    "TIFF": ("tif", "tiff"),
}
Corner = Literal["top left", "top right", "bottom left", "bottom right", "centre"]
# where each of the ten views is cut, and whether it is mirrored, in their order
TEN_VIEWS: Final[list[tuple[Corner, bool]]] = [(corner, mirrored) for corner in get_args(Corner) for mirrored in (False, True)]
MaxImageBytes = Annotated[int, Field(ge=1, description="largest image, bytes")]
MaxImagePixels = Annotated[int, Field(ge=1, description="largest image, width x height")]
_MOST_SCANS: Final = 100  # of a progressive JPEG, with about ten as a rule; each goes over all pixels and takes a few bytes
_MOST_PARTS: Final = 10_000  # of a JPEG before its pixels, with about ten as a rule; of a PNG, with one a few kilobytes
_START_OF_SCAN: Final = b"\xff\xda"
_STARTS_OF_SCAN: Final = [bytes([0xFF, 0xDA, 0, 6 + 2 * channels, channels]) for channels in range(1, 5)]
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageLimits(BaseModel):
    """What decoding may cost; both are checked before pixels are decoded."""

    model_config = ConfigDict(frozen=True)

    max_image_bytes: MaxImageBytes = 20 * 2**20
    max_image_pixels: MaxImagePixels = 50_000_000

    def check_bytes(self, size: int) -> None:
        """Raises ImageTooLarge for a file of more bytes than allowed."""
        if size > self.max_image_bytes:
            raise ImageTooLarge(f"image has {size} bytes, more than max_image_bytes={self.max_image_bytes}")

    def check_pixels(self, width: int, height: int) -> None:
        """Raises ImageTooLarge for an image of more pixels than allowed."""
        if width * height > self.max_image_pixels:
            raise ImageTooLarge(f"image is {width} x {height} pixels, more than max_image_pixels={self.max_image_pixels}")


@dataclass(frozen=True)
class Photograph:
    """A decoded image: its central square at 256 x 256, and what the file said about itself."""

    pixels_CHW: Tensor  # uint8 (3, 256, 256)
    format: str  # "JPEG", "PNG", ...
    width: int  # as stored in the file, before rotation
    height: int


@dataclass(frozen=True)
class Crops:
    """Where the views of one batch are cut, whether they are mirrored, and how their colours are shifted."""

    tops_B: list[int]
    lefts_B: list[int]
    mirrored_B: list[bool]
    normals_B3: Tensor  # float32 (B, 3), standard normal: one for each direction of the colours

    def only(self, chosen_B: Tensor) -> "Crops":
        """Those of some images: bool (B,)."""
        picked = [i for i, chosen in enumerate(chosen_B.tolist()) if chosen]
        tops_B, lefts_B = [self.tops_B[i] for i in picked], [self.lefts_B[i] for i in picked]
        return Crops(tops_B, lefts_B, [self.mirrored_B[i] for i in picked], self.normals_B3[chosen_B])


def decode(data: bytes, limits: ImageLimits) -> Photograph:
    """Decodes one image and takes its central square at 256 x 256 (paper, section 2: scale the shorter side, crop the centre).

    EXIF rotation is applied, transparency is laid on white, the first frame of an animation is taken.
    Raises ImageTooLarge by bytes or by the header's pixels, BadImage for everything that does not decode, and MemoryError, which
    is no fault of the file's.
    """
    with _opened(data, limits) as image:
        width, height = image.size
        return Photograph(_planes(_central_square(image)), str(image.format), width, height)


def cost(data: bytes, limits: ImageLimits) -> int:
    """The pixels that decoding takes up, PIXEL_BYTES of memory each at most, and time. Raises like decode, by the header alone.

    Of a JPEG the pixels that are left once it is scaled down in decoding, but an eighth of all for the time that it takes; of a
    WebP a third more than it has.
    """
    if size := _webp_size(data):
        limits.check_bytes(len(data))
        limits.check_pixels(*size)
        return size[0] * size[1] * 4 // 3
    with _opened(data, limits) as image:
        pixels = image.width * image.height
        if image.format in ("JPEG", "MPO") and "progressive" not in image.info:
            image.draft(None, (SIZE, SIZE))
            return max(pixels // 8, image.width * image.height)
        return pixels


@contextmanager
def _opened(data: bytes, limits: ImageLimits) -> Iterator[Image.Image]:
    """The image before its pixels are decoded; what fails in the meantime is an error of ours."""
    limits.check_bytes(len(data))
    if not data:
        raise NotAnImage("image is empty (0 bytes)")
    _check_parts(data)
    if size := _webp_size(data):  # which takes up memory for its pixels when it is opened
        limits.check_pixels(*size)
    try:
        with Image.open(io.BytesIO(data), formats=tuple(FORMATS)) as image:
            limits.check_pixels(*image.size)
            _check_cost(image, data, limits)
            yield image
    except (BadImage, ImageTooLarge, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise NotAnImage(f"not an image in one of the formats {', '.join(FORMATS)}") from error
    except Exception as error:  # damaged files make Pillow raise almost anything
        raise BadImage(f"damaged or truncated image: {error}") from error


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """Width and height that a WebP's first chunk states; None for what is no WebP, or has no such chunk."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) < 25:
        return None
    match data[12:16]:
        case b"VP8X":  # the canvas of what follows
            return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
        case b"VP8L":
            bits = int.from_bytes(data[21:25], "little")
            return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        case b"VP8 ":
            return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
    return None


def _check_parts(data: bytes) -> None:
    """Raises BadImage for a JPEG or PNG file of so many tiny parts that Pillow, reading one by one, would take seconds."""
    at, parts = 2, 0
    if data.startswith(b"\xff\xd8"):
        while at + 4 <= len(data) and parts <= _MOST_PARTS and data[at : at + 2] != _START_OF_SCAN:
            marker = data[at + 1] if data[at] == 0xFF else 0
            alone = marker in (0, 1, 0xFF) or 0xD0 <= marker <= 0xD9
            at += 1 if alone else 2 + int.from_bytes(data[at + 2 : at + 4])
            parts += 1
    elif data.startswith(b"\x89PNG"):
        at = 8
        while at + 8 <= len(data) and parts <= _MOST_PARTS:
            at += 12 + int.from_bytes(data[at : at + 4])
            parts += 1
    if parts > _MOST_PARTS:
        raise BadImage(f"image file of more than {_MOST_PARTS} parts")


def _check_cost(image: Image.Image, data: bytes, limits: ImageLimits) -> None:
    """Raises ImageTooLarge or BadImage for a file that costs much more than its pixels."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):  # whole tiles are decoded, however little of them is shown
        width, height = (image.tag_v2.get(tag, 1) for tag in (TiffImagePlugin.TILEWIDTH, TiffImagePlugin.TILELENGTH))
        if width * height > limits.max_image_pixels:
            largest = f"max_image_pixels={limits.max_image_pixels}"
            raise ImageTooLarge(f"image is made of tiles of {width} x {height} pixels, more than {largest}")
    elif image.format in ("JPEG", "MPO"):
        scans = sum(map(data.count, _STARTS_OF_SCAN))
        if scans > _MOST_SCANS:
            raise BadImage(f"JPEG of {scans} scans, more than {_MOST_SCANS}")


def _central_square(image: Image.Image) -> Image.Image:
    image.draft(None, (SIZE, SIZE))
    image.load()
    orientation = image.getexif().get(ExifTags.Base.Orientation)  # now, as Pillow has turned a TIFF itself
    square = _to_rgb(_scaled(image))
    if orientation in _UPRIGHT:
        square = square.transpose(_UPRIGHT[orientation])
    return square


def _planes(square: Image.Image) -> Tensor:
    # a permuted copy by PyTorch gives the same bytes and costs as much as decoding
    planes = bytearray(b"".join(square.tobytes("raw", channel) for channel in "RGB"))
    return torch.frombuffer(planes, dtype=torch.uint8).view(3, SIZE, SIZE)


def _scaled(image: Image.Image) -> Image.Image:
    """The central square at 256 x 256, in a mode that can be averaged; the whole image is converted at most once."""
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    if image.mode == "F":
        raise BadImage("floating-point pixels have no agreed range")
    # cropped before anything else: a 1 x 50 000 000 image never becomes 256 x 12 800 000 000
    image = image.crop((left, top, left + side, top + side)) if width != height else image
    if image.mode.startswith("I"):
        image = image.convert("F")
    elif image.has_transparency_data:
        image = image.convert("RGBA")
    elif image.mode not in ("L", "RGB", "CMYK"):
        image = image.convert("RGB")
    return image.resize((SIZE, SIZE), Image.Resampling.BILINEAR)


def _to_rgb(square: Image.Image) -> Image.Image:
    if square.mode == "F":  # 16-bit grey; Pillow's own conversion clips at 255
        return Image.fromarray((np.asarray(square) / 256).clip(0, 255).astype(np.uint8)).convert("RGB")
    if square.mode == "RGBA":
        return Image.alpha_composite(Image.new("RGBA", square.size, "white"), square).convert("RGB")
    return square.convert("RGB")


def centre_view(pixels_BCHW: Tensor, mean_CHW: Tensor, size: int) -> Tensor:
    """The middle crop with the training mean subtracted: uint8 (B, 3, 256, 256) -> float32 (B, 3, size, size)."""
    start = (SIZE - size) // 2
    return _crop(pixels_BCHW, mean_CHW, start, start, size)


def ten_views(pixels_BCHW: Tensor, mean_CHW: Tensor, size: int) -> Iterator[Tensor]:
    """Four corners, the centre, and the mirror image of each (paper, section 4.1), one after the other, as TEN_VIEWS has them.

    uint8 (B, 3, 256, 256) -> ten times float32 (B, 3, size, size).
    """
    end, middle = SIZE - size, (SIZE - size) // 2
    starts: dict[Corner, tuple[int, int]] = {
        "top left": (0, 0),
        "top right": (0, end),
        "bottom left": (end, 0),
        "bottom right": (end, end),
        "centre": (middle, middle),
    }
    for corner, mirrored in TEN_VIEWS:
        crop = _crop(pixels_BCHW, mean_CHW, *starts[corner], size)
        yield crop.flip(-1) if mirrored else crop


def training_view(pixels_BCHW: Tensor, mean_CHW: Tensor, size: int, crops: Crops) -> Tensor:
    """The drawn crop of each image, mirrored where drawn so (paper, section 4.1): float32 (B, 3, size, size)."""
    out = torch.empty(len(pixels_BCHW), 3, size, size, memory_format=torch.channels_last)
    for i, (top, left, mirrored) in enumerate(zip(crops.tops_B, crops.lefts_B, crops.mirrored_B, strict=True)):
        view = _crop(pixels_BCHW[i : i + 1], mean_CHW, top, left, size)[0]
        out[i] = view.flip(-1) if mirrored else view
    return out


def _crop(pixels_BCHW: Tensor, mean_CHW: Tensor, top: int, left: int, size: int) -> Tensor:
    window = (..., slice(top, top + size), slice(left, left + size))
    return pixels_BCHW[window].float() - mean_CHW[window]
