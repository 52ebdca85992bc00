"""The layers against the numbers of their authors' own code, in tests/golden: outputs, gradients,
regularisers with theirs, and parameters after a step."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nalu_kernels import (
    GNALU,
    INALU,
    NAC,
    NACNMU,
    NALU,
    NAU,
    NMRU,
    NMU,
    NPU,
    NRU,
    SNMU,
    NACSigma,
    RealNPU,
    reference,
)

GOLDEN = Path(__file__).parent / "golden"
BOUND = 1e-12  # of the largest difference, as a share of the array's largest number
# Where a sigmoid or tanh is saturated, 1 - s or 1 - tanh² cancels, and theirs are off: the bounds
# are what is measured, rounded up. Of c5's G ours are 2e-9 from numbers of 60 digits, and theirs
# 1e-7. In c5 the raw weights are ±19, and theirs are 0.
SATURATED = {
    ("nalu_tied", "c0", "grad.nac_add.W_hat"): 8e-11,
    ("nalu_tied_bias", "c0", "grad.nac_add.W_hat"): 8e-11,
    ("nalu_untied", "c0", "grad.nac_add.W_hat"): 8e-11,
    ("inalu", "c5", "grad.W_m_hat"): 4e-12,
    ("inalu_shared", "c5", "grad.W_hat"): 4e-12,
    ("inalu_matrix_gate", "c5", "grad.W_hat"): 4e-12,
    ("inalu_vector_gate", "c5", "grad.W_hat"): 4e-12,
    ("gnalu", "c5", "grad.nac_add.M_hat"): 1.5e-8,
    ("gnalu", "overflow", "grad.nac_add.M_hat"): 1.5e-8,
    ("inalu_matrix_gate", "c5", "grad.G"): 1e-7,
    ("inalu_shared", "c2", "grad.W_hat"): 3e-11,
}
# Of options that these layers do not have, as docs/family.md says: the sum of Frobenius norms; and
# of the cases "_oobreg" the term for what is out of bounds, and the squared one.
NOT_OURS = ("reg.sum_fro",)

Tensors = dict[str, Tensor]


class Case(NamedTuple):
    """One of a file, with its arrays by what stands after the case's name."""

    file: str
    name: str
    arrays: Mapping[str, Any]

    def tensor(self, name: str) -> Tensor:
        return torch.from_numpy(np.array(self.arrays[name]))

    @property
    def shape(self) -> tuple[int, int]:
        """Inputs and outputs."""
        return self.arrays["input"].shape[1], self.arrays["output"].shape[1]

    @property
    def training(self) -> bool:
        return not self.name.endswith("_eval")


class Target(NamedTuple):
    """What computes the cases of a file."""

    layer: Callable[[int, int], nn.Module]
    names: dict[str, str]  # their parameters', and ours
    # By the function of that name, of a case and our tensors: the input, then the parameters.
    function: Callable[[Any, Case, Tensors], Tensor]
    turned: bool = False  # whether their matrices are (in, out)


def of_nmu(of: Any, case: Case, t: Tensors) -> Tensor:
    """The authors' options are made of the layer."""
    if case.name.endswith("_oobreg"):
        return of.nmu(t["input"], t["W"].clamp(0, 1))
    if case.name.endswith("_normalized"):
        std = t["input"].std()
        return of.nmu(t["input"] / std, t["W"]) * std ** t["W"].sum(1)
    return of.nmu(t["input"], t["W"])


def of_snmu(of: Any, case: Case, t: Tensors) -> Tensor:
    if "noise" not in case.arrays:
        return of.nmu(t["input"], t["W"])
    noise = case.tensor("noise")
    if of is reference:
        return of.snmu(**t, noise=noise)
    return of.nmu(t["input"] * noise, t["W"]) / of.nmu(noise, t["W"])


def of_nac_sigma(of: Any, case: Case, t: Tensors) -> Tensor:
    if of is not reference:
        return of.nac(**t)
    saturated = torch.full_like(t["W_hat"], 20.0)  # whose tanh is 1
    return of.nac(t["input"], saturated, t["W_hat"], log_space=True)


