"""What training code does with layers, beyond a forward and a backward: checkpoints, hooks, frozen
parameters, anomaly mode, views and in-place changes. As with torch.nn.Linear, on every back end."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import operator
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.utils import checkpoint as checkpointing
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

import nalu_kernels
from conftest import Backend
from layers import BY_NAME, FULLEST, Kind, draw, outcome
from nalu_kernels import NAC, NALU
from selection import only, pairs

pytestmark = [
    pairs,
    # By the interpreter these are slow; the others call the same operators, with more tensors.
    only(lambda backend, make: not (backend.interpreted and make in ("nac", "nalu"))),
]

I, O = 3, 2  # noqa: E741
LAYERS: dict[str, Callable[..., nn.Module]] = {
    "nac": NAC,
    "nac_log_space": lambda *size, **given: NAC(*size, log_space=True, **given),
    "nalu": NALU,
    "nalu_all": lambda *size, **given: NALU(
        *size, tied=False, gate="sample", gate_bias=True, **given
    ),
}
Make = Callable[..., nn.Module]
Call = Callable[[Tensor], Tensor]


@pytest.fixture(params=LAYERS)
def make(request: pytest.FixtureRequest, backend: Backend) -> Make:
    def made(in_features: int = I, out_features: int = O) -> nn.Module:
        layer = LAYERS[request.param](
            in_features, out_features, dtype=torch.float64, device=backend.device
        )
        if getattr(layer, "gate_bias", None) is not None:
            nn.init.normal_(layer.gate_bias)
        return layer

    return made


@pytest.fixture
def x(backend: Backend, rng: Generator) -> Tensor:
    """A leaf of both signs, away from 0, where the derivative jumps."""
    drawn = torch.randn(4, I, generator=rng, dtype=torch.float64)
    return (drawn + drawn.sign() / 2).to(backend.device).requires_grad_()


def gradients(call: Call, x: Tensor, model: nn.Module) -> dict[str, Tensor]:
    """The output of call(x), and what the backward of its squares leaves in each ``.grad``."""
    model.zero_grad()
    x.grad = None
    y = call(x)
    y.square().sum().backward()
    leaves = {"input": x, **dict(model.named_parameters())}
    grads = {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}
    return {"output": y.detach(), **grads}


def by_reference(
    call: Call, x: Tensor, model: nn.Module, run: Callable[..., Any] = gradients
) -> Any:
    with nalu_kernels.use_backend("reference"):
        return run(call, x, model)


def close(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected)


# Activation checkpointing


class Counting(nn.Module):
    """Counts how often it is run."""

    def __init__(self) -> None:
        super().__init__()
        self.runs = 0

    def forward(self, x: Tensor) -> Tensor:
        self.runs += 1
        return x


@pytest.fixture
def model(make: Make, backend: Backend) -> nn.Sequential:
    linear = nn.Linear(3, O, dtype=torch.float64, device=backend.device)
    return nn.Sequential(make(I, 4), nn.Sequential(make(4, 3), linear))


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")  # the inner one's
@pytest.mark.parametrize("reentrant", [False, True], ids=["", "reentrant"])
def test_checkpoint(model: nn.Sequential, x: Tensor, reentrant: bool) -> None:
    """Of a model's segments, and of one within another."""

    def recomputed(function: Call, x: Tensor) -> Tensor:
        return checkpoint(function, x, use_reentrant=reentrant)

    def nested(x: Tensor) -> Tensor:
        return recomputed(model[1], model[0](x))

    calls: list[Call] = [
        lambda x: checkpoint_sequential(model, 2, x, use_reentrant=reentrant),
        lambda x: recomputed(nested, x),
    ]
    expected, plain = by_reference(model, x, model), gradients(model, x, model)
    for call in calls:
        found = gradients(call, x, model)
        close(found, expected)
        assert all(torch.equal(found[name], plain[name]) for name in plain)


def test_checkpoint_where_only_parameters_are_trained(model: nn.Sequential, x: Tensor) -> None:
    x.requires_grad_(False)
    expected = by_reference(model, x, model)
    assert "input" not in expected
    close(gradients(lambda x: checkpoint(model, x, use_reentrant=False), x, model), expected)


