"""Laws of textbook physics: products, quotients, powers, sums, and sums of products.

Each input is uniform on its range inside. Outside it is uniform between the range's largest
magnitude and twice that; where the range has numbers of both signs, either sign is as likely.
Nature's constants are inputs like others, and vary: no law needs a number but those in its text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .training import generator

Range = tuple[float, float]

KINDS = (
    "products, quotients and powers",
    "sums and differences",
    "sums of products",
    "products and quotients of sums",
    "three levels",
)
_POWERS, _SUMS, _OF_PRODUCTS, _OF_SUMS, _THREE = KINDS


@dataclass(frozen=True)
class Law:
    """``kind`` is one of KINDS, ``formula`` text that sympy and Python read alike; ``inputs`` are
    names and ranges."""

    name: str
    kind: str
    formula: str
    inputs: dict[str, Range]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.inputs)

    def sympy(self) -> Any:
        """The formula as an expression of symbols with the inputs' names."""
        import sympy

        return sympy.sympify(self.formula, locals={name: sympy.Symbol(name) for name in self.names})

    def __call__(self, x: Tensor) -> Tensor:
        """The targets (rows,) of inputs (rows, inputs)."""
        import sympy

        symbols = [sympy.Symbol(name) for name in self.names]
        function = sympy.lambdify(symbols, self.sympy(), modules=[{"sqrt": torch.sqrt}])
        y: Tensor = function(*x.unbind(1))
        return y

    def inside(self, rows: int, *key: str | int) -> Tensor:
        """Inputs (rows, inputs) in float64, the same for the same ``key``."""
        low, high = torch.tensor([*self.inputs.values()], dtype=torch.float64).T
        return low + (high - low) * self._uniform(rows, "inside", *key)

    def outside(self, rows: int, *key: str | int) -> Tensor:
        """Likewise, beyond all ranges."""
        low, high = torch.tensor([*self.inputs.values()], dtype=torch.float64).T
        largest = torch.maximum(low.abs(), high.abs())
        negative = (low < 0) & (self._uniform(rows, "sign", *key) < 0.5)
        size = largest * (1 + self._uniform(rows, "outside", *key))
        return torch.where(negative, -size, size)

    def _uniform(self, rows: int, *key: str | int) -> Tensor:
        source = generator("law", self.name, *key)
        return torch.rand(rows, len(self.inputs), generator=source, dtype=torch.float64)

    @property
    def ranges(self) -> str:
        """For example "u 5 to 9; others 1 to 2"."""
        same: dict[Range, list[str]] = {}
        for name, of in self.inputs.items():
            same.setdefault(of, []).append(name)
        *first, last = [", ".join(names) for names in same.values()]
        if "," in last:
            last = "others" if first else "all"
        parts = zip([*first, last], same, strict=True)
        return "; ".join(f"{names} {low:g} to {high:g}" for names, (low, high) in parts)


def _each(names: str, low: float, high: float) -> dict[str, Range]:
    return dict.fromkeys(names.split(), (low, high))


