"""docs/triton.md against the code: numbers cited, policy, launches, errors, gradients, links."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor

from layers import KINDS, Kind, draw, outcome
from nalu_kernels import reference

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "triton.md"
TEXT = PAGE.read_text(encoding="utf-8")
KERNELS = ROOT / "nalu_kernels" / "triton"

HAS_TRITON = importlib.util.find_spec("triton") is not None
needs_triton = pytest.mark.skipif(not HAS_TRITON, reason="triton is not installed")

if HAS_TRITON:
    import triton
    import triton.language as tl

    from nalu_kernels.triton.products import product

    @triton.jit
    def product_kernel(a, b, c, HOW: tl.constexpr, SIZE: tl.constexpr):
        """c = a b, of one tile."""
        row, col = tl.arange(0, SIZE)[:, None], tl.arange(0, SIZE)[None, :]
        at = row * SIZE + col
        acc = tl.zeros([SIZE, SIZE], tl.float32)
        tl.store(c + at, product(tl.load(a + at), tl.load(b + at), acc, HOW))


def table(first: str) -> list[list[str]]:
    """The cells of the rows of the page's table whose heading begins with the cell ``first``."""
    _, found, rest = TEXT.partition(f"\n| {first} |")
    assert found, f"the page has no table of {first}"
    lines = rest.partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" |")] for line in lines]


def cited(text: str) -> set[int]:
    """The numbers in "equation 12", "equations 7 to 9" and "equations 10, 11, 13, 14"."""
    numbers = set()
    text = re.sub(r"Source:.*?(\n *\n|\"\"\")", r"\1", text, flags=re.DOTALL)  # a paper's own
    for found in re.findall(r"equations?\s+(\d+(?:(?:\s*,\s*|\s+and\s+|\s+to\s+)\d+)*)", text):
        for part in re.split(r"\s*,\s*|\s+and\s+", found):
            first, *last = map(int, re.split(r"\s+to\s+", part))
            numbers |= set(range(first, (last or [first])[0] + 1))
    return numbers


def test_citations_are_read() -> None:
    assert cited("equation 12.") == {12}
    assert cited("Equations: equations 7 to 9, equation\n 2") == {2, 7, 8, 9}
    assert cited("(equations 10, 11,\n  13 and 14)") == {10, 11, 13, 14}
    assert cited("Source: a paper,\nequations 98 and 99.\n\nequation 3") == {3}
    assert cited('Source: equation 99."""\nequation 4') == {4}


def test_equations_cited_are_those_that_there_are() -> None:
    tags = [int(number) for number in re.findall(r"\\tag\{(\d+)\}", TEXT)]
    assert tags == list(range(1, len(tags) + 1))
    by_file = {path.name: cited(path.read_text()) for path in KERNELS.glob("*.py")}
    missing = {name: numbers - set(tags) for name, numbers in by_file.items()}
    assert not any(missing.values()), missing
    assert set().union(*by_file.values()) == set(tags)


def test_each_kernel_cites_what_the_page_says_it_computes() -> None:
    """A number that exists may still be the wrong one."""
    for name, computes in table("kernel"):
        path = KERNELS / f"{name.strip('`')}.py"
        if path.exists():  # finish_kernel stands beside grad_weights_kernel
            numbers: set[int] = set()
            for first, last in re.findall(r"\((\d+)\)(?: to \((\d+)\))?", computes):
                numbers |= set(range(int(first), int(last or first) + 1))
            assert cited(path.read_text()) <= numbers, name


def test_equations_named_in_the_text_exist() -> None:
    prose = re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL)
    named = {int(number) for number in re.findall(r"(?<=[ (])\((\d+)\)", prose)}
    assert named == {int(number) for number in re.findall(r"\\tag\{(\d+)\}", TEXT)}


@needs_triton
@pytest.mark.parametrize("family", ["sm_80", "sm_90", "sm_100", "gfx942", "interpreter"])
@pytest.mark.parametrize("setting", ["highest", "high", "medium"])
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str
)
def test_the_policy_is_that_of_the_table(dtype: torch.dtype, setting: str, family: str) -> None:
    from nalu_kernels.triton.device import Chip
    from nalu_kernels.triton.precision import products

    maker = family if family == "gfx942" else "NVIDIA"
    facts = (str(dtype).removeprefix("torch."), setting, maker)
    rows = [
        row[3:]
        for row in table("dtype")
        if all(cell in (fact, "any") for cell, fact in zip(row, facts, strict=False))
    ]
    assert len(rows) == 1, rows
    chip = Chip(family, 100)
    found = (
        *products(dtype, setting, chip, backward=False),
        *products(dtype, setting, chip, backward=True),
    )
    assert list(found) == rows[0]


