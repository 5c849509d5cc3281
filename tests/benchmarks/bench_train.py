"""Steps of training, ours beside the plainest PyTorch: `make bench-train`, or this file with --parts and --rounds.

Each way of training runs in a process of its own, since the C library's allocator is set for a whole process; the processes take
turns, one timed step each, so that what else the machine does falls on all alike. Figures are medians.

The part `pipeline` times whole epochs of the training loop from JPEG files, --photographs or made ones, beside the same steps on
one batch that is there already. Each epoch begins with nothing read ahead.

Naive is eager float32, NCHW, torch.nn.LocalResponseNorm over all maps, torch.optim.SGD. Ours is what training.train runs.

Tried, and not kept for gaining less than 2 % of a step: conv1 as a 3 x 3 convolution of 4 x 4 blocks (bfloat16: input 18 -> 11,
forward 88 -> 72, backward 83 -> 89 ms; float32 forward 132 -> 156 ms).
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from tests.benchmarks.machine import heading  # noqa: E402
from training.images.folders import list_examples  # noqa: E402
from training.images.preprocess import ImageLimits  # noqa: E402
from training.images.squares import Keep, prepare_squares  # noqa: E402
from training.network import lrn, native  # noqa: E402
from training.network.alexnet import AlexNet, AlexNetConfig  # noqa: E402
from training.network.columns import PlacedNet  # noqa: E402
from training.network.initialisation import initialise  # noqa: E402
from training.network.placement import Placement  # noqa: E402
from training.program import keep_freed_memory  # noqa: E402
from training.record import EpochRow  # noqa: E402
from training.run import draws  # noqa: E402
from training.run.colour import colour_noise  # noqa: E402
from training.run.feed import Batch, Feed  # noqa: E402
from training.run.log import RunLog  # noqa: E402
from training.run.loop import Run, _step, train_epoch  # noqa: E402
from training.run.sgd import GROUPS, PaperSGD  # noqa: E402

NOTHING: Final = EpochRow(epoch=1, loss=0, lr=0, seconds=0, skipped=0, images_per_second=0)
BATCH: Final = 128
EPOCH: Final = 8  # steps
INSTRUCTIONS: Final = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
Step = Callable[[], None]


def naive_lrn() -> nn.Module:
    return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)


class OurLRN(nn.Module):
    def forward(self, h: Tensor) -> Tensor:
        return lrn.local_response_norm(h)


class OurReLUPool(nn.Module):
    def forward(self, h: Tensor) -> Tensor:
        return lrn.norm_pool(h, rectify=True, size=0, k=2.0, alpha=1e-4, beta=0.75, columns=1, pool_size=3, pool_stride=2)


def naive_alexnet() -> nn.Sequential:
    return nn.Sequential(
        nn.ZeroPad2d((0, 3, 0, 3)), nn.Conv2d(3, 96, 11, 4), nn.ReLU(), naive_lrn(), nn.MaxPool2d(3, 2),
        nn.Conv2d(96, 256, 5, padding=2, groups=2), nn.ReLU(), naive_lrn(), nn.MaxPool2d(3, 2),
        nn.Conv2d(256, 384, 3, padding=1), nn.ReLU(), nn.Conv2d(384, 384, 3, padding=1, groups=2), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1, groups=2), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Flatten(),
        nn.Linear(9216, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 1000),
    )  # fmt: skip


def small(pool: Callable[[], list[nn.Module]], norm: Callable[[], nn.Module]) -> nn.Sequential:
    """The four-layer CIFAR-10 network of the paper's section 3.3 with its two normalisations."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 5, padding=2), *pool(), norm(), nn.Conv2d(64, 64, 5, padding=2), *pool(), norm(),
        nn.Conv2d(64, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(2048, 10),
    )  # fmt: skip


