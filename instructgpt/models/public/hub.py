"""A model's files by its name on the Hugging Face hub."""

import re
from pathlib import Path

from instructgpt.errors import UserError

_PATTERNS = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "*.bpe"]


def find_model(source: str) -> Path:
    """A folder or .gguf file on disk, downloaded if `source` is a name on the hub.

    Raises:
      UserError: there is no such path, and no such model can be downloaded.
    """
    path = Path(source).expanduser()
    if path.exists():
        return path
    if path.suffix == ".gguf" or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", source):
        raise UserError(f"{source}: no such file or folder; correct the path")
    from huggingface_hub import snapshot_download  # slow to import

    try:
        # Only the top folder: others hold the same weights for other programs.
        folder = snapshot_download(
            source, allow_patterns=_PATTERNS, ignore_patterns=["*/*"]
        )
    except Exception as error:  # every failure of the network is one to the user
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{source}: not on disk, and not to be had from the Hugging Face hub "
            f"({reason}); download it where there is a network and give its folder"
        ) from error
    return Path(folder)