_LAWS = (
    Law("force", _POWERS, "m*a", _each("m a", 1, 5)),
    Law("Joule heating", _POWERS, "i**2*r", _each("i r", 1, 4)),
    Law("ideal gas", _POWERS, "n*r*t/v", _each("n r t v", 1, 4)),
    Law("gravity", _POWERS, "g*m1*m2/r**2", _each("g m1 m2 r", 1, 4)),
    Law("kinetic energy", _POWERS, "m*v**2/2", _each("m v", 1, 5)),
    Law("drag", _POWERS, "rho*v**2*c*a/2", _each("rho v c a", 1, 3)),
    Law("cylinder", _POWERS, "pi*r**2*h", _each("r h", 1, 5)),
    Law("oscillator", _POWERS, "sqrt(k/m)", _each("k m", 1, 5)),
    Law("orbital period", _POWERS, "sqrt(a**3/(g*m))", _each("a g m", 1, 4)),
    Law("elongation", _POWERS, "f*l/(e*a)", _each("f l e a", 1, 4)),
    Law("net force", _SUMS, "f1 + f2 - f3 - f4", _each("f1 f2 f3 f4", 1, 5)),
    Law("mean of five", _SUMS, "(a + b + c + d + e)/5", _each("a b c d e", 1, 5)),
    Law(
        "charges in a volume",
        _SUMS,
        "q1 + q2 + q3 + q4 + q5 + q6 - q7 - q8 - q9",
        _each("q1 q2 q3 q4 q5 q6 q7 q8 q9", 1, 3),
    ),
    Law("final speed", _OF_PRODUCTS, "v + a*t", _each("v a t", 1, 4)),
    Law("distance", _OF_PRODUCTS, "x + v*t + a*t**2/2", _each("x v t a", 1, 3)),
    Law("energy", _OF_PRODUCTS, "m*g*h + m*v**2/2", _each("m g h v", 1, 4)),
    Law("Bernoulli", _OF_PRODUCTS, "p + rho*g*h + rho*v**2/2", _each("p rho g h v", 1, 3)),
    Law("Lorentz force", _OF_PRODUCTS, "q*e + q*v*b", _each("q e v b", 1, 4)),
    Law("work", _OF_PRODUCTS, "f1*d1 + f2*d2 + f3*d3", _each("f1 d1 f2 d2 f3 d3", 1, 4)),
    Law("cross product", _OF_PRODUCTS, "a*d - b*c", _each("a b c d", -3, 3)),
    Law(
        "voltage left",
        _OF_PRODUCTS,
        "u - i1*r1 - i2*r2 - i3*r3",
        _each("u", 5, 9) | _each("i1 r1 i2 r2 i3 r3", 1, 2),
    ),
    Law(
        "product of 4-vectors",
        _OF_PRODUCTS,
        "a0*b0 - a1*b1 - a2*b2 - a3*b3",
        _each("a0 b0 a1 b1 a2 b2 a3 b3", -3, 3),
    ),
    Law(
        "moment of inertia",
        _OF_PRODUCTS,
        "m1*r1**2 + m2*r2**2 + m3*r3**2",
        _each("m1 r1 m2 r2 m3 r3", 1, 3),
    ),
    Law(
        "parallelepiped",
        _OF_PRODUCTS,
        "a*(e*i - f*h) + b*(f*g - d*i) + c*(d*h - e*g)",
        _each("a b c d e f g h i", -2, 2),
    ),
    Law("warming", _OF_SUMS, "m*c*(t2 - t1)", _each("m c", 1, 4) | _each("t1 t2", -3, 3)),
    Law("load's power", _OF_SUMS, "u**2/(r1 + r2)", _each("u r1 r2", 1, 4)),
    Law(
        "heat conduction",
        _OF_SUMS,
        "k*a*(t1 - t2)/d",
        _each("k a d", 1, 4) | _each("t1 t2", -3, 3),
    ),
    Law(
        "Doppler shift",
        _OF_SUMS,
        "f*(c + v)/(c - u)",
        {"f": (1, 3), "c": (6, 9)} | _each("v u", 1, 2),
    ),
    Law("lens", _OF_SUMS, "u*v/(u + v)", _each("u v", 1, 5)),
    Law(
        "radiation",
        _OF_SUMS,
        "s*a*(t1**4 - t2**4)",
        _each("s a", 1, 3) | {"t1": (2, 3), "t2": (1, 2)},
    ),
    Law(
        "spectral line",
        _OF_SUMS,
        "r*(1/n1**2 - 1/n2**2)",
        {"r": (1, 4), "n1": (1, 2), "n2": (3, 5)},
    ),
    Law("three in parallel", _THREE, "1/(1/r1 + 1/r2 + 1/r3)", _each("r1 r2 r3", 1, 5)),
    Law("series and parallel", _THREE, "r1 + r2*r3/(r2 + r3)", _each("r1 r2 r3", 1, 5)),
    Law("speed", _THREE, "sqrt(x**2 + y**2 + z**2)", _each("x y z", 1, 5)),
    Law("centre of mass", _THREE, "(m1*x1 + m2*x2)/(m1 + m2)", _each("m1 x1 m2 x2", 1, 5)),
    Law(
        "mixed temperature",
        _THREE,
        "(m1*c1*t1 + m2*c2*t2)/(m1*c1 + m2*c2)",
        _each("m1 c1 t1 m2 c2 t2", 1, 4),
    ),
    Law(
        "Wheatstone bridge",
        _THREE,
        "u*(r2/(r1 + r2) - r4/(r3 + r4))",
        _each("u r1 r2 r3 r4", 1, 4),
    ),
    Law("added velocities", _THREE, "(u + v)/(1 + u*v/c**2)", _each("u v", 1, 2) | {"c": (3, 4)}),
)
LAWS = {law.name: law for law in _LAWS}
