"""Compiles all that the tile table can choose, for chips that need not be here, and reads it.

    python -m nalu_kernels.triton.aot [--family sm_90 ...] [--only PATTERN ...] [--json report.json]

A kernel passes if it has no stack frame and spills no register, multiplies on tensor cores where
its products are meant for them, reads global memory 128 bits at a time (less where rows are not
aligned to that, or threads have not so much of a tile to read), approximates no function or
quotient, and fits the chip's memories. The exit status is 1 if one does not, or if nothing can
choose a row: such a row has no place in the table. NALU_KERNELS_TILES names a table of
yours to be checked.
"""

from __future__ import annotations

import argparse
import fnmatch
import functools
import itertools
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from . import tiles, trace
from .device import Chip
from .factors import LAYERS as FACTORS
from .forms import Tile
from .train_plan import OPTIMIZERS
from .units_operators import SUPPORTED


class Limits(NamedTuple):
    """A chip's memories, and what the names of its tensor cores' instructions begin with."""

    target: GPUTarget
    processors: int
    shared_bytes: int
    tensor_cores: str


LIMITS = {
    # The table's sm_80 rows also serve 8.6, 8.9 and 12.x, which have 99 KiB where 8.0 has 163.
    "sm_80": Limits(GPUTarget("cuda", 80, 32), 108, 99 << 10, "HMMA"),
    "sm_90": Limits(GPUTarget("cuda", 90, 32), 132, 227 << 10, "HGMMA"),
    "sm_100": Limits(GPUTarget("cuda", 100, 32), 148, 227 << 10, "UTCHMMA"),
    "gfx942": Limits(GPUTarget("hip", "gfx942", 64), 304, 64 << 10, "v_mfma"),
}
TENSOR_MEMORY_COLUMNS = 512  # of sm_100

# (B, I, O) that lead to each case of the table. The first small ones can be read by loads of 128
# bits; the others, that this field trains, begin their rows at every alignment. With 4096 rows W is
# read; with as many outputs and inputs too, dW is finished in one launch and W left for dx.
_SHAPES = {
    "small": ((128, 96, 96), (64, 2, 1), (128, 100, 2), (128, 100, 100), (128, 99, 101)),
    "inside": ((128, 512, 512),),
    "read": ((4096, 4096, 4096),),
    "odd": ((4096, 4095, 4095), (128, 511, 513)),
}
_SETTINGS = {torch.float32: ("highest", "high", "medium")}
# Stacks of the trainer, by each layer's kind (csrc/training.h), in, out, gates, bias and untied:
# those of the field, one with layers of the others, and the widest, with all options.
_STACKS = {
    "NALU 2->1": ((2, 2, 1, 1, 0, 0),),
    "NALU 100->2->1": ((2, 100, 2, 2, 0, 0), (2, 2, 1, 1, 0, 0)),
    "NAC 100->2->1": ((0, 100, 2, 0, 0, 0), (0, 2, 1, 0, 0, 0)),
    "Linear 4->16->8->1": (
        (3, 4, 16, 0, 1, 0),
        (5, 16, 16, 0, 0, 0),
        (3, 16, 8, 0, 1, 0),
        (5, 8, 8, 0, 0, 0),
        (3, 8, 1, 0, 1, 0),
    ),
    "NALU 512->64->1": ((2, 512, 64, 1, 1, 1), (2, 64, 1, 1, 0, 0)),
}
# (B, I, O) for each width of a tile of a product over the inputs.
_REDUCED = ((128, 100, 2), (128, 100, 10), (1024, 64, 64))
# (B, I, O) of layers side by side: a small one, and one for which W is transformed before.
_UNITS = ((128, 100, 2), (4096, 256, 256))
# Cells over time: the layer as of ``unroll_forms.Cell``, and what it has; gates are as many as
# states, or one. And (B, I, O), of which I counts the state too: the largest that a program holds,
# of most and of an iNALU, and a small one.
_CELLS: dict[str, tuple[str, dict[str, Any]]] = {
    "NALU": ("nalu", {"gates": 99, "bias": True, "untied": True}),
    "NALU-sample": ("nalu", {"gates": 1, "bias": True}),
    "NAC": ("nalu", {"log_space": False}),
    "NAC-log": ("nalu", {"linear": False}),
    "NAU": ("nau", {"log_space": False}),
    "NMU": ("nmu", {}),
    "iNALU": ("inalu", {"bias": True, "untied": True}),
    "iNALU-matrix": ("inalu", {"gates": 99}),
    "iNALU-vector": ("inalu_sum", {"gates": 1, "untied": True}),
    "RealNPU": ("npu", {}),
}
_CELL_SHAPES = ((128, 32, 16), (128, 5, 2))
_INALU_SHAPES = ((128, 8, 4), (128, 5, 2))
_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
# Instructions at least, one of them a product of tiles, for each of a kernel's products.
_PIECES = {"bf16x6": 6, "bf16x3": 3, "bf16": 1, "fp16": 1}


