"""What a launch costs, as Triton's profiler (Proton) takes it from a kernel's ``launch_metadata``.

``flops``: two for each multiply-add of the layer's matrix products, however they are computed.
``flops16``, ``flops32`` and ``flops64``: the same as they are computed, by the bits of the
operands: bf16x6, say, is six products of bfloat16 on tensor cores, ieee one of float32. A product
over the inputs, as an NMU's, counts as much as a matrix product (``flops.py``).
``bytes``: of the tensors that have to be read or written, each once and at its logical size (an
expanded input counts as if it were dense). Elementwise functions and sums are not counted as flops.

Triton calls these functions only while a profiler has set its hook.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

Args = Mapping[str, Any]  # a kernel's arguments, by name
Bytes = dict[str, int]  # by tensor
Metadata = dict[str, Any]
Report = Callable[[tuple[int, ...], Any, Args], Metadata]

# Products of 16-bit numbers that stand for one (products.product).
_PIECES = {"fp16": 1, "bf16": 1, "bf16x3": 3, "bf16x6": 6}


def _report(name: str, flops: dict[str, int], moved: Bytes) -> Metadata:
    return {"name": name, **flops, "bytes": sum(moved.values())}


def _name(metadata: Any, args: Args) -> str:
    B, I, O, *_ = args["batch"]  # noqa: E741
    units = f"units={_units(args)}, " if args.get("units") else ""
    return f"{metadata.name} [{units}B={B}, I={I}, O={O}]"


def _units(args: Args) -> int:
    """How many layers side by side: their inputs have a dimension of them."""
    return len(args["batch"].x) if args.get("units") else 1


def _bytes(tensors: Mapping[str, Any]) -> Bytes:
    return {name: tensor.nbytes for name, tensor in tensors.items() if tensor is not None}


def _compute(args: Args) -> str:
    return "flops64" if args["batch"].x.element_size() == 8 else "flops32"


def _flops(args: Args, products: Counter[str]) -> dict[str, int]:
    """Of so many "linear" and "log" products of B x I x O, and "sample" ones of B x I: those of a
    gate per sample, which take no tensor cores."""
    B, I, O, *_ = args["batch"]  # noqa: E741
    form, vector = args["FORM"], 2 * B * I * _units(args)
    matrix = vector * O
    compute = _compute(args)
    flops = {"flops": 0, "flops16": 0, "flops32": 0, "flops64": 0}
    for how, size, count in (
        (form.linear_product, matrix, products["linear"]),
        (form.log_product, matrix, products["log"]),
        ("ieee", vector, products["sample"]),
    ):
        flops["flops"] += count * size
        flops["flops16" if how in _PIECES else compute] += count * size * _PIECES.get(how, 1)
    return flops


def _all_products(args: Args) -> Counter[str]:
    """Of every path of the layer once: those of a forward, and those of dx."""
    form = args["FORM"]
    products = Counter(linear=int(form.linear), log=int(form.log_space))
    products["linear" if form.gates == "output" else "sample"] += form.gates != "none"
    return products


def forward(grid: tuple[int, ...], metadata: Any, args: Args) -> Metadata:
    moved = _bytes(args["weights"]._asdict())
    moved |= _bytes({"x": args["batch"].x, "y": args["y"], "saved": args["saved"]})
    return _report(_name(metadata, args), _flops(args, _all_products(args)), moved)


def _saved(args: Args) -> Bytes:
    """a, m and g; the output of a NAC in log space is its m."""
    batch = args["batch"]
    saved = batch.saved
    if saved is None:
        return {}
    if args["FORM"].gates == "none":
        return {"m": saved.nbytes}
    plane = _units(args) * batch.B * batch.O * saved.element_size()
    return {"a": plane, "m": plane, "g": saved.nbytes - 2 * plane}


def _moved_for_dx(args: Args) -> Bytes:
    moved = _bytes({"dy": args["batch"].dy, "dx": args["dx"]})
    moved |= _saved(args) | _bytes(args["weights"]._replace(gate_bias=None)._asdict())
    return moved | (_bytes({"x": args["batch"].x}) if args["FORM"].log_space else {})


def grad_input(grid: tuple[int, ...], metadata: Any, args: Args) -> Metadata:
    flops = _flops(args, _all_products(args))
    return _report(_name(metadata, args), flops, _moved_for_dx(args))


class _Sum(NamedTuple):
    """A gradient's parts, what is finished from them, and what that takes beside them."""

    partial: Bytes
    finished: Bytes
    weights: Bytes


