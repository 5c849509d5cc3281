"""Where AlexNet's columns are: all on one device, one on each of two devices, or one on each of two ranks.

Ranks beyond a column pair are replicas of it: each takes its share of the batch, and gradients are summed over replicas.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

from training.errors import BadValue
from training.network.alexnet import AlexNetConfig


@dataclass(frozen=True)
class ColumnPair:
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
    pair: ColumnPair | None = None  # where columns are on ranks of their own
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

    def from_lead(self, tensor: Tensor) -> Tensor:
        """The leading rank's tensor, on every rank and its first device; the others give one of its shape and dtype."""
        tensor = tensor.to(self.devices[0])
        if dist.is_initialized():
            dist.broadcast(tensor, src=0)
        return tensor

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

    def summary(self) -> str:
        """One line for people."""
        where = ", ".join(map(str, self.devices))
        if dist.is_initialized():
            return f"{dist.get_world_size()} ranks: {self.count} x {1 if self.pair is None else 2}, on {where}"
        return f"one column on each of {where}" if len(self.devices) == 2 else f"all columns on {where}"


@contextmanager
def open_placement(config: AlexNetConfig, devices: str, ranks_a_network: int | None = None) -> Iterator[Placement]:
    """The placement that `devices` asks for: "cpu", "cuda:0,cuda:1", and so on; under torchrun, of this rank.

    Under torchrun an even number of ranks holds a network in pairs, one column each, unless `ranks_a_network` is 1.
    Raises BadValue for what cannot be.
    """
    chosen = _devices(devices)
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if ranks == 1:
        if len(chosen) == 2:
            _check_apart(config, "devices", devices)
        yield Placement(chosen)
        return
    if len(chosen) == 2:
        raise BadValue("devices", devices, "one device a rank under torchrun")
    size = ranks_a_network or (2 if ranks % 2 == 0 and _apart(config) else 1)
    if ranks % size:
        raise BadValue("ranks_a_network", size, f"a divisor of the number of ranks, {ranks}")
    if size == 2:
        _check_apart(config, "ranks_a_network", size)
    device = chosen[0]
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
            ColumnPair(column, mesh.get_group("column")) if size == 2 else None,
            mesh.get_group("replica") if ranks > size else None,
            replica,
            ranks // size,
        )
    finally:
        dist.destroy_process_group()


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
