"""`llamita eval`: the harness's table and JSON of tasks that lie here, and one line for every mistake."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from judge.toys import sentencepiece_model
from llamita.cli import main
from llamita.formats import write_model

TASKS = Path(__file__).resolve().parent.parent / "judge" / "tasks"


@pytest.fixture
def run(tmp_path: Path, toy_sentencepiece_bytes: bytes, capsys, monkeypatch: pytest.MonkeyPatch):
    """Run the verb on a toy model beside the tasks: its standard output, or the last line of its mistakes."""
    shutil.copytree(TASKS, tmp_path / "tasks")
    monkeypatch.chdir(tmp_path / "tasks")
    for name in ("HF_DATASETS_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    write_model(sentencepiece_model(toy_sentencepiece_bytes), tmp_path / "toy", "safetensors")

    def run(*arguments: str, status: int = 0) -> str:
        assert main(["eval", str(tmp_path / "toy"), "--include-path", ".", *arguments]) == status
        printed = capsys.readouterr()
        return printed.out if status == 0 else printed.err.splitlines()[-1]

    return run


def test_without_the_harness_one_line_says_how_to_get_it(run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("llamita.cli.eval.find_spec", lambda _name: None)
    assert run("--tasks", "endings", status=1).endswith('pip install "llamita[eval]"')


@pytest.fixture
def run_harness(run):
    """The same where the harness is installed."""
    pytest.importorskip("lm_eval", reason='needs lm_eval: pip install "llamita[eval]"')
    return run


@pytest.mark.filterwarnings("default")  # the harness's own
def test_the_json_of_all_kinds_of_tasks_does_not_depend_on_the_batch(run_harness):
    found = [
        json.loads(run_harness("--tasks", "endings,told_on,whole_texts", "--limit", "4", "--json", "--batch", batch))["results"]
        for batch in ("1", "8")
    ]
    assert set(found[0]) == {"endings", "told_on", "whole_texts"}
    for task, metrics in found[0].items():
        for name, value in metrics.items():
            expected = value if isinstance(value, str) else pytest.approx(value, rel=1e-5, nan_ok=True)
            assert found[1][task][name] == expected


@pytest.mark.filterwarnings("default")
def test_the_table_is_shown_and_requests_with_replies_are_written(run_harness, tmp_path: Path):
    shown = run_harness("--tasks", "endings", "--limit", "2", "--log-samples", "--output", str(tmp_path / "found.json"))
    assert "|endings|" in shown
    samples = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))["samples"]["endings"]
    assert [len(sample["resps"]) for sample in samples] == [4, 4]


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (("--tasks", "endngs"), "tasks: found no endngs"),
        (("--tasks", "endings", "--limit", "0"), "limit: found 0"),
        (("--tasks", "endings", "--output", "nowhere/found.json"), "output: found no folder nowhere"),
        (("--tasks", "told_on", "--gen-kwargs", "beams=2"), "generation_kwargs: found beams"),
        (("--tasks", "endings", "--apply-chat-template"), "found no chat template"),
        (("--tasks", "endings", "--context", "1"), "context: found 1"),
    ],
)
def test_a_mistake_is_one_line(run_harness, arguments: tuple[str, ...], found: str):
    assert found in run_harness(*arguments, status=1)


@pytest.mark.filterwarnings("default")
def test_samples_without_a_file_for_them_are_refused(run_harness):
    assert "expected a file" in run_harness("--tasks", "endings", "--log-samples", status=2)


def test_help_needs_no_harness(monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    assert main(["eval", "--help"]) == 0
    assert "lm-evaluation-harness" in capsys.readouterr().out
