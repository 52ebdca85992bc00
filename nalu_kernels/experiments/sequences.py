"""Recurrent networks over whole sequences: this library's cells, and torch's as baselines."""

from __future__ import annotations

from torch import Tensor, nn

from nalu_kernels import NACCell, NALUCell


def last_state(cell: NACCell | NALUCell, x: Tensor) -> Tensor:
    """The state after x of shape (batch, length, features), from zeros: (batch, hidden_size)."""
    return cell.unroll(x.transpose(0, 1), last_only=True)


class Baseline(nn.Module):
    """One of torch's recurrent networks, and a linear readout of its last output.

    Args:
        network: with ``batch_first``.
        mean, spread: (answers,), to which the answers are scaled.
    """

    def __init__(self, network: nn.RNNBase, mean: Tensor, spread: Tensor) -> None:
        super().__init__()
        self.network = network
        self.readout = nn.Linear(network.hidden_size, len(mean))
        self.register_buffer("mean", mean)
        self.register_buffer("spread", spread)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, length, features) to (batch, answers)."""
        answer: Tensor = self.mean + self.spread * self.readout(self.network(x)[0][:, -1])
        return answer
