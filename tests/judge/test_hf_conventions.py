"""Conventions of the harness's `hf`: ids, cuts and ends are what its code says. test_harness.py asks it."""

from dataclasses import replace
from typing import Any, cast

import pytest

from judge.toys import byte_level_model, sentencepiece_model
from llamita.engine import Sampling
from llamita.errors import SettingError
from llamita.judge.hf_conventions import encode, end_ids, left_open, prefix_id, question_of, wish_of
from llamita.model import Model
from llamita.tokenizer import Tokenizer
from llamita.tokenizer.library import LibraryTokenizer

BOS, EOS = 1, 2  # of the toy sentencepiece model
GREEDY: dict[str, Any] = {"until": [], "max_gen_toks": 8, "do_sample": False, "temperature": 0.0}


@pytest.fixture(scope="module")
def with_bos(toy_sentencepiece_bytes: bytes) -> Model:
    return sentencepiece_model(toy_sentencepiece_bytes)


@pytest.fixture(scope="module")
def without_bos() -> Model:
    return byte_level_model()


def tokenizer_of(model: Model) -> Tokenizer:
    return cast(Tokenizer, model.tokenizer)


def wish(model: Model, prompt: range, **options: Any):
    return wish_of(model, tokenizer_of(model), prompt, GREEDY | options, 20, seed=7)


def test_bos_stands_before_a_text_once(with_bos: Model):
    tokenizer = tokenizer_of(with_bos)
    plain = tokenizer.encode("Lily")
    assert encode(tokenizer, "Lily") == encode(tokenizer, "Lily", bos=True) == [BOS, *plain]
    assert encode(tokenizer, "Lily", bos=False) == plain
    assert encode(tokenizer, "<s>Lily") == [BOS, *plain]
    assert encode(tokenizer, "Lily</s>") == [BOS, *plain, EOS]


def test_a_model_trained_without_bos_gets_none(without_bos: Model):
    tokenizer = tokenizer_of(without_bos)
    assert encode(tokenizer, "Lily") == encode(tokenizer, "Lily", bos=True) == tokenizer.encode("Lily")
    mark = tokenizer.special_tokens["<|im_end|>"]
    assert encode(tokenizer, "Lily<|im_end|>") == [*tokenizer.encode("Lily"), mark]


def test_a_text_without_a_context_is_foretold_from_bos_or_eos(with_bos: Model, without_bos: Model):
    assert prefix_id(tokenizer_of(with_bos)) == BOS
    with pytest.raises(SettingError, match="neither BOS nor EOS"):
        prefix_id(tokenizer_of(without_bos))
    content = cast(LibraryTokenizer, without_bos.tokenizer)
    assert prefix_id(content.with_ends(-1, 9, adds_bos=False)) == 9


def test_what_is_too_long_loses_its_beginning():
    assert question_of([1, 2, 3], [4, 5], 4) == ((1, 2, 3), (4, 5))  # the last id is not read
    assert question_of([1, 2, 3], [4, 5], 3) == ((2, 3), (4, 5))
    assert question_of([1, 2, 3], [4, 5], 2) == ((3,), (4, 5))


@pytest.mark.parametrize(("context", "continuation"), [([1], []), ([1], [2, 3, 4]), ([], [2])])
def test_a_pair_with_nothing_in_it_or_too_much_is_refused(context: list[int], continuation: list[int]):
    with pytest.raises(SettingError, match="check the task"):
        question_of(context, continuation, 2)


def test_a_prompt_leaves_room_for_the_longest_answer(with_bos: Model):
    assert wish(with_bos, range(30)).prompt == tuple(range(18, 30))
    assert wish(with_bos, range(12)).prompt == tuple(range(12))
    for n in (0, 20):
        with pytest.raises(SettingError, match="max_gen_toks: found"):
            wish(with_bos, range(5), max_gen_toks=n)


def test_eos_ends_an_answer_and_so_do_the_ids_of_the_models_files(with_bos: Model, without_bos: Model):
    assert end_ids(with_bos, tokenizer_of(with_bos)) == {BOS, EOS}  # as generation_config.json of our folders has it
    other = replace(with_bos, stop_ids=(9,))
    assert end_ids(other, tokenizer_of(with_bos)) == {9, EOS}
    assert end_ids(without_bos, tokenizer_of(without_bos)) == set()


def test_a_text_that_ends_an_answer_may_spell_a_special_token(without_bos: Model):
    found = wish(without_bos, range(5), until=["\n", "", "<|im_end|>"])
    assert found.stop_texts == ("\n", "<|im_end|>")
    assert found.stop_ids == {tokenizer_of(without_bos).special_tokens["<|im_end|>"]}


def test_answers_are_greedy_unless_a_task_samples(with_bos: Model):
    assert wish(with_bos, range(5), temperature=0.8).sampling == Sampling(temperature=0)
    assert wish(with_bos, range(5), do_sample=True, temperature=0.8, top_k=5).sampling == Sampling(0.8, 1.0, 5, seed=7)
    with pytest.raises(SettingError, match="found num_beams, expected only until"):
        wish(with_bos, range(5), num_beams=4)


def test_a_talk_stays_open_behind_the_beginning_of_an_answer():
    assert left_open("<u>Answer: 4<a> Answer: <e>\n", " Answer: ") == "<u>Answer: 4<a> Answer: "
    assert left_open("<u>Hi<a>Answer:<e>\n", " Answer: ") == "<u>Hi<a>Answer:"  # a template that strips
    with pytest.raises(SettingError, match="no trace"):
        left_open("<u>Hi<e>", "Answer:")
