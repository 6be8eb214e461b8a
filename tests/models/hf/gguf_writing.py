"""GGUF files as llama.cpp's converter writes them, by the gguf library."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import einops
import gguf
import numpy as np

from instructgpt.models.config import ModelConfig
from instructgpt.models.hf.families import write_config
from tests.hf_models import public_tensors

# GGUF's name of the architecture, and its order of the tensors whose names end so.
LAYOUTS = {
    "llama": (
        "llama",
        {
            "q_proj.weight": "(h r c) d -> (h c r) d",
            "k_proj.weight": "(g r c) d -> (g c r) d",
        },
    ),
    "qwen2": ("qwen2", {}),
    "gpt2": (
        "gpt2",
        dict.fromkeys(("c_attn.weight", "c_proj.weight", "c_fc.weight"), "i o -> o i"),
    ),
    "gpt_neox": (
        "gptneox",
        {
            "query_key_value.weight": "(h n c) d -> (n h c) d",
            "query_key_value.bias": "(h n c) -> (n h c)",
        },
    ),
}


def write_gguf(
    path: Path,
    config: ModelConfig,
    params: Any,
    *,
    quantization: gguf.GGMLQuantizationType | None = None,
    changes: Iterable[tuple[str, str]] = (),
    extra: Mapping[str, Any] | None = None,
    tensors: Mapping[str, np.ndarray] | None = None,
    parts: int = 1,
) -> Path:
    """A file, or parts of one, as llama.cpp's converter makes them.

    Args:
      path: The file; parts have their numbers in it.
      config: The model's.
      params: The model's.
      quantization: How the matrices are stored.
      changes: Keys and their texts.
      extra: Keys and their values, of the type that the values have.
      tensors: Written besides the model's.
      parts: How many files.

    Returns:
      The file, or the first part.
    """
    family, _ = write_config(config)
    arch, layouts = LAYOUTS[family.name]
    public = public_tensors(config, params)
    most = -(-len(public) // parts) if parts > 1 else 0
    writer = gguf.GGUFWriter(path, arch, split_max_tensors=most)
    writer.add_context_length(config.context_length)
    writer.add_embedding_length(config.width)
    writer.add_block_count(config.num_layers)
    writer.add_feed_forward_length(config.mlp_width)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_kv_heads)
    writer.add_key_length(config.head_dim)
    if config.norm == "rms_norm":
        writer.add_layer_norm_rms_eps(config.norm_eps)
    else:
        writer.add_layer_norm_eps(config.norm_eps)
    if config.positions == "rotary":
        writer.add_rope_dimension_count(config.rotary_dim)
        writer.add_rope_freq_base(config.rotary_base)
        writer.add_parallel_residual(config.parallel_residual)
    for key, value in changes:
        writer.add_string(key, value)
    architectures = {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}
    names = gguf.get_tensor_name_map(architectures[arch], config.num_layers)
    sizes = dict(h=config.num_heads, g=config.num_kv_heads, n=3, r=2)
    for key, value in (extra or {}).items():
        writer.add_key_value(key, value, gguf.GGUFValueType.get_type(value))
    for name, tensor in (tensors or {}).items():
        writer.add_tensor(name, tensor)
    for name, tensor in public.items():
        pattern = next((p for end, p in layouts.items() if name.endswith(end)), None)
        if pattern:
            used = {a: n for a, n in sizes.items() if a in pattern.split("->")[0]}
            tensor = einops.rearrange(tensor, pattern, **used)
        tensor = np.ascontiguousarray(tensor)
        stored = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if quantization and tensor.ndim == 2:
            tensor = gguf.quantize(tensor, quantization)
            writer.add_tensor(stored, tensor, raw_dtype=quantization)
        else:
            writer.add_tensor(stored, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    first = path.with_name(f"{path.stem}-00001-of-{parts:05d}.gguf")
    return first if parts > 1 else path