def batch(size: int, classes: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return 50 * torch.randn(BATCH, 3, size, size, generator=generator), torch.randint(classes, (BATCH,), generator=generator)


def stepper(logits: Callable[[], Tensor], target: Tensor, optimizer: torch.optim.Optimizer, bfloat16: bool) -> Step:
    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            out = logits()
        loss = F.cross_entropy(out.float(), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def naive_step(net: nn.Module, size: int, classes: int) -> Step:
    x, y = batch(size, classes)
    return stepper(lambda: net(x), y, torch.optim.SGD(net.parameters(), 1e-5, 0.9, weight_decay=5e-4), False)


def paper_sgd(net: nn.Module) -> PaperSGD:
    optimizer = PaperSGD(net.named_parameters(), 0.9, 5e-4)
    optimizer.set_rates(dict.fromkeys(GROUPS, 1e-5))
    return optimizer


def our_alexnet() -> Step:
    net = AlexNet(AlexNetConfig())
    initialise(net, "paper", 0)
    net = net.to(memory_format=torch.channels_last)
    x, y = batch(224, 1000)
    x = x.contiguous(memory_format=torch.channels_last)
    masks = draws.masks(0, 1, 0, BATCH, net.config.fc7_width, net.config.dropout)
    return stepper(lambda: net(x, masks), y, paper_sgd(net), True)


def our_small() -> Step:
    net = small(lambda: [OurReLUPool()], OurLRN).to(memory_format=torch.channels_last)
    x, y = batch(32, 10)
    x = x.contiguous(memory_format=torch.channels_last)
    return stepper(lambda: net(x), y, paper_sgd(net), True)


def lrn_step(function: Callable[[Tensor], Tensor], dtype: torch.dtype, memory_format: torch.memory_format) -> Step:
    """Forward and backward of conv1's activations of a batch."""
    a = torch.randn(BATCH, 96, 55, 55).to(dtype).contiguous(memory_format=memory_format).requires_grad_()
    grad = torch.randn(BATCH, 96, 55, 55).to(dtype).contiguous(memory_format=memory_format)

    def step() -> None:
        a.grad = None
        function(a).backward(grad)

    return step


def banded(a: Tensor) -> Tensor:
    out: Tensor = lrn._LocalResponseNorm.apply(a, 5, 2.0, 1e-4, 0.75, 2)
    return out


def ours(a: Tensor) -> Tensor:
    return lrn.local_response_norm(a, columns=2)


def a_run(config: AlexNetConfig) -> Run:
    net = PlacedNet(config, Placement((torch.device("cpu"),)))
    whole = AlexNet(config)
    initialise(whole, "paper", 0)
    net.load_whole(dict(whole.state_dict()))
    net.train()
    return Run(net, paper_sgd(net), bfloat16=True, max_gradient=0)


def epoch_of_one_batch() -> Step:
    run = a_run(AlexNetConfig())
    x, y = batch(224, 1000)
    masks = draws.masks(0, 1, 0, BATCH, run.net.config.fc7_width, run.net.config.dropout)
    one = Batch(0, x.contiguous(memory_format=torch.channels_last), y, masks, BATCH, [])

    def steps() -> None:
        for _ in range(EPOCH):
            _step(run, one)

    return steps


def epoch_of_files(keep: Keep) -> Step:
    run = a_run(AlexNetConfig())
    root, notes = Path(os.environ["BENCH_PHOTOGRAPHS"]), tempfile.mkdtemp()
    squares = prepare_squares(root, list_examples(root, "all"), Path(notes), ImageLimits(), keep)
    chosen_N = torch.arange(EPOCH * BATCH) % len(squares.labels_N)
    feed = Feed(squares, chosen_N, squares.mean_CHW, run.net.config, BATCH, 0, lambda count: slice(0, count))
    noise = colour_noise(squares.statistics.covariance_33, "eigenvalue")
    log = RunLog(None, False, run.position)

    def steps() -> None:
        train_epoch(run, feed, noise, log, lambda: None)
        run.position.end_epoch(NOTHING)

    return steps


def make_photographs(folder: Path) -> None:
    """1024 JPEG files of 320 x 240 pixels, smooth with noise, in two classes."""
    draw = np.random.default_rng(0)
    for i in range(EPOCH * BATCH):
        coarse = draw.normal(128, 50, (12, 16, 3)).clip(0, 255).astype(np.uint8)
        pixels = np.asarray(Image.fromarray(coarse).resize((320, 240))) + draw.normal(0, 6, (240, 320, 3))
        path = folder / f"class{i % 2}" / f"{i:04d}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=90)


def naive_small() -> nn.Sequential:
    return small(lambda: [nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True)], naive_lrn)


# part -> way -> (whether it keeps freed memory, how to make its step); the last way is ours, the first what it is compared with
WAYS: Final[dict[str, dict[str, tuple[bool, Callable[[], Step]]]]] = {
    "network": {
        "naive": (False, lambda: naive_step(naive_alexnet(), 224, 1000)),
        "naive, our allocator": (True, lambda: naive_step(naive_alexnet(), 224, 1000)),
        "ours": (True, our_alexnet),
    },
    "small": {
        "naive": (False, lambda: naive_step(naive_small(), 32, 10)),
        "naive, our allocator": (True, lambda: naive_step(naive_small(), 32, 10)),
        "ours": (True, our_small),
    },
    "lrn": {
        "torch.nn, float32": (True, lambda: lrn_step(naive_lrn(), torch.float32, torch.contiguous_format)),
        "banded, float32": (True, lambda: lrn_step(banded, torch.float32, torch.channels_last)),
        "banded, bfloat16": (True, lambda: lrn_step(banded, torch.bfloat16, torch.channels_last)),
        "ours, float32": (True, lambda: lrn_step(ours, torch.float32, torch.channels_last)),
        "ours, bfloat16": (True, lambda: lrn_step(ours, torch.bfloat16, torch.channels_last)),
    },
    "pipeline": {
        "steps alone": (True, epoch_of_one_batch),
        "files decoded anew": (True, lambda: epoch_of_files("never")),
        "squares kept": (True, lambda: epoch_of_files("always")),
    },
}
STEPS: Final = {"pipeline": EPOCH}  # that one turn takes, where it is more than one


def work(part: str, way: str) -> None:
    """One way's process: a step for every line of input, its seconds as a line of output; the peak of memory, bytes, last."""
    keeps, make = WAYS[part][way]
    if keeps:
        keep_freed_memory()
    torch.manual_seed(0)
    step = make()
    step()
    step()
    print(json.dumps("ready"), flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        step()
        print(json.dumps(time.perf_counter() - started), flush=True)
    print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024), flush=True)


