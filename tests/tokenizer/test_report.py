"""The report of a tokenizer counts what the ids say."""

import pytest

from llamita.tokenizer.conversion import to_llama2c
from llamita.tokenizer.learn import learn
from llamita.tokenizer.report import measure_tokenizer

TEXT = ["a rose is a rose", "a rose\nis"]


def test_the_counts_are_those_of_the_ids():
    tokenizer = learn(TEXT, 272)
    report = measure_tokenizer(tokenizer, TEXT)
    ids = [token_id for text in TEXT for token_id in tokenizer.encode(text)]
    assert (report.n_tokens, report.n_words, report.n_bytes) == (len(ids), 8, sum(map(len, TEXT)))
    assert report.bytes_per_token == sum(map(len, TEXT)) / len(ids)
    assert report.tokens_per_word == len(ids) / 8
    assert report.byte_share == 1 / len(ids)  # the line end
    assert report.n_unused == len(set(range(259, 272)) - set(ids))
    assert report.longest_pieces[0] == " rose"
    assert report == measure_tokenizer(to_llama2c(tokenizer), TEXT)


def test_a_strange_text_is_bytes():
    report = measure_tokenizer(learn(TEXT, 272), ["日"])
    assert report.byte_share == pytest.approx(3 / 4)


def test_no_text_divides_by_nothing():
    report = measure_tokenizer(learn(TEXT, 272), [])
    assert (report.bytes_per_token, report.tokens_per_word, report.byte_share, report.longest_pieces) == (0, 0, 0, ())
