"""GGUF files in the form of a public folder: config keys, tensors by public names.

Tensors are dequantised to float32. llama.cpp has its own names and stores some tensors
in another order; einops patterns here convert their layouts back.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import einops
import gguf
import numpy as np

from instructgpt.errors import UserError
from instructgpt.models.hf.gguf_parts import read_parts
from instructgpt.models.hf.tensors import Tensor
from instructgpt.models.hf.values import positive, truth, whole

# Suffixes of public names -> patterns from GGUF's layout to ours. Letters are those of
# families.py; r is the two channels of a rotary plane, adjacent in GGUF's Llama.
_LLAMA = {
    ".q_proj.weight": "(h c r) d -> (h r c) d",
    ".k_proj.weight": "(g c r) d -> (g r c) d",
}
_GPT2 = {
    f".{name}.weight": "o i -> i o"
    for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
}
_NEOX = {
    ".query_key_value.weight": "(n h c) d -> (h n c) d",
    ".query_key_value.bias": "(n h c) -> (h n c)",
}
# GGUF's architecture -> (model_type, the library's enum value, layouts).
_ARCHITECTURES: dict[str, tuple[str, gguf.MODEL_ARCH, dict[str, str]]] = {
    "llama": ("llama", gguf.MODEL_ARCH.LLAMA, _LLAMA),
    "qwen2": ("qwen2", gguf.MODEL_ARCH.QWEN2, {}),
    "gpt2": ("gpt2", gguf.MODEL_ARCH.GPT2, _GPT2),
    "gptneox": ("gpt_neox", gguf.MODEL_ARCH.GPTNEOX, _NEOX),
}
_HEAD, _TABLE = "output.weight", "rope_freqs.weight"


class GGUFFile:
    """The tensors and the metadata of a GGUF model.

    Attributes:
      metadata: The metadata's values by key.
      config: The content that a config.json would have, and `rotary_table`.
    """

    def __init__(self, path: Path):
        """Reads the headers of the file, and of the other parts of a split model.

        Raises:
          UserError: a file is damaged, truncated, missing or of an unknown
            architecture, or a key is missing or of another type.
        """
        self._path = path
        self.metadata, self._stored = read_parts(path)
        kind = self.metadata.get("general.architecture")
        if not isinstance(kind, str) or kind not in _ARCHITECTURES:
            raise UserError(
                f"{path}: architecture {kind!r} is not supported; known: "
                f"{', '.join(_ARCHITECTURES)}"
            )
        self._kind: str = kind
        model_type, arch, self._layouts = _ARCHITECTURES[kind]
        self.config = self._config(model_type)
        blocks = self._whole("block_count")
        if blocks > len(self._stored):
            raise UserError(
                f"{path}: {kind}.block_count is {blocks}, but the file holds only "
                f"{len(self._stored)} tensors; copy it again"
            )
        self._names = gguf.get_tensor_name_map(arch, blocks)
        self._public: dict[str, str] = {}

    def _where(self, name: str) -> str:
        return f"{self._path}: {self._kind}.{name}"

    def _get(self, name: str, default: Any = None) -> Any:
        """A value of the metadata, which must exist unless there is a default."""
        value = self.metadata.get(f"{self._kind}.{name}", default)
        if value is None:
            raise UserError(f"{self._path}: key {self._kind}.{name} is missing")
        return value

    def _whole(self, name: str, default: int | None = None) -> int:
        return whole(self._get(name, default), self._where(name))

    def _config(self, model_type: str) -> dict[str, Any]:
        heads = self._whole("attention.head_count")
        width = self._whole("embedding_length")
        eps = "attention.layer_norm_rms_epsilon"
        if model_type in ("gpt2", "gpt_neox"):
            eps = "attention.layer_norm_epsilon"
        norm_eps = _clean(positive(self._get(eps), self._where(eps)))
        shared = {
            "model_type": model_type,
            "vocab_size": self._vocab_size(),
            "tie_word_embeddings": _HEAD not in self._stored,
        }
        if model_type == "gpt2":
            return shared | {
                "n_positions": self._whole("context_length"),
                "n_layer": self._whole("block_count"),
                "n_embd": width,
                "n_head": heads,
                "n_inner": self._whole("feed_forward_length"),
                "layer_norm_epsilon": norm_eps,
                "activation_function": "gelu_new",
            }
        channels = self._whole("attention.key_length", width // heads)
        turning = self._turning(channels, partial=model_type == "gpt_neox")
        base = "rope.freq_base"
        public = shared | {
            "max_position_embeddings": self._whole("context_length"),
            "num_hidden_layers": self._whole("block_count"),
            "hidden_size": width,
            "num_attention_heads": heads,
            "num_key_value_heads": self._whole("attention.head_count_kv", heads),
            "intermediate_size": self._whole("feed_forward_length"),
            "rope_theta": positive(self._get(base, 10_000.0), self._where(base)),
            "rope_scaling": self._scaling(),
            "rotary_table": self._table(turning // 2),
            "hidden_act": "silu",
        }
        if model_type == "gpt_neox":
            parallel = "use_parallel_residual"
            return public | {
                "layer_norm_eps": norm_eps,
                parallel: truth(self._get(parallel, True), self._where(parallel)),
                "rotary_pct": turning / channels,
                "hidden_act": "gelu",
            }
        if model_type == "llama":
            public["head_dim"] = channels
        return public | {"rms_norm_eps": norm_eps}

    def _turning(self, channels: int, *, partial: bool) -> int:
        """Number of a head's channels that rotary positions rotate."""
        turning = self._whole("rope.dimension_count", channels)
        if turning > channels or (turning < channels and not partial):
            raise UserError(
                f"{self._where('rope.dimension_count')} is {turning}, of {channels} "
                "channels a head, which is not supported; copy the file again"
            )
        return turning

    def _scaling(self) -> dict[str, Any] | None:
        """Linear rotary scaling, by the keys that llama.cpp reads for every model."""
        kind = self._get("rope.scaling.type", "linear")
        if kind not in ("none", "linear"):
            raise UserError(
                f"{self._path}: rotary scaling {kind!r} is not supported in GGUF; "
                "import the model's safetensors instead"
            )
        keys = ("rope.scaling.factor", "rope.scale_linear")  # the second until 2024
        given = (n for n in keys if f"{self._kind}.{n}" in self.metadata)
        key = next(given, keys[0])
        # A factor of 0 means no scaling.
        factor = self._get(key, 0.0) or 1.0
        factor = positive(factor, self._where(key))
        attention = "rope.scaling.attn_factor"
        if self._get(attention, 1.0) != 1.0:
            raise UserError(f"{self._where(attention)} is not supported, only 1.0")
        if factor == 1.0:
            return None
        if kind == "none":
            raise UserError(
                f"{self._where(key)} is {factor}, but {self._kind}.rope.scaling.type "
                "is 'none'; import the model's safetensors instead"
            )
        return {"rope_type": "linear", "factor": factor}

    def _table(self, size: int) -> list[float] | None:
        """Divisors of the planes' frequencies, which most files of Llama 3.1 hold."""
        stored = self._stored.get(_TABLE)
        if stored is None:
            return None
        table = gguf.dequantize(stored.tensor.data, stored.tensor.tensor_type)
        if table.shape != (size,) or not (np.isfinite(table) & (table > 0)).all():
            raise UserError(
                f"{stored.file}: {_TABLE!r} must hold {size} numbers above 0, one for "
                "each two channels that turn; copy the file again"
            )
        return [float(value) for value in table]

    def _vocab_size(self) -> int:
        name = "token_embd.weight"
        if name not in self._stored:
            raise UserError(f"{self._path}: tensor {name!r} is missing")
        return int(self._stored[name].tensor.shape[-1])

    def rename(self, wanted: list[str]) -> None:
        """Finds the public names of the tensors.

        Args:
          wanted: Public names of all tensors of the family's rules.
        """
        for name in wanted:
            found = self._names.get_name(name, try_suffixes=(".weight", ".bias"))
            if found in self._stored:
                self._public[name] = found

    def tensors(self) -> Mapping[str, Tensor]:
        known = {stored: name for name, stored in self._public.items()}
        out = {}
        for stored, (tensor, file) in self._stored.items():
            if stored == _TABLE:
                continue
            name = known.get(stored, stored)
            shape = tuple(int(n) for n in tensor.shape[::-1])
            pattern = self._layout(name)
            if pattern == "o i -> i o":
                shape = shape[::-1]
            out[name] = Tensor(shape, file)
        return out

    def read(self, name: str) -> np.ndarray:
        tensor, file = self._stored[self._public[name]]
        heads = self._whole("attention.head_count")
        sizes = {
            "h": heads,
            "g": self._whole("attention.head_count_kv", heads),
            "n": 3,
            "r": 2,
        }
        pattern = self._layout(name)
        used = {axis: n for axis, n in sizes.items() if axis in pattern.split("->")[0]}
        try:
            value = gguf.dequantize(tensor.data, tensor.tensor_type)
            return einops.rearrange(value, pattern, **used) if pattern else value
        except (ValueError, einops.EinopsError) as error:
            raise UserError(
                f"{file}: tensor {tensor.name!r} is damaged; copy the file again"
            ) from error

    def _layout(self, name: str) -> str:
        ends = (p for end, p in self._layouts.items() if name.endswith(end))
        return next(ends, "")


def _clean(value: float) -> float:
    """The shortest decimal that gives this float32 of the metadata."""
    return float(str(np.float32(value)))
