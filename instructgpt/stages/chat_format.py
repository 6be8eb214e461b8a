"""How turns of a conversation end: in training, and in what is exported."""

import json
from pathlib import Path
from typing import Any

from instructgpt.data.templates import TEMPLATES, Template
from instructgpt.errors import UserError
from instructgpt.reading import read_object
from instructgpt.tokenizer import Tokenizer
from instructgpt.tokenizer.settings import CONFIG

_JINJA = "chat_template.jinja"


def closing_token(template: Template) -> str:
    """The control token that closes a user's turn; "" where plain text does."""
    return next((c for c in template.controls if template.assistant.startswith(c)), "")


def unlike_ends(tokenizer: Tokenizer, name: str) -> str:
    """What to tell a user whose answers end otherwise than their template's turns.

    Args:
      tokenizer: The stage's.
      name: Of the template.

    Returns:
      A line, "" where both end in the same token.
    """
    closing = closing_token(TEMPLATES[name])
    if not closing or tokenizer.control_id(closing) == tokenizer.eos_id:
        return ""
    end = tokenizer.control_name(tokenizer.eos_id)
    return (
        f"config.data.template={name!r} closes turns with {closing!r}, but answers end "
        f"in the tokenizer's EOS, {end!r}; to end them as turns do, set "
        f'"eos_token": {json.dumps(closing)} in its {CONFIG}'
    )


def write_chat_template(folder: Path, tokenizer: Tokenizer, name: str) -> None:
    """Makes an exported tokenizer's chat template the one of the model's training.

    One that is there already is kept where its turns and the answers end alike.

    Args:
      folder: Holds the tokenizer's files.
      tokenizer: What they are.
      name: Of the template in training.

    Raises:
      UserError: tokenizer_config.json is damaged.
    """
    path = folder / CONFIG
    settings: dict[str, Any] = read_object(path) if path.exists() else {}
    template = TEMPLATES[name]
    own = "chat_template" in settings or (folder / _JINJA).exists()
    if own and closing_token(template) and not unlike_ends(tokenizer, name):
        return
    (folder / _JINJA).unlink(missing_ok=True)
    for role in ("eos", "bos"):
        token = getattr(tokenizer, f"{role}_id")
        if token is not None:
            settings[f"{role}_token"] = tokenizer.control_name(token)
    settings["add_bos_token"] = bool(tokenizer.start_ids)
    settings["chat_template"] = _jinja(template, bos=bool(tokenizer.start_ids))
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
