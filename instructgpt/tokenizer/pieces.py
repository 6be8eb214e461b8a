"""SentencePiece models, both trained here and public ones.

SentencePiece alone is not lossless: it writes a space as "▁" (U+2581), so a "▁" in
the text comes back as a space. With a model that otherwise keeps every text, as those
trained here do, text is split at "▁", which becomes its three UTF-8 byte pieces, and
decoding joins the bytes of the pieces. Models that change text (a leading space, no
byte pieces, normalised characters) encode and decode like SentencePiece itself, except
that line breaks are kept if the model has a piece for their byte.

Control pieces (pad, BOS, EOS) have no bytes, and no text encodes to them, not even
"</s>": SentencePiece finds control pieces only by id.
"""

import hashlib
import io
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from instructgpt.errors import UserError
from instructgpt.outputs import new_file
from instructgpt.tokenizer.interface import not_unicode, single_token
from instructgpt.tokenizer.settings import AddedToken, Settings

PAD, BOS, EOS, UNK = "<pad>", "<s>", "</s>", "<unk>"
NEWLINE = "\n"
_SPACE = "▁"  # SentencePiece's character for a space inside a piece
# A text that does not survive in a model with a dummy prefix, squeezed spaces, no byte
# pieces, or normalisation of case, compatible characters (NFKC) or accents (NFC, NFD).
_PROBE = "  Aﬁ\u00a0 \t\r\n\0 ▁</s>\u00e9e\u0301\U0010ffff "


