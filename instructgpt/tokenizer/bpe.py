"""Byte-level BPE and every other `tokenizer.json`, by the `tokenizers` library."""

import hashlib
from collections.abc import Iterable

import tokenizers

from instructgpt.errors import UserError
from instructgpt.tokenizer.interface import not_unicode, single_token


class BPETokenizer:
    """A `Tokenizer` over a pipeline of the `tokenizers` library."""

    def __init__(
        self,
        pipeline: tokenizers.Tokenizer,
        *,
        eos: str,
        bos: str | None = None,
        pad: str | None = None,
        add_bos: bool | None = None,
        name: str = "the tokenizer",
    ):
        """Wraps a pipeline, which is this object's alone from now on.

        Args:
          pipeline: normaliser, pre-tokeniser, model, decoder.
          eos: the token that ends a text.
          bos: the token that begins one, if there is one.
          pad: padding; None, or the same as EOS, gives it an id of its own.
          add_bos: whether BOS stands before every text; None does as the pipeline's
            post-processor does.
          name: for error messages.

        Raises:
          UserError: the vocabulary lacks one of these tokens.
        """
        self._pipeline = pipeline
        self._name = name
        self.vocab_size: int = pipeline.get_vocab_size(with_added_tokens=True)
        self.eos_id = self.control_id(eos)
        self.bos_id = None if bos is None else self.control_id(bos)
        has_pad = pad is not None and pad != eos
        self.pad_id = self.control_id(pad) if has_pad else self.vocab_size  # type: ignore[arg-type]
        if add_bos is None:
            add_bos = self.bos_id in pipeline.encode("").ids
        if add_bos and self.bos_id is None:
            raise UserError(f"{name}: has no BOS token; use a tokenizer that has one.")
        self.start_ids = (self.bos_id,) if add_bos and self.bos_id is not None else ()
        key = f"{pipeline.to_str()} {self.eos_id} {self.start_ids}"
        self.fingerprint = hashlib.sha256(key.encode()).hexdigest()[:16]
        # "<|im_start|>" in a text is its characters, not the control token.
        pipeline.encode_special_tokens = True

    def encode(self, text: str) -> list[int]:
        """See `Tokenizer.encode`."""
        try:
            return self._pipeline.encode(text, add_special_tokens=False).ids
        except (UnicodeEncodeError, TypeError) as error:
            raise not_unicode(text) from error

    def decode(self, ids: Iterable[int]) -> str:
        """See `Tokenizer.decode`."""
        known = [int(i) for i in ids if int(i) < self.vocab_size]
        return self._pipeline.decode(known, skip_special_tokens=True)

    def token_id(self, text: str) -> int:
        """See `Tokenizer.token_id`."""
        return single_token(self, text)

    def control_id(self, name: str) -> int:
        """See `Tokenizer.control_id`."""
        token = self._pipeline.token_to_id(name)
        if token is None:
            raise UserError(f"{self._name}: the vocabulary has no token {name!r}")
        return token

    def to_json(self) -> str:
        """The pipeline as the content of a tokenizer.json."""
        return self._pipeline.to_str(pretty=True)
