"""What has to be settled before torch is imported: whether it is there, and how its CPU threads wait for each other."""

import os
from importlib.util import find_spec

from llamita.errors import SettingError

SPINS = "2000"  # a few microseconds
NEEDED = ("torch", "filelock")


def set_up_torch() -> None:
    """Check that torch is installed, and let its threads sleep soon when they have nothing to do.

    Call it before the first import of torch. GNU's OpenMP spins for milliseconds otherwise: with a third busy process on two
    cores a step was eight times as slow (docs/decisions.md). A user's own GOMP_SPINCOUNT stays. Raises SettingError without
    torch.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise SettingError(f"training: found no {' and no '.join(missing)}; install it by: pip install 'llamita[train]'")
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
