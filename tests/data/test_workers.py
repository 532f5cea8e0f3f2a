"""Worker processes: what they may meet, and what is left of the work when a process is stopped in the middle of it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llamita.data import split
from llamita.data.prepare import prepare
from llamita.data.sources import Document
from llamita.data.split import Batch
from llamita.data.workers import Team, wait_for
from llamita.errors import DataError
from stories import story

# `llamita prepare` with small batches, in a process of its own; worker processes run all but the last line, too
PREPARE = """
import sys
from llamita.data import split
split.BATCH_BYTES = 40_000
from llamita.cli import main
if __name__ == "__main__":
    sys.exit(main(["prepare", *sys.argv[1:], "--workers", "2"]))
"""
linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def wait_until(condition: Callable[[], Any], seconds: float = 30) -> Any:
    end = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < end
        time.sleep(0.005)
    return result


def children_of(pid: int) -> list[int]:
    """The worker processes of a process, by what Linux tells."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(") ")[2].split()
            if int(fields[1]) == pid and b"spawn_main" in entry.with_name("cmdline").read_bytes():
                found.append(int(entry.parent.name))
        except OSError:
            continue  # it has ended
    return found


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


@pytest.fixture(scope="module")
def many_stories(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("text") / "stories.txt"
    path.write_text("\n<|endoftext|>\n".join(map(story, range(12_000))))
    return path


@pytest.fixture
def arguments(many_stories: Path, tokenizer_path: Path, tmp_path: Path) -> list[str]:
    return [sys.executable, "-c", PREPARE, str(many_stories), "-z", str(tokenizer_path), "--out", str(tmp_path / "out")]


@pytest.fixture
def interrupted(tmp_path: Path, arguments: list[str]) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A run in the middle of its work, and its workers."""
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: len(list((tmp_path / "out" / ".parts").glob("*.bin"))) >= 3)
        workers = children_of(process.pid)
        assert len(workers) == 2
        yield process, workers
        process.kill()
    wait_until(lambda: not any(map(is_running, workers)), 10)


@linux_only
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(
    interrupted, arguments: list[str], many_stories: Path, tokenizer_path: Path, tmp_path: Path, monkeypatch
):
    process, workers = interrupted
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_until(lambda: not any(map(is_running, workers)), 10)
    assert not (tmp_path / "out" / "manifest.json").exists()
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=True)
    assert "parts were there from an earlier run" in done.stderr
    monkeypatch.setattr(split, "BATCH_BYTES", 40_000)
    prepare([str(many_stories)], tokenizer_path, tmp_path / "uninterrupted")
    assert contents(tmp_path / "out") == contents(tmp_path / "uninterrupted")


@linux_only
def test_an_interrupt_from_the_keyboard_leaves_no_process_and_no_traceback(interrupted):
    process, workers = interrupted
    for pid in (process.pid, *workers):  # a terminal sends it to all of them
        os.kill(pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert not any(map(is_running, workers))


@linux_only
def test_a_worker_that_dies_is_one_line_with_the_place(interrupted):
    process, workers = interrupted
    os.kill(workers[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "Traceback" not in errors
    assert "stories.txt: record " in errors.splitlines()[-1]
    assert "a worker process died" in errors.splitlines()[-1]


@pytest.mark.parametrize("n_workers", [1, 2])
def test_a_document_that_cannot_be_encoded_is_named(tokenizer_path: Path, tmp_path: Path, n_workers: int):
    no_text: Any = 5
    batch = Batch("train", [Document("fine", "a.txt", 1), Document(no_text, "a.txt", 2), Document("fine", "a.txt", 3)])
    with (
        Team(tokenizer_path, n_workers) as team,
        pytest.raises(DataError, match=r"a\.txt: record 2: cannot be encoded: TypeError"),
    ):
        wait_for(team.submit(batch, tmp_path / "part"), batch.documents)
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_cannot_start_is_one_line(tmp_path: Path, capfd):
    batch = Batch("train", [Document("fine", "a.txt", 1)])
    with Team(tmp_path / "nowhere.model", 2) as team, pytest.raises(DataError, match="a worker process died"):
        wait_for(team.submit(batch, tmp_path / "part"), batch.documents)
    capfd.readouterr()
