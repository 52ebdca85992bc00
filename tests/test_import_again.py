"""Imported again in one process, as Streamlit, Spyder, marimo and pytester do, and reloaded, as
IPython's autoreload does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from selection import long

ROOT = Path(__file__).parent.parent

# All that a user does with the package that is imported just now.
USES = """
import copy, importlib, sys, warnings
import torch

warnings.simplefilter("error")
warnings.filterwarnings("ignore", "Guards may run slower")  # torch's, on Python 3.13.0
warnings.filterwarnings("ignore", category=DeprecationWarning)
torch.manual_seed(0)
x = torch.rand(5, 3)


def names():
    return [name for name in sys.modules if name.partition(".")[0] == "nalu_kernels"]


def use():
    import nalu_kernels

    usable, reason = nalu_kernels.backends()["cpu"]
    assert usable, reason
    model = torch.nn.Sequential(
        nalu_kernels.NALU(3, 4, tied=False, gate_bias=True), nalu_kernels.NAC(4, 2)
    )
    truth = copy.deepcopy(model)
    with nalu_kernels.use_backend("reference"):
        truth(x).sum().backward()
        expected = truth(x)
    torch.testing.assert_close(model(x), expected)
    model(x).sum().backward()
    for found, wanted in zip(model.parameters(), truth.parameters()):
        torch.testing.assert_close(found.grad, wanted.grad)
    with torch.no_grad(), nalu_kernels.keep_weights(model):
        torch.testing.assert_close(model(x), expected.detach())
    cell = nalu_kernels.NALUCell(3, 2)
    assert cell(x, cell(x)).shape == (5, 2)
    return model


def compile(model):
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), model(x))
    compiled(x).sum().backward()


def count(model):
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        model(x)
    assert counter.get_total_flops() == 2 * 5 * (3 * 3 * 4 + 4 * 2)
"""

AGAIN = """
first = use()
for _ in range(2):
    for name in names():
        del sys.modules[name]
    second = use()
    assert type(second) is not type(first) or type(second[0]) is not type(first[0])
    first(x).sum().backward()
for model in (first, second):
    compile(model)
    count(model)
"""

RELOADED = """
model = use()
order = {order}
assert len(order) > 20
for name in order:
    importlib.reload(sys.modules[name])
    model(x).sum().backward()
    assert sys.modules["nalu_kernels.dispatch"].backends()["cpu"].usable, name
compile(model)
compile(use())
count(model)
"""


def runs(code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", USES + code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr


@long
def test_a_second_import_works_as_the_first() -> None:
    runs(AGAIN)


@long
@pytest.mark.parametrize(
    "order",
    [
        pytest.param("names()", id="importers_first"),
        pytest.param("names()[::-1]", id="importers_last"),
    ],
)
def test_reloaded_modules_work_as_before(order: str) -> None:
    runs(RELOADED.format(order=order))
