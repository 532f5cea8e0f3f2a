"""Structured output: answers that satisfy a JSON schema, because no token that would break it can be drawn. By llguidance.

It fails closed: a schema that cannot be held word for word is refused with 400, and an answer is complete or says that it is
not (finish_reason "length", or an error). Knows no model, only its vocabulary.
"""

import json
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from llamita.serve.errors import bad_request
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


class Grammar:
    """Which tokens may come next, for one answer: a TokenConstraint. error: why it gave up, "" while it has not."""

    def __init__(self, matcher: "LLMatcher", vocab_size: int) -> None:
        self._matcher, self._n_words = matcher, -(-vocab_size // 32)
        self.error = ""

    @property
    def is_finished(self) -> bool:
        """Whether nothing may follow."""
        return self._matcher.is_stopped()

    def mask(self) -> np.ndarray:
        """The tokens that may come next, as bits; see TokenConstraint."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint32)[: self._n_words]
        self._check()
        return bits

    def accept(self, token_id: int) -> None:
        """Go on behind a token."""
        self._matcher.consume_token(token_id)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            self.error = self._matcher.get_error().partition("\n")[0]
            raise StructureError(self.error)


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
        grammar = LLMatcher.grammar_from_json_schema(schema, overrides=OPTIONS)  # pyright: ignore[reportArgumentType]
        limits = LLParserLimits(max_lexer_states=50_000, verbose_errors=False)
        is_error, messages = LLMatcher.validate_grammar_with_warnings(grammar, self._vocabulary, limits=limits)
        if is_error or messages:
            reason = messages[0].partition("\n")[0] if messages else "it cannot be followed"
            raise bad_request(f"{PARAM}: the schema cannot be held: {reason}.", PARAM, "unsupported_schema")
        first = LLMatcher(self._vocabulary, grammar, log_level=0, limits=limits)
        if first.is_error():
            raise bad_request(f"{PARAM}: the schema is too large to be held.", PARAM, "unsupported_schema")
        return lambda: Grammar(first.deep_copy(), self._tokenizer.vocab_size)

    @cached_property
    def _vocabulary(self) -> "LLTokenizer":
        from llguidance import LLTokenizer, TokenizerWrapper

        return LLTokenizer(TokenizerWrapper(_Pieces(self._tokenizer)), eos_token=sorted(self._stop_ids) or None)


def schema_of(wish: PlainFormat | SchemaFormat) -> str:
    """The schema that a request names, as text; raises ApiError 400 for one that is too large or too deep."""
    if not isinstance(wish, SchemaFormat):
        return json.dumps(ANY_OBJECT)
    schema = wish.json_schema.schema_
    if depth_of(schema) > MAX_SCHEMA_DEPTH:
        raise bad_request(f"{PARAM}: the schema is nested deeper than {MAX_SCHEMA_DEPTH} levels.", PARAM)
    text = json.dumps(schema)
    if len(text) > MAX_SCHEMA_BYTES:
        raise bad_request(f"{PARAM}: the schema is longer than {MAX_SCHEMA_BYTES} bytes.", PARAM)
    return text


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
