"""Exports a stage's model as public files."""

import dataclasses
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  (makes NumPy know "bfloat16")
import numpy as np
from safetensors.numpy import save_file

from instructgpt.arrays import Params
from instructgpt.checkpoints import open_checkpoint
from instructgpt.convert.chat_template import template_of, write_chat_template
from instructgpt.convert.importing import SCORE, SCORE_BIAS, SCORE_VOCAB, TOKENIZER
from instructgpt.distributed import is_first
from instructgpt.errors import UserError
from instructgpt.identity import read_json
from instructgpt.models.config import ModelConfig
from instructgpt.models.hf import transfer
from instructgpt.models.hf.families import write_config
from instructgpt.models.hf.tensors import INDEX, SINGLE
from instructgpt.models.transformer import ScalarModel, Transformer
from instructgpt.outputs import check_new_folder, new_folder
from instructgpt.paths import resolve
from instructgpt.progress import Progress
from instructgpt.sharding import MeshConfig, make_mesh
from instructgpt.stages import common
from instructgpt.state import params_layout
from instructgpt.tokenizer import copy_tokenizer, load_tokenizer


def export_checkpoint(
    checkpoint: str | Path,
    folder: str | Path,
    *,
    part: str = "params",
    step: int | None = None,
    dtype: str = "float32",
    max_shard_gb: float = 5.0,
) -> dict[str, Any]:
    """Writes a stage's model as public files: config.json, safetensors, tokenizer.

    A reward model becomes a sequence classifier with one label. Public classifiers have
    no bias, so config.json holds ours as `score_bias`, and scores of other programs
    lack that bias.

    Args:
      checkpoint: The stage's workdir.
      folder: A new folder, which appears when it is complete.
      part: "params", or "ema" for the averaged policy of PPO.
      step: Step of the checkpoint; None is the newest.
      dtype: The dtype of the written tensors.
      max_shard_gb: Largest file, in 1e9 bytes.

    Returns:
      The content of config.json.

    Raises:
      UserError: there is no such checkpoint, no public family has this model, or the
        folder exists.
    """
    check_new_folder(folder)
    checkpoints, step = open_checkpoint(checkpoint, step=step)
    tokenizer = _tokenizer_of(Path(checkpoint))
    meta = checkpoints.meta(step)
    _check_tokenizer(tokenizer, meta, Path(checkpoint))
    config = common.build(ModelConfig, meta["model"], where="config.model")
    scalar = meta["kind"] == "scalar"
    predicted = config.vocab_size
    if scalar:
        # The classifier looks padding up in the embedding, so its row is exported.
        config = dataclasses.replace(
            config, tied_head=True, vocab_size=config.padded_vocab_size
        )
    family, public = write_config(config)
    mesh = make_mesh(MeshConfig(data=1, fsdp=-1))
    model: Any = ScalarModel(config) if scalar else Transformer(config)
    layout = params_layout(model, mesh)
    params = checkpoints.restore(step, {part: layout})[0][part]
    checkpoints.close()
    public |= {"torch_dtype": dtype, "architectures": [family.model]}
    head: dict[str, np.ndarray] = {}
    if scalar:
        head = {SCORE: np.asarray(params["kernel"], np.float32)[None]}
        public |= {
            "architectures": [family.classifier],
            "id2label": {"0": "score"},
            SCORE_BIAS: float(params["bias"]),
            SCORE_VOCAB: predicted,
        }
        params, layout = params["trunk"], layout["trunk"]
    items = transfer.expected(family, config, layout)
    with new_folder(folder) as partial:
        template = "" if scalar else template_of(Path(checkpoint))
        public |= _export_tokenizer(
            tokenizer, partial, config.vocab_size, template=template
        )
        _write_shards(partial, items, params, config, head, dtype, max_shard_gb)
        common.write_json(partial / "config.json", public)
    common.announce(f"export: {family.name}, {public['architectures'][0]}, in {folder}")
    return public


def _export_tokenizer(
    source: Path | None, folder: Path, rows: int, *, template: str
) -> dict[str, Any]:
    """Copies a workdir's tokenizer, and returns its control ids for config.json.

    A padding id beyond the exported rows is left out, because other programs would look
    it up in the embedding.
    """
    if source is None or not copy_tokenizer(source, folder):
        common.announce("export: the workdir names no tokenizer; copy one yourself")
        return {}
    tokenizer = load_tokenizer(folder)
    if template:
        write_chat_template(folder, tokenizer, template)
        tokenizer = load_tokenizer(folder)
    return {
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": tokenizer.eos_id,
        "pad_token_id": tokenizer.pad_id if tokenizer.pad_id < rows else None,
    }


def _tokenizer_of(checkpoint: Path) -> Path | None:
    """The path of a workdir's tokenizer; None if the workdir names none.

    Raises:
      UserError: it is not at the path in the run's config.
    """
    own = checkpoint / TOKENIZER
    described = checkpoint / "config.json"
    if own.exists() or not described.exists():
        return own if own.exists() else None
    data = read_json(described, remedy=f"put a tokenizer into {own}")["data"]
    key = "tokenizer" if data["tokenizer"] else "jsonl"
    if not data[key]:
        return None
    path = Path(resolve(data[key], checkpoint.absolute()))
    if not path.exists():
        raise UserError(
            f"{path}: there is no tokenizer, which config.data.{key} of {checkpoint} "
            f"names; put its files back there, or into {own}"
        )
    load_tokenizer(path)  # raises before any weight is read
    return path


def _check_tokenizer(path: Path | None, meta: dict[str, Any], checkpoint: Path) -> None:
    """Raises UserError if the model was trained with another tokenizer."""
    made = meta.get("made_with")
    if path and made and load_tokenizer(path).fingerprint != made["tokenizer"]:
        raise UserError(
            f"{path} is another tokenizer than the one that {checkpoint} was trained "
            f"with; put that one back there, or into {checkpoint / TOKENIZER}"
        )


def _write_shards(
    folder: Path,
    items: dict[str, transfer.Item],
    params: Params,
    config: ModelConfig,
    head: dict[str, np.ndarray],
    dtype: str,
    max_shard_gb: float,
) -> None:
    """Writes the safetensors files, with one file at a time in memory."""
    width = np.dtype(dtype).itemsize
    groups = list(
        transfer.shards(items, bytes_per_value=width, max_bytes=int(max_shard_gb * 1e9))
    )
    progress, done, total = Progress("export", len(items)), 0, 0
    weight_map: dict[str, str] = {}
    for number, group in enumerate(groups, start=1):
        name = f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        name = name if len(groups) > 1 else SINGLE
        tensors = dict(head) if number == len(groups) else {}
        for key in group:
            tensors[key] = transfer.export_tensor(items[key], params, config=config)
        tensors = {key: value.astype(dtype) for key, value in tensors.items()}
        if is_first():
            save_file(tensors, folder / name, metadata={"format": "pt"})
            (folder / name).chmod(0o644)  # the library lets only the owner read it
        weight_map |= dict.fromkeys(tensors, name)
        total += sum(value.nbytes for value in tensors.values())
        done += len(group)
        progress.update(done, {})
    progress.close()
    if len(groups) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        common.write_json(folder / INDEX, index)
