"""Small models of every public family, and their files.

Letters: V vocabulary.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from instructgpt.models.config import ModelConfig
from instructgpt.models.hf import transfer
from instructgpt.models.hf.families import rules_of, write_config
from instructgpt.models.transformer import Transformer
from instructgpt.sharding import MeshConfig, make_mesh
from instructgpt.state import params_layout
from tests import tiny

V = 101  # no multiple of anything that shards

SMALL: dict[str, Any] = dict(
    vocab_size=V, context_length=96, num_layers=3, width=32, num_heads=4, mlp_width=80
)
_LLAMA = dict(
    positions="rotary",
    norm="rms_norm",
    activation="swiglu",
    num_kv_heads=2,
    qkv_bias=False,
    out_bias=False,
    mlp_bias=False,
)
# Every switch of a family that its public checkpoints use.
CONFIGS: dict[str, ModelConfig] = {
    "gpt2": ModelConfig(**SMALL),
    "gpt_neox": ModelConfig(
        **SMALL,
        positions="rotary",
        rotary_dim=2,
        activation="gelu",
        parallel_residual=True,
        tied_head=False,
    ),
    "gpt_neox serial": ModelConfig(
        **SMALL, positions="rotary", activation="gelu", tied_head=False
    ),
    "llama": ModelConfig(**SMALL, **_LLAMA, tied_head=False, norm_eps=1e-6),
    "llama tied": ModelConfig(**SMALL, **_LLAMA, head_dim=16, rotary_base=1e5),
    "llama 3.1": ModelConfig(
        **SMALL,
        **_LLAMA,
        tied_head=False,
        rotary_base=5e3,
        rotary_scaling="llama3",
        rotary_factor=8.0,
        rotary_original_context=32,
    ),
    "llama stretched": ModelConfig(
        **SMALL, **_LLAMA, rotary_scaling="linear", rotary_factor=4.0
    ),
    "qwen2": ModelConfig(**SMALL, **{**_LLAMA, "qkv_bias": True}, norm_eps=1e-6),
}


def params_of(config: ModelConfig, *, seed: int = 0) -> Any:
    """Random parameters on one device, the padded rows of the tables zero."""
    params = tiny.params_of(Transformer(config), seed=seed)
    for table in ("token_embedding", "unembedding"):
        if table in params:
            params[table] = params[table].at[config.vocab_size :].set(0.0)
    return params


def layout_of(config: ModelConfig, **mesh: int) -> Any:
    """Where the parameters of a model go."""
    return params_layout(Transformer(config), make_mesh(MeshConfig(**mesh)))


def public_tensors(config: ModelConfig, params: Any) -> dict[str, np.ndarray]:
    """The tensors that a public checkpoint of these parameters holds."""
    family, _ = write_config(config)
    items = transfer.expected(family, config, layout_of(config))
    return {
        name: transfer.export_tensor(item, params, config=config)
        for name, item in items.items()
    }


def write_folder(
    folder: Path, config: ModelConfig, tensors: dict[str, np.ndarray]
) -> Path:
    """A public folder in one file, without a tokenizer."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(write_config(config)[1]))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


CONTROLS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def write_chat_model(folder: Path, *, context_length: int = 256) -> None:
    """Writes a tiny random Llama with a tokenizer as SmolLM2 has it."""
    folder.mkdir(parents=True, exist_ok=True)
    config = dataclasses.replace(
        CONFIGS["llama tied"],
        vocab_size=write_chat_tokenizer(folder),
        padded_vocab_size=0,
        context_length=context_length,
    )
    write_folder(folder, config, public_tensors(config, params_of(config)))


def write_chat_tokenizer(folder: Path) -> int:
    """Byte-level tokenizer files; returns the size of the vocabulary."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=CONTROLS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    texts = [
        "Where are the old maps? How do I find the clocks? I would like to see them."
    ]
    texts += [
        "You will find the old maps in room 7, on the upper floor. Enjoy your visit!"
    ]
    tokenizer.train_from_iterator(texts * 4, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return tokenizer.get_vocab_size()


def logits_of(config: ModelConfig, params: Any, tokens: np.ndarray) -> np.ndarray:
    """float32[B, T, padded V] of whole rows int32[B, T]."""
    model = Transformer(config)

    @jax.jit
    def run(params: Any, tokens: jax.Array) -> jax.Array:
        valid = jax.numpy.ones((tokens.shape[0], 1, tokens.shape[1]), bool)
        hidden, _ = model.apply({"params": params}, tokens[:, None], valid)
        return model.apply({"params": params}, hidden[:, 0], method="logits")

    return np.asarray(run(params, tokens))


def num_tensors(config: ModelConfig) -> int:
    """How many tensors a public checkpoint of the model holds."""
    rules = rules_of(write_config(config)[0], config)
    return sum(config.num_layers if rule.per_layer else 1 for rule in rules)
