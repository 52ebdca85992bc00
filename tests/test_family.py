"""The functions after NALU: arguments, PyTorch's own tools, and the way to a back end's kernels."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import torch
from torch import Generator, Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.library import opcheck
from torch.utils._python_dispatch import TorchDispatchMode

import nalu_kernels
from nalu_kernels import dispatch, operators, reference, use_backend, which_backend
from nalu_kernels.family import COMPOSED, FAMILY
from nalu_kernels.sweep import stream

I, O = 3, 2  # noqa: E741


class Case(NamedTuple):
    """A call of a function: the shapes of its weights, and its options."""

    name: str
    function: str
    weights: dict[str, tuple[int, ...]]
    options: Mapping[str, Any] = MappingProxyType({})


M = (O, I)
NALUS = {"W_hat": M, "M_hat": M}
UNTIED = {"W_hat_mul": M, "M_hat_mul": M}
POWERS = {"W_re": M, "W_im": M, "g": (I,)}
CASES = [
    Case("nau", "nau", {"W": M}),
    Case("nmu", "nmu", {"W": M}),
    Case("snmu", "snmu", {"W": M}, {"seed": 7}),
    Case("snmu_batch", "snmu", {"W": M}, {"seed": 7, "noise": "batch"}),
    Case("inalu", "inalu", {**NALUS, "g": (O,), **UNTIED}),
    Case("inalu_tied", "inalu", {**NALUS, "g": (O,)}, {"omega": 3.0}),
    Case("inalu_matrix", "inalu", {**NALUS, "g": M}),
    Case("inalu_vector", "inalu", {**NALUS, "g": (1, I)}, {"eps": 0.1, "per_sample": True}),
    Case("gnalu", "gnalu", {**NALUS, "G": M}),
    Case("npu", "npu", POWERS),
    Case("npu_clamped", "npu", POWERS, {"straight_through": False, "eps": 0.1}),
    Case("real_npu", "real_npu", {"W_re": M, "g": (I,)}),
    Case("nru", "nru", {"W": M}),
    Case("nru_training", "nru", {"W": M}, {"training": True}),
    Case("nmru", "nmru", {"W": (O, 2 * I)}),
    Case("nmru_training", "nmru", {"W": (O, 2 * I)}, {"eps": 2.0**-23}),
]
by_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
ONE_OF_EACH = list({case.function: case for case in reversed(CASES)}.values())
by_function = pytest.mark.parametrize("case", ONE_OF_EACH, ids=lambda case: case.function)
NEW = [name for name in FAMILY if name not in ("nac", "nalu")]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Where no back end has kernels yet, that is said by a warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "nalu_kernels runs", RuntimeWarning)
        yield


def draw(
    rng: Generator, case: Case, *leading: int, dtype: torch.dtype = torch.float64
) -> dict[str, Tensor]:
    """The case's tensors: inputs of both signs, away from 0; weights within (0.1, 0.9)."""

    def uniform(*size: int) -> Tensor:
        return torch.rand(size, generator=rng, dtype=torch.float64)

    x = (0.5 + uniform(*leading, I)) * torch.where(uniform(*leading, I) < 0.5, -1, 1)
    weights = {name: 0.1 + 0.8 * uniform(*shape) for name, shape in case.weights.items()}
    if case.options.get("training"):  # within the slope of tanh(1000 W)
        weights["W"] = weights["W"] / 1000
    return {name: tensor.to(dtype) for name, tensor in {"input": x, **weights}.items()}


def call(case: Case, tensors: dict[str, Tensor]) -> Tensor:
    output: Tensor = getattr(nalu_kernels, case.function)(**tensors, **case.options)
    return output


def expected(case: Case, tensors: dict[str, Tensor]) -> Tensor:
    """By the reference; snmu's noise by the recipe of its page."""
    options = dict(case.options)
    if case.function == "snmu":
        x, noise = tensors["input"], options.pop("noise", (1.0, 5.0))
        u = stream.draw(options.pop("seed"), stream.NOISE, 0, math.prod(x.shape[:-1]), x.shape[-1])
        low, high = (1.0, 1 + 1 / float(x.detach().std())) if noise == "batch" else noise
        options["noise"] = stream.uniform(u, ((low, high),), x.dtype).view(x.shape)
    output: Tensor = getattr(reference, case.function)(**tensors, **options)
    return output


