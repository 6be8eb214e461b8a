"""The chat template of what is exported: the one that the model was trained with."""

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
    """Makes EOS and chat template of an exported tokenizer those of the training.

    A template that is there already is kept where it is for the same turns, those of
    control tokens, and EOS ends them already.

    Args:
      folder: Holds the tokenizer's files.
      tokenizer: What they are.
      name: The name of the template in training.

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
    if (folder / MAP).exists():  # which may overrule the other
        _write(folder / MAP, read_object(folder / MAP) | ends)


def _write(path: Path, settings: dict[str, Any]) -> None:
    path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n")


def _jinja(template: Template, *, bos: bool) -> str:
    """The template in the language of chat templates."""

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
    """The template that a stage's workdir was trained with; "" for an imported model.

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
