"""The dtype that operands of products are rounded to, where that is faster."""

import functools
from pathlib import Path

from instructgpt.models.config import ModelConfig
from instructgpt.models.kernels.interface import platform

_CPU_INFO = Path("/proc/cpuinfo")


@functools.cache
def has_bfloat16_units(cpu_info: Path = _CPU_INFO) -> bool:
    """Whether the CPU has bfloat16 units: AMX, or AVX-512's bfloat16 products."""
    try:
        flags = cpu_info.read_text().split()
    except OSError:
        return False  # not Linux
    return "amx_bf16" in flags or "avx512_bf16" in flags


def product_dtype(config: ModelConfig) -> str:
    """The dtype of the operands of a model's products on this machine."""
    wanted = config.product_dtype
    if wanted == "auto":
        units = platform() == "cpu" and has_bfloat16_units()
        wanted = "bfloat16" if units else "compute"
    rounded = wanted == "bfloat16" and config.compute_dtype == "float32"
    return "bfloat16" if rounded else config.compute_dtype