def one(case: Case, tensors: dict[str, Tensor]) -> Callable[..., Tensor]:
    """The call as a function of its tensors in their order."""
    return lambda *given: call(case, dict(zip(tensors, given, strict=True)))


@by_case
def test_as_the_reference(case: Case, rng: Generator) -> None:
    tensors = draw(rng, case, 5)
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in tensors.items()}
    found, wanted = call(case, leaves), expected(case, leaves)
    torch.testing.assert_close(found, wanted)
    grads = (torch.autograd.grad(y.square().sum(), list(leaves.values())) for y in (found, wanted))
    torch.testing.assert_close(*grads)
    with torch.no_grad():
        torch.testing.assert_close(call(case, tensors), wanted)


@by_function
@pytest.mark.parametrize("leading", [(), (4,), (2, 3), (0,), (2, 0)], ids=str)
def test_leading_dimensions(case: Case, leading: tuple[int, ...], rng: Generator) -> None:
    tensors = draw(rng, case, *leading)
    leaves = {name: tensor.requires_grad_() for name, tensor in tensors.items()}
    y = call(case, leaves)
    assert y.shape == (*leading, O)
    torch.testing.assert_close(y, expected(case, leaves))
    y.sum().backward()
    assert all(leaf.grad is not None for leaf in leaves.values())


@by_function
def test_strided_tensors(case: Case, rng: Generator) -> None:
    tensors = draw(rng, case, 4)
    expanded = tensors["input"][:1].expand(4, I)
    torch.testing.assert_close(
        call(case, {**tensors, "input": expanded}),
        call(case, {**tensors, "input": expanded.contiguous()}),
    )
    strided = {
        name: torch.stack([tensor, tensor], -1)[..., 0].mT.contiguous().mT
        if tensor.dim() > 1
        else torch.stack([tensor, tensor], -1)[..., 0]
        for name, tensor in tensors.items()
    }
    assert not strided["input"].is_contiguous()
    torch.testing.assert_close(call(case, strided), call(case, tensors))


@by_case
def test_gradcheck(case: Case, rng: Generator) -> None:
    tensors = draw(rng, case, 2)
    leaves = [tensor.requires_grad_() for tensor in tensors.values()]
    if case.options.get("noise") == "batch":  # taken as a constant by the backward
        leaves[0].requires_grad_(False)
    function, step = one(case, tensors), {"eps": 1e-9} if case.name == "nru_training" else {}
    loose = {"atol": 1e-3, "rtol": 1e-3} if step else {}
    assert torch.autograd.gradcheck(function, leaves, fast_mode=True, **step, **loose)
    if not step:
        assert torch.autograd.gradgradcheck(function, leaves, fast_mode=True)


@by_function
def test_transforms(case: Case, rng: Generator) -> None:
    tensors = draw(rng, case, 4)
    x = tensors["input"]

    def row(x: Tensor) -> Tensor:
        return call(case, {**tensors, "input": x})

    rows = torch.stack([row(x[i]) for i in range(4)])
    torch.testing.assert_close(torch.func.vmap(row)(x), rows)
    jacobian = torch.func.jacrev(row)(x[0])
    tangent = torch.func.jvp(row, (x[0],), (torch.ones_like(x[0]),))[1]
    torch.testing.assert_close(jacobian.sum(-1), tangent)
    torch.testing.assert_close(torch.func.grad(lambda x: row(x).sum())(x[0]), jacobian.sum(0))


@by_function
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_autocast(case: Case, dtype: torch.dtype, rng: Generator) -> None:
    """Computed in float32, and rounded once."""
    tensors = draw(rng, case, 4, dtype=torch.bfloat16)
    wide = {name: tensor.float() for name, tensor in tensors.items()}
    given = {**wide, "input": tensors["input"].to(dtype)}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = call(case, given)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, expected(case, wide).bfloat16())


