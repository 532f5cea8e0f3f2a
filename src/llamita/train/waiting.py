"""How torch's CPU threads wait for each other: must be decided before torch is imported, so this file knows no torch."""

import os

SPINS = "2000"  # a few microseconds


def sleep_soon() -> None:
    """Let torch's threads sleep soon when they have nothing to do; call it before the first import of torch.

    GNU's OpenMP spins for milliseconds otherwise. With a third busy process on two cores that made a step eight times as slow
    (docs/experiments.md); on a quiet machine it makes no difference. A user's own GOMP_SPINCOUNT stays.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
