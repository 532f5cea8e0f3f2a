"""Planner: what the next pass of the engine reads of each slot, and how many steps it makes without coming back.

Texts that run get a row each. Prompts share what else fits into a pass that nobody notices as a pause; a text's result does not
depend on such sizes. Knows slots, no queue.
"""

from typing import NamedTuple

from llamita.engine import Engine, Reading
from llamita.serve.slots import Slot

PAUSE_SECONDS = 0.1  # a pass with prompts may take this long where texts are running
LONGEST_SECONDS = 0.25  # and this where none are: new jobs and cancelled ones are looked at in between
BURST_SECONDS = 0.01  # steps in one call of compiled code: a reader sees no difference
FIRST_ROWS, FEWEST_ROWS = 32, 16  # of prompts, in a pass before the machine's speed is known, and in any pass


class Plan(NamedTuple):
    """A pass: readings[i] is of slots[i], those that draw come first."""

    slots: list[Slot]
    readings: list[Reading]
    n_steps: int

    @property
    def reads_prompts(self) -> bool:
        """Whether it does more than go on with texts."""
        return any(reading.n_ids > 1 or not reading.draws for reading in self.readings)


class Planner:
    """Learns from each pass how long the next may be."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._row_seconds = self._step_seconds = 0.0  # 0: not known yet

    def plan(self, slots: list[Slot]) -> Plan:
        """The next pass over slots with something to read, the oldest first."""
        n_left = [slot.n_left for slot in slots]
        texts = [(slot, reading_of(slot, 1, 1)) for slot, n in zip(slots, n_left, strict=True) if n == 1]
        prompts = [(slot, n) for slot, n in zip(slots, n_left, strict=True) if n > 1]
        chosen = [*texts, *self._read_prompts(prompts, len(texts))]
        chosen.sort(key=lambda pair: not pair[1].draws)
        plan = Plan([slot for slot, _ in chosen], [reading for _, reading in chosen], 1)
        return plan if plan.reads_prompts else plan._replace(n_steps=self._steps(plan.slots))

    def _read_prompts(self, prompts: list[tuple[Slot, int]], n_texts: int) -> list[tuple[Slot, Reading]]:
        """Readings of prompts, each with what is left of it, beside so many texts; a scored one wants logits of every row."""
        readings = []
        n_logits = self._engine.max_logits - n_texts - len(prompts)  # beside one of each, from which a token may be drawn
        shares = share_rows([n for _, n in prompts], self._prompt_rows(n_texts))
        for (slot, n_left), n in zip(prompts, shares, strict=True):
            if n and slot.running and slot.running.job.prompt_logprobs:
                n = min(n, n_logits + 1)
                n_logits -= n - 1
            if n:
                readings.append((slot, reading_of(slot, n, n_left)))
        return readings

    def learn(self, plan: Plan, n_steps: int, seconds: float) -> None:
        """Take note of how long a pass took."""
        if plan.reads_prompts:
            n_rows = sum(reading.n_ids for reading in plan.readings)
            if n_rows >= FEWEST_ROWS:
                self._row_seconds = _mean(self._row_seconds, seconds / n_rows)
        else:
            self._step_seconds = _mean(self._step_seconds, seconds / max(n_steps, 1))

    def _prompt_rows(self, n_texts: int) -> int:
        most = self._engine.max_rows - n_texts
        if not self._row_seconds:
            return min(FIRST_ROWS, most)
        seconds = PAUSE_SECONDS if n_texts else LONGEST_SECONDS
        return min(max(int(seconds / self._row_seconds) - n_texts, FEWEST_ROWS), most)

    def _steps(self, slots: list[Slot]) -> int:
        """Steps until the first text may have ended, as far as they fit into a burst; one where a constraint looks at each."""
        engine = self._engine
        n = 1 if not self._step_seconds else max(1, int(BURST_SECONDS / self._step_seconds))
        n = min(n, engine.max_results // len(slots))
        for slot in slots:
            running = slot.running
            assert running is not None
            if running.job.constraint is not None:
                return 1
            n = min(n, running.job.max_tokens - running.n_tokens, engine.context - slot.sequence.position + 1)
        return n


def reading_of(slot: Slot, n_ids: int, n_left: int) -> Reading:
    """How n_ids of the n_left ids are read that a slot still has to."""
    running = slot.running
    assert running is not None
    job, in_prompt = running.job, running.n_tokens == 0
    return Reading(
        slot.sequence, n_ids, running.draws and n_ids == n_left, job.prompt_logprobs and in_prompt, job.wants_embedding
    )


def share_rows(wishes: list[int], n_rows: int) -> list[int]:
    """Rows for each prompt, the oldest first: that one gets at least half, so that it ends; then short ones get all they want.

    So the mean time to a first token is short, and nobody waits for ever.
    """
    shares = [min(wish, (n_rows + 1) // 2) if i == 0 else 0 for i, wish in enumerate(wishes)]
    n_rows -= sum(shares)
    for i in sorted(range(len(wishes)), key=wishes.__getitem__):
        n = min(wishes[i] - shares[i], n_rows)
        shares[i] += n
        n_rows -= n
    return shares


def _mean(before: float, now: float) -> float:
    return (before + now) / 2 if before else now
