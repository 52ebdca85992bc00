"""Whatever a module's parameters are called, the numbers decide; and what is not understood is
listed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import linear

from nalu_kernels import NAC, NALU, convert


def fill(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape))


def weight(W: Tensor, M: Tensor) -> Tensor:
    return torch.tanh(W) * torch.sigmoid(M)


def nalu(x: Tensor, g: Tensor, W: Tensor, W_mul: Tensor) -> Tensor:
    return g * linear(x, W) + (1 - g) * torch.exp(linear(torch.log(x.abs() + 1e-8), W_mul))


class Named(nn.Module):
    """A NAC by any names, of which Ŵ's comes first or last."""

    def __init__(self, W: str, M: str, last: bool = False) -> None:
        super().__init__()
        self.both = W, M
        for name in (M, W) if last else (W, M):
            self.register_parameter(name, fill(3, 4))

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, weight(*(getattr(self, name) for name in self.both)))


class Twice(nn.Module):
    """Each parameter registered under two names."""

    def __init__(self, transposed: bool = False) -> None:
        super().__init__()
        self._W_hat, self._M_hat = (fill(4, 3) if transposed else fill(3, 4) for _ in range(2))
        self.register_parameter("W_hat", self._W_hat)
        self.register_parameter("M_hat", self._M_hat)

    def forward(self, x: Tensor) -> Tensor:
        W = weight(self.W_hat, self.M_hat)
        return x @ W if len(W) == 4 else linear(x, W)


class OfAList(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.ParameterList([fill(3, 4), fill(3, 4)])

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, weight(self.weights[1], self.weights[0]))


class OfADict(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.own = nn.ParameterDict({"W_hat": fill(3, 4), "M_hat": fill(3, 4)})

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, weight(self.own["W_hat"], self.own["M_hat"]))


class OfLinears(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = (nn.Linear(4, 3, bias=False) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, weight(self.a.weight, self.b.weight))


class ALinear(nn.Linear):
    """Itself one, whose weight is Ŵ."""

    def __init__(self) -> None:
        super().__init__(4, 3, bias=False)
        self.M_hat = fill(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, weight(self.weight, self.M_hat))


class OneGate(nn.Module):
    """All square, and the gate's parameter comes first."""

    def __init__(self, gate: str = "G_add") -> None:
        super().__init__()
        self.gate_name = gate
        self.register_parameter(gate, fill(4, 4))
        self.W_h, self.M_h = fill(4, 4), fill(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        W, G = weight(self.W_h, self.M_h), getattr(self, self.gate_name)
        return nalu(x, torch.sigmoid(linear(x, G)), W, W)


class OfTwo(nn.Module):
    """Two NACs of different kinds, called anything, and a gate called anything."""

    def __init__(self) -> None:
        super().__init__()
        self.second, self.first = OfLinears(), Named("tanh_weights", "sigmoid_weights")
        self.chooser = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        g, logs = torch.sigmoid(self.chooser(x)), torch.log(x.abs() + 1e-8)
        return g * self.first(x) + (1 - g) * torch.exp(self.second(logs))


MODULES: dict[str, Callable[[], nn.Module]] = {
    **{
        f"{W}, {M}": lambda W=W, M=M: Named(W, M)
        for W, M in (
            ("W_h", "M_h"),
            ("tanh_weights", "sigmoid_weights"),
            ("What", "Mhat"),
            ("_W_hat", "_M_hat"),
            ("weight_hat", "mask_hat"),
            ("first", "second"),
        )
    },
    "M first": lambda: Named("W_hat", "M_hat", last=True),
    "twice": Twice,
    "twice, transposed": lambda: Twice(transposed=True),
    "a list": OfAList,
    "a dict": OfADict,
    "Linears": OfLinears,
    "a Linear": ALinear,
    "G_add": OneGate,
    "any gate": lambda: OneGate("chooser"),
    "two NACs": OfTwo,
}


@pytest.mark.parametrize("case", MODULES)
def test_replaced_whatever_the_names(case: str, rng: Generator) -> None:
    """And checkpoints with those names still load, and so do the converted model's."""
    model = nn.Sequential(MODULES[case]())
    x = torch.rand(5, 4, generator=rng)
    expected, module = model(x), model[0]
    original = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    report = convert(model)
    assert isinstance(model[0], (NAC, NALU)) and not report.left
    torch.testing.assert_close(model(x), expected)
    converted = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for state in (original, converted):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
        model.load_state_dict(state, strict=True)
        torch.testing.assert_close(model(x), expected)
    assert report.revert()[0] is module
    torch.testing.assert_close(model(x), expected)


class Biased(Named):
    """A parameter more than a NAC has."""

    def __init__(self) -> None:
        super().__init__("W_hat", "M_hat")
        self.bias = fill(3)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.bias


class GatedByNothing(nn.Module):
    """A gate that does not look at the input, as in iNALU."""

    def __init__(self) -> None:
        super().__init__()
        self.g, self.nac = fill(3), Named("W_hat", "M_hat")

    def forward(self, x: Tensor) -> Tensor:
        W = weight(self.nac.W_hat, self.nac.M_hat)
        return nalu(x, torch.sigmoid(self.g), W, W)


class Pair(Named):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return super().forward(x), x


class Flat(Named):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).flatten()


class Constant(Named):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).detach()


