"""How a model of known shape is trained on a known number of tokens: the second half of a plan, a TrainConfig.

Each rule is one function with its source. Knows no torch; what the machine can do comes in as a Machine.
"""

import math
from dataclasses import fields, replace

from llamita.config import ModelConfig
from llamita.errors import SettingError
from llamita.train.arithmetic import activation_bytes_per_token, flops_per_token, state_bytes
from llamita.train.config import TrainConfig
from llamita.train.ledger import Ledger
from llamita.train.machine import Machine

# The highest learning rate, by parameters: above 100M after GPT-3's table 2.1 (arXiv:2005.14165), below 2M as measured in
# docs/experiments.md. Muon's updates have the size of AdamW's (arXiv:2502.16982), so that one table serves both.
LEARNING_RATES = (
    (5e5, 8e-3), (2e6, 5e-3), (5e6, 3e-3), (2e7, 2e-3), (6e7, 1e-3), (2e8, 6e-4),
    (5e8, 3e-4), (1e9, 2.5e-4), (2e9, 2e-4), (1e10, 1.2e-4)
)  # fmt: skip
LOWEST_LEARNING_RATE = 1e-4
HIGHEST_OF_ADAMW = 2e-3  # of small models; the highest rates of the table were measured with muon only
BATCH_TOKENS = {"cpu": 8192, "mps": 16384, "cuda": 65536}  # in one pass: enough to keep matrix units busy
MEMORY_SHARE = 0.7  # of the free memory; the rest is for the system and for what the formula leaves out
FEWEST_UPDATE_TOKENS, MOST_UPDATE_TOKENS = 2048, 4 << 20
SECONDS_WORTH_COMPILING = 300.0
MOST_SECONDS_UNSAVED = 900.0
EVAL_SHARE = 0.06


def update_tokens_for(n_tokens: int) -> float:
    """Tokens behind one update: 100 thousand for a run of a billion tokens, times (tokens / billion) ** 0.383.

    The power is nanochat's fit of the best batch against the length of the run. A short run gets a thousand updates rather than
    large ones.
    """
    by_law = 100_000 * (n_tokens / 1e9) ** 0.383
    return min(max(min(by_law, n_tokens / 1000), FEWEST_UPDATE_TOKENS), MOST_UPDATE_TOKENS)


def learning_rate_for(n_parameters: int, optimizer: str) -> float:
    """The highest learning rate for a size."""
    rate = next((rate for limit, rate in LEARNING_RATES if n_parameters < limit), LOWEST_LEARNING_RATE)
    return min(rate, HIGHEST_OF_ADAMW) if optimizer == "adamw" else rate


def dropout_for(n_parameters: int, epochs: float) -> float:
    """Dropout against learning by heart: none while the text is nearly new, and less for a model that has no room for it."""
    if epochs <= 4:
        return 0.0
    return 0.05 if n_parameters < 1_000_000 else 0.1


def choose_training(
    config: ModelConfig, n_tokens: int, epochs: float, machine: Machine, published: TrainConfig | None, ledger: Ledger
) -> TrainConfig:
    """Every number of a TrainConfig: the published one's, else ours, and the user's above both. Raises SettingError."""
    known = {field.name for field in fields(TrainConfig)} | {field.name for field in fields(ModelConfig)}
    if unknown := sorted(set(ledger.overrides) - known):
        raise SettingError(f"plan: found unknown field {unknown[0]}, expected one of {', '.join(sorted(known))}")
    share = _share_of_steps(config, n_tokens, ledger)
    if published is None:
        draft = _our_draft(config, epochs * share, ledger)
        wanted_tokens = update_tokens_for(n_tokens)
        sequences = 2 ** max(0, round(math.log2(wanted_tokens / config.context)))  # splits evenly into batches
        how = "about 100 thousand x (tokens / billion) ** 0.383, 1/1000 of all at most"
    else:
        draft, sequences, how = published, published.sequences_per_update, "as published"
        for name in ("learning_rate", "schedule", "dropout"):
            ledger.choose(name, getattr(published, name), how)
    draft = with_given(draft, ledger)
    draft = with_numbers(draft, config, round(n_tokens * share), machine, ledger)
    held_bytes = sum(state_bytes(config, draft).values())
    draft = with_batch(draft, config, sequences, how, machine, ledger, held_bytes)
    draft = _with_steps(draft, config, n_tokens, published, ledger)
    draft = _with_pauses(draft, config, machine, ledger)
    return with_given(draft, ledger).validate()


def _share_of_steps(config: ModelConfig, n_tokens: int, ledger: Ledger) -> float:
    """What share of the planned tokens the user's number of updates reads; 1 where none is given."""
    given = ledger.overrides
    if "n_steps" not in given:
        return 1.0
    is_known = "batch" in given and "accumulation" in given
    update = given["batch"] * given["accumulation"] * config.context if is_known else update_tokens_for(n_tokens)
    return given["n_steps"] * update / max(n_tokens, 1)


def with_given(draft: TrainConfig, ledger: Ledger) -> TrainConfig:
    """The user's numbers in place of ours."""
    names = {field.name for field in fields(TrainConfig)}
    return replace(draft, **{name: value for name, value in ledger.overrides.items() if name in names})


