"""Chats become a folder of examples whose counted tokens are the answers; what cannot be learned is counted, told or stops."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from llamita.data.chat_options import ChatOptions
from llamita.data.chats import prepare_chats, refusal_of_system, summary
from llamita.data.examples import ChatData, Examples, open_chats
from llamita.data.progress import Progress
from llamita.errors import DataError, SettingError
from llamita.formats import read_tokenizer
from llamita.tokenizer import Tokenizer
from llamita.tokenizer.added_tokens import with_special_tokens
from llamita.tokenizer.chat_template import open_template
from llamita.tokenizer.library import LibraryTokenizer
from llamita.tokenizer.spelled import spelled
from small_vocabularies import byte_level

Chat = list[tuple[str, str]]
RHYMES = {"role": "system", "content": "In rhymes."}
NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
DEAF = NO_SYSTEM.replace("{{ raise_exception('System role not supported') }}", "{% continue %}")


class Told(Progress):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.done: list[tuple[int, int]] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def update(self, done_bytes: int, total_bytes: int) -> None:
        self.done.append((done_bytes, total_bytes))


@pytest.fixture(scope="module")
def tokenizer(tokenizer_path: Path) -> Tokenizer:
    return with_special_tokens(read_tokenizer(tokenizer_path), ["<|im_start|>", "<|im_end|>"])


def record(i: int, question: str = "") -> dict:
    question = question or f"How many apples has Lily on day {i}?"
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": f"She has {i}."}]}


def write(path: Path, records: Sequence[object]) -> Path:
    path.write_text("".join(json.dumps(each) + "\n" for each in records), encoding="utf-8")
    return path


@pytest.fixture
def prepare(tmp_path: Path, tokenizer: Tokenizer) -> Callable:
    """Prepare records into a new folder: the data, and what was told."""

    def run(records: Sequence[object], template: str = "chatml", out: str = "out", tokenizer=tokenizer, **options):
        told = Told()
        path = write(tmp_path / "chats.jsonl", records)
        settings = ChatOptions(**options)
        folder = prepare_chats([path], open_template(template, tokenizer), tokenizer, tmp_path / out, settings, told)
        return open_chats(folder), told.lines

    return run


def test_chats_to_measure_on_may_be_given(tmp_path: Path, tokenizer: Tokenizer):
    learned, held = [record(i) for i in range(12)], [record(i) for i in (3, 20, 21)]
    paths = [write(tmp_path / name, records) for name, records in (("learn.jsonl", learned), ("held.jsonl", held))]
    template, told = open_template("chatml", tokenizer), Told()

    def make(out: str, sources: Sequence[Path], validation: Sequence[Path]) -> ChatData:
        folder = tmp_path / out
        return open_chats(prepare_chats(sources, template, tokenizer, folder, ChatOptions(), told, validation))

    data = make("out", paths[:1], paths[1:])
    assert sorted(answers(data.validation, tokenizer)) == sorted(f"She has {i}.<|im_end|>" for i in (3, 20, 21))
    assert sorted(answers(data.train, tokenizer)) == sorted(f"She has {i}.<|im_end|>" for i in range(12) if i != 3)
    assert told.lines[-1] == "left out: 1 duplicate"  # not to be learned, as it is measured on
    assert make("out", paths[:1], paths[1:]).fingerprint == data.fingerprint
    assert told.lines[-1].endswith("prepared already")
    with pytest.raises(DataError, match="found examples of other chats"):
        make("out", paths[:1], [])
    with pytest.raises(DataError, match="found all of those to learn among those that validate"):
        make("same", paths[1:], paths[1:])
    empty = write(tmp_path / "empty.jsonl", [])
    with pytest.raises(DataError, match=r"empty\.jsonl: found no chats"):
        make("none", paths[:1], [empty])


def answers(examples: Examples, tokenizer: Tokenizer) -> list[str]:
    """What is counted, stretch by stretch."""
    pairs = [(examples.ids(i).tolist(), examples.counted(i).tolist()) for i in range(examples.n_examples)]
    return [text for ids, counted in pairs for text, flag in spelled(tokenizer, ids, counted) if flag]


def test_the_counted_tokens_are_the_answers_and_the_ids_those_of_the_template(prepare: Callable, tokenizer: Tokenizer):
    records = [record(i) for i in range(20)]
    data, lines = prepare(records, validation_share=0.2)
    template = open_template("chatml", tokenizer)
    expected = [template.encode(each["messages"], False) for each in records]
    found = [side.ids(i).tolist() for side in (data.train, data.validation) for i in range(side.n_examples)]
    assert sorted(found) == sorted(expected)
    assert (data.train.n_examples, data.validation.n_examples) == (16, 4)
    said = answers(data.train, tokenizer) + answers(data.validation, tokenizer)
    assert sorted(said) == sorted(f"She has {i}.<|im_end|>" for i in range(20))
    assert lines[0].endswith("chats.jsonl: the shape is openai, by the first record")
    assert lines[-1].startswith("16 examples to learn (")


def test_the_sides_know_how_much_they_hold(prepare: Callable, tokenizer: Tokenizer):
    data, _ = prepare([record(i) for i in range(30)])
    for side in (data.train, data.validation):
        flags = [side.counted(i) for i in range(side.n_examples)]
        assert side.lengths.tolist() == [len(each) for each in flags] == [len(side.ids(i)) for i in range(side.n_examples)]
        assert side.lengths.dtype == side.ids(0).dtype == np.int64
        assert flags[0].dtype == bool
        assert side.n_tokens == side.lengths.sum()
        assert side.n_counted == sum(int(each.sum()) for each in flags)
        assert side.n_bytes == sum(len(text.replace("<|im_end|>", "").encode()) for text in answers(side, tokenizer))


def test_the_folder_holds_the_tokenizer_and_the_template(prepare: Callable, tokenizer: Tokenizer):
    data, _ = prepare([record(i) for i in range(4)])
    again = read_tokenizer(data.folder / data.manifest.tokenizer)
    assert again.special_tokens == tokenizer.special_tokens
    config = json.loads((data.folder / "tokenizer_config.json").read_text())
    talk = record(3)["messages"]
    assert open_template(config["chat_template"], again).encode(talk) == open_template("chatml", tokenizer).encode(talk)
    assert (data.manifest.bos_id, data.manifest.eos_id, data.manifest.vocab_size) == (1, 2, tokenizer.vocab_size)
    assert data.manifest.template == "chatml"


def test_the_same_recipe_does_nothing_and_another_is_refused(prepare: Callable, tokenizer: Tokenizer):
    records = [record(i) for i in range(9)]
    first, _ = prepare(records)
    before = {path.name: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    told = Told()
    settings, source = ChatOptions(), first.folder.parent / "chats.jsonl"
    prepare_chats([source], open_template("chatml", tokenizer), tokenizer, first.folder, settings, told)
    assert told.lines == [f"{first.folder}: prepared already"]
    assert {path.name: path.stat().st_mtime_ns for path in first.folder.iterdir()} == before
    for changed in (ChatOptions(seed=7), ChatOptions(mask="all"), ChatOptions(context=50)):
        with pytest.raises(DataError, match="found examples of other chats"):
            prepare_chats([source], open_template("chatml", tokenizer), tokenizer, first.folder, changed)
    with pytest.raises(DataError, match="found examples of other chats"):
        prepare_chats([source], open_template("zephyr", tokenizer), tokenizer, first.folder, settings)


def test_equal_chats_give_equal_folders_wherever_they_lie(prepare: Callable):
    records = [record(i) for i in range(9)]
    one, _ = prepare(records, out="one")
    other, _ = prepare(records, out="other")
    assert one.fingerprint == other.fingerprint
    assert prepare(records, out="third", seed=3)[0].fingerprint != one.fingerprint
    assert prepare(records[:8], out="fourth")[0].fingerprint != one.fingerprint


def test_what_an_interrupted_run_left_is_written_over(prepare: Callable, tmp_path: Path):
    parts = tmp_path / "out" / ".parts"
    parts.mkdir(parents=True)
    (parts / "spool.tokens.bin").write_bytes(b"rubbish")
    data, _ = prepare([record(i) for i in range(4)])
    assert data.train.n_examples + data.validation.n_examples == 4
    assert not parts.exists()


def test_duplicates_are_left_out_and_counted(prepare: Callable):
    data, lines = prepare([record(i) for i in (1, 2, 1, 3, 1, 2)])
    assert data.train.n_examples + data.validation.n_examples == 3
    assert data.manifest.n_duplicates == 3
    assert "left out: 3 duplicates" in lines


def test_one_question_stands_on_one_side_only(prepare: Callable, tokenizer: Tokenizer):
    records = [record(10 * i + j, f"Question {i}?") for i in range(20) for j in range(3)]
    data, _ = prepare(records, validation_share=0.2)
    sides = (
        {tokenizer.decode(side.ids(i)).partition("She")[0] for i in range(side.n_examples)}
        for side in (data.train, data.validation)
    )
    train, validation = sides
    assert data.validation.n_examples == 12
    assert not train & validation


def test_where_all_ask_the_same_both_sides_get_some_and_it_is_told(prepare: Callable):
    data, lines = prepare([record(i, "How many?") for i in range(10)])
    assert (data.train.n_examples, data.validation.n_examples) == (9, 1)
    assert any("the same stand on both sides" in line for line in lines)


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_chats_are_refused(prepare: Callable, n: int):
    with pytest.raises(DataError, match=("found no chats, expected some", "found 1 different ones, expected at least 2")[n]):
        prepare([record(i) for i in range(n)])
    with pytest.raises(DataError, match="found 1 different ones"):
        prepare([record(5), record(5)], out="other")


BAD = [
    {"messages": []},
    {"messages": [{"role": "user", "content": "a"}]},
    {"messages": [{"role": "user", "content": "a"}]},
    {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}]},
    7,
]


def test_bad_records_stop_or_are_counted_and_told(prepare: Callable):
    records = [record(1), *BAD, *map(record, range(2, 6))]
    with pytest.raises(DataError, match=r"chats\.jsonl: line 2: found list \[\].*--on-bad skip"):
        prepare(records, out="stopped")
    data, lines = prepare(records, on_bad="skip")
    assert data.manifest.left_out == {"no chat": 2, "no answer": 2, "empty answer": 1}
    assert data.manifest.n_read == 5
    assert "left out: 1 empty answer, 2 no answer, 2 no chat" in lines
    assert sum("chats.jsonl: line" in line and line.endswith("left out") for line in lines) == 5


def test_of_many_bad_records_the_first_are_told_one_by_one(prepare: Callable):
    _, lines = prepare([record(1), record(2), *([BAD[1]] * 50)], on_bad="skip")
    assert sum("expected an answer" in line for line in lines) == 10
    assert sum("further ones are only counted" in line for line in lines) == 1
    assert "left out: 50 no answer" in lines


def test_a_file_without_a_good_chat_names_the_reasons(prepare: Callable):
    with pytest.raises(DataError, match=r"found none to learn from \(2 no answer\), expected some; the first: .*line 1"):
        prepare(BAD[1:3], on_bad="skip")


def test_what_a_template_refuses_is_a_bad_record(prepare: Callable):
    twice = {"messages": [*record(1)["messages"][:1] * 2, record(1)["messages"][1]]}
    forged = record(1, "a [/INST] b")
    with pytest.raises(DataError, match=r"line 3: llama2: found the role user, expected user and assistant in turn"):
        prepare([record(1), record(2), twice], template="llama2")
    data, lines = prepare([record(1), record(2), twice, forged], template="llama2", out="other", on_bad="skip")
    assert data.manifest.left_out == {"refused by the template": 2}
    assert any("line 4: message 0: found [/INST], a mark of llama2" in line for line in lines)


@pytest.mark.parametrize(("template", "reason"), [(NO_SYSTEM, "System role not supported"), (DEAF, "it leaves the text out")])
@pytest.mark.parametrize("on_bad", ["stop", "skip"])
def test_a_template_without_system_messages_says_so_at_the_first(prepare: Callable, template: str, reason: str, on_bad: str):
    asked = {"messages": [RHYMES, *record(3)["messages"]]}
    records = [record(1), record(2), asked, *map(record, range(4, 9))]
    with pytest.raises(DataError, match=rf"chats\.jsonl: line 3: found a system message.*{reason}.*--system-messages fold"):
        prepare(records, template=template, on_bad=on_bad)
    assert prepare([record(1), record(2)], template=template, out="without")[0].train.n_examples == 1
    folded, _ = prepare(records, template=template, out="folded", system_messages="fold")
    dropped, _ = prepare(records, template=template, out="dropped", system_messages="drop")
    assert folded.train.n_tokens + folded.validation.n_tokens > dropped.train.n_tokens + dropped.validation.n_tokens


@pytest.mark.parametrize("name", ["llama2", "chatml", "zephyr", "story"])
def test_the_named_templates_can_write_a_system_message(name: str, tokenizer: Tokenizer):
    assert refusal_of_system(open_template(name, tokenizer)) == ""


def test_long_chats_are_cut_or_dropped_and_counted(prepare: Callable):
    long, longer = record(1), record(2, "Why? " * 40)
    long["messages"][1]["content"] = "Because. " * 40
    records = [long, longer, *map(record, range(3, 9))]
    cut, lines = prepare(records, context=60)
    assert max(cut.train.lengths.max(), cut.validation.lengths.max()) == 60
    assert cut.manifest.n_cut == 1
    assert cut.manifest.left_out == {"no answer within the context": 1}
    assert "1 cut at the end, as they are longer than the context" in lines
    assert any("line 2: found no answer among the first 60 of" in line for line in lines)
    dropped, _ = prepare(records, context=60, too_long="drop", out="dropped")
    assert dropped.manifest.left_out == {"longer than the context": 2}
    assert dropped.train.n_examples + dropped.validation.n_examples == 6


def test_all_tokens_but_the_first_may_be_learned(prepare: Callable):
    data, _ = prepare([record(i) for i in range(5)], mask="all")
    assert data.train.n_counted == data.train.n_tokens - data.train.n_examples
    assert not any(data.train.counted(i)[0] for i in range(data.train.n_examples))


def test_every_answer_of_a_talk_counts(prepare: Callable, tokenizer: Tokenizer):
    talks = [{"messages": record(i)["messages"] + record(i + 50, "And then?")["messages"]} for i in range(4)]
    data, _ = prepare(talks)
    said = answers(data.train, tokenizer) + answers(data.validation, tokenizer)
    assert len(said) == 8


def test_pairs_lie_one_behind_the_other_and_never_apart(prepare: Callable, tokenizer: Tokenizer):
    records = [{"prompt": f"Is {i} even?", "chosen": f"{i} yes", "rejected": f"{i} no, no"} for i in range(12)]
    data, lines = prepare([*records, records[0]], kind="pairs", validation_share=0.25)
    assert (data.train.n_examples, data.validation.n_examples) == (18, 6)
    assert data.manifest.n_duplicates == 1
    for side in (data.train, data.validation):
        said = answers(side, tokenizer)
        for chosen, rejected in zip(said[::2], said[1::2], strict=True):
            assert chosen.replace("yes", "no, no") == rejected
        for i in range(0, side.n_examples, 2):
            n_prompt = int(side.counted(i).argmax())
            assert side.ids(i)[:n_prompt].tolist() == side.ids(i + 1)[:n_prompt].tolist()
    assert lines[-2].startswith("9 pairs to learn (")


def test_pairs_that_do_not_fit_are_dropped_together(prepare: Callable):
    records = [{"prompt": f"Is {i} even?", "chosen": "yes", "rejected": "no"} for i in range(5)]
    records.append({"prompt": "Is it even? " * 30, "chosen": "yes", "rejected": "no"})
    records.append({"prompt": "Is it?", "chosen": "well, " * 40 + "yes", "rejected": "well, " * 40 + "no"})
    data, _ = prepare(records, kind="pairs", context=60)
    assert data.manifest.left_out == {"no answer within the context": 2}
    assert data.train.n_examples + data.validation.n_examples == 10


def test_placeholders_without_a_value_are_told(prepare: Callable):
    records = [{"instruction": f"Who are you, {i}?", "output": "I am {{name}} of {{author}}."} for i in range(4)]
    _, lines = prepare(records, values={"author": "us"})
    assert "{{name}} stands in 4 chats and stays as it is; fill it with --set name=TEXT" in lines
    assert not any("author" in line for line in lines)


def test_answers_that_end_in_no_token_are_told(prepare: Callable):
    endless = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
    )
    _, lines = prepare([record(i) for i in range(4)], template=endless)
    assert any(line.startswith("4 examples end in no token that ends an answer") for line in lines)
    _, lines = prepare([record(i) for i in range(4)], out="other")
    assert not any("end in no token" in line for line in lines)


def test_a_template_may_make_several_examples_of_a_talk(prepare: Callable, tokenizer: Tokenizer):
    forgets = NO_SYSTEM.replace("{{ m.content }}", "{{ m.content if loop.last else m.content.split('#')[-1] }}")
    talks = [{"messages": record(i, f"a{i}")["messages"] + record(i, f"b{i}")["messages"]} for i in range(3)]
    for talk in talks:
        talk["messages"][1]["content"] = "think#" + talk["messages"][1]["content"]
    data, _ = prepare(talks, template=forgets)
    assert data.manifest.n_read == 3
    assert data.train.n_examples + data.validation.n_examples == 6
    assert sum("think#" in text for side in (data.train, data.validation) for text in answers(side, tokenizer)) == 3


def test_large_vocabularies_take_four_bytes_a_token(prepare: Callable, tmp_path: Path):
    library = LibraryTokenizer(byte_level(marks=("<s>", "</s>", "<|im_start|>", "<|im_end|>"))).with_ends(700, 701, False)
    data, _ = prepare([record(i) for i in range(5)], tokenizer=library.with_padding(1 << 17))
    assert data.manifest.dtype == "uint32"
    assert (tmp_path / "out" / "train.tokens.bin").stat().st_size == 4 * data.train.n_tokens
    assert data.train.ids(0)[0] == 702


def test_of_many_files_the_first_and_each_new_shape_are_told(tmp_path: Path, tokenizer: Tokenizer):
    folder, told = tmp_path / "chats", Told()
    folder.mkdir()
    for i in range(14):
        write(folder / f"{i:02}.jsonl", [record(i)] if i != 12 else [{"prompt": "a", "completion": "b"}])
    manifest = open_chats(
        prepare_chats([folder], open_template("chatml", tokenizer), tokenizer, tmp_path / "out", ChatOptions(), told)
    ).manifest
    said = [Path(line.partition(":")[0]).name for line in told.lines if ": the shape is" in line]
    assert said == [*(f"{i:02}.jsonl" for i in range(10)), "12.jsonl"]
    assert len(manifest.shapes) == 14


def test_progress_comes_to_its_end(tmp_path: Path, tokenizer: Tokenizer):
    told = Told()
    path = write(tmp_path / "a.jsonl", [record(i) for i in range(50)])
    prepare_chats([path], open_template("chatml", tokenizer), tokenizer, tmp_path / "out", ChatOptions(), told)
    assert told.done[-1] == (path.stat().st_size, path.stat().st_size)
    assert all(a <= b for (a, _), (b, _) in zip(told.done, told.done[1:], strict=False))


def test_a_folder_where_nobody_may_write_is_one_line(tmp_path: Path, tokenizer: Tokenizer):
    path = write(tmp_path / "a.jsonl", [record(i) for i in range(5)])
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="expected a folder where you may write"):
        prepare_chats([path], open_template("chatml", tokenizer), tokenizer, tmp_path / "file" / "out", ChatOptions())
    with pytest.raises(SettingError, match="context: found 0"):
        prepare_chats([path], open_template("chatml", tokenizer), tokenizer, tmp_path / "out", ChatOptions(context=0))


def test_the_summary_says_what_was_left_out(prepare: Callable):
    data, lines = prepare([record(i) for i in (1, 2, 3, 3)])
    assert lines[-2:] == summary(data.manifest)
    assert summary(data.manifest)[1] == "left out: 1 duplicate"
