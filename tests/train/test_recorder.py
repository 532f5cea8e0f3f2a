"""The recorder: logs that survive kill, resume and full disks, boards that never end a run, one live line. No torch."""

import errno
import io
import json
import math
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from llamita.errors import SettingError
from llamita.train import metrics
from llamita.train.live_line import Progress, duration
from llamita.train.metrics import (
    METRICS,
    SAMPLES,
    Log,
    PreferenceRecord,
    StartRecord,
    StepRecord,
    ValidationRecord,
    read_lines,
)
from llamita.train.recorder import Audience, Recorder, SilentRecorder


def step_record(step: int, loss: float = 2.0) -> StepRecord:
    return StepRecord(step, loss + 0.1 / step, 1e-3, 0.7, n_tokens=1000, seconds=0.5, data_seconds=0.01)


def record_run(folder: Path, first_step: int, last_step: int, n_steps: int = 10, tensorboard: bool = False) -> str:
    """Record steps first_step + 1 to last_step with a validation and a sample at every fifth; return what the screen got."""
    screen = io.StringIO()
    audience = Audience(tensorboard=tensorboard, screen=screen)
    with Recorder(folder, first_step, n_steps, 1e6, 1e10, audience) as recorder:
        for step in range(first_step + 1, last_step + 1):
            recorder.step(step_record(step))
            if step % 5 == 0:
                recorder.validation(ValidationRecord(step, 1.0 + step / 100, 0.9 / 7))
                recorder.sample(step, "Once", f" upon {step}")
    return screen.getvalue()


def numbers_of(folder: Path, name: str = METRICS) -> list[dict]:
    """What a log says, without the clock and without the starts of processes."""
    rows = [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in row.items() if key != "unix_time"} for row in rows if row.get("kind") != "start"]


def test_a_killed_and_resumed_run_leaves_the_same_log_as_an_undisturbed_one(tmp_path: Path):
    record_run(tmp_path / "whole", 0, 10)
    record_run(tmp_path / "killed", 0, 8)
    for name in (METRICS, SAMPLES):
        with (tmp_path / "killed" / name).open("ab") as file:
            file.write(b'{"kind": "step", "step": 9, "lo')
    record_run(tmp_path / "killed", 5, 10)
    for name in (METRICS, SAMPLES):
        assert numbers_of(tmp_path / "killed", name) == numbers_of(tmp_path / "whole", name)
    starts = [line.record for line in read_lines(tmp_path / "killed" / METRICS) if isinstance(line.record, StartRecord)]
    assert starts == [StartRecord(0), StartRecord(5)]


def test_a_run_from_the_beginning_forgets_what_lay_there(tmp_path: Path):
    record_run(tmp_path, 0, 8)
    record_run(tmp_path, 0, 2)
    assert [row["step"] for row in numbers_of(tmp_path)] == [1, 2]


def test_floats_keep_every_bit_and_those_that_are_not_finite_are_null(tmp_path: Path):
    log = Log(tmp_path / METRICS, print)
    losses = [0.1 + 0.2, 1 / 3, 5e-324, math.nan, math.inf]
    for step, loss in enumerate(losses, 1):
        log.append(ValidationRecord(step, loss, 1.0))
    log.close()
    read = [line.record.loss for line in read_lines(tmp_path / METRICS) if isinstance(line.record, ValidationRecord)]
    assert read[:3] == losses[:3]
    assert all(map(math.isnan, read[3:]))
    assert '"loss": null' in (tmp_path / METRICS).read_text()


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"kind": "step"}',
        b'{"kind": "start", "step": "one", "unix_time": 1}',
        b"\xff\xfe",
        b"[" * 100000,
    ],
)
def test_a_line_that_is_none_of_ours_is_passed_over(tmp_path: Path, line: bytes):
    record_run(tmp_path, 0, 2)
    with (tmp_path / METRICS).open("ab") as file:
        file.write(line + b"\n")
    assert len(read_lines(tmp_path / METRICS)) == 3


class FullDisk:
    """os.write on a disk that takes a few bytes, then none, then all again."""

    def __init__(self) -> None:
        self.room = 10
        self.write = os.write

    def __call__(self, descriptor: int, data: bytes) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = self.write(descriptor, data[: self.room])
        self.room -= taken
        return taken


def test_a_full_disk_is_a_warning_and_nothing_is_lost_when_there_is_room_again(tmp_path: Path, monkeypatch):
    disk, warnings = FullDisk(), []
    monkeypatch.setattr(metrics.os, "write", disk)
    monkeypatch.setattr(metrics, "RETRY_SECONDS", 0.0)
    log = Log(tmp_path / METRICS, warnings.append)
    for step in range(1, 4):
        log.append(step_record(step))
    disk.room = 1 << 20
    log.append(step_record(4))
    log.close()
    assert [line.record for line in read_lines(tmp_path / METRICS)] == [step_record(step) for step in range(1, 5)]
    assert len(warnings) == 2
    assert "No space left" in warnings[0]
    assert "written again" in warnings[1]


