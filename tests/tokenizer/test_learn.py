"""Learning a vocabulary: llama2.c's options, any size that the text allows, one line where it does not."""

import io

import pytest
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from llamita.errors import TokenizerError
from llamita.tokenizer.conversion import to_llama2c
from llamita.tokenizer.learn import LINE_CHARACTERS, learn
from llamita.tokenizer.sentencepiece import BYTE, serialize_sentencepiece
from stories import story

TEXT = [story(i) for i in range(200)]


def refused(documents: list[str], vocab_size: int) -> str:
    with pytest.raises(TokenizerError) as caught:
        learn(documents, vocab_size)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("vocab_size", [305, 350, 400])
def test_the_vocabulary_has_the_size_asked_for(vocab_size: int):
    tokenizer = learn(TEXT, vocab_size)
    assert tokenizer.vocab_size == vocab_size
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.types.count(BYTE)) == (1, 2, 256)


def test_pieces_are_those_of_llama2c_s_training():
    model = io.BytesIO()
    SentencePieceTrainer.train(  # tinystories.py of llama2.c
        sentence_iterator=iter("\n".join(TEXT).split("\n")),
        model_writer=model,
        model_type="bpe",
        vocab_size=400,
        self_test_sample_size=0,
        input_format="text",
        character_coverage=1.0,
        num_threads=1,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        byte_fallback=True,
        unk_surface=r" \342\201\207 ",
        normalization_rule_name="identity",
        minloglevel=3,
    )
    library = SentencePieceProcessor(model_proto=model.getvalue())
    assert learn(TEXT, 400).pieces == [library.id_to_piece(i) for i in range(400)]


def test_more_threads_learn_the_same():
    assert serialize_sentencepiece(learn(TEXT, 400, threads=1)) == serialize_sentencepiece(learn(TEXT, 400, threads=3))


def test_every_text_survives_the_vocabulary():
    tokenizer = learn(TEXT, 350)
    for text in ["  spaces   stay ", "line\n\nends\n", "日本語 😀 \t", story(3)]:
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_tokenizer_bin_gives_the_same_ids():
    tokenizer = learn(TEXT, 350)
    for text in ["two  spaces", " one in front and behind ", "a\nb \n c", story(3)]:
        assert to_llama2c(tokenizer).encode(text) == tokenizer.encode(text)


def test_digits_are_pieces_of_their_own():
    assert not [piece for piece in learn(["1000 100 10"] * 50 + TEXT, 330).pieces if "00" in piece and "<" not in piece]


def test_long_lines_are_learned_from_too():
    line = " ".join(f"word{'abcdefgh'[i % 8]}" for i in range(LINE_CHARACTERS))
    assert "▁word" in learn([line], 275).pieces
    assert learn(["x" * 10_000], 262).vocab_size == 262


def test_too_little_text_names_the_sizes_that_it_allows():
    line = refused(TEXT, 100_000)
    allowed = int(line.partition("at most ")[2].split()[0])
    assert learn(TEXT, allowed).vocab_size == allowed
    assert refused(TEXT, allowed + 1).startswith(f"vocabulary: found text for at most {allowed} pieces")
    least = int(refused(TEXT, 262).partition("at least ")[2].split()[0])
    assert learn(TEXT, least).vocab_size == least
    refused(TEXT, least - 1)


def test_no_text_is_one_line():
    assert refused([], 300) == "vocabulary: found no text, expected some to learn from"
    assert refused(["", " \n "], 300) == "vocabulary: found no text, expected some to learn from"


def test_the_trainer_says_nothing(capfd):
    learn(TEXT, 350)
    refused(TEXT, 100_000)
    assert capfd.readouterr() == ("", "")
