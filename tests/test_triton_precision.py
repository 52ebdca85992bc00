"""The precision policy of nalu_kernels/triton/precision.py: what is chosen, and what it costs.

By the interpreter in the place of an sm_90, with layers that are small taken for large ones, since
small ones are float32 throughout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
import torch
from torch import Generator, Tensor

pytest.importorskip("triton", reason="triton is not installed")

import triton
import triton.language as tl

import nalu_kernels
from error_bound import FULL, Products
from layers import BY_NAME, KINDS, Kind, Layer, draw, outcome
from nalu_kernels import reference
from nalu_kernels.triton.device import Chip
from nalu_kernels.triton.precision import float32_setting, products
from nalu_kernels.triton.products import product
from parity import Judge
from precision import PRECISIONS, matmul_precision
from test_determinism import same_bits
from test_special_values import specials, sprinkle
from test_triton_rows import Interpreted, interpreting

TELLING = ("nac", "nac_log_space", "nalu_output_tied", "nalu_sample_bias_untied")
by_telling_kind = pytest.mark.parametrize("kind", [BY_NAME[name] for name in TELLING], ids=TELLING)
inf, nan = torch.inf, torch.nan
SHAPE = (40, 33, 21)


class Precision(NamedTuple):
    """A dtype, and torch's setting."""

    dtype: torch.dtype
    setting: str = "highest"

    def __str__(self) -> str:
        return self.setting if self.dtype == torch.float32 else str(self.dtype)

    @property
    def products(self) -> Products:
        chip = Chip("sm_90", 1)
        return Products(
            products(self.dtype, self.setting, chip, backward=False),
            products(self.dtype, self.setting, chip, backward=True),
        )


HIGHEST, HIGH, MEDIUM = (Precision(torch.float32, setting) for setting in PRECISIONS)
BFLOAT16, FLOAT16 = Precision(torch.bfloat16), Precision(torch.float16)


def run(layer: Layer, setting: str = "highest") -> dict[str, Tensor]:
    with matmul_precision(setting):
        return outcome(nalu_kernels, layer)


@pytest.fixture
def interpreted() -> Iterator[Interpreted]:
    with interpreting() as interpreter:
        interpreter.as_chip("sm_90", 1)
        yield interpreter


@pytest.fixture
def large(interpreted: Interpreted) -> Interpreted:
    """Every layer is taken for a large one."""
    interpreted.no_small_layers()
    return interpreted


# What is chosen


@pytest.mark.parametrize("setting", PRECISIONS)
@pytest.mark.parametrize("family", ["sm_80", "sm_90", "sm_100", "gfx942", "interpreter"])
def test_products_are_those_of_the_policy(family: str, setting: str) -> None:
    full = "ieee" if family == "gfx942" else "bf16x6"
    float32 = {
        "highest": (full, full),
        "high": ("bf16x3", "bf16x3"),
        "medium": ("bf16", "bf16x3"),
    }[setting]
    # Forward, backward.
    expected = {
        torch.float64: (("ieee", "ieee"), ("ieee", "ieee")),
        torch.float32: (float32, float32),
        torch.bfloat16: (("bf16", "bf16x3"), ("bf16", "bf16x3")),
        torch.float16: (("fp16", "bf16x3"), ("bf16x3", "bf16x3")),
    }
    for dtype, pairs in expected.items():
        for backward, pair in enumerate(pairs):
            found = products(dtype, setting, Chip(family, 100), backward=bool(backward))
            assert found == pair, (dtype, backward)


@pytest.fixture
def as_torch_starts() -> Iterator[None]:
    """torch's precisions as in a new process, and afterwards as they were."""
    holders = (torch.backends, torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)
    before = [holder.fp32_precision for holder in holders]
    older = torch.get_float32_matmul_precision()

    def put(older: str, newer: list[str]) -> None:
        torch.set_float32_matmul_precision(older)
        for holder, precision in zip(holders, newer, strict=True):
            holder.fp32_precision = precision

    put("highest", ["none"] * len(holders))
    yield
    put(older, before)


