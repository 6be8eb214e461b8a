"""Import of public checkpoints into a workdir, and export of a stage's model."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  (makes NumPy know "bfloat16")
import numpy as np
from safetensors.numpy import save_file

from instructgpt.checkpoints import Checkpoints, open_checkpoint
from instructgpt.distributed import is_first
from instructgpt.errors import UserError
from instructgpt.metrics import Progress
from instructgpt.models.config import ModelConfig
from instructgpt.models.public import transfer
from instructgpt.models.public.families import Family, read_config, write_config
from instructgpt.models.public.gguf_file import GGUFFile
from instructgpt.models.public.hub import find_model
from instructgpt.models.public.tensors import (
    INDEX,
    SINGLE,
    SafetensorsFolder,
    TensorSource,
)
from instructgpt.models.transformer import ScalarModel, Transformer
from instructgpt.outputs import check_new_folder, new_folder
from instructgpt.paths import resolve
from instructgpt.sharding import MeshConfig, make_mesh
from instructgpt.stages import common
from instructgpt.stages.identity import read_json
from instructgpt.state import params_layout
from instructgpt.tokenizer import Tokenizer, copy_tokenizer, load_tokenizer
from instructgpt.tokenizer.gguf import write_gguf_tokenizer

TOKENIZER = "tokenizer"  # folder of a workdir
_ROWS = 128  # the embedding grows to a multiple of this, so that it shards


def import_checkpoint(source: str, workdir: str | Path) -> dict[str, Any]:
    """Writes a public model as a checkpoint of ours, with its tokenizer beside it.

    The tensors stream onto the mesh of all devices one by one. The checkpoint appears
    under its name when it is whole.

    Args:
      source: A folder, a .gguf file or a name on the hub.
      workdir: A new folder.

    Returns:
      What the checkpoint says of its model: family, config, kind.

    Raises:
      UserError: a file is missing, damaged or of another model; or the workdir holds
        a checkpoint.
    """
    workdir = Path(workdir).absolute()
    directory = workdir / "checkpoints"
    if directory.exists() and Checkpoints(directory, clean=False).steps:
        raise UserError(f"{workdir} holds checkpoints; name a new folder")
    path = find_model(source)
    tensors, family, config = _open(path)
    common.announce(f"import: {family.name} from {path}")
    tokenizer = _import_tokenizer(path, tensors, workdir / TOKENIZER)
    config = _with_padding(config, tokenizer, where=str(path))
    mesh = make_mesh(MeshConfig(data=1, fsdp=-1))
    layout = params_layout(Transformer(config), mesh)
    items = transfer.expected(family, config, layout)
    if isinstance(tensors, GGUFFile):
        tensors.rename(list(items))
    names = transfer.check_tensors(tensors.tensors(), items, family)
    progress = Progress("import", len(items))
    params = transfer.import_params(
        tensors,
        items,
        names,
        config=config,
        layout=layout,
        progress=lambda done, total: progress.update(done, {}),
    )
    progress.close()
    meta = {
        "model": dataclasses.asdict(config),
        "kind": "language",
        "family": family.name,
        "source": source,
    }
    checkpoints = Checkpoints(directory)
    checkpoints.save(0, {"params": params}, meta)
    checkpoints.close()
    common.announce(f"import: {config.num_params:,} parameters in {workdir}")
    return meta


def _open(path: Path) -> tuple[TensorSource, Family, ModelConfig]:
    if path.is_file():
        if path.suffix != ".gguf":
            raise UserError(f"{path}: give a folder or a .gguf file")
        file = GGUFFile(path)
        return file, *read_config(file.config, where=str(path))
    described = path / "config.json"
    try:
        public = json.loads(described.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"{described}: cannot read the file ({error.strerror}); give the folder of "
            "a model"
        ) from error
    except ValueError as error:
        raise UserError(f"{described}: not valid JSON ({error})") from error
    return SafetensorsFolder(path), *read_config(public, where=str(described))


def _import_tokenizer(
    path: Path, tensors: TensorSource, folder: Path
) -> Tokenizer | None:
    """Copies the tokenizer's files; None if the model comes without."""
    if isinstance(tensors, GGUFFile):
        write_gguf_tokenizer(tensors.metadata, folder, where=str(path))
    elif not copy_tokenizer(path, folder):
        common.announce(
            "import: the model has no tokenizer; name one by --config.data.tokenizer"
        )
        return None
    return load_tokenizer(folder)


