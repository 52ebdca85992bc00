"""What test_distributed.py has two processes do, over gloo: ``python distributed_cases.py FILE``.

Each case is a function of the rank. What it raises is written to FILE, by case and rank.
"""

from __future__ import annotations

import datetime
import json
import math
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    set_model_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import parallelize_module
from torch.nn.parallel import DistributedDataParallel

import nalu_kernels
from nalu_kernels import INALU, NAC, NACNMU, NALU, NAU, NMU, RealNPU
from nalu_kernels.distributed import ColwiseParallel, RowwiseParallel

WORLD = 2
CASES: dict[str, Callable[[int], None]] = {}


def case(function: Callable[[int], None]) -> Callable[[int], None]:
    CASES[function.__name__] = function
    return function


def make() -> nn.Sequential:
    """The same on every rank; 5 and 3 do not divide by two."""
    torch.manual_seed(0)
    return nn.Sequential(
        NALU(4, 6, tied=False, gate_bias=True),
        NALU(6, 5, gate="sample", gate_bias=True),
        NAC(5, 3, log_space=True),
        NALU(3, 2),
    )


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(8, 4, generator=generator) + 0.5
    return x, x[:, :2] + x[:, 2:]


def mesh(*sizes: int, names: tuple[str, ...] = ("tp",)) -> DeviceMesh:
    return init_device_mesh("cpu", sizes or (WORLD,), mesh_dim_names=names)


def whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def steps(model: nn.Module, x: Tensor, target: Tensor, n: int = 3) -> None:
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(n):
        optimizer.zero_grad()
        (whole(model(x)) - target).square().mean().backward()
        optimizer.step()


def alone() -> nn.Sequential:
    """Trained in one process."""
    model = make()
    steps(model, *batch())
    return model


def same_parameters(model: nn.Module, expected: nn.Module) -> None:
    models = (model, expected, make())
    for found, wanted, start in zip(*(each.parameters() for each in models), strict=True):
        torch.testing.assert_close(whole(found.detach()), wanted.detach())
        assert not torch.equal(wanted, start)


def rows_of(rank: int) -> tuple[Tensor, ...]:
    return tuple(tensor.chunk(WORLD)[rank] for tensor in batch())


@case
def ddp(rank: int) -> None:
    model = DistributedDataParallel(make())
    steps(model, *rows_of(rank))
    same_parameters(model, alone())


@case
def ddp_with_buckets_as_gradients(rank: int) -> None:
    model = DistributedDataParallel(make(), gradient_as_bucket_view=True, static_graph=True)
    steps(model, *rows_of(rank))
    same_parameters(model, alone())


@case
def fsdp(rank: int) -> None:
    model = make()
    for layer in model:
        fully_shard(layer)
    fully_shard(model)
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
    steps(model, *rows_of(rank))
    same_parameters(model, alone())


@case
def what_sharded_layers_show(rank: int) -> None:
    """W, the gates and the sparsity error, of whole layers: by outputs, by inputs, by FSDP."""
    x = torch.rand(8, 6, generator=torch.Generator().manual_seed(1))
    for options in ({}, {"tied": False, "gate": "sample", "gate_bias": True}):
        torch.manual_seed(0)
        expected = nn.Sequential(NALU(6, 4, **options))
        for style in (ColwiseParallel(), RowwiseParallel(), None):
            torch.manual_seed(0)
            model = nn.Sequential(NALU(6, 4, **options))
            if style is None:
                fully_shard(model)
                input = distribute_tensor(x, model[0].G.device_mesh, [Replicate()])
            else:
                parallelize_module(model, mesh(), {"0": style})
                input = distribute_tensor(x, mesh(), [Replicate()])
            for name in ("W", "W_mul"):
                found = getattr(model[0], name)
                assert isinstance(found, DTensor)
                torch.testing.assert_close(whole(found), getattr(expected[0], name))
            torch.testing.assert_close(whole(model[0].gate(input)), expected[0].gate(x))
            errors = [nalu_kernels.sparsity_error(either) for either in (model, expected)]
            assert math.isclose(*errors, rel_tol=1e-5)