def _sums(args: Args) -> Iterator[_Sum]:
    weights, grads, partials = (args[name]._asdict() for name in ("weights", "grads", "partials"))
    for of, finished, needed in (
        ("W", ("W_hat", "M_hat", "W"), ("W_hat", "M_hat")),
        ("W_mul", ("W_hat_mul", "M_hat_mul", "W_mul"), ("W_hat_mul", "M_hat_mul")),
        ("G", ("G",), ()),
        ("gate_bias", ("gate_bias",), ()),
    ):
        yield _Sum(
            _bytes({f"parts of d{of}": partials[of]}),
            _bytes({f"d{name}": grads[name] for name in finished}),
            _bytes({name: weights[name] for name in needed}),
        )


class _Wanted(NamedTuple):
    """Which products with dy the parameters' gradients take, and whether the gate's is wanted."""

    linear: bool
    log: bool
    G: bool
    gate: bool


def _wanted(args: Args) -> _Wanted:
    form, grads = args["FORM"], args["grads"]
    W = grads.W_hat is not None or grads.M_hat is not None
    W_mul = grads.W_hat_mul is not None or grads.M_hat_mul is not None
    untied = args["weights"].W_hat_mul is not None
    G = grads.G is not None
    return _Wanted(
        form.linear and W,
        form.log_space and (W_mul if untied else W),
        G,
        G or grads.gate_bias is not None,
    )


def _products_for_weights(args: Args) -> Counter[str]:
    wanted = _wanted(args)
    products = Counter(linear=int(wanted.linear), log=int(wanted.log))
    products["sample" if args["FORM"].gates == "sample" else "linear"] += wanted.G
    return products


def _moved_for_weights(args: Args) -> Bytes:
    wanted, batch = _wanted(args), args["batch"]
    given = _bytes({"dy": batch.dy, "x": batch.x}) | _saved(args)
    read = {"dy", "g"} if wanted.linear or wanted.log or wanted.gate else set()
    read |= {"x"} if wanted.linear or wanted.log or wanted.G else set()
    read |= {"m"} if wanted.log or wanted.gate else set()
    read |= {"a"} if wanted.gate else set()
    moved = {name: size for name, size in given.items() if name in read}
    for one in _sums(args):
        if one.partial:
            moved |= one.partial
        elif one.finished:
            moved |= one.finished | one.weights
    return moved


def grad_weights(grid: tuple[int, ...], metadata: Any, args: Args) -> Metadata:
    flops = _flops(args, _products_for_weights(args))
    return _report(_name(metadata, args), flops, _moved_for_weights(args))


def backward(grid: tuple[int, ...], metadata: Any, args: Args) -> Metadata:
    flops = _flops(args, _all_products(args) + _products_for_weights(args))
    moved = _moved_for_dx(args) | _moved_for_weights(args)
    return _report(_name(metadata, args), flops, moved)


_NO_FLOPS = {"flops": 0}


def finish(grid: tuple[int, ...], metadata: Any, args: Args) -> Metadata:
    moved: Bytes = {}
    for one in _sums(args):
        if one.partial:
            moved |= one.partial | one.finished | one.weights
    name = f"{metadata.name} [elements={max(args['sizes'])}, parts={max(args['counts'])}]"
    return _report(name, _NO_FLOPS, moved)


def transform(grid: tuple[int, ...], metadata: Any, args: Args) -> Metadata:
    weights = args["weights"]._replace(G=None, gate_bias=None)._asdict()
    moved = _bytes(weights | {"W": args["W"], "W_mul": args["W_mul"]})
    return _report(f"{metadata.name} [elements={args['size']}]", _NO_FLOPS, moved)


