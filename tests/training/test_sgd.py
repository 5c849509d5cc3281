"""The optimiser against the paper's update rule in NumPy."""

import numpy as np
import torch

from training.sgd import PaperSGD


def test_update_is_the_papers_also_when_the_learning_rate_changes() -> None:
    rng = np.random.default_rng(0)
    w = rng.normal(size=7)
    v = np.zeros(7)
    parameter = torch.nn.Parameter(torch.from_numpy(w.copy()))
    optimizer = PaperSGD([parameter], lr=0.01, momentum=0.9, weight_decay=5e-4)
    for step in range(9):
        lr = 0.01 if step < 4 else 0.001
        gradient = rng.normal(size=7)
        v = 0.9 * v - 5e-4 * lr * w - lr * gradient
        w = w + v
        optimizer.set_lr(lr)
        parameter.grad = torch.from_numpy(gradient)
        optimizer.step()
    np.testing.assert_allclose(parameter.detach().numpy(), w, rtol=1e-12)
