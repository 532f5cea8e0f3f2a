"""What the tests of the command line share: the command in a process of its own, as a shell starts it."""

import subprocess
import sys
from collections.abc import Callable

import pytest

LLAMITA = [sys.executable, "-m", "llamita"]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def llamita() -> Run:
    """Run the command in a process of its own, without a terminal, with empty input unless told otherwise."""

    def run(*arguments: str, **settings) -> subprocess.CompletedProcess[str]:
        settings = {"input": "", "timeout": 60, "check": False} | settings
        return subprocess.run([*LLAMITA, *arguments], capture_output=True, encoding="utf-8", **settings)

    return run