def test_a_checkpoint_keeps_the_input_alone(model: nn.Sequential, x: Tensor) -> None:
    kept: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        checkpoint(model, x, use_reentrant=False)
    assert all(tensor.numel() == 0 or tensor.data_ptr() == x.data_ptr() for tensor in kept)


@pytest.mark.parametrize("reentrant", [False, True], ids=["", "reentrant"])
def test_checkpoint_draws_the_same_random_numbers(
    make: Make, x: Tensor, reentrant: bool, rng: Generator
) -> None:
    model = nn.Sequential(make(I, 8), nn.Dropout(0.5), make(8, O))

    def seeded(call: Call) -> Call:
        def run(x: Tensor) -> Tensor:
            torch.manual_seed(rng.initial_seed())
            y = call(x)
            torch.rand(5)  # the backward finds the generator elsewhere
            return y

        return run

    def recomputed(x: Tensor) -> Tensor:
        return checkpoint(model, x, use_reentrant=reentrant, preserve_rng_state=True)

    close(gradients(seeded(recomputed), x, model), by_reference(seeded(model), x, model))


@pytest.mark.parametrize("early", [True, False])
def test_recomputation_stops_when_all_is_there(make: Make, x: Tensor, early: bool) -> None:
    before, after = Counting(), Counting()
    model = nn.Sequential(before, make(), after)
    expected = by_reference(model, x, model)
    before.runs = after.runs = 0
    with checkpointing.set_checkpoint_early_stop(early):
        close(gradients(lambda x: checkpoint(model, x, use_reentrant=False), x, model), expected)
    assert (before.runs, after.runs) == (2, 1 if early else 2)


