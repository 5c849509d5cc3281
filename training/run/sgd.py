"""The paper's update rule: momentum and weight decay inside the velocity."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

GROUPS = ("weights", "biases", "conv1.weights", "conv1.biases")


class PaperSGD(torch.optim.SGD):
    """v = momentum * v - decay * lr * w - lr * grad;  w = w + v   (paper, section 5).

    Biases do not decay (2012 code, layer-params-145.cfg: `wc` is for weights), and conv1 can have rates and a decay of its own.
    torch.optim.SGD keeps u = -v / lr, which is the same for a constant lr and differs after a change of lr. `set_rates` rescales
    u by old/new so that v carries over as in the paper, and the update itself stays PyTorch's fused kernel.
    """

    def __init__(
        self,
        parameters: Iterable[tuple[str, nn.Parameter]],
        momentum: float,
        weight_decay: float,
        conv1_decay: float | None = None,
    ) -> None:
        groups: dict[str, list[Tensor]] = {name: [] for name in GROUPS}
        for name, parameter in parameters:
            kind = "biases" if name.endswith("bias") else "weights"
            groups[f"conv1.{kind}" if "conv1." in name else kind].append(parameter)
        decays = {"weights": weight_decay, "conv1.weights": weight_decay if conv1_decay is None else conv1_decay}
        described = [
            {"params": tensors, "group": name, "weight_decay": decays.get(name, 0.0)}
            for name, tensors in groups.items()
            if tensors
        ]
        super().__init__(described, lr=1.0, momentum=momentum, fused=True)

    def set_rates(self, rates: Mapping[str, float]) -> None:
        """Changes the learning rates of the groups and keeps the velocities; a rate of 0 leaves a group as it is."""
        for group in self.param_groups:
            new = rates[group["group"]]
            for parameter in group["params"]:
                buffer = self.state[parameter].get("momentum_buffer")
                if buffer is not None and new and group["lr"] != new:
                    buffer.mul_(group["lr"] / new)
            group["lr"] = new or group["lr"]

    def assume_rates(self, rates: Mapping[str, float]) -> None:
        """Sets the learning rates that velocities read from disk belong to."""
        for group in self.param_groups:
            group["lr"] = rates[group["group"]]

    def rates(self) -> dict[str, float]:
        """The learning rate that the velocities of each group belong to."""
        return {group["group"]: group["lr"] for group in self.param_groups}
