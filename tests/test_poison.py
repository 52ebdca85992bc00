"""The poison reaches every way to allocate that the library uses."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest
import torch

from poison import glibc


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str
)
@pytest.mark.parametrize("size", [1, 100, 100_000])
def test_torch_allocations(size: int, dtype: torch.dtype) -> None:
    assert torch.empty(size, dtype=dtype).isnan().all()
    assert torch.zeros(1).new_empty(size, dtype=dtype).isnan().all()
    assert torch.empty_strided((size,), (2,), dtype=dtype).isnan().all()


@pytest.mark.skipif(glibc() is None, reason="only glibc's malloc can be poisoned")
@pytest.mark.parametrize("size", [1, 100, 100_000])
def test_allocations_through_the_stable_abi(size: int) -> None:
    torch_cpu = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
    sizes, strides = (ctypes.c_int64 * 1)(size), (ctypes.c_int64 * 1)(1)
    tensor, data = ctypes.c_void_p(), ctypes.POINTER(ctypes.c_float)()
    float32, cpu = torch_cpu.aoti_torch_dtype_float32(), torch_cpu.aoti_torch_device_type_cpu()
    torch_cpu.aoti_torch_empty_strided(
        ctypes.c_int64(1), sizes, strides, float32, cpu, 0, ctypes.byref(tensor)
    )
    torch_cpu.aoti_torch_get_data_ptr(tensor, ctypes.byref(data))
    values = torch.tensor(data[:size])
    torch_cpu.aoti_torch_delete_tensor_object(tensor)
    assert values.isnan().all()
