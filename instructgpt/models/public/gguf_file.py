"""GGUF files as a public folder would be: keys of a config, tensors by public names.

Tensors are dequantised to float32. llama.cpp names them in its own way and stores some
in another order; the rows of its `_LAYOUTS` give the way back, as einops patterns.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import einops
import gguf
import numpy as np

from instructgpt.errors import UserError
from instructgpt.models.public.tensors import Tensor

# Ends of public names -> their layout in GGUF and ours. Letters as in families.py; r is
# the two channels of a rotary plane, neighbours in GGUF's Llama.
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
# GGUF's architecture -> model_type, its enumeration in the library, layouts.
_ARCHITECTURES: dict[str, tuple[str, gguf.MODEL_ARCH, dict[str, str]]] = {
    "llama": ("llama", gguf.MODEL_ARCH.LLAMA, _LLAMA),
    "qwen2": ("qwen2", gguf.MODEL_ARCH.QWEN2, {}),
    "gpt2": ("gpt2", gguf.MODEL_ARCH.GPT2, _GPT2),
    "gptneox": ("gpt_neox", gguf.MODEL_ARCH.GPTNEOX, _NEOX),
}
_HEAD = "output.weight"


class GGUFFile:
    """The tensors of a GGUF file, and what its metadata says.

    Attributes:
      metadata: key -> value.
      config: what config.json would hold.
    """

    def __init__(self, path: Path):
        """Reads the header.

        Raises:
          UserError: the file is damaged, truncated or of an unknown architecture.
        """
        self._path = path
        try:
            self._reader = gguf.GGUFReader(path)
        except (ValueError, IndexError, KeyError, UnicodeDecodeError, OSError) as error:
            raise UserError(
                f"{path}: not a GGUF file, or a truncated one ({error}); copy it again"
            ) from error
        self.metadata = {
            key: field.contents() for key, field in self._reader.fields.items()
        }
        kind = self.metadata.get("general.architecture")
        if kind not in _ARCHITECTURES:
            raise UserError(
                f"{path}: architecture {kind!r} is not supported; known: "
                f"{', '.join(_ARCHITECTURES)}"
            )
        self._kind: str = kind
        model_type, arch, self._layouts = _ARCHITECTURES[kind]
        self._stored = {tensor.name: tensor for tensor in self._reader.tensors}
        self.config = self._config(model_type)
        self._names = gguf.get_tensor_name_map(arch, self._key("block_count"))
        self._public: dict[str, str] = {}

    def _key(self, name: str, default: Any = None) -> Any:
        value = self.metadata.get(f"{self._kind}.{name}", default)
        if value is None:
            raise UserError(f"{self._path}: key {self._kind}.{name} is missing")
        return value

    def _config(self, model_type: str) -> dict[str, Any]:
        heads = self._key("attention.head_count")
        width = self._key("embedding_length")
        eps = "layer_norm_rms_epsilon"
        if model_type in ("gpt2", "gpt_neox"):
            eps = "layer_norm_epsilon"
        vocab_size = int(self._embedding().shape[-1])
        shared = {
            "model_type": model_type,
            "vocab_size": vocab_size,
            "tie_word_embeddings": _HEAD not in self._stored,
        }
        if model_type == "gpt2":
            return shared | {
                "n_positions": self._key("context_length"),
                "n_layer": self._key("block_count"),
                "n_embd": width,
                "n_head": heads,
                "n_inner": self._key("feed_forward_length"),
                "layer_norm_epsilon": _clean(self._key(f"attention.{eps}")),
                "activation_function": "gelu_new",
            }
        channels = self._key("attention.key_length", width // heads)
        turning = self._key("rope.dimension_count", channels)
        public = shared | {
            "max_position_embeddings": self._key("context_length"),
            "num_hidden_layers": self._key("block_count"),
            "hidden_size": width,
            "num_attention_heads": heads,
            "num_key_value_heads": self._key("attention.head_count_kv", heads),
            "intermediate_size": self._key("feed_forward_length"),
            "rope_theta": self._key("rope.freq_base", 10_000.0),
            "hidden_act": "silu",
        }
        eps_value = _clean(self._key(f"attention.{eps}"))
        if model_type == "gpt_neox":
            return public | {
                "layer_norm_eps": eps_value,
                "use_parallel_residual": self._key("use_parallel_residual", True),
                "rotary_pct": turning / channels,
                "hidden_act": "gelu",
            }
        if model_type == "llama":
            public["head_dim"] = channels
        return public | {"rms_norm_eps": eps_value, "rope_scaling": self._scaling()}

    def _scaling(self) -> dict[str, Any] | None:
        kind = self._key("rope.scaling.type", "none")
        if kind == "none" and "rope_freqs.weight" not in self._stored:
            return None
        if kind == "linear":
            return {"rope_type": "linear", "factor": self._key("rope.scaling.factor")}
        raise UserError(
            f"{self._path}: rotary scaling {kind!r} with a table of frequencies is not "
            "supported in GGUF; import the model's safetensors instead"
        )

    def _embedding(self) -> Any:
        if "token_embd.weight" not in self._stored:
            raise UserError(f"{self._path}: tensor 'token_embd.weight' is missing")
        return self._stored["token_embd.weight"]

    def rename(self, wanted: list[str]) -> None:
        """Finds the public names of the tensors.

        Args:
          wanted: Names that the family's rules ask for.
        """
        for name in wanted:
            found = self._names.get_name(name, try_suffixes=(".weight", ".bias"))
            if found in self._stored:
                self._public[name] = found

    def tensors(self) -> Mapping[str, Tensor]:
        known = {stored: name for name, stored in self._public.items()}
        out = {}
        for stored, tensor in self._stored.items():
            name = known.get(stored, stored)
            shape = tuple(int(n) for n in tensor.shape[::-1])
            pattern = self._layout(name)
            if pattern == "o i -> i o":
                shape = shape[::-1]
            out[name] = Tensor(shape, str(self._path))
        return out

    def read(self, name: str) -> np.ndarray:
        tensor = self._stored[self._public[name]]
        value = gguf.dequantize(tensor.data, tensor.tensor_type)
        pattern = self._layout(name)
        if not pattern:
            return value
        heads = self._key("attention.head_count")
        sizes = {
            "h": heads,
            "g": self._key("attention.head_count_kv", heads),
            "n": 3,
            "r": 2,
        }
        used = {axis: n for axis, n in sizes.items() if axis in pattern.split("->")[0]}
        return einops.rearrange(value, pattern, **used)

    def _layout(self, name: str) -> str:
        ends = (p for end, p in self._layouts.items() if name.endswith(end))
        return next(ends, "")


def _clean(value: float) -> float:
    """A float32 of the metadata as the decimal it was written from."""
    return float(str(np.float32(value)))
