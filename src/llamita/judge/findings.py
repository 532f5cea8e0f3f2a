"""Findings: what a probe says about memorization, as judgements that follow from its numbers and as a paragraph to read.

A Probe in, words and JSON out. The rules are here, once: how many samples must copy more than any held-out text, and how much
better the training text must be foretold.
"""

import math
from dataclasses import asdict
from statistics import median
from typing import Any

from llamita.judge.copies import Copy
from llamita.judge.probing import Probe

SELDOM = 0.01  # chance below which samples that copy more are no accident
LONG_TOKENS, TIMES_LONGER = 32, 2  # a single copy so long, and so much longer than any of held-out text, is none either
LARGE_GAP = 0.05  # of the loss on held-out text
LONGEST_QUOTE = 240


def n_beyond(found: Probe) -> int:
    """How many samples copy a longer run than every held-out text does."""
    most = longest(found.held_out)
    return sum(copy.n_tokens > most for copy in found.samples)


def chance_of_beyond(found: Probe) -> float:
    """How likely so many samples, or more, are beyond all held-out texts where they are texts of the same kind.

    The longest k of n + m texts in a random order are all samples: a test of exceedances (Rosenbaum, 1954).
    """
    n, m, k = len(found.samples), len(found.held_out), n_beyond(found)
    return math.prod((n - i) / (n + m - i) for i in range(k))


def copies_text(found: Probe) -> bool:
    """Whether samples hold more of the training text, word for word, than texts of its kind share anyway."""
    alone = longest(found.samples)
    is_long = alone >= LONG_TOKENS and alone >= TIMES_LONGER * longest(found.held_out)
    return is_long or chance_of_beyond(found) < SELDOM


def foretells_too_well(found: Probe) -> bool:
    """Whether the training text is foretold better than the held-out text, by more than noise and by more than a little."""
    losses = found.losses
    return losses.interval is not None and losses.interval.low > 0 and losses.gap > LARGE_GAP * losses.held_out


def longest(copies: list[Copy]) -> int:
    """Tokens of the longest of some copies."""
    return max(copy.n_tokens for copy in copies)


def to_dict(found: Probe) -> dict[str, Any]:
    """All numbers and judgements by name, for JSON."""
    sides = {"samples": found.samples, "held_out": found.held_out}
    lengths = {name: [copy.n_tokens for copy in copies] for name, copies in sides.items()}
    return {
        "copies": copies_text(found),
        "foretells_too_well": foretells_too_well(found),
        "paragraph": paragraph(found),
        "options": asdict(found.options),
        "n_train_tokens": found.n_train_tokens,
        **{name: {"longest": max(each), "median": median(each), "all": each} for name, each in lengths.items()},
        "n_beyond_held_out": n_beyond(found),
        "chance_of_beyond": chance_of_beyond(found),
        "longest_text": found.longest_text,
        "loss": asdict(found.losses) | {"gap": found.losses.gap},
    }


def paragraph(found: Probe) -> str:
    """What was found and what it means, for a reader who knows no statistics."""
    return f"{_of_copies(found)}\n\n{_of_losses(found)}"


def _of_copies(found: Probe) -> str:
    options, samples, held_out = found.options, found.samples, found.held_out
    middle, middle_held_out = (median(copy.n_tokens for copy in copies) for copies in (samples, held_out))
    told = (
        f"Of {len(samples):,} samples of up to {options.n_tokens} tokens (temperature {options.temperature:g}, seeds from "
        f"{options.seed}), the longest stretch that stands word for word in the {found.n_train_tokens:,} tokens of training "
        f"text has {longest(samples)} tokens; half of the samples have none longer than {middle:g}. Texts of one kind share "
        f"such stretches anyway: {len(held_out):,} held-out documents, cut to the same length, up to {longest(held_out)} "
        f"tokens, half of them none longer than {middle_held_out:g}."
    )
    n, chance = n_beyond(found), chance_of_beyond(found)
    which = "1 sample copies" if n == 1 else f"{n} samples copy"
    if copies_text(found):
        verdict = f"{which} more than any held-out document: the model tells training text by heart."
    elif n == 0:
        verdict = "No sample copies more than that: nothing suggests that the model tells training text by heart."
    else:
        verdict = (
            f"{which} more than that, as chance alone would have it in {max(round(100 * chance), 1)} of 100 such tests: "
            "nothing suggests that the model tells training text by heart."
        )
    return f"{told} {verdict} The longest stretch of a sample: {_quoted(found.longest_text)}"


def _of_losses(found: Probe) -> str:
    losses = found.losses
    told = (
        f"In windows of {losses.n_tokens} tokens its loss is {losses.train:.3f} nats a token on training text and "
        f"{losses.held_out:.3f} on held-out text"
    )
    if losses.interval is None:
        return f"{told}, on too little text to say whether the difference is more than noise."
    told += f", {abs(losses.gap):.3f} {'less' if losses.gap > 0 else 'more'} (95 % interval of the difference "
    told += f"{losses.interval.low:+.3f} to {losses.interval.high:+.3f})"
    if losses.interval.holds_zero:
        return f"{told}: no more than noise, so it knows the training text no better than text it has never seen."
    if losses.gap < 0:
        return f"{told}: the held-out text is the easier one, and nothing suggests that the training text is known by heart."
    if not foretells_too_well(found):
        return f"{told}: a little better, as is usual for text that was trained on."
    other = " or that its held-out text, which came from files of its own, is harder" if found.has_own_validation else ""
    return f"{told}: it knows the training text clearly better, a sign that it has learned part of it by heart{other}."


def _quoted(text: str) -> str:
    line = " ".join(text.split())
    return f"“{line if len(line) <= LONGEST_QUOTE else line[:LONGEST_QUOTE] + '...'}”"
