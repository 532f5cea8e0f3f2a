"""The page of a run: whole for any run, finished, barely begun or damaged, and harmless whatever the samples say. No torch."""

import io
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from llamita.errors import SettingError
from llamita.train.chart import MOST_POINTS, Range, Series, label, line_chart, smoothed, thinned, ticks
from llamita.train.config import FinetuneConfig, read_recipe, write_recipe
from llamita.train.machine import Machine
from llamita.train.metrics import METRICS, SAMPLES, PreferenceRecord, StepRecord, ValidationRecord, encode_line
from llamita.train.plan import Dial, plan
from llamita.train.recorder import Audience, Recorder
from llamita.train.report import write_report
from llamita.train.run_folder import read_run_folder

VOID = {"meta", "path", "rect"}


class Balance(HTMLParser):
    """Checks that every element is closed, and collects what could reach out or run."""

    def __init__(self) -> None:
        super().__init__()
        self.open, self.suspects = [], []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        if tag in ("script", "img", "iframe", "link", "object", "a") or any(name in ("src", "href") for name, _ in attrs):
            self.suspects.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:  # noqa: ARG002
        assert tag in VOID

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def page_of(folder: Path, **settings) -> str:
    """The written page, after a check that it is well-formed and reaches out to nothing."""
    page = write_report(folder, **settings).read_text(encoding="utf-8")
    balance = Balance()
    balance.feed(page)
    assert balance.open == []
    assert balance.suspects == []
    assert "url(" not in re.sub(r"url\(#clip-[\w-]+\)", "", page)
    return page


def record(folder: Path, n_steps: int, sample: str = "there was a cat.") -> Path:
    """The folder of a run of so many steps."""
    machine = Machine("cpu", "a laptop", 2, None, "float32", False, 1e11)
    write_recipe(plan(Dial(params=300_000), None, machine, {"n_steps": 20}).recipe, folder / "recipe.toml")
    (folder / "run.json").write_text(json.dumps({"started": "today", "device": "cpu", "versions": {"torch": "2"}, "gpus": []}))
    with Recorder(folder, 0, 20, 0, None, Audience(tensorboard=False, screen=io.StringIO())) as recorder:
        for step in range(1, n_steps + 1):
            loss = math.nan if step == 3 else 6 / step
            recorder.step(StepRecord(step, loss, 1e-3, 1.0, 512, 0.25, 0.01))
            if step % 5 == 0:
                recorder.validation(ValidationRecord(step, 6.5 / step, 3 / step))
                recorder.sample(step, "Once", sample)
    return folder


def test_the_page_of_a_run_has_it_all(tmp_path: Path):
    page = page_of(record(tmp_path, 20), price_per_hour=3600.0)
    for piece in ("20 of 20", "0.1500", "0.3250", "2,048", "there was a cat.", "float32", "a laptop", "torch 2", "muon"):
        assert (piece in page) == (piece != "a laptop")
    for title in ("Loss, nats per token", "Bits per byte", "Learning rate", "Length of the gradient", "Tokens per second"):
        assert f"<figcaption>{title}" in page
    assert page.count("<svg") == 6
    assert "cost, at 3600 per hour" in page


@pytest.mark.parametrize("n_steps", [0, 1, 2, 3])
def test_a_run_that_has_hardly_begun_has_a_page(tmp_path: Path, n_steps: int):
    assert f"{n_steps} of 20" in page_of(record(tmp_path, n_steps))


def test_a_recipe_alone_is_a_run_that_has_not_begun(tmp_path: Path):
    record(tmp_path, 0)
    (tmp_path / METRICS).unlink()
    assert "No step has been logged yet" in page_of(tmp_path)


def test_a_damaged_run_still_has_a_page(tmp_path: Path):
    record(tmp_path, 10)
    for name in (METRICS, SAMPLES):
        with (tmp_path / name).open("ab") as file:
            file.write(b'\xff\n{"kind": "step", "step')
    (tmp_path / "recipe.toml").write_text("[model")
    (tmp_path / "run.json").write_text("[1, 2")
    assert "<b>10</b>" in page_of(tmp_path)