def _ieee(args: Args, products: int) -> dict[str, int]:
    """Of so many products of B x I x O that take no tensor cores."""
    B, I, O, *_ = args["batch"]  # noqa: E741
    flops = products * 2 * B * I * O * _units(args)
    return {"flops": flops, "flops16": 0, "flops32": 0, "flops64": 0} | {_compute(args): flops}


def _over_inputs(args: Args) -> tuple[int, int]:
    """How many products over the inputs, and how many of their angles: an NMRU has reciprocals."""
    return (2, 1) if args["LAYER"] == "nmru" else (1, 0)


def reduction(grid: tuple[int, ...], metadata: Any, args: Args) -> Metadata:
    moved = _bytes({"x": args["batch"].x, **{name: args[name] for name in ("W", "y", "saved")}})
    return _report(_name(metadata, args), _ieee(args, sum(_over_inputs(args))), moved)


def reduction_gradient(grid: tuple[int, ...], metadata: Any, args: Args) -> Metadata:
    batch, (products, angles) = args["batch"], _over_inputs(args)
    of_x, of_W = args["x_parts"] is not None, args["W_parts"] is not None
    names = ("W", "scratch", "W_parts", "x_parts")
    moved = _bytes({"x": batch.x, "dy": batch.dy, **{name: args[name] for name in names}})
    if args["LAYER"] == "nmru":
        moved |= _bytes({"saved": batch.saved})
    elif args["LAYER"] == "inalu":
        moved["m and g"] = batch.saved.nbytes // 2
    flops = _ieee(args, of_x * products + of_W * (products + angles))
    return _report(_name(metadata, args), flops, moved)


def finish_reduction(grid: tuple[int, ...], metadata: Any, args: Args) -> Metadata:
    moved = _bytes({name: args[name] for name in ("W_parts", "dW", "x_parts", "dx")})
    return _report(_name(metadata, args), _NO_FLOPS, moved)


def power(grid: tuple[int, ...], metadata: Any, args: Args) -> Metadata:
    weights = args["weights"]
    moved = _bytes({"x": args["batch"].x, "y": args["y"], "saved": args["saved"]})
    moved |= _bytes(weights._asdict())
    return _report(_name(metadata, args), _ieee(args, 2 * _sides(weights)), moved)


def power_grad_input(grid: tuple[int, ...], metadata: Any, args: Args) -> Metadata:
    of_g = args["g_parts"] is not None
    moved = _moved_by_power(args) | _bytes({"dx": args["dx"], "parts of dg": args["g_parts"]})
    moved |= _bytes(args["weights"]._asdict())
    flops = _ieee(args, (1 + of_g) * _sides(args["weights"]))
    return _report(_name(metadata, args), flops, moved)


def power_grad_weights(grid: tuple[int, ...], metadata: Any, args: Args) -> Metadata:
    parts = args["parts"]._replace(g=None)
    moved = _moved_by_power(args) | _bytes({"g": args["weights"].g}) | _parts(parts)
    return _report(_name(metadata, args), _ieee(args, 2 * _sides(parts)), moved)


def finish_power(grid: tuple[int, ...], metadata: Any, args: Args) -> Metadata:
    grads = args["grads"]._asdict()
    moved = _parts(args["parts"]) | _bytes({f"d{name}": grad for name, grad in grads.items()})
    if grads["g"] is not None and not args["PASSES"]:
        moved |= _bytes({"g": args["g"]})
    return _report(_name(metadata, args), _NO_FLOPS, moved)


def _sides(weights: Any) -> int:
    """Of the real weights and the imaginary ones, those that there are."""
    return (weights.W_re is not None) + (weights.W_im is not None)


def _parts(parts: Any) -> Bytes:
    return _bytes({f"parts of d{name}": part for name, part in parts._asdict().items()})


def _moved_by_power(args: Args) -> Bytes:
    batch = args["batch"]
    return _bytes({"x": batch.x, "dy": batch.dy, "saved": batch.saved})
