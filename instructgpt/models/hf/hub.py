"""Finds a model's files on disk, or by its name on the Hugging Face hub."""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from instructgpt.errors import UserError
from instructgpt.models.hf.gguf_parts import first_parts, models_in

T = TypeVar("T")
_PATTERNS = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "*.bpe"]


def find_model(source: str) -> Path:
    """A folder or .gguf file on disk, downloaded if `source` is a name on the hub.

    A folder, or a repository, that holds one GGUF model and no safetensors is that
    model.

    Raises:
      UserError: there is no such path, no such model can be downloaded, or it is one
        of several GGUF models.
    """
    path = Path(os.path.expanduser(source))
    if path.exists():
        return _one_model(path)
    if path.suffix == ".gguf" or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", source):
        raise UserError(f"{source}: no such file or folder; correct the path")
    from huggingface_hub import list_repo_files, snapshot_download  # slow to import

    def download(patterns: list[str]) -> Path:
        # Only the top folder is needed: others hold the same weights in other formats.
        return Path(
            snapshot_download(source, allow_patterns=patterns, ignore_patterns=["*/*"])
        )

    folder = _from_hub(source, lambda: download(_PATTERNS))
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("*.gguf")):
        names = _from_hub(source, lambda: list_repo_files(source))
        files = [Path(n) for n in sorted(names) if n.endswith(".gguf") and "/" not in n]
        if files:
            first = _only(source, first_parts(files))
            pattern = re.sub(r"-\d{5}-of-", "-*-of-", first.name)
            folder = _from_hub(source, lambda: download([*_PATTERNS, pattern]))
    return _one_model(folder)


def _one_model(path: Path) -> Path:
    """A folder's only GGUF model if it holds no safetensors, else the folder itself."""
    if path.is_dir() and not any(path.glob("*.safetensors*")):
        models = models_in(path)
        if models:
            return _only(str(path), models)
    return path


def _only(where: str, models: Sequence[Path]) -> Path:
    if len(models) > 1:
        raise UserError(
            f"{where}: holds several GGUF models, "
            f"{', '.join(model.name for model in models)}; give the path of one"
        )
    return models[0]


def _from_hub(source: str, ask: Callable[[], T]) -> T:
    try:
        return ask()
    except Exception as error:  # the user sees one message for all network failures
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{source}: not on disk, and not to be had from the Hugging Face hub "
            f"({reason}); download it where there is a network and give its folder"
        ) from error
