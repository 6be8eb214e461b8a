"""The config of a transformer: its switches, and every GPT-3 size by name."""

import dataclasses
from collections.abc import Callable
from typing import Literal

from instructgpt.errors import UserError
from instructgpt.ranges import (
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    check_values,
)

_LOGIT_BYTES = 1 << 27  # default size of a chunk of logits


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Configuration of a decoder-only transformer; frozen, so static under jit.

    The defaults are GPT-2's architecture. With `attention_band` it is GPT-3's, in which
    dense and locally banded layers alternate (Brown et al. 2020, §2.1); other switches
    make it GPT-NeoX, Llama or Qwen2, see `models/hf/families.py`.
    """

    # Tokens that can be predicted. 0: those of the tokenizer, which pretraining fills
    # in; a model that is built has 1 or more.
    vocab_size: NonNegativeInt
    context_length: PositiveInt  # tokens
    num_layers: PositiveInt
    width: PositiveInt
    num_heads: PositiveInt
    head_dim: NonNegativeInt = 0  # 0: width / num_heads
    # Key and value heads, each shared by num_heads / num_kv_heads query heads
    # (Ainslie et al. 2023). 0: num_heads.
    num_kv_heads: NonNegativeInt = 0
    mlp_width: NonNegativeInt = 0  # 0: 4 x width
    # Rows of the embedding. Rows from vocab_size on are never predicted: the padding
    # token is one of them, and they let the table divide over a mesh. 0: vocab_size.
    padded_vocab_size: NonNegativeInt = 0
    # A table of context_length learned vectors, or rotary positions (Su et al. 2021),
    # which rotate channel c of queries and keys with channel c + rotary_dim / 2.
    positions: Literal["learned", "rotary"] = "learned"
    rotary_dim: NonNegativeInt = 0  # channels of a head that are rotated; 0: head_dim
    rotary_base: PositiveFloat = 10_000.0
    # How rotary positions are scaled to longer contexts than the model was trained on.
    # linear: all angles are divided by the factor. llama3: only the slow ones, between
    # two wavelengths given as fractions 1 / high_freq and 1 / low_freq of the original
    # context. table: each plane's rate is divided by a number of its own.
    rotary_scaling: Literal["none", "linear", "llama3", "table"] = "none"
    rotary_factor: PositiveFloat = 1.0
    rotary_low_freq: PositiveFloat = 1.0
    rotary_high_freq: PositiveFloat = 4.0
    rotary_original_context: NonNegativeInt = 0
    # Divisors of the planes' rates, in order from the fastest plane to the slowest.
    rotary_table: tuple[PositiveFloat, ...] = ()
    norm: Literal["layer_norm", "rms_norm"] = "layer_norm"
    norm_eps: PositiveFloat = 1e-5
    activation: Literal["gelu", "gelu_tanh", "swiglu"] = "gelu_tanh"
    # Attention and MLP both read the block's input, and their sum is added.
    parallel_residual: bool = False
    qkv_bias: bool = True
    out_bias: bool = True  # whether the attention's output projection has a bias
    mlp_bias: bool = True
    tied_head: bool = True  # the unembedding is the embedding
    # Width in tokens of the locally banded layers; odd layers are banded, even ones
    # dense (Sparse Transformer). 0: all layers dense.
    attention_band: NonNegativeInt = 0
    # Standard deviations of the initial embeddings (GPT-2: 0.02 and 0.01).
    embedding_std: NonNegativeFloat = 0.02
    position_std: NonNegativeFloat = 0.01
    # The learned position table starts as noise, or as sines of many wavelengths. With
    # sines near positions are alike, and small models learn to look back much sooner.
    position_init: Literal["normal", "sinusoidal"] = "normal"
    residual_dropout: Fraction = 0.0  # after attention and MLP, before the residual add
    compute_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    # The dtype that float32 activations and weights are rounded to before they are
    # multiplied. Sums stay float32 and, in the fast kernels, so do the products for
    # weight gradients. TPUs always round to bfloat16; "auto" also does so on processors
    # with bfloat16 units, but not on GPUs.
    product_dtype: Literal["compute", "bfloat16", "auto"] = "compute"
    # What the backward pass recomputes. none: nothing. elementwise: what lies between
    # matrix products, which is cheaper to compute than to store. dots: the products of
    # attention too, if they are plain JAX (kernels="reference"); the fast kernels never
    # store their scores, so with them it is the same as elementwise. full: all of a
    # layer.
    remat: Literal["none", "elementwise", "dots", "full"] = "elementwise"
    # Runs the layers in a loop, so that compile time does not grow with depth. Without
    # the loop, the last layer skips queries and MLP for tokens whose states are not
    # wanted (a prompt's, where a response is scored) and computes only their keys and
    # values, which saves much of a shallow model's time. But the backward pass may then
    # recompute activations so early that all are held at once, and memory is that of
    # remat="none".
    scan_layers: bool = True
    # On a mesh with a `tensor` axis, shards tokens over it between layers (Korthikanti
    # et al. 2022). Activations kept for the backward pass shrink by the size of that
    # axis, norms are computed once, and links carry about two fifths more traffic
    # (planned for 1.3B, tensor=4).
    sequence_parallel: bool = False
    # How operations are computed: by the fastest kernel for the backend, dtype and
    # shape, or all of them in plain JAX, by models/kernels/reference.py.
    kernels: Literal["auto", "reference"] = "auto"
    # Attention in the platform's own kernels. Texts without a context: cuDNN's on a
    # GPU, for float16 and bfloat16; JAX's on a TPU, for multiples of 128 tokens;
    # neither stores scores. Decoding steps over a cache: JAX's on a GPU, for models
    # without banded layers. Elsewhere, and with reference kernels, nothing changes.
    fused_attention: bool = False
    # Number of tokens per device whose float32 logits exist at one time, which bounds
    # memory at [chunk, V]. 0: the largest power of two that takes at most 128 MiB.
    logit_chunk: NonNegativeInt = 0

    def __post_init__(self):
        check_values(type(self), vars(self), where="config.model")
        # Checkpoints keep their configs as JSON, which reads a tuple back as a list.
        object.__setattr__(self, "rotary_table", tuple(self.rotary_table))
        if self.sequence_parallel and not self.scan_layers:
            raise UserError(
                "config.model: sequence_parallel needs scan_layers; turn that on or "
                "sequence_parallel off"
            )
        if not self.head_dim and self.width % self.num_heads:
            raise UserError(
                f"config.model: width={self.width} does not divide into "
                f"num_heads={self.num_heads}; change one or set head_dim"
            )
        self._fill("head_dim", self.width // self.num_heads)
        self._fill("num_kv_heads", self.num_heads)
        self._fill("mlp_width", 4 * self.width)
        self._fill("padded_vocab_size", self.vocab_size)
        self._fill("rotary_dim", self.head_dim)
        # The chunk is a power of two, because with other sizes programs for a TPU take
        # longer to compile and more memory to run.
        most = max(_LOGIT_BYTES // (4 * max(self.padded_vocab_size, 1)), 1)
        self._fill("logit_chunk", 1 << (most.bit_length() - 1))
        if self.num_heads % self.num_kv_heads:
            raise UserError(
                f"config.model: num_kv_heads={self.num_kv_heads} does not divide "
                f"num_heads={self.num_heads}"
            )
        if self.padded_vocab_size < self.vocab_size:
            raise UserError(
                f"config.model.padded_vocab_size={self.padded_vocab_size} is smaller "
                f"than vocab_size={self.vocab_size}"
            )
        self._check_rotary()

    def _fill(self, name: str, value: int) -> None:
        """Replaces a field's 0, which stands for its default, by the value."""
        if not getattr(self, name):
            object.__setattr__(self, name, value)

    def _check_rotary(self) -> None:
        if self.rotary_dim % 2 or self.rotary_dim > self.head_dim:
            raise UserError(
                f"config.model.rotary_dim={self.rotary_dim} must be even and at most "
                f"head_dim={self.head_dim}"
            )
        if self.rotary_scaling == "llama3" and not (
            self.rotary_original_context > 0
            and 0 < self.rotary_low_freq < self.rotary_high_freq
        ):
            raise UserError(
                "config.model.rotary_scaling='llama3' needs rotary_original_context "
                "and rotary_low_freq < rotary_high_freq"
            )
        size = self.rotary_dim // 2 if self.rotary_scaling == "table" else 0
        if len(self.rotary_table) != size:
            raise UserError(
                f"config.model.rotary_table={self.rotary_table}: with rotary_scaling="
                f"{self.rotary_scaling!r} give {size} numbers above 0"
            )

    @property
    def num_params(self) -> int:
        """Number of trainable parameters, embeddings included (no scalar head)."""
        query = self.num_heads * self.head_dim
        keys_values = 2 * self.num_kv_heads * self.head_dim
        attention = self.width * (2 * query + keys_values)
        attention += self.qkv_bias * (query + keys_values) + self.out_bias * self.width
        inputs = 2 if self.activation == "swiglu" else 1
        mlp = (inputs + 1) * self.width * self.mlp_width
        mlp += self.mlp_bias * (inputs * self.mlp_width + self.width)
        norm = self.width * (2 if self.norm == "layer_norm" else 1)
        rows = self.padded_vocab_size * (1 if self.tied_head else 2)
        rows += self.context_length if self.positions == "learned" else 0
        return self.num_layers * (attention + mlp + 2 * norm) + rows * self.width + norm


