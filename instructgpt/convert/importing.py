"""Imports public checkpoints into a workdir."""

import dataclasses
import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import jax

from instructgpt.arrays import Params
from instructgpt.checkpoints import Checkpoints
from instructgpt.distributed import is_first
from instructgpt.errors import UserError, about
from instructgpt.models.config import ModelConfig
from instructgpt.models.hf import transfer
from instructgpt.models.hf.families import Family, read_config
from instructgpt.models.hf.gguf_file import GGUFFile
from instructgpt.models.hf.hub import find_model
from instructgpt.models.hf.tensors import SafetensorsFolder, TensorSource
from instructgpt.models.hf.values import finite, whole
from instructgpt.models.transformer import ScalarModel, Transformer
from instructgpt.progress import Progress
from instructgpt.reading import read_object
from instructgpt.sharding import MeshConfig, make_mesh
from instructgpt.stages import common
from instructgpt.state import params_layout
from instructgpt.tokenizer import Tokenizer, copy_tokenizer, load_tokenizer
from instructgpt.tokenizer.gguf import UnknownTokenizerError, write_gguf_tokenizer

TOKENIZER = "tokenizer"  # name of the tokenizer's folder in a workdir
SCORE = "score.weight"  # name of the head of a public reward model
# Additional keys of our exported reward models: the bias, and the number of embedding
# rows that are tokens that a language model would predict.
SCORE_BIAS, SCORE_VOCAB = "score_bias", "score_vocab_size"
_ROWS = 128  # the embedding's rows are padded to a multiple of this, to be sharded


class _Public(NamedTuple):
    """Public files whose headers have been read."""

    tensors: TensorSource
    family: Family
    config: ModelConfig
    where: str  # the file that describes the model, for messages
    described: dict[str, Any]  # content of that file

    @property
    def scalar(self) -> bool:
        """Whether the model is a reward model."""
        names = self.described.get("architectures") or [""]
        named = isinstance(names, list) and self.family.classifier in names
        return named or SCORE in self.tensors.tensors()


class Imported(NamedTuple):
    """A public model, converted to our parameters."""

    params: Params
    meta: dict[str, Any]  # entries of a checkpoint's `meta`


def import_checkpoint(source: str, workdir: str | Path) -> dict[str, Any]:
    """Writes a public model as a checkpoint of ours, with its tokenizer beside it.

    The tensors are moved to the mesh of all devices one by one. Nothing is written
    before all tensors are read, and the checkpoint appears when it is complete.

    Args:
      source: A folder, a .gguf file or a name on the hub.
      workdir: A new folder.

    Returns:
      The checkpoint's `meta` about the model: family, config, kind.

    Raises:
      UserError: a file is missing, damaged or belongs to another model; or the workdir
        is not empty.
    """
    workdir = Path(workdir).absolute()
    directory = workdir / "checkpoints"
    if directory.exists() and Checkpoints(directory, clean=False).steps:
        raise UserError(f"{workdir} holds checkpoints; name a new folder")
    left = {directory.name, TOKENIZER}  # folders that a killed import leaves
    if workdir.is_dir() and any(path.name not in left for path in workdir.iterdir()):
        raise UserError(f"{workdir} is not empty; name a new folder")
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = Path(folder) / TOKENIZER
        params, meta = read_public(source, tokenizer)
        if is_first() and tokenizer.exists():
            shutil.copytree(tokenizer, workdir / TOKENIZER, dirs_exist_ok=True)
    checkpoints = Checkpoints(directory)
    checkpoints.save(0, {"params": params}, meta)
    checkpoints.close()
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    common.announce(f"import: {size:,} parameters in {workdir}")
    return meta


def read_public(source: str, tokenizer_folder: Path) -> Imported:
    """Reads a public model onto a mesh of all devices, and writes its tokenizer.

    Args:
      source: See `import_checkpoint`.
      tokenizer_folder: Folder that is created if the model has a tokenizer.

    Raises:
      UserError: a file is missing, damaged or belongs to another model.
    """
    path = find_model(source)
    public = _open(path)
    common.announce(f"import: {public.family.name} from {path}")
    tokenizer = _import_tokenizer(path, public.tensors, tokenizer_folder)
    public = _settle_head(public)
    config = _with_rows(public, tokenizer)
    params = _read_params(public, config)
    if public.scalar and SCORE_VOCAB in public.described:
        config = dataclasses.replace(config, vocab_size=_score_vocab(public))
    meta = {
        "model": dataclasses.asdict(config),
        "kind": "scalar" if public.scalar else "language",
        "family": public.family.name,
        "source": source,
    }
    return Imported(params, meta)