class Variant(NamedTuple):
    """One kernel as compiled for one row of the table, dtype, product of the log-space path and
    alignment of rows, and for a tied or an untied layer. ``narrowest`` and
    ``widest``: of the loads that its tensors allow, in bits (``load_widths``)."""

    family: str
    kernel: str
    case: str
    products: str
    log_products: str
    dtype: str
    tile: Tile | None
    layer: str
    shape: str
    narrowest: int
    widest: int

    def __str__(self) -> str:
        words = (*self[:6], "x".join(map(str, self.tile)) if self.tile else "", *self[7:9])
        return " ".join(word for word in words if word)

    @property
    def row(self) -> tuple[str, str, str]:
        """Of its family's table, by one of the row's products."""
        return self[1:4]

    @property
    def on_tensor_cores(self) -> int:
        """Instructions of tensor cores that its products take at least."""
        if self.products == "ieee" and self.family == "gfx942" and self.case != "small":
            return 3
        # The linear path's or a factor of it, the gate's, and the log-space path's.
        linear, log = _PIECES.get(self.products, 0), _PIECES.get(self.log_products, 0)
        return 2 * linear + log


def load_widths(kernel: str, family: str, options: dict[str, Any], dtype: torch.dtype) -> list[int]:
    """For each of a kernel's tensors the bits that one load can read: as many as its rows are
    aligned to, and as its tile has for each thread."""
    if kernel == "backward":
        grad_weights = {**options, "TILE": options["WEIGHTS_TILE"]}
        return load_widths("grad_input", family, options, dtype) + load_widths(
            "grad_weights", family, grad_weights, dtype
        )
    form, tile = options["FORM"], options["TILE"]
    threads = options["num_warps"] * LIMITS[family].target.warp_size
    # x or dy, then W or x, then what the end of the kernel reads: x or W_hat.
    read = {
        "forward": [
            (tile.depth * tile.rows, form.I_multiple),
            (tile.depth * tile.cols, form.I_multiple),
        ],
        "grad_input": [
            (tile.depth * tile.rows, form.O_multiple),
            (tile.depth * tile.cols, form.I_multiple),
            (tile.rows * tile.cols, form.I_multiple),
        ],
        "grad_weights": [
            (tile.depth * tile.rows, form.O_multiple),
            (tile.depth * tile.cols, form.I_multiple),
            (tile.rows * tile.cols, form.I_multiple),
        ],
    }[kernel]
    return [
        min(128, min(multiple, max(1, size // threads)) * dtype.itemsize * 8)
        for size, multiple in read
    ]


class Report(NamedTuple):
    """What the compiler made of a variant. ``loads``: of global memory, by their width in bits.
    ``approximations``: instructions for functions and quotients that are not those of float32."""

    registers: int
    stack_bytes: int
    spills: int
    shared_bytes: int
    tensor_memory_columns: int
    tensor_core_instructions: int
    loads: dict[int, int]
    approximations: int


class _Driver:
    """As much of a Triton driver as compiling asks for."""

    def __init__(self, family: str) -> None:
        self._family = family

    def get_current_target(self) -> GPUTarget:
        return LIMITS[self._family].target

    def get_current_device(self) -> str:  # what Triton keeps compiled kernels by
        return self._family

    def get_current_stream(self, device: object) -> int:
        return 0


@functools.cache
def launches(family: str) -> dict[Variant, trace.Launch]:
    """Everything that two NALUs launch: the paper's, which is tied, and the fullest, which is not
    and has a bias."""
    found: dict[Variant, trace.Launch] = {}
    chip = Chip(family, LIMITS[family].processors)
    for dtype in _DTYPES:
        for setting in _SETTINGS.get(dtype, ("",)):
            for case, shapes in _SHAPES.items():
                for shape in shapes if dtype in _DTYPES[:2] else shapes[:1]:
                    for untied in (False, True) if shape is shapes[0] else (True,):
                        sample = trace.Sample(
                            *shape, dtype, gates=shape[2], bias=untied, untied=untied
                        )
                        made = trace.forward(sample, chip, save=True, setting=setting)
                        # All gradients, the input's alone and the parameters' alone.
                        for needed in (-1, 1, -2) if shape is shapes[0] else (-1,):
                            made += trace.backward(sample, chip, needed=needed, setting=setting)
                        for one in made:
                            _add(found, family, case, sample, setting, one)
    found |= _trainers(chip) | _family(chip) | _over_time(chip)
    return found | _over_units(chip) if SUPPORTED else found


def _trainers(chip: Chip) -> dict[Variant, trace.Launch]:
    """Every stack, with the dtypes and the optimizers in turn: they take long to compile."""
    found = {}
    for turn, (name, program) in enumerate(_STACKS.items(), tiles.FAMILIES.index(chip.family)):
        dtype = (torch.float32, torch.float64)[turn % 2]
        optimizer = OPTIMIZERS[turn % len(OPTIMIZERS)]
        case, bits = f"{name} {optimizer}", dtype.itemsize * 8  # one number at a time
        known = (chip.family, "train", case, "", "", str(dtype).removeprefix("torch."), None)
        one = trace.train(program, dtype, chip, optimizer)
        found[Variant(*known, "", "", bits, bits)] = one
    return found


def _family(chip: Chip) -> dict[Variant, trace.Launch]:
    """What the layers after NALU have of their own: a product's kernels for every factor, and an
    NPU's; with the dtypes and the widths of tiles in turn."""
    found: dict[Variant, trace.Launch] = {}
    for turn, layer in enumerate((*FACTORS, "npu"), tiles.FAMILIES.index(chip.family)):
        dtype = _DTYPES[turn % len(_DTYPES)]
        shape = _REDUCED[turn % len(_REDUCED)]
        made = trace.power if layer == "npu" else functools.partial(trace.reduction, layer)
        _add_all(found, chip, layer, trace.Sample(*shape, dtype), made)
    return found


def _over_units(chip: Chip) -> dict[Variant, trace.Launch]:
    """What layers side by side launch: every kernel, which then moves its pointers first; with the
    dtypes and the factors in turn."""
    found: dict[Variant, trace.Launch] = {}
    turn = tiles.FAMILIES.index(chip.family)
    for place, shape in enumerate(_UNITS):
        dtype = _DTYPES[(turn + place) % len(_DTYPES)]
        gates = (shape[2], 1)[(turn + place) % 2]
        fullest = trace.Sample(*shape, dtype, gates=gates, bias=True, untied=True, units=64)
        _add_all(found, chip, "NALU units", fullest, functools.partial(trace.forward, save=True))
        for needed in (-1, 1, -2):
            made = functools.partial(trace.backward, needed=needed)
            _add_all(found, chip, f"NALU units {needed}", fullest, made)
    layer = FACTORS[turn]
    sample = trace.Sample(*_UNITS[0], _DTYPES[turn], units=64)
    _add_all(found, chip, f"{layer} units", sample, functools.partial(trace.reduction, layer))
    _add_all(found, chip, "npu units", sample, trace.power)
    return found


def _add_all(
    found: dict[Variant, trace.Launch],
    chip: Chip,
    case: str,
    sample: trace.Sample,
    made: Callable[[trace.Sample, Chip], list[trace.Launch]],
) -> None:
    """All that ``made`` launches of a sample, which takes one number at a time."""
    for one in made(sample, chip):
        kernel = one.kernel.__name__.removesuffix("_kernel")
        name = str(sample.dtype).removeprefix("torch.")
        shape = f"{sample.B}x{sample.I}->{sample.O}"
        known = (chip.family, kernel, case, "", "", name, one.options.get("TILE"), "", shape)
        bits = sample.dtype.itemsize * 8
        found[Variant(*known, bits, bits)] = one


def _over_time(chip: Chip) -> dict[Variant, trace.Launch]:
    """What cells launch over the steps of a sequence, of the largest size that a program holds and
    of a small one; with the dtypes, and all states or the last, in turn."""
    found = {}
    dtypes = _DTYPES if chip.family == "gfx942" else _DTYPES[:3]
    for size, (place, cell) in itertools.product(range(2), enumerate(_CELLS)):
        # An odd number of turns apart: all states at one size, the last at the other.
        turn = tiles.FAMILIES.index(chip.family) + 5 * size + place
        dtype, last_only = dtypes[turn % len(dtypes)], turn % 2 == 1
        layer, options = _CELLS[cell]
        shape = (_INALU_SHAPES if layer.startswith("inalu") else _CELL_SHAPES)[size]
        gates = min(options.get("gates", 0), shape[2])
        sample = trace.Sample(*shape, dtype, **{**options, "gates": gates})
        for one in trace.unroll(sample, 100, chip, layer=layer, last_only=last_only):
            kernel = one.kernel.__name__.removesuffix("_kernel")
            if kernel.startswith("unroll"):  # the others are above
                name, words = str(dtype).removeprefix("torch."), "{}x{}->{}".format(*shape)
                case = f"{cell} {'last' if last_only else 'all'}"
                known = (chip.family, kernel, case, "", "", name, None, "", words)
                bits = dtype.itemsize * 8  # one number at a time
                found[Variant(*known, bits, bits)] = one
    return found


def _add(
    found: dict[Variant, trace.Launch],
    family: str,
    case: str,
    sample: trace.Sample,
    setting: str,
    one: trace.Launch,
) -> None:
    kernel = one.kernel.__name__.removesuffix("_kernel")
    usual = sample.dtype == torch.bfloat16 or (sample.dtype, setting) == (torch.float32, "highest")
    if not (sample.untied or usual or kernel == "grad_weights"):
        return  # a tied layer's tiles are those of an untied one
    if kernel == "grad_weights" and case == "inside":
        return  # where W is read it does this, and leaves W
    form = one.options.get("FORM")
    products, log_products = (form.linear_product, form.log_product) if form else ("", "")
    bits = sample.dtype.itemsize * 8
    widths, layer, shape = [min(128, bits * tiles.FINISH_ELEMENTS // 128), 128], "", ""
    if form:
        layer = "untied" if sample.untied else "tied"
        widths = load_widths(kernel, family, one.options, sample.dtype)
        shape = f"{sample.B}x{sample.I}->{sample.O}"
        if kernel == "grad_weights" and case == "read":
            case, layer = layer, ""
    elif case in ("small", "odd"):
        return  # elementwise kernels see no rows
    else:
        case = ""
    if sample.dtype == torch.float64 and case:
        products = "float64"
    name = str(sample.dtype).removeprefix("torch.")
    tile = one.options.get("TILE")
    variant = Variant(
        family,
        kernel,
        case,
        products,
        log_products,
        name,
        tile,
        layer,
        shape,
        min(widths),
        max(widths),
    )
    found[variant] = one


def compile_for(family: str, one: trace.Launch) -> Any:
    """The compiled kernel of a launch."""
    driver.set_active(_Driver(family))
    return one.kernel.warmup(*one.args, grid=one.grid, **one.options)


def _nvidia(compiled: Any, tensor_cores: str) -> Report:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()

        def dump(what: str) -> str:
            command = [knobs.nvidia.cuobjdump.path, what, file.name]
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout

        usage, sass = dump("--dump-resource-usage"), dump("--dump-sass")
    loads = {width: 0 for width in (8, 16, 32, 64, 128)}
    for found in re.findall(r"\b(?:LDG|LDGSTS)\.E\S*", sass):
        width = re.search(r"\.(?:U|S)?(8|16|64|128)\b", found)
        loads[int(width[1]) if width else 32] += 1
    return Report(
        registers=_number(r"REG:(\d+)", usage),
        stack_bytes=_number(r"STACK:(\d+)", usage),
        spills=len(re.findall(r"\bSTL\b", sass)),
        shared_bytes=compiled.metadata.shared,
        tensor_memory_columns=getattr(compiled.metadata, "tmem_size", 0) or 0,
        tensor_core_instructions=len(re.findall(rf"\b{tensor_cores}\b", sass)),
        loads=loads,
        approximations=len(re.findall(r"\b\w+\.approx\S*\.f32\b", compiled.asm["ptx"])),
    )


def _amd(compiled: Any, tensor_cores: str) -> Report:
    assembly = compiled.asm["amdgcn"]
    loads = {width: 0 for width in (8, 16, 32, 64, 96, 128)}
    pattern = r"\b(?:global|buffer|flat)_load_(ubyte|sbyte|ushort|sshort|short|dword)(?:x(\d))?"
    for name, count in re.findall(pattern, assembly):
        loads[{"dword": 32 * int(count or 1)}.get(name, 8 if "byte" in name else 16)] += 1
    return Report(
        registers=_number(r"\.vgpr_count:\s+(\d+)", assembly),
        stack_bytes=_number(r"\.private_segment_fixed_size:\s+(\d+)", assembly),
        # A scalar register spills into a vector register's lane, not into memory.
        spills=_number(r"\.vgpr_spill_count:\s+(\d+)", assembly),
        shared_bytes=compiled.metadata.shared,
        tensor_memory_columns=0,
        tensor_core_instructions=len(re.findall(rf"\b{tensor_cores}", assembly)),
        loads=loads,
        approximations=0,  # its log is built on its v_log, which is exact to an ulp
    )


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    if found is None:
        raise RuntimeError(f"the compiler's output has no {pattern}")
    return int(found[1])


def read(family: str, compiled: Any) -> Report:
    tensor_cores = LIMITS[family].tensor_cores
    return (_amd if family.startswith("gfx") else _nvidia)(compiled, tensor_cores)


def problems(variant: Variant, report: Report) -> list[str]:
    """Why this variant may not be in the table."""
    limits = LIMITS[variant.family]
    found = []
    if report.stack_bytes:
        found.append(f"a stack frame of {report.stack_bytes} bytes")
    if report.spills:
        found.append(f"{report.spills} spills")
    if report.shared_bytes > limits.shared_bytes:
        found.append(f"{report.shared_bytes} bytes of shared memory of {limits.shared_bytes}")
    if report.tensor_memory_columns > TENSOR_MEMORY_COLUMNS:
        found.append(f"{report.tensor_memory_columns} columns of tensor memory")
    if report.tensor_core_instructions < variant.on_tensor_cores:
        found.append(
            f"{report.tensor_core_instructions} {limits.tensor_cores}, "
            f"and {variant.on_tensor_cores} products"
        )
    if report.approximations:
        found.append(f"{report.approximations} inexact functions")
    if not any(count for bits, count in report.loads.items() if bits >= variant.widest):
        found.append(f"no {variant.widest}-bit loads")
    # A gate's bias, and what is read once, has no tile.
    bits_by = {bits: bits * count for bits, count in report.loads.items()}
    narrow = sum(part for bits, part in bits_by.items() if bits < variant.narrowest)
    if narrow > sum(bits_by.values()) / 4:
        found.append(f"loads narrower than {variant.narrowest} bits: {report.loads}")
    return found


def check(variant: Variant) -> tuple[Variant, Report | None, list[str]]:
    family = variant.family
    try:
        report = read(family, compile_for(family, launches(family)[variant]))
    except Exception as error:  # Triton's own, its compiler's or the disassembler's
        return variant, None, [f"{type(error).__name__}: {error}"]
    return variant, report, problems(variant, report)


def unreachable(family: str) -> list[str]:
    """Rows of the table that no layer can choose."""
    chosen = {variant.row for variant in launches(family)}
    return [
        f"{family} {row.kernel} {row.case} {products}: nothing chooses this row"
        for row in tiles.TABLE
        if row.family == family
        for products in row.products
        if (row.kernel, row.case, products) not in chosen
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m nalu_kernels.triton.aot", description=__doc__)
    parser.add_argument(
        "--family", nargs="+", choices=tiles.FAMILIES, default=tiles.FAMILIES, metavar="FAMILY"
    )
    parser.add_argument(
        "--only", nargs="+", default=["*"], help="shell patterns, such as '*forward*bf16x6*'"
    )
    parser.add_argument("--json", type=Path, help="writes the reports there")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    chosen = parser.parse_args(arguments)
    if knobs.runtime.interpret:
        parser.error("TRITON_INTERPRET is set: nothing would be compiled")

    def matches(words: str) -> bool:
        return any(fnmatch.fnmatch(words, pattern) for pattern in chosen.only)

    variants = [
        variant for family in chosen.family for variant in launches(family) if matches(str(variant))
    ]
    failures = [
        problem for family in chosen.family for problem in unreachable(family) if matches(problem)
    ]
    results = []
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(chosen.processes, mp_context=spawn) as pool:
        each = pool.map if len(variants) > 1 else map  # for one, another process takes longer
        for variant, report, found in each(check, variants):
            failures += [f"{variant}: {problem}" for problem in found]
            results.append(
                {
                    **variant._asdict(),
                    "tile": variant.tile and variant.tile._asdict(),
                    "report": report and report._asdict(),
                    "problems": found,
                }
            )
            figures = " ".join(f"{k}={v}" for k, v in report._asdict().items()) if report else ""
            print(f"{variant}: {'; '.join(found) or 'ok'}\n    {figures}", flush=True)
    if chosen.json:
        chosen.json.write_text(json.dumps(results, indent=1) + "\n")
    print(f"{len(variants)} kernels compiled, {len(failures)} problems", *failures, sep="\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
