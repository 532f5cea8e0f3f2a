"""LibraryTokenizer: what the `tokenizers` library of Hugging Face runs, byte-level BPE (Llama 3, SmolLM2, GPT-2) and others.

It is made from the content of a tokenizer.json, which library_content.py checks: the library panics at what is broken. GGUF's
vocabularies and Llama 3's own file come here in that form too. Knows no file; the library is imported when one is made.
"""

import json
import threading
from collections.abc import Iterable, Mapping
from copy import copy
from typing import TYPE_CHECKING, Any

from llamita.errors import TokenizerError
from llamita.tokenizer.byte_level import bytes_of
from llamita.tokenizer.decoder import decode
from llamita.tokenizer.library_content import Decoding, bos_template, check_content, decoding_of, pairs_of
from llamita.tokenizer.llama2c import BYTE_PIECE, check_unicode
from llamita.tokenizer.marks import enclose
from llamita.tokenizer.sentencepiece import SPACE

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Library


class LibraryTokenizer:
    """A vocabulary and its rules, in the library's hands. with_ends and with_padding give a changed copy.

    content: of a tokenizer.json. Raises TokenizerError for what is not well formed, or for pieces that are no text here.
    """

    bos_id = -1
    eos_id = -1
    adds_bos = False
    source = b""  # the text of the tokenizer.json that it came from, to be written again as it is
    n_padding = 0  # ids behind the last token, to which a model has rows but no text belongs

    def __init__(self, content: Mapping[str, Any]) -> None:
        check_content(content)
        self._decoding: Decoding = decoding_of(content)
        self._library = _build(content)
        self.n_tokens = self._library.get_vocab_size()
        self.adds_space = self._decoding.strips_space
        self._added = {added["id"]: added["content"] for added in content["added_tokens"]}
        self.special_tokens: Mapping[str, int] = {
            added["content"]: added["id"] for added in content["added_tokens"] if added["special"]
        }
        self._special_ids = set(self.special_tokens.values())
        self._lock = threading.Lock()  # of the library's switch between text and marked text

    @property
    def is_byte_level(self) -> bool:
        """Whether pieces are bytes; else they are text, with spaces written as sentencepiece does."""
        return self._decoding.is_byte_level

    @property
    def vocab_size(self) -> int:
        """Number of tokens, with those of padding."""
        return self.n_tokens + self.n_padding

    def with_ends(self, bos_id: int, eos_id: int, adds_bos: bool) -> "LibraryTokenizer":
        """The tokenizer with other BOS and EOS, -1 for none; see Tokenizer.adds_bos. Both become special tokens."""
        for token_id in (bos_id, eos_id):
            if not -1 <= token_id < self.n_tokens:
                raise TokenizerError(f"id of BOS or EOS: found {token_id}, expected -1 to {self.n_tokens - 1}")
        changed = copy(self)
        changed.bos_id, changed.eos_id = bos_id, eos_id
        changed.adds_bos = adds_bos and bos_id >= 0
        changed._special_ids = self._special_ids | ({bos_id, eos_id} - {-1})
        return changed

    def with_padding(self, vocab_size: int) -> "LibraryTokenizer":
        """The tokenizer for a model with so many rows, the last of which stand for no token."""
        changed = copy(self)
        changed.n_padding = vocab_size - self.n_tokens
        return changed

    def token_id(self, text: str) -> int:
        """The id of a token by its spelling, -1 where there is none."""
        token_id = self._library.token_to_id(text)
        return -1 if token_id is None else token_id

    def encode(self, text: str, bos: bool = False, eos: bool = False) -> list[int]:
        """The ids of a text as the library gives them; raise TokenizerError for a BOS or EOS that is missing."""
        return enclose(self, self._encode(text, is_marked=False), bos, eos)

    def encode_marked(self, text: str) -> list[int]:
        """The ids of a text in which special tokens are written out; see Tokenizer.encode_marked."""
        return self._encode(text, is_marked=True)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; see Tokenizer.decode."""
        return decode(self, ids)

    def piece_bytes(self, token_id: int) -> bytes:
        """What a token adds to a text; raise TokenizerError for an id outside the vocabulary."""
        if not 0 <= token_id < self.vocab_size:
            raise TokenizerError(f"token id: found {token_id}, expected 0 to {self.vocab_size - 1}")
        if token_id in self._special_ids or token_id >= self.n_tokens:
            return b""
        if token_id in self._added:
            return self._added[token_id].encode("utf-8")
        piece = self._library.id_to_token(token_id)
        assert piece is not None, token_id
        if self._decoding.is_byte_level:
            return bytes_of(piece)
        byte = BYTE_PIECE.fullmatch(piece.encode("utf-8")) if self._decoding.has_byte_pieces else None
        return bytes.fromhex(byte[1].decode()) if byte else piece.replace(SPACE, " ").encode("utf-8")

    def content(self) -> dict[str, Any]:
        """The content of the tokenizer.json that gives these ids, BOS put before each text where it is this model's custom."""
        content = json.loads(self._library.to_str())
        if self.adds_bos:
            content["post_processor"] = bos_template(self._library.id_to_token(self.bos_id) or "", self.bos_id)
        return content

    def _encode(self, text: str, is_marked: bool) -> list[int]:
        with self._lock:
            self._library.encode_special_tokens = not is_marked
            try:
                return self._library.encode(check_unicode(text), add_special_tokens=False).ids
            except BaseException as error:
                raise _explain(error) from None


def _build(content: Mapping[str, Any]) -> "Library":
    """The library's tokenizer for a content that was checked; post-processing, padding and truncation are left out."""
    from tokenizers import AddedToken, Tokenizer, models

    model = content["model"]
    skeleton = {name: content.get(name) for name in ("normalizer", "pre_tokenizer", "decoder")}
    skeleton |= {"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": {}, "merges": []}}
    try:
        library = Tokenizer.from_str(json.dumps(skeleton))
        if isinstance(model["vocab"], dict):
            settings = {name: model.get(name, False) for name in ("fuse_unk", "byte_fallback", "ignore_merges")}
            library.model = models.BPE(model["vocab"], pairs_of(model), unk_token=model.get("unk_token"), **settings)
        else:
            pieces = [(piece, float(score)) for piece, score in model["vocab"]]
            library.model = models.Unigram(pieces, model.get("unk_id"), model.get("byte_fallback", False))
        flags = ("single_word", "lstrip", "rstrip", "normalized", "special")
        library.add_tokens([AddedToken(a["content"], **{flag: a[flag] for flag in flags}) for a in content["added_tokens"]])
    except BaseException as error:
        raise _explain(error) from None
    for added in content["added_tokens"]:
        if library.token_to_id(added["content"]) != added["id"]:
            raise TokenizerError(f"added token {added['content']!r}: found id {added['id']}, expected the next free one")
    return library


def _explain(error: BaseException) -> BaseException:
    """What is to be raised for an exception out of the library: its panics are no Exception, an interrupt is none of its."""
    if isinstance(error, TokenizerError) or not (isinstance(error, Exception) or type(error).__name__ == "PanicException"):
        return error
    return TokenizerError(f"the tokenizers library refuses this vocabulary or text: {error}")
