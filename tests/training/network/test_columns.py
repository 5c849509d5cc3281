"""Columns on two devices, on two ranks and on 2 x 2 ranks against the whole network on one device: outputs, gradients, steps."""

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from tests.conftest import SmallConfig
from training.errors import BadValue
from training.network.alexnet import PROFILES, AlexNet, AlexNetConfig
from training.network.columns import EXCHANGES, PlacedNet, Traffic, values_exchanged
from training.network.initialisation import initialise
from training.network.placement import Placement, open_placement
from training.run import draws
from training.run.feed import Batch
from training.run.loop import Run, _step
from training.run.sgd import PaperSGD

BATCH, STEPS, LR = 7, 5, 0.02
WHITENING_PP = 0.1 * torch.randn(3 * 11 * 11, 3 * 11 * 11, generator=torch.Generator().manual_seed(2))
RATES = {"weights": LR, "biases": LR, "conv1.weights": LR, "conv1.biases": LR}


class Result(NamedTuple):
    """Five steps."""

    logits: Tensor  # of the first step
    gradients: dict[str, Tensor]  # of the first step
    weights: dict[str, Tensor]  # after the last


STEPS_ON_RANKS = """
import json, sys
from pathlib import Path
from safetensors.torch import load_file
from tests.training.network import test_columns as test
from training.network.alexnet import AlexNetConfig
from training.network.placement import open_placement
from training.files import write_tensors

folder, config = Path(sys.argv[1]), AlexNetConfig.model_validate_json(sys.argv[2])
with open_placement(config, "cpu") as placement:
    result, traffic = test.steps_of_placed(config, placement, load_file(folder / "start"))
    if placement.speaks:
        write_tensors(folder / f"logits{placement.replica}", {"logits": result.logits})
    if placement.leads:
        write_tensors(folder / "gradients", result.gradients)
        write_tensors(folder / "weights", result.weights)
        (folder / "traffic").write_text(json.dumps(traffic))
"""


def batches(config: AlexNetConfig) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(5)
    shape = (BATCH, 3, config.input_size, config.input_size)
    return [
        (60 * torch.randn(shape, generator=generator), torch.randint(config.classes, (BATCH,), generator=generator))
        for _ in range(STEPS)
    ]


def steps_of_placed(config: AlexNetConfig, placement: Placement, start: dict[str, Tensor]) -> tuple[Result, dict[str, float]]:
    """Five steps of this process's share, by the program's own parts, and the bytes between columns, an image."""
    net = PlacedNet(config, placement)
    net.load_whole(start)
    optimizer = PaperSGD(net.named_parameters(), 0.9, 5e-4)
    run = Run(net, optimizer, bfloat16=False, max_gradient=2.0, whitening_PP=WHITENING_PP)
    run.optimizer.set_rates(RATES)
    share = placement.share(BATCH)
    net.train()
    for step, (x_BCHW, labels_B) in enumerate(batches(config)):
        masks = draws.masks(0, 1, step, BATCH, config.fc7_width, config.dropout)
        assert masks
        mine = (masks[0][share], masks[1][share])
        if step == 0:
            logits = net(x_BCHW[share], mine).detach()
            net.traffic = Traffic()
        _step(run, Batch(step, x_BCHW[share], labels_B[share], mine, BATCH, []))
        if step == 0:
            gradients = {name: gradient.clone() for name, gradient in net.whole(gradient_of).items()}
    return Result(logits, gradients, net.whole(lambda parameter: parameter)), net.traffic.per_image()