def compare(part: str, rounds: int) -> None:
    """Runs the ways of a part in turns and prints a line for each."""
    processes = {}
    for way in WAYS[part]:
        command = [sys.executable, __file__, "--work", part, way]
        processes[way] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        answer(processes[way])
    seconds: dict[str, list[float]] = {way: [] for way in processes}
    for _ in range(rounds):
        for way, process in processes.items():
            assert process.stdin
            process.stdin.write("step\n")
            process.stdin.flush()
            seconds[way].append(answer(process))
    first = statistics.median(next(iter(seconds.values())))
    steps = STEPS.get(part, 1)
    print(f"\n{part}: batch {BATCH}, median of {rounds} alternating turns, steps a turn: {steps}")
    for way, process in processes.items():
        assert process.stdin
        process.stdin.close()
        median, peak = statistics.median(seconds[way]), answer(process)
        process.wait()
        print(
            f"  {way:22}{1e3 * median:8.1f} ms  {steps * BATCH / median:8.1f} images/s  {first / median:6.2f}x"
            f"   ({1e3 * min(seconds[way]):.1f} to {1e3 * max(seconds[way]):.1f} ms; peak {peak / 2**30:.2f} GiB)",
            flush=True,
        )


def answer(process: "subprocess.Popen[str]") -> float:
    assert process.stdout
    line = process.stdout.readline()
    if not line:
        sys.exit(f"bench_train: {process.args!r} ended early")
    value = json.loads(line)
    return 0.0 if value == "ready" else float(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--photographs", type=Path, help="image folder for the part `pipeline`; made where not given")
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(*arguments.work)
        return
    compiled = f"native.c {'compiled' if native.library() else 'not compiled'}"
    print(heading(INSTRUCTIONS, f"PyTorch {torch.__version__}", compiled))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["BENCH_PHOTOGRAPHS"] = str(arguments.photographs or folder)
        os.environ["TMPDIR"] = folder
        if "pipeline" in arguments.parts and not arguments.photographs:
            make_photographs(Path(folder))
        for part in arguments.parts:
            compare(part, arguments.rounds)


if __name__ == "__main__":
    main()
