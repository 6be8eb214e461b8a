"""Writes the chat template of an exported model: the one that it was trained with."""

import json
from pathlib import Path
from typing import Any

from instructgpt.data.templates import TEMPLATES, PromptFormat, Template
from instructgpt.errors import UserError
from instructgpt.reading import read_object
from instructgpt.tokenizer import Tokenizer
from instructgpt.tokenizer.settings import CONFIG, MAP

_JINJA = "chat_template.jinja"


def write_chat_template(folder: Path, tokenizer: Tokenizer, name: str) -> None:
    """Sets the EOS and the chat template of an exported tokenizer to those of training.

    An existing chat template is kept if the model was trained on turns of control
    tokens, as that template writes them, and EOS already ends the turns.

    Args:
      folder: Folder of the tokenizer's files.
      tokenizer: The tokenizer that these files define.
      name: Name of the template in training.

    Raises:
      UserError: a file of settings is damaged.
    """
    path = folder / CONFIG
    settings: dict[str, Any] = read_object(path) if path.exists() else {}
    template, end_id = TEMPLATES[name], PromptFormat(tokenizer, name).end_id
    own = "chat_template" in settings or (folder / _JINJA).exists()
    if own and template.end and end_id == tokenizer.eos_id:
        return
    (folder / _JINJA).unlink(missing_ok=True)
    ends = {"eos_token": tokenizer.control_name(end_id)}
    if tokenizer.bos_id is not None:
        ends["bos_token"] = tokenizer.control_name(tokenizer.bos_id)
    settings |= ends
    settings["add_bos_token"] = bool(tokenizer.start_ids)
    settings["chat_template"] = _jinja(template, bos=bool(tokenizer.start_ids))
    _write(path, settings)
    if (folder / MAP).exists():  # its entries may overrule the other file's
        _write(folder / MAP, read_object(folder / MAP) | ends)


def _write(path: Path, settings: dict[str, Any]) -> None:
    path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n")


def _jinja(template: Template, *, bos: bool) -> str:
    """The template as a Jinja chat template."""

    def text(value: str) -> str:
        return f"{{{{ {json.dumps(value, ensure_ascii=False)} }}}}" if value else ""

    return (
        ("{{ bos_token }}" if bos else "")
        + "{% for message in messages %}{% if message['role'] == 'user' %}"
        + f"{{% if not loop.first %}}{text(template.after)}{{% endif %}}"
        + text(template.user)
        + "{{ message['content'] }}{% if not loop.last or add_generation_prompt %}"
        + text(template.assistant)
        + "{% endif %}{% elif message['role'] == 'assistant' %}"
        + text(template.lead)
        + "{{ message['content'] }}{{ eos_token }}{% else %}"
        + "{{ raise_exception('this model knows user and assistant alone') }}"
        + "{% endif %}{% endfor %}"
    )


def template_of(checkpoint: Path) -> str:
    """Name of the template of a stage's workdir; "" for an imported model.

    Raises:
      UserError: its config.json is damaged.
    """
    described = checkpoint / "config.json"
    if not described.exists():
        return ""
    config = read_object(described)
    data = config.get("data")
    name = data.get("template") if isinstance(data, dict) else None
    if name is None or config.get("name") == "pretrain":
        return ""
    if name not in TEMPLATES:
        raise UserError(f"{described}: data.template={name!r} does not exist")
    return name
