"""Structured output: answers that satisfy a JSON schema, because no token that would break it can be drawn. By llguidance.

It fails closed: a schema that cannot be held word for word is refused with 400, and an answer is complete or says that it is
not (finish_reason "length", or an error). Knows no model, only its vocabulary.
"""

import json
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from llamita.serve.errors import ApiError, bad_request
from llamita.serve.limits import MAX_SCHEMA_BYTES, MAX_SCHEMA_DEPTH
from llamita.serve.requests import PlainFormat, SchemaFormat
from llamita.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

PARAM = "response_format"
ANY_OBJECT = {"type": "object"}
# One space behind "," and ":" and none elsewhere: small models would put out spaces for ever. These outrank what a schema says
# of itself under x-guidance, such as that keywords may be ignored.
OPTIONS: dict[str, Any] = {
    "item_separator": ", ",
    "key_separator": ": ",
    "whitespace_flexible": False,
    "lenient": False,
    "coerce_one_of": False,
}
_PROBE = "\n"


class StructureError(Exception):
    """A schema turned out too hard to follow in the middle of an answer."""


class Names:
    """Follows JSON and knows when an object's name would be spelled in another way than JSON needs, with \\u or \\/.

    llguidance compares names as they are spelled: behind "a" it would let a second one through as "\\u0061", of any type.
    """

    def __init__(self) -> None:
        self._open: list[int] = []
        self._expects_name = self._in_text = self._in_name = self._escapes = False

    @property
    def escapes(self) -> bool:
        """Whether a backslash in a name was the last."""
        return self._escapes and self._in_name

    def allows(self, text: bytes) -> bool:
        """Whether it can go on so."""
        ahead = Names()
        ahead.__dict__.update(self.__dict__, _open=self._open.copy())
        return ahead.feed(text)

    def feed(self, text: bytes) -> bool:
        """Go on; False for a name with such a spelling."""
        for byte in text:
            if self._in_text:
                if self.escapes and byte in b"u/":
                    return False
                if byte == ord('"') and not self._escapes:
                    self._in_text = False
                self._escapes = byte == ord("\\") and not self._escapes
            elif byte == ord('"'):
                self._in_text, self._in_name = True, self._expects_name
            elif byte in b"{[":
                self._open.append(byte)
                self._expects_name = byte == ord("{")
            elif byte in b"}]":
                self._open.pop()
                self._expects_name = False
            elif byte == ord(","):
                self._expects_name = self._open[-1] == ord("{")
            elif byte == ord(":"):
                self._expects_name = False
        return True


class Spellings:
    """The tokens of a vocabulary that could spell a name in another way: some within, some behind a backslash."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self.pieces = pieces
        self.within = [i for i, piece in enumerate(pieces) if b"\\u" in piece or b"\\/" in piece]
        behind = np.zeros(-(-len(pieces) // 32) * 32, bool)
        behind[: len(pieces)] = [piece[:1] in (b"u", b"/") for piece in pieces]
        self.behind = np.packbits(behind, bitorder="little").view(np.uint32)

    def without(self, bits: np.ndarray, names: Names) -> np.ndarray:
        """The tokens of a mask behind which `names` can go on."""
        bits = bits & ~self.behind if names.escapes else bits.copy()
        for i in self.within:
            if bits[i // 32] >> (i % 32) & 1 and not names.allows(self.pieces[i]):
                bits[i // 32] &= ~np.uint32(1 << i % 32)
        return bits


class Grammar:
    """Which tokens may come next, for one answer: a TokenConstraint. error: why it gave up, "" while it has not."""

    def __init__(self, matcher: "LLMatcher", spellings: Spellings) -> None:
        self._matcher, self._spellings, self._names = matcher, spellings, Names()
        self.error = ""

    @property
    def is_finished(self) -> bool:
        """Whether nothing may follow."""
        return self._matcher.is_stopped()

    def mask(self) -> np.ndarray:
        """The tokens that may come next, as bits; see TokenConstraint."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint32)[: len(self._spellings.behind)]
        self._check()
        bits = self._spellings.without(bits, self._names)
        if not bits.any():
            self._give_up("a name needs a spelling that the schema cannot see")
        return bits

    def accept(self, token_id: int) -> None:
        """Go on behind a token."""
        self._matcher.consume_token(token_id)
        self._check()
        self._names.feed(self._spellings.pieces[token_id])

    def _check(self) -> None:
        if self._matcher.is_error():
            self._give_up(reason_of(self._matcher.get_error()))

    def _give_up(self, reason: str) -> None:
        self.error = reason
        raise StructureError(reason)


