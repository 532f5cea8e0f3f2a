"""Special tokens are added to every kind of vocabulary, and every file keeps them and their being special."""

import json
from pathlib import Path

import pytest

from llamita.errors import TokenizerError
from llamita.formats import read_tokenizer, write_tokenizer
from llamita.formats.gguf_vocabulary import read_vocabulary, vocabulary_metadata
from llamita.formats.tokenizer_files import huggingface_files
from llamita.tokenizer import Tokenizer
from llamita.tokenizer.added_tokens import missing_marks, n_tokens, with_special_tokens
from llamita.tokenizer.chat_template import open_template
from llamita.tokenizer.conversion import to_llama2c
from llamita.tokenizer.huggingface import serialize_tokenizer_json
from llamita.tokenizer.library import LibraryTokenizer
from llamita.tokenizer.llama2c import Llama2cTokenizer
from llamita.tokenizer.sentencepiece import NORMAL, USER_DEFINED, SentencePieceTokenizer, parse_sentencepiece
from small_vocabularies import byte_level

MARKS = ["<|im_start|>", "<|im_end|>"]
TEXT = "Once upon a time, <|im_start|>there <|im_end|> was </s> 日本 😀  two  spaces\n\nend"
TALK = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": TEXT},
    {"role": "assistant", "content": " <|im_end|>Hi!"},
    {"role": "user", "content": "So?"},
]


@pytest.fixture(scope="module")
def vocabularies(toy_sentencepiece_bytes: bytes) -> dict[str, Tokenizer]:
    """One of each kind, without the marks."""
    toy = parse_sentencepiece(toy_sentencepiece_bytes, "toy")
    library = LibraryTokenizer(byte_level(marks=("<s>", "</s>")))
    scored = LibraryTokenizer(json.loads(serialize_tokenizer_json(toy)))
    return {
        "sentencepiece": toy,
        "llama2c": to_llama2c(toy),
        "byte-level": library.with_ends(library.token_id("<s>"), library.token_id("</s>"), adds_bos=True),
        "scored json": scored.with_ends(1, 2, adds_bos=True),
    }


KINDS = ("sentencepiece", "llama2c", "byte-level", "scored json")


def check_same(tokenizer: Tokenizer, again: Tokenizer) -> None:
    """Texts, marked texts and chats get the same ids, and the marks are special."""
    assert again.vocab_size == tokenizer.vocab_size
    assert {mark: again.special_tokens.get(mark) for mark in MARKS} == {mark: tokenizer.special_tokens[mark] for mark in MARKS}
    assert again.encode(TEXT) == tokenizer.encode(TEXT)
    assert again.encode_marked(TEXT) == tokenizer.encode_marked(TEXT)
    assert all(again.piece_bytes(again.special_tokens[mark]) == b"" for mark in MARKS)
    named, other = (open_template("chatml", each) for each in (tokenizer, again))
    assert other.encode(TALK) == named.encode(TALK)
    assert other.stop_ids == named.stop_ids
    assert other.encode_answers(TALK) == named.encode_answers(TALK)


@pytest.mark.parametrize("kind", KINDS)
def test_new_marks_have_the_next_ids_and_texts_keep_theirs(kind: str, vocabularies):
    plain = vocabularies[kind]
    assert missing_marks("chatml", plain) == MARKS
    tokenizer = with_special_tokens(plain, MARKS)
    assert [tokenizer.special_tokens[mark] for mark in MARKS] == [plain.vocab_size, plain.vocab_size + 1]
    assert missing_marks("chatml", tokenizer) == []
    assert tokenizer.encode(TEXT) == plain.encode(TEXT)
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT
    assert tokenizer.encode_marked("a<|im_end|>b") == [
        *plain.encode("a"), tokenizer.special_tokens["<|im_end|>"], *plain.encode("b")
    ]  # fmt: skip
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.adds_bos) == (plain.bos_id, plain.eos_id, plain.adds_bos)
    assert with_special_tokens(tokenizer, MARKS) is tokenizer


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ending", [".bin", ".model", ".json"])
def test_marks_survive_every_file_of_a_tokenizer(kind: str, ending: str, vocabularies, tmp_path: Path):
    tokenizer = with_special_tokens(vocabularies[kind], MARKS)
    path = tmp_path / f"tokenizer{ending}"
    if kind == "byte-level" and ending != ".json":
        with pytest.raises(TokenizerError):
            write_tokenizer(tokenizer, path)
        return
    write_tokenizer(tokenizer, path)
    again = read_tokenizer(path)
    check_same(tokenizer, again)
    write_tokenizer(again, tmp_path / "again.json")  # and from there into another kind
    check_same(tokenizer, read_tokenizer(tmp_path / "again.json"))


@pytest.mark.parametrize("kind", KINDS)
def test_marks_survive_each_file_of_a_hugging_face_folder_by_itself(kind: str, vocabularies, tmp_path: Path):
    tokenizer = with_special_tokens(vocabularies[kind], MARKS)
    files = huggingface_files(tokenizer, 512)
    names = [name for name in files if name != "tokenizer_config.json"]
    is_library = kind in ("byte-level", "scored json")
    assert names == (["tokenizer.json"] if is_library else ["tokenizer.model", "tokenizer.bin", "tokenizer.json"])
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    for name in names:
        check_same(tokenizer, read_tokenizer(tmp_path / name))
    assert json.loads(files["tokenizer_config.json"])["additional_special_tokens"] == MARKS


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_more", [0, 7])
def test_marks_survive_gguf(kind: str, n_more: int, vocabularies):
    tokenizer = with_special_tokens(vocabularies[kind], MARKS)
    metadata = vocabulary_metadata(tokenizer, tokenizer.vocab_size + n_more)
    assert [metadata["tokenizer.ggml.token_type"][tokenizer.special_tokens[mark]] for mark in MARKS] == [3, 3]  # type: ignore[index]
    again = read_vocabulary(metadata, "memory")
    assert again is not None
    assert again.vocab_size == tokenizer.vocab_size + n_more
    assert again.encode(TEXT) == tokenizer.encode(TEXT)
    assert open_template("chatml", again).encode(TALK) == open_template("chatml", tokenizer).encode(TALK)


