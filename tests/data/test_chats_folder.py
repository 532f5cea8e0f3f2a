"""What is removed before chats are prepared anew, and what never is."""

from pathlib import Path

import pytest

from llamita.data.chats import empty_of_chats
from llamita.errors import DataError

OURS = ("manifest.json", "train.tokens.bin", "validation.ends.bin", "tokenizer.json", "tokenizer_config.json")


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text('{"format": "llamita-chats"}' if folder.name == "data" else "{}")
    return folder


@pytest.mark.parametrize("names", [(), OURS, (*OURS, ".train.ends.bin.0123abcd.part"), (".parts/spool.tokens.bin",), OURS[1:2]])
def test_what_a_preparation_has_left_is_removed(tmp_path: Path, names: tuple[str, ...]):
    folder = fill(tmp_path / "data", *names)
    empty_of_chats(folder)
    assert not folder.exists() or list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "names", [("a.txt",), (*OURS, "chats.jsonl"), ("tokenizer.json",), (*OURS, "texts/b.txt"), (*OURS, ".git/config")]
)
def test_what_somebody_else_keeps_there_stays_and_is_named(tmp_path: Path, names: tuple[str, ...]):
    folder = fill(tmp_path / "data", *names)
    with pytest.raises(DataError, match=r"data: found .*, expected nothing of yours there"):
        empty_of_chats(folder)
    assert all((folder / name).exists() for name in names)


def test_somebody_elses_manifest_stays(tmp_path: Path):
    folder = fill(tmp_path / "texts", *OURS)
    with pytest.raises(DataError, match=r"found manifest\.json"):
        empty_of_chats(folder)
    assert len(list(folder.iterdir())) == len(OURS)
