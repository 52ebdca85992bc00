"""The kernels of the functions after NALU against the reference: values, gradients, and where NaN
and infinity stand."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Generator, Tensor

from conftest import HALVES, Backend
from layers import numbers
from nalu_kernels import dispatch, family
from nalu_kernels.autograd import with_gradients
from nalu_kernels.execute import execute
from parity import threads
from selection import only, pairs

pytestmark = only(lambda backend: backend.has_kernels)

Sizes = tuple[int, int, int]  # B, I, O
Shapes = Callable[[int, int], dict[str, tuple[int, ...]]]


def _W(I: int, O: int) -> dict[str, tuple[int, ...]]:  # noqa: E741
    return {"W": (O, I)}


def _inalu(*names: str, gate: str = "independent") -> Shapes:
    def shapes(I: int, O: int) -> dict[str, tuple[int, ...]]:  # noqa: E741
        gates = {"independent": (O,), "matrix": (O, I), "vector": (1, I)}
        given = {name: (O, I) for name in ("W_hat", "M_hat", *names)}
        return {**given, "g": gates[gate]}

    return shapes


class Form(NamedTuple):
    """A function with its options, and its weights' shapes."""

    name: str
    options: tuple[Any, ...]
    shapes: Shapes


FORMS = {
    "nau": Form("nau", (), _W),
    "nmu": Form("nmu", (), _W),
    "inalu": Form("inalu", (1e-5, 1.0, False), _inalu("W_hat_mul", "M_hat_mul")),
    "inalu tied, matrix": Form("inalu", (1e-5, 20.0, False), _inalu(gate="matrix")),
    "inalu vector": Form("inalu", (1e-5, 20.0, True), _inalu(gate="vector")),
    "real npu": Form("npu", (1e-5, True), lambda I, O: {"W_re": (O, I), "g": (I,)}),  # noqa: E741
    "npu clamped": Form(
        "npu",
        (1e-5, False),
        lambda I, O: {"W_re": (O, I), "g": (I,), "W_im": (O, I)},  # noqa: E741
    ),
    "nru": Form("nru", (False,), _W),
    "nru training": Form("nru", (True,), _W),
    "nmru": Form("nmru", (0.0,), lambda I, O: {"W": (O, 2 * I)}),  # noqa: E741
    "nmru training": Form("nmru", (2.0**-23,), lambda I, O: {"W": (O, 2 * I)}),  # noqa: E741
}
by_form = pytest.mark.parametrize("form", FORMS)
ODD = [(1, 1, 1), (5, 2, 1), (37, 5, 3), (131, 18, 7)]


def draw(
    rng: Generator,
    form: str,
    sizes: Sizes,
    dtype: torch.dtype = torch.float64,
    device: str = "cpu",
) -> dict[str, Tensor]:
    """Inputs of both signs, and weights as in a training; rounded to ``dtype``."""
    B, I, O = sizes  # noqa: E741
    tensors = numbers(rng, FORMS[form].name, {"input": (B, I), **FORMS[form].shapes(I, O)})
    return {name: tensor.to(dtype).to(device) for name, tensor in tensors.items()}


def ordered(form: str, tensors: dict[str, Tensor]) -> list[Tensor | None]:
    return [tensors.get(name) for name in family.FAMILY[FORMS[form].name].tensors]


def outcome(
    form: str, tensors: dict[str, Tensor], grad_output: Tensor, kernels: Any
) -> dict[str, Tensor]:
    """The output and all gradients; ``kernels`` None: those of the reference."""
    row = family.FAMILY[FORMS[form].name]
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}
    given = ordered(form, leaves)
    if kernels is None:
        output = row.reference(*FORMS[form].options, *given)
    else:
        output = with_gradients[row.name](kernels, *FORMS[form].options, *given)
    grads = torch.autograd.grad(output, list(leaves.values()), grad_output)
    return {"output": output.detach(), **dict(zip(leaves, grads, strict=True))}


def kernels_of(form: str, backend: Backend) -> Any:
    name = FORMS[form].name
    operators = dispatch._load(backend.name)[0]
    if operators is None or name not in operators:
        pytest.skip(f"{backend.name} has no kernels of {name}")
    return operators[name]


