"""Prompt templates: how a prompt with its history becomes a model's input.

A template defines the text around each turn. Its control tokens ("<|im_start|>")
become their ids; the same characters in a user's text stay plain characters.
"""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from instructgpt.errors import UserError
from instructgpt.tokenizer import Tokenizer


class Template(NamedTuple):
    """The text around a prompt and its response, with control tokens by name."""

    user: str = ""  # text before a prompt
    assistant: str = ""  # text between a prompt and its response
    after: str = ""  # text between an earlier response's end and the next `user`
    lead: str = ""  # text that begins a response, such as a space
    controls: tuple[str, ...] = ()
    end: str = ""  # control token that ends a response; "": the tokenizer's EOS


TEMPLATES = {
    # A prompt, a newline, and the response.
    "plain": Template(assistant="\n"),
    # The form of Bai et al. 2022 (hh-rlhf).
    "dialogue": Template(user="\n\nHuman: ", assistant="\n\nAssistant:", lead=" "),
    # For Qwen2 and SmolLM2, whose chat models have <|im_end|> as EOS; base models do
    # not.
    "chatml": Template(
        user="<|im_start|>user\n",
        assistant="<|im_end|>\n<|im_start|>assistant\n",
        after="\n",
        controls=("<|im_start|>", "<|im_end|>"),
        end="<|im_end|>",
    ),
    # For Llama 3, whose chat models have <|eot_id|> as EOS.
    "llama3": Template(
        user="<|start_header_id|>user<|end_header_id|>\n\n",
        assistant="<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        controls=("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        end="<|eot_id|>",
    ),
    # Nothing between a prompt and its response, for prompts that are whole texts.
    "none": Template(),
}


class PromptFormat:
    """Converts records to ids and ids to responses, by a tokenizer and a template.

    Attributes:
      tokenizer: The tokenizer.
      end_id: Id that ends a response: the template's mark, else the tokenizer's EOS.
    """

    def __init__(self, tokenizer: Tokenizer, template: str = "plain"):
        """Joins a tokenizer and a template.

        Raises:
          UserError: there is no such template, or the tokenizer lacks its control
            tokens or drops line breaks, which every template has.
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
        """The tokenizer's padding id."""
        return self.tokenizer.pad_id

    def prompt_ids(self, record: dict[str, Any], *, raw: bool = False) -> list[int]:
        """Ids before a response: the history, the prompt and the text around them.

        Earlier responses have the ids of `response_ids`, so the ids of a dialogue begin
        with those of the same dialogue one turn earlier.

        Args:
          record: A record with `prompt`, which may have `history`.
          raw: Whether to omit the template, for example with a few-shot prefix.
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
        """Ids of a response and its end."""
        encoded = self.tokenizer.encode(self._template.lead + text)
        return [*encoded, self.end_id]

    def response_text(self, ids: Iterable[int]) -> str:
        """The inverse of `response_ids`, also for sampled ids."""
        return self.tokenizer.decode(ids).removeprefix(self._template.lead)

    def _turn_ids(self, before: str, prompt: str) -> list[int]:
        """Ids of a turn: text `before`, the prompt, the text before the response."""
        after = self._fixed(self._template.assistant)
        return self._encode([*self._fixed(before), prompt, *after])

    def _fixed(self, text: str) -> list[str | int]:
        """Text of the template, with control tokens as ids."""
        if not self._controls:
            return [text]
        names = "|".join(map(re.escape, self._controls))
        return [self._controls.get(p, p) for p in re.split(f"({names})", text)]

    def _encode(self, parts: Iterable[str | int]) -> list[int]:
        """Encodes parts; neighbouring texts are joined before they are encoded."""
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