class SentencePieceTokenizer:
    """A `Tokenizer` over a SentencePiece model.

    Attributes:
      lossless: whether decoding gives back every text byte for byte.
    """

    def __init__(
        self,
        model: bytes,
        *,
        name: str = "the tokenizer",
        settings: Settings | None = None,
    ):
        """Reads a serialised model.

        Args:
          model: the content of a .model file.
          name: name of the tokenizer in error messages.
          settings: settings from the files beside it, if there are any.

        Raises:
          UserError: it is not such a model, or has no EOS (or no BOS that should be
            added), or the settings name tokens that do not exist.
        """
        settings = settings or Settings()
        self._name = name
        self._pieces = _parse(model, name)
        self._pieces = self._as_controls(model, settings)
        size: int = self._pieces.get_piece_size()
        self._controls: dict[str, int] = {}
        self._texts: dict[str, int] = {}
        for token in settings.added:
            self._add(token)
        self.eos_id: int = self._role(settings, "eos", self._pieces.eos_id())
        bos = self._role(settings, "bos", self._pieces.bos_id())
        self.bos_id: int | None = None if bos < 0 else bos
        add_bos = settings.add_bos
        if add_bos is None:
            add_bos = settings.class_adds_bos
        if self.eos_id < 0 or (add_bos and self.bos_id is None):
            raise UserError(
                f"{name}: has no {'BOS' if self.eos_id >= 0 else 'EOS'} piece; use a"
                " tokenizer that has one."
            )
        ids = 1 + max([size - 1, *(token.id for token in settings.added)])
        pad = self._padding(settings)
        self.pad_id: int = ids if pad in (-1, self.eos_id) else pad
        self.num_ids: int = max(ids, self.pad_id + 1)
        self.start_ids = (self.bos_id,) if add_bos and self.bos_id is not None else ()
        self._surfaces = [self._surface(i) for i in range(size)]
        spelt = [i for i in range(size) if not self._is_no_text(i)]
        self.vocab_size: int = 1 + max(
            [*spelt, *self._texts.values(), self.eos_id, bos]
        )
        self.fingerprint = self._fingerprint(model, settings, add_bos)
        self._space_ids = [
            self._pieces.piece_to_id(f"<0x{byte:02X}>") for byte in _SPACE.encode()
        ]
        self._newline_id: int | None = None
        self.lossless = True
        self.lossless = self.decode(self.encode(_PROBE)) == _PROBE
        if NEWLINE not in self.decode(self.encode(f"a{NEWLINE}b")):
            self._newline_id = self._piece_id("<0x0A>")

    def _as_controls(
        self, model: bytes, settings: Settings
    ) -> sentencepiece.SentencePieceProcessor:
        """The model, changed so that no text encodes to control tokens of settings."""
        named = {settings.eos, settings.bos, settings.pad}
        named |= {token.content for token in settings.added if token.control}
        spelt = [
            i
            for i in map(self._piece_id, named - {None})
            if i is not None and not self._pieces.is_control(i)
        ]
        if not spelt:
            return self._pieces
        proto: Any = sentencepiece_model_pb2.ModelProto.FromString(model)  # type: ignore[attr-defined]
        for i in spelt:
            if not self._pieces.is_unknown(i):
                proto.pieces[i].type = proto.SentencePiece.CONTROL
        return _parse(proto.SerializeToString(), self._name)

    def _piece_id(self, piece: str | None) -> int | None:
        """The id of a piece; None if there is none (the library gives "unknown")."""
        token = self._pieces.piece_to_id(piece or "")
        if token < 0 or self._pieces.id_to_piece(token) != piece:
            return None
        return token

    def _add(self, token: AddedToken) -> None:
        """Records a token of the settings, which is new or an existing piece."""
        if token.id < self._pieces.get_piece_size():
            piece = self._pieces.id_to_piece(token.id)
            if piece != token.content and not self._is_no_text(token.id):
                raise UserError(
                    f"{token.where} gives {token.content!r} the id {token.id}, which"
                    f" is {piece!r} in {self._name}; copy the files of one tokenizer"
                )
            if piece == token.content:
                return
        (self._controls if token.control else self._texts)[token.content] = token.id

    def _is_no_text(self, token: int) -> bool:
        """Whether no text encodes to this piece."""
        return self._pieces.is_control(token) or self._pieces.is_unused(token)

    def _find(self, content: str) -> int | None:
        """The id of an added token or a piece."""
        added = self._controls.get(content)
        return self._piece_id(content) if added is None else added

    def _role(self, settings: Settings, role: str, default: int) -> int:
        """The id of EOS or BOS: the settings' token, else the model's."""
        content = getattr(settings, role)
        if content is None:
            return default
        token = self._find(content)
        if token is None:
            raise UserError(
                f"{settings.source(role)} is {content!r}, which is no piece of "
                f"{self._name} and not among the added tokens beside it; correct it or"
                " copy all files of the tokenizer"
            )
        return token

    def _padding(self, settings: Settings) -> int:
        """The id of padding, -1 if there is none; a missing token gets a new id."""
        if settings.pad is None:
            return self._pieces.pad_id()
        token = self._find(settings.pad)
        return -1 if token is None else token

    def _fingerprint(self, model: bytes, settings: Settings, add_bos: bool) -> str:
        content = model + bytes(add_bos)
        given = (settings.eos, settings.bos, settings.pad, settings.added)
        if any(given):
            added = [token[:3] for token in settings.added]
            content += f"{self.eos_id} {self.bos_id} {self.pad_id} {added}".encode()
        return hashlib.sha256(content).hexdigest()[:16]

    def _surface(self, token: int) -> bytes:
        piece = self._pieces.id_to_piece(token)
        if self._pieces.is_control(token) or self._pieces.is_unknown(token):
            return b""
        if self._pieces.is_byte(token):
            return bytes([int(piece[3:5], 16)])
        return piece.replace(_SPACE, " ").encode()

    def _cuts(self) -> dict[str, list[int]]:
        """Texts that are replaced by fixed ids before the rest is encoded."""
        cuts = {content: [token] for content, token in self._texts.items()}
        if self.lossless:
            cuts[_SPACE] = self._space_ids
        if self._newline_id is not None:
            cuts[NEWLINE] = [self._newline_id]
        return cuts

    def encode(self, text: str) -> list[int]:
        """See `Tokenizer.encode`."""
        cuts = self._cuts()
        names = sorted(cuts, key=len, reverse=True)
        parts = re.split(f"({'|'.join(map(re.escape, names))})", text)
        ids: list[int] = []
        try:
            for part in parts if cuts else [text]:
                ids += cuts[part] if part in cuts else self._pieces.encode(part)
        except RuntimeError as error:
            raise not_unicode(text) from error
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """See `Tokenizer.decode`."""
        apart = {token: content for content, token in self._texts.items()}
        if self._newline_id is not None:
            apart[self._newline_id] = NEWLINE
        text = ""
        run: list[int] = []
        for token in map(int, ids):
            if token in apart:
                text += self._decode(run) + apart[token]
                run = []
            elif 0 <= token < len(self._surfaces):
                run.append(token)
        return text + self._decode(run)

    def _decode(self, ids: list[int]) -> str:
        """Decodes ids that are all pieces."""
        if not self.lossless:
            return self._pieces.decode(ids)
        surfaces = self._surfaces
        return b"".join([surfaces[i] for i in ids]).decode(errors="replace")

    def token_id(self, text: str) -> int:
        """See `Tokenizer.token_id`."""
        return single_token(self, text)

    def control_id(self, name: str) -> int:
        """See `Tokenizer.control_id`."""
        if name in self._controls:
            return self._controls[name]
        token = self._piece_id(name)
        if token is None or not self._pieces.is_control(token):
            raise UserError(f"the tokenizer has no control piece {name!r}")
        return token

    def control_name(self, token: int) -> str:
        """See `Tokenizer.control_name`."""
        added = {i: name for name, i in self._controls.items()}
        return added[token] if token in added else self._pieces.id_to_piece(token)


def _parse(model: bytes, name: str) -> sentencepiece.SentencePieceProcessor:
    try:
        # The library accepts an empty model, so it is refused here.
        if not model:
            raise RuntimeError("empty")
        return sentencepiece.SentencePieceProcessor(model_proto=model)
    except RuntimeError as error:
        raise UserError(
            f"{name}: not a SentencePiece model, or a damaged one; train it again"
            " or copy it again."
        ) from error


def train_tokenizer(
    texts: Iterable[str], path: str | os.PathLike[str], *, vocab_size: int
) -> SentencePieceTokenizer:
    """Trains a byte-pair SentencePiece model on `texts` and writes it to `path`.

    Equal texts give equal files. A frequent word becomes one piece with the space
    before it; "\\n" is always one piece.

    Args:
      texts: the corpus; read once.
      path: the model file, which is replaced atomically.
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
            character_coverage=0.9999,  # rarer characters become byte pieces
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
            max_sentence_length=1 << 30,  # bytes; longer sentences would be left out
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
    # By line, because SentencePiece skips sentences that hold its special characters.
    for text in texts:
        yield from filter(None, text.split(NEWLINE))
