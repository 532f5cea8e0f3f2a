"""A run that is killed again and again ends like one that never was: the same weights, optimizer state and log, to the bit."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch comes with llamita[train]")

PROGRAM = Path(__file__).with_name("kills.py")


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL and fork")
@pytest.mark.parametrize(
    ("n_kills", "n_threads"),
    [(20, 1), pytest.param(100, 1, marks=pytest.mark.slow), pytest.param(100, 2, marks=pytest.mark.slow)],
)
def test_kills_leave_no_trace(tmp_path, n_kills, n_threads):
    command = [sys.executable, str(PROGRAM), str(tmp_path), str(n_kills), "1", str(n_threads)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    ends = json.loads(done.stdout.splitlines()[-1])
    assert ends["killed"] == ends["whole"]
    assert len(ends["whole"]["files"]) == 2
    assert ends["n_in_a_save"] >= n_kills // 5  # so it was really tried
    assert ends["n_places"] >= n_kills // 3
