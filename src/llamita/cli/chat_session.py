"""Session: a conversation at a terminal or between pipes. Reads messages and commands, prints answers as they come.

Answers go to stdout; whatever else there is to say goes to stderr. At a terminal a mistake is one line and the talk goes on; in
a pipe it ends the run, as nobody is there to mend it.
"""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import fields, replace
from typing import Any

import click

from llamita.cli.chat_input import is_terminal, prepare_input, read_message
from llamita.cli.sampling_options import xorshift_state
from llamita.conversation import Conversation, Talk
from llamita.engine import Sampling
from llamita.errors import LlamitaError, PromptTooLongError, SettingError
from llamita.transcript import read_transcript, write_transcript

HELP = """\
/help            this list
/system [TEXT]   show or set what the model is told first; "" takes it away
/retry           another answer to the last message
/undo            take back the last message and its answer
/reset           forget the talk, but not what the model is told first
/save FILE       write the talk as JSON with OpenAI's messages
/load FILE       go on from such a file
/params [N=V]    show or set how answers are drawn, such as temperature=0.5 top_k=40 tokens=200
/tokens          how full the context is
/quit            end; so does Ctrl-D
A line that ends in \\ goes on in the next one, and lines between two of \"\"\" are one message.
A space in front of / makes it text. Ctrl-C stops an answer."""
ENDS = ("quit", "exit")
TAKE_TEXT = ("system", "save", "load", "params")  # commands with something behind them


class Interrupts:
    """Ctrl-C at a terminal: while something is done it is noted, and so stops an answer but never the talk, whenever it comes.

    A second one before the next message interrupts whatever is done, in case that hangs.
    """

    def __init__(self) -> None:
        self.is_pressed = False
        self._is_raised = False

    @contextmanager
    def heeded(self) -> Iterator[None]:
        """Take the presses of somebody who types, where the system lets us: only a main thread may ask for them."""
        if not is_terminal() or threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGINT, self._note)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """While somebody types, each press is a KeyboardInterrupt; what was pressed before is forgotten."""
        self.is_pressed, self._is_raised = False, True
        try:
            yield
        finally:
            self._is_raised = False

    def _note(self, _: int, __: object) -> None:
        if self._is_raised or self.is_pressed:
            raise KeyboardInterrupt
        self.is_pressed = True


