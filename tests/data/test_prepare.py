"""Text to token shards: the right tokens, the same bytes however the work goes, and nothing half done."""

from pathlib import Path

import numpy as np
import pytest

from llamita.data import prepare as prepare_module
from llamita.data import split
from llamita.data.prepare import PrepareOptions, prepare
from llamita.data.progress import Progress
from llamita.data.shards import open_dataset
from llamita.data.sources import ReadOptions
from llamita.errors import DataError, ModelFileError
from llamita.formats import read_tokenizer, write_tokenizer
from stories import story


class Listener(Progress):
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.updates: list[tuple[int, int]] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def update(self, done_bytes: int, total_bytes: int) -> None:
        self.updates.append((done_bytes, total_bytes))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def texts_in(folder: Path, side: str) -> list[str]:
    """The documents of a side, out of its tokens."""
    dataset = open_dataset(folder)
    tokenizer = read_tokenizer(folder / dataset.manifest.tokenizer)
    stream = dataset.train if side == "train" else dataset.validation
    tokens = stream.windows(np.array([0]), stream.n_tokens)[0]
    parts = np.split(tokens, np.flatnonzero(tokens == tokenizer.bos_id))
    return [tokenizer.decode(part.tolist()) for part in parts if len(part)]


def test_every_story_is_there_once_and_decodes_to_itself(stories_path: Path, tokenizer_path: Path, tmp_path: Path):
    manifest = prepare([stories_path], tokenizer_path, tmp_path / "out")
    train, validation = texts_in(tmp_path / "out", "train"), texts_in(tmp_path / "out", "validation")
    assert sorted(train + validation) == sorted(map(story, range(300)))
    assert (manifest.train.n_documents, manifest.validation.n_documents) == (len(train), len(validation))
    assert manifest.train.n_bytes == sum(len(text.encode()) for text in train)
    assert manifest.detected == {str(stories_path): "<|endoftext|> ends a document"}


def test_the_tokens_are_those_of_the_tokenizer(stories_path: Path, tokenizer_path: Path, tmp_path: Path):
    prepare([stories_path], tokenizer_path, tmp_path / "out")
    tokenizer = read_tokenizer(tokenizer_path)
    expected = [token_id for text in texts_in(tmp_path / "out", "train") for token_id in tokenizer.encode(text, bos=True)]
    assert np.fromfile(tmp_path / "out" / "train-00000.bin", "<u2").tolist() == expected


def test_workers_and_shards_of_any_number_hold_the_same(stories_path: Path, tokenizer_path: Path, tmp_path: Path, monkeypatch):
    one = prepare([stories_path], tokenizer_path, tmp_path / "one")
    monkeypatch.setattr(split, "BATCH_BYTES", 5000)
    monkeypatch.setattr(prepare_module, "_SHARD_BYTES", 3000)
    many = prepare([stories_path], tokenizer_path, tmp_path / "many", PrepareOptions(workers=2))
    assert len(one.train.shards) == 1 < len(many.train.shards)
    joined = b"".join((tmp_path / "many" / shard.name).read_bytes() for shard in many.train.shards)
    assert joined == (tmp_path / "one" / "train-00000.bin").read_bytes()


def test_a_finished_folder_is_left_as_it_is(stories_path: Path, tokenizer_path: Path, tmp_path: Path):
    manifest = prepare([stories_path], tokenizer_path, tmp_path / "out")
    times = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    tokenizers = {"tokenizer.model", "tokenizer.bin", "tokenizer.json"}
    assert set(times) == {"manifest.json", "train-00000.bin", "validation-00000.bin"} | tokenizers
    listener = Listener()
    assert prepare([stories_path], tokenizer_path, tmp_path / "out", progress=listener) == manifest
    assert listener.lines == [f"{tmp_path / 'out'}: prepared already"]
    assert times == {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}