SETTINGS = {
    "": "highest",
    "older=high": "high",
    "older=medium": "medium",
    "older=medium older=highest": "highest",
    "matmul=tf32": "high",
    "matmul=ieee": "highest",
    "matmul=tf32 matmul=none": "highest",
    "all=tf32": "high",
    "all=tf32 all=ieee": "highest",
    "all=tf32 matmul=ieee": "highest",
    "all=ieee matmul=tf32": "high",
    "older=high matmul=ieee": "highest",
    "older=medium matmul=ieee": "highest",
    "older=medium all=ieee": "medium",  # the narrower one counts, which the older sets
    "older=highest matmul=tf32": "high",
    "matmul=tf32 older=highest": "highest",
    "matmul=ieee older=medium": "medium",
    "cpu=bf16": "highest",
}


@pytest.mark.parametrize("steps", SETTINGS)
def test_the_setting_is_torchs(steps: str, as_torch_starts: None) -> None:
    """By its older function, by the newer attributes, and by both."""
    holders = {
        "all": torch.backends,
        "matmul": torch.backends.cuda.matmul,
        "cpu": torch.backends.mkldnn.matmul,
    }
    for step in steps.split():
        place, _, value = step.partition("=")
        if place == "older":
            torch.set_float32_matmul_precision(value)
        else:
            holders[place].fp32_precision = value
    assert float32_setting() == SETTINGS[steps]


@pytest.mark.parametrize("allowed", [True, False])
def test_the_setting_follows_allow_tf32(allowed: bool, as_torch_starts: None) -> None:
    torch.backends.cuda.matmul.allow_tf32 = allowed
    assert float32_setting() == ("high" if allowed else "highest")


def test_each_call_goes_by_the_setting_of_its_time(large: Interpreted, rng: Generator) -> None:
    layer = draw(rng, BY_NAME["nac"], (3, 4, 2))
    with matmul_precision("medium"):
        x = layer.tensors["input"].requires_grad_()
        output = layer.call(nalu_kernels)
    with matmul_precision("high"):
        torch.autograd.grad(output, x, layer.grad_output)
    run(layer)
    used = [(one.kernel, one.products[0]) for one in large.launched]
    assert used[:2] == [("forward", "bf16"), ("grad_input", "bf16x3")]
    assert {how for _, how in used[2:]} == {"bf16x6"}


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str
)
@by_telling_kind
def test_small_layers_are_float32_throughout(
    kind: Kind, dtype: torch.dtype, interpreted: Interpreted, rng: Generator
) -> None:
    layer = draw(rng, kind, (9, 5, 3), dtype)
    found = [run(layer, setting) for setting in PRECISIONS]
    assert {one.products for one in interpreted.launched} == {("ieee", "ieee")}
    assert same_bits(found[1], found[0]) and same_bits(found[2], found[0])
    faults = Judge(layer).faults(found[0])
    assert not faults, "\n".join(faults)


# What it costs


@pytest.mark.parametrize("precision", [HIGHEST, HIGH, MEDIUM, BFLOAT16, FLOAT16], ids=str)
@by_telling_kind
def test_errors_are_those_of_the_products(
    kind: Kind, precision: Precision, large: Interpreted, rng: Generator
) -> None:
    """By the rule of parity, with what the products that the policy names shorten."""
    layer = draw(rng, kind, SHAPE, precision.dtype)
    faults = Judge(layer, precision.products).faults(run(layer, precision.setting))
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("precision", "better"), [(HIGH, FULL), (MEDIUM, HIGH.products)], ids=["high", "medium"]
)
def test_the_rule_tells_products_apart(
    precision: Precision, better: Products, large: Interpreted, rng: Generator
) -> None:
    layer = draw(rng, BY_NAME["nac"], SHAPE)
    judge, found = Judge(layer, better), run(layer, precision.setting)
    for name in ("output", "input", "W_hat", "M_hat"):
        assert judge.faults({name: found[name]}), name


def bf16(v: Tensor) -> Tensor:
    return v.to(torch.bfloat16).to(v.dtype)


def tf32(v: Tensor) -> Tensor:
    """Rounded to 10 bits."""
    bits = v.float().view(torch.int32)
    return ((bits + 0xFFF + (bits >> 13 & 1)) & ~0x1FFF).view(torch.float32).to(v.dtype)