class NeverFinite(Named):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / 0


class Doubled(Named):
    """By names that tell nothing; but there are a tanh and a sigmoid in what it calls."""

    def __init__(self) -> None:
        super().__init__("a", "b")

    def forward(self, x: Tensor) -> Tensor:
        return 2 * linear(x, weight(self.a, self.b))


class MyNALU(nn.Module):
    """Known by its class alone."""

    def __init__(self) -> None:
        super().__init__()
        self.both = fill(2, 3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, weight(self.both[0], self.both[1]))


class NeuralAccumulatorCell(MyNALU):
    """So is this."""


class Unequal(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.W_hat, self.M_hat = fill(3, 4), fill(1, 4)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, weight(self.W_hat, self.M_hat))


class Lazy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.W_hat, self.M_hat = (nn.UninitializedParameter() for _ in range(2))


class OfModules(nn.Module):
    """Ŵ and M̂ are the weights of Linears in a container of any kind."""

    def __init__(self, container: Callable[[list[nn.Module]], nn.Module]) -> None:
        super().__init__()
        self.all = container([nn.Linear(4, 3, bias=False) for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, weight(*(each.weight for each in self.all.children())))


class Stacked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.theta = fill(2, 3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, weight(*self.theta))


hyperbolic, logistic = torch.tanh, torch.special.expit


class Swapped(nn.Module):
    """The gate opens the product; tanh and sigmoid are modules or go by other names."""

    def __init__(self, modules: bool) -> None:
        super().__init__()
        self.a, self.b, self.c = fill(3, 4), fill(3, 4), fill(3, 4)
        self.t, self.s = (nn.Tanh(), nn.Sigmoid()) if modules else (hyperbolic, logistic)

    def forward(self, x: Tensor) -> Tensor:
        W = self.t(self.a) * self.s(self.b)
        return nalu(x, 1 - self.s(linear(x, self.c)), W, W)


class TwoPairsAdded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = (fill(3, 4) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        W = hyperbolic(self.a) * logistic(self.b)
        return linear(x, W + hyperbolic(self.c) * logistic(self.d))


class MadeLater(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = self.b = None

    def forward(self, x: Tensor) -> Tensor:
        if self.a is None:
            self.a, self.b = fill(3, 4), fill(3, 4)
        return linear(x, weight(self.a, self.b))


NOT_OF_ONE = "its parameters are not those of a layer: "


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (Biased, NOT_OF_ONE + "W_hat (3, 4), M_hat (3, 4), bias (3,)"),
        (GatedByNothing, NOT_OF_ONE + "g (3,), nac.W_hat (3, 4), nac.M_hat (3, 4)"),
        (MyNALU, NOT_OF_ONE + "both (2, 3, 4)"),
        (NeuralAccumulatorCell, NOT_OF_ONE + "both (2, 3, 4)"),
        (Unequal, NOT_OF_ONE + "W_hat (3, 4), M_hat (1, 4)"),
        (Lazy, NOT_OF_ONE + "W_hat not yet, M_hat not yet"),
        (lambda: Pair("W_h", "M_h"), "its forward returns a tuple, not a tensor"),
        (lambda: Flat("W_h", "M_h"), "its forward returns shape (72,) for (24, 4), not (rows, "),
        (lambda: Constant("W_h", "M_h"), "its output has no gradient"),
        (lambda: NeverFinite("W_h", "M_h"), "none of 4 layers agrees with it; each is finite "),
        (lambda: OfModules(nn.ModuleList), NOT_OF_ONE + "all.0.weight (3, 4), all.1.weight"),
        (lambda: OfModules(lambda each: nn.Sequential(*each)), NOT_OF_ONE + "all.0.weight"),
        (
            lambda: OfModules(lambda each: nn.ModuleDict(zip("ab", each, strict=True))),
            NOT_OF_ONE + "all.a.weight (3, 4), all.b.weight (3, 4)",
        ),
        (Stacked, NOT_OF_ONE + "theta (2, 3, 4)"),
        (lambda: Swapped(modules=True), "none of 12 layers agrees with it; the closest is off by "),
        (
            lambda: Swapped(modules=False),
            "none of 12 layers agrees with it; the closest is off by ",
        ),
        (TwoPairsAdded, NOT_OF_ONE + "a (3, 4), b (3, 4), c (3, 4), d (3, 4)"),
        (MadeLater, NOT_OF_ONE + "none"),
        (Doubled, "none of 4 layers agrees with it; the closest is off by "),
    ],
)
def test_what_is_not_understood_is_listed(make: Callable[[], nn.Module], reason: str) -> None:
    module = make()
    report = convert(nn.Sequential(module))
    assert report.model[0] is module
    ((path, left, why),) = report.left
    assert (path, left) == ("0", module) and why.startswith(reason)


MADE = """
class Made(nn.Module):
    def __init__(self):
        super().__init__()
        self.W, self.M = fill(3, 4), fill(3, 4)

    def forward(self, x):
        return linear(x, weight(self.W, self.M))
"""


def test_a_class_made_by_exec_is_one_too() -> None:
    """It says that it is of the module builtins."""
    names = {"nn": nn, "fill": fill, "linear": linear, "weight": weight}
    exec(MADE, names)
    assert names["Made"].__module__ == "builtins" and convert(names["Made"]()).replaced


class WeirdGate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.W_hat, self.M_hat, self.G = fill(3, 4), fill(3, 4), fill(2, 4)

    def forward(self, x: Tensor) -> Tensor:
        W = weight(self.W_hat, self.M_hat)
        return nalu(x, torch.sigmoid(linear(x, self.G)).sum(-1, keepdim=True), W, W)


def test_a_gate_of_another_shape_is_named() -> None:
    ((_, _, reason),) = convert(nn.Sequential(WeirdGate())).left
    shapes = "W_hat (3, 4), M_hat (3, 4), G (2, 4)"
    assert reason == NOT_OF_ONE + shapes


class Whole(nn.Module):
    """A model of layers is not taken for one, whatever it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Named("W_hat", "M_hat"), nn.Linear(3, 2)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class NALU2(nn.Module):
    """A stack of layers that is called as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(OneGate(), nn.Sequential(OneGate()))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


@pytest.mark.parametrize(
    ("make", "paths"), [(Whole, ["layers.0"]), (NALU2, ["model.0", "model.1.0"])]
)
def test_a_model_of_layers_is_not_listed(make: Callable[[], nn.Module], paths: list[str]) -> None:
    report = convert(make())
    assert [each.path for each in report.replaced] == paths and not report.left


def test_copied_parameters_keep_what_is_noted_on_them() -> None:
    module = Twice(transposed=True)
    module.W_hat.no_decay = True
    layer = convert(nn.Sequential(module)).model[0]
    assert layer.W_hat is not module.W_hat and layer.W_hat.no_decay


def test_a_cell_that_squashes_its_sums_is_not_listed() -> None:
    """There are a tanh and a sigmoid, but not of parameters; and those of a part are the part's."""

    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.candidate, self.update = fill(3, 4), fill(3, 4)
            self.nac = Named("W_hat", "M_hat")

        def forward(self, x: Tensor) -> Tensor:
            u = torch.sigmoid(linear(x, self.update))
            return u * torch.tanh(linear(x, self.candidate)) + (1 - u) * self.nac(x)

    report = convert(nn.Sequential(Cell()))
    assert [each.path for each in report.replaced] == ["0.nac"] and not report.left
