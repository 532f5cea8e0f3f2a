"""From text files to a folder with a tokenizer in every format."""

from pathlib import Path

import pytest

from llamita.data.vocabulary import learn_vocabulary, report_vocabularies
from llamita.errors import DataError
from llamita.formats import read_tokenizer

NAMES = ("tokenizer.model", "tokenizer.bin", "tokenizer.json")


def test_every_format_is_written_and_those_we_read_give_the_same_ids(stories_path: Path, tmp_path: Path):
    tokenizer = learn_vocabulary([stories_path], 330, tmp_path / "deep" / "vocabulary")
    text = "Lily had 3 apples.\n  So did é."
    assert sorted(path.name for path in (tmp_path / "deep" / "vocabulary").iterdir()) == sorted(NAMES)
    for name in NAMES[:2]:
        assert read_tokenizer(tmp_path / "deep" / "vocabulary" / name).encode(text) == tokenizer.encode(text)


def test_reports_stand_under_the_names_of_their_files(stories_path: Path, tokenizer_path: Path):
    reports = report_vocabularies([stories_path], [tokenizer_path])
    assert list(reports) == [str(tokenizer_path)]
    assert reports[str(tokenizer_path)].vocab_size == 330
    assert reports[str(tokenizer_path)].bytes_per_token > 1.5


def test_a_folder_that_cannot_be_made_is_one_line(stories_path: Path):
    with pytest.raises(DataError, match="expected a folder where you may write"):
        learn_vocabulary([stories_path], 330, stories_path / "out")
