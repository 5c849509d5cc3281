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
from PIL import ExifTags, Image, Jpeg2KImagePlugin, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F

from training.errors import BadImage, ImageTooLarge, NotAnImage
from training.images import libtiff
from training.images.containers import Container, open_container

try:
    import pillow_heif
except ImportError:  # the extra heic is not installed
    READS_HEIC = False
else:
    pillow_heif.register_heif_opener(thumbnails=False)
    READS_HEIC = True

# The limits below are ours and are checked from the header; Pillow's own would cut them short.
Image.MAX_IMAGE_PIXELS = None
SIZE: Final = 256
PIXEL_BYTES: Final = 15  # of memory that decoding takes for each pixel that is counted; but 20 of a WebP, as measured
# Pillow's name of each format that is read -> the endings of its files' names
FORMATS: Final = {
    "JPEG": ("jpg", "jpeg", "jpe"),
    "PNG": ("png",),
    "WEBP": ("webp",),
    "GIF": ("gif",),
    "BMP": ("bmp",),
    "TIFF": ("tif", "tiff"),
    "AVIF": ("avif",),
    "JPEG2000": ("jp2", "j2k"),
    "ICO": ("ico",),
    "HEIF": ("heic", "heif"),
}
Corner = Literal["top left", "top right", "bottom left", "bottom right", "centre"]
# where each of the ten views is cut, and whether it is mirrored, in their order
TEN_VIEWS: Final[list[tuple[Corner, bool]]] = [(corner, mirrored) for corner in get_args(Corner) for mirrored in (False, True)]
MaxImageBytes = Annotated[int, Field(ge=1, description="largest image, bytes")]
MaxImagePixels = Annotated[int, Field(ge=1, description="largest image, pixels as decoded")]
_MOST_SCANS: Final = 100  # of a progressive JPEG, with about ten as a rule; each goes over all pixels and takes a few bytes
_SCANS_OF_LARGEST: Final = 20  # of a JPEG of max_image_pixels; more of a smaller one
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
    """What decoding may cost; both are checked before pixels are decoded.

    Pixels count as they are decoded. A JPEG is decoded at an eighth of its size, or a quarter, or a half, while 256 pixels are
    left of each side, and counts an eighth of its own pixels at least, or half of them where it is progressive. A JPEG 2000 is
    halved in the same way, and each pixel counts eight times, for it takes as long.
    """

    model_config = ConfigDict(frozen=True)

    max_image_bytes: MaxImageBytes = 20 * 2**20
    max_image_pixels: MaxImagePixels = 50_000_000

    def check_bytes(self, size: int) -> None:
        """Raises ImageTooLarge for a file of more bytes than allowed."""
        if size > self.max_image_bytes:
            raise ImageTooLarge(f"image has {size} bytes, more than max_image_bytes={self.max_image_bytes}")

    def check_pixels(self, width: int, height: int, counted: int) -> None:
        """Raises ImageTooLarge for an image that counts as more pixels than allowed."""
        if counted > self.max_image_pixels:
            which = "" if counted == width * height else f", which count as {counted}"
            raise ImageTooLarge(f"image is {width} x {height} pixels{which}, more than max_image_pixels={self.max_image_pixels}")

    def memory(self, size: int) -> int:
        """Bytes that decoding a file of `size` bytes takes at most, beside those of the file itself."""
        return PIXEL_BYTES * 4 // 3 * self.max_image_pixels + 2 * size


@dataclass(frozen=True)
class Photograph:
    """A decoded image: its central square, and what the file said about itself."""

    pixels_CHW: Tensor  # uint8 (3, 256, 256), or of the side that was asked for
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


def decode(data: bytes, limits: ImageLimits, side: int = SIZE) -> Photograph:
    """Decodes one image and takes its central square at 256 x 256 (paper, section 2: scale the shorter side, crop the centre).

    A smaller `side` than 256 gives a smaller square.

    EXIF rotation is applied, transparency is laid on white, the first frame of an animation is taken. Nothing else that the file
    says about itself is read.
    Raises ImageTooLarge by bytes or by the header's pixels, BadImage for everything that does not decode, and MemoryError, which
    is no fault of the file's.
    """
    with _open(data, limits) as header:
        square = _central_square(header.image, header.container, side)
        return Photograph(_planes(square), header.container.kind, header.width, header.height)


def cost(data: bytes, limits: ImageLimits) -> int:
    """The pixels that decoding counts for, PIXEL_BYTES of memory each at most. Raises like decode, by the header alone."""
    if size := _webp_size(data):
        limits.check_bytes(len(data))
        limits.check_pixels(*size, size[0] * size[1])
        return size[0] * size[1] * 4 // 3
    with _open(data, limits) as header:
        return header.counted


