"""The four descriptions of the network side by side, each fact with its source: `python -m training.profiles`."""

from typing import Any, Final

import torch
from pydantic_settings import SettingsConfigDict

from training.network.alexnet import PROFILES, AlexNet, AlexNetConfig, Profile
from training.program import Settings, aligned, run_program

# where each field in which the profiles differ comes from; layers-*.cfg, layer-params-*.cfg and layer.py are the 2012 code's
SOURCES: Final[dict[str, str]] = {
    "columns": "paper 3.5 (two GPUs); layers-145.cfg; BVLC deploy.prototxt (group: 2); torchvision alexnet (one)",
    "maps": "paper 3.5, figure 2; layers-145.cfg; BVLC deploy.prototxt; torchvision alexnet; of one column",
    "hidden": "paper 3.5; layers-145.cfg; BVLC deploy.prototxt; torchvision alexnet; of one column",
    "input_size": "paper 3.5 (224); BVLC deploy.prototxt (227); torchvision AlexNet_Weights.transforms (224)",
    "pixel_scale": "paper 2 (raw pixels); BVLC train_val.prototxt (raw); torchvision: 1 / (255 * Normalize's deviation)",
    "conv1_pad": "torchvision alexnet (padding=2); none in the others",
    "conv1_ceil": "2012 code (1 + ceil((224 - 11) / 4) = 55 positions); Caffe and PyTorch round down",
    "conv1_nonlinearity_last": "layers-145.cfg: conv1 has no neuron, pool1 neuron=relu; paper 3.5: ReLU after every layer",
    "lrn_after": "paper 3.5 (conv1, conv2); layers-145.cfg; BVLC deploy.prototxt; torchvision alexnet (none)",
    "lrn_across": "paper 3.5, figure 2 (own column); BVLC deploy.prototxt (one LRN over all maps)",
    "lrn_k": "paper 3.3 (k = 2); layer-params-145.cfg (minDiv=2); BVLC deploy.prototxt (k left at Caffe's 1)",
    "lrn_alpha": "paper 3.3 (not divided); layer-params-145.cfg (scale=0.0001), layer.py (scale /= size); Caffe divides too",
    "map_norm_alpha": "layers-145.cfg (cnorm2, type=rnorm, size=5), layer-params-145.cfg (0.001), layer.py (scale /= size^2)",
}
# top-1 / top-5 error in percent: the paper's and the run log's on ILSVRC-2012, BVLC's readme, AlexNet_Weights.IMAGENET1K_V1
PUBLISHED: Final[dict[Profile, str]] = {
    "paper": "40.7 / 18.2, 10 views",
    "source": "40.66 / 18.21, 10 views",
    "caffe": "42.9 / 19.8, centre",
    "owt": "43.48 / 20.93, centre",
}
# field -> what the paper or the log of runs in the 2012 code (layer-params-*.cfg) found, error top-1 / top-5 in points
KNOBS: Final[dict[str, str]] = {
    "nonlinearity": "tanh: a four-layer net on CIFAR-10 needs six times as long to 25 % training error (paper 3.1, figure 1)",
    "lrn_after": "(): +1.4 / 1.2 (run 148: 42.03 / 19.36); (1,): -0.2 / -0.1 on another schedule (run 167: 40.49 / 18.12)",
    "pool_size": "2, with pool_stride 2, so without overlap: +0.4 / 0.3 (run 147: 41.06 / 18.51; paper 3.4)",
    "pool_stride": "2 with pool_size 2: see there",
    "columns": "1, as in run 145-half: +1.7 / 1.2 on ILSVRC-2010 (paper 3.2)",
    "exchange": "False, as in run 150: +1.2 / 1.1 (41.83 / 19.33)",
    "dropout": "0: overfits badly; 0.5 doubles the iterations to converge (paper 4.2)",
}
# networks of the log that have other shapes, not only other knobs: layers-145-half.cfg, and layers-150.cfg, whose fc7 is taken to
# be as wide as its fc6
RUNS: Final[dict[str, AlexNetConfig]] = {
    "145-half": AlexNetConfig().in_one_column(),
    "150": AlexNetConfig(exchange=False, maps=(48, 160, 192, 192, 128), hidden=4096),
}


class ProfilesSettings(Settings):
    """Print how the four descriptions of AlexNet differ and where each fact comes from, and the knobs of its ablations."""

    model_config = SettingsConfigDict(cli_prog_name="python -m training.profiles")


def main(settings: ProfilesSettings) -> None:
    """Prints the tables."""
    print(aligned(profile_rows()))
    print(f"\nKnobs of profile paper, and what turning them did (error in points):\n\n{aligned(knob_rows())}")
    print(f"\nNetworks of the log as profile paper with other fields:\n\n{aligned(run_rows())}")


def differing_fields() -> list[str]:
    """The fields of the config, but for the name, in which two profiles differ, in its order."""
    fields = [name for name in AlexNetConfig.model_fields if name != "profile"]
    return [name for name in fields if len({getattr(config, name) for config in PROFILES.values()}) > 1]


def profile_rows() -> list[list[str]]:
    """A row for each differing field and for what follows from them; the last column is the source."""
    configs = PROFILES.values()
    rows = [["", *PROFILES, "source of the fact"]]
    rows += [[name, *(_field(config, name) for config in configs), SOURCES[name]] for name in differing_fields()]
    rows.append(["parameters", *(f"{_parameters(config):,}" for config in configs), "counted, with 1000 classes"])
    rows.append(["FC7 width", *(str(config.fc7_width) for config in configs), "columns x hidden"])
    rows.append(["pixels fed", *(f"{config.input_size} x {config.input_size}" for config in configs), "of the 256 x 256 square"])
    published = "paper table 2; layer-params-145.cfg; BVLC readme.md; torchvision AlexNet_Weights.IMAGENET1K_V1"
    rows.append(["error top-1 / top-5, %", *(PUBLISHED[profile] for profile in PROFILES), published])
    return rows


def knob_rows() -> list[list[str]]:
    """A row for each ablation: the field, its default, what was found."""
    fields = AlexNetConfig.model_fields
    return [["", "default", "found"], *([name, _shown(fields[name].default), finding] for name, finding in KNOBS.items())]


def run_rows() -> list[list[str]]:
    """A row for each network of the log: its fields other than the paper's, its parameters, its layers file."""
    rows = [["", "fields", "parameters", "source of the fact"]]
    for name, config in RUNS.items():
        fields = config.model_dump(exclude_defaults=True).items()
        other = " ".join(f"{field}={_shown(value)}" for field, value in fields)
        rows.append([name, other, f"{_parameters(config):,}", f"layers-{name}.cfg"])
    return rows


def _parameters(config: AlexNetConfig) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in AlexNet(config).parameters())


def _field(config: AlexNetConfig, name: str) -> str:
    beside = name in ("lrn_across", "lrn_k", "lrn_alpha") and not config.lrn_after
    return "-" if beside else _shown(getattr(config, name))


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({','.join(map(_shown, value))})"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    run_program(ProfilesSettings, main)
