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
          pad: padding; None, the same as EOS, or a token that the vocabulary lacks
            gives it an id of its own.
          add_bos: whether BOS stands before every text; None does as the pipeline's
            post-processor does.
          name: for error messages.

        Raises:
          UserError: the vocabulary lacks EOS or BOS, or text can spell a control token.
        """
        self._pipeline = pipeline
        self._name = name
        # A file carries the length limits of its last use.
        pipeline.no_truncation()
        pipeline.no_padding()
        vocabulary = pipeline.get_vocab(with_added_tokens=True)
        # Not their number, since ids may have gaps.
        self.vocab_size: int = 1 + max(vocabulary.values(), default=-1)
        # "<|im_end|>" in a text is its characters, not the control token.
        pipeline.add_special_tokens([t for t in (eos, bos, pad) if t in vocabulary])
        pipeline.encode_special_tokens = True
        self.eos_id = self.control_id(eos)
        self.bos_id = None if bos is None else self.control_id(bos)
        if pad is None or pad == eos or pad not in vocabulary:
            self.pad_id = self.vocab_size
        else:
            self.pad_id = self.control_id(pad)
        if add_bos is None:
            text = self.encode("a")
            framed = pipeline.encode("a").ids
            add_bos = framed[: 1 + len(text)] == [self.bos_id, *text]
        if add_bos and self.bos_id is None:
            raise UserError(f"{name}: has no BOS token; use a tokenizer that has one.")
        self.start_ids = (self.bos_id,) if add_bos and self.bos_id is not None else ()
        key = f"{pipeline.to_str()} {self.eos_id} {self.start_ids}"
        self.fingerprint = hashlib.sha256(key.encode()).hexdigest()[:16]

    def encode(self, text: str) -> list[int]:
        """See `Tokenizer.encode`."""
        try:
            return self._pipeline.encode(text, add_special_tokens=False).ids
        except (UnicodeEncodeError, TypeError) as error:
            raise not_unicode(text) from error

    def decode(self, ids: Iterable[int]) -> str:
        """See `Tokenizer.decode`."""
        # Ids beyond the vocabulary, such as padding's, are dropped too.
        return self._pipeline.decode([int(i) for i in ids], skip_special_tokens=True)

    def token_id(self, text: str) -> int:
        """See `Tokenizer.token_id`."""
        return single_token(self, text)

    def control_id(self, name: str) -> int:
        """See `Tokenizer.control_id`."""
        token = self._pipeline.token_to_id(name)
        if token is None:
            raise UserError(
                f"{self._name}: the vocabulary has no token {name!r}; use a tokenizer"
                " that has it."
            )
        if token in self.encode(name):
            raise UserError(
                f"{self._name}: {name!r} is no control token, since text spells it too;"
                " mark it as special in tokenizer.json, or use another tokenizer."
            )
        return token