def of_nac_nmu(of: Any, case: Case, t: Tensors) -> Tensor:
    return of.real_npu(t["input"].abs(), t["W"], torch.ones(case.shape[0]), eps=1e-7)


def of_inalu(of: Any, case: Case, t: Tensors) -> Tensor:
    options = {name: float(case.arrays[name]) for name in ("eps", "omega")}
    return of.inalu(**t, **options, per_sample=case.file == "inalu_vector_gate")


def of_npu(straight_through: bool) -> Callable[[Any, Case, Tensors], Tensor]:
    def function(of: Any, case: Case, t: Tensors) -> Tensor:
        eps = float(case.arrays["eps"])
        name = "npu" if "W_im" in t else "real_npu"
        return getattr(of, name)(**t, eps=eps, straight_through=straight_through)

    return function


def by_eps(name: str, **options: Any) -> Callable[[Any, Case, Tensors], Tensor]:
    return lambda of, case, t: getattr(of, name)(**t, **options)


PAIR = {"W_hat": "W_hat", "M_hat": "M_hat"}
UNTIED = {"W_a_hat": "W_hat", "M_a_hat": "M_hat", "W_m_hat": "W_hat_mul", "M_m_hat": "M_hat_mul"}
GATED = {"nac_add.W_hat": "W_hat", "nac_add.M_hat": "M_hat", "G_add": "G"}
MUL = {"nac_mul.W_hat": "W_hat_mul", "nac_mul.M_hat": "M_hat_mul"}
JULIA = {"Re": "W_re", "Im": "W_im", "g": "g"}
MISTRY = {"W_real": "W_re", "W_im": "W_im", "g": "g"}


def modified(*sizes: int) -> nn.Module:
    return RealNPU(*sizes, gate_gradient="clamped", eps=2.0**-23, modified=True)


def inalu(**options: Any) -> Callable[[int, int], nn.Module]:
    return lambda *sizes: INALU(*sizes, **options)


def clamped(kind: type[NPU | RealNPU]) -> Callable[[int, int], nn.Module]:
    return lambda *sizes: kind(*sizes, gate_gradient="clamped", eps=2.0**-23)


TARGETS = {
    "nac_add": Target(NAC, PAIR, by_eps("nac")),
    "nac_mul": Target(
        lambda *sizes: NAC(*sizes, log_space=True), PAIR, by_eps("nac", log_space=True)
    ),
    "nac_mul_sigma": Target(NACSigma, {"W_hat": "W_hat"}, of_nac_sigma),
    "nac_mul_nmu": Target(NACNMU, {"W": "W"}, of_nac_nmu),
    "nalu_tied": Target(NALU, GATED, by_eps("nalu")),
    "nalu_tied_bias": Target(
        lambda *sizes: NALU(*sizes, gate_bias=True),
        {**GATED, "bias_add": "gate_bias"},
        by_eps("nalu"),
    ),
    "nalu_untied": Target(
        lambda *sizes: NALU(*sizes, tied=False), {**GATED, **MUL}, by_eps("nalu")
    ),
    "gnalu": Target(GNALU, GATED, by_eps("gnalu")),
    "inalu": Target(INALU, {**UNTIED, "g": "g"}, of_inalu, turned=True),
    # A float32 number for eps, in float64 too.
    "inalu_mistry": Target(
        inalu(eps=float(np.float32(1e-7))), {**UNTIED, "g": "g"}, of_inalu, turned=True
    ),
    "inalu_shared": Target(inalu(tied=True), {**PAIR, "g": "g"}, of_inalu, turned=True),
    "inalu_matrix_gate": Target(
        inalu(tied=True, gate="matrix"), {**PAIR, "G": "g"}, of_inalu, turned=True
    ),
    "inalu_vector_gate": Target(inalu(tied=True, gate="vector"), {**PAIR, "G": "g"}, of_inalu),
    "nau": Target(NAU, {"W": "W"}, by_eps("nau")),
    "nmu": Target(NMU, {"W": "W"}, of_nmu),
    "snmu": Target(SNMU, {"W": "W"}, of_snmu),
    "npu": Target(NPU, JULIA, of_npu(True)),
    "realnpu": Target(RealNPU, JULIA, of_npu(True)),
    "npu_mistry": Target(clamped(NPU), MISTRY, of_npu(False), turned=True),
    "realnpu_mistry": Target(clamped(RealNPU), MISTRY, of_npu(False), turned=True),
    "realnpu_modified": Target(modified, MISTRY, of_npu(False), turned=True),
    "nru": Target(
        NRU, {"W": "W"}, lambda of, case, t: of.nru(t["input"], t["W"], training=case.training)
    ),
    "nmru": Target(
        NMRU,
        {"W": "W"},
        lambda of, case, t: of.nmru(
            t["input"], t["W"], eps=float(case.arrays["eps"]) if case.training else 0.0
        ),
    ),
}
TERMS = {"l1": "l1", "g-NPU": "gate", "W-NPU": "weights"}
# The authors' sign of the product is that of other weights; see docs/family.md.
RESHAPED = ("inalu", "inalu_shared", "inalu_matrix_gate", "inalu_vector_gate")


