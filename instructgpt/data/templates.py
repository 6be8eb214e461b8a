"""How a prompt with its history is put to a model: plain, or a dialogue format.

A template gives the text around each turn. Control tokens in it ("<|im_start|>") become
their ids; the same characters in a user's text stay characters.
"""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from instructgpt.errors import UserError
from instructgpt.tokenizer import Tokenizer


class Template(NamedTuple):
    """The text before and after each turn; control tokens by name."""

    user: str = ""
    user_end: str = ""
    assistant: str = ""  # before a response, the last one included
    assistant_end: str = ""  # after an earlier response; the last one ends with EOS
    lead: str = ""  # what a response's first word joins on to, such as a space
    controls: tuple[str, ...] = ()


TEMPLATES = {
    # The prompt, a newline, the response.
    "plain": Template(user_end="\n", assistant_end="\n"),
    # Bai et al. 2022 (hh-rlhf).
    "dialogue": Template(user="\n\nHuman: ", assistant="\n\nAssistant:", lead=" "),
    # Qwen2, SmolLM2.
    "chatml": Template(
        user="<|im_start|>user\n",
        user_end="<|im_end|>\n",
        assistant="<|im_start|>assistant\n",
        assistant_end="<|im_end|>\n",
        controls=("<|im_start|>", "<|im_end|>"),
    ),
    "llama3": Template(
        user="<|start_header_id|>user<|end_header_id|>\n\n",
        user_end="<|eot_id|>",
        assistant="<|start_header_id|>assistant<|end_header_id|>\n\n",
        assistant_end="<|eot_id|>",
        controls=("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    ),
}


class PromptFormat:
    """A tokenizer and a template: records to ids, and ids back to responses.

    Attributes:
      tokenizer: The tokenizer.
    """

    def __init__(self, tokenizer: Tokenizer, template: str = "plain"):
        """Joins the two.

        Raises:
          UserError: there is no such template, or the tokenizer lacks its controls.
        """
        if template not in TEMPLATES:
            raise UserError(
                f"config.data.template={template!r} does not exist; known: "
                f"{', '.join(TEMPLATES)}"
            )
        self.tokenizer = tokenizer
        self._template = TEMPLATES[template]
        self._controls = {
            name: tokenizer.control_id(name) for name in self._template.controls
        }

    @property
    def pad_id(self) -> int:
        """The tokenizer's."""
        return self.tokenizer.pad_id

    def prompt_ids(self, record: dict[str, Any], *, raw: bool = False) -> list[int]:
        """What a response follows: history, prompt and the text around them.

        Args:
          record: Has `prompt` and may have `history`.
          raw: Use the prompt as it is, without the template (a few-shot prefix, say).
        """
        start = [*self.tokenizer.start_ids]
        if raw:
            return start + self.tokenizer.encode(record["prompt"])
        t = self._template
        parts: list[str | int] = []
        for i, turn in enumerate([*record.get("history", ()), record["prompt"]]):
            if i % 2:
                parts += [*self._fixed(t.assistant), t.lead + turn]
                parts += self._fixed(t.assistant_end)
            else:
                parts += [*self._fixed(t.user), turn, *self._fixed(t.user_end)]
        return start + self._encode([*parts, *self._fixed(t.assistant)])

    def response_ids(self, text: str) -> list[int]:
        """A response and its EOS."""
        encoded = self.tokenizer.encode(self._template.lead + text)
        return [*encoded, self.tokenizer.eos_id]

    def response_text(self, ids: Iterable[int]) -> str:
        """The inverse of `response_ids`, for sampled ids too."""
        return self.tokenizer.decode(ids).removeprefix(self._template.lead)

    def _fixed(self, text: str) -> list[str | int]:
        """Text of the template, its control tokens as ids."""
        if not self._controls:
            return [text]
        names = "|".join(map(re.escape, self._controls))
        return [self._controls.get(p, p) for p in re.split(f"({names})", text)]

    def _encode(self, parts: Iterable[str | int]) -> list[int]:
        """Text between two control tokens is encoded as one."""
        ids: list[int] = []
        text = ""
        for part in [*parts, None]:
            if isinstance(part, str):
                text += part
                continue
            ids += self.tokenizer.encode(text) if text else []
            ids += [] if part is None else [part]
            text = ""
        return ids