def moved(
    form: str, tensors: dict[str, Tensor], grad_output: Tensor, rng: Generator
) -> dict[str, Tensor]:
    """How far results go where each number given is off by a small part of itself, of that part.

    A sum whose terms cancel goes by the size of these, which is what kernels round in their order;
    any other result by a few times itself.
    """
    part = 2.0**-30

    def shifted(tensor: Tensor) -> Tensor:
        off = torch.randn(tensor.shape, generator=rng, dtype=torch.float64)
        return tensor * (1 + part * off.to(tensor.device))

    def outcome_of(shift: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        return outcome(form, {n: shift(t) for n, t in tensors.items()}, shift(grad_output), None)

    still, trials = outcome_of(torch.clone), [outcome_of(shifted) for _ in range(4)]
    return {
        name: torch.stack([(trial[name] - value).abs() / part for trial in trials]).amax(0)
        for name, value in still.items()
    }


def check(
    form: str,
    tensors: dict[str, Tensor],
    backend: Backend,
    rng: Generator,
    same_pattern: bool = True,
) -> None:
    """No worse than twice plain PyTorch in the type that is computed in, and some roundings; in
    float64, which plain PyTorch is the truth in, of the terms where a sum of them cancels."""
    dtype = tensors["input"].dtype
    rows = (*tensors["input"].shape[:-1], tensors[next(iter(FORMS[form].shapes(1, 1)))].shape[0])
    dy = torch.randn(rows, generator=rng, dtype=torch.float64).to(dtype).to(backend.device)
    found = outcome(form, tensors, dy, kernels_of(form, backend))
    compute = torch.float32 if dtype in HALVES else dtype

    def expected(wide: torch.dtype) -> dict[str, Tensor]:
        return outcome(form, {name: t.to(wide) for name, t in tensors.items()}, dy.to(wide), None)

    truth, eager = expected(torch.float64), expected(compute)
    terms = moved(form, tensors, dy, rng) if dtype == torch.float64 else {}
    for name, value in found.items():
        assert value.dtype == dtype and value.shape == truth[name].shape, name
        near = eager[name]
        if same_pattern:
            for what in (torch.isnan, torch.isposinf, torch.isneginf):
                assert what(value).equal(what(near.to(dtype))), (form, name, what.__name__)
        sound = near.isfinite() & value.isfinite() & truth[name].isfinite()
        if not sound.any():
            continue
        scale = truth[name][sound].abs().max()
        if name in terms:
            scale = torch.maximum(scale, terms[name][sound].max() / 16)
        off = (value.double() - truth[name])[sound].abs().max()
        eager_off = (near.double() - truth[name])[sound].abs().max()
        # A long product rounds once a factor, one of pairs less often.
        ulps = 256 + 4 * tensors["input"].shape[-1]
        if (form, name) == ("nru training", "W"):
            ulps += 4000  # the slope is 2000 t (1 - t^2): what t rounds by, 2000 times
        allowed = 2 * eager_off + ulps * torch.finfo(compute).eps * scale
        if dtype in HALVES:
            allowed = allowed + torch.finfo(dtype).eps * scale
        assert off <= allowed, (form, name, float(off / scale), float(eager_off / scale))


@pairs
@by_form
@pytest.mark.parametrize("sizes", ODD, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_as_the_reference(
    form: str, sizes: Sizes, dtype: torch.dtype, backend: Backend, rng: Generator
) -> None:
    check(form, draw(rng, form, sizes, dtype, backend.device), backend, rng)


@only(lambda backend: backend.name == "cpu")
@by_form
def test_small_faults_of_float64_are_caught(
    form: str, backend: Backend, rng: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gradient off by a billionth; one that lacks a sample's term."""
    tensors, right = draw(rng, form, (37, 5, 3)), outcome

    def a_billionth_off(name: str, *call: Any) -> Tensor:
        return right(*call)[name] * (1 + 1e-9)

    def without_a_sample(name: str, form: str, tensors: Any, dy: Tensor, kernels: Any) -> Tensor:
        return right(form, tensors, dy.index_fill(0, torch.tensor(1), 0), kernels)[name]

    for name, fault in itertools.product(tensors, (a_billionth_off, without_a_sample)):

        def faulty(*call: Any, name: str = name, fault: Any = fault) -> dict[str, Tensor]:
            *_, kernels = call
            return right(*call) | ({} if kernels is None else {name: fault(name, *call)})

        monkeypatch.setitem(check.__globals__, "outcome", faulty)
        with pytest.raises(AssertionError, match=f"'{name}'"):
            check(form, tensors, backend, rng)


@by_form
def test_several_chunks_and_parts_of_a_batch(form: str, backend: Backend, rng: Generator) -> None:
    sizes = (700, 9, 5) if backend.interpreted or backend.emulated else (9000, 33, 6)
    check(form, draw(rng, form, sizes, torch.float32, backend.device), backend, rng)


@only(lambda backend: backend.name == "cpu")
@by_form
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("sizes", [(1, 19, 6), (1, 130, 101), (3, 130, 101), (7, 30, 501)], ids=str)
def test_few_rows(
    form: str, sizes: Sizes, dtype: torch.dtype, backend: Backend, rng: Generator
) -> None:
    """Products of one row go along the vectors; wide layers are cut into slices of outputs."""
    check(form, draw(rng, form, sizes, dtype), backend, rng)


# An input of 7 columns out of a wider one's (6, 14).
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "every other column": lambda wide: wide[:, ::2],
    "columns first": lambda wide: wide.T[:7, :6].T,
    "one row expanded": lambda wide: wide[:1, :7].expand(6, 7),
    "two leading dimensions": lambda wide: wide[:, :7].reshape(2, 3, 7).transpose(0, 1),
    "no rows": lambda wide: wide[:0, :7],
    "no leading dimension": lambda wide: wide[0, :7],
}


@pairs
@by_form
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_and_leading_dimensions(
    form: str, layout: str, backend: Backend, rng: Generator
) -> None:
    wide = draw(rng, form, (6, 14, 3), device=backend.device)
    narrow = draw(rng, form, (6, 7, 3), device=backend.device)
    check(form, {**narrow, "input": LAYOUTS[layout](wide["input"])}, backend, rng)


@by_form
def test_none_one_and_two_factors_of_0(form: str, backend: Backend, rng: Generator) -> None:
    """An input of 0, or a factor of 0, leaves the others their gradients."""
    tensors = draw(rng, form, (8, 4, 3), device=backend.device)
    tensors["input"][1, 2] = 0
    tensors["input"][2, 1:3] = 0
    tensors["input"][3] = 0
    if FORMS[form].name in ("nmu", "nmru"):
        tensors["W"][0, :2] = 0.5
        tensors["input"][4, 0] = -1  # 0.5 x + 0.5 is 0
        tensors["input"][5, :2] = -1
        tensors["W"][1, 1] = 0
        tensors["W"][2, 0] = 1
    if FORMS[form].name == "nru":
        tensors["W"][0] = torch.tensor([1.0, 0.0, -1.0, 0.5])
    check(form, tensors, backend, rng)
    for row in range(6 if backend.name == "cpu" else 0):
        check(form, {**tensors, "input": tensors["input"][row : row + 1]}, backend, rng)


@pairs
@by_form
@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan, 1e-40, -0.0, 1e30])
@pytest.mark.parametrize("place", [0, 1], ids=["input", "weight"])
def test_special_values(
    form: str, value: float, place: int, backend: Backend, rng: Generator
) -> None:
    for sizes in [(4, 3, 2), (1, 11, 2)][: 2 if backend.name == "cpu" else 1]:
        tensors = draw(rng, form, sizes, torch.float32, backend.device)
        chosen = list(tensors)[place]
        tensors[chosen].view(-1)[1] = value
        # What comes of numbers beyond the type depends on the order of products.
        check(form, tensors, backend, rng, same_pattern=value != 1e30)