def cases(file: str) -> Iterator[Case]:
    with np.load(GOLDEN / f"{file}.npz") as arrays:
        shared = {name.split("_as_")[0]: arrays[name] for name in arrays.files if "." not in name}
        for name in dict.fromkeys(key.partition(".")[0] for key in arrays.files if "." in key):
            own = {
                key.removeprefix(f"{name}."): arrays[key]
                for key in arrays.files
                if key.startswith(f"{name}.")
            }
            yield Case(file, name, {**shared, **own})


def turned(target: Target, array: Tensor) -> Tensor:
    return array.T.contiguous() if target.turned and array.dim() == 2 else array


def as_ours(target: Target, name: str, array: Tensor) -> Tensor:
    """A parameter of theirs; a vector gate is a row here."""
    array = turned(target, array)
    return array[None] if name == "G" and array.dim() == 1 else array


def reshaped_signs(input: Tensor, W: Tensor) -> Tensor:
    """As in the authors' code: |W| of (in, out), read row by row as (out, in)."""
    part = W.abs().T.reshape(W.shape)
    return reference.product.product(torch.sign(input).unsqueeze(-2) * part + (1 - part))


def by_the_reference(target: Target, case: Case, tensors: Tensors) -> Tensor:
    return target.function(reference, case, tensors)


def by_the_layer(target: Target, case: Case, tensors: Tensors) -> Tensor:
    """The module, made and loaded as a user does; options that it lacks are made of its calls."""

    def call(input: Tensor, **parameters: Tensor) -> Tensor:
        out_features = len(case.arrays["output"].T)
        layer = target.layer(input.shape[-1], out_features).double()
        layer.train(case.training and "noise" not in case.arrays)
        return torch.func.functional_call(layer, parameters, (input,))

    class Calls:
        def __getattr__(self, name: str) -> Callable[..., Tensor]:
            def function(input: Tensor, *W: Tensor, **given: Any) -> Tensor:
                named = {name: value for name, value in given.items() if name in tensors}
                return call(input, **named, **dict(zip("W", W, strict=False)))

            return function

    return target.function(Calls(), case, tensors)


WAYS = {"reference": by_the_reference, "layer": by_the_layer}


def check(case: Case, name: str, found: Tensor, wanted: Tensor) -> None:
    """Non-finite numbers of theirs are a record, and not a target."""
    assert found.shape == wanted.shape, (case.name, name)
    finite = wanted.isfinite()
    scale = wanted[finite].abs().max().item() if finite.any() else 0.0
    off = (found - wanted)[finite].abs().max().item() if finite.any() else 0.0
    bound = SATURATED.get((case.file, case.name, name), BOUND)
    assert off <= bound * (scale or 1.0), f"{case.name} {name}: {off / (scale or 1.0):.1e}"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("file", TARGETS)
