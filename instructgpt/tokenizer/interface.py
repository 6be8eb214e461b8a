"""The interface of tokenizers, and checks before training."""

from collections.abc import Iterable
from typing import Protocol

from instructgpt.errors import UserError


class Tokenizer(Protocol):
    """Converts text to token ids and back."""

    @property
    def pad_id(self) -> int:
        """Id of padding; never EOS, and a new largest id without a padding token."""
        ...

    @property
    def eos_id(self) -> int:
        """Id that ends a text."""
        ...

    @property
    def bos_id(self) -> int | None:
        """Id that begins a text, None if the tokenizer has no such token."""
        ...

    @property
    def start_ids(self) -> tuple[int, ...]:
        """Ids before every text by the tokenizer's convention: BOS or none."""
        ...

    @property
    def vocab_size(self) -> int:
        """One more than the largest id that a text can have, EOS and BOS included.

        Larger ids are control tokens, such as padding, which are never predicted.
        """
        ...

    @property
    def num_ids(self) -> int:
        """One more than the largest id, padding and control tokens included."""
        ...

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that differ if `encode` gives other ids."""
        ...

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, without `start_ids` and EOS; never a control token's id.

        Raises:
          UserError: `text` holds half a surrogate pair, which UTF-8 cannot encode.
        """
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`; control tokens are dropped, broken UTF-8 becomes U+FFFD."""
        ...

    def token_id(self, text: str) -> int:
        """Id of the single token for `text`, for example the stop token "\\n".

        Raises:
          UserError: `text` is not exactly one token.
        """
        ...

    def control_id(self, name: str) -> int:
        """Id of a control token, for example "<|im_start|>".

        Raises:
          UserError: there is no such token.
        """
        ...

    def control_name(self, token: int) -> str:
        """The inverse of `control_id`."""
        ...


def single_token(tokenizer: Tokenizer, text: str) -> int:
    """Implements `Tokenizer.token_id`."""
    ids = tokenizer.encode(text)
    if len(ids) != 1:
        raise UserError(
            f"{text!r} is {len(ids)} tokens, not one; choose a text that this"
            " tokenizer writes as a single token."
        )
    return ids[0]


def not_unicode(text: str) -> UserError:
    """The error for text that UTF-8 cannot encode."""
    return UserError(
        f"text that is not valid Unicode: {text[:60]!r}; remove the lone"
        " surrogates (U+D800 to U+DFFF)."
    )


def check_tokenizer(
    tokenizer: Tokenizer, *, vocab_size: int, padded_vocab_size: int
) -> None:
    """Raises UserError for a tokenizer that would silently spoil training.

    For example, if padding were EOS, EOS would be masked and never learnt.

    Args:
      tokenizer: The tokenizer.
      vocab_size: Number of tokens that the model can predict.
      padded_vocab_size: Rows of the embedding, which must include padding's id.

    Raises:
      UserError: control ids are missing or clash, or the vocabulary is larger than the
        model's.
    """
    pad, bos, eos = tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id
    listed = f"pad_id={pad}, bos_id={bos}, eos_id={eos}"
    if pad == eos:
        raise UserError(
            f"the tokenizer pads with EOS ({listed}), so EOS would never be learnt;"
            " give pad an id of its own."
        )
    if pad == bos:
        raise UserError(f"padding and BOS share an id ({listed}); give each its own.")
    if not all(0 <= i < tokenizer.vocab_size for i in (eos, bos) if i is not None):
        raise UserError(
            f"a control token lies outside the vocabulary of {tokenizer.vocab_size}"
            f" pieces ({listed}); use a tokenizer that has all of them."
        )
    if tokenizer.vocab_size > vocab_size:
        raise UserError(
            f"the tokenizer has {tokenizer.vocab_size} pieces but the model predicts"
            f" {vocab_size}; raise config.model.vocab_size or use a smaller tokenizer."
        )
    if not 0 <= pad < padded_vocab_size:
        raise UserError(
            f"padding has the id {pad} but the embedding has {padded_vocab_size} rows;"
            f" raise config.model.padded_vocab_size to {pad + 1} or more."
        )
    if tokenizer.num_ids > padded_vocab_size:
        raise UserError(
            f"the tokenizer has control tokens up to the id {tokenizer.num_ids - 1} but"
            f" the embedding has {padded_vocab_size} rows; raise"
            f" config.model.padded_vocab_size to {tokenizer.num_ids} or more."
        )
