"""Hostile image files for the decoder: `make fuzz-files`, or this file with --minutes and --seed.

Small files of every format are damaged with their structure in mind: numbers of headers become extreme, parts are repeated,
dropped, swapped and cut, and bytes are flipped. A worker decodes them in a process with little address space. A crash, an error
that is not one of ours, more than --slow seconds of a processor, or more memory than the limits state is a find: its bytes are
written below --finds, and this ends with 1.
"""

import argparse
import multiprocessing
import random
import resource
import struct
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from PIL import Image  # noqa: E402

from tests.conftest import encoded, photograph  # noqa: E402
from training.errors import BadImage, ImageTooLarge  # noqa: E402
from training.images.preprocess import ImageLimits, decode  # noqa: E402

LIMITS: Final = ImageLimits(max_image_pixels=4_000_000)
_EXTREMES: Final = (
    0,
    1,
    2,
    3,
    7,
    8,
    127,
    128,
    255,
    256,
    257,
    1000,
    2000,
    32_767,
    32_768,
    65_535,
    2**20,
    2**31 - 1,
    2**31,
    2**32 - 1,
)
_TAGS: Final = (256, 257, 258, 259, 262, 277, 278, 284, 317, 322, 323, 324, 338)  # of a TIFF
_ROOM: Final = 64 * 2**20  # bytes of memory that anything may take, for what the allocator keeps


def seeds() -> dict[str, bytes]:
    """Small files of every format and of their variants."""
    image = photograph(1, size=(64, 48))
    exif = Image.Exif()
    exif[0x0112] = 6
    rgba = image.convert("RGBA")
    rgba.putalpha(image.convert("L"))
    return {
        "jpeg": encoded(image, exif=exif),
        "jpeg progressive": encoded(image, progressive=True),
        "jpeg cmyk": encoded(image.convert("CMYK")),
        "png": encoded(image, "PNG", exif=exif),
        "png palette": encoded(image.convert("P"), "PNG", transparency=3),
        "png alpha": encoded(rgba, "PNG"),
        "png 16 bits": encoded(image.convert("L").convert("I;16"), "PNG"),
        "webp": encoded(image, "WEBP", exif=exif),
        "webp lossless": encoded(rgba, "WEBP", lossless=True),
        "webp animation": encoded(image, "WEBP", save_all=True, append_images=[image.rotate(90)]),
        "gif": encoded(image.convert("P"), "GIF", comment=b"a comment"),
        "bmp": encoded(image, "BMP"),
        "tiff": encoded(image, "TIFF"),
        "tiff lzw": encoded(image, "TIFF", compression="tiff_lzw"),
        "tiff deflate": encoded(image.convert("L"), "TIFF", compression="tiff_adobe_deflate"),
        "tiff fax": encoded(image.convert("1"), "TIFF", compression="group4"),
        "tiff jpeg": encoded(image, "TIFF", compression="jpeg"),
        "tiff 16 bits": encoded(image.convert("L").convert("I;16"), "TIFF", big_tiff=True),
        "avif": encoded(image, "AVIF"),
        "avif alpha": encoded(rgba, "AVIF"),
        "avif animation": encoded(image, "AVIF", save_all=True, append_images=[image.rotate(90)]),
        "heic": encoded(image, "HEIF", exif=exif),
        "heic alpha": encoded(rgba, "HEIF"),
        "heic several": encoded(image, "HEIF", save_all=True, append_images=[image.rotate(90)]),
        "jpeg 2000": encoded(image, "JPEG2000"),
        "jpeg 2000 alpha": encoded(rgba, "JPEG2000", irreversible=True),
        "ico": encoded(image, "ICO", sizes=[(32, 32)]),
        "ico bitmap": encoded(image, "ICO", sizes=[(32, 32)], bitmap_format="bmp"),
    }


def mutate(data: bytes, draw: random.Random) -> bytes:
    """One to four changes, the first of them where the format keeps its numbers."""
    out = _structured(data, draw) if draw.random() < 0.7 else data
    for _ in range(draw.randrange(4)):
        out = _anywhere(out, draw) if out else data
    return out