def for_devices(
    config: ModelConfig, *, tpu: bool, log: Callable[[str], None]
) -> ModelConfig:
    """The config in dtypes that the devices have: TPUs have no float16.

    Args:
      config: The model's config as the user gave it.
      tpu: Whether the devices are TPUs.
      log: Called with a message that says which dtype replaces which.
    """
    if not tpu or config.compute_dtype != "float16":
        return config
    log("TPUs have no float16: models compute in bfloat16 in its place")
    return dataclasses.replace(config, compute_dtype="bfloat16")


def _gpt3(num_layers: int, width: int, num_heads: int, head_dim: int) -> ModelConfig:
    # The vocabulary is GPT-2's 50,257 padded up to a multiple of 128, so that it
    # shards; the band of the sparse layers is not given in the paper.
    return ModelConfig(
        vocab_size=50257,
        padded_vocab_size=50304,
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

# Public models to train from scratch; `models/hf/` imports the trained ones. Tables
# grow to a multiple of 128 rows; Pythia's is one already, with ids to spare.
PUBLIC_SIZES: dict[str, ModelConfig] = {
    "gpt2": ModelConfig(  # Radford et al. 2019
        vocab_size=50257,
        padded_vocab_size=50304,
        context_length=1024,
        num_layers=12,
        width=768,
        num_heads=12,
    ),
    "pythia-1b": ModelConfig(  # Biderman et al. 2023, Table 1
        vocab_size=50304,
        context_length=2048,
        num_layers=16,
        width=2048,
        num_heads=8,
        positions="rotary",
        rotary_dim=64,
        activation="gelu",
        parallel_residual=True,
        tied_head=False,
    ),
    "smollm2": ModelConfig(  # Ben Allal et al. 2025, the 135M model
        vocab_size=49152,
        padded_vocab_size=49280,
        context_length=8192,
        num_layers=30,
        width=576,
        num_heads=9,
        num_kv_heads=3,
        mlp_width=1536,
        positions="rotary",
        rotary_base=100_000.0,
        norm="rms_norm",
        activation="swiglu",
        qkv_bias=False,
        out_bias=False,
        mlp_bias=False,
    ),
}