class Model(torch.nn.Module):
    """A call of each of these functions, for a tracer to meet at once."""

    def __init__(self, cases: list[Case], rng: Generator) -> None:
        super().__init__()
        self.cases = [(case, draw(rng, case, 4)) for case in cases]

    def leaves(self) -> list[Tensor]:
        return [tensor for _, tensors in self.cases for tensor in list(tensors.values())[1:]]

    def forward(self, x: Tensor) -> list[Tensor]:
        return [call(case, {**tensors, "input": x}) for case, tensors in self.cases]


def compiles(model: Model, x: Tensor, how: str) -> None:
    """Into one graph, outputs and gradients as without."""
    leaves = [x.requires_grad_(), *(leaf.requires_grad_() for leaf in model.leaves())]
    outcomes = []
    for run in (model, torch.compile(model, backend=how, fullgraph=True)):
        outputs = run(x)
        outcomes.append((outputs, torch.autograd.grad(sum(map(torch.sum, outputs)), leaves)))
    torch.testing.assert_close(*outcomes)


def exports(model: Model, x: Tensor, other: Tensor) -> torch.export.ExportedProgram:
    """A program for any batch, which computes the same for another one."""
    shapes = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(model, (x,), dynamic_shapes=shapes)
    torch.testing.assert_close(program.module()(other), model(other))
    return program


def test_compile_and_export(rng: Generator) -> None:
    x, other = (draw(rng, CASES[0], rows)["input"] for rows in (4, 6))
    exports(Model(ONE_OF_EACH, rng), x, other)
    compiles(Model(ONE_OF_EACH, rng), x, "eager")


def refused(case: Case, error: type[Exception], words: str, **wrong: Any) -> None:
    tensors = draw(torch.Generator().manual_seed(0), case, 4, dtype=torch.float32)
    arguments = {**tensors, **case.options, **wrong}
    with pytest.raises(error) as raised:
        getattr(nalu_kernels, case.function)(**arguments)
    assert words in str(raised.value)


@by_function
def test_wrong_tensors_are_named(case: Case) -> None:
    first, *others = case.weights
    refused(case, TypeError, "input: expected a torch.Tensor, got list", input=[1.0])
    refused(case, TypeError, "input: expected a tensor of dtype", input=torch.ones(4, I).int())
    refused(case, ValueError, "input: expected a last dimension", input=torch.ones(4, I + 1))
    refused(case, ValueError, "input: expected at least 1 dimension", input=torch.tensor(1.0))
    refused(case, ValueError, f"{first}: expected 2 dimensions", **{first: torch.ones(I)})
    for name, shape in case.weights.items():
        right = torch.ones(shape)
        refused(case, TypeError, f"{name}: expected the dtype of input", **{name: right.double()})
        refused(case, ValueError, f"{name}: expected the device of", **{name: right.to("meta")})
    for name in others:
        refused(case, ValueError, f"{name}: expected shape", **{name: torch.ones(5, 4)})


INALU, NPU, NRU, NMRU, SNMU, GNALU = (
    next(case for case in CASES if case.name == name)
    for name in ("inalu", "npu", "nru", "nmru", "snmu", "gnalu")
)