def gradient_of(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def steps_of_whole(config: AlexNetConfig, start: dict[str, Tensor]) -> Result:
    """The same on one device, with PyTorch's own optimiser and clipping."""
    net = AlexNet(config)
    net.load_state_dict(start)
    weights = [p for name, p in net.named_parameters() if name.endswith("weight")]
    biases = [p for name, p in net.named_parameters() if name.endswith("bias")]
    groups = [{"params": weights, "weight_decay": 5e-4}, {"params": biases, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=LR, momentum=0.9)
    for step, (x_BCHW, labels_B) in enumerate(batches(config)):
        optimizer.zero_grad()
        logits = net(x_BCHW, draws.masks(0, 1, step, BATCH, config.fc7_width, config.dropout))
        F.cross_entropy(logits, labels_B).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 2.0)
        gradient_KP = gradient_of(net.conv1.weight).reshape(-1, 3 * 11 * 11)
        net.conv1.weight.grad = (gradient_KP @ WHITENING_PP).reshape(net.conv1.weight.shape)
        if step == 0:
            first = logits.detach()
            gradients = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
        optimizer.step()
    return Result(first, gradients, {name: p.detach() for name, p in net.named_parameters()})


def start_of(config: AlexNetConfig) -> dict[str, Tensor]:
    net = AlexNet(config)
    initialise(net, "fan-in", seed=3)
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


CONFIGS = {
    "paper": SmallConfig(classes=3),
    "no-exchange": SmallConfig(classes=3, exchange=False),
    "source": SmallConfig(classes=3, profile="source", conv1_nonlinearity_last=True, map_norm_alpha=1e-3),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_two_devices_in_one_process_do_what_one_does(name: str) -> None:
    config = CONFIGS[name]
    with open_placement(config, "cpu,cpu") as placement:
        result, traffic = steps_of_placed(config, placement, start_of(config))
    torch.testing.assert_close(result, steps_of_whole(config, start_of(config)), rtol=1e-5, atol=1e-5)
    check_traffic(traffic, config)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_ranks_do_what_one_device_does(ranks: int, tmp_path: Path) -> None:
    config = CONFIGS["paper"]
    save_file(start_of(config), tmp_path / "start")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(ranks), "--no-python", sys.executable]
    subprocess.run([*command, "-c", STEPS_ON_RANKS, str(tmp_path), config.model_dump_json()], check=True, timeout=120)
    logits = torch.cat([load_file(path)["logits"] for path in sorted(tmp_path.glob("logits*"))])
    result = Result(logits, load_file(tmp_path / "gradients"), load_file(tmp_path / "weights"))
    torch.testing.assert_close(result, steps_of_whole(config, start_of(config)), rtol=1e-5, atol=1e-5)
    if ranks != 3:  # three ranks are three whole networks
        check_traffic(json.loads((tmp_path / "traffic").read_text()), config)


def check_traffic(per_image: dict[str, float], config: AlexNetConfig) -> None:
    """What was counted is what the shapes say: maps forward and gradients backward, from either side, 4 bytes each."""
    _, _, pool2, pool5 = config.sizes()
    maps = config.maps
    heard = [maps[1] * pool2**2, maps[4] * pool5**2, config.hidden] if config.exchange else [0, 0, 0]
    expected = [4 * 4 * count for count in heard] + [2 * 4 * config.classes]
    assert per_image == dict(zip(EXCHANGES, expected, strict=True))
    assert {name: 4 * count for name, count in values_exchanged(config)[0].items()} == per_image


def test_the_paper_exchanges_less_than_a_quarter_of_what_full_tensor_parallelism_would() -> None:
    ours, every = values_exchanged(PROFILES["paper"])
    assert sum(ours.values()) == 4 * (128 * 13 * 13 + 128 * 6 * 6 + 2048) + 2 * 1000
    assert sum(every.values()) == sum(ours.values()) + 4 * (48 * 27 * 27 + 2 * 192 * 13 * 13)
    assert sum(ours.values()) < sum(every.values()) / 4


@pytest.mark.parametrize(
    ("config", "devices", "message"),
    [
        (SmallConfig(), "tpu:0", "devices must be one device or two, as in cpu or cuda:0,cuda:1, got 'tpu:0'"),
        (SmallConfig(), "cpu,cpu,cpu", "one device or two"),
        (SmallConfig(), "cuda:64", "devices of this machine, which has"),
        (PROFILES["owt"], "cpu,cpu", r"for one place, since this network \(profile owt\) has one column"),
        (PROFILES["caffe"], "cpu,cpu", "normalises across its columns"),
    ],
)
def test_a_placement_that_cannot_be_is_refused_by_name(config: AlexNetConfig, devices: str, message: str) -> None:
    with pytest.raises(BadValue, match=message), open_placement(config, devices):
        pass