def _our_draft(config: ModelConfig, epochs: float, ledger: Ledger) -> TrainConfig:
    optimizer = ledger.overrides.get("optimizer", TrainConfig.optimizer)
    ours = learning_rate_for(config.n_parameters, optimizer)
    rate = ledger.choose("learning_rate", ours, "by the number of parameters")
    schedule = ledger.choose("schedule", TrainConfig.schedule, "stays up, and falls in a line at the end")
    ours = dropout_for(config.n_parameters, epochs)
    dropout = ledger.choose("dropout", ours, "the text is read more than 4 times" if ours else "none up to 4 epochs")
    return TrainConfig(1, 1, 1, learning_rate=rate, warmup_steps=1, schedule=schedule, dropout=dropout)


def with_numbers(draft: TrainConfig, config: ModelConfig, n_tokens: int, machine: Machine, ledger: Ledger) -> TrainConfig:
    """The dtype that the machine multiplies fastest, and whether compiling pays."""
    seconds = n_tokens * flops_per_token(config) / machine.flops_per_second / machine.n_devices
    pays = machine.can_compile and (machine.device == "cuda" or seconds > SECONDS_WORTH_COMPILING)
    dtype = ledger.choose("dtype", machine.dtype, "the fastest of this machine")
    compiled = ledger.choose("compile", pays, "pays where a run takes more than some minutes and a compiler is there")
    return replace(draft, dtype=dtype, compile=compiled)


def with_batch(
    draft: TrainConfig, config: ModelConfig, sequences: int, how: str, machine: Machine, ledger: Ledger, held_bytes: int
) -> TrainConfig:
    """Split an update's sequences into batches that fit the memory of one device, beside what it holds whatever the batch."""
    own = -(-sequences // machine.n_devices)
    fitting = _batch_that_fits(draft, config, machine, held_bytes)
    most = min(own, max(1, BATCH_TOKENS[machine.device] // config.context), fitting)
    batch = max(size for size in range(1, most + 1) if own % size == 0)
    if "accumulation" in ledger.overrides:
        batch = max(1, round(sequences / max(1, ledger.overrides["accumulation"])))
    batch = ledger.choose("batch", batch, f"fits memory, {BATCH_TOKENS[machine.device]:,} tokens at most")
    accumulation = -(-own // max(1, batch)) * machine.n_devices
    accumulation = ledger.choose("accumulation", accumulation, f"{sequences:,} sequences / batch")
    ledger.add("tokens per update", how, batch * accumulation * config.context)
    return replace(draft, batch=batch, accumulation=accumulation)


def _batch_that_fits(draft: TrainConfig, config: ModelConfig, machine: Machine, held_bytes: int) -> int:
    if machine.memory_bytes is None:
        return 1 << 30
    free = machine.memory_bytes * MEMORY_SHARE - held_bytes
    return max(1, int(free // (activation_bytes_per_token(config, draft) * config.context)))


def _with_steps(
    draft: TrainConfig, config: ModelConfig, n_tokens: int, published: TrainConfig | None, ledger: Ledger
) -> TrainConfig:
    """The number of updates, and how many of them warm up."""
    tokens_per_update = max(1, draft.sequences_per_update * config.context)
    n_steps = ledger.choose("n_steps", max(1, round(n_tokens / tokens_per_update)), "tokens / tokens per update")
    warmup, why = max(1, min(1000, n_steps // 25)), "1/25 of the steps, 1,000 at most"
    if published is not None and n_steps >= published.n_steps:
        warmup, why = published.warmup_steps, "as published"
    return replace(draft, n_steps=n_steps, warmup_steps=ledger.choose("warmup_steps", warmup, why))


def _with_pauses(draft: TrainConfig, config: ModelConfig, machine: Machine, ledger: Ledger) -> TrainConfig:
    """How often the run measures itself, tells a sample and saves.

    A token of validation costs a third of one of training, so EVAL_SHARE of the tokens between two measurements cost a third of
    that share of the time.
    """
    tokens_per_update = max(1, draft.sequences_per_update * config.context)
    seconds_per_step = tokens_per_update * flops_per_token(config) / machine.flops_per_second / machine.n_devices
    every = max(1, int(min(1000, draft.n_steps // 20, MOST_SECONDS_UNSAVED / seconds_per_step)))
    how = f"twenty times in a run, every 1,000 steps and {MOST_SECONDS_UNSAVED / 60:.0f} minutes at least"
    every = ledger.choose("eval_every", every, how)  # a given one brings the others along: each save measures too
    eval_tokens = min(max(int(EVAL_SHARE * every * tokens_per_update), 8192), 1 << 20)
    return replace(
        draft,
        eval_every=every,
        eval_tokens=ledger.choose("eval_tokens", eval_tokens, f"{EVAL_SHARE:.0%} of the tokens between two measurements"),
        save_every=ledger.choose("save_every", every, "with each measurement"),
        sample_every=ledger.choose("sample_every", 2 * every, "with every other measurement"),
    )
