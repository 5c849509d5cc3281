"""AlexNet's columns where they run: both on one device, one on each of two devices, or one on each of two ranks.

However they are placed, they talk at conv3, fc6, fc7 and fc8 only (paper, figure 2), and their weights are read and written as
whole layers. Ranks beyond a pair are replicas of it: each takes its share of the batch, and gradients are summed over replicas.

Legend: B batch, C maps or channels, D feature width, H height, W width.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh

from training.errors import BadValue
from training.network.alexnet import AlexNet, AlexNetConfig, Masks

EXCHANGES: Final = ("conv3", "fc6", "fc7", "fc8")


@dataclass
class Traffic:
    """Bytes that have gone between the columns in training, both ways, by the layer that hears them."""

    images: int = 0
    bytes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(EXCHANGES, 0))

    def per_image(self) -> dict[str, float]:
        """Bytes an image and step, forward and backward together."""
        return {name: count / max(self.images, 1) for name, count in self.bytes.items()}


def values_exchanged(config: AlexNetConfig) -> tuple[dict[str, int], dict[str, int]]:
    """Values that go between two columns for one image in one step, by layer: in this network, and in full tensor parallelism.

    Full tensor parallelism splits every layer's maps over the devices, so every layer must hear both. What a layer hears goes
    forward from either side, and its gradient backward; the logits are a sum of two shares, which takes two transfers.
    """
    _, pool1, pool2, pool5 = config.sizes()
    c1, c2, c3, c4, c5 = config.maps
    heard = {
        "conv2": c1 * pool1**2,
        "conv3": c2 * pool2**2,
        "conv4": c3 * pool2**2,
        "conv5": c4 * pool2**2,
        "fc6": c5 * pool5**2,
        "fc7": config.hidden,
    }
    every = {name: 4 * count for name, count in heard.items()} | {"fc8": 2 * config.classes}
    return {name: every[name] if config.exchange or name == "fc8" else 0 for name in EXCHANGES}, every


@dataclass(frozen=True)
class Pair:
    """Two ranks with one column each, seen from one of them."""

    column: int  # of this rank
    group: dist.ProcessGroup

    @property
    def peer(self) -> int:
        """The rank that holds the other column."""
        return dist.get_global_rank(self.group, 1 - self.column)


@dataclass(frozen=True)
class Placement:
    """Where the columns run, and which share of the batch is this process's."""

    devices: tuple[torch.device, ...]  # one, or one for each column
    pair: Pair | None = None  # where columns are on ranks of their own
    replicas: dist.ProcessGroup | None = None  # the ranks that hold the same columns of other replicas
    replica: int = 0
    count: int = 1  # of replicas

    @property
    def leads(self) -> bool:
        """Whether this process writes files and speaks for all."""
        return self.replica == 0 and self.speaks

    @property
    def speaks(self) -> bool:
        """Whether this process speaks for its replica: of a pair, the first column does."""
        return self.pair is None or self.pair.column == 0

    def share(self, batch: int) -> slice:
        """The part of a batch that this replica takes; parts differ by one image at most, and may be empty."""
        return slice(self.replica * batch // self.count, (self.replica + 1) * batch // self.count)

    def sum_over_replicas(self, tensors: list[Tensor]) -> None:
        """Adds each tensor up over the replicas, in place."""
        if self.replicas is not None:
            for tensor in tensors:
                dist.all_reduce(tensor, group=self.replicas)

    def sum_over_all(self, values: list[float]) -> list[float]:
        """Adds numbers up over all ranks; what both columns of a replica know is counted once."""
        if not dist.is_initialized():
            return values
        tensor = torch.tensor(values if self.speaks else [0.0] * len(values), dtype=torch.float64)
        tensor = tensor.to(self.devices[0])
        dist.all_reduce(tensor)
        total: list[float] = tensor.tolist()
        return total

    def any_rank(self, flag: bool) -> bool:
        """Whether `flag` is set on one rank or more."""
        if not dist.is_initialized():
            return flag
        tensor = torch.tensor(float(flag), device=self.devices[0])
        dist.all_reduce(tensor)
        return bool(tensor)

    def wait(self) -> None:
        """Returns when all ranks have come here."""
        self.any_rank(False)

    def said(self) -> str:
        """One line for people."""
        where = ", ".join(map(str, self.devices))
        if dist.is_initialized():
            return f"{dist.get_world_size()} ranks: {self.count} x {1 if self.pair is None else 2}, on {where}"
        return f"one column on each of {where}" if len(self.devices) == 2 else f"all columns on {where}"


@contextmanager
def placed(config: AlexNetConfig, devices: str, ranks_a_network: int | None = None) -> Iterator[Placement]:
    """The placement that `devices` asks for: "cpu", "cuda:0,cuda:1", and so on; under torchrun, of this rank.

    Under torchrun an even number of ranks holds a network in pairs, one column each, unless `ranks_a_network` is 1.
    Raises BadValue for what cannot be.
    """
    found = _devices(devices)
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if ranks == 1:
        if len(found) == 2:
            _check_apart(config, "devices", devices)
        yield Placement(found)
        return
    if len(found) == 2:
        raise BadValue("devices", devices, "one device a rank under torchrun")
    size = ranks_a_network or (2 if ranks % 2 == 0 and _apart(config) else 1)
    if ranks % size:
        raise BadValue("ranks_a_network", size, f"a divisor of the number of ranks, {ranks}")
    if size == 2:
        _check_apart(config, "ranks_a_network", size)
    device = found[0]
    if device.type == "cuda":
        local = int(os.environ["LOCAL_RANK"])
        if ":" in devices or local >= torch.cuda.device_count():
            expected = f"cuda under torchrun, each rank taking one of this machine's {torch.cuda.device_count()} CUDA devices"
            raise BadValue("devices", devices, expected)
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    # the leading rank may decode photographs for hours while the others wait
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timedelta(days=2))
    try:
        mesh = init_device_mesh(device.type, (ranks // size, size), mesh_dim_names=("replica", "column"))
        replica, column = mesh.get_coordinate() or (0, 0)
        yield Placement(
            (device,),
            Pair(column, mesh.get_group("column")) if size == 2 else None,
            mesh.get_group("replica") if ranks > size else None,
            replica,
            ranks // size,
        )
    finally:
        dist.destroy_process_group()


class PlacedNet(nn.Module):
    """AlexNet on its placement: the same function of weights, pixels and masks as `AlexNet`, wherever its columns are."""

    def __init__(self, config: AlexNetConfig, placement: Placement) -> None:
        super().__init__()
        self.config = config
        self.placement = placement
        self.traffic = Traffic()
        columns: list[int | None] = [placement.pair.column if placement.pair else None]
        if len(placement.devices) == 2:
            columns = [0, 1]
        parts = [AlexNet(config, column).to(device) for column, device in zip(columns, placement.devices, strict=True)]
        self.parts = nn.ModuleList(part.to(memory_format=torch.channels_last) for part in parts)

    @property
    def columns_here(self) -> list[AlexNet]:
        """The columns that this process holds, each as a network of its own, or the whole network."""
        return [part for part in self.parts if isinstance(part, AlexNet)]

    def forward(self, x_BCHW: Tensor, masks: Masks | None = None) -> Tensor:
        """Logits (B, classes), on the first device; pixels and masks of all columns may be on any."""
        parts = self.columns_here
        mask6, mask7 = masks or (None, None)
        h = [part.lower(x_BCHW.to(device, non_blocking=True)) for part, device in zip(parts, self.placement.devices, strict=True)]
        h = [part.upper(heard) for part, heard in zip(parts, self._hear("conv3", h), strict=True)]
        h = [part.sixth(heard, self._own(mask6, part)) for part, heard in zip(parts, self._hear("fc6", h), strict=True)]
        h = [part.seventh(heard, self._own(mask7, part)) for part, heard in zip(parts, self._hear("fc7", h), strict=True)]
        if self.training:
            self.traffic.images += len(x_BCHW)
        return self._sum([part.fc8(own) for part, own in zip(parts, h, strict=True)])

    def whole(self, tensor_of: Callable[[nn.Parameter], Tensor]) -> dict[str, Tensor]:
        """Whole layers, on the CPU, of a tensor that belongs to every parameter; every rank of a network must ask together."""
        parts = [{name: tensor_of(p).detach() for name, p in part.named_parameters()} for part in self.columns_here]
        pair = self.placement.pair
        if pair:
            theirs = {name: self._swap(tensor, pair) for name, tensor in parts[0].items() if name != "fc8.bias"}
            parts = [parts[0], theirs] if pair.column == 0 else [theirs, parts[0]]
        if len(parts) == 1:
            return {name: tensor.cpu() for name, tensor in parts[0].items()}
        first, second = ({name: tensor.cpu() for name, tensor in part.items()} for part in parts)
        joined = {name: torch.cat([first[name], second[name]], _axis(name)) for name in first if name in second}
        return {**first, **second, **joined}

    def set_whole(self, tensors: Mapping[str, Tensor], place: Callable[[nn.Parameter, Tensor], object]) -> None:
        """Hands each parameter its part of a whole layer's tensor, to `place` there."""
        for part in self.columns_here:
            for name, parameter in part.named_parameters():
                if name in tensors:
                    tensor = tensors[name] if part.column is None else _part(name, tensors[name], part.column)
                    place(parameter, tensor)

    def load_whole(self, tensors: Mapping[str, Tensor]) -> None:
        """Sets weights from whole layers."""
        self.set_whole(tensors, lambda parameter, tensor: parameter.data.copy_(tensor))

    def gradient_norm(self) -> Tensor:
        """Euclidean length of the gradient of all columns."""
        squares = [p.grad.float().square().sum().to(self.placement.devices[0]) for p in self.parameters() if p.grad is not None]
        total = torch.stack(squares).sum()
        if self.placement.pair:
            dist.all_reduce(total, group=self.placement.pair.group)
        return total.sqrt()

    def _hear(self, layer: str, own: list[Tensor]) -> list[Tensor]:
        """What `layer` hears of all columns, from what the columns here say."""
        pair = self.placement.pair
        if not self.config.exchange or (len(own) == 1 and pair is None):
            return own
        if pair:
            heard: Tensor = _Hear.apply(own[0], self, pair, layer)
            return [heard]
        first, second = own
        return [
            torch.cat([first, _Copied.apply(second, first.device, self, layer)], 1),
            torch.cat([_Copied.apply(first, second.device, self, layer), second], 1),
        ]

    def _sum(self, shares: list[Tensor]) -> Tensor:
        if self.placement.pair:
            total: Tensor = _Sum.apply(shares[0], self, self.placement.pair)
            return total
        if len(shares) == 1:
            return shares[0]
        share: Tensor = _Copied.apply(shares[1], shares[0].device, self, "fc8")
        return shares[0] + share

    def _count(self, layer: str, sent: int) -> None:
        if self.training:
            self.traffic.bytes[layer] += sent

    def _own(self, mask_BD: Tensor | None, part: AlexNet) -> Tensor | None:
        if mask_BD is None:
            return None
        own = mask_BD if part.column is None else mask_BD.chunk(2, 1)[part.column]
        return own.to(part.scale_C.device, non_blocking=True)

    def _swap(self, mine: Tensor, pair: Pair, layer: str | None = None) -> Tensor:
        """Gives this rank's tensor to the other column's rank, and takes the other's, of the same shape and dtype."""
        wire = mine.permute(0, 2, 3, 1).contiguous() if mine.dim() == 4 else mine.contiguous()
        theirs = torch.empty_like(wire)
        sent, received = wire.view(torch.uint8), theirs.view(torch.uint8)
        both = [dist.P2POp(dist.isend, sent, pair.peer, pair.group), dist.P2POp(dist.irecv, received, pair.peer, pair.group)]
        for work in dist.batch_isend_irecv(both):
            work.wait()
        if layer is not None:
            self._count(layer, sent.numel() + received.numel())
        return theirs.permute(0, 3, 1, 2) if mine.dim() == 4 else theirs


class _Hear(torch.autograd.Function):
    """Forward: both columns' maps, from mine and the other rank's. Backward: what both columns' gradients say of mine."""

    @staticmethod
    def forward(ctx: Any, mine: Tensor, net: PlacedNet, pair: Pair, layer: str) -> Tensor:
        ctx.net, ctx.pair, ctx.layer = net, pair, layer
        theirs = net._swap(mine, pair, layer)
        return torch.cat([mine, theirs] if pair.column == 0 else [theirs, mine], 1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        halves, column = grad.chunk(2, 1), ctx.pair.column
        return halves[column] + ctx.net._swap(halves[1 - column], ctx.pair, ctx.layer), None, None, None


class _Sum(torch.autograd.Function):
    """Forward: the sum of both ranks' shares. Backward: its gradient, which both ranks know already."""

    @staticmethod
    def forward(ctx: Any, mine: Tensor, net: PlacedNet, pair: Pair) -> Tensor:
        return mine + net._swap(mine, pair, "fc8")

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad, None, None


class _Copied(torch.autograd.Function):
    """Forward: a copy on the other device. Backward: its gradient, back on this one."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, device: torch.device, net: PlacedNet, layer: str) -> Tensor:
        ctx.net, ctx.layer, ctx.device = net, layer, tensor.device
        net._count(layer, tensor.numel() * tensor.element_size())
        return tensor.to(device, copy=True, non_blocking=True)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        ctx.net._count(ctx.layer, grad.numel() * grad.element_size())
        return grad.to(ctx.device, non_blocking=True), None, None, None


def _devices(names: str) -> tuple[torch.device, ...]:
    expected = "one device or two, as in cpu or cuda:0,cuda:1"
    try:
        devices = tuple(torch.device(name.strip()) for name in names.split(","))
    except RuntimeError as error:
        raise BadValue("devices", names, expected) from error
    if len(devices) > 2 or any(device.type not in ("cpu", "cuda") for device in devices):
        raise BadValue("devices", names, expected)
    if len({device.type for device in devices}) > 1:
        raise BadValue("devices", names, "two devices of one kind")
    present = torch.cuda.device_count()
    for device in devices:
        if device.type == "cuda" and (device.index or 0) >= present:
            raise BadValue("devices", names, f"devices of this machine, which has {present} CUDA devices")
    return devices


def _apart(config: AlexNetConfig) -> bool:
    return config.columns == 2 and not config.lrn_across


def _check_apart(config: AlexNetConfig, setting: str, value: object) -> None:
    if not _apart(config):
        why = "has one column" if config.columns == 1 else "normalises across its columns"
        raise BadValue(setting, value, f"for one place, since this network (profile {config.profile}) {why}")


def _part(name: str, whole: Tensor, column: int) -> Tensor:
    """One column's part of a whole layer's tensor; fc8's biases are column 0's."""
    return whole if name == "fc8.bias" else whole.chunk(2, _axis(name))[column]


def _axis(name: str) -> int:
    """Where columns lie side by side: in the rows of a layer's tensors, but in the inputs of fc8."""
    return 1 if name == "fc8.weight" else 0
