"""Byte-level BPE and other tokenizers of a `tokenizer.json`, by `tokenizers`."""

import hashlib
from collections.abc import Iterable

import tokenizers

from instructgpt.errors import UserError
from instructgpt.tokenizer.interface import not_unicode, single_token
from instructgpt.tokenizer.settings import MAX_IDS, AddedToken


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
        added: Iterable[AddedToken] = (),
        name: str = "the tokenizer",
    ):
        """Wraps a pipeline, which must not be used elsewhere from then on.

        Args:
          pipeline: normaliser, pre-tokeniser, model, decoder.
          eos: the token that ends a text.
          bos: the token that begins a text, if there is one.
          pad: the padding token; if it is None, EOS or not in the vocabulary, padding
            gets a new id.
          add_bos: whether BOS precedes every text; None follows the pipeline's
            post-processor.
          added: further tokens, from the files beside the pipeline's.
          name: name of the tokenizer in error messages.

        Raises:
          UserError: the vocabulary lacks EOS or BOS, or text can spell a control token;
            or an id is far out of range, or given to two tokens.
        """
        self._pipeline = pipeline
        self._name = name
        self._check_ids()
        for token in added:
            self._add(token)
        # A file may hold the length limit of its last use.
        pipeline.no_truncation()
        pipeline.no_padding()
        vocabulary = pipeline.get_vocab(with_added_tokens=True)
        # The characters "<|im_end|>" in a text must not become the control token.
        pipeline.add_special_tokens([t for t in (eos, bos, pad) if t in vocabulary])
        pipeline.encode_special_tokens = True
        self.eos_id = self.control_id(eos)
        self.bos_id = None if bos is None else self.control_id(bos)
        # The largest id, not the number of tokens, because ids may have gaps.
        ids = 1 + max(vocabulary.values(), default=-1)
        if pad is None or pad == eos or pad not in vocabulary:
            self.pad_id = ids
        else:
            self.pad_id = self.control_id(pad)
        self.num_ids: int = max(ids, self.pad_id + 1)
        self.vocab_size: int = self._count_predicted(vocabulary)
        if add_bos is None:
            text = self.encode("a")
            framed = pipeline.encode("a").ids
            add_bos = framed[: 1 + len(text)] == [self.bos_id, *text]
        if add_bos and self.bos_id is None:
            raise UserError(f"{name}: has no BOS token; use a tokenizer that has one.")
        self.start_ids = (self.bos_id,) if add_bos and self.bos_id is not None else ()
        key = f"{pipeline.to_str()} {self.eos_id} {self.start_ids}"
        self.fingerprint = hashlib.sha256(key.encode()).hexdigest()[:16]

    def _check_ids(self) -> None:
        """Raises UserError for ids so large that the library would hang on them."""
        vocabulary = self._pipeline.get_vocab(with_added_tokens=True)
        token = max(vocabulary, key=vocabulary.__getitem__, default=None)
        if token is not None and vocabulary[token] >= MAX_IDS:
            raise UserError(
                f"{self._name}: token {token!r} has the id {vocabulary[token]}; ids "
                f"are below {MAX_IDS:,}, correct it or copy the file again"
            )

    def _add(self, token: AddedToken) -> None:
        """Adds a token to the pipeline, or marks an existing one as control or text."""
        own = tokenizers.AddedToken(
            token.content, special=token.control, normalized=False
        )
        found = self._pipeline.token_to_id(token.content)
        if found is None or token.control:
            self._pipeline.add_tokens([own])
            found = self._pipeline.token_to_id(token.content)
        if found != token.id:
            raise UserError(
                f"{token.where} gives {token.content!r} the id {token.id}, but with "
                f"{self._name} it is {found}; copy the files of one tokenizer"
            )

    def _count_predicted(self, vocabulary: dict[str, int]) -> int:
        """One more than the largest id that a text can have, EOS and BOS included."""
        ends = [i for i in (self.eos_id, self.bos_id) if i is not None]
        added = self._pipeline.get_added_tokens_decoder()
        controls = {i: t.content for i, t in added.items() if t.special}
        largest = max([*ends, *(i for i in vocabulary.values() if i not in controls)])
        for token, content in controls.items():
            if token > largest and token in self.encode(content):
                largest = token
        return largest + 1

    def encode(self, text: str) -> list[int]:
        """See `Tokenizer.encode`."""
        try:
            return self._pipeline.encode(text, add_special_tokens=False).ids
        except (UnicodeEncodeError, TypeError) as error:
            raise not_unicode(text) from error
        except Exception as error:  # the library raises nothing narrower
            raise UserError(
                f"{self._name}: cannot encode {text[:60]!r} ({error}); copy the file"
                " again or use another tokenizer"
            ) from error

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

    def control_name(self, token: int) -> str:
        """See `Tokenizer.control_name`."""
        return self._pipeline.id_to_token(token) or ""