@pytest.mark.parametrize(
    ("case", "wrong", "error", "words"),
    [
        (INALU, {"eps": math.nan}, ValueError, "eps: expected a positive finite float, got nan"),
        (INALU, {"omega": math.nan}, ValueError, "omega: expected a positive finite float"),
        (INALU, {"omega": math.inf}, ValueError, "omega: expected a positive finite"),
        (INALU, {"omega": "20"}, TypeError, "omega: expected a positive finite float, got str"),
        (INALU, {"M_hat_mul": None}, ValueError, "M_hat_mul: expected a tensor because W_hat_mul"),
        (GNALU, {"eps": 0}, ValueError, "eps: expected a positive finite float, got 0"),
        (NPU, {"W_im": None}, TypeError, "W_im: expected a torch.Tensor, got NoneType"),
        (NPU, {"eps": -1.0}, ValueError, "eps: expected a positive finite float, got -1.0"),
        (NPU, {"straight_through": 1}, TypeError, "straight_through: expected a bool, got int"),
        (NRU, {"training": None}, TypeError, "training: expected a bool, got NoneType"),
        (NMRU, {"eps": -1e-9}, ValueError, "eps: expected a non-negative finite float"),
        (NMRU, {"W": torch.ones(O, 2 * I + 1)}, ValueError, "2 in_features)"),
        (SNMU, {"noise": (2.0, 1.0)}, ValueError, "with 0 < a <= b, got (2.0, 1.0)"),
        (SNMU, {"noise": (0.0, 1.0)}, ValueError, "noise[0]: expected a positive"),
        (SNMU, {"noise": (1.0, math.inf)}, ValueError, "noise[1]: expected a positive"),
        (SNMU, {"noise": "Batch"}, ValueError, "noise: expected 'batch' or two finite numbers"),
        (SNMU, {"noise": (1.0,)}, TypeError, "with 0 < a <= b, got 1 value"),
        (SNMU, {"seed": 1.5}, TypeError, "seed: expected an int, got float"),
        (SNMU, {"seed": 2**63}, ValueError, "seed: expected an int below 2**63"),
        (SNMU, {"seed": -1}, ValueError, "seed: expected a size of at least 0, got -1"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)  # fmt: skip
def test_wrong_options_are_named(
    case: Case, wrong: dict[str, Any], error: type[Exception], words: str
) -> None:
    refused(case, error, words, **wrong)


def test_the_noise_of_a_batch_takes_two_numbers() -> None:
    one_number = {"input": torch.ones(1, 1), "W": torch.ones(1, 1)}
    with pytest.raises(ValueError, match="at least two numbers"):
        nalu_kernels.snmu(**one_number, noise="batch")


@pytest.mark.parametrize("name", ["cpu", "reference"])
def test_an_npus_infinite_gate_is_open_or_shut(name: str, rng: Generator) -> None:
    """By both gradients: clamp(inf, 0, 1) is 1."""
    case = next(case for case in CASES if case.name == "real_npu")
    for straight_through in (True, False):
        tensors = draw(rng, case, 4, dtype=torch.float32)
        infinite = {**tensors, "g": torch.tensor([math.inf, -math.inf, math.inf])}
        clamped = {**tensors, "g": torch.tensor([1.0, 0.0, 1.0])}
        with use_backend(name):
            found, expected = (
                nalu_kernels.real_npu(**given, straight_through=straight_through)
                for given in (infinite, clamped)
            )
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", ["cpu", "reference"])
@by_case
def test_a_layer_without_inputs_can_be_trained(case: Case, name: str) -> None:
    """Its output is that of an empty sum or product, and its gradients are empty, or zero."""
    tensors = {
        name: torch.zeros([0 if size in (I, 2 * I) else size for size in shape])
        for name, shape in {"input": (4, I), **case.weights}.items()
    }
    leaves = [tensor.requires_grad_() for tensor in tensors.values()]
    with use_backend(name):
        call(case, tensors).sum().backward()
    assert all(leaf.grad is not None for leaf in leaves)


def test_npus_eps_is_that_of_the_dtype(rng: Generator) -> None:
    x, W, g = torch.zeros(1, I), torch.ones(O, I), torch.ones(I)
    for dtype in (torch.float32, torch.float64):
        found = nalu_kernels.real_npu(x.to(dtype), W.to(dtype), g.to(dtype))
        assert found[0, 0] == pytest.approx(torch.finfo(dtype).eps ** I)


@by_function
def test_subclasses_see_the_call(case: Case, rng: Generator) -> None:
    calls = []

    class Seen(Tensor):
        @classmethod
        def __torch_function__(
            cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            calls.append((func, args, kwargs))
            return None

    tensors = draw(rng, case, 4)
    call(case, {**tensors, "input": tensors["input"].as_subclass(Seen)})
    ((func, args, kwargs),) = calls
    assert func is getattr(nalu_kernels, case.function)
    plain = [arg.as_subclass(Tensor) if isinstance(arg, Seen) else arg for arg in args]
    torch.testing.assert_close(func(*plain, **kwargs), expected(case, tensors))


def test_a_product_whose_parts_leave_float32s_range() -> None:
    """float64, which nmu's page names for it, has room for them in any order."""
    for x in ([1e30, 1e30, 1e-30, 1e-30], [1e-30, 1e-30, 1e30, 1e30]):
        wide = torch.tensor([x], dtype=torch.float64)
        for name in ("nmu", "nru"):
            y = getattr(nalu_kernels, name)(wide, torch.ones_like(wide))
            torch.testing.assert_close(y, torch.ones_like(y))


class TestNoise:
    @pytest.fixture
    def tensors(self, rng: Generator) -> dict[str, Tensor]:
        return draw(rng, SNMU, 64)

    def test_it_is_new_in_each_call_and_that_of_torchs_seed(
        self, tensors: dict[str, Tensor]
    ) -> None:
        torch.manual_seed(3)
        first, second = (nalu_kernels.snmu(**tensors) for _ in range(2))
        torch.manual_seed(3)
        assert torch.equal(nalu_kernels.snmu(**tensors), first)
        assert not torch.equal(first, second)
        torch.manual_seed(3)
        seed = int(torch.randint(2**63 - 1, ()))
        assert torch.equal(nalu_kernels.snmu(**tensors, seed=seed), first)

    def test_it_is_drawn_again_and_not_stored(self, tensors: dict[str, Tensor]) -> None:
        """Nothing is saved but the arguments and the seed: no factors, no noise."""
        leaves = {name: tensor.requires_grad_() for name, tensor in tensors.items()}
        saved: list[Tensor] = []

        def keep(tensor: Tensor) -> Tensor:
            saved.append(tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            y = nalu_kernels.snmu(**leaves)
        torch.manual_seed(0)  # what torch draws in between does not matter
        given = {tensor.data_ptr() for tensor in leaves.values()}
        others = [tensor for tensor in saved if tensor.data_ptr() not in given]
        assert [tensor.numel() for tensor in others] == [1]
        again = nalu_kernels.snmu(**leaves, seed=int(others[0]))
        assert torch.equal(again, y)
        grads = (torch.autograd.grad(each.sum(), list(leaves.values())) for each in (y, again))
        for found, wanted in zip(*grads, strict=True):
            assert torch.equal(found, wanted)

    def test_either_gradient_can_be_asked_for_alone(self, tensors: dict[str, Tensor]) -> None:
        leaves = {name: tensor.requires_grad_() for name, tensor in tensors.items()}
        both = torch.autograd.grad(call(SNMU, leaves).sum(), list(leaves.values()))
        for (name, leaf), wanted in zip(leaves.items(), both, strict=True):
            alone = {**{each: of.detach() for each, of in leaves.items()}, name: leaf}
            assert torch.equal(torch.autograd.grad(call(SNMU, alone).sum(), leaf)[0], wanted)

    def test_the_noise_of_a_call_on_fake_tensors_is_not_kept(self) -> None:
        """Which has no numbers."""
        noise = (1.0, 7.0)  # that no other test has
        with FakeTensorMode():
            nalu_kernels.snmu(torch.ones(4, I), torch.ones(O, I), noise=noise)
        y = nalu_kernels.snmu(torch.ones(4, I), torch.ones(O, I), noise=noise)
        torch.testing.assert_close(y, torch.ones(4, O))

    @pytest.mark.parametrize("noise", [(1.0, 5.0), (0.01, 0.05), "batch"], ids=str)
    @pytest.mark.parametrize("inputs", [200, 300])
    def test_products_of_many_inputs(self, inputs: int, noise: Any, rng: Generator) -> None:
        """Of noise whose own product has no place in float32, nor in float64."""
        W = 0.25 + torch.rand(2, inputs, generator=rng, dtype=torch.float64) / 2
        x = 0.5 + torch.rand(8, inputs, generator=rng, dtype=torch.float64)
        case = Case("", "snmu", {}, {"seed": 7, "noise": noise})
        tensors = {name: value.requires_grad_() for name, value in {"input": x, "W": W}.items()}
        wanted = expected(case, tensors)
        of_wanted = torch.autograd.grad(wanted.log().sum(), list(tensors.values()))
        assert wanted.isfinite().all()
        float32 = {name: value.detach().float().requires_grad_() for name, value in tensors.items()}
        compiled = torch.compile(nalu_kernels.snmu, backend="aot_eager", fullgraph=True)
        for found in (
            call(case, float32),
            compiled(**float32, **case.options),
            expected(case, float32),
        ):
            grads = torch.autograd.grad(found.log().sum(), list(float32.values()))
            for value, right in zip((found, *grads), (wanted, *of_wanted), strict=True):
                torch.testing.assert_close(value.double(), right, rtol=1e-4, atol=1e-4)

    def test_it_is_drawn_where_the_input_is(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """By the operator of a back end there: nothing but the seed is carried to the device."""
        carried: list[int] = []

        def drawn(seeds: Tensor, number: int, step: int, rows: int, columns: int) -> Tensor:
            assert (seeds.device.type, seeds.shape, number, step) == ("meta", (1,), stream.NOISE, 0)
            return seeds.new_empty((1, rows, columns), dtype=torch.float32)

        class Watched(TorchDispatchMode):
            def __torch_dispatch__(
                self, func: Any, types: Any, args: Any = (), kwargs: Any = None
            ) -> Any:
                output = func(*args, **(kwargs or {}))
                if isinstance(output, Tensor) and output.is_meta:
                    carried.extend(
                        arg.numel() for arg in args if isinstance(arg, Tensor) and arg.is_cpu
                    )
                return output

        x, W = (torch.ones(shape, device="meta", requires_grad=True) for shape in ((4, I), M))
        module = sys.modules["nalu_kernels.functional.snmu"]
        monkeypatch.setattr(module, "_operator", {"meta": drawn}.get)
        with Watched():
            nalu_kernels.snmu(x, W, seed=7).sum().backward()
        assert carried and set(carried) == {1}

    def test_two_calls_in_a_graph_have_two_seeds(self, tensors: dict[str, Tensor]) -> None:
        @torch.compile(backend="aot_eager", fullgraph=True)
        @torch.no_grad()
        def twice() -> tuple[Tensor, Tensor]:
            return nalu_kernels.snmu(**tensors), nalu_kernels.snmu(**tensors)

        assert not torch.equal(*twice())

    def test_a_graph_takes_it_for_float32_whatever_the_default(
        self, tensors: dict[str, Tensor]
    ) -> None:
        """What the operator's shape without numbers says is what it returns."""
        arguments = (torch.tensor(7), 4, I, torch.device("cpu"))
        torch.set_default_dtype(torch.float64)
        try:
            opcheck(torch.ops.nalu_kernels.noise.default, arguments)
            compiled = torch.compile(nalu_kernels.snmu, backend="aot_eager", fullgraph=True)
            torch.testing.assert_close(compiled(**tensors, seed=7), call(SNMU, tensors))
        finally:
            torch.set_default_dtype(torch.float32)


# A back end whose operators are Python: what any back end with kernels of the family meets.

NAMESPACE = "nalu_kernels_of_python"
ran: list[tuple[str, int]] = []


def _implementation(name: str, way: str) -> Callable[..., Any]:
    function = FAMILY[name]
    options = len(function.options)

    def forward(*arguments: Any) -> tuple[Tensor, Tensor]:
        given, save, tensors = arguments[:options], arguments[options], arguments[options + 1 :]
        ran.append((f"{name}_forward", save))
        parts = function.parts(*given, *tensors) if save else ()
        saved = [tensors[0].new_empty(0), *(part.flatten() for part in parts)]
        return function.reference(*given, *tensors), torch.cat(saved)

    def backward(*arguments: Any) -> tuple[Tensor | None, ...]:
        given, (needed, grad_output, saved, *tensors) = arguments[:options], arguments[options:]
        ran.append((f"{name}_backward", needed))
        rows = tensors[0].shape[:-1].numel()
        assert saved.shape == (rows * function.saved(function.shapes(tensors)),)
        wanted = [needed >> i & 1 and tensor is not None for i, tensor in enumerate(tensors)]

        def by_autograd() -> tuple[Tensor, ...]:
            leaves = [each if each is None else each.detach().requires_grad_() for each in tensors]
            asked = [leaf for leaf, want in zip(leaves, wanted, strict=True) if want]
            return torch.autograd.grad(function.reference(*given, *leaves), asked, grad_output)

        # In a thread of its own, for inside of an operator there may be no autograd.
        with ThreadPoolExecutor(1) as pool:
            grads = iter(pool.submit(by_autograd).result())
        found = [next(grads) if want else None for want in wanted]
        return *found, *[None] * (len(function.tensors) - len(tensors))

    return {"forward": forward, "backward": backward}[way]


def _load() -> operators.Operators:
    operators.define(NAMESPACE, NEW, _implementation, ("CPU",))
    operators.register(NAMESPACE)
    return operators.overloads(NAMESPACE)


@pytest.fixture
def python(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The best back end for CPU tensors, of the new functions alone."""
    row = dispatch._BACKENDS["cpu"]._replace(
        name="python", load=_load, about=lambda: "Python", namespace=NAMESPACE
    )
    caches = (dispatch._load, dispatch._automatic, dispatch._automatic_operators)
    monkeypatch.setattr(dispatch, "_BACKENDS", {"python": row, **dispatch._BACKENDS})
    for cache in caches:
        cache.cache_clear()
    ran.clear()
    yield
    for cache in caches:
        cache.cache_clear()


@by_case
def test_kernels_run_where_a_back_end_has_them(case: Case, python: None, rng: Generator) -> None:
    tensors = draw(rng, case, 4)
    last = list(tensors)[-1]
    with torch.no_grad():
        torch.testing.assert_close(call(case, tensors), expected(case, tensors))
    leaves = {name: tensor.requires_grad_() for name, tensor in tensors.items()}
    torch.autograd.grad(call(case, leaves).sum(), list(leaves.values()))
    function = COMPOSED.get(case.function, case.function)
    if function == "nalu":  # which this back end has not
        assert which_backend(tensors["input"], case.function)[0] != "python"
        assert not ran
        return
    assert which_backend(tensors["input"], case.function)[0] == "python"
    way = [name.partition("_")[2] for name, _ in ran]
    assert way[0] == "forward" and way[-1] == "backward"
    if case.function in FAMILY:
        bits = sum(1 << FAMILY[function].tensors.index(name) for name in tensors)
        assert ran == [(f"{function}_forward", 0), (f"{function}_forward", 1),
                       (f"{function}_backward", bits)]  # fmt: skip
        ran.clear()
        alone = {**{name: leaf.detach() for name, leaf in leaves.items()}, last: leaves[last]}
        torch.autograd.grad(call(case, alone).sum(), leaves[last])
        assert ran[-1] == (f"{function}_backward", 1 << FAMILY[function].tensors.index(last))


def test_kernels_stay_in_graphs(python: None, rng: Generator) -> None:
    cases = [case for case in ONE_OF_EACH if case.function != "gnalu"]
    x, other = (draw(rng, CASES[0], rows)["input"] for rows in (4, 6))
    model = Model(cases, rng)
    program = exports(model, x, other)
    targets = {str(node.target) for node in program.graph.nodes}
    assert {f"{NAMESPACE}.{name}.default" for name in NEW} <= targets
    plain = program.run_decompositions(torch._decomp.decomposition_table)
    assert NAMESPACE not in str([node.target for node in plain.graph.nodes])
    torch.testing.assert_close(plain.module()(other), model(other))
    ran.clear()
    compiles(model, x, "aot_eager")
    assert {f"{name}_{way}" for name in NEW for way in ("forward", "backward")} == dict(ran).keys()


@pytest.mark.parametrize("case", [case for case in CASES if case.function in FAMILY],
                         ids=lambda case: case.name)  # fmt: skip
def test_operators(case: Case, python: None, rng: Generator) -> None:
    tensors = draw(rng, case, 4)
    call(case, tensors)  # loads them
    function, packets = FAMILY[case.function], getattr(torch.ops, NAMESPACE)
    defaults = {"eps": 1e-7, "omega": 20.0, "straight_through": True, "training": False}
    defaults["per_sample"] = False
    options = [case.options.get(name, defaults[name]) for name in function.options]
    given = [tensors.get(name) for name in function.tensors]
    tests = ("test_schema", "test_faketensor", "test_autograd_registration")
    forward = getattr(packets, f"{function.name}_forward").default
    opcheck(forward, (*options, True, *given), test_utils=tests)
    opcheck(forward, (*options, False, *given), test_utils=tests)
    leaves = [tensor if tensor is None else tensor.requires_grad_() for tensor in given]
    opcheck(getattr(packets, function.name).default, (*options, *leaves), test_utils=tests)
    backward = getattr(packets, f"{function.name}_backward").default
    with FakeTensorMode() as mode:
        fake = [tensor if tensor is None else mode.from_tensor(tensor) for tensor in given]
        y, saved = forward(*options, True, *fake)
        for needed in (0b1, 0b10, 0b111):
            grads = backward(*options, needed, y, saved, *fake)
            assert len(grads) == len(function.tensors)
            for i, (grad, tensor) in enumerate(zip(grads, fake, strict=True)):
                assert (grad is not None) == (needed >> i & 1 and tensor is not None)
                assert grad is None or grad.shape == tensor.shape


@pytest.mark.parametrize(
    ("case", "forward", "backward"),
    [
        ("nau", 1, 2),
        ("nmu", 1, 2),
        ("inalu", 3, 5),
        ("inalu_matrix", 4, 7),
        ("npu", 4, 8),
        ("real_npu", 2, 4),
        ("nru", 1, 2),
        ("nmru", 3, 5),
    ],
)
def test_flops(case: str, forward: int, backward: int, python: None, rng: Generator) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    found = next(each for each in CASES if each.name == case)
    tensors = draw(rng, found, 4)
    call(found, tensors)
    with FlopCounterMode(display=False) as counter:
        y = call(found, {name: tensor.requires_grad_() for name, tensor in tensors.items()})
        assert counter.get_total_flops() == forward * 2 * 4 * I * O
        y.sum().backward()
        assert counter.get_total_flops() == (forward + backward) * 2 * 4 * I * O


def test_a_back_end_without_kernels_is_passed_over_and_says_so_once(
    python: None, rng: Generator
) -> None:
    case = Case("nalu", "nalu", {**NALUS, "G": M})
    tensors = draw(rng, case, 4)
    dispatch._warn.cache_clear()
    with use_backend("python"), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        name, why = which_backend(tensors["input"], "nalu")
        assert (name, why) == ("reference", "python, forced by use_backend, has no kernels of nalu")
        for _ in range(2):
            torch.testing.assert_close(call(case, tensors), reference.nalu(**tensors))
    (warning,) = caught
    assert "runs nalu on its slow plain PyTorch reference: python, forced" in str(warning.message)
    assert warning.filename == __file__
    assert which_backend(tensors["input"])[0] == "python"
    assert which_backend(tensors["input"], "gnalu")[1].endswith("(python: no kernels of nalu)")


def test_which_backend_knows_the_functions() -> None:
    x = torch.ones(2)
    for name in nalu_kernels.functional.__all__:
        assert which_backend(x, name)[0] in nalu_kernels.backends()
    with pytest.raises(ValueError, match=r"function: expected one of nac, nalu.*got 'add'"):
        which_backend(x, "add")
    with pytest.raises(TypeError, match=r"function: expected a function's name, .*got int"):
        which_backend(x, 1)  # type: ignore[arg-type]


def test_every_function_is_in_the_table() -> None:
    assert set(nalu_kernels.functional.__all__) == {*FAMILY, *COMPOSED}
    assert set(COMPOSED.values()) <= FAMILY.keys()