POWERS = (0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.0, -2.0, 1e-30)
ENDS = (0.0, -0.0, 1.0, -1.0, torch.inf, -torch.inf, torch.nan, 1e-30, -1e-30, 1e30, -2.0)


@pytest.mark.parametrize("form", ["nru", "nru training"])
def test_a_power_has_a_slope_where_it_leaves_the_range_itself(form: str, backend: Backend) -> None:
    """w |x|^(w - 1), of an x whose power is 0 or infinite in float32."""
    x = torch.tensor([[1e-30], [-1e-30], [1e-25], [-1e20], [1e30]], device=backend.device)
    for w in (1.5, 2.0):
        tensors = {"input": x, "W": torch.full((1, 1), w, device=backend.device)}
        found = outcome(form, tensors, torch.ones_like(x), kernels_of(form, backend))["input"]
        part = w if form == "nru" else 1.0
        torch.testing.assert_close(
            found, (part * w * x.double().abs() ** (w - 1)).float(), rtol=1e-5, atol=0
        )


@pytest.mark.parametrize("form", ["nru", "nru training"])
@pytest.mark.parametrize("power", [*POWERS, torch.inf, -torch.inf, torch.nan])
def test_every_end_of_a_power(form: str, power: float, backend: Backend) -> None:
    """One factor, whose special values no other hides: NaN and infinity as in plain PyTorch."""
    x = torch.tensor([ENDS], device=backend.device).T
    tensors = {"input": x, "W": torch.full((1, 1), power, device=backend.device)}
    for rows in (slice(None), *(slice(row, row + 1) for row in range(len(x)))):
        given = {**tensors, "input": x[rows]}
        dy = torch.ones_like(x[rows])
        found = outcome(form, given, dy, kernels_of(form, backend))
        eager = outcome(form, given, dy, None)
        for name, value in found.items():
            wanted = eager[name]
            if math.isinf(power):  # the slope of its part is no NaN where plain PyTorch has one
                value = torch.where(wanted.isnan(), wanted, value)
            close = torch.allclose(value, wanted, rtol=1e-4, atol=1e-30, equal_nan=True)
            assert close, (name, x[rows], value, wanted)