@needs_triton
@pytest.mark.parametrize("setting", ["highest", "high", "medium"])
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str
)
@pytest.mark.parametrize("family", ["sm_90", "gfx942"])
def test_small_layers_have_a_policy_of_their_own(
    dtype: torch.dtype, setting: str, family: str
) -> None:
    from nalu_kernels.triton import trace
    from nalu_kernels.triton.device import Chip

    (row,) = (row for row in table("dtype") if row[0] == "any, small layer")
    assert row[1:3] == ["any", "any"]
    chip, small = Chip(family, 100), trace.Sample(64, 2, 1, dtype, gates=1)
    ways = (
        trace.forward(small, chip, save=True, setting=setting),
        trace.backward(small, chip, setting=setting),
    )
    for launches, cells in zip(ways, (row[3:5], row[5:7]), strict=True):
        forms = [launch.options["FORM"] for launch in launches]
        assert forms
        assert all([form.linear_product, form.log_product] == cells for form in forms)


@needs_triton
def test_launches_are_those_of_the_table() -> None:
    from nalu_kernels.triton import trace
    from nalu_kernels.triton.device import Chip

    chip = Chip("sm_90", 132)
    tiny = trace.Sample(64, 2, 1, gates=1, bias=True)
    medium = trace.Sample(300, 512, 384, gates=384)
    large = trace.Sample(2048, 512, 384, gates=384)
    parameters, x = ~1, 1
    expected = {
        "forward, few rows of tiles": trace.forward(medium, chip, save=True),
        "forward, many rows of tiles": trace.forward(large, chip, save=True),
        "forward, empty batch": trace.forward(medium._replace(B=0), chip, save=True),
        "backward, all gradients, small layer, batch in one part": trace.backward(tiny, chip),
        "backward, all gradients, batch in one part": trace.backward(medium, chip),
        "backward, all gradients, batch in several parts": trace.backward(large, chip),
        "backward, all gradients, gate per sample, several rows of tiles of outputs": (
            trace.backward(medium._replace(gates=1), chip)
        ),
        "backward, the parameters' alone, batch in one part": (
            trace.backward(medium, chip, needed=parameters)
        ),
        "backward, the input's alone, few rows of tiles": trace.backward(medium, chip, needed=x),
        "backward, the input's alone, many rows of tiles": trace.backward(large, chip, needed=x),
    }
    launched = {
        call: ", ".join(f"`{one.kernel.__name__.removesuffix('_kernel')}`" for one in launches)
        for call, launches in expected.items()
    }
    assert {call: names or "nothing" for call, names in launched.items()} == dict(table("call"))


def bound(cell: str) -> float:
    """2^{-7} or 3 \\cdot 2^{-16}; 0 for words."""
    found = re.fullmatch(r"\$(?:(\d+) \\cdot )?2\^\{-(\d+)\}\$", cell)
    return int(found[1] or 1) * 2.0 ** -int(found[2]) if found else 0.0


@needs_triton
@pytest.mark.parametrize("row", table("name"), ids=lambda row: row[0])
def test_products_err_no_more_than_the_page_says(row: list[str], rng: Generator) -> None:
    """Of the kernels' own ``product``: one term in each sum, so nothing but the operands errs."""
    name, allowed = row[0], bound(row[3])
    assert (allowed == 0) == (name == "ieee")
    device, size = "cuda" if torch.cuda.is_available() else "cpu", 64
    a = torch.diag(1 + torch.rand(size, generator=rng))
    b = (1 + torch.rand(size, size, generator=rng)) * 2.0 ** torch.randint(
        -12, 12, (size, size), generator=rng
    )
    # Where rounding errs most: just above 1, half way between two numbers of each piece.
    a[0, 0] = b[0, 0] = 1 + 2.0**-8 + 2.0**-16
    a[1, 1] = b[1, 1] = 1 + 2.0**-11
    found = torch.empty(size, size, device=device)
    product_kernel[(1,)](a.to(device), b.to(device), found, HOW=name, SIZE=size)
    exact = a.double() @ b.double()
    error = ((found.cpu().double() - exact) / exact).abs().max().item()
    assert error <= allowed + 2.0**-23  # what float32's own summing adds
    # A bound that is far too large would say nothing.
    assert error >= allowed / 16 or name == "bf16x6"


