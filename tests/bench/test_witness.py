"""The witness sees when a process speaks, when it ends and what it held, whatever its own parent holds."""

import json
import subprocess
import sys

import numpy as np

WITNESS = [sys.executable, "-m", "llamita.bench.witness"]
SPEAKS = "import sys, time; print('hello', flush=True); print('achieved', file=sys.stderr); time.sleep(0.2); sys.exit(3)"


def watch(code: str) -> dict:
    return json.loads(subprocess.run([*WITNESS, sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def test_the_first_byte_comes_before_the_end():
    seen = watch(SPEAKS)
    assert seen["status"] == 3
    assert 0 < seen["first_byte_seconds"] <= seen["whole_seconds"] - 0.2
    assert seen["stderr"].strip() == "achieved"


def test_a_silent_process_has_no_first_byte():
    assert watch("pass")["first_byte_seconds"] is None


def test_the_peak_is_the_child_s_own():
    ballast = np.ones(300_000_000, np.uint8)  # a child of ours would be told to have held as much
    peak = watch("ballast = b'x' * 100_000_000")["peak_bytes"]
    assert 100_000_000 < peak < len(ballast)
