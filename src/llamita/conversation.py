"""Conversation: a talk with a model, message after message. What `llamita chat` is built on.

It keeps the messages and the engine's sequence that has read them, so that a turn costs its own tokens only. It knows neither
terminal nor files; how messages are written down is the chat template's.
"""

import time
from collections.abc import Collection, Generator, Iterator, Sequence
from dataclasses import dataclass

from llamita.engine import Sampling
from llamita.errors import PromptTooLongError, SettingError
from llamita.language_model import LanguageModel, Telling
from llamita.tokenizer.chat_template import open_template
from llamita.tokenizer.same_beginning import same_beginning

Message = dict[str, str]  # {"role": "user", "content": "Hello"}
Talk = Generator[str, None, None]
AT_LIMIT = ("stop", "drop")
_FREE_SHARE = 4  # where turns are dropped, one in so many tokens of the context is free afterwards


@dataclass
class Turn:
    """What the last answer took. ended_by: stop (the model, or a stop text), tokens, context, or "": it was broken off."""

    n_reused: int = 0  # tokens that had been read before
    n_read: int = 0
    n_written: int = 0
    n_dropped: int = 0  # messages
    seconds_to_first: float = 0.0
    seconds_after: float = 0.0
    ended_by: str = ""

    @property
    def tokens_per_second(self) -> float:
        """How fast it was written, counted as `llamita run` does; 0 where there is nothing to count."""
        return (self.n_written - 1) / self.seconds_after if self.seconds_after else 0.0


