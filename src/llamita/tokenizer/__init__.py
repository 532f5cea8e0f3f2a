"""Text to token ids and back, for every tokenizer that a Llama comes with. Knows no model and opens no file.

Every tokenizer satisfies the protocol below. Decoding one token at a time goes through a TextDecoder (tokenizer/decoder.py),
which holds back bytes until they make a whole character. Files are opened in formats/; here their bytes are parsed.
"""

from collections.abc import Iterable, Mapping
from typing import Protocol


class Tokenizer(Protocol):
    """What every stage may ask of a tokenizer. bos_id and eos_id are -1 where the vocabulary has none."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def bos_id(self) -> int: ...

    @property
    def eos_id(self) -> int: ...

    @property
    def adds_space(self) -> bool:
        """Whether encode puts a space before a text, which decoding takes away again."""
        ...

    @property
    def adds_bos(self) -> bool:
        """Whether a text begins with BOS, as the model was trained; never where the vocabulary has none."""
        ...

    @property
    def special_tokens(self) -> Mapping[str, int]:
        """How special tokens are spelled, such as BOS and the marks of a chat, and their ids."""
        ...

    def encode(self, text: str, bos: bool = False, eos: bool = False) -> list[int]:
        """The ids of a text; special tokens written out in the text are ordinary text."""
        ...

    def encode_marked(self, text: str) -> list[int]:
        """The ids of a text as chat templates write it: a special token that is spelled there is that token."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids, special tokens left out; bytes that make no character become U+FFFD."""
        ...

    def piece_bytes(self, token_id: int) -> bytes:
        """What a token adds in the middle of a text: UTF-8, possibly a part of a character; b"" for special tokens."""
        ...
