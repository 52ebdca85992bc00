"""NACRNN and NALURNN: torch.nn.RNN's habits, cells over whole sequences."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from nalu_kernels import NACRNN, NALURNN, NACCell, NALUCell

NETWORKS: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    "NAC": (NACRNN, {}),
    "NALU": (NALURNN, {"gate": "sample", "gate_bias": True}),
}


@pytest.fixture(params=NETWORKS)
def make(request: pytest.FixtureRequest) -> Any:
    kind, options = NETWORKS[request.param]
    return lambda *arguments, **more: kind(*arguments, **options, **more)


def draw(rng: Generator, *sizes: int) -> Tensor:
    return torch.rand(sizes, generator=rng) + 0.3


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("batch_first", [False, True])
def test_shapes_as_of_rnn(make: Any, layers: int, batch_first: bool, rng: Generator) -> None:
    network = make(3, 2, layers, batch_first=batch_first)
    like = nn.RNN(3, 2, layers, batch_first=batch_first)
    for leading in ((4, 5), (4,), (1, 1), (5, 1)):
        x = draw(rng, *leading, 3)
        rows = (leading[0 if batch_first else 1],) if len(leading) == 2 else ()
        hx = draw(rng, layers, *rows, 2)
        for given in ((x,), (x, hx)):
            found, wanted = network(*given), like(*given)
            assert [of.shape for of in found] == [of.shape for of in wanted]
            last = found[0][:, -1] if batch_first and rows else found[0][-1]
            assert torch.equal(found[1][-1], last)


def test_each_layer_is_its_cell_over_time(make: Any, rng: Generator) -> None:
    network, x, hx = make(3, 2, 2), draw(rng, 6, 4, 3), draw(rng, 2, 4, 2)
    kind = NACCell if isinstance(network, NACRNN) else NALUCell
    assert [type(cell) for cell in network.cells] == [kind, kind]
    output, h_n = network(x, hx)
    below = network.cells[0].unroll(x, hx[0])
    above = network.cells[1].unroll(below, hx[1])
    assert torch.equal(output, above)
    assert torch.equal(h_n, torch.stack((below[-1], above[-1])))
    state = hx[0]
    for step in x:
        state = network.cells[0](step, state)
    torch.testing.assert_close(below[-1], state)


def test_batch_first_turns_the_sequences_alone(make: Any, rng: Generator) -> None:
    network, x, hx = make(3, 2, 2), draw(rng, 6, 4, 3), draw(rng, 2, 4, 2)
    turned = copy.deepcopy(network)
    turned.batch_first = True
    output, h_n = turned(x.transpose(0, 1), hx)
    assert torch.equal(output.transpose(0, 1), network(x, hx)[0])
    assert torch.equal(h_n, network(x, hx)[1])


@pytest.mark.parametrize("sorted_", [False, True])
def test_packed_sequences(make: Any, sorted_: bool, rng: Generator) -> None:
    """Each row is as if it had been alone."""
    network = make(3, 2, 2, dtype=torch.float64)
    x, hx = draw(rng, 6, 4, 3).double(), draw(rng, 2, 4, 2).double()
    lengths = [6, 5, 2, 2] if sorted_ else [2, 6, 5, 2]
    leaf = x.clone().requires_grad_()
    packed = pack_padded_sequence(leaf, torch.tensor(lengths), enforce_sorted=sorted_)
    output, h_n = network(packed, hx)
    like, _ = nn.RNN(3, 2, dtype=torch.float64)(packed)
    assert isinstance(output, PackedSequence)
    for name in ("batch_sizes", "sorted_indices", "unsorted_indices"):
        one, other = getattr(output, name), getattr(like, name)
        assert (one is None and other is None) or torch.equal(one, other)
    padded, found = pad_packed_sequence(output)
    assert found.tolist() == lengths
    (padded.sum() + h_n.sum()).backward()
    assert leaf.grad is not None
    for b, length in enumerate(lengths):
        row = x[:length, b].clone().requires_grad_()
        alone, last = network(row, hx[:, b])
        torch.testing.assert_close(padded[:length, b], alone)
        torch.testing.assert_close(h_n[:, b], last)
        (grad,) = torch.autograd.grad(alone.sum() + last.sum(), row)
        torch.testing.assert_close(leaf.grad[:length, b], grad)
        assert not leaf.grad[length:, b].any()


def test_no_steps(make: Any, rng: Generator) -> None:
    network, hx = make(3, 2, 2), draw(rng, 2, 4, 2)
    output, h_n = network(torch.empty(0, 4, 3), hx)
    assert output.shape == (0, 4, 2) and torch.equal(h_n, hx)
    assert torch.equal(network(torch.empty(0, 4, 3))[1], torch.zeros(2, 4, 2))


def test_as_a_module(make: Any, rng: Generator) -> None:
    network, x = make(3, 2, 2, dtype=torch.float64), draw(rng, 5, 4, 3).double()
    output = network(x)[0]
    again = make(3, 2, 2, dtype=torch.float64)
    again.load_state_dict(network.state_dict())
    assert torch.equal(again(x)[0], output)
    assert torch.equal(pickle.loads(pickle.dumps(network))(x)[0], output)
    network.reset_parameters()
    assert not torch.equal(network(x)[0], output)
    compiled = torch.compile(again, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x)[0], output)
    assert "num_layers=2" in repr(network)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((torch.ones(4, 5, 2),), ValueError, r"input: expected shape \(steps, batch, 3\)"),
        (([1.0],), TypeError, "input: expected a torch.Tensor, got list"),
        ((torch.ones(4, 5, 3), torch.ones(1, 5, 2)), ValueError, r"hx: expected shape \(2, batch"),
        ((torch.ones(4, 5, 3), torch.ones(2, 2)), ValueError, r"hx: expected shape \(2, batch, 2"),
        ((torch.ones(4, 3), torch.ones(2, 5, 2)), ValueError, r"hx: expected shape \(2, 2\)"),
        ((torch.ones(4, 5, 3), torch.ones(2, 4, 2)), ValueError, r"hx: expected shape \(5, 2\)"),
        ((pack_padded_sequence(torch.ones(4, 1, 2), [4]),), ValueError, "input.data: expected"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_words_for_wrong_arguments(
    arguments: tuple[Any, ...], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        NACRNN(3, 2, 2)(*arguments)


def test_words_for_wrong_options() -> None:
    for wrong, error in (
        ({"num_layers": 0}, ValueError),
        ({"num_layers": 1.5}, TypeError),
        ({"batch_first": 1}, TypeError),
        ({"dropout": 0.5}, TypeError),
        ({"bidirectional": True}, TypeError),
    ):
        with pytest.raises(error, match=next(iter(wrong))):
            NALURNN(3, 2, **wrong)
    with pytest.raises(TypeError, match=r"NACRNN: dropout .* there is no dropout"):
        NACRNN(3, 4, dropout=0.1)
