"""What libtiff says of damaged files: whose it is, and that none of it goes to descriptor 2."""

import base64
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from tests.conftest import encoded, photograph
from training.errors import BadImage
from training.images.preprocess import ImageLimits, decode

LIMITS = ImageLimits()
COMPRESSIONS = ("group3", "group4", "tiff_ccitt", "tiff_lzw", "tiff_adobe_deflate", "zstd", "lzma")
# opens each file by Pillow alone, so that libtiff says to descriptor 2 what it has to say, and Pillow what it makes of it
BY_PILLOW = """
import base64, io, json, os, sys, tempfile
from PIL import Image
said = []
for text in json.load(sys.stdin):
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            Image.open(io.BytesIO(base64.b64decode(text))).load()
        except OSError:
            pass
        file.seek(0)
        said.append(file.read().decode().splitlines())
print(json.dumps(said))
"""


def damaged(compression: str, seed: int) -> bytes:
    """A TIFF whose pixels have been overwritten in places; its directory, which Pillow puts last, is whole."""
    rng = np.random.default_rng(seed)
    image = photograph(seed, size=(400, 300))
    is_fax = compression in ("group3", "group4", "tiff_ccitt")
    data = bytearray(encoded(image.convert("1") if is_fax else image, "TIFF", compression=compression))
    for position in rng.integers(len(data) // 4, len(data) * 3 // 4, 40):
        data[position] = rng.integers(256)
    return bytes(data)


def said_to_pillow(files: list[bytes]) -> list[list[str]]:
    """The lines that libtiff writes of each file."""
    given = json.dumps([base64.b64encode(data).decode() for data in files])
    run = subprocess.run([sys.executable, "-c", BY_PILLOW], input=given, stdout=subprocess.PIPE, text=True, check=True)
    said: list[list[str]] = json.loads(run.stdout)
    return said


def reason(data: bytes) -> str:
    with pytest.raises(BadImage) as caught:
        decode(data, LIMITS)
    assert "tempfile" not in str(caught.value)
    return str(caught.value)


def test_a_file_is_refused_for_what_libtiff_says_of_it_and_of_no_other(capfd: pytest.CaptureFixture[str]) -> None:
    files = [damaged(compression, seed) for seed, compression in enumerate(COMPRESSIONS)]
    expected = []
    for lines in said_to_pillow(files):
        first = lines[0].removesuffix(".").removeprefix("tempfile.tif: ")
        expected.append((first, len(lines)))
    assert len(expected) == len(COMPRESSIONS)
    assert max(count for _, count in expected) > 1
    with ThreadPoolExecutor(4) as pool:  # libtiff has one place for errors, whichever thread decodes
        found = list(pool.map(reason, files * 8))
    for text, (first, count) in zip(found, expected * 8, strict=True):
        assert text.startswith("damaged or truncated image: ")
        assert first in text
        assert text.endswith(f" (and {count - 1} more)") == (count > 1)
    assert capfd.readouterr() == ("", "")


def test_what_libtiff_says_is_kept_short(capfd: pytest.CaptureFixture[str]) -> None:
    texts = [reason(damaged("group4", seed)) for seed in range(20)]
    assert max(map(len, texts)) < 300
    assert capfd.readouterr() == ("", "")


def test_a_whole_file_is_read_after_a_damaged_one() -> None:
    whole = encoded(Image.linear_gradient("L").convert("1"), "TIFF", compression="group4")
    before = decode(whole, LIMITS).pixels_CHW
    reason(damaged("group4", 1))
    assert decode(whole, LIMITS).pixels_CHW.equal(before)
