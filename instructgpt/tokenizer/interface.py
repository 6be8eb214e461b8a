"""What every tokenizer offers, and what is refused before any training."""

from collections.abc import Iterable
from typing import Protocol

from instructgpt.errors import UserError


class Tokenizer(Protocol):
    """Text to token ids and back."""

    @property
    def pad_id(self) -> int:
        """Never EOS; beyond all other ids where the tokenizer has no padding."""
        ...

    @property
    def eos_id(self) -> int:
        """Ends a text."""
        ...

    @property
    def bos_id(self) -> int | None:
        """Begins a text, None if the tokenizer knows no such token."""
        ...

    @property
    def start_ids(self) -> tuple[int, ...]:
        """What the tokenizer's convention puts before every text: BOS or nothing."""
        ...

    @property
    def vocab_size(self) -> int:
        """One more than the largest id that a text can have, EOS and BOS included.

        Control tokens that lie beyond, such as padding, are never predicted.
        """
        ...

    @property
    def num_ids(self) -> int:
        """One more than the largest id of all, padding and control tokens included."""
        ...

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change with what `encode` gives."""
        ...

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, without `start_ids` and EOS; never a control token's id.

        Raises:
          UserError: `text` holds half a surrogate pair, so it has no UTF-8 form.
        """
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`; control tokens are dropped, broken UTF-8 becomes U+FFFD."""
        ...

    def token_id(self, text: str) -> int:
        """Id of the one token that writes `text`, for example the stop token "\\n".

        Raises:
          UserError: `text` takes no token or several.
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
    """The id behind `Tokenizer.token_id`."""
    ids = tokenizer.encode(text)
    if len(ids) != 1:
        raise UserError(
            f"{text!r} is {len(ids)} tokens, not one; choose a text that this"
            " tokenizer writes as a single token."
        )
    return ids[0]


def not_unicode(text: str) -> UserError:
    """The error for text that UTF-8 cannot spell."""
    return UserError(
        f"text that is not valid Unicode: {text[:60]!r}; remove the lone"
        " surrogates (U+D800 to U+DFFF)."
    )


def check_tokenizer(
    tokenizer: Tokenizer, *, vocab_size: int, padded_vocab_size: int
) -> None:
    """Refuses a tokenizer that would train a model wrongly without a sign.

    If pad were EOS, EOS would be masked and never learnt.

    Args:
      tokenizer: The tokenizer.
      vocab_size: Tokens that the model can predict.
      padded_vocab_size: Rows of its embedding, in which padding needs an id too.

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