@case
def a_nac_nmu_of_shards(rank: int) -> None:
    x = torch.rand(8, 4, generator=torch.Generator().manual_seed(1)) - 0.5
    for placement in (Replicate(), Shard(0)):
        torch.manual_seed(0)
        layer = NACNMU(4, 5)
        expected = layer(x)
        layer.W = nn.Parameter(distribute_tensor(layer.W.detach(), mesh(), [placement]))
        found = layer(distribute_tensor(x, mesh(), [Replicate()]))
        torch.testing.assert_close(whole(found), expected)


@case
def training_as_published_of_shards(rank: int) -> None:
    """Regularisers, their gradients and the clamp after a step, by FSDP as of whole layers."""

    def layers() -> nn.Sequential:
        torch.manual_seed(0)
        of_one_output = (NMU(5, 1), NAU(1, 5), INALU(5, 1, gate="vector"), RealNPU(1, 1))
        return nn.Sequential(
            NAU(4, 6), NMU(6, 5), *of_one_output, INALU(1, 3), RealNPU(3, 2, modified=True)
        )

    model, expected = fully_shard(layers()), layers()
    for either in (model, expected):
        optimizer = torch.optim.Adam(either.parameters(), lr=0.6)
        nalu_kernels.clamp_after_step(optimizer, either)
        nalu_kernels.regularizer(either).backward()
        optimizer.step()
    torch.testing.assert_close(*map(nalu_kernels.regularizer, (model, expected)))
    for name, parameter in expected.named_parameters():
        sharded = model.get_parameter(name)
        torch.testing.assert_close(whole(sharded.grad), parameter.grad, msg=name)
        torch.testing.assert_close(whole(sharded), parameter, msg=name)
    assert 0 <= expected[1].W.min() < 0.1 and expected[1].W.max() == 1


@case
def check_finite_of_shards(rank: int) -> None:
    """Each process looks at its own part."""
    for style in (ColwiseParallel(), RowwiseParallel(), None):
        model = nn.Sequential(NALU(6, 4))
        fully_shard(model) if style is None else parallelize_module(model, mesh(), {"0": style})
        x = torch.ones(2, 6 if not isinstance(style, RowwiseParallel) else 3)
        with nalu_kernels.check_finite(model):
            model(x)
            try:
                model(x * torch.inf)
            except FloatingPointError as error:
                assert "Numbers in its input that are not finite" in str(error)
            else:
                raise AssertionError
        with torch.no_grad():
            for parameter in model.parameters():
                local = parameter.to_local() if isinstance(parameter, DTensor) else parameter
                local.fill_(torch.nan)
        try:
            with nalu_kernels.check_finite(model):
                model(x)
        except FloatingPointError as error:
            assert "Numbers in its parameter" in str(error)
        else:
            raise AssertionError


@case
def fsdp_in_bfloat16(rank: int) -> None:
    """The parameters are bfloat16 in a layer, and float32 to the optimizer."""
    model = fully_shard(make(), mp_policy=MixedPrecisionPolicy(param_dtype=torch.bfloat16))
    x, target = rows_of(rank)
    output = model(x)
    assert output.dtype == torch.bfloat16
    expected = make().bfloat16()(x.bfloat16())
    assert torch.equal(output, expected)
    (output.float() - target).square().mean().backward()
    assert {parameter.grad.dtype for parameter in model.parameters()} == {torch.float32}


@case
def fsdp_state_dict(rank: int) -> None:
    model = fully_shard(make())
    options = StateDictOptions(full_state_dict=True)
    state = get_model_state_dict(model, options=options)
    if rank == 0:
        for name, tensor in make().state_dict().items():
            assert torch.equal(state[name], tensor)
    doubled = {name: 2 * tensor for name, tensor in make().state_dict().items()}
    set_model_state_dict(model, doubled, options=options)
    for found, start in zip(model.parameters(), make().parameters(), strict=True):
        assert torch.equal(whole(found), 2 * start)


