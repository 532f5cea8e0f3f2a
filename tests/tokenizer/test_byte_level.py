"""Bytes written as characters, and the rules by which texts are cut, recognised in a tokenizer.json."""

import json

import pytest
from tokenizers import pre_tokenizers

from llamita.tokenizer.byte_level import NAMES, RULE_OF, byte_of_character, bytes_of, rule_of
from small_vocabularies import byte_level

GPT2 = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}  # as the file of GPT-2 has it, without use_regex


def test_every_byte_has_a_character_of_its_own_and_they_are_those_of_the_library():
    assert sorted(byte_of_character().values()) == list(range(256))
    assert set(byte_of_character()) == set(pre_tokenizers.ByteLevel.alphabet())
    assert bytes_of("ĠĊé") == b" \n\xe9"
    assert bytes_of("a\nb") == b"a\nb"  # no piece: a token that was added


@pytest.mark.parametrize("rule", NAMES)
def test_a_rule_is_recognised_after_it_was_written(rule):
    assert rule_of(byte_level(rule)) == rule
    assert RULE_OF[rule] == NAMES[rule][0] == rule


def test_a_name_stands_for_one_rule():
    names = [name for names in NAMES.values() for name in names]
    assert len(names) == len(set(names)) == len(RULE_OF)


def test_fields_that_decide_nothing_do_not_hide_a_rule():
    assert rule_of(byte_level("gpt-2") | {"pre_tokenizer": GPT2}) == "gpt-2"
    digits = {"type": "Digits", "individual_digits": True}
    sequence = {"type": "Sequence", "pretokenizers": [digits, GPT2 | {"trim_offsets": False}]}
    assert rule_of(byte_level("gpt-2") | {"pre_tokenizer": sequence}) == "smollm"


@pytest.mark.parametrize("change", ["pattern", "whole words", "no rule", "space in front"])
def test_another_way_of_cutting_is_none_of_them(change):
    content = byte_level("llama-bpe" if change == "pattern" else "gpt-2")
    if change == "pattern":
        content["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] += "|x"
    elif change == "whole words":
        content["model"]["ignore_merges"] = True
    else:
        content["pre_tokenizer"] = None if change == "no rule" else GPT2 | {"add_prefix_space": True}
    assert rule_of(json.loads(json.dumps(content))) is None
