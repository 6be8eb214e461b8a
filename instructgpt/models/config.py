"""What defines a transformer, and every GPT-3 size by name."""

import dataclasses
from typing import Literal

from instructgpt.errors import UserError

_CHOICES = {
    "position_init": ("normal", "sinusoidal"),
    "compute_dtype": ("float32", "bfloat16", "float16"),
    "remat": ("none", "full", "dots"),
}


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A GPT-3 decoder (Brown et al. 2020, §2.1). Frozen, so static under jit."""

    vocab_size: int
    context_length: int  # tokens: size of the learned position table
    num_layers: int
    width: int
    num_heads: int
    head_dim: int = 0  # 0: width / num_heads
    mlp_width: int = 0  # 0: 4 x width
    # Band of the locally banded layers, in tokens; odd layers are banded, even ones
    # dense (Sparse Transformer). 0: all layers dense.
    attention_band: int = 0
    # Standard deviations of the embeddings at the start (GPT-2: 0.02 and 0.01).
    embedding_std: float = 0.02
    position_std: float = 0.01
    # The learned position table starts as noise, or as sines of many wavelengths, in
    # which near positions are alike: small models learn to look back much sooner.
    position_init: Literal["normal", "sinusoidal"] = "normal"
    residual_dropout: float = 0.0  # after attention and MLP, before the residual add
    layer_norm_eps: float = 1e-5
    compute_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    # What the backward pass recomputes: nothing, all of a layer, or all of it but
    # the matrix products.
    remat: Literal["none", "full", "dots"] = "none"
    # Tokens whose logits exist at one time, in float32; bounds memory at [chunk, V].
    logit_chunk: int = 8192

    def __post_init__(self):
        if not self.head_dim:
            if self.width % self.num_heads:
                raise UserError(
                    f"config.model: width={self.width} does not divide into "
                    f"num_heads={self.num_heads}; change one or set head_dim"
                )
            object.__setattr__(self, "head_dim", self.width // self.num_heads)
        if not self.mlp_width:
            object.__setattr__(self, "mlp_width", 4 * self.width)
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise UserError(
                    f"config.model.{name}={getattr(self, name)!r} does not exist; "
                    f"known: {', '.join(known)}"
                )
        for name in ("vocab_size", "context_length", "num_layers", "logit_chunk"):
            if getattr(self, name) < 1:
                raise UserError(f"config.model.{name} must be positive")

    @property
    def num_params(self) -> int:
        """Trainable parameters, embeddings included (tied head, no scalar head)."""
        attention = 4 * self.width * self.num_heads * self.head_dim
        attention += 3 * self.num_heads * self.head_dim + self.width
        mlp = 2 * self.width * self.mlp_width + self.mlp_width + self.width
        norms = 4 * self.width
        embeddings = (self.vocab_size + self.context_length) * self.width
        return self.num_layers * (attention + mlp + norms) + embeddings + 2 * self.width


def _gpt3(num_layers: int, width: int, num_heads: int, head_dim: int) -> ModelConfig:
    # The vocabulary is GPT-2's 50,257 padded up to a multiple of 128, so that it
    # shards; the band of the sparse layers is not given in the paper.
    return ModelConfig(
        vocab_size=50304,
        context_length=2048,
        num_layers=num_layers,
        width=width,
        num_heads=num_heads,
        head_dim=head_dim,
        attention_band=256,
        compute_dtype="float16",
    )


# Brown et al. 2020, Table 2.1. The table prints 24 heads for XL, but 24 x 128 is not
# 2048; Stiennon et al. 2020 (Table 3) print 16 for the same model. For 13B the
# table prints width 5140; 40 heads of 128 make 5120.
GPT3_SIZES: dict[str, ModelConfig] = {
    "125m": _gpt3(12, 768, 12, 64),
    "350m": _gpt3(24, 1024, 16, 64),
    "760m": _gpt3(24, 1536, 16, 96),
    "1.3b": _gpt3(24, 2048, 16, 128),
    "2.7b": _gpt3(32, 2560, 32, 80),
    "6b": _gpt3(32, 4096, 32, 128),
    "13b": _gpt3(40, 5120, 40, 128),
    "175b": _gpt3(96, 12288, 96, 128),
}