class Recorder(TorchDispatchMode):
    """The names of the operators that PyTorch's dispatcher is given."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))

    def forwards(self) -> int:
        return sum(bool(re.search(r"::na(c|lu)_forward", name)) for name in self.names)


@only(lambda backend: backend.has_kernels)
@pytest.mark.parametrize("kept", [True, False])
def test_selective_checkpoint(make: Make, x: Tensor, backend: Backend, kept: bool) -> None:
    """A policy may keep what the kernels return; then they are not run again."""
    layer = make()

    def policy(context: Any, function: Any, *_: Any, **__: Any) -> Any:
        policies = checkpointing.CheckpointPolicy
        forward = kept and "_forward" in str(function)
        return policies.MUST_SAVE if forward else policies.PREFER_RECOMPUTE

    def recomputed(x: Tensor) -> Tensor:
        return checkpoint(
            layer,
            x,
            use_reentrant=False,
            context_fn=lambda: checkpointing.create_selective_checkpoint_contexts(policy),
        )

    expected = by_reference(layer, x, layer)
    with Recorder() as recorder:
        found = gradients(recomputed, x, layer)
    close(found, expected)
    assert recorder.forwards() == (1 if kept else 2)


# Hooks


def test_hooks_of_modules(make: Make, x: Tensor) -> None:
    """They run in Linear's order, see the layer's tensors, and what they return takes their
    place."""
    layer = make()
    seen: list[tuple[str, Any]] = []

    def note(name: str, result: Callable[..., Any]) -> Callable[..., Any]:
        def hook(module: nn.Module, *args: Any) -> Any:
            assert module is layer
            seen.append((name, args))
            return result(*args)

        return hook

    def run(call: Call, x: Tensor, model: nn.Module) -> Any:
        seen.clear()
        found = gradients(call, x, model)
        return found, [args for _, args in seen]

    with contextlib.ExitStack() as hooks:
        for handle in (
            layer.register_forward_pre_hook(note("forward_pre", lambda args: (args[0] * 2,))),
            layer.register_forward_hook(note("forward", lambda args, output: output + 1)),
            layer.register_full_backward_pre_hook(
                note("backward_pre", lambda grads: (grads[0] * 3,))
            ),
            layer.register_full_backward_hook(
                note("backward", lambda grad_input, grad_output: (grad_input[0] * 5,))
            ),
        ):
            hooks.enter_context(handle)
        found = run(layer, x, layer)
        assert [name for name, _ in seen] == ["forward_pre", "forward", "backward_pre", "backward"]
        close(found, by_reference(layer, x, layer, run))
        hooked = found[0]
    y = layer(2 * x) + 1
    grads = torch.autograd.grad(y, [x, layer.W_hat], 3 * 2 * y.detach())
    close([hooked["output"], hooked["input"], hooked["W_hat"]], [y, 5 * grads[0], grads[1]])


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")  # as for any module
def test_full_backward_hook_where_the_input_is_not_trained(make: Make, x: Tensor) -> None:
    layer, seen = make(), []
    layer.register_full_backward_hook(lambda _, grad_input, grad_output: seen.append(grad_input))
    found = gradients(layer, x.detach(), layer)
    assert seen == [(None,)] and "W_hat" in found


def test_hooks_of_tensors(make: Make, x: Tensor) -> None:
    """Of a leaf, of the output and of its node, all changing the gradient on its way."""
    layer = make()

    def run(call: Call, x: Tensor, model: nn.Module) -> list[Tensor]:
        seen: list[Tensor] = []
        model.zero_grad()
        leaf = x.detach().requires_grad_()
        y = call(leaf)
        y.retain_grad()
        y.register_hook(lambda grad: grad * 2)
        y.grad_fn.register_prehook(lambda grads: (grads[0] + 1,))
        y.grad_fn.register_hook(lambda grad_inputs, grad_outputs: seen.append(grad_outputs[0]))
        leaf.register_hook(lambda grad: grad * 3)
        with model.W_hat.register_hook(lambda grad: grad.clamp(max=0)):
            y.square().sum().backward()
        return [*seen, y.grad, leaf.grad, *(p.grad for p in model.parameters())]

    found = run(layer, x, layer)
    close(found, by_reference(layer, x, layer, run))
    assert not (layer.W_hat.grad > 0).any()


def test_optimizer_step_in_the_backward(make: Make, x: Tensor) -> None:
    """By post-accumulate-grad hooks, which leave no gradient behind."""
    model = nn.Sequential(make(I, 4), make(4, O))
    expected = by_reference(model, x, model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}

    def step(parameter: Tensor) -> None:
        with torch.no_grad():
            parameter -= 0.1 * parameter.grad
        parameter.grad = None

    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(step)
    assert set(gradients(model, x, model)) == {"output", "input"}
    for name, parameter in model.named_parameters():
        close(parameter.detach(), before[name] - 0.1 * expected[name])


def test_saved_tensors_kept_elsewhere(make: Make, x: Tensor) -> None:
    layer = make()
    expected = by_reference(layer, x, layer)
    packed, unpacked = [], []

    def pack(tensor: Tensor) -> Any:
        packed.append(tensor.shape)
        return tensor.device, tensor.cpu().numpy().copy()

    def unpack(kept: Any) -> Tensor:
        unpacked.append(kept[1].shape)
        return torch.from_numpy(kept[1]).to(kept[0])

    with saved_tensors_hooks(pack, unpack):
        close(gradients(layer, x, layer), expected)
    assert packed and sorted(packed) == sorted(unpacked)
    with save_on_cpu():
        close(gradients(layer, x, layer), expected)


def test_saved_tensors_come_back_with_other_strides(make: Make, x: Tensor) -> None:
    layer = make()

    def transposed(tensor: Tensor) -> Tensor:
        return tensor.t().contiguous().t()

    with saved_tensors_hooks(lambda tensor: tensor, transposed):
        found = gradients(layer, x, layer)
    close(found, by_reference(layer, x, layer))


# Without gradients


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_nothing_is_recorded(make: Make, x: Tensor, mode: Callable[..., Any]) -> None:
    layer = make()
    expected = layer(x)

    def refuse(_: Tensor) -> Tensor:
        raise AssertionError("a tensor was saved")

    with mode(), saved_tensors_hooks(refuse, refuse):
        y = layer(x)
        again = layer(y @ torch.ones(O, I).to(y))
    assert not y.requires_grad and y.grad_fn is None
    assert y.is_inference() == again.is_inference() == (mode is torch.inference_mode)
    assert torch.equal(y, expected)
    assert expected.requires_grad


def test_inference_tensors(make: Make, x: Tensor, backend: Backend) -> None:
    """As parameters and as input: they are as good as any where nothing is trained, and autograd
    says what is wrong where something is."""
    usual = make().requires_grad_(False)
    with torch.inference_mode():
        layer, given = make(), x.detach().clone()
        layer.load_state_dict(usual.state_dict())
    layer.requires_grad_(False)
    expected = usual(given)
    for mode in (torch.no_grad, torch.inference_mode, contextlib.nullcontext):
        with mode():
            for one in (layer.train(), layer.eval()):
                assert torch.equal(one(given), expected)
                assert torch.equal(one(given.clone()), expected)
    if backend.name != "reference":  # which may not need them
        with pytest.raises(RuntimeError, match="Inference tensors cannot be saved for backward"):
            usual.requires_grad_()(given)


# Frozen parameters


def test_frozen_parameters_get_no_gradient(make: Make, x: Tensor) -> None:
    layer = make()
    expected = by_reference(layer, x, layer)
    leaves = {"input": x, **dict(layer.named_parameters())}
    for frozen in (*((name,) for name in leaves), ("W_hat", "M_hat"), tuple(layer.state_dict())):
        for name, leaf in leaves.items():
            leaf.requires_grad_(name not in frozen)
        found = gradients(layer, x, layer)
        close(found, {name: expected[name] for name in expected if name not in frozen})


def products(kind: Kind, wanted: set[str]) -> int:
    """How many matrix products the gradients of the tensors ``wanted`` take."""
    W, W_mul = wanted & {"W_hat", "M_hat"}, wanted & {"W_hat_mul", "M_hat_mul"}
    if kind.function == "nac":
        return ("input" in wanted) + bool(W)
    of_W = 1 if kind.untied else 2
    return 3 * ("input" in wanted) + of_W * bool(W) + bool(W_mul) + ("G" in wanted)


def subsets(names: Any) -> Iterator[set[str]]:
    """All but the empty one."""
    for count in range(1, len(names) + 1):
        yield from map(set, itertools.combinations(names, count))


by_gated_kind = pytest.mark.parametrize(
    "kind",
    [BY_NAME["nac"], BY_NAME["nac_log_space"], BY_NAME["nalu_output_tied"], FULLEST],
    ids=lambda kind: kind.name,
)


@by_gated_kind
def test_frozen_tensors_are_not_computed_for(kind: Kind, backend: Backend, rng: Generator) -> None:
    """By the operations that the back end is asked for, which PyTorch counts."""
    from torch.utils.flop_counter import FlopCounterMode

    shape = B, I, O = 5, 3, 4  # noqa: E741
    layer = draw(rng, kind, shape, device=backend.device)
    leaves = {name: tensor.clone() for name, tensor in layer.tensors.items()}
    sets = list(subsets(leaves))
    for wanted in sets if len(sets) < 20 else sets[:: len(sets) // 8]:
        for name, leaf in leaves.items():
            leaf.requires_grad_(name in wanted)
        y = layer.call(nalu_kernels, **leaves)
        with FlopCounterMode(display=False) as counter:
            y.backward(layer.grad_output)
        assert counter.get_total_flops() == 2 * B * I * O * products(kind, wanted), wanted


@pytest.mark.skipif(
    sys.platform != "linux" or not torch.backends.mkl.is_available(),
    reason="it is MKL that says what it does, in C's own buffer",
)
@by_gated_kind
def test_products_that_are_computed(
    kind: Kind, rng: Generator, capfd: pytest.CaptureFixture[str]
) -> None:
    """By the log of MKL, which does the products of the CPU's large layers."""
    if not nalu_kernels.backends()["cpu"].usable:
        pytest.skip(nalu_kernels.backends()["cpu"].reason)
    layer = draw(rng, kind, (3, 257, 256))

    def computed(run: Callable[[], object]) -> int:
        with torch.backends.mkl.verbose(torch.backends.mkl.VERBOSE_ON):
            run()
        ctypes.CDLL(None).fflush(None)
        return len(re.findall(r"^MKL_VERBOSE [SD]?GEM[MV]", capfd.readouterr().out, re.MULTILINE))

    with nalu_kernels.use_backend("cpu"):
        forward = computed(lambda: outcome(nalu_kernels, layer, set()))
        assert forward == (1 if kind.function == "nac" else 3)
        for wanted in subsets(layer.tensors):
            count = computed(lambda wanted=wanted: outcome(nalu_kernels, layer, wanted))
            assert count - forward == products(kind, wanted), wanted