@only(lambda backend: backend.name == "cpu")
@by_form
def test_the_same_bits_by_every_number_of_threads(
    form: str, backend: Backend, rng: Generator
) -> None:
    kernels = kernels_of(form, backend)
    few = 1 if form == "nau" else 3  # torch's BLAS multiplies an NAU so large
    for sizes in ((5000, 11, 3), (few, 130, 101)):
        tensors = draw(rng, form, sizes, torch.float32)
        dy = torch.randn(sizes[0], sizes[2], generator=rng)
        expected = outcome(form, tensors, dy, kernels)
        for count in (2, 3):
            with threads(count):
                found = outcome(form, tensors, dy, kernels)
            assert all(found[name].equal(expected[name]) for name in expected), (sizes, count)


@by_form
def test_only_what_is_needed(form: str, backend: Backend, rng: Generator) -> None:
    """Each gradient alone is the one beside the others; no others are made."""
    tensors = draw(rng, form, (6, 4, 3), device=backend.device)
    row, given = family.FAMILY[FORMS[form].name], ordered(form, tensors)
    kernels, options = kernels_of(form, backend), FORMS[form].options
    dy = torch.randn(6, 3, generator=rng, dtype=torch.float64).to(backend.device)
    saved = kernels.forward(*options, True, *given)[1]
    bits = [1 << i for i, tensor in enumerate(given) if tensor is not None]
    whole = kernels.backward(*options, sum(bits), dy, saved, *given)
    for i, name in enumerate(row.tensors):
        alone = kernels.backward(*options, 1 << i if given[i] is not None else 0, dy, saved, *given)
        assert [grad is None for grad in alone] == [
            given[i] is None or k != i for k in range(len(alone))
        ], name
        if given[i] is not None:
            torch.testing.assert_close(alone[i], whole[i], rtol=0, atol=0)


@by_form
def test_a_weight_that_is_missing_is_named(form: str, backend: Backend, rng: Generator) -> None:
    row = family.FAMILY[FORMS[form].name]
    tensors = draw(rng, form, (6, 4, 3), torch.float32, backend.device)
    for name in row.weights:
        given = ordered(form, {**tensors, name: None})
        with pytest.raises(TypeError, match=f"^{name}: expected a torch.Tensor, got NoneType"):
            execute(row, FORMS[form].options, tuple(given))


@only(lambda backend: backend.name == "cpu")
@pytest.mark.parametrize("form", ["nmu", "nru training", "nmru", "inalu"])
def test_no_memory_for_every_factor(form: str, backend: Backend, rng: Generator) -> None:
    """Kept between forward and backward are numbers for each output at most."""
    B, I, O = 64, 50, 40  # noqa: E741
    given = ordered(form, draw(rng, form, (B, I, O)))
    saved = kernels_of(form, backend).forward(*FORMS[form].options, True, *given)[1]
    assert saved.numel() <= 4 * B * O
