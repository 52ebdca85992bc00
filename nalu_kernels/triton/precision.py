"""Which product each path takes: the policy, in one place (docs/triton.md has it as a table).

- float64 is float64.
- float32 follows the user's torch setting: "highest" keeps all 24 bits, "high" about 16. At
  "medium" the linear path and the gate take plain bfloat16, but never the log-space path, whose
  exponential multiplies its error by the size of its argument.
- bfloat16 and float16: the linear path and the gate in the dtype itself, the log-space path with
  about 16 bits. float16's gradients, whose range is not its own, as the log-space path.
- Small layers gain nothing from tensor cores: float32 throughout, whatever the setting.
"""

from __future__ import annotations

import torch

from .device import Chip


def float32_setting() -> str:
    """torch's precision of float32 products on CUDA: "highest", "high" or "medium"."""
    if torch.backends.cuda.matmul.fp32_precision != "tf32":
        return "highest"
    try:  # only the older setting tells apart "high" and "medium"
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # it was not used, and then refuses to answer
        return "high"


def products(dtype: torch.dtype, setting: str, chip: Chip, *, backward: bool) -> tuple[str, str]:
    """(linear and gate, log-space): names of ``products.product``."""
    if dtype == torch.float64:
        return "ieee", "ieee"
    if dtype == torch.bfloat16:
        return "bf16", "bf16x3"
    if dtype == torch.float16:
        return "bf16x3" if backward else "fp16", "bf16x3"
    if setting == "high":
        return "bf16x3", "bf16x3"
    if setting == "medium":
        return "bf16", "bf16x3"
    # AMD's matrix cores multiply float32 themselves.
    return ("ieee", "ieee") if chip.family == "gfx942" else ("bf16x6", "bf16x6")
