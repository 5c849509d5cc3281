"""AlexNet's columns at work on their placement (training/network/placement.py), and what they send each other.

Wherever they are, they talk at conv3, fc6, fc7 and fc8 only (paper, figure 2). Their weights are read and written as whole
layers.

Legend: B batch, C maps or channels, D feature width, H height, W width.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import torch
import torch.distributed as dist
from torch import Tensor, nn

from training.network.alexnet import AlexNet, AlexNetConfig, Masks
from training.network.placement import ColumnPair, Placement

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
            theirs = {name: self.swap(tensor, pair) for name, tensor in parts[0].items() if name != "fc8.bias"}
            parts = [parts[0], theirs] if pair.column == 0 else [theirs, parts[0]]
        if len(parts) == 1:
            return {name: tensor.cpu() for name, tensor in parts[0].items()}
        first, second = ({name: tensor.cpu() for name, tensor in part.items()} for part in parts)
        joined = {name: torch.cat([first[name], second[name]], _axis(name)) for name in first if name in second}
        return {**first, **second, **joined}

    def set_whole(self, tensors: Mapping[str, Tensor], assign: Callable[[nn.Parameter, Tensor], object]) -> None:
        """Hands each parameter its part of a whole layer's tensor, by `assign`."""
        for part in self.columns_here:
            for name, parameter in part.named_parameters():
                if name in tensors:
                    tensor = tensors[name] if part.column is None else _part(name, tensors[name], part.column)
                    assign(parameter, tensor)

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

    def count(self, layer: str, sent: int) -> None:
        """Counts bytes that went between the columns for `layer`, in training."""
        if self.training:
            self.traffic.bytes[layer] += sent

    def _own(self, mask_BD: Tensor | None, part: AlexNet) -> Tensor | None:
        if mask_BD is None:
            return None
        own = mask_BD if part.column is None else mask_BD.chunk(2, 1)[part.column]
        return own.to(part.scale_C.device, non_blocking=True)

    def swap(self, mine: Tensor, pair: ColumnPair, layer: str | None = None) -> Tensor:
        """Gives this rank's tensor to the other column's rank, and takes the other's, of the same shape and dtype."""
        wire = mine.permute(0, 2, 3, 1).contiguous() if mine.dim() == 4 else mine.contiguous()
        theirs = torch.empty_like(wire)
        sent, received = wire.view(torch.uint8), theirs.view(torch.uint8)
        both = [dist.P2POp(dist.isend, sent, pair.peer, pair.group), dist.P2POp(dist.irecv, received, pair.peer, pair.group)]
        for work in dist.batch_isend_irecv(both):
            work.wait()
        if layer is not None:
            self.count(layer, sent.numel() + received.numel())
        return theirs.permute(0, 3, 1, 2) if mine.dim() == 4 else theirs


class _Hear(torch.autograd.Function):
    """Forward: both columns' maps, from mine and the other rank's. Backward: what both columns' gradients say of mine."""

    @staticmethod
    def forward(ctx: Any, mine: Tensor, net: PlacedNet, pair: ColumnPair, layer: str) -> Tensor:
        ctx.net, ctx.pair, ctx.layer = net, pair, layer
        theirs = net.swap(mine, pair, layer)
        return torch.cat([mine, theirs] if pair.column == 0 else [theirs, mine], 1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        halves, column = grad.chunk(2, 1), ctx.pair.column
        return halves[column] + ctx.net.swap(halves[1 - column], ctx.pair, ctx.layer), None, None, None


class _Sum(torch.autograd.Function):
    """Forward: the sum of both ranks' shares. Backward: its gradient, which both ranks know already."""

    @staticmethod
    def forward(ctx: Any, mine: Tensor, net: PlacedNet, pair: ColumnPair) -> Tensor:
        return mine + net.swap(mine, pair, "fc8")

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad, None, None


class _Copied(torch.autograd.Function):
    """Forward: a copy on the other device. Backward: its gradient, back on this one."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, device: torch.device, net: PlacedNet, layer: str) -> Tensor:
        ctx.net, ctx.layer, ctx.device = net, layer, tensor.device
        net.count(layer, tensor.numel() * tensor.element_size())
        return tensor.to(device, copy=True, non_blocking=True)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        ctx.net.count(ctx.layer, grad.numel() * grad.element_size())
        return grad.to(ctx.device, non_blocking=True), None, None, None


def _part(name: str, whole: Tensor, column: int) -> Tensor:
    """One column's part of a whole layer's tensor; fc8's biases are column 0's."""
    return whole if name == "fc8.bias" else whole.chunk(2, _axis(name))[column]


def _axis(name: str) -> int:
    """Where columns lie side by side: in the rows of a layer's tensors, but in the inputs of fc8."""
    return 1 if name == "fc8.weight" else 0