def test_parts_of_another_text_are_not_taken_for_this_one(
    stories_path: Path, tokenizer_path: Path, tmp_path: Path, monkeypatch
):
    monkeypatch.setattr(prepare_module, "_SHARD_BYTES", 3000)
    monkeypatch.setattr(split, "BATCH_BYTES", 5000)
    with monkeypatch.context() as patches:
        patches.setattr(prepare_module, "write_manifest", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            prepare([stories_path], tokenizer_path, tmp_path / "out")
    stories = [story(i) if i % 9 else story(i + 1000) for i in range(250)]
    stories_path.write_text("\n<|endoftext|>\n".join([story(1), *stories[2:]]))
    prepare([stories_path], tokenizer_path, tmp_path / "out")
    prepare([stories_path], tokenizer_path, tmp_path / "clean")
    assert contents(tmp_path / "out") == contents(tmp_path / "clean")


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_folder_of_other_text_is_refused(stories_path: Path, tokenizer_path: Path, tmp_path: Path):
    prepare([stories_path], tokenizer_path, tmp_path / "out")
    for change in (PrepareOptions(ReadOptions(separator="line")), PrepareOptions(validation=(str(stories_path),))):
        with pytest.raises(DataError, match="other text, another tokenizer or other settings"):
            prepare([stories_path], tokenizer_path, tmp_path / "out", change)
    stories_path.write_text("other text")
    with pytest.raises(DataError, match="other text, another tokenizer or other settings"):
        prepare([stories_path], tokenizer_path, tmp_path / "out")


def test_validation_text_may_be_given(stories_path: Path, tokenizer_path: Path, tmp_path: Path):
    held_out = tmp_path / "held_out.jsonl"
    held_out.write_text('{"text": "A new story."}\n{"text": "Another."}\n')
    manifest = prepare([stories_path], tokenizer_path, tmp_path / "out", PrepareOptions(validation=(str(held_out),)))
    assert texts_in(tmp_path / "out", "validation") == ["A new story.", "Another."]
    assert len(texts_in(tmp_path / "out", "train")) == 300
    assert (manifest.overlap.n_documents, manifest.overlap.run_share) == (0, 0.0)


def test_validation_text_that_the_training_text_holds_is_reported(stories_path: Path, tokenizer_path: Path, tmp_path: Path):
    held_out = tmp_path / "held_out.jsonl"
    held_out.write_text('{"text": "A new story."}\n' + f'{{"text": "{story(7)}"}}\n'.replace("\n", "\\n", 2))
    manifest = prepare([stories_path], tokenizer_path, tmp_path / "out", PrepareOptions(validation=(str(held_out),)))
    assert manifest.overlap.n_documents == 1
    assert manifest.overlap.run_share > 0.7


@pytest.mark.parametrize("name", ["tokenizer.model", "tokenizer.bin", "other.model"])
def test_the_tokenizer_is_copied_and_written_for_other_programs(
    stories_path: Path, tokenizer_path: Path, tmp_path: Path, name: str
):
    named = tmp_path / name
    write_tokenizer(read_tokenizer(tokenizer_path), named)
    manifest = prepare([stories_path], named, tmp_path / "out")
    assert manifest.tokenizer == f"tokenizer{named.suffix}"
    assert (tmp_path / "out" / manifest.tokenizer).read_bytes() == named.read_bytes()
    for written in ("tokenizer.model", "tokenizer.bin"):
        assert read_tokenizer(tmp_path / "out" / written).encode("Lily ran.") == read_tokenizer(named).encode("Lily ran.")


def test_progress_comes_to_its_end(stories_path: Path, tokenizer_path: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(split, "BATCH_BYTES", 5000)
    listener = Listener()
    manifest = prepare([stories_path], tokenizer_path, tmp_path / "out", progress=listener)
    done = [done_bytes for done_bytes, _ in listener.updates]
    assert done == sorted(done)
    assert done[-1] == manifest.train.n_bytes + manifest.validation.n_bytes
    assert listener.updates[0][1] == stories_path.stat().st_size
    assert listener.lines == [f"{stories_path}: <|endoftext|> ends a document"]


def test_nothing_to_read_is_one_line(tokenizer_path: Path, tmp_path: Path):
    (tmp_path / "empty.txt").touch()
    with pytest.raises(DataError, match=r"empty\.txt: found no documents for train"):
        prepare([tmp_path / "empty.txt"], tokenizer_path, tmp_path / "out")


def test_the_result_must_not_lie_in_the_text(stories_path: Path, tokenizer_path: Path, tmp_path: Path):
    with pytest.raises(DataError, match="expected a folder apart from the text"):
        prepare([stories_path.parent], tokenizer_path, tmp_path / "out")


def test_a_tokenizer_that_is_none_is_refused(stories_path: Path, tmp_path: Path):
    with pytest.raises(DataError, match="found no tokenizer"):
        prepare([stories_path], tmp_path / "nowhere.model", tmp_path / "out")
    with pytest.raises(ModelFileError):
        prepare([stories_path], stories_path, tmp_path / "out")


def test_a_file_in_place_of_the_folder_is_refused(stories_path: Path, tokenizer_path: Path):
    with pytest.raises(DataError, match="expected a folder where you may write"):
        prepare([stories_path], tokenizer_path, stories_path)
