"""The paper's update rule: momentum and weight decay inside the velocity."""

from collections.abc import Iterable

import torch
from torch import Tensor


class PaperSGD(torch.optim.SGD):
    """v = momentum * v - decay * lr * w - lr * grad;  w = w + v   (paper, section 5).

    torch.optim.SGD keeps u = -v / lr, which is the same for a constant lr and differs after a change of lr. `set_lr` rescales u
    by old/new so that v carries over as in the paper, and the update itself stays PyTorch's fused kernel.
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float, momentum: float, weight_decay: float) -> None:
        super().__init__(parameters, lr=lr, momentum=momentum, weight_decay=weight_decay, fused=True)

    def set_lr(self, lr: float) -> None:
        """Changes the learning rate of every group and keeps the velocities."""
        for group in self.param_groups:
            if group["lr"] != lr:
                for parameter in group["params"]:
                    buffer = self.state[parameter].get("momentum_buffer")
                    if buffer is not None:
                        buffer.mul_(group["lr"] / lr)
                group["lr"] = lr

    def assume_lr(self, lr: float) -> None:
        """Sets the learning rate that velocities read from disk belong to."""
        for group in self.param_groups:
            group["lr"] = lr