def test_run_c_can_never_merge_to_a_mark(vocabularies):
    """In its dictionary stand "<a" and ">", and of pairs that make a piece the one of the highest score is merged first."""
    toy = vocabularies["sentencepiece"]
    pieces = [*toy.pieces, "<a", ">"]
    source = SentencePieceTokenizer(pieces, [*toy.scores, -500.0, -501.0], [*toy.types, NORMAL, NORMAL], toy.rules)
    tokenizer = to_llama2c(with_special_tokens(source, ["<a>"]))
    assert tokenizer.special_tokens["<a>"] == len(pieces)
    assert len(pieces) not in tokenizer.encode("x<a>y")
    assert tokenizer.pieces[len(pieces)] == b"<a>"  # what run.c prints


def test_padding_in_a_tokenizer_bin_is_no_mark(vocabularies):
    padded = to_llama2c(vocabularies["sentencepiece"].with_padding(410))
    assert padded.vocab_size == 410
    assert set(padded.special_tokens) == {"<unk>", "<s>", "</s>"}


def with_rows_to_spare(tokenizer: Tokenizer, n: int) -> Tokenizer:
    assert isinstance(tokenizer, LibraryTokenizer | SentencePieceTokenizer)
    return tokenizer.with_padding(tokenizer.vocab_size + n)


@pytest.mark.parametrize("kind", ["sentencepiece", "byte-level", "scored json"])
def test_rows_to_spare_are_taken_first(kind: str, vocabularies):
    plain = vocabularies[kind]
    for n_spare, n_rows in ((5, plain.vocab_size + 5), (1, plain.vocab_size + 2)):
        tokenizer = with_special_tokens(with_rows_to_spare(plain, n_spare), MARKS)
        assert n_tokens(tokenizer) == plain.vocab_size + 2
        assert tokenizer.vocab_size == n_rows
        assert tokenizer.special_tokens["<|im_start|>"] == plain.vocab_size
        assert tokenizer.piece_bytes(n_rows - 1) == b""


def piece_that_is_text(vocabulary: Tokenizer, kind: int) -> Tokenizer:
    assert isinstance(vocabulary, SentencePieceTokenizer)
    types = [*vocabulary.types, kind]
    return SentencePieceTokenizer([*vocabulary.pieces, "<|im_end|>"], [*vocabulary.scores, -9.0], types, vocabulary.rules)


@pytest.mark.parametrize("kind", [NORMAL, USER_DEFINED])
def test_a_piece_that_was_text_becomes_special_and_keeps_its_id(kind: int, vocabularies):
    plain = piece_that_is_text(vocabularies["sentencepiece"], kind)
    tokenizer = with_special_tokens(plain, MARKS)
    assert [tokenizer.special_tokens[mark] for mark in MARKS] == [401, 400]
    assert 400 not in tokenizer.encode("a <|im_end|>")


@pytest.mark.parametrize("is_added", [True, False])
def test_a_token_of_a_tokenizer_json_that_was_text_becomes_special_and_keeps_its_id(is_added: bool):
    content = byte_level(marks=("<|im_end|>",) if is_added else ())
    n = len(content["model"]["vocab"])
    if is_added:
        content["added_tokens"][0]["special"] = False
    else:
        content["model"]["vocab"]["<|im_end|>"] = n
    tokenizer = with_special_tokens(LibraryTokenizer(content), MARKS)
    assert [tokenizer.special_tokens[mark] for mark in MARKS] == [n + 1, n]
    assert n not in tokenizer.encode("a <|im_end|>")


def test_what_else_a_tokenizer_json_says_is_kept(vocabularies, tmp_path: Path):
    content = vocabularies["byte-level"].content() | {"truncation": None, "version": "1.0"}
    content["post_processor"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    tokenizer = with_special_tokens(read_tokenizer(tmp_path / "tokenizer.json"), MARKS)
    written = json.loads(serialize_tokenizer_json(tokenizer))
    added = written.pop("added_tokens")
    assert [entry["content"] for entry in added] == ["<s>", "</s>", *MARKS]
    assert written == {name: value for name, value in content.items() if name != "added_tokens"}


@pytest.mark.parametrize("mark", ["", "x", "a b", "a\nb", "\x00\x01", "<" * 65, "a\u2028b"])
def test_what_can_be_no_mark_is_refused(mark: str, vocabularies):
    for tokenizer in vocabularies.values():
        with pytest.raises(TokenizerError, match="special token: found"):
            with_special_tokens(tokenizer, [mark])


def test_templates_whose_marks_are_text_miss_none(vocabularies):
    for name, expected in (("llama2", 0), ("zephyr", 0), ("story", 0), ("llama3", 3)):
        assert len(missing_marks(name, vocabularies["llama2c"])) == expected


def test_a_tokenizer_bin_becomes_sentencepieces(vocabularies):
    assert isinstance(vocabularies["llama2c"], Llama2cTokenizer)
    assert isinstance(with_special_tokens(vocabularies["llama2c"], MARKS), SentencePieceTokenizer)