STYLES = {
    "column": lambda: ColwiseParallel(use_local_output=False),
    "row": lambda: RowwiseParallel(input_layouts=Replicate(), use_local_output=False),
}


def parallel(layer: nn.Module, style: str) -> nn.Module:
    return parallelize_module(layer, mesh(), STYLES[style]())


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "nac": lambda: NAC(4, 5),
    "nac_log_space": lambda: NAC(5, 4, log_space=True),
    "nac_one_output": lambda: NAC(3, 1),
    "nalu": lambda: NALU(5, 3),
    "nalu_untied": lambda: NALU(4, 3, tied=False, gate_bias=True),
    "nalu_sample": lambda: NALU(4, 3, gate="sample", gate_bias=True),
    "nalu_one_input": lambda: NALU(1, 4),
}


def tensor_parallel(style: str, name: str) -> Callable[[int], None]:
    """Outputs and all gradients are those of one process; a rank may be left with nothing."""

    def check(rank: int) -> None:
        torch.manual_seed(2)
        layer = LAYERS[name]().double()
        x = torch.randn(2, 6, layer.in_features, dtype=torch.float64, requires_grad=True)
        upstream = torch.randn(2, 6, layer.out_features, dtype=torch.float64)
        expected = layer(x)
        wanted = torch.autograd.grad(expected, [x, *layer.parameters()], upstream)
        parallel(layer, style)
        sharded = [p for p in layer.parameters() if not p.placements[0].is_replicate()]
        assert sharded
        given = distribute_tensor(x.detach(), mesh(), [Replicate()]).requires_grad_()
        found = layer(given)
        torch.testing.assert_close(whole(found), expected)
        upstreams = distribute_tensor(upstream, mesh(), [Replicate()])
        gradients = torch.autograd.grad(found, [given, *layer.parameters()], upstreams)
        for gradient, one in zip(gradients, wanted, strict=True):
            torch.testing.assert_close(whole(gradient), one)

    return check


for _style in STYLES:
    for _name in LAYERS:
        CASES[f"{_style}_{_name}"] = tensor_parallel(_style, _name)


@case
def column_runs_the_kernels(rank: int) -> None:
    """Each rank one call, of its own columns."""
    from torch.utils.flop_counter import FlopCounterMode

    layer = parallel(NALU(4, 6), "column")
    x = distribute_tensor(torch.rand(8, 4), mesh(), [Replicate()])
    with FlopCounterMode(display=False) as counter:
        layer(x)
    assert counter.get_total_flops() == 6 * 8 * 4 * (6 // WORLD)


@case
def columns_then_rows_train(rank: int) -> None:
    """As torch's styles pair two Linears, with local tensors between; and torch's layers beside."""

    def pair() -> nn.Sequential:
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(4, 6), NALU(6, 8), NALU(8, 2), nn.Linear(2, 2))

    x, target = batch()
    expected = pair()
    steps(expected, x, target)
    model = pair()
    plan = {
        "0": ColwiseParallel(output_layouts=Replicate()),
        "1": ColwiseParallel(),
        "2": RowwiseParallel(),
        "3": ColwiseParallel(output_layouts=Replicate()),
    }
    parallelize_module(model, mesh(), plan)
    steps(model, x, target)
    for found, wanted in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(whole(found.detach()), wanted.detach())


@case
def frozen_parameters_stay_frozen(rank: int) -> None:
    layer = NALU(4, 6)
    layer.W_hat.requires_grad_(False)
    for style in STYLES:
        found = parallel(NALU(4, 6).requires_grad_(False), style)
        assert not any(parameter.requires_grad for parameter in found.parameters())
    parallel(layer, "column")
    whole(layer(distribute_tensor(torch.rand(8, 4), mesh(), [Replicate()]))).sum().backward()
    assert layer.W_hat.grad is None and layer.G.grad is not None


