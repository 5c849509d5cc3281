"""The optimiser against the paper's update rule in NumPy."""

import numpy as np
import pytest
import torch

from training.run.sgd import PaperSGD


@pytest.mark.parametrize("conv1_decay", [None, 2e-3, 0.0])
def test_update_is_the_papers_also_when_learning_rates_change_and_biases_do_not_decay(conv1_decay: float | None) -> None:
    rng = np.random.default_rng(0)
    names = ["conv1.weight", "conv1.bias", "fc8.weight", "fc8.bias"]
    w = {name: rng.normal(size=7) for name in names}
    v = {name: np.zeros(7) for name in names}
    parameters = {name: torch.nn.Parameter(torch.from_numpy(w[name].copy())) for name in names}
    optimizer = PaperSGD(parameters.items(), momentum=0.9, weight_decay=5e-4, conv1_decay=conv1_decay)
    for step in range(9):
        early = step < 4
        lr = {
            "conv1.weight": 0.01 if early else 0.0001,
            "conv1.bias": 0.02,
            "fc8.weight": 0.01 if early else 0.001,
            "fc8.bias": 0.02,
        }
        gradient = {name: rng.normal(size=7) for name in names}
        for name in names:
            decay = 0.0 if name.endswith("bias") else 5e-4
            if name == "conv1.weight" and conv1_decay is not None:
                decay = conv1_decay
            v[name] = 0.9 * v[name] - decay * lr[name] * w[name] - lr[name] * gradient[name]
            w[name] = w[name] + v[name]
        optimizer.set_rates(
            {
                "weights": lr["fc8.weight"],
                "biases": lr["fc8.bias"],
                "conv1.weights": lr["conv1.weight"],
                "conv1.biases": lr["conv1.bias"],
            }
        )
        for name, parameter in parameters.items():
            parameter.grad = torch.from_numpy(gradient[name])
        optimizer.step()
    for name in names:
        np.testing.assert_allclose(parameters[name].detach().numpy(), w[name], rtol=1e-11)