def _structured(data: bytes, draw: random.Random) -> bytes:
    if data.startswith(b"\x89PNG"):
        return _png(data, draw)
    if data[:4] in (b"II*\0", b"MM\0*"):
        return _tiff(data, draw)
    if data.startswith(b"RIFF"):
        return _chunks(data, draw, 12, lambda at: (int.from_bytes(data[at + 4 : at + 8], "little") + 9) // 2 * 2)
    if data.startswith(b"\xff\xd8"):
        return _chunks(data, draw, 2, lambda at: 2 + int.from_bytes(data[at + 2 : at + 4]))
    if data[4:8] in (b"ftyp", b"jP  "):
        return _chunks(data, draw, 0, lambda at: max(8, int.from_bytes(data[at : at + 4])))
    return _number(data, draw, min(len(data), 64))


def _chunks(data: bytes, draw: random.Random, at: int, size_at: Callable[[int], int]) -> bytes:
    """Parts repeated, dropped, swapped, or with another number in one."""
    head, parts = data[:at], list[bytes]()
    while at < len(data) and len(parts) < 40:
        size = size_at(at)
        parts.append(data[at : at + size])
        at += size
    parts.append(data[at:])
    return head + b"".join(_shuffle(parts, draw))


def _shuffle(parts: list[bytes], draw: random.Random) -> list[bytes]:
    i, j = draw.randrange(len(parts)), draw.randrange(len(parts))
    match draw.randrange(5):
        case 0:
            parts[i:i] = [parts[j]] * draw.choice((1, 2, 50, 3000))
        case 1:
            del parts[i]
        case 2:
            parts[i], parts[j] = parts[j], parts[i]
        case _:
            parts[i] = _number(parts[i], draw, 40)
    return parts


def _png(data: bytes, draw: random.Random) -> bytes:
    parts: list[bytes] = []
    at = 8
    while at < len(data):
        size = int.from_bytes(data[at : at + 4])
        parts.append(data[at + 4 : at + 8 + size])
        at += 12 + size
    parts = _shuffle(parts, draw)
    if draw.random() < 0.3:
        name = draw.choice((b"iCCP", b"zTXt", b"iTXt", b"eXIf", b"tRNS", b"acTL", b"fcTL", b"fdAT", b"PLTE"))
        parts.insert(1, name + draw.choice((b"a\0\0" + zlib.compress(bytes(10**6)), draw.randbytes(20), bytes(40))))
    sums = [part + zlib.crc32(part).to_bytes(4) if draw.random() < 0.97 else part + bytes(4) for part in parts]
    return data[:8] + b"".join(max(0, len(part) - 8).to_bytes(4) + part for part in sums)


def _tiff(data: bytes, draw: random.Random) -> bytes:
    """An entry of the directory with another tag, type, number of values, or value; or many entries over the same bytes."""
    order = "<" if data[:2] == b"II" else ">"
    (at,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, at)
    out = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 5))):
        entry = at + 2 + 12 * draw.randrange(count)
        match draw.randrange(4):
            case 0:
                struct.pack_into(f"{order}H", out, entry, draw.choice(_TAGS))
            case 1:
                struct.pack_into(f"{order}H", out, entry + 2, draw.randrange(19))
            case 2:
                struct.pack_into(f"{order}I", out, entry + 4, draw.choice(_EXTREMES))
            case _:
                struct.pack_into(f"{order}I", out, entry + 8, draw.choice((*_EXTREMES, len(data) // 2)))
    if draw.random() < 0.1:
        entries = b"".join(struct.pack(f"{order}HHII", tag, 7, len(data), 0) for tag in range(40_000, 43_000))
        return (
            bytes(out[:at])
            + struct.pack(f"{order}H", count + 3000)
            + bytes(out[at + 2 : at + 2 + 12 * count])
            + entries
            + bytes(4)
        )
    return bytes(out)


def _number(data: bytes, draw: random.Random, within: int) -> bytes:
    """An extreme number of 1, 2 or 4 bytes at a place near the start."""
    size = draw.choice((1, 2, 4))
    at = draw.randrange(max(1, min(len(data), within)))
    number: int = draw.choice(_EXTREMES) & 256**size - 1
    return data[:at] + number.to_bytes(size, "big" if draw.random() < 0.5 else "little") + data[at + size :]


def _anywhere(data: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(data))
    match draw.randrange(6):
        case 0:
            return data[:at]
        case 1:
            return data[:at] + data[at:][: draw.randrange(1, 64)] * draw.choice((2, 100)) + data[at:]
        case 2:
            return data[:at] + data[at + draw.randrange(1, 64) :]
        case 3:
            return _number(data, draw, len(data))
        case _:
            return data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]


def files(seed: int) -> Iterator[tuple[str, bytes]]:
    """Damaged files without end, the same for the same seed, with the name of what each was made of."""
    draw, sources = random.Random(seed), list(seeds().items())
    while True:
        name, data = draw.choice(sources)
        yield name, mutate(data, draw)


def judge(data: bytes, slow_s: float) -> str:
    """What is wrong with how a file is decoded, here and now; "" where nothing is."""
    _reset_peak()
    before, started, wrong = _status("VmRSS"), time.process_time(), ""
    try:
        decode(data, LIMITS)
    except (BadImage, ImageTooLarge):
        pass
    except BaseException as error:
        wrong = f"{type(error).__name__}: {error}"
    seconds, memory = time.process_time() - started, _status("VmHWM") - before
    if seconds > slow_s:
        return f"{seconds:.1f} s of a processor"
    if memory > LIMITS.memory(len(data)) + _ROOM:
        return f"{memory / 2**20:.0f} MiB, more than the {LIMITS.memory(len(data)) / 2**20:.0f} stated"
    return wrong


def _reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _status(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return 1024 * int(line.split()[1])


def _work(pipe: Connection, slow_s: float) -> None:
    decode(encoded(photograph(1)), LIMITS)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + 2**30, size + 2**30))
    while True:
        pipe.send(judge(pipe.recv(), slow_s))


def run(seed: int, minutes: float, slow_s: float, finds: Path) -> int:
    """Decodes damaged files in a process of its own for some minutes; returns how many finds there were."""
    context = multiprocessing.get_context("fork")
    pipe, worker = _start(context, slow_s)
    end, counts, found = time.monotonic() + 60 * minutes, Counter[str](), 0
    for name, data in files(seed):
        if time.monotonic() > end:
            break
        pipe.send(data)
        try:
            wrong = pipe.recv() if pipe.poll(60) else "no answer in a minute"
        except EOFError:
            worker.join()
            wrong = f"the process ended with {worker.exitcode}"
        counts[name] += 1
        if wrong:
            found += 1
            path = finds / f"{seed}-{sum(counts.values())}-{name.replace(' ', '-')}"
            path.write_bytes(data)
            print(f"{path}: {wrong}", flush=True)
        if not worker.is_alive() or wrong.startswith("no answer"):
            worker.kill()
            pipe, worker = _start(context, slow_s)
    worker.kill()
    worker.join()
    print(f"seed {seed}: {sum(counts.values())} files of {len(counts)} kinds in {minutes} min, {found} finds")
    return found


def _start(
    context: "multiprocessing.context.ForkContext", slow_s: float
) -> "tuple[Connection, multiprocessing.process.BaseProcess]":
    ours, theirs = context.Pipe()
    worker = context.Process(target=_work, args=(theirs, slow_s), daemon=True)
    worker.start()
    theirs.close()
    return ours, worker


def main() -> None:
    """Runs for --minutes and exits with 1 where something was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    parser.add_argument("--slow", type=float, default=1.0)
    parser.add_argument("--finds", type=Path, default=None)
    options = parser.parse_args()
    finds = options.finds or Path(tempfile.mkdtemp(prefix="fc7-finds-"))
    finds.mkdir(parents=True, exist_ok=True)
    sys.exit(bool(run(options.seed, options.minutes, options.slow, finds)))


if __name__ == "__main__":
    main()