def test_hostile_text_stays_text(tmp_path: Path):
    hostile = "</pre><script>alert(1)</script><img src=http://example.org/x onerror=alert(2)>\x1b[2J & \u202e"
    record(tmp_path, 5, hostile)
    (tmp_path / "run.json").write_text(json.dumps({"<b>name": ["<script>", {"a": "</td>"}], "data": "\x00"}))
    page = page_of(tmp_path)
    assert "&lt;script&gt;alert(1)" in page
    assert "\x1b" not in page
    assert "\u202e" not in page


def test_a_folder_that_is_no_run_is_one_line(tmp_path: Path):
    with pytest.raises(SettingError, match="expected the folder of a training run"):
        write_report(tmp_path)
    with pytest.raises(SettingError):
        write_report(tmp_path / "missing")


def test_the_time_between_two_processes_does_not_count(tmp_path: Path):
    lines = [("start", 0, 100.0), ("validation", 1, 130.0), ("start", 1, 9000.0), ("validation", 2, 9005.0)]
    rows = [{"kind": kind, "step": step, "unix_time": at} for kind, step, at in lines]
    rows = [row | ({"loss": 1.0, "bits_per_byte": 1.0} if row["kind"] == "validation" else {}) for row in rows]
    (tmp_path / METRICS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_run_folder(tmp_path).seconds == 35.0
    assert read_run_folder(tmp_path).n_processes == 2


def test_a_line_has_gaps_where_values_are_missing():
    drawn = line_chart("x", [Series("", [1, 2, 3, 4], [1.0, math.nan, 2.0, 3.0], "first")], "step")
    (path,) = re.findall(r'<g class="first"><path d="([^"]+)"', drawn)
    assert [letter for letter in path if letter.isalpha()] == ["M", "M", "L"]
    assert line_chart("x", [Series("", [1.0], [math.inf], "first")], "step") == ""


def test_a_long_line_is_thinned_and_keeps_its_spike():
    y = [1.0] * 100_000
    y[54_321] = 9.0
    points = thinned(range(len(y)), y)
    assert len(points) <= MOST_POINTS
    assert (54_321, 9.0) in points
    assert [x for x, _ in points] == sorted(x for x, _ in points)


def test_ticks_are_round_numbers_within_the_axis():
    assert ticks(Range(0.9, 6.2), 6) == [1, 2, 3, 4, 5, 6]
    assert ticks(Range(0, 4e-4), 5) == pytest.approx([0, 1e-4, 2e-4, 3e-4, 4e-4])
    assert [label(value) for value in (0, 0.5, 1500, 2e7, 3e-4)] == ["0", "0.5", "1.5k", "20M", "0.0003"]


def test_smoothing_is_a_running_mean_of_what_is_known():
    assert smoothed([1.0, math.nan, 3.0, 5.0], 1) == [1.0, 1.0, 3.0, 4.0]
    assert math.isnan(smoothed([math.nan], 5)[0])


def test_a_run_of_preferences_tells_how_pairs_are_ranked_and_no_bits_per_byte(tmp_path):
    folder = record(tmp_path, 4)
    with (folder / METRICS).open("wb") as file:
        for step in (1, 2):
            file.write(encode_line(StepRecord(step, 0.6 / step, 1e-5, 1.0, 100, 1.0, 0.0)))
            file.write(encode_line(PreferenceRecord(step, "training", 0.5, 0.1 * step)))
        file.write(encode_line(ValidationRecord(2, 0.5, math.nan)))
        file.write(encode_line(PreferenceRecord(2, "validation", 0.75, 0.3)))
    page = page_of(folder)
    assert "<b>75%</b><span>pairs ranked right, at step 2</span>" in page
    for expected in ("Pairs ranked right, share", "Margin between the rewards", "Loss, nats per pair"):
        assert expected in page
    assert "its per byte" not in page
    assert "nan" not in page
    assert (
        json.loads(json.dumps(read_run_folder(folder).summary(), allow_nan=False))["best_validation"]["bits_per_byte"] is None
    )


def test_a_run_of_fine_tuning_tells_its_method(tmp_path):
    folder = record(tmp_path, 4)
    recipe = read_recipe(folder / "recipe.toml")
    write_recipe(replace(recipe, finetuning=FinetuneConfig(lora_rank=12)), folder / "recipe.toml")
    page = page_of(folder)
    assert "<h2>Fine-tuning</h2>" in page
    assert "<tr><td>lora rank</td><td>12</td></tr>" in page