def _open(path: Path) -> _Public:
    if path.is_file():
        if path.suffix != ".gguf":
            raise UserError(f"{path}: give a folder or a .gguf file")
        file = GGUFFile(path)
        return _Public(
            file, *read_config(file.config, where=str(path)), str(path), file.config
        )
    where = path / "config.json"
    described = read_object(where)
    family, config = read_config(described, where=str(where))
    folder = SafetensorsFolder(path)
    if folder.left_alone:
        common.announce(
            f"import: {', '.join(folder.left_alone)} beside the model left alone"
        )
    return _Public(folder, family, config, str(where), described)


def _import_tokenizer(
    path: Path, tensors: TensorSource, folder: Path
) -> Tokenizer | None:
    """Copies the tokenizer's files; returns None if the model has no tokenizer."""
    why = "the model has no tokenizer"
    if isinstance(tensors, GGUFFile):
        try:
            said = write_gguf_tokenizer(tensors.metadata, folder, where=str(path))
            if said:
                common.announce(f"import: {said}")
            with about(str(path)):
                return load_tokenizer(folder)
        except UnknownTokenizerError as error:
            why = str(error)
    elif copy_tokenizer(path, folder):
        return load_tokenizer(path)
    common.announce(f"import: {why}; name one by --config.data.tokenizer")
    return None


def _settle_head(public: _Public) -> _Public:
    """Settles the head of a language model; a reward model has no unembedding."""
    family, config = public.family, public.config
    held = family.head in public.tensors.tensors()
    if public.scalar:
        if held:
            common.announce(f"import: a reward model has no use for {family.head}")
        return public._replace(config=dataclasses.replace(config, tied_head=True))
    settled = transfer.settle_head(public.tensors, family, config)
    if settled != config:
        common.announce(
            f"import: {family.head} is no copy of the embedding and is used, although "
            f"{public.where} says that they are tied"
        )
    return public._replace(config=settled)


def _with_rows(public: _Public, tokenizer: Tokenizer | None) -> ModelConfig:
    """A config with a separate padding id, and a number of rows that can be sharded."""
    config = public.config
    wanted = config.vocab_size
    if tokenizer is None:
        wanted += not public.scalar
    elif tokenizer.vocab_size > config.vocab_size:
        raise UserError(
            f"{public.where}: the tokenizer has {tokenizer.vocab_size} tokens, the "
            f"model {config.vocab_size}; do they belong together?"
        )
    else:
        wanted = max(wanted, tokenizer.num_ids)
    if not (public.scalar and SCORE_VOCAB in public.described):
        wanted = -(-wanted // _ROWS) * _ROWS
    return dataclasses.replace(config, padded_vocab_size=wanted)


def _score_vocab(public: _Public) -> int:
    size = whole(public.described[SCORE_VOCAB], f"{public.where}: {SCORE_VOCAB}")
    if size > public.config.vocab_size:
        raise UserError(
            f"{public.where}: {SCORE_VOCAB}={size} is more than vocab_size="
            f"{public.config.vocab_size}; copy the file again"
        )
    return size


def _read_params(public: _Public, config: ModelConfig) -> Any:
    """Reads all parameters; a reward model's are its trunk, kernel and bias."""
    source, family = public.tensors, public.family
    found = dict(source.tensors())
    if config.num_layers > len(found):
        raise UserError(
            f"{public.where}: {family.keys['num_layers']}={config.num_layers}, but the "
            f"files hold {len(found)} tensors; do they belong together?"
        )
    mesh = make_mesh(MeshConfig(data=1, fsdp=-1))
    model: Any = ScalarModel(config) if public.scalar else Transformer(config)
    layout = params_layout(model, mesh)
    head: dict[str, Any] = {}
    if public.scalar:
        bias = public.described.get(SCORE_BIAS, 0.0)
        head = transfer.import_score(
            source,
            found.pop(SCORE, None),
            layout,
            name=SCORE,
            where=public.where,
            bias=finite(bias, f"{public.where}: {SCORE_BIAS}"),
        )
        layout = layout["trunk"]
    items = transfer.expected(family, config, layout)
    if isinstance(source, GGUFFile):
        source.rename(list(items))
        found = dict(source.tensors())
    quantised = _quantisation(public.described)
    names = transfer.check_tensors(found, items, family, quantised=quantised)
    progress = Progress("import", len(items))
    params = transfer.import_params(
        source,
        items,
        names,
        config=config,
        layout=layout,
        progress=lambda done, total: progress.update(done, {}),
    )
    progress.close()
    return {"trunk": params, **head} if public.scalar else params


def _quantisation(described: dict[str, Any]) -> str:
    """The quantisation that a config.json names, for messages; "" if none."""
    said = described.get("quantization_config")
    if not isinstance(said, dict):
        return ""
    keys = {k: said[k] for k in ("quant_method", "bits") if k in said}
    return "quantization_config: " + (
        ", ".join(f"{k}={v!r}" for k, v in keys.items()) or "no quant_method"
    )