def test_outputs_and_gradients(file: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target = TARGETS[file]
    if file in RESHAPED:
        module = sys.modules["nalu_kernels.reference.inalu"]
        monkeypatch.setattr(module, "signs", reshaped_signs)
    for case in cases(file):
        if file in RESHAPED and way == "layer" and min(case.shape) > 1:
            continue  # the layer has the paper's signs
        theirs = {
            name: case.tensor(f"param.{name}")
            for name in target.names
            if f"param.{name}" in case.arrays
        }
        ours = {
            target.names[name]: as_ours(target, name, array).requires_grad_()
            for name, array in theirs.items()
        }
        tensors = {"input": case.tensor("input").requires_grad_(), **ours}
        output = WAYS[way](target, case, tensors)
        check(case, "output", output.detach(), case.tensor("output"))
        grads = torch.autograd.grad(output, list(tensors.values()), case.tensor("grad_output"))
        found = dict(zip(tensors, grads, strict=True))
        if not case.name.startswith("zero"):  # 0 to the power of a negative weight
            assert all(found.isfinite().all() for found in (output, *grads)), case.name
        check(case, "grad.input", found["input"], case.tensor("grad.input"))
        for name in theirs:
            grad = as_ours(target, name, case.tensor(f"grad.{name}"))
            check(case, f"grad.{name}", found[target.names[name]], grad)


def loaded(target: Target, case: Case) -> nn.Module:
    out_features = len(case.arrays["output"].T)
    layer = target.layer(case.arrays["input"].shape[1], out_features).double()
    theirs = {name: f"param.{name}" for name in target.names if f"param.{name}" in case.arrays}
    layer.load_state_dict(
        {
            target.names[name]: as_ours(target, name, case.tensor(key))
            for name, key in theirs.items()
        }
    )
    return layer


def regularizer(layer: Any, case: Case, key: str) -> Tensor:
    if key == "z":
        return layer.input_regularizer(
            case.tensor("input") * torch.as_tensor(case.arrays.get("noise", 1.0))
        )
    if key in TERMS:
        term = "sparsity" if case.name.endswith("_regbias") and key == "W-NPU" else TERMS[key]
        return layer.regularizer(term)
    return layer.regularizer()


WITH_REGULARIZER = [
    file
    for file in TARGETS
    if any(key.startswith("reg.") for case in cases(file) for key in case.arrays)
]


@pytest.mark.parametrize("file", WITH_REGULARIZER)
def test_regularizers(file: str) -> None:
    target, checked = TARGETS[file], 0
    for case in cases(file):
        for name in (key for key in case.arrays if key.startswith("reg.")):
            if name in NOT_OURS or case.name.endswith("_oobreg"):
                continue
            key = name.removeprefix("reg.")
            layer = loaded(target, case)
            value = regularizer(layer, case, key)
            check(case, name, value.detach(), case.tensor(name))
            value.backward()
            for theirs, ours in target.names.items():
                if f"reg_grad.{key}.{theirs}" in case.arrays:
                    wanted = as_ours(target, theirs, case.tensor(f"reg_grad.{key}.{theirs}"))
                    grad = getattr(layer, ours).grad
                    check(case, f"reg_grad.{key}.{theirs}", grad, wanted)
            checked += 1
    assert checked


@pytest.mark.parametrize("file", TARGETS)
def test_parameters_after_a_step(file: str) -> None:
    """A parameter that the files do not have after the step is as before."""
    target = TARGETS[file]
    for case in cases(file):
        if not case.name.endswith("_oobreg"):  # whose parameters stay where they are
            layer = loaded(target, case).clamp_()
            for theirs, ours in target.names.items():
                key = next(
                    (k for k in (f"after_step.{theirs}", f"param.{theirs}") if k in case.arrays),
                    None,
                )
                if key:
                    wanted = as_ours(target, theirs, case.tensor(key))
                    assert torch.equal(getattr(layer, ours), wanted), (case.name, theirs)


@pytest.mark.parametrize(("name", "percent"), [("c2", 6), ("c3", 21), ("c5", 200)])
def test_how_far_the_authors_signs_are_from_the_papers(name: str, percent: int) -> None:
    """As docs/family.md has it; with their signs the outputs agree to 1e-12."""
    target = TARGETS["inalu"]
    case = next(case for case in cases("inalu") if case.name == name)
    output, theirs = loaded(target, case)(case.tensor("input")), case.tensor("output")
    off = (output - theirs).abs().max() / theirs.abs().max()
    assert round(100 * off.item()) == percent
