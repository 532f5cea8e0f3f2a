"""How large a model, and how many tokens it shall see: the first half of a plan, from the dial to a shape and a budget.

Time, text and size limit each other; each rule is one function. Knows no torch and no training setting.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from llamita.config import PRESETS, ModelConfig
from llamita.errors import SettingError
from llamita.train.arithmetic import SMALLEST, flops_per_token, shape_for, shape_of_width, sizes, vocab_size_for
from llamita.train.config import check_heads
from llamita.train.ledger import Ledger, amount
from llamita.train.machine import Machine
from llamita.train.published import PUBLISHED

DEFAULT_HOURS = 0.5  # where the user says nothing: worth a coffee, and enough to see a model learn on any machine
TOKENS_PER_PARAMETER = 20  # the best use of a fixed number of operations (arXiv:2203.15556)
MOST_EPOCHS = 10  # four are nearly as good as new text, after forty nothing is left to learn (arXiv:2305.16264)
FEWEST_TOKENS = 400_000  # a few hundred small updates, even of a text of a few pages
BYTES_PER_ENTRY = 400  # of text for each entry of a vocabulary learned from it, so that each is seen often enough
VOCAB_SIZES = (512, 1024, 2048, 4096, 8192, 16384, 32000)


@dataclass(frozen=True)
class Dial:
    """What the user decides; None follows from the rest, and if all is None, DEFAULT_HOURS are the time that there is.

    preset: a published recipe; params: a size, in our own shape.
    """

    params: int | None = None
    preset: str | None = None
    hours: float | None = None

    def validate(self) -> "Dial":
        """Return the dial; raise SettingError where it cannot be followed."""
        if self.preset is not None and self.preset not in PRESETS:
            raise SettingError(f"preset: found {self.preset}, expected one of {', '.join(PRESETS)}")
        if self.preset is not None and self.params is not None:
            raise SettingError("params: found it beside a preset, expected one or the other")
        if self.params is not None and not 10_000 <= self.params <= 10**12:
            raise SettingError(f"params: found {self.params:,}, expected 10,000 to 1,000,000,000,000")
        if self.hours is not None and not 0 < self.hours < 1e6:
            raise SettingError(f"hours: found {self.hours}, expected a positive number below 1,000,000")
        return self

    def settled(self) -> "Dial":
        """The dial that an untouched one stands for; any other as it is."""
        return Dial(hours=DEFAULT_HOURS) if self == Dial() else self


@dataclass(frozen=True)
class DataFacts:
    """The training text: n_tokens of its tokens, n_bytes of UTF-8, vocab_size of its tokenizer."""

    n_tokens: int
    n_bytes: int
    vocab_size: int


def estimate_data(n_text_bytes: int, vocab_size: int) -> DataFacts:
    """The facts of a text that no tokenizer has read yet, as if it were English.

    Measured on TinyStories: 2.5 bytes a token with 512 entries, 3.0 with 1024, about 0.45 more with each doubling, up to 4.4.
    """
    bytes_per_token = min(4.4, 0.45 * (vocab_size.bit_length() - 1) - 1.6)
    return DataFacts(max(1, int(n_text_bytes / bytes_per_token)), n_text_bytes, vocab_size)


def choose_vocab_size(n_text_bytes: int, dial: Dial, machine: Machine) -> int:
    """Choose how many entries a tokenizer shall have that is about to be learned from a text.

    As many as suit the model that the dial will lead to, and no more than the text can teach. A preset keeps its own number
    where the text is long enough.
    """
    dial = dial.settled()
    if dial.preset:
        wanted = PRESETS[dial.preset].vocab_size
    else:
        wanted = vocab_size_for(n_parameters_for(dial, estimate_data(n_text_bytes, 4096), machine))
    most = min(wanted, max(VOCAB_SIZES[0], n_text_bytes // BYTES_PER_ENTRY))
    return max(size for size in VOCAB_SIZES if size <= most)


def n_parameters_for(dial: Dial, data: DataFacts | None, machine: Machine) -> int:
    """The number of parameters that a settled dial without a preset leads to.

    Without a size it is the largest that can see TOKENS_PER_PARAMETER within the hours, but has no more parameters than the
    text has tokens: of a short text, models beyond Chinchilla's ratio still learn more (docs/experiments.md).
    """
    if dial.params is not None:
        return dial.params
    limits = []
    if data is not None:
        limits.append(max(SMALLEST, data.n_tokens))
    if dial.hours is not None:
        budget = dial.hours * 3600 * machine.flops_per_second * machine.n_devices
        limits.append(max((n for n in sizes() if _flops_to_train(n) <= budget), default=SMALLEST))
    return min(limits)


def _flops_to_train(n_parameters: int) -> float:
    """Operations for TOKENS_PER_PARAMETER tokens of a model of our own shape."""
    config = shape_for(n_parameters, vocab_size_for(n_parameters))
    return TOKENS_PER_PARAMETER * config.n_parameters * flops_per_token(config)


def choose_model(dial: Dial, data: DataFacts | None, machine: Machine, ledger: Ledger) -> ModelConfig:
    """The shape of the model. Raises SettingError or ModelError where the user's own numbers do not fit each other."""
    if dial.preset:
        config = PRESETS[dial.preset]
        ledger.add("shape", f"published as {dial.preset}", _shape(config))
        vocab_size = _vocab_size(config.vocab_size, "as published", data, ledger)
    else:
        n = n_parameters_for(dial, data, machine)
        ledger.add("size", _why_this_size(dial, data, machine), n)
        vocab_size = _vocab_size(vocab_size_for(n), "its embedding is a sixth of the model at most", data, ledger)
        config = shape_for(n, vocab_size)
        ledger.add("shape", "nearest to the size; width and layers after Chinchilla's table A9", _shape(config))
    config = _with_overrides(replace(config, vocab_size=vocab_size), ledger)
    if data is not None and "context" not in ledger.overrides:
        fitting = _context_within(config.context, data.n_tokens)
        if fitting < config.context:
            ledger.warn(f"the text is so short that the context is {fitting} tokens instead of {config.context}")
        config = replace(config, context=fitting)
    check_heads(config.width, config.n_heads)
    config.validate()
    how = "given" if "context" in ledger.overrides else "as published" if dial.preset else "by the size"
    ledger.add("context", how, config.context)
    embeddings = "V D" if config.tied_embedding else "2 V D"
    ledger.add("parameters", f"{embeddings} + L (2 D H K + 2 D G K + 3 D F + 2 D) + D", config.n_parameters)
    return config