@dataclass(frozen=True)
class _Header:
    """An image before its pixels are decoded."""

    image: Image.Image
    container: Container
    width: int
    height: int
    counted: int  # pixels, by what they cost


@contextmanager
def _open(data: bytes, limits: ImageLimits) -> Iterator[_Header]:
    """The image before its pixels are decoded; what fails in the meantime is an error of ours."""
    limits.check_bytes(len(data))
    if size := _webp_size(data):  # which takes up memory for its pixels when it is opened
        limits.check_pixels(*size, size[0] * size[1])
    container = open_container(data)
    if container.kind == "HEIF" and not READS_HEIC:
        raise NotAnImage("is a HEIC image, which is read with the extra heic: pip install 'fc7[heic]'")
    with libtiff.errors_of_a_file() as errors:
        try:
            with Image.open(io.BytesIO(container.data), formats=(container.picture or container.kind,)) as image:
                width, height = image.size
                counted = _reduce(image, container)
                limits.check_pixels(width, height, counted)
                _check_cost(width * height, container, limits)
                _check_range(image, container)
                yield _Header(image, container, width, height, counted)
        except (BadImage, ImageTooLarge, MemoryError):
            raise
        except UnidentifiedImageError as error:
            if container.layout:
                raise BadImage(f"a {container.kind} of {container.layout} is not read") from error
            raise BadImage(f"damaged or truncated image: its headers are not those of a {container.kind} file") from error
        except Exception as error:  # damaged files make Pillow raise almost anything
            if str(error).startswith("Unsupported "):
                raise BadImage(f"of a kind that is not read: {error}") from error
            raise BadImage(f"damaged or truncated image: {errors if errors.count else error}") from error
    if errors.count:  # after which Pillow goes on, with pixels of its own
        raise BadImage(f"damaged or truncated image: {errors}")