def test_the_screen_shows_what_a_person_wants_to_know(tmp_path: Path):
    shown = record_run(tmp_path, 0, 10)
    first, last = shown.splitlines()[0], shown.splitlines()[-3]
    assert first.startswith("step 1/10  loss 2.100  rate 1.0e-03")
    assert last.startswith("step 10/10")
    assert "validation 1.050 (0.129 bits/byte)  2,000 tokens/s  MFU 20%" in last
    assert "step 5: validation loss 1.0500, 0.1286 bits per byte" in shown
    assert "step 5, sample: Once upon 5" in shown


def test_a_sample_cannot_move_the_cursor(tmp_path: Path):
    screen = io.StringIO()
    with Recorder(tmp_path, 0, 1, 0, None, Audience(tensorboard=False, screen=screen)) as recorder:
        recorder.sample(1, "Once", "\x1b[2J[red]\r two\nlines")
    assert screen.getvalue() == "step 1, sample: Once\\x1b[2J[red]\\r two\nlines\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_one_line_that_is_drawn_again(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("llamita.train.live_line.REDRAW_SECONDS", 0.0)
    screen = Terminal()
    with Recorder(tmp_path, 0, 3, 0, None, Audience(tensorboard=False, screen=screen)) as recorder:
        for step in (1, 2, 3):
            recorder.step(step_record(step))
        recorder.note("[b]a note[/b]")
    assert "\x1b[2K" in screen.getvalue()  # erase the line
    assert "[b]a note[/b]" in screen.getvalue()
    assert "step 3/3" in screen.getvalue()


@pytest.mark.parametrize("columns", [30, 40, 60, 80, 200])
@pytest.mark.parametrize("n_steps", [120, 1_430_000])
@pytest.mark.parametrize("ranks", [False, True])
def test_a_narrow_line_still_shows_the_time_left(monkeypatch, columns: int, n_steps: int, ranks: bool):
    seconds = iter((0.0, 330.0 / (n_steps - 11)))
    # of that module alone: threads that other tests have left behind look at the clock too
    monkeypatch.setattr("llamita.train.live_line.time", SimpleNamespace(monotonic=lambda: next(seconds)))
    progress = Progress(0, n_steps, 1e6, 1e10)
    progress.step(step_record(10), columns)
    progress.validation(ValidationRecord(10, 5.189, 3.545))
    if ranks:
        progress.preference(PreferenceRecord(10, "training", 0.8, 0.5))
    line = progress.step(step_record(11), columns)
    assert line.endswith("5 min 30 s left")
    assert f"11/{n_steps:,}  loss 2.010" in line
    assert len(line) <= max(columns, len(f"11/{n_steps:,}  loss 2.010  5 min 30 s left"))
    assert columns < 80 or "rate 1.0e-03" in line
    assert ("validation 5.189 (3.545 bits/byte)  2,000 tokens/s  MFU 20%" in line) == (columns == 200)


def test_a_terminal_of_eighty_columns_gets_the_line_in_few_words(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("llamita.train.live_line.REDRAW_SECONDS", 0.0)
    screen = Terminal()
    with Recorder(tmp_path, 0, 120, 1e6, 1e10, Audience(tensorboard=False, screen=screen)) as recorder:
        recorder.step(step_record(10))
        recorder.validation(ValidationRecord(10, 5.189, 3.545))
        recorder.step(step_record(11))
    assert "11/120  loss 2.010  val 5.189  2,000 tok/s  MFU 20%  rate 1.0e-03  0 s left" in screen.getvalue()


def test_a_screen_that_went_away_does_not_end_a_run(tmp_path: Path):
    screen = io.StringIO()
    recorder = Recorder(tmp_path, 0, 3, 0, None, Audience(tensorboard=False, screen=screen))
    screen.close()
    recorder.step(step_record(1))
    recorder.close()
    recorder.close()
    assert len(numbers_of(tmp_path)) == 1


def test_tensorboard_reads_the_events_and_hides_those_after_a_resume(tmp_path: Path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    record_run(tmp_path, 0, 8, tensorboard=True)
    record_run(tmp_path, 5, 10, tensorboard=True)
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    losses = events.Scalars("train/loss")
    assert [event.step for event in losses] == list(range(1, 11))
    assert losses[3].value == pytest.approx(step_record(4).loss)
    assert [event.step for event in events.Scalars("validation/bits_per_byte")] == [5, 10]
    assert events.Tensors("sample")[0].tensor_proto.string_val[0] == b"    Once upon 5\n"


def test_a_board_without_room_is_one_warning(tmp_path: Path):
    (tmp_path / "tensorboard").write_text("in the way")
    shown = record_run(tmp_path, 0, 8, tensorboard=True)
    assert shown.count("charts of TensorBoard will have a gap") == 1
    assert len(numbers_of(tmp_path)) == 9


def test_a_missing_wandb_is_one_line(tmp_path: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(SettingError, match="pip install"):
        Recorder(tmp_path, 0, 1, 0, None, Audience(wandb_project="stories", screen=io.StringIO()))


def test_the_silent_recorder_leaves_no_trace(tmp_path: Path, capsys):
    with SilentRecorder() as recorder:
        recorder.step(step_record(1))
        recorder.sample(1, "Once", "")
        recorder.note("hush")
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.6, "1 min 00 s"), (330, "5 min 30 s"), (7500, "2 h 05 min"), (273600, "3 d 04 h")]
)
def test_a_duration_is_said_as_people_say_it(seconds: float, text: str):
    assert duration(seconds) == text
