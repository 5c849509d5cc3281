"""Shows what a vision transformer's patch embedding has learned: `python -m training.patches --weights FILE --out FILE.png`."""

from pathlib import Path
from typing import Final

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from training import checkpoint
from training.analysis.patches import layer, picture, table
from training.errors import BadValue
from training.files import replacing
from training.program import Settings, run_program
from training.weights.embedding import read_embedding

_FORMATS: Final = {".png": "png", ".svg": "svg"}


class PatchesSettings(Settings):
    """Show the first 28 principal components of a vision transformer's patch embedding, beside those of a model's conv1.

    The components are the patterns in a patch that the first layer tells apart, by falling share of its filters' variance
    (Dosovitskiy and others, 2021, figure 7). Those of a trained layer are even colours, slow waves and edges, and a few explain
    most of it; those of noise are noise, and each explains little. The table has noise of the same shape beside each layer.

    FILE is .safetensors, or of torch.save (.pth, .pt, .bin), with torchvision's names (vit_b_16), timm's or Hugging Face's. The
    embedding alone is read, and nothing in the file is run. `python -m training.vit` trains a small network to look at.
    """

    model_config = SettingsConfigDict(cli_prog_name="python -m training.patches")

    weights: Path = Field(Path("var/vit/vit.safetensors"), description="file of a vision transformer's weights")
    model: Path | None = Field(None, description="model folder whose conv1 is shown beside it, on the same axes")
    out: Path = Field(Path("patches.png"), description="picture to write, .png or .svg")


def main(settings: PatchesSettings) -> None:
    """Prints the table and writes the picture."""
    form = _FORMATS.get(settings.out.suffix)
    if not form:
        raise BadValue("out", str(settings.out), "a file .png or .svg")
    embedding = read_embedding(settings.weights)
    layers = [layer("patch embedding", embedding.weight_DCPP)]
    if settings.model:
        layers.append(layer("conv1", checkpoint.load(settings.model).net.conv1.weight))
    print(f"{embedding.name} of {settings.weights}\n\n{table(layers)}")
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(settings.out) as path:
        picture(layers).savefig(path, format=form, dpi=100)
    print(f"\nwritten to {settings.out}")


if __name__ == "__main__":
    run_program(PatchesSettings, main)
