"""SentencePiece tokenizer that gives back any text byte for byte.

SentencePiece alone is not lossless: it writes a space as "▁" (U+2581), so a "▁" in
the text comes back as a space. Here text is cut at "▁", which becomes its three
UTF-8 byte pieces, and decoding joins the bytes of the pieces. Control pieces (pad,
BOS, EOS) have no bytes and no text encodes to them, "</s>" included: SentencePiece
learns no piece of a reserved name and finds control pieces only by id.
"""

import hashlib
import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

import sentencepiece

from instructgpt.errors import UserError

PAD, BOS, EOS, UNK = "<pad>", "<s>", "</s>", "<unk>"
NEWLINE = "\n"
_SPACE = "▁"  # how SentencePiece writes a space inside a piece
# Text that a model with a dummy prefix, squeezed spaces or no byte pieces spoils.
_PROBE = "  a \t\r\n\0 ▁</s>é\U0010ffff "


class TokenizerInfo(Protocol):
    """What `check_tokenizer` needs to know, whatever the tokenizer's make."""

    @property
    def pad_id(self) -> int: ...
    @property
    def bos_id(self) -> int: ...
    @property
    def eos_id(self) -> int: ...
    @property
    def vocab_size(self) -> int: ...


class Tokenizer:
    """Text to token ids and back, exactly.

    Attributes:
      pad_id, bos_id, eos_id: ids of the control pieces, all different.
      vocab_size: number of pieces; ids run from 0 to vocab_size - 1.
      fingerprint: 16 hex digits that change with the model.
    """

    def __init__(self, model: bytes, *, name: str = "the tokenizer"):
        """Reads a serialised SentencePiece model; `name` is for error messages."""
        try:
            # Deserialising an empty model would succeed, so it is refused first.
            if not model:
                raise RuntimeError("empty")
            self._pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise UserError(
                f"{name}: not a SentencePiece model, or a damaged one; train it again"
                " or copy it again."
            ) from error
        self.pad_id: int = self._pieces.pad_id()
        self.bos_id: int = self._pieces.bos_id()
        self.eos_id: int = self._pieces.eos_id()
        self.vocab_size: int = self._pieces.get_piece_size()
        self.fingerprint = hashlib.sha256(model).hexdigest()[:16]
        self._surfaces = [self._surface(i) for i in range(self.vocab_size)]
        self._space_ids = [
            self._pieces.piece_to_id(f"<0x{byte:02X}>") for byte in _SPACE.encode()
        ]
        if self.decode(self.encode(_PROBE)) != _PROBE:
            raise UserError(
                f"{name}: this model does not give back text exactly (it lacks byte"
                " pieces, or changes spaces); train one with `train_tokenizer`."
            )

    def _surface(self, token: int) -> bytes:
        piece = self._pieces.id_to_piece(token)
        if self._pieces.is_control(token) or self._pieces.is_unknown(token):
            return b""
        if self._pieces.is_byte(token):
            return bytes([int(piece[3:5], 16)])
        return piece.replace(_SPACE, " ").encode()

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, without BOS and EOS; never a control id.

        Raises:
          UserError: `text` holds half a surrogate pair, so it has no UTF-8 form.
        """
        try:
            first, *rest = [self._pieces.encode(part) for part in text.split(_SPACE)]
        except RuntimeError as error:
            raise UserError(
                f"text that is not valid Unicode: {text[:60]!r}; remove the lone"
                " surrogates (U+D800 to U+DFFF)."
            ) from error
        ids: list[int] = list(first)
        for part in rest:
            ids += self._space_ids
            ids += part
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`; control ids are dropped, broken UTF-8 becomes U+FFFD."""
        surfaces = self._surfaces
        return b"".join([surfaces[int(i)] for i in ids]).decode(errors="replace")

    def token_id(self, text: str) -> int:
        """Id of the one piece that writes `text`, for example the stop token "\\n".

        Raises:
          UserError: `text` takes no piece or several.
        """
        ids = self.encode(text)
        if len(ids) != 1:
            raise UserError(
                f"{text!r} is {len(ids)} tokens, not one; choose a text that this"
                " tokenizer writes as a single token."
            )
        return ids[0]


