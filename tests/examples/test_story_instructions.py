"""The example that teaches stories to order: what it makes of stories, and that its measure tells kept words from others."""

import importlib
import json

import pytest

example = importlib.import_module("story_instructions")


THINGS = ["apple", "basket", "castle", "dragon", "engine", "feather", "garden", "hammer", "island", "jacket"]


def write_stories(folder, n=200):
    """Stories about four things each, told of twice, and a passing one; no two stories are alike."""
    stories = []
    for number in range(n):
        things = [THINGS[(number * step + step) % len(THINGS)] for step in range(1, 5)]
        first = [f"Lily had {number} of the {thing}s. She liked every {thing}s." for thing in things]
        stories.append(" ".join([*first, f"Then came a {THINGS[number % len(THINGS)]}."]))
    path = folder / "stories.txt"
    path.write_text("<|endoftext|>".join(stories), encoding="utf-8")
    return path


def test_every_instruction_asks_for_words_of_its_story(tmp_path, monkeypatch):
    monkeypatch.setattr(example, "LARGEST_SHARE", 0.9)  # made-up stories have few words
    example.make(
        [str(write_stories(tmp_path))], tmp_path / "out.jsonl", tmp_path / "held.jsonl", n_held_out=5, n_per_story=3, seed=1
    )
    asked = example.read_questions(tmp_path / "held.jsonl")
    learned = [json.loads(line)["messages"] for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(asked) == 5
    assert len(learned) > 100
    assert len(learned) == 3 * len({messages[1]["content"] for messages in learned})
    assert all(
        told.count(word) > 1
        for question, told in ((m[0]["content"], m[1]["content"]) for m in learned)
        for word in question.partition(": ")[2].rstrip(".").split(", ")
    )
    for line, (_, words) in zip((tmp_path / "held.jsonl").read_text(encoding="utf-8").splitlines(), asked, strict=True):
        told = json.loads(line)["messages"][1]["content"]
        assert example.n_present(words, told) == example.N_WORDS
        assert told not in {messages[1]["content"] for messages in learned}


def test_too_few_stories_are_said(tmp_path):
    with pytest.raises(SystemExit, match="stories: found 0 with words to ask for, expected more than the 5"):
        example.make(
            [str(write_stories(tmp_path, n=4))],
            tmp_path / "out.jsonl",
            tmp_path / "held.jsonl",
            n_held_out=5,
            n_per_story=3,
            seed=1,
        )


def test_a_story_is_cut_behind_a_sentence():
    text = "The cat sat. " * 200
    assert example.shortened(text).endswith("sat.")
    assert len(example.shortened(text)) <= example.LONGEST_STORY


def test_a_word_counts_with_an_ending_but_not_inside_another():
    assert example.n_present(["band", "jump", "hat"], "She jumped over the bandage with two hats.") == 2


def test_the_bundled_model_is_measured(tmp_path, capsys):
    order = example.Order(("needle", "button", "shirt"), "")
    (tmp_path / "asked.jsonl").write_text(order.to_json() + "\n", encoding="utf-8")
    example.measure("stories", None, tmp_path / "asked.jsonl", n=1, n_shown=1)
    printed = capsys.readouterr().out
    assert "> Write a story with the words: needle, button, shirt." in printed
    assert "of 3 words came" in printed
