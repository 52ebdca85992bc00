"""A drop-in: a model with a NALU of its own, its layer replaced, weights carried over.

    python examples/drop_in.py

Both are trained on a·b from the same start: the losses agree, the time does not. The time is the
fastest of five tries in turns.
"""

import copy
import time

import torch
from torch import nn

import nalu_kernels


class EagerNALU(nn.Module):
    """The paper's equations as one finds them in many repositories."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        shape = (out_features, in_features)
        self.W_hat, self.M_hat, self.G = (nn.Parameter(0.5 * torch.randn(shape)) for _ in "WMG")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        W = torch.tanh(self.W_hat) * torch.sigmoid(self.M_hat)
        g = torch.sigmoid(x @ self.G.T)
        return g * (x @ W.T) + (1 - g) * torch.exp(torch.log(x.abs() + 1e-7) @ W.T)


def train(model: nn.Sequential, steps: int = 600) -> tuple[float, float]:
    """The last loss, and the seconds that it took."""
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    start = time.perf_counter()
    for _ in range(steps):
        x = 1 + 4 * torch.rand(64, 2, generator=generator)
        loss = nn.functional.mse_loss(model(x), x.prod(-1, keepdim=True))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item(), time.perf_counter() - start


torch.manual_seed(0)
before = nn.Sequential(EagerNALU(2, 1))
after = copy.deepcopy(before)
after[0] = nalu_kernels.NALU(2, 1)  # the same names and shapes, hence the same state dict
after.load_state_dict(before.state_dict())
models = {"EagerNALU": before, "NALU": after}
tries = [{name: train(copy.deepcopy(model)) for name, model in models.items()} for _ in range(5)]
for name in models:
    loss, seconds = min(one[name] for one in tries)
    print(f"{name:>9}: loss {loss:.2e} after 600 steps, {seconds:.2f} s")
