"""The learning rate as a pure function of the step: nothing to save, nothing to restore when a run resumes."""

import math

from llamita.train.config import TrainConfig


def learning_rate(config: TrainConfig, step: int) -> float:
    """Return the rate of the update after `step` updates, 0 <= step < n_steps.

    It rises in a straight line through warm-up; then cosine (arXiv:1608.03983) falls at once, wsd (arXiv:2405.18392) stays up
    and falls in a straight line over the last cooldown_share of all steps. Both end at final_share of the highest.
    """
    warmup = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    if config.schedule == "cosine":
        remaining = max(config.n_steps - config.warmup_steps, 1)
        share = 0.5 + 0.5 * math.cos(math.pi * min(max(step - config.warmup_steps, 0) / remaining, 1.0))
    else:
        share = min(1.0, (config.n_steps - step) / max(config.cooldown_share * config.n_steps, 1.0))
    return config.learning_rate * warmup * (config.final_share + (1 - config.final_share) * share)