class Structures:
    """Makes grammars for one vocabulary. stop_ids: tokens by which an answer may end where the schema allows it."""

    def __init__(self, tokenizer: Tokenizer, stop_ids: frozenset[int]) -> None:
        self._tokenizer, self._stop_ids = tokenizer, stop_ids

    def maker(self, wish: PlainFormat | SchemaFormat) -> Callable[[], Grammar]:
        """A function that makes a grammar for each answer; raises ApiError 400 for a schema that cannot be held."""
        try:
            from llguidance import LLMatcher, LLParserLimits
        except ModuleNotFoundError:
            raise bad_request(f"{PARAM}: needs llguidance on the server: pip install llguidance.", PARAM) from None
        schema = schema_of(wish)
        if too_few_names(json.loads(schema)):
            raise _unsupported("minProperties is more than the names that are required, and others could be the same one twice")
        try:
            grammar = LLMatcher.grammar_from_json_schema(schema, overrides=OPTIONS)  # pyright: ignore[reportArgumentType]
        except ValueError as error:  # of numbers too large for it
            raise _unsupported(reason_of(str(error))) from None
        limits = LLParserLimits(max_lexer_states=50_000, verbose_errors=False)
        is_error, messages = LLMatcher.validate_grammar_with_warnings(grammar, self._vocabulary, limits=limits)
        if is_error or messages:
            raise _unsupported(reason_of(messages[0]) if messages else "it cannot be followed")
        first = LLMatcher(self._vocabulary, grammar, log_level=0, limits=limits)
        if first.is_error():
            raise bad_request(f"{PARAM}: the schema is too large to be held.", PARAM, "unsupported_schema")
        return lambda: Grammar(first.deep_copy(), self._spellings)

    @cached_property
    def _pieces(self) -> "_Pieces":
        return _Pieces(self._tokenizer)

    @cached_property
    def _spellings(self) -> Spellings:
        return Spellings(self._pieces.tokens)

    @cached_property
    def _vocabulary(self) -> "LLTokenizer":
        from llguidance import LLTokenizer, TokenizerWrapper

        return LLTokenizer(TokenizerWrapper(self._pieces), eos_token=sorted(self._stop_ids) or None)


def schema_of(wish: PlainFormat | SchemaFormat) -> str:
    """The schema that a request names, as text; raises ApiError 400 for one that is too large or too deep."""
    if not isinstance(wish, SchemaFormat):
        return json.dumps(ANY_OBJECT)
    schema = wish.json_schema.schema_
    if depth_of(schema) > MAX_SCHEMA_DEPTH:
        raise bad_request(f"{PARAM}: the schema is nested deeper than {MAX_SCHEMA_DEPTH} levels.", PARAM)
    try:
        text = json.dumps(schema, allow_nan=False)
    except ValueError:
        raise _unsupported("found a number that is too large") from None
    if len(text) > MAX_SCHEMA_BYTES:
        raise bad_request(f"{PARAM}: the schema is longer than {MAX_SCHEMA_BYTES} bytes.", PARAM)
    return text


def reason_of(message: str) -> str:
    """A message of llguidance in one line: its first, and where that tells of a bad pattern, what is wrong with it."""
    first, *others = message.strip().splitlines() or ["it cannot be followed"]
    wrong = [line.removeprefix("error: ") for line in others if line.startswith("error: ")]
    return " ".join([first.strip(), *wrong[:1]])


def _unsupported(reason: str) -> ApiError:
    return bad_request(f"{PARAM}: the schema cannot be held: {reason}.", PARAM, "unsupported_schema")


def too_few_names(schema: object) -> bool:
    """Whether some minProperties asks for more names than are required: another may come twice, which counts once."""
    if isinstance(schema, list):
        return any(map(too_few_names, schema))
    if not isinstance(schema, dict):
        return False
    least, required = schema.get("minProperties"), schema.get("required")
    n_required = len(set(map(str, required))) if isinstance(required, list) else 0
    if isinstance(least, int | float) and least > max(n_required, 1):
        return True
    return any(map(too_few_names, schema.values()))


def depth_of(value: object) -> int:
    """How deep lists and objects stand in each other; JSON parsers see to it that this ends."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(depth_of, inner)) if inner else 0


class _Pieces:
    """A vocabulary as llguidance's TokenizerWrapper asks for it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        special_tokens = tokenizer.special_tokens
        self.bos_token_id = tokenizer.bos_id if tokenizer.bos_id >= 0 else None
        self.eos_token_id = tokenizer.eos_id if tokenizer.eos_id >= 0 else None
        self.special_token_ids = sorted(special_tokens.values())
        names = {token_id: text.encode() for text, token_id in special_tokens.items()}
        self.tokens = [names.get(i) or tokenizer.piece_bytes(i) for i in range(tokenizer.vocab_size)]

    def __call__(self, text: str) -> list[int]:
        """The ids of a text in the middle of another: without the space that some tokenizers put before each."""
        before = self._tokenizer.encode(_PROBE)
        ids = self._tokenizer.encode(_PROBE + text)
        return ids[len(before) :] if ids[: len(before)] == before else []
