"""The one exception tree: everything that llamita raises at a user's mistake is a LlamitaError with a one-line message.

The command line prints that line and exits with 1; a traceback only appears with --debug. Bugs of our own stay ordinary
Python exceptions. Imported by everybody, imports nobody.
"""

from os import PathLike, fspath


class LlamitaError(Exception):
    """A mistake in what the user gave us; str(error) is one line: what was found, what was expected, what to do."""


class ModelFileError(LlamitaError):
    """A file that is not what it claims to be.

    path: the file; field: which part of it; found, expected: both values, as text; remedy: what to do, if anything can be done.
    """

    def __init__(self, path: str | PathLike[str], field: str, found: object, expected: object, remedy: str = "") -> None:
        self.path, self.field, self.found, self.expected, self.remedy = fspath(path), field, found, expected, remedy
        line = f"{self.path}: {field}: found {found}, expected {expected}"
        super().__init__(one_line(f"{line}; {remedy}" if remedy else line))


class ModelError(LlamitaError):
    """A model whose parts do not fit each other: config against tensors, tokenizer against vocabulary."""


class TokenizerError(LlamitaError):
    """A text or an id that the tokenizer cannot hold."""


class ChatTemplateError(LlamitaError):
    """A chat template that cannot be used, or messages that it refuses."""


class DataError(LlamitaError):
    """Text that cannot be read, or a folder of token shards that is not what it claims to be."""


class VocabularySizeError(TokenizerError):
    """A vocabulary larger or smaller than the text allows; possible: the nearest size that it does allow."""

    def __init__(self, message: str, possible: int) -> None:
        super().__init__(message)
        self.possible = possible


class SettingError(LlamitaError):
    """A setting outside its range, such as a negative temperature, or a prompt longer than the context."""


class PromptTooLongError(SettingError):
    """A prompt that leaves no room in the context; n_prompt_tokens, context: both numbers."""

    def __init__(self, n_prompt_tokens: int, context: int) -> None:
        self.n_prompt_tokens, self.context = n_prompt_tokens, context
        super().__init__(f"prompt: found {n_prompt_tokens} tokens, expected at most {context}, the context; shorten it")


class QueueFullError(LlamitaError):
    """More work than the server takes on; wait_seconds: when to ask again."""

    def __init__(self, n_waiting: int, wait_seconds: int) -> None:
        self.wait_seconds = wait_seconds
        super().__init__(f"the queue is full: {n_waiting} requests are waiting; try again in {wait_seconds} s")


class StoppedError(LlamitaError):
    """The server is stopping, or has stopped, and takes no more work."""


class TrainingError(LlamitaError):
    """A training run that cannot go on: its loss is no number, or nothing can be saved."""


class DivergedError(TrainingError):
    """A training run whose loss or gradient is no finite number any more."""


def one_line(text: str) -> str:
    """Escape line ends and other control characters, which may come from a hostile file."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
