"""Which back end runs, who says so, and what one that cannot run says."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from conftest import Backend
from nalu_kernels import BackendUnavailable, backends, dispatch, nac, use_backend, which_backend
from selection import only

ROOT = Path(__file__).parent.parent
X = torch.ones(2, 3)
W = torch.ones(4, 3)


@pytest.fixture
def unusable() -> str:
    """A back end that is not usable here."""
    for name, status in backends().items():
        if not status.usable:
            return name
    pytest.skip("every back end is usable here")


def test_backends_are_all_listed_with_reasons() -> None:
    assert list(backends()) == ["cuda", "triton", "cpu", "reference"]
    for usable, reason in backends().values():
        assert isinstance(usable, bool)
        assert reason
    assert backends()["reference"].usable


@only(lambda backend: backend.name == "cpu")
def test_the_cpu_gets_its_kernels(backend: Backend) -> None:
    automatic = subprocess_output("print(which_backend(torch.ones(1))[0])")
    assert automatic == "cpu"


@pytest.mark.parametrize(
    ("usable", "chosen"),
    [
        ({"cuda", "triton", "cpu", "reference"}, "cuda"),
        ({"triton", "cpu", "reference"}, "triton"),
        ({"cpu", "reference"}, "reference"),
    ],
)
def test_a_gpus_tensors_get_the_cuda_module_where_it_was_built(
    usable: set[str], chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(name: str) -> tuple[None, dispatch.BackendStatus]:
        return None, dispatch.BackendStatus(name in usable, f"reason of {name}")

    monkeypatch.setattr(dispatch, "_load", load)
    name, why = dispatch._automatic.__wrapped__("cuda", torch.float32)
    assert name == chosen
    for better in {"cuda", "triton"} - usable:
        assert f"{better}: reason of {better}" in why


def test_forcing(backend: Backend) -> None:
    x = X.to(backend.device)
    assert which_backend(x) == (backend.name, "forced by use_backend")
    assert nac(x, W.to(x), W.to(x)).shape == (2, 4)


def test_forcing_nests_and_ends() -> None:
    before = which_backend(X)
    with use_backend("reference"):
        for _ in range(2):
            with use_backend("reference"):
                assert which_backend(X)[0] == "reference"
            assert which_backend(X) == ("reference", "forced by use_backend")
    assert which_backend(X) == before


def test_forcing_ends_with_an_exception() -> None:
    before = which_backend(X)
    with pytest.raises(KeyError), use_backend("reference"):
        raise KeyError
    assert which_backend(X) == before


def test_forcing_holds_for_one_thread() -> None:
    before, found = which_backend(X), []
    with use_backend("reference"):
        thread = threading.Thread(target=lambda: found.append(which_backend(X)))
        thread.start()
        thread.join()
    assert found == [before]


def test_forcing_an_unusable_one_says_why(unusable: str) -> None:
    with pytest.raises(BackendUnavailable) as raised, use_backend(unusable):
        pass
    assert "use_backend" in str(raised.value)
    assert repr(unusable) in str(raised.value)
    assert backends()[unusable].reason in str(raised.value)


def test_forcing_an_unknown_one() -> None:
    with (
        pytest.raises(ValueError, match="expected one of cuda, triton, cpu, reference, got 'tpu'"),
        use_backend("tpu"),
    ):
        pass
    with pytest.raises(TypeError, match="name of a back end, got int"), use_backend(1):
        pass


@only(lambda backend: backend.has_kernels)
def test_a_forced_one_refuses_tensors_of_other_devices(backend: Backend) -> None:
    x, w = X.to("meta"), W.to("meta")
    with pytest.raises(ValueError, match=f"input: back end '{backend.name}', forced by.*on meta"):
        nac(x, w, w)


def test_meta_tensors_go_to_the_reference() -> None:
    assert which_backend(X.to("meta"))[0] == "reference"


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool, torch.complex64], ids=str)
def test_no_back_end_for_what_every_call_refuses(dtype: torch.dtype, backend: Backend) -> None:
    x = torch.ones(1, 1, dtype=dtype, device=backend.device)
    with use_backend(backend.name):
        for refuse in (lambda: which_backend(x), lambda: nac(x, x, x)):
            with pytest.raises(TypeError, match=r"input: expected .* dtype float32, .*got"):
                refuse()
    with pytest.raises(TypeError, match=r"layout torch\.sparse_coo"):
        which_backend(X.to_sparse())


def test_transforms_go_to_the_reference(backend: Backend) -> None:
    names = []

    def function(x: torch.Tensor) -> torch.Tensor:
        names.append(which_backend(x)[0])
        return x.sum()

    torch.func.grad(function)(X.to(backend.device))
    assert names == ["reference"]


def test_backward_stays_with_its_forward(backend: Backend) -> None:
    """Even if another back end, or none, is forced by then."""
    leaves = [tensor.to(backend.device).requires_grad_() for tensor in (X.clone(), W.clone())]
    y = nac(leaves[0], leaves[1], leaves[1].detach(), log_space=True)
    expected = torch.autograd.grad(y.sum(), leaves, retain_graph=True)
    with use_backend("reference"):
        found = torch.autograd.grad(y.sum(), leaves)
    assert all(map(torch.equal, found, expected))


def subprocess_output(code: str, **environment: str) -> str:
    """What ``code`` prints, or the last line of its complaint, in a Python of its own."""
    code = (
        "import torch, nalu_kernels\n"
        "from nalu_kernels import which_backend, use_backend\n"
        f"x, w = torch.ones(2, 3), torch.ones(4, 3)\n{code}"
    )
    clean = {key: value for key, value in os.environ.items() if key != "NALU_KERNELS_BACKEND"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=clean | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return (done.stdout if done.returncode == 0 else done.stderr.splitlines()[-1]).strip()


def test_environment_variable() -> None:
    assert subprocess_output(
        "print(*which_backend(x))\n"
        "import threading\n"
        "thread = threading.Thread(target=lambda: print(which_backend(x)[0]))\n"
        "thread.start(), thread.join()\n"
        "nalu_kernels.nac(x, w, w)",
        NALU_KERNELS_BACKEND="reference",
    ).split("\n") == ["reference forced by NALU_KERNELS_BACKEND", "reference"]


def test_environment_variable_that_asks_for_an_unusable_one(unusable: str) -> None:
    complaint = subprocess_output("nalu_kernels.nac(x, w, w)", NALU_KERNELS_BACKEND=unusable)
    assert "BackendUnavailable: NALU_KERNELS_BACKEND: " in complaint
    assert backends()[unusable].reason in complaint


def test_environment_variable_that_asks_for_nonsense() -> None:
    complaint = subprocess_output("nalu_kernels.nac(x, w, w)", NALU_KERNELS_BACKEND="fast")
    assert complaint.startswith("ValueError: NALU_KERNELS_BACKEND: expected one of cuda, triton,")
    assert complaint.endswith("got 'fast'")


@only(lambda backend: not backend.emulated)
def test_context_manager_outranks_the_environment(backend: Backend) -> None:
    found = subprocess_output(
        f"with use_backend({backend.name!r}): print(which_backend(x.to({backend.device!r}))[0])",
        NALU_KERNELS_BACKEND="reference",
    )
    assert found == backend.name