@case
def rows_of_the_batch_are_shards_too(rank: int) -> None:
    """Plain DTensors: replicated weights, whose gradients are sums over the ranks."""
    x, W, M, G = (torch.rand(n, 4, dtype=torch.float64) for n in (6, 3, 3, 1))
    dist.broadcast(x, 0)
    for tensor in (W, M, G):
        dist.broadcast(tensor, 0)
    leaves = [tensor.clone().requires_grad_() for tensor in (x, W, M, G)]
    expected = nalu_kernels.nalu(*leaves)
    wanted = torch.autograd.grad(expected.square().sum(), leaves)
    for placement in (Shard(0), Shard(1), Replicate()):
        given = [distribute_tensor(x, mesh(), [placement]).requires_grad_()]
        given += [
            distribute_tensor(tensor, mesh(), [Replicate()]).requires_grad_()
            for tensor in (W, M, G)
        ]
        found = nalu_kernels.nalu(*given)
        torch.testing.assert_close(whole(found), expected)
        for gradient, one in zip(
            torch.autograd.grad(found.square().sum(), given), wanted, strict=True
        ):
            torch.testing.assert_close(whole(gradient), one)


@case
def a_mesh_of_two_dimensions(rank: int) -> None:
    """Rows over one and columns over the other; then FSDP over the first of them."""
    both = mesh(WORLD, 1, names=("dp", "tp"))
    x, target = batch()
    expected = make()
    steps(expected, x, target)
    model = make()
    plan = {str(i): ColwiseParallel(output_layouts=Replicate()) for i in range(len(model))}
    parallelize_module(model, both["tp"], plan)
    fully_shard(model, mesh=both["dp"])
    steps(model, *rows_of(rank))
    same_parameters(model, expected)


@case
def mixed_arguments_are_refused(rank: int) -> None:
    W = torch.rand(3, 4)
    sharded = distribute_tensor(W, mesh(), [Shard(0)])
    x = distribute_tensor(torch.rand(2, 4), mesh(), [Replicate()])
    for arguments, error, words in (
        ((x, W, W), TypeError, "W_hat: expected a DTensor"),
        ((torch.rand(2, 4), sharded, sharded), TypeError, "W_hat: expected a plain tensor"),
        ((x, sharded, distribute_tensor(W.T, mesh(), [Shard(0)])), ValueError, "M_hat: expected"),
    ):
        try:
            nalu_kernels.nac(*arguments)
        except error as refusal:
            assert words in str(refusal), refusal
        else:
            raise AssertionError(f"not refused: {words}")


@case
def fsdp_evaluates_what_it_has_now(rank: int) -> None:
    """Its parameters are filled anew at each call, uncounted: a layer may not keep its weights."""
    model, x = fully_shard(NALU(4, 3)).eval(), batch()[0]
    options = StateDictOptions(full_state_dict=True)
    for factor in (1.0, 2.0):
        twin = NALU(4, 3)
        model.reshard()
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter.fill_(factor / 4)
            set_model_state_dict(model, twin.state_dict(), options=options)
            torch.testing.assert_close(model(x), twin(x))


@case
def rows_in_bfloat16_are_summed_in_float32(rank: int) -> None:
    """A shard's share of a logarithm, rounded, would be percents of the product."""
    torch.manual_seed(5)
    layer = NAC(64, 3, log_space=True, dtype=torch.bfloat16)
    x = (torch.rand(8, 64) * 9 + 1).bfloat16()
    expected = layer(x)
    parallel(layer, "row")
    found = whole(layer(distribute_tensor(x, mesh(), [Replicate()])))
    torch.testing.assert_close(found, expected, rtol=2**-7, atol=0)


@case
def gradients_of_gradients_are_refused(rank: int) -> None:
    for style in STYLES:
        layer = parallel(NALU(4, 6), style)
        x = distribute_tensor(torch.rand(8, 4), mesh(), [Replicate()]).requires_grad_()
        try:
            torch.autograd.grad(whole(layer(x)).sum(), x, create_graph=True)
        except RuntimeError as refusal:
            assert "no gradients of gradients" in str(refusal), refusal
        else:
            raise AssertionError("not refused")


