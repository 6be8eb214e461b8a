"""Small valid public models, one of each way in which their files lie."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from safetensors.numpy import load_file, save_file

from instructgpt.models.config import ModelConfig
from instructgpt.models.hf.tensors import INDEX, SINGLE
from tests.hf_models import params_of, public_tensors, write_folder
from tests.models.hf.gguf_writing import write_gguf
from tests.tokenizer.samples import train_byte_level, train_pieces

CONTROLS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
V = 300
SMALL: dict[str, Any] = dict(
    vocab_size=V, context_length=32, num_layers=1, width=16, num_heads=2, mlp_width=24
)
LLAMA: dict[str, Any] = dict(
    **dict(SMALL, positions="rotary", norm="rms_norm", activation="swiglu"),
    **dict(qkv_bias=False, out_bias=False, mlp_bias=False, num_kv_heads=1),
)
CONFIGS: dict[str, ModelConfig] = {
    "gpt2": ModelConfig(**SMALL),
    "gpt_neox": ModelConfig(
        **dict(SMALL, positions="rotary", rotary_dim=4, activation="gelu"),
        parallel_residual=True,
        tied_head=False,
    ),
    "llama": ModelConfig(
        **LLAMA,
        rotary_scaling="llama3",
        rotary_factor=8.0,
        rotary_original_context=16,
    ),
    "qwen2": ModelConfig(**{**LLAMA, "qkv_bias": True}, tied_head=False),
}


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1))


def _folder(folder: Path, name: str) -> None:
    config = CONFIGS[name]
    write_folder(folder, config, public_tensors(config, params_of(config)))


def _byte_level(folder: Path) -> None:
    train_byte_level(*CONTROLS, vocab_size=V - 2).save(str(folder / "tokenizer.json"))
    decoder = {
        str(i): {"content": name, "special": True} for i, name in enumerate(CONTROLS)
    }
    decoder[str(V - 2)] = {"content": "<tool>", "special": False}
    settings = {"eos_token": "<|im_end|>", "pad_token": {"content": "<|endoftext|>"}}
    settings |= {"bos_token": None, "add_bos_token": False, "model_max_length": 10**30}
    settings["added_tokens_decoder"] = decoder
    _write(folder / "tokenizer_config.json", settings)


def _merges(folder: Path) -> None:
    train_byte_level(*CONTROLS, vocab_size=V - 2).model.save(str(folder))
    _write(folder / "added_tokens.json", {"<|eot|>": V - 2})
    _write(folder / "special_tokens_map.json", {"eos_token": "<|eot|>"})
    _write(folder / "tokenizer_config.json", {"tokenizer_class": "GPT2Tokenizer"})


def _pieces(folder: Path) -> None:
    model = train_pieces(model_type="bpe", vocab_size=V - 2, byte_fallback=True)
    (folder / "tokenizer.model").write_bytes(model)
    _write(folder / "added_tokens.json", {"<|im_start|>": V - 2, "<|im_end|>": V - 1})
    settings = {"tokenizer_class": "LlamaTokenizer", "eos_token": "<|im_end|>"}
    _write(folder / "tokenizer_config.json", settings)


def _llama(folder: Path) -> None:
    _folder(folder, "llama")
    _byte_level(folder)


def _gpt2(folder: Path) -> None:
    _folder(folder, "gpt2")
    _merges(folder)


def _neox(folder: Path) -> None:
    _folder(folder, "gpt_neox")


def _shards(folder: Path) -> None:
    _folder(folder, "qwen2")
    _pieces(folder)
    tensors = load_file(folder / SINGLE)
    (folder / SINGLE).unlink()
    weight_map = {}
    for i, name in enumerate(tensors):
        weight_map[name] = f"model-0000{1 + i % 2}-of-00002.safetensors"
    for file in set(weight_map.values()):
        part = {n: tensors[n] for n, where in weight_map.items() if where == file}
        save_file(part, folder / file)
    _write(folder / INDEX, {"metadata": {}, "weight_map": weight_map})


def _reward(folder: Path) -> None:
    _folder(folder, "llama")
    tensors = load_file(folder / SINGLE)
    tensors["score.weight"] = np.ones((1, SMALL["width"]), np.float32)
    save_file(tensors, folder / SINGLE)
    config = json.loads((folder / "config.json").read_text())
    config |= {"architectures": ["LlamaForSequenceClassification"], "score_bias": 0.5}
    _write(folder / "config.json", config)


def gguf_tokens(kind: str) -> dict[str, Any]:
    """Metadata of a tokenizer: of the kind "gpt2", or "llama" for pieces."""
    if kind == "gpt2":
        model = json.loads(train_byte_level(*CONTROLS, vocab_size=V).to_str())["model"]
        tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
        parts: dict[str, Any] = {
            "pre": "qwen2",
            "tokens": tokens,
            "token_type": [3 if token in CONTROLS else 1 for token in tokens],
            "merges": [" ".join(pair) for pair in model["merges"]],
        }
    else:
        tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
        tokens += [f"p{i}" for i in range(V - len(tokens))]
        parts = {
            "tokens": tokens,
            "token_type": [2, 3, 3, *[6] * 256, *[1] * (V - 259)],
            "scores": [float(-i) for i in range(V)],
            "unknown_token_id": 0,
        }
    parts |= {"model": kind, "bos_token_id": 1, "eos_token_id": 2}
    return {f"tokenizer.ggml.{key}": value for key, value in parts.items()}


def _gguf(name: str, kind: str, **options: Any) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        config = CONFIGS[name]
        extra = gguf_tokens(kind) | options.get("extra", {})
        params = params_of(config)
        folder.mkdir(parents=True)
        write_gguf(
            folder / "model.gguf",
            config,
            params,
            extra=extra,
            parts=options.get("parts", 1),
            quantization=options.get("quantization"),
        )

    return write


# How each is written into a new folder.
MODELS: dict[str, Callable[[Path], None]] = {
    "llama, tokenizer.json": _llama,
    "gpt2, merges": _gpt2,
    "gpt_neox alone": _neox,
    "qwen2, shards, pieces": _shards,
    "reward model": _reward,
    "GGUF llama, pieces": _gguf("llama", "llama"),
    "GGUF qwen2, bytes": _gguf(
        "qwen2", "gpt2", extra={"qwen2.rope.scaling.factor": 2.0}
    ),
    "GGUF gpt2, F16": _gguf("gpt2", "gpt2", quantization=gguf.GGMLQuantizationType.F16),
    "GGUF gptneox in parts": _gguf("gpt_neox", "gpt2", parts=3),
}
