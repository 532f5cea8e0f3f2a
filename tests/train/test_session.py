"""What a run goes on with: settings that were said, tokens that were moved; and what is refused before anything is written."""

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch comes with llamita[train]")

import kills  # pyright: ignore[reportMissingImports]
import sweep_kills  # pyright: ignore[reportMissingImports]

from llamita.data.prepare import PrepareOptions, prepare
from llamita.data.sources import ReadOptions
from llamita.errors import SettingError
from llamita.train.company import Company
from llamita.train.config import read_recipe
from llamita.train.run_folder import read_run
from llamita.train.session import Wish, run, set_up
from llamita.train.sizing import Dial
from llamita.train.world import World

QUICK: Mapping[str, Any] = {**sweep_kills.SETTINGS, "n_steps": 2, "sample_every": 0}
ALONE = World(0, 1, torch.device("cpu"), "ddp")


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> Path:
    """A folder with text.txt, vocabulary/ and tokens/."""
    folder = tmp_path_factory.mktemp("text")
    kills.make_text(folder)
    return folder


def wish_for(out: Path, *names: Path, **more: Any) -> Wish:
    wish = Wish(out, tuple(map(str, names)), dial=Dial(params=10_000), device="cpu", n_threads=1, tensorboard=False)
    return replace(wish, **{"overrides": QUICK} | more)


def go_on(out: Path, *names: Path, **more: Any) -> None:
    """Resume with nothing said but what is given here."""
    asked = wish_for(out, *names, **{"dial": Dial(), "overrides": {}, "resume": True} | more)
    assert run(asked, Company()) is None


def refusal(out: Path, *names: Path, **more: Any) -> str:
    """The line that resuming ends with, which leaves the folder's record as it is."""
    before = (out / "run.json").read_bytes()
    with pytest.raises(SettingError) as caught:
        go_on(out, *names, **more)
    assert (out / "run.json").read_bytes() == before
    return str(caught.value)


def test_a_run_goes_on_with_the_reading_of_its_text_only(texts: Path, tmp_path: Path):
    """A value that is the default counts as said where it is said."""
    out, text, held = tmp_path / "out", texts / "text.txt", tmp_path / "held.txt"
    held.write_text("the cat sees a bird\nthe dog finds a tree\n")
    how: dict[str, Any] = {"tokenizer": str(texts / "vocabulary"), "reading": {"separator": "line"}, "validation": (str(held),)}
    run(wish_for(out, text, **how), Company())
    go_on(out)
    go_on(out, text, **how)
    assert "separator: then line, now none;" in refusal(out, reading={"separator": ""})
    assert "field: then none, now story;" in refusal(out, text, reading={"field": "story"})
    assert f"bytes of {text}: then absent, now {text.stat().st_size};" in refusal(out, validation=(str(text),))


def test_tokens_that_were_moved_are_named_anew(texts: Path, tmp_path: Path):
    named, moved, out = tmp_path / "tokens", tmp_path / "elsewhere", tmp_path / "out"
    prepare([texts / "text.txt"], texts / "vocabulary", named)
    run(wish_for(out, named), Company())
    named.rename(moved)
    assert refusal(out).startswith(f"{named}: found no manifest.json, expected the run's tokens; name the folder that has them")
    go_on(out, moved)
    assert json.loads((out / "run.json").read_text())["data"] == str(moved)
    go_on(out)


def test_other_tokens_do_not_take_the_place_of_a_runs(texts: Path, tmp_path: Path):
    other, out = tmp_path / "other", tmp_path / "out"
    (tmp_path / "more.txt").write_text("the cat sees a bird\n" * 99)
    prepare([texts / "text.txt", tmp_path / "more.txt"], texts / "vocabulary", other)
    run(wish_for(out, texts / "tokens"), Company())
    assert "shards: then " in refusal(out, other)


def test_flags_for_text_that_the_tokens_were_not_made_with_are_refused(texts: Path, tmp_path: Path):
    tokens, text = tmp_path / "tokens", texts / "text.txt"
    prepare([text], texts / "vocabulary", tokens, PrepareOptions(ReadOptions(separator="line")))
    with pytest.raises(SettingError, match="tokens: found tokens that were made otherwise: separator: then line, now blank;"):
        set_up(
            wish_for(tmp_path / "out", tokens, reading={"separator": "blank"}),
            ALONE,
            Company(),
        )
    run(wish_for(tmp_path / "out", tokens, reading={"separator": "line"}, tokenizer=str(texts / "vocabulary")), Company())


@pytest.mark.parametrize("by_recipe", [False, True])
def test_an_update_that_ranks_cannot_share_is_refused_before_anything_is_written(texts: Path, tmp_path: Path, by_recipe: bool):
    two, out = World(0, 2, torch.device("cpu"), "ddp"), tmp_path / "out"
    out.mkdir()
    bad, good = {"batch": 3, "accumulation": 1}, {"batch": 4, "accumulation": 1}
    more: dict[str, Any] = {"tokenizer": str(texts / "vocabulary")}
    if by_recipe:
        set_up(wish_for(tmp_path, texts / "tokens"), ALONE, Company())
        more |= {"recipe": tmp_path / "recipe.toml", "dial": Dial()}
    with pytest.raises(SettingError, match="found 3 sequences per update, expected a multiple of the 2 processes"):
        set_up(wish_for(out, texts / "text.txt", overrides={**QUICK, **bad}, **more), two, Company())
    assert not list(out.iterdir())
    set_up(wish_for(out, texts / "text.txt", overrides={**QUICK, **good}, **more), two, Company())
    assert read_recipe(out / "recipe.toml").training.sequences_per_update == 4


def test_a_plan_that_ranks_cannot_share_is_refused_before_it_is_written(texts: Path, tmp_path: Path):
    asked = {name: value for name, value in QUICK.items() if name != "batch"} | {"accumulation": 1}
    with pytest.raises(SettingError, match="sequences per update, expected a multiple of the 7 processes"):
        set_up(wish_for(tmp_path, texts / "tokens", overrides=asked), World(0, 7, torch.device("cpu"), "ddp"), Company())
    assert not list(tmp_path.iterdir())


def test_a_call_that_is_no_utf8_is_recorded_as_it_was(texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["llamita", "train", "caf\udce9", "café"])
    set_up(wish_for(tmp_path, texts / "tokens"), ALONE, Company())
    assert read_run(tmp_path)["command"] == ["train", "caf\udce9", "café"]