def _vocab_size(ours: int, how: str, data: DataFacts | None, ledger: Ledger) -> int:
    if data is None:
        return ledger.choose("vocab_size", ours, how)
    if ledger.overrides.get("vocab_size", data.vocab_size) != data.vocab_size:
        given = ledger.overrides["vocab_size"]
        raise SettingError(f"vocab_size: found {given}, expected {data.vocab_size}, which the text was encoded with")
    ledger.add("vocab size", "of the text's tokenizer", data.vocab_size)
    return data.vocab_size


def _why_this_size(dial: Dial, data: DataFacts | None, machine: Machine) -> str:
    if dial.params is not None:
        return "asked for"
    reasons = []
    if dial.hours is not None:
        speed = amount(machine.flops_per_second * machine.n_devices, "FLOP/s")
        reasons.append(f"{TOKENS_PER_PARAMETER} tokens a parameter in {dial.hours:g} h at {speed}")
    if data is not None:
        reasons.append("a parameter for each token of the text at most")
    return "; ".join(reasons)


def _shape(config: ModelConfig) -> str:
    return (
        f"D {config.width}, L {config.n_layers}, H {config.n_heads}, G {config.n_kv_heads}, "
        f"K {config.head_size}, F {config.mlp_width}"
    )


def _with_overrides(config: ModelConfig, ledger: Ledger) -> ModelConfig:
    """The user's numbers in place of ours."""
    given = {field.name: ledger.overrides[field.name] for field in fields(config) if field.name in ledger.overrides}
    if not given:
        return config
    config = reshaped(config, given)
    ledger.add("shape", f"given: {', '.join(given)}", _shape(config))
    return config


def reshaped(config: ModelConfig, given: Mapping[str, Any]) -> ModelConfig:
    """A shape with some of its numbers replaced; a width brings heads and MLP along unless they are given too."""
    implied = {}
    if given.get("width", 0) >= 32:
        ours = shape_of_width(given["width"], config.n_layers, config.vocab_size)
        implied = {"n_heads": ours.n_heads, "n_kv_heads": ours.n_kv_heads, "mlp_width": ours.mlp_width, "head_size": 0}
    if "n_heads" in given:
        implied |= {"n_kv_heads": given["n_heads"], "head_size": 0}
    return replace(config, **{**implied, **given})


def _context_within(context: int, n_tokens: int) -> int:
    """The context, halved until the text has many of them."""
    while context > 32 and context * 64 > n_tokens:
        context //= 2
    return context


def choose_tokens(dial: Dial, config: ModelConfig, data: DataFacts | None, machine: Machine, ledger: Ledger) -> int:
    """How many tokens the model shall see, repetitions included."""
    n_tokens, how = TOKENS_PER_PARAMETER * config.n_parameters, f"{TOKENS_PER_PARAMETER} per parameter (Chinchilla)"
    if dial.preset:
        published = PUBLISHED[dial.preset]
        n_tokens = published.n_steps * published.sequences_per_update * PRESETS[dial.preset].context
        how = "as published"
    in_time = None
    if dial.hours is not None:
        in_time = int(dial.hours * 3600 * machine.flops_per_second * machine.n_devices / flops_per_token(config))
        if not dial.preset or in_time < n_tokens:
            n_tokens, how = in_time, f"what {dial.hours:g} h are enough for"
    if data is not None and not dial.preset and n_tokens > MOST_EPOCHS * data.n_tokens:
        n_tokens, how = MOST_EPOCHS * data.n_tokens, f"{MOST_EPOCHS} epochs of the text, more would be learned by heart"
    if n_tokens < FEWEST_TOKENS and (in_time is None or in_time > FEWEST_TOKENS):
        n_tokens, how = FEWEST_TOKENS, "a few hundred updates at least"
    ledger.add("tokens to learn from", how, n_tokens)
    return n_tokens
