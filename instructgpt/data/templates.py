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
    """The text around a prompt and its response; control tokens by name."""

    user: str = ""  # before a prompt
    assistant: str = ""  # between a prompt and its response
    after: str = ""  # between an earlier response's end and the next prompt's `user`
    lead: str = ""  # what a response's first word joins on to, such as a space
    controls: tuple[str, ...] = ()
    end: str = ""  # the control that ends a response; "" is the tokenizer's EOS


TEMPLATES = {
    # The prompt, a newline, the response.
    "plain": Template(assistant="\n"),
    # Bai et al. 2022 (hh-rlhf).
    "dialogue": Template(user="\n\nHuman: ", assistant="\n\nAssistant:", lead=" "),
    # Qwen2, SmolLM2; their chat models have <|im_end|> as EOS, the base models do not.
    "chatml": Template(
        user="<|im_start|>user\n",
        assistant="<|im_end|>\n<|im_start|>assistant\n",
        after="\n",
        controls=("<|im_start|>", "<|im_end|>"),
        end="<|im_end|>",
    ),
    # Its chat models have <|eot_id|> as EOS.
    "llama3": Template(
        user="<|start_header_id|>user<|end_header_id|>\n\n",
        assistant="<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        controls=("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        end="<|eot_id|>",
    ),
}


class PromptFormat:
    """A tokenizer and a template: records to ids, and ids back to responses.

    Attributes:
      tokenizer: The tokenizer.
      end_id: What ends a response: the template's own mark, else the tokenizer's EOS.
    """

    def __init__(self, tokenizer: Tokenizer, template: str = "plain"):
        """Joins the two.

        Raises:
          UserError: there is no such template, or the tokenizer lacks its controls or
            drops line breaks, which every template has.
        """
        if template not in TEMPLATES:
            raise UserError(
                f"config.data.template={template!r} does not exist; known: "
                f"{', '.join(TEMPLATES)}"
            )
        self.tokenizer = tokenizer
        self.template = template
        self._template = TEMPLATES[template]
        try:
            self._controls = {
                name: tokenizer.control_id(name) for name in self._template.controls
            }
        except UserError as error:
            raise UserError(f"config.data.template={template!r}: {error}") from error
        self.end_id: int = self._controls.get(self._template.end, tokenizer.eos_id)
        if "\n" not in tokenizer.decode(tokenizer.encode("a\nb")):
            raise UserError(
                f"config.data.template={template!r}: the tokenizer drops line breaks, "
                "which stand between a prompt and its response; use one that keeps them"
            )

    @property
    def pad_id(self) -> int:
        """The tokenizer's."""
        return self.tokenizer.pad_id

    def prompt_ids(self, record: dict[str, Any], *, raw: bool = False) -> list[int]:
        """What a response follows: history, prompt and the text around them.

        An earlier response has the ids that `response_ids` gave it as the last one, so
        a dialogue's ids begin with those of each of its turns.

        Args:
          record: Has `prompt` and may have `history`.
          raw: Use the prompt as it is, without the template (a few-shot prefix, say).
        """
        ids = [*self.tokenizer.start_ids]
        if raw:
            return ids + self.tokenizer.encode(record["prompt"])
        history = record.get("history", ())
        before = self._template.user
        for prompt, response in zip(history[::2], history[1::2], strict=True):
            ids += self._turn_ids(before, prompt) + self.response_ids(response)
            before = self._template.after + self._template.user
        return ids + self._turn_ids(before, record["prompt"])

    def response_ids(self, text: str) -> list[int]:
        """A response and its end."""
        encoded = self.tokenizer.encode(self._template.lead + text)
        return [*encoded, self.end_id]

    def response_text(self, ids: Iterable[int]) -> str:
        """The inverse of `response_ids`, for sampled ids too."""
        return self.tokenizer.decode(ids).removeprefix(self._template.lead)

    def _turn_ids(self, before: str, prompt: str) -> list[int]:
        """From `before`, text of the template, to where the response begins."""
        after = self._fixed(self._template.assistant)
        return self._encode([*self._fixed(before), prompt, *after])

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