# Anomaly mode


def test_anomaly_mode_names_the_layer_and_the_line(make: Make, x: Tensor, backend: Backend) -> None:
    layer = make()
    with torch.no_grad():
        x[0, 0] = torch.nan
    with warnings.catch_warnings(record=True) as warned, torch.autograd.detect_anomaly():
        warnings.simplefilter("always")
        y = layer(x)  # the culprit
        with pytest.raises(RuntimeError, match=r"Function '\w+' returned nan values") as raised:
            y.nansum().backward()
    (traceback,) = (str(w.message) for w in warned if "Traceback of forward call" in str(w.message))
    assert "y = layer(x)  # the culprit" in traceback
    if backend.name != "reference":
        name = f"{type(layer).__name__}FunctionBackward"
        assert f"Error detected in {name}" in traceback
        assert f"Function '{name}'" in str(raised.value)


def test_anomaly_mode_finds_nothing_wrong(make: Make, x: Tensor) -> None:
    layer = make()
    with pytest.warns(UserWarning, match="Anomaly Detection"), torch.autograd.detect_anomaly():
        found = gradients(layer, x, layer)
    close(found, by_reference(layer, x, layer))


# Views and expanded tensors

VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "slice": lambda x: x[1:3],
    "every_other_row": lambda x: x[::2],
    "transposed": lambda x: x[:I, :I].T,
    "row": lambda x: x[1],
    "flipped": lambda x: x.flip(0),
    "leading_dimensions": lambda x: x.view(2, 2, I),
    "expanded_row": lambda x: x[:1].expand(5, I),
    "expanded_batch": lambda x: x.expand(3, *x.shape),
    "expanded_number": lambda x: x[0, 0].expand(2, I),
    "overlapping": lambda x: x.flatten().unfold(0, I, 2),
    "none": lambda x: x[:0],
}
VIEWS_OF_OUTPUT: dict[str, Callable[[Tensor], Tensor]] = {
    "column": lambda y: y[:, 1:],
    "transposed": lambda y: y.T,
    "flat": lambda y: y.reshape(-1)[1::3],
    "chunk": lambda y: y.chunk(2)[1],
    "number": lambda y: y[0, 0],
    "expanded": lambda y: y.unsqueeze(0).expand(3, *y.shape),
    "diagonal": lambda y: y.diagonal(),
}