class Conversation:
    """A talk. system: what the model is told first. messages: what was said since, as {"role", "content"}.

    template: see open_template; "" takes the model's own, or "story" where it has none: then each text goes on with the story.
    n_tokens: of an answer at most; 0: all that fit. at_limit: what happens where the context is full: "stop" ends the answer
    and refuses further questions, "drop" forgets the oldest turns. Takes a slot of the model's engine until it is closed.
    """

    def __init__(
        self, model: LanguageModel, sampling: Sampling, template: str = "", system: str = "", n_tokens: int = 0,
        stop: Collection[str] = (), at_limit: str = "stop",
    ) -> None:  # fmt: skip
        if at_limit not in AT_LIMIT:
            raise SettingError(f"at_limit: found {at_limit!r}, expected {' or '.join(AT_LIMIT)}")
        tokenizer = model.tokenizer
        self.template = open_template(template or model.chat_template or "story", tokenizer)
        self.system, self.messages = system, list[Message]()
        self.n_tokens, self.at_limit, self.last = n_tokens, at_limit, Turn()
        self.context, self._chunk_tokens = model.engine.context, model.engine.max_rows
        self._tokenizer = tokenizer
        self._stop_ids = {tokenizer.bos_id, tokenizer.eos_id, *model.stop_ids, *self.template.stop_ids} - {-1}
        self._stop = (*stop, *self.template.stop_texts)
        self._sequence = model.engine.sequence(sampling)

    @property
    def is_story(self) -> bool:
        """Whether there is nobody to talk to: texts go on with a story."""
        return self.template.name == "story"

    @property
    def sampling(self) -> Sampling:
        """How answers are drawn; setting it keeps what was read."""
        return self._sequence.sampling

    @sampling.setter
    def sampling(self, sampling: Sampling) -> None:
        self._sequence.reuse(sampling.validate(), self._sequence.n_read)

    def all_messages(self) -> list[Message]:
        """The messages, with the system's before them where there is one."""
        return self._with_system(self.messages)

    def count_tokens(self) -> int:
        """How many tokens the messages take."""
        return len(self.template.encode(self.all_messages(), False)) if self.all_messages() else 0

    def ask(self, text: str) -> Talk:
        """Yield the answer to a message, piece by piece, "" where one is not yet certain. Closing it breaks the answer off.

        Raises PromptTooLongError where the message does not fit, ChatTemplateError where the template refuses it; the message
        is not kept then.
        """
        self.messages.append({"role": "user", "content": text})
        try:
            ids = self._fit([])
        except BaseException:
            self.messages.pop()
            raise
        return self._answer(ids)

    def retry(self) -> Talk:
        """Yield another answer to the last question. Raises SettingError where there is none."""
        kept = self.messages
        self.messages = self.messages[: _last_question(self.messages) + 1]
        try:
            return self._answer(self._fit([]))
        except BaseException:
            self.messages = kept
            raise

    def last_question(self) -> str:
        """What was asked last. Raises SettingError where nothing was."""
        return self.messages[_last_question(self.messages)]["content"]

    def count_alone(self, text: str) -> int:
        """How many tokens a message takes with nothing but the system's before it."""
        return len(self.template.encode(self._with_system([{"role": "user", "content": text}])))

    def undo(self) -> str:
        """Take the last question and its answer back, and return the question. Raises SettingError where there is none."""
        index = _last_question(self.messages)
        question = self.messages[index]["content"]
        del self.messages[index:]
        return question

    def begin(self, messages: Sequence[Message] = ()) -> None:
        """Forget what was said, and go on from other messages, the first of which may be the system's.

        Raises ChatTemplateError where the template refuses them; then nothing is forgotten.
        """
        if messages:
            self.template.encode(messages)
        if messages and messages[0]["role"] == "system":
            self.system, messages = messages[0]["content"], messages[1:]
        self.messages = [dict(message) for message in messages]

    def close(self) -> None:
        """Give the engine's slot back."""
        self._sequence.close()

    def _with_system(self, messages: list[Message]) -> list[Message]:
        return [{"role": "system", "content": self.system}, *messages] if self.system else messages

    def _fit(self, written: list[int]) -> list[int]:
        """The ids of the messages, with room behind them and what was written of the answer; may drop the oldest turns.

        Raises PromptTooLongError where there is no such room.
        """
        n_dropped, room = 0, 1
        while True:
            ids = self.template.encode(self._with_system(self.messages[n_dropped:]))
            if not ids:
                raise SettingError("found an empty text, expected how the story begins: no token of this model begins one")
            n_held, n_same = same_beginning(self._tokenizer, self._sequence.ids, ids)
            n_ids = n_held + len(ids) - n_same + len(written)
            if n_ids + room - 1 <= self.context:
                break
            following = _next_question(self.messages, n_dropped) if self.at_limit == "drop" else None
            if following is None and n_ids <= self.context and n_dropped:
                break  # less is free than wished
            if following is None:
                raise PromptTooLongError(n_ids, self.context)
            n_dropped, room = following, max(self.context // _FREE_SHARE, 1)
        self.last = self.last if written else Turn()
        self.last.n_dropped += n_dropped
        del self.messages[:n_dropped]
        return ids

    def _answer(self, ids: list[int]) -> Talk:
        telling = Telling(self._tokenizer, ids, self._stop, self._stop_ids)
        try:
            yield from self._tell(ids, telling)
        finally:
            self.messages.append({"role": "assistant", "content": telling.text})

    def _tell(self, ids: list[int], telling: Telling) -> Iterator[str]:
        """Yield an answer as it becomes certain. Where the context is full, turns may be dropped and the answer goes on."""
        turn, written, started = self.last, list[int](), time.perf_counter()
        n_most = self.n_tokens or self.context + 1
        while not turn.ended_by:
            yield from self._read(ids + written)
            n_next = min(n_most - len(written), self.context - self._sequence.position + 1)
            for token_id in self._sequence.stream(n_next, self._stop_ids):
                now = time.perf_counter()
                written.append(token_id)
                turn.n_written = len(written)
                turn.seconds_to_first = turn.seconds_to_first or now - started
                turn.seconds_after = now - started - turn.seconds_to_first
                piece = telling.take(token_id)
                if telling.ended:
                    turn.ended_by = "stop"
                yield piece
                if telling.ended:
                    break
            if not turn.ended_by and len(written) >= n_most:
                turn.ended_by = "tokens"
            elif not turn.ended_by:
                try:
                    ids = self._fit(written)
                except PromptTooLongError:
                    turn.ended_by = "context"
        if rest := telling.finish():
            yield rest

    def _read(self, ids: list[int]) -> Iterator[str]:
        """Let the engine read ids, but for what it has read of them; yield "" now and then."""
        sequence = self._sequence
        n_held, n_same = same_beginning(self._tokenizer, sequence.ids, ids)
        sequence.rewind(n_held)
        new = ids[n_same:]
        self.last.n_reused = sequence.n_read
        self.last.n_read += n_held + len(new) - sequence.n_read
        for first in range(0, len(new), self._chunk_tokens):  # whoever listens may stop in between
            sequence.append(new[first : first + self._chunk_tokens])
            sequence.read()
            yield ""


def _last_question(messages: Sequence[Message]) -> int:
    for index in range(len(messages) - 1, -1, -1):
        if messages[index]["role"] == "user":
            return index
    raise SettingError("found no message of yours in this talk, expected one")


def _next_question(messages: Sequence[Message], index: int) -> int | None:
    """The index of the user's first message behind an index, or None."""
    return next((i for i in range(index + 1, len(messages)) if messages[i]["role"] == "user"), None)