def linear_nac(layer: Layer, shorten: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """A NAC and its gradients in float64, with all operands of products shortened."""
    x, W_hat, M_hat = (layer.tensors[name].double() for name in ("input", "W_hat", "M_hat"))
    t, s = W_hat.tanh(), M_hat.sigmoid()
    x, W, dy = shorten(x), shorten(t * s), shorten(layer.grad_output.double())
    dW = dy.T @ x
    return {
        "output": x @ W.T,
        "input": dy @ W,
        "W_hat": dW * s * (1 - t * t),
        "M_hat": dW * t * s * (1 - s),
    }


def test_the_rule_refuses_tf32_and_bfloat16_logarithms(rng: Generator) -> None:
    """Where the policy says bf16x3."""
    layer = draw(rng, BY_NAME["nac"], SHAPE)
    found = {name: tensor.float() for name, tensor in linear_nac(layer, tf32).items()}
    for name, tensor in found.items():
        assert Judge(layer, HIGH.products).faults({name: tensor}), name
    for precision in (MEDIUM, BFLOAT16):
        layer = factors(rng, precision.dtype)
        output = with_logs_in(torch.bfloat16, layer).to(precision.dtype)
        assert Judge(layer, precision.products).faults({"output": output}), precision


def test_a_linear_nac_errs_as_its_products_do(large: Interpreted, rng: Generator) -> None:
    """Relative to the sums of the terms' sizes, of the output and of each gradient."""
    layer = draw(rng, BY_NAME["nac"], SHAPE)
    layer.tensors["M_hat"].div_(8)  # else 1 - sigmoid(M_hat) has errors of its own
    exact = linear_nac(layer, lambda v: v)
    scale = linear_nac(layer, torch.abs)

    def errors(found: dict[str, Tensor]) -> dict[str, float]:
        return {
            name: ((found[name].double() - truth) / scale[name]).abs().max().item()
            for name, truth in exact.items()
        }

    eager = errors(outcome(reference, layer))
    rounded = {how: errors(linear_nac(layer, how)) for how in (tf32, bf16)}
    ours = {setting: errors(run(layer, setting)) for setting in PRECISIONS}
    for name in exact:
        assert ours["highest"][name] <= 2 * eager[name] + 2**-23, name
        assert ours["high"][name] <= 3 * 2**-16, name
        assert ours["high"][name] <= rounded[tf32][name] / 8, name
        assert ours["medium"][name] <= 2**-7, name
        assert ours["medium"][name] <= 1.5 * rounded[bf16][name], name


def factors(rng: Generator, dtype: torch.dtype) -> Layer:
    """A NAC in log space: three factors of 100 to 1000 over three others, for 20 outputs."""
    x = 10 ** (2 + torch.rand(64, 6, generator=rng, dtype=torch.float64))
    sign = torch.ones(6).masked_fill(torch.arange(6) < 3, -1)
    order = torch.rand(20, 6, generator=rng).argsort(1)
    W_hat = sign[order] * (2 + torch.rand(20, 6, generator=rng))
    M_hat = 4 + torch.rand(20, 6, generator=rng)
    tensors = {"input": x, "W_hat": W_hat, "M_hat": M_hat}
    dy = 1 + torch.rand(64, 20, generator=rng)
    layer = Layer("nac", tensors, {"eps": 1e-7, "log_space": True}, dy)
    return layer.map(lambda tensor: tensor.to(dtype))


def relative(found: Tensor, truth: Tensor) -> float:
    return ((found.double() - truth) / truth).abs().max().item()


def with_logs_in(dtype: torch.dtype, layer: Layer) -> Tensor:
    """``layer``'s products in float32, but for logarithms that are rounded to ``dtype``."""
    x, W_hat, M_hat = (layer.tensors[name].float() for name in ("input", "W_hat", "M_hat"))
    L = torch.log(x.abs() + layer.options["eps"]).to(dtype).float()
    return torch.exp(L @ (W_hat.tanh() * M_hat.sigmoid()).T)


@pytest.mark.parametrize("precision", [HIGHEST, HIGH, MEDIUM], ids=str)
def test_products_of_six_keep_their_digits(
    precision: Precision, large: Interpreted, rng: Generator
) -> None:
    """The output relative to itself, gradients to the largest of them."""
    layer = factors(rng, torch.float32)
    truth = outcome(reference, layer.map(Tensor.double))
    found, eager = run(layer, precision.setting), outcome(reference, layer)
    allowed = 2**-18 if precision == HIGHEST else 5e-4

    def errors(found: dict[str, Tensor]) -> dict[str, float]:
        scales = {name: tensor.abs().max() for name, tensor in truth.items()}
        scales["output"] = truth["output"]
        return {
            name: ((found[name].double() - tensor) / scales[name]).abs().max().item()
            for name, tensor in truth.items()
        }

    for name, error in errors(found).items():
        assert error < 2 * errors(eager)[name] + allowed, name
    assert relative(with_logs_in(torch.bfloat16, layer), truth["output"]) > 1e-2


@pytest.mark.parametrize("precision", [BFLOAT16, FLOAT16], ids=str)
def test_half_precision_products_are_rounded_once(
    precision: Precision, large: Interpreted, rng: Generator
) -> None:
    """Nothing is lost before the output is rounded: above all, not digits of the logarithms."""
    layer = factors(rng, precision.dtype)
    truth = outcome(reference, layer.map(Tensor.double))["output"]
    rounding = torch.finfo(precision.dtype).eps / 2
    assert relative(run(layer)["output"], truth) < rounding + 3e-4
    for dtype in {precision.dtype, torch.bfloat16}:
        assert relative(with_logs_in(dtype, layer).to(precision.dtype), truth) > 5 * rounding


def test_a_shut_gate_keeps_a_products_digits_at_medium(large: Interpreted, rng: Generator) -> None:
    layer = factors(rng, torch.float32)
    W_hat = layer.tensors["W_hat"]
    tensors = {"G": torch.zeros_like(W_hat), "gate_bias": torch.full((W_hat.shape[0],), -40.0)}
    in_a_nalu = Layer("nalu", layer.tensors | tensors, {"eps": 1e-7}, layer.grad_output)
    truth = outcome(reference, in_a_nalu.map(Tensor.double))["output"]
    assert relative(run(in_a_nalu, "medium")["output"], truth) < 1e-3


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.gates], ids=lambda kind: kind.name)
def test_bfloat16_is_float32_at_medium_rounded(
    kind: Kind, large: Interpreted, rng: Generator
) -> None:
    """Output and gradients to the bit: the same products, and one rounding."""
    layer = draw(rng, kind, SHAPE, torch.bfloat16)
    as_float32 = run(layer.map(Tensor.float), "medium")
    assert same_bits(
        run(layer), {name: tensor.to(torch.bfloat16) for name, tensor in as_float32.items()}
    )


