"""What products are rounded to before they are made, where the machine gains by it."""

import functools
from pathlib import Path

from instructgpt.models.config import ModelConfig
from instructgpt.models.kernels.interface import platform

_CPU_INFO = Path("/proc/cpuinfo")


@functools.cache
def has_bfloat16_units(cpu_info: Path = _CPU_INFO) -> bool:
    """Whether the CPU multiplies bfloat16 faster: has AMX, or AVX-512's products."""
    try:
        flags = cpu_info.read_text().split()
    except OSError:
        return False  # not Linux
    return "amx_bf16" in flags or "avx512_bf16" in flags


def product_dtype(config: ModelConfig) -> str:
    """The dtype that a model's products are made in on this machine."""
    wanted = config.product_dtype
    if wanted == "auto":
        units = platform() == "cpu" and has_bfloat16_units()
        wanted = "bfloat16" if units else "compute"
    rounded = wanted == "bfloat16" and config.compute_dtype == "float32"
    return "bfloat16" if rounded else config.compute_dtype
