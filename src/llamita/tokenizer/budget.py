"""Budget: how much time and room the rendering of a chat template may take, and the checks before something grows.

Templates are code of strangers; sandbox.py runs them and asks here at each step. Bounds grow with what a template is given, so
that long conversations pass. Knows no template.
"""

import re
import time
from collections.abc import Iterable
from itertools import islice
from typing import Any

from jinja2 import TemplateError

CHARACTERS, ITEMS, SECONDS = 1 << 19, 10_000, 0.05  # that any template may use
CHARACTERS_PER_INPUT, ITEMS_PER_INPUT, SECONDS_PER_INPUT = 8, 2, 1e-6  # what each character and value given to it adds to that
LONGEST_NUMBER_BITS = 1024
REMADE = 16  # texts that are made on the way may be so many times as long together as the longest one
WIDEST = 100  # characters of an indentation or a date, digits to round to
_STEPS_PER_LOOK = 16  # the clock is asked only so often
_WIDE_FORMAT = re.compile(r"\d{3}|\*|\{[^{}]*\{")  # a width that is large, or comes from elsewhere


class Budget:
    """What one rendering may take, by the number of characters and values that it was given.

    Each method raises TemplateError for more. Time is that of this thread on a processor: a busy machine is nobody's fault.
    """

    def __init__(self, n_given: int) -> None:
        self.n_characters = CHARACTERS + CHARACTERS_PER_INPUT * n_given
        self.n_items = ITEMS + ITEMS_PER_INPUT * n_given
        self.seconds = SECONDS + SECONDS_PER_INPUT * n_given
        self._until = time.thread_time() + self.seconds
        self._n_emitted = self._n_made = self._n_steps = 0

    def step(self) -> None:
        """Count something that takes a little time."""
        self._n_steps += 1
        if not self._n_steps % _STEPS_PER_LOOK and time.thread_time() > self._until:
            raise TemplateError(f"found no end after {self.seconds:.2g} s of work")

    def emit(self, text: str) -> str:
        """Count a text that is put out, be it only into a variable, and return it."""
        self.step()
        self._n_emitted += len(text)
        self.check_length(self._n_emitted)
        return text

    def check_length(self, n_characters: int) -> None:
        """Look at the length of a text in the making."""
        if n_characters > self.n_characters:
            raise TemplateError(f"found text beyond {self.n_characters:,} characters")

    def check_items(self, n_items: int) -> None:
        """Look at the number of values in a list in the making."""
        if n_items > self.n_items:
            raise TemplateError(f"found a list beyond {self.n_items:,} values")

    def weigh(self, value: Any) -> Any:
        """Return what a template made, a text, a number, or a list or mapping of such, where it is not too large."""
        if isinstance(value, str):
            self._n_made += len(value)
            self.check_length(max(len(value), self._n_made // REMADE))
        elif isinstance(value, list | tuple | dict):
            self._weigh_all(value)
        elif isinstance(value, int) and value.bit_length() > LONGEST_NUMBER_BITS:
            raise TemplateError(f"found a number beyond {LONGEST_NUMBER_BITS} bits")
        return value

    def _weigh_all(self, value: Any) -> None:
        """Weigh a value with all that is in it; what is in it twice counts twice, as it would when it is written out."""
        n_items = n_characters = 0
        left = [value]
        while left:
            value = left.pop()
            n_items += 1
            if isinstance(value, str):
                n_characters += len(value)
                self.check_length(n_characters)
            elif isinstance(value, list | tuple):
                left += value
            elif isinstance(value, dict):
                left += value.keys()
                left += value.values()
            self.check_items(n_items + len(left))

    def take(self, values: Iterable[Any]) -> list[Any]:
        """All the values as a list."""
        return self.weigh(list(islice(values, self.n_items + 1)))

    def join(self, separator: str, values: Iterable[Any]) -> str:
        """Join the values as texts."""
        texts = [str(value) for value in self.take(values)]
        self.check_length(sum(map(len, texts)) + len(separator) * len(texts))
        return separator.join(texts)

    def replace(self, text: str, old: str, new: str, count: int | None = None) -> str:
        """Replace a part of a text as str.replace does."""
        self.check_length(len(text) + text.count(old) * len(new))
        return text.replace(old, new, -1 if count is None else count)

    def check_product(self, factor: Any, times: Any) -> None:
        """Look at a text or a list that is to be repeated."""
        if isinstance(factor, str) and isinstance(times, int):
            self.check_length(len(factor) * times)
        elif isinstance(factor, list | tuple) and isinstance(times, int):
            self.check_items(len(factor) * times)

    def check_power(self, left: Any, right: Any) -> None:
        """Look at a power that is to be calculated."""
        if isinstance(left, int) and isinstance(right, int) and max(left.bit_length(), 1) * right > LONGEST_NUMBER_BITS:
            raise TemplateError(f"found a power beyond {LONGEST_NUMBER_BITS} bits")

    def check_format(self, pattern: str, values: Any, mark: str) -> None:
        """Look at a pattern into which values are to be put, each at a mark."""
        if _WIDE_FORMAT.search(pattern):
            raise TemplateError(f"found a wide format {pattern[:WIDEST]!r}")
        self.check_length(len(pattern) + pattern.count(mark) * (len(str(self.weigh(values))) + WIDEST))

    def check_width(self, width: Any) -> int:
        """Return the width of an indentation, which may be a text, or the number of digits to round to."""
        width = len(width) if isinstance(width, str) else int(width or 0)
        if abs(width) > WIDEST:
            raise TemplateError(f"found a width of {width}, expected at most {WIDEST}")
        return width