@pytest.mark.parametrize(
    ("name", "among"),
    [("nac", ("input", "W_hat", "M_hat")), ("nac_log_space", ("output",))],
    ids=["nac", "nac_log_space"],
)
def test_float16_is_float32_at_high_rounded(
    name: str, among: tuple[str, ...], large: Interpreted, rng: Generator
) -> None:
    """Where it takes the same products."""
    layer = draw(rng, BY_NAME[name], SHAPE, torch.float16)
    found, as_float32 = run(layer), run(layer.map(Tensor.float), "high")
    for which in among:
        assert torch.equal(found[which], as_float32[which].to(torch.float16)), which


def gated(x: float, W_hat: float, G: float, dy: float, rng: Generator) -> tuple[Layer, Tensor]:
    """A float16 NALU of 16 outputs, with numbers about these and a product that is always 1; and
    what reaches the argument of its gate, in float64."""

    def about(value: float, *shape: int) -> Tensor:
        return (value * (1 + torch.rand(shape, generator=rng))).half()

    matrices = {"W_hat": about(W_hat, 16, 16), "G": about(G, 16, 16)}
    zeros = dict.fromkeys(("M_hat", "W_hat_mul", "M_hat_mul"), about(0, 16, 16))
    tensors = {"input": about(x, 8, 16), **matrices, **zeros}
    layer = Layer("nalu", tensors, {"eps": 1e-2}, about(dy, 8, 16))
    a = tensors["input"].double() @ (tensors["W_hat"].double().tanh() / 2).T
    g = (tensors["input"].double() @ tensors["G"].double().T).sigmoid()
    return layer, layer.grad_output * (a - 1) * g * (1 - g)


