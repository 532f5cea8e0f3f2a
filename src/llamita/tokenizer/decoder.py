"""TextDecoder: token ids to text while they are generated. The last step of `run`, `chat` and the server.

A token may end in the middle of a character (emoji come as four byte tokens); such bytes wait for the next token. Knows no
vocabulary: it asks the tokenizer for the bytes of a piece, once per id.
"""

import codecs
from collections.abc import Iterable

from llamita.tokenizer import Tokenizer

_START = -2  # the previous id at the beginning of a text; -1 is the bos_id of vocabularies without BOS


class TextDecoder:
    """Turn ids into text one at a time; feed gives whole characters only, flush what is left.

    previous_id: the id before the first one fed, where decoding goes on in the middle of a text; left out at its beginning.
    At the beginning and after BOS one leading space is dropped, where the tokenizer adds one when it encodes (as run.c does).
    """

    def __init__(self, tokenizer: Tokenizer, previous_id: int | None = None) -> None:
        self._tokenizer = tokenizer
        self._previous_id = _START if previous_id is None else previous_id
        self._strip_after = (_START, tokenizer.bos_id) if tokenizer.adds_space else ()
        self._pieces: dict[int, tuple[bytes, str | None]] = {}  # the bytes, and the text where they are whole characters
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._holds = False

    def feed(self, token_id: int) -> str:
        """The text that token_id completes, perhaps ""; raise TokenizerError for an id outside the vocabulary."""
        piece = self._pieces.get(token_id)
        if piece is None:
            piece = self._pieces[token_id] = self._look_up(token_id)
        data, text = piece
        if self._previous_id in self._strip_after and data.startswith(b" "):
            data, text = data[1:], None if text is None else text[1:]
        self._previous_id = token_id
        if text is not None and not self._holds:
            return text
        text = self._utf8.decode(data)  # no bytes, as of a special token, do not break the character that is held
        self._holds = bool(self._utf8.getstate()[0])
        return text

    def flush(self) -> str:
        """What is held back at the end of a text: U+FFFD for a character that never became whole, else ""."""
        self._holds = False
        return self._utf8.decode(b"", final=True)

    def _look_up(self, token_id: int) -> tuple[bytes, str | None]:
        data = self._tokenizer.piece_bytes(token_id)
        try:
            return data, data.decode("utf-8")
        except UnicodeDecodeError:
            return data, None


def decode(tokenizer: Tokenizer, ids: Iterable[int]) -> str:
    """The text of ids from its beginning; see Tokenizer.decode."""
    decoder = TextDecoder(tokenizer)
    return "".join([decoder.feed(token_id) for token_id in ids]) + decoder.flush()