def _with_padding(
    config: ModelConfig, tokenizer: Tokenizer | None, *, where: str
) -> ModelConfig:
    """Gives padding an id of its own, and the embedding rows that shard."""
    wanted = config.vocab_size
    if tokenizer is None:
        wanted += 1
    elif tokenizer.vocab_size > config.vocab_size:
        raise UserError(
            f"{where}: the tokenizer has {tokenizer.vocab_size} tokens, the model "
            f"{config.vocab_size}; do they belong together?"
        )
    else:
        wanted = max(wanted, tokenizer.pad_id + 1)
    return dataclasses.replace(config, padded_vocab_size=-(-wanted // _ROWS) * _ROWS)


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

    A reward model becomes a sequence classifier with one label. Public classifiers
    have no bias, so config.json keeps ours as `score_bias`: other programs give scores
    that are lower by it.

    Args:
      checkpoint: A stage's workdir.
      folder: A new folder, which appears when it is whole.
      part: "params", or "ema" for the averaged policy of PPO.
      step: Which checkpoint; None is the newest.
      dtype: Of the tensors.
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
    config = common.build(ModelConfig, meta["model"], where="config.model")
    scalar = meta["kind"] == "scalar"
    if scalar:
        # Padding is looked up by the classifier, so its row stays.
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
        head = {"score.weight": np.asarray(params["kernel"], np.float32)[None]}
        public |= {
            "architectures": [family.classifier],
            "id2label": {"0": "score"},
            "score_bias": float(params["bias"]),
        }
        params, layout = params["trunk"], layout["trunk"]
    items = transfer.expected(family, config, layout)
    with new_folder(folder) as partial:
        public |= _export_tokenizer(tokenizer, partial, config.vocab_size)
        _write_shards(partial, items, params, config, head, dtype, max_shard_gb)
        common.write_json(partial / "config.json", public)
    common.announce(f"export: {family.name}, {public['architectures'][0]}, in {folder}")
    return public


def _export_tokenizer(source: Path | None, folder: Path, rows: int) -> dict[str, Any]:
    """Copies the tokenizer that a workdir used; its control ids for config.json.

    Padding that was given an id of its own beyond the exported rows is left out: other
    programs look it up in the table.
    """
    if source is None or not copy_tokenizer(source, folder):
        common.announce("export: the workdir names no tokenizer; copy one yourself")
        return {}
    tokenizer = load_tokenizer(folder)
    return {
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": tokenizer.eos_id,
        "pad_token_id": tokenizer.pad_id if tokenizer.pad_id < rows else None,
    }


def _tokenizer_of(checkpoint: Path) -> Path | None:
    """Where a workdir's tokenizer lies; None if the workdir names none.

    Raises:
      UserError: it is not where the run's config says.
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
    load_tokenizer(path)  # what it lacks is told before any weight is read
    return path


def _write_shards(
    folder: Path,
    items: dict[str, transfer.Item],
    params: Any,
    config: ModelConfig,
    head: dict[str, np.ndarray],
    dtype: str,
    max_shard_gb: float,
) -> None:
    """One file at a time is in memory."""
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
            (folder / name).chmod(0o644)  # written for its owner alone
        weight_map |= dict.fromkeys(tensors, name)
        total += sum(value.nbytes for value in tensors.values())
        done += len(group)
        progress.update(done, {})
    progress.close()
    if len(groups) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        common.write_json(folder / INDEX, index)