def check_one(layer: Layer, name: str) -> Tensor:
    """That gradient, which must obey the rule."""
    found = outcome(nalu_kernels, layer, {name})[name]
    faults = Judge(layer, FLOAT16.products).faults({name: found})
    assert not faults, "\n".join(faults)
    return found


def test_a_gates_gradient_beyond_float16(large: Interpreted, rng: Generator) -> None:
    layer, dz = gated(x=256, W_hat=0.5, G=-(2.0**-14), dy=512, rng=rng)
    assert (dz.half() == inf).all()
    assert check_one(layer, "input").isfinite().all()


def test_a_gates_gradient_below_float16(large: Interpreted, rng: Generator) -> None:
    layer, dz = gated(x=2.0**14, W_hat=2.0**-20, G=1.25 * 2.0**-17, dy=2.0**-20, rng=rng)
    assert (dz.half() == 0).all()
    assert (check_one(layer, "G") != 0).all()


@pytest.mark.parametrize("name", ["input", "W_hat", "M_hat"])
def test_a_products_gradient_beyond_float16(name: str, large: Interpreted, rng: Generator) -> None:
    """dy m, and sums of it, where what is left of them in the end is small."""
    x = 80 * (1 + torch.rand(8, 2, generator=rng))
    W_hat, M_hat = 4 + torch.rand(3, 2, generator=rng), 9 + torch.rand(3, 2, generator=rng)
    tensors = {"input": x, "W_hat": W_hat, "M_hat": M_hat}
    dy = 16 * (1 + torch.rand(8, 3, generator=rng))
    layer = Layer("nac", tensors, {"eps": 1e-2, "log_space": True}, dy).map(Tensor.half)
    m = outcome(reference, layer.map(Tensor.double))["output"]
    assert ((layer.grad_output * m).half() == inf).all()
    assert check_one(layer, name).isfinite().all()


# Infinities, NaN, the largest and the smallest numbers


@triton.jit
def product_kernel(a, b, c, HOW: tl.constexpr, SIZE: tl.constexpr):
    """c = a b, of one tile."""
    at = tl.arange(0, SIZE)[:, None] * SIZE + tl.arange(0, SIZE)[None, :]
    acc = tl.zeros([SIZE, SIZE], tl.float32)
    tl.store(c + at, product(tl.load(a + at), tl.load(b + at), acc, HOW))


def products_of(a: Tensor, b: Tensor, how: str) -> Tensor:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    found = torch.empty(a.shape, device=device)
    product_kernel[(1,)](a.to(device), b.to(device), found, HOW=how, SIZE=len(a))
    return found.cpu()


def same_pattern(found: Tensor, expected: Tensor) -> bool:
    """Of NaN, inf and -inf."""
    kinds = (torch.isnan, torch.isposinf, torch.isneginf)
    return all(torch.equal(kind(found), kind(expected)) for kind in kinds)


LARGEST = torch.finfo(torch.float32).max
# Those that round to an infinite bfloat16 among them, and subnormal ones.
VALUES = (
    *(0.0, 1.0, 3.0, 1 + 2.0**-8 + 2.0**-16, 0.4, 1e10, 1e-10, 1e25, 1e-25, 1e38, inf, nan),
    *(2.0**-126, 1e-39, 2.0**-133, 3.39e38, 3.3961775e38, 3.4e38, LARGEST),
)


@pytest.mark.parametrize("how", ["bf16x3", "bf16x6"])
def test_special_values_in_products(how: str) -> None:
    """Each times each, and each of those products plus the number before it times 1."""
    values = torch.tensor([sign * value for value in VALUES for sign in (1, -1)])
    a, b = torch.zeros(2, 64, 64)
    a[: len(values), 0], b[0, : len(values)] = values, values
    exact = a[:, :1].double() * b[:1].double()
    expected = a @ b
    # A factor that rounds to more than it is may overflow where the product does not.
    near_overflow = (exact.abs() > LARGEST / 1.02) & (exact.abs() < inf)
    found = products_of(a, b, how)
    assert same_pattern(found[~near_overflow], expected[~near_overflow])
    # Largest and subnormal numbers keep the digits that a bfloat16 of their size has.
    normal = ~near_overflow & exact.isfinite() & (a[:, :1].abs() > 2.0**-110)
    normal &= (b[:1].abs() > 2.0**-110) & (exact.abs() > 2.0**-126) & (exact.abs() < LARGEST)
    error = ((found - exact) / exact)[normal].abs().max()
    assert error < (3 * 2**-16 if how == "bf16x3" else 2**-22)