class Session:
    """A talk until its end. name: of the model, for what is saved."""

    def __init__(self, conversation: Conversation, name: str) -> None:
        self._conversation, self._name, self._interrupts = conversation, name, Interrupts()
        self._commands: dict[str, Callable[[str], None]] = {
            "help": lambda _: self._say(HELP),
            "system": self._system,
            "retry": lambda _: self._answer(conversation.retry, "the last"),
            "undo": lambda _: self._say(f"took back: {conversation.undo()}"),
            "reset": self._reset,
            "save": self._save,
            "load": self._load,
            "params": self._params,
            "tokens": lambda _: self._tokens(),
        }

    def run(self, first: str | None = None) -> None:
        """Talk until the input ends, beginning with a message that is given."""
        prepare_input()
        with self._interrupts.heeded():
            message = first if first is not None else self._next()
            while message is not None:
                try:
                    if not self._heed(message):
                        return
                except LlamitaError as mistake:
                    if not is_terminal():
                        raise
                    self._say(f"llamita: {mistake}")
                message = self._next()
            if is_terminal():
                self._say("")

    def _next(self) -> str | None:
        """The next message, or None at the end; Ctrl-C at the prompt ends only the line."""
        while True:
            try:
                with self._interrupts.at_once():
                    return read_message()
            except KeyboardInterrupt:
                if not is_terminal():
                    raise
                self._say("\nCtrl-D or /quit ends the talk")

    def _heed(self, message: str) -> bool:
        """Do what a line says; whether the talk goes on. White space of any kind ends a command, as pasting may add some."""
        word, *rest = message.split(None, 1) if message.startswith("/") else [""]
        name, text = word.removeprefix("/"), "".join(rest).strip()
        if not name.isalpha():
            self._ask(message)
            return True
        if name not in (*self._commands, *ENDS):
            raise SettingError(f"found no command {word}, expected one of /help, or a space in front of a message")
        if text and name not in TAKE_TEXT:
            raise SettingError(f"{word}: found {text[:40]!r} behind it, expected nothing, or a space in front of a message")
        if name in ENDS:
            return False
        self._commands[name](text)
        return True

    def _ask(self, message: str) -> None:
        """Let the model answer; an empty line goes on with a story, if somebody typed it, and is nothing to a chat model."""
        if message.strip() or (self._conversation.is_story and is_terminal()):
            text = message.removeprefix(" ") if message[:2] == " /" else message
            self._answer(lambda: self._conversation.ask(text), "this", text)

    def _answer(self, begin: Callable[[], Talk], which: str, text: str = "") -> None:
        """Show the answer to a message, this or the last; raises SettingError with what makes room where it does not fit."""
        try:
            talk = begin()
        except PromptTooLongError as error:
            conversation = self._conversation
            n_alone = conversation.count_alone(text or conversation.last_question())
            if n_alone > error.context or conversation.at_limit == "drop":
                taken = "with the system message" if conversation.system else "by itself"
                found, remedy = f"{which} message is too long: {taken} it takes {n_alone:,}", "shorten it"
            else:
                found = f"the context is full: with {which} message the talk has {error.n_prompt_tokens:,}"
                remedy = "/reset or /undo makes room, --at-limit drop forgets the oldest turns instead"
            raise SettingError(f"{found} tokens, there is room for {error.context:,}; {remedy}") from None
        self._show(talk)

    def _show(self, talk: Talk) -> None:
        """Print an answer while it is made, then how it went."""
        with closing(talk):
            for piece in talk:
                sys.stdout.write(piece)
                sys.stdout.flush()
                if self._interrupts.is_pressed:
                    break
        click.echo()
        self._report()

    def _report(self) -> None:
        last, context = self._conversation.last, self._conversation.context
        if last.n_dropped:
            self._say(f"llamita: the context of {context:,} tokens was full: forgot the oldest {last.n_dropped} messages")
        reasons = {
            "": "stopped",
            "context": f"the context of {context:,} tokens is full: the answer ends here; /reset or /undo makes room",
        }
        if last.ended_by in reasons:
            self._say(f"llamita: {reasons[last.ended_by]}")
        elif self._conversation.is_story and last.ended_by == "stop":
            self._say("llamita: the story has come to its end; /reset begins another")
        if last.tokens_per_second:
            speed = f"achieved tok/s: {last.tokens_per_second:f}"
            self._say(f"{speed} ({last.n_reused} tokens known, {last.n_read} read, {last.n_written} written)")

    def _say(self, line: str) -> None:
        click.echo(line, err=True)

    # ---- commands ---------------------------------------------------------------------------------------------------

    def _system(self, text: str) -> None:
        if text:
            self._conversation.system = "" if text == '""' else text
        self._say(f"system: {self._conversation.system or 'nothing'}")

    def _reset(self, _: str) -> None:
        self._conversation.begin()
        self._say("a new talk")

    def _save(self, path: str) -> None:
        write_transcript(_named(path), self._conversation.all_messages(), self._name)
        self._say(f"saved {len(self._conversation.messages)} messages to {path}")

    def _load(self, path: str) -> None:
        self._conversation.begin(read_transcript(_named(path)))
        self._say(f"loaded {len(self._conversation.messages)} messages from {path}")
        self._tokens()

    def _tokens(self) -> None:
        used, context = self._conversation.count_tokens(), self._conversation.context
        self._say(f"{used:,} of {context:,} tokens are used, {max(context - used, 0):,} are free")

    def _params(self, text: str) -> None:
        """Set numbers as NAME=VALUE, then show all."""
        conversation, sampling = self._conversation, self._conversation.sampling
        numbers = {field.name: getattr(sampling, field.name) for field in fields(sampling) if field.name != "logit_bias"}
        numbers["tokens"] = conversation.n_tokens
        changes = {}
        for part in text.split():
            name, _, value = part.partition("=")
            if name not in numbers:
                raise SettingError(f"/params: found {name!r}, expected one of {', '.join(numbers)}")
            try:
                changes[name] = type(numbers[name])(value)
            except ValueError:
                raise SettingError(f"/params: {name}: found {value!r}, expected a number, as in {name}=1") from None
        if changes:
            self._set(sampling, changes)
            numbers |= changes
        self._say(" ".join(f"{name}={value}" for name, value in numbers.items()))

    def _set(self, sampling: Sampling, changes: dict[str, Any]) -> None:
        if "seed" in changes:
            changes["seed"] = xorshift_state(changes["seed"])
        if (n_tokens := changes.get("tokens", self._conversation.n_tokens)) < 0:
            raise SettingError(f"tokens: found {n_tokens}, expected 0 or more")
        of_sampling = {name: value for name, value in changes.items() if name != "tokens"}
        self._conversation.sampling = replace(sampling, **of_sampling)
        self._conversation.n_tokens = n_tokens


def _named(path: str) -> str:
    if not path:
        raise SettingError("found no name of a file, expected one, as in /save talk.json")
    return path
