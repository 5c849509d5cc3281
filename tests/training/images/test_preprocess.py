"""Decoding: what is accepted, how it is turned and cropped, what is refused before memory is spent; and the views."""

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from tests.conftest import encoded, photograph
from training.errors import BadImage, ImageTooLarge
from training.images.preprocess import ImageLimits, centre_view, cost, decode, ten_views, training_view
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


@pytest.mark.parametrize(
    "data", [b"", b"not an image", b"GIF89a", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\xff\xd8\xff\xe0" + b"\0" * 64]
)
def test_what_is_not_an_image_is_refused(data: bytes) -> None:
    with pytest.raises(BadImage):
        decode(data, LIMITS)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"])
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