@pytest.mark.parametrize("how", ["bf16x3", "bf16x6"])
def test_special_values_in_sums(how: str, rng: Generator) -> None:
    """inf - inf, and what is beside infinities and NaN. (A sum of finite numbers that overflows
    does so in some orders and not in others.)"""
    for _ in range(20):
        a, b = (
            sprinkle(rng, torch.randn(16, 16, generator=rng).double(), (inf, -inf, nan, 0.0, 1e18))
            for _ in range(2)
        )
        found = products_of(a.float(), b.float(), how)
        assert same_pattern(found, a.float() @ b.float())


@pytest.mark.parametrize("precision", [HIGHEST, HIGH], ids=str)
@by_telling_kind
def test_special_values_in_layers(
    kind: Kind, precision: Precision, large: Interpreted, rng: Generator
) -> None:
    wanted, tries = 12, 0
    while wanted:
        tries += 1
        assert tries < 500, "hardly any layer that the rule can judge"
        layer = draw(rng, kind, (4, 5, 3), torch.float64)
        place = ("input", "grad_output", "W_hat")[tries % 3]
        tensor = layer.grad_output if place == "grad_output" else layer.tensors[place]
        values = (0.0, 30.0, inf, -inf, nan) if place == "W_hat" else specials(torch.float32)
        layer = layer.with_(**{place: sprinkle(rng, tensor, values)}).map(Tensor.float)
        judge = Judge(layer, precision.products)
        if not judge.near_cliff:
            wanted -= 1
            faults = judge.faults(run(layer, precision.setting))
            assert not faults, "\n".join([*faults, str(layer)])


def towards_zero(value: Tensor) -> Tensor:
    """As a float32, cut off."""
    near = value.float()
    return torch.where(near.abs() > value.abs(), near.nextafter(torch.zeros_like(near)), near)


def on_tensor_cores(a: Tensor, b: Tensor, sum: Tensor) -> Tensor:
    """sum + a b of 16 terms, as a model of compute capability 9.0 has it: each is cut off two bits
    below the last one of a float32 as large as the largest of them, and their sum at its own."""
    terms = torch.cat([a.double()[:, :, None] * b.double()[None], sum.double()[:, None]], 1)
    largest = terms.abs().amax(1, keepdim=True).clamp(min=1e-300)
    unit = 2.0 ** (largest.log2().floor() - 25)
    return towards_zero(((terms / unit).trunc() * unit).sum(1))


def three_pieces(v: Tensor) -> list[Tensor]:
    pieces = []
    for _ in range(3):
        pieces.append(v.bfloat16().float())
        v = v - pieces[-1]
    return pieces


def test_bf16x6_on_tensor_cores_that_cut_off(rng: Generator) -> None:
    """It is no less exact than a sum of multiply-adds, which is what eager has."""
    layer = draw(rng, BY_NAME["nac_log_space"], (64, 512, 32))
    L = (layer.tensors["input"].abs() + 1e-7).log()
    W = (layer.tensors["W_hat"].tanh() * layer.tensors["M_hat"].sigmoid()).t()
    exact = L.double() @ W.double()
    one_by_one, pieces = torch.zeros_like(exact).float(), torch.zeros_like(exact).float()
    for k in range(0, 512, 16):
        (a1, a2, a3), (b1, b2, b3) = three_pieces(L[:, k : k + 16]), three_pieces(W[k : k + 16])
        part = torch.zeros_like(pieces)
        for a, b in ((a2, b2), (a3, b1), (a1, b3), (a2, b1), (a1, b2), (a1, b1)):
            part = on_tensor_cores(a, b, part)
        pieces += part
        for i in range(k, k + 16):
            one_by_one = torch.addcmul(one_by_one.double(), L[:, i, None], W[i].double()).float()

    def error(found: Tensor) -> float:
        return (found - exact).square().mean().sqrt().item()

    assert error(pieces) < error(one_by_one)