def train_tokenizer(
    texts: Iterable[str], path: str | os.PathLike[str], *, vocab_size: int
) -> Tokenizer:
    """Trains a byte-pair SentencePiece model on `texts` and writes it to `path`.

    The same texts give the same file. A frequent word and the space before it become
    one piece; "\\n" is always one piece.

    Args:
      texts: the corpus; read once.
      path: the model file, replaced whole or not at all.
      vocab_size: upper bound on the number of pieces, 261 of which are reserved
        (256 bytes, pad, BOS, EOS, unknown, newline). A small corpus gives fewer.

    Raises:
      UserError: vocab_size is too small for the characters of the corpus, or the
        corpus holds no text.
    """
    path = Path(path)
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_sentences(texts),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            hard_vocab_limit=False,
            character_coverage=0.9999,  # rarer characters are written in bytes
            byte_fallback=True,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            user_defined_symbols=[NEWLINE],
            pad_id=0,
            bos_id=1,
            eos_id=2,
            unk_id=3,
            pad_piece=PAD,
            bos_piece=BOS,
            eos_piece=EOS,
            unk_piece=UNK,
            max_sentence_length=1 << 30,  # bytes; longer ones would be left out
            num_threads=1,
            minloglevel=2,
        )
    except (RuntimeError, StopIteration) as error:
        raise UserError(
            f"{path}: cannot train a tokenizer with vocab_size={vocab_size} on this"
            f" corpus; give it text, and room for 261 reserved pieces and every"
            f" character of it. SentencePiece says: {error}"
        ) from error
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_bytes(model.getvalue())
    partial.replace(path)
    return load_tokenizer(path)


def _sentences(texts: Iterable[str]) -> Iterator[str]:
    # Line by line, because SentencePiece skips a sentence that holds its own marks.
    for text in texts:
        yield from filter(None, text.split(NEWLINE))


def load_tokenizer(path: str | os.PathLike[str]) -> Tokenizer:
    """Reads a tokenizer that `train_tokenizer` wrote.

    Raises:
      UserError: the file is missing or damaged.
    """
    try:
        model = Path(path).read_bytes()
    except OSError as error:
        raise UserError(
            f"{path}: cannot read the tokenizer ({error.strerror}); train one, or give"
            " the path of one."
        ) from error
    return Tokenizer(model, name=str(path))


def check_tokenizer(tokenizer: TokenizerInfo, vocab_size_of_model: int) -> None:
    """Refuses a tokenizer that would train a model wrongly without a sign.

    If pad were EOS, EOS would be masked and never learnt.

    Raises:
      UserError: control ids are missing or equal, or the vocabulary is larger than
        the model's embedding.
    """
    ids: dict[str, int] = {
        "pad_id": tokenizer.pad_id,
        "bos_id": tokenizer.bos_id,
        "eos_id": tokenizer.eos_id,
    }
    listed = ", ".join(f"{name}={i}" for name, i in ids.items())
    if tokenizer.pad_id == tokenizer.eos_id:
        raise UserError(
            f"the tokenizer pads with EOS ({listed}), so EOS would never be learnt;"
            " give pad an id of its own."
        )
    if len(set(ids.values())) < len(ids):
        raise UserError(
            f"two control tokens share an id ({listed}); give each its own."
        )
    if not all(0 <= i < tokenizer.vocab_size for i in ids.values()):
        raise UserError(
            f"a control token lies outside the vocabulary of {tokenizer.vocab_size}"
            f" pieces ({listed}); train a tokenizer that has all three."
        )
    if tokenizer.vocab_size > vocab_size_of_model:
        raise UserError(
            f"the tokenizer has {tokenizer.vocab_size} pieces but the model embeds"
            f" {vocab_size_of_model}; raise the model's vocab_size or train a smaller"
            " tokenizer."
        )