FAMILY: dict[str, dict[str, tuple[int, ...]]] = {
    "nau": {"W": (6, 4)},
    "nmu": {"W": (6, 4)},
    "inalu": {"W_hat": (6, 4), "M_hat": (6, 4), "g": (6,)},
    "gnalu": {"W_hat": (6, 4), "M_hat": (6, 4), "G": (6, 4)},
    "npu": {"W_re": (4, 4), "W_im": (4, 4), "g": (4,)},
    "nru": {"W": (6, 4)},
    "nmru": {"W": (6, 8)},
}


@case
def functions_by_outputs(rank: int) -> None:
    """Weights replicated or sharded by outputs, the batch whole or sharded."""
    for name, shapes in FAMILY.items():
        function = getattr(nalu_kernels, name)
        torch.manual_seed(5)
        plain = {"input": torch.rand(8, 4) + 0.5}
        plain |= {weight: torch.rand(shape) for weight, shape in shapes.items()}
        leaves = {each: tensor.clone().requires_grad_() for each, tensor in plain.items()}
        expected = function(**leaves)
        expected.square().sum().backward()
        for rows, lie in ((Replicate(), Shard(0)), (Shard(0), Replicate())):
            shared = {"input": rows, **({"g": Replicate()} if name == "npu" else {})}
            given = {
                each: distribute_tensor(tensor, mesh(), [shared.get(each, lie)]).requires_grad_()
                for each, tensor in plain.items()
            }
            found = function(**given)
            torch.testing.assert_close(whole(found), expected)
            whole(found).square().sum().backward()
            for each, tensor in given.items():
                torch.testing.assert_close(whole(tensor.grad), leaves[each].grad)


@case
def functions_by_inputs_are_refused(rank: int) -> None:
    x = distribute_tensor(torch.rand(8, 4), mesh(), [Replicate()])
    W = distribute_tensor(torch.rand(6, 4), mesh(), [Shard(1)])
    for name, words in (("nmu", "for nmu takes all inputs at once"), ("snmu", "takes no DTensors")):
        try:
            getattr(nalu_kernels, name)(x, W)
        except (TypeError, ValueError) as refusal:
            assert words in str(refusal), refusal
        else:
            raise AssertionError("not refused")


@case
def local_tensors_between_styles_need_not_divide(rank: int) -> None:
    def pair() -> nn.Sequential:
        torch.manual_seed(4)
        return nn.Sequential(NALU(4, 5), NALU(5, 2))

    x, target = batch()
    expected, model = pair(), pair()
    steps(expected, x, target)
    parallelize_module(model, mesh(), {"0": ColwiseParallel(), "1": RowwiseParallel()})
    steps(model, x, target)
    for found, wanted in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(whole(found.detach()), wanted.detach())


@case
def compiled(rank: int) -> None:
    """DDP around a compiled model: the gradients are still averaged."""
    torch.compiler.reset()
    model = DistributedDataParallel(torch.compile(make(), backend="aot_eager", fullgraph=True))
    steps(model, *rows_of(rank), n=1)
    expected = make()
    steps(expected, *batch(), n=1)
    for found, wanted in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(found, wanted)


@case
def compiled_tensor_parallel(rank: int) -> None:
    torch.compiler.reset()
    x = distribute_tensor(torch.rand(8, 4), mesh(), [Replicate()])
    for style in STYLES:
        layer = parallel(NALU(4, 6), style)
        expected = whole(layer(x))
        found = torch.compile(layer, backend="aot_eager")(x)
        torch.testing.assert_close(whole(found), expected)


def run(rank: int, store: str, results: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{store}",
        rank=rank,
        world_size=WORLD,
        timeout=datetime.timedelta(seconds=60),
    )
    found = {}
    for name, function in CASES.items():
        try:
            function(rank)
            found[name] = ""
        except Exception:
            found[name] = traceback.format_exc()
        dist.barrier()
    Path(f"{results}.{rank}").write_text(json.dumps(found))
    dist.barrier()
    os._exit(0)  # torch may abort in tearing Gloo down, which is not what is tested


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(run, (f"{folder}/store", sys.argv[1]), WORLD)