def test_the_example_of_the_logarithm() -> None:
    """An |L| of 16: of what size the relative error of m becomes."""
    errors = {row[0]: bound(row[3]) for row in table("name")}
    assert abs(torch.log(torch.tensor(1e-7))) > 16
    assert 16 * errors["bf16"] == 1 / 8 and 16 * errors["bf16x3"] < 2**-10


def by_the_equations(
    kind: Kind, tensors: dict[str, Tensor], eps: float, dy: Tensor
) -> dict[str, Tensor]:
    """Output and gradients, equation by equation as the page has them."""
    x, W_hat, M_hat = tensors["input"], tensors["W_hat"], tensors["M_hat"]
    G, bias = tensors.get("G"), tensors.get("gate_bias")
    W_hat_mul = tensors.get("W_hat_mul", W_hat)
    M_hat_mul = tensors.get("M_hat_mul", M_hat)
    W = torch.tanh(W_hat) * torch.sigmoid(M_hat)  # 1
    W_mul = torch.tanh(W_hat_mul) * torch.sigmoid(M_hat_mul)
    a = x @ W.T  # 2
    L = torch.log(abs(x) + eps)  # 3
    m = torch.exp(L @ W_mul.T)  # 4
    if G is not None:
        g = torch.sigmoid(x @ G.T + (0 if bias is None else bias))  # 5
        y = g * a + (1 - g) * m  # 6
        da = dy * g  # 7
        dl = (dy * (1 - g)) * m  # 8
        dg = dy * a - dy * m  # 9
        if kind.gates == "sample":
            dg = dg.sum(1, keepdim=True)
        dz = dg * g * (1 - g)
    elif kind.log_space:
        y, da, dl = m, torch.zeros_like(dy), dy * m
    else:
        y, da, dl = a, dy, torch.zeros_like(dy)
    dW, dW_mul = da.T @ x, dl.T @ L
    if not kind.untied:
        dW = dW + dW_mul

    def grad_weight(dW: Tensor, W_hat: Tensor, M_hat: Tensor) -> tuple[Tensor, Tensor]:
        t, s = torch.tanh(W_hat), torch.sigmoid(M_hat)
        return (dW * s) * (1 - t * t), (dW * t) * ((1 - s) * s)  # 10, 11

    found = {"output": y}
    found["W_hat"], found["M_hat"] = grad_weight(dW, W_hat, M_hat)
    if kind.untied:
        found["W_hat_mul"], found["M_hat_mul"] = grad_weight(dW_mul, W_hat_mul, M_hat_mul)
    dx = da @ W
    if G is not None:
        dx = dx + dz @ G
        found["G"] = dz.T @ x  # 13
        if bias is not None:
            found["gate_bias"] = dz.sum(0)  # 14
    found["input"] = dx + (dl @ W_mul) / (abs(x) + eps) * torch.sign(x)  # 12
    return found


@pytest.mark.parametrize("shape", [(11, 7, 5), (3, 4, 1), (4, 0, 3), (0, 3, 2)], ids=str)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_equations_are_what_autograd_finds(
    kind: Kind, shape: tuple[int, int, int], rng: Generator
) -> None:
    layer = draw(rng, kind, shape, torch.float64)
    if layer.tensors["input"].numel():
        layer.tensors["input"][0, 0] = 0  # where the logarithm's slope is taken as 0
    expected = outcome(reference, layer)
    eps, dy = layer.options["eps"], layer.grad_output
    found = by_the_equations(kind, layer.tensors, eps, dy)
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert found[name].shape == tensor.shape
        # The gradient at x near 0 is some 1e7 times the others: relative to each number.
        scale = tensor.abs().amax().item() if tensor.numel() else 0.0
        torch.testing.assert_close(found[name], tensor, rtol=1e-9, atol=1e-14 * scale, msg=name)


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", ["docs/triton.md", "README.md"])
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page
    links = re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8"))
    broken = []
    for link in links:
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        whole = target.resolve().is_relative_to(ROOT) and target.exists()
        if whole and anchor:
            whole = anchor in anchors(target.read_text(encoding="utf-8"))
        if not whole:
            broken.append(link)
    assert links and not broken


def test_mathematics_that_github_renders() -> None:
    assert TEXT.count("```") % 2 == 0 and r"\operatorname" not in TEXT
    prose = re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL)
    for line in prose.splitlines():
        formulas = re.findall(r"\$([^$]*)\$", line)
        assert line.count("$") == 2 * len(formulas), line
        for formula in formulas:
            assert formula.strip() == formula != "", line
            # Markdown takes a backslash before punctuation, and in a table a bar, for its own.
            assert not re.search(r"\\[^a-zA-Z]", formula), line
            assert not (line.startswith("|") and "|" in formula), line
