"""SentencePiece models: those trained here, and those of others as they are.

SentencePiece alone is not lossless: it writes a space as "▁" (U+2581), so a "▁" in
the text comes back as a space. In a model that otherwise keeps every text, as those
trained here do, text is cut at "▁", which becomes its three UTF-8 byte pieces, and
decoding joins the bytes of the pieces. Models that change text (a space put in front,
no byte pieces, normalised characters) encode and decode as SentencePiece itself does.

Control pieces (pad, BOS, EOS) have no bytes and no text encodes to them, "</s>"
included: SentencePiece finds control pieces only by id.
"""

import hashlib
import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import sentencepiece

from instructgpt.errors import UserError
from instructgpt.outputs import new_file
from instructgpt.tokenizer.interface import not_unicode, single_token

PAD, BOS, EOS, UNK = "<pad>", "<s>", "</s>", "<unk>"
NEWLINE = "\n"
_SPACE = "▁"  # how SentencePiece writes a space inside a piece
# Text that a model spoils which has a dummy prefix, squeezed spaces, no byte pieces, or
# normalises case, compatible characters (NFKC) or accents (NFC, NFD).
_PROBE = "  Aﬁ\u00a0 \t\r\n\0 ▁</s>\u00e9e\u0301\U0010ffff "


class SentencePieceTokenizer:
    """A `Tokenizer` over a SentencePiece model.

    Attributes:
      lossless: whether decoding gives back every text byte for byte.
    """

    def __init__(
        self, model: bytes, *, name: str = "the tokenizer", add_bos: bool = False
    ):
        """Reads a serialised model.

        Args:
          model: the content of a .model file.
          name: for error messages.
          add_bos: whether BOS stands before every text.

        Raises:
          UserError: it is no such model, or has no EOS (or BOS, if it is to be added).
        """
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
        self.vocab_size: int = self._pieces.get_piece_size()
        self.eos_id: int = self._pieces.eos_id()
        self.bos_id: int | None = _or_none(self._pieces.bos_id())
        if self.eos_id < 0 or (add_bos and self.bos_id is None):
            raise UserError(
                f"{name}: has no {'BOS' if self.eos_id >= 0 else 'EOS'} piece; use a"
                " tokenizer that has one."
            )
        pad = self._pieces.pad_id()
        self.pad_id: int = self.vocab_size if pad in (-1, self.eos_id) else pad
        self.start_ids = (self.bos_id,) if add_bos and self.bos_id is not None else ()
        self.fingerprint = hashlib.sha256(model + bytes(add_bos)).hexdigest()[:16]
        self._surfaces = [self._surface(i) for i in range(self.vocab_size)]
        self._space_ids = [
            self._pieces.piece_to_id(f"<0x{byte:02X}>") for byte in _SPACE.encode()
        ]
        self.lossless = True
        self.lossless = self.decode(self.encode(_PROBE)) == _PROBE

    def _surface(self, token: int) -> bytes:
        piece = self._pieces.id_to_piece(token)
        if self._pieces.is_control(token) or self._pieces.is_unknown(token):
            return b""
        if self._pieces.is_byte(token):
            return bytes([int(piece[3:5], 16)])
        return piece.replace(_SPACE, " ").encode()

    def encode(self, text: str) -> list[int]:
        """See `Tokenizer.encode`."""
        parts = text.split(_SPACE) if self.lossless else [text]
        try:
            first, *rest = [self._pieces.encode(part) for part in parts]
        except RuntimeError as error:
            raise not_unicode(text) from error
        ids: list[int] = list(first)
        for part in rest:
            ids += self._space_ids
            ids += part
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """See `Tokenizer.decode`."""
        if not self.lossless:
            known = [int(i) for i in ids if int(i) < self.vocab_size]
            return self._pieces.decode(known)
        surfaces = self._surfaces
        texts = [surfaces[int(i)] for i in ids if int(i) < self.vocab_size]
        return b"".join(texts).decode(errors="replace")

    def token_id(self, text: str) -> int:
        """See `Tokenizer.token_id`."""
        return single_token(self, text)

    def control_id(self, name: str) -> int:
        """See `Tokenizer.control_id`."""
        token = self._pieces.piece_to_id(name)
        if not self._pieces.is_control(token):
            raise UserError(f"the tokenizer has no control piece {name!r}")
        return token


def _or_none(piece_id: int) -> int | None:
    return None if piece_id < 0 else piece_id


def train_tokenizer(
    texts: Iterable[str], path: str | os.PathLike[str], *, vocab_size: int
) -> SentencePieceTokenizer:
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
    with new_file(path) as partial:
        partial.write_bytes(model.getvalue())
    tokenizer = SentencePieceTokenizer(model.getvalue(), name=str(path))
    if not tokenizer.lossless:
        raise RuntimeError("a model trained with these settings keeps every text")
    return tokenizer


def _sentences(texts: Iterable[str]) -> Iterator[str]:
    # Line by line, because SentencePiece skips a sentence that holds its own marks.
    for text in texts:
        yield from filter(None, text.split(NEWLINE))
