"""`llamita report`: a page or one JSON object; a folder that is no run is one line."""

import io
import json
from pathlib import Path

import pytest

from llamita.cli import main
from llamita.train.metrics import StepRecord
from llamita.train.recorder import Audience, Recorder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run of two steps."""
    with Recorder(tmp_path, 0, 2, 0, None, Audience(tensorboard=False, screen=io.StringIO())) as recorder:
        for step in (1, 2):
            recorder.step(StepRecord(step, 2.0, 1e-3, 1.0, 100, 0.5, 0.0))
    return tmp_path


def test_a_page_is_written_and_its_path_printed(run: Path, capsys):
    assert main(["report", str(run), "--out", str(run / "page.html"), "--price-per-hour", "2"]) == 0
    assert capsys.readouterr().out.strip() == str(run / "page.html")
    assert (run / "page.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_the_main_numbers_are_one_json_object(run: Path, capsys):
    assert main(["report", str(run), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["steps"], summary["tokens"], summary["loss"], summary["tokens_per_second"]) == (2, 200, 2.0, 200.0)


@pytest.mark.parametrize("folder", ["missing", "."])
def test_a_folder_that_is_no_run_is_one_line(tmp_path: Path, folder: str, capsys):
    assert main(["report", str(tmp_path / folder)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