def _reduce(image: Image.Image, container: Container) -> int:
    """Has an image decoded smaller where its format can, with 256 pixels left of each side; returns what its pixels count."""
    width, height = image.size
    if container.kind == "JPEG":
        image.draft(None, (SIZE, SIZE))
        return max(image.width * image.height, width * height // (2 if container.progressive else 8))
    if isinstance(image, Jpeg2KImagePlugin.Jpeg2KImageFile):
        halvings = min(container.levels, max(0, (min(width, height) // SIZE).bit_length() - 1))
        image.reduce = halvings
        return max(8 * (width * height >> 2 * halvings), width * height // 8)
    return max(width * height, container.tile_pixels)  # whole tiles are decoded, however little of them is shown


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


def _check_cost(pixels: int, container: Container, limits: ImageLimits) -> None:
    """Raises BadImage for a file that costs much more than its pixels."""
    if container.scans > _MOST_SCANS:
        raise BadImage(f"JPEG of {container.scans} scans, more than {_MOST_SCANS}")
    if container.scans > 1 and container.scans * pixels > _SCANS_OF_LARGEST * limits.max_image_pixels:
        raise ImageTooLarge(
            f"JPEG of {container.scans} scans over {pixels} pixels, more than {_SCANS_OF_LARGEST} over max_image_pixels="
            f"{limits.max_image_pixels}"
        )


def _check_range(image: Image.Image, container: Container) -> None:
    """Raises BadImage where nothing says which value is white."""
    if image.mode == "F":
        raise BadImage("floating-point pixels have no agreed range")
    if container.kind != "TIFF":
        return
    if container.signed:
        raise BadImage("signed integers as pixels have no agreed range")
    if image.mode.startswith("I") and not container.highest:
        raise BadImage("32-bit integers as pixels have no agreed range, and this file does not say which it has")
    if not image.mode.startswith("I") and container.bits == 16 and container.highest < 2**16 - 1:
        raise BadImage(f"colours of 16 bits that end at {container.highest} are not read")


def _central_square(image: Image.Image, container: Container, side: int) -> Image.Image:
    image.load()
    orientation = container.orientation
    if container.kind == "AVIF":
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    square = _to_rgb(_scaled(image, container, side), container)
    if orientation in _UPRIGHT:
        square = square.transpose(_UPRIGHT[orientation])
    return square


def _planes(square: Image.Image) -> Tensor:
    # a permuted copy by PyTorch gives the same bytes and costs as much as decoding
    planes = bytearray(b"".join(square.tobytes("raw", channel) for channel in "RGB"))
    return torch.frombuffer(planes, dtype=torch.uint8).view(3, square.height, square.width)


def _scaled(image: Image.Image, container: Container, size: int) -> Image.Image:
    """The central square at `size` x `size`, in a mode that can be averaged; the whole image is converted at most once."""
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    # cropped before anything else: a 1 x 50 000 000 image never becomes 256 x 12 800 000 000
    image = image.crop((left, top, left + side, top + side)) if width != height else image
    transparent = image.info.get("transparency")
    if isinstance(transparent, int) and image.mode in ("1", "L", "I;16"):
        image = _without_grey(image, transparent, container.bits)
    elif image.mode == "I":  # which Pillow takes for signed
        image = Image.fromarray(np.asarray(image).view(np.uint32).astype(np.float32))
    elif image.mode.startswith("I"):
        image = image.convert("F")
    elif image.has_transparency_data:
        if isinstance(transparent, tuple):
            image.info["transparency"] = tuple(value >> 8 if container.bits == 16 else value & 255 for value in transparent)
        image = image.convert("RGBA")
    elif image.mode not in ("L", "RGB", "CMYK"):
        image = image.convert("RGB")
    return image.resize((size, size), Image.Resampling.BILINEAR)


def _without_grey(image: Image.Image, transparent: int, bits: int) -> Image.Image:
    """A grey image as RGBA, with one value, as a PNG of so many bits has it, transparent."""
    values = np.asarray(image.convert("L") if image.mode == "1" else image)
    value = transparent & 2**bits - 1
    shown = value if bits >= 8 else value * (255 // (2**bits - 1))
    grey = Image.fromarray((values >> 8).astype(np.uint8)) if bits == 16 else Image.fromarray(values)
    return Image.merge("LA", (grey, Image.fromarray(np.where(values == shown, 0, 255).astype(np.uint8)))).convert("RGBA")


def _to_rgb(square: Image.Image, container: Container) -> Image.Image:
    if square.mode == "F":  # grey of more than 8 bits; Pillow's own conversion clips at 255
        highest = container.highest or 2**16 - 1
        values = np.asarray(square)
        values = (highest - values if container.inverted else values) * (256 / (highest + 1))
        return Image.fromarray(values.clip(0, 255).astype(np.uint8)).convert("RGB")
    if square.mode == "RGBA":
        return Image.alpha_composite(Image.new("RGBA", square.size, "white"), square).convert("RGB")
    return square.convert("RGB")


def centre_view(pixels_BCHW: Tensor, mean_CHW: Tensor, size: int, square: int = SIZE) -> Tensor:
    """The middle crop with the training mean subtracted: uint8 (B, 3, 256, 256) -> float32 (B, 3, size, size).

    Crops are cut from squares of `square` pixels: with 128, pixels and mean are averaged 2 x 2.
    """
    start = (square - size) // 2
    return _crop(pixels_BCHW, mean_CHW, start, start, size, square)


def ten_views(pixels_BCHW: Tensor, mean_CHW: Tensor, size: int, square: int = SIZE) -> Iterator[Tensor]:
    """Four corners, the centre, and the mirror image of each (paper, section 4.1), one after the other, as TEN_VIEWS has them.

    uint8 (B, 3, 256, 256) -> ten times float32 (B, 3, size, size), from squares as `centre_view` has them.
    """
    end, middle = square - size, (square - size) // 2
    starts: dict[Corner, tuple[int, int]] = {
        "top left": (0, 0),
        "top right": (0, end),
        "bottom left": (end, 0),
        "bottom right": (end, end),
        "centre": (middle, middle),
    }
    for corner, mirrored in TEN_VIEWS:
        crop = _crop(pixels_BCHW, mean_CHW, *starts[corner], size, square)
        yield crop.flip(-1) if mirrored else crop


def training_view(pixels_BCHW: Tensor, mean_CHW: Tensor, size: int, crops: Crops, square: int = SIZE) -> Tensor:
    """The drawn crop of each image, mirrored where drawn so (paper, section 4.1): float32 (B, 3, size, size).

    Places are counted on squares as `centre_view` has them.
    """
    out = torch.empty(len(pixels_BCHW), 3, size, size, memory_format=torch.channels_last)
    for i, (top, left, mirrored) in enumerate(zip(crops.tops_B, crops.lefts_B, crops.mirrored_B, strict=True)):
        view = _crop(pixels_BCHW[i : i + 1], mean_CHW, top, left, size, square)[0]
        out[i] = view.flip(-1) if mirrored else view
    return out


def _crop(pixels_BCHW: Tensor, mean_CHW: Tensor, top: int, left: int, size: int, square: int) -> Tensor:
    side = SIZE // square  # of what is averaged to one pixel
    window = (..., slice(side * top, side * (top + size)), slice(side * left, side * (left + size)))
    crop_BCHW = pixels_BCHW[window].float() - mean_CHW[window]
    return crop_BCHW if side == 1 else F.avg_pool2d(crop_BCHW, side)