@pytest.mark.parametrize("view", VIEWS)
def test_gradient_of_a_view(make: Make, x: Tensor, view: str) -> None:
    layer = make()

    def call(x: Tensor) -> Tensor:
        return layer(VIEWS[view](x))

    close(gradients(call, x, layer), by_reference(call, x, layer))


@pytest.mark.parametrize("view", VIEWS_OF_OUTPUT)
def test_gradient_through_a_view_of_the_output(make: Make, x: Tensor, view: str) -> None:
    layer = make()

    def run(call: Call, x: Tensor, model: nn.Module) -> list[Tensor]:
        viewed = VIEWS_OF_OUTPUT[view](call(x))
        losses = viewed.sum(), viewed.square().sum()  # the sum's gradient is one number, expanded
        leaves = [x, *model.parameters()]
        return [g for loss in losses for g in torch.autograd.grad(loss, leaves, retain_graph=True)]

    close(run(layer, x, layer), by_reference(layer, x, layer, run))


# In-place changes

CHANGES: dict[str, Callable[[Tensor], object]] = {
    "add": lambda y: y.add_(1),
    "relu": lambda y: y.relu_(),
    "mul": lambda y: operator.imul(y, 2),
    "masked_fill": lambda y: y.masked_fill_(y.detach() > 0.5, 3),
    "row": lambda y: y[0].zero_(),
    "view": lambda y: y.view(-1)[1:].sin_(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_output_changed_in_place(make: Make, x: Tensor, change: str) -> None:
    """A product keeps its output for the backward, as torch.exp does, and says so."""
    layer = make()

    def call(x: Tensor) -> Tensor:
        y = layer(x)
        CHANGES[change](y)
        return y

    if getattr(layer, "log_space", False):
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            gradients(call, x, layer)
    else:
        close(gradients(call, x, layer), by_reference(call, x, layer))


def test_what_is_saved_may_be_changed_where_autograd_allows_it(make: Make, x: Tensor) -> None:
    layer = make()

    def call(x: Tensor) -> Tensor:
        given = x * 1
        y = layer(given)
        given.zero_()
        return y.add_(1)

    with torch.autograd.graph.allow_mutation_on_saved_tensors():
        found = gradients(call, x, layer)
    close(found, by_reference(lambda x: layer(x) + 1, x, layer))


def test_output_changed_in_place_without_gradients(make: Make, x: Tensor) -> None:
    layer = make()
    expected = layer(x).detach() + 1
    with torch.no_grad():
        assert torch.equal(layer(x).add_(1), expected)
    layer.requires_grad_(False)
    assert torch.equal(layer(x.detach()).add_(1), expected)


@by_gated_kind
def test_saved_tensors_changed_before_the_backward(
    kind: Kind, backend: Backend, rng: Generator
) -> None:
    """Each alone is noticed, unless the reference has no need of it: then its gradients stay what
    they were."""
    layer = draw(rng, kind, (4, I, O), device=backend.device)
    expected = outcome(nalu_kernels, layer)
    for name in layer.tensors:
        leaves = {name: tensor.clone().requires_grad_() for name, tensor in layer.tensors.items()}
        y = layer.call(nalu_kernels, **leaves)
        with torch.no_grad():
            leaves[name].add_(1)
        if backend.name == "reference" and name not in ("input", "G"):
            y.backward(layer.grad_output)
            assert all(torch.equal(leaves[name].grad, expected[name]) for name in leaves)
        else:
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                y.backward(layer.grad_output)


# The graph


def test_second_backward_without_retain_graph(make: Make, x: Tensor) -> None:
    y = make()(x).sum()
    y.backward(retain_graph=True)
    first = x.grad.clone()
    y.backward()
    assert torch.equal(x.grad, 2 * first)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        y.backward()


def test_gradients_of_parts_of_a_batch_add_up(make: Make, x: Tensor) -> None:
    layer = make()
    expected = by_reference(layer, x, layer)
    layer.zero_grad()
    x.grad = None
    for part in x.split(3):
        layer(part).square().sum().backward()
    grads = {name: p.grad for name, p in layer.named_parameters()}
    close({"input": x.grad, **grads}, {name: expected[name] for name in ("input", *grads)})


def test_gradients_of_some_tensors(make: Make, x: Tensor) -> None:
    """``backward(inputs=...)`` leaves the others' alone."""
    layer = make()
    expected = by_reference(layer, x, layer)
    layer.zero_grad()
    x.grad = None
    layer(x).square().sum().backward(inputs=[layer.M_hat])
    assert x.grad is None and layer.W_hat.grad is None
    close(layer.M_hat.grad, expected["M_hat"])


def test_layer_used_twice(make: Make, x: Tensor) -> None:
    layer = make(I, I)
    model = nn.Sequential(layer, nn.Tanh(), layer)
    close(gradients(model, x, model), by_reference(model, x, model))


def test_parameter_shared_by_two_layers(make: Make, x: Tensor) -> None:
    model = nn.Sequential(make(I, I), make(I, I))
    model[1].W_hat = model[0].W_hat
    model[1].M_hat = model[0].W_hat
    close(gradients(model, x, model), by_reference(model, x, model))


def test_output_that_nobody_uses(make: Make, x: Tensor) -> None:
    layer = make()

    def call(x: Tensor) -> Tensor:
        first, _unused = layer(x), layer(2 * x)
        return first + layer(3 * x).detach()

    close(gradients(call, x, layer), by_reference(call, x, layer))
