"""The content of a tokenizer.json that is not what it should be: refused by name, before the library can panic."""

import base64
from collections.abc import Callable
from typing import Any

import pytest

from llamita.errors import TokenizerError
from llamita.tokenizer.byte_level import content_of
from llamita.tokenizer.library import LibraryTokenizer
from llamita.tokenizer.library_content import Decoding, bos_template, decoding_of, template_ends
from small_vocabularies import METASPACE, byte_level, unigram

DEEP: Any = {"type": "NFC"}
for _ in range(20):
    DEEP = {"type": "Sequence", "normalizers": [DEEP]}

Change = Callable[[dict[str, Any]], object]
HOLE = {"id": 9, "content": "<x>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
HOSTILE: dict[str, tuple[Change, str]] = {
    "no model": (lambda c: c.pop("model"), "model: found None"),
    "a model of another kind": (lambda c: c["model"].update(type="WordPiece"), "model: found 'WordPiece', expected BPE"),
    "a list for a vocabulary": (lambda c: c["model"].update(vocab=[]), "vocab: found something else"),
    "an id that is no number": (lambda c: c["model"]["vocab"].update(a="1"), "vocab: found something else"),
    "an id that is true": (lambda c: c["model"]["vocab"].update(a=True), "vocab: found something else"),
    "an id twice": (lambda c: c["model"]["vocab"].update(a=1, b=1), "ids: found 704 tokens and 703 as the highest id"),
    "a hole": (lambda c: c["model"]["vocab"].update(a=10**6), "ids: found 704 tokens and 1000000 as the highest id"),
    "a negative id": (lambda c: c["model"]["vocab"].update(a=-1), "ids: found"),
    "an empty vocabulary": (
        lambda c: (c["model"].update(vocab={}, merges=[]), c.update(added_tokens=[])),
        "ids: found 0 tokens",
    ),
    "no merges": (lambda c: c["model"].pop("merges"), "merges: found None"),
    "a merge of three": (lambda c: c["model"]["merges"].insert(0, "a b c"), "merge: found 'a b c'"),
    "a merge of numbers": (lambda c: c["model"]["merges"].insert(0, [1, 2]), "merge: found .1, 2."),
    "a merge of lists": (lambda c: c["model"]["merges"].insert(0, [["a"], ["b"]]), "merge: found"),
    "a merge that is none": (lambda c: c["model"]["merges"].insert(0, None), "merge: found None"),
    "a merge that makes no piece": (
        lambda c: c["model"]["merges"].insert(0, ["a", "Ġ"]),
        "expected two pieces that make a third",
    ),
    "an unknown piece that is none": (lambda c: c["model"].update(unk_token="?!?"), "unk_token: found"),
    "dropout": (lambda c: c["model"].update(dropout=0.1), "dropout: found 0.1, expected none"),
    "a suffix": (lambda c: c["model"].update(end_of_word_suffix="</w>"), "end_of_word_suffix: found"),
    "a flag that is none": (lambda c: c["model"].update(ignore_merges=1), "ignore_merges: found 1"),
    "no added tokens": (lambda c: c.pop("added_tokens"), "added_tokens: found None"),
    "an added token without flags": (lambda c: c["added_tokens"].append({"id": 704, "content": "x"}), "added token: found"),
    "an empty added token": (lambda c: c["added_tokens"][0].update(content=""), "added token: found"),
    "an added token behind a hole": (lambda c: c["added_tokens"].append(HOLE | {"id": 900}), "ids: found 705 tokens"),
    "an added token with two ids": (lambda c: c["added_tokens"].append(HOLE | {"content": "a"}), "with two ids"),
    "added tokens out of order": (lambda c: c["added_tokens"].reverse(), "expected the next free one"),
    "no decoder": (lambda c: c.update(decoder=None, pre_tokenizer=None), "decoder: found none"),
    "a decoder of another kind": (lambda c: c.update(decoder={"type": "WordPiece"}), "decoder: found {'type': 'WordPiece'}"),
    "a decoder that is a number": (lambda c: c.update(decoder=5), "decoders: found 5"),
    "a pre-tokenizer of another kind": (
        lambda c: c.update(pre_tokenizer={"type": "FixedLength", "length": 0}),
        "'FixedLength'",
    ),
    "a pre-tokenizer without fields": (lambda c: c.update(pre_tokenizer={"type": "Split"}), "the tokenizers library refuses"),
    "a broken pattern": (
        lambda c: c["pre_tokenizer"]["pretokenizers"][0]["pattern"].update(Regex="((("),
        "the tokenizers library refuses",
    ),
    "endless sequences": (lambda c: c.update(normalizer=DEEP), "normalizers: found"),
    "a sequence of nothing": (lambda c: c.update(normalizer={"type": "Sequence"}), "the tokenizers library refuses"),
    "a table that is no base64": (
        lambda c: c.update(normalizer={"type": "Precompiled", "precompiled_charsmap": "?"}),
        "precompiled_charsmap: found",
    ),
    "a table that leads nowhere": (
        lambda c: c.update(
            normalizer={"type": "Precompiled", "precompiled_charsmap": base64.b64encode(bytes([0, 4, 0, 0])).decode()}
        ),
        "charsmap: found a trie",
    ),
}
HOSTILE_UNIGRAM: dict[str, tuple[Change, str]] = {
    "a piece twice": (lambda c: c["model"]["vocab"].append(["a", 0.0]), "vocab: found a piece twice"),
    "a score that is no number": (lambda c: c["model"]["vocab"].append(["x", float("nan")]), "expected a piece and its score"),
    "a piece without a score": (lambda c: c["model"]["vocab"].append(["x"]), "expected a piece and its score"),
    "an unknown id outside": (lambda c: c["model"].update(unk_id=100), "unk_id: found 100"),
}


def assert_refused(content: dict[str, Any], change: Change, message: str, stderr: pytest.CaptureFixture[str]) -> None:
    change(content)
    with pytest.raises(TokenizerError, match=message) as caught:
        LibraryTokenizer(content)
    assert len(str(caught.value)) < 400
    assert stderr.readouterr().err == ""  # where the library would print that it panicked


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_broken_is_named(name, capfd):
    assert_refused(byte_level(), *HOSTILE[name], capfd)


@pytest.mark.parametrize("name", HOSTILE_UNIGRAM)
def test_broken_pieces_with_likelihoods_are_named(name, capfd):
    assert_refused(unigram(), *HOSTILE_UNIGRAM[name], capfd)


def test_merges_may_be_written_as_pairs_or_with_a_space():
    content = byte_level()
    text = "the little girl said it was too high"
    ids = LibraryTokenizer(content).encode(text)
    content["model"]["merges"] = [" ".join(pair) for pair in content["model"]["merges"]]
    assert LibraryTokenizer(content).encode(text) == ids


def test_the_way_back_is_read_from_the_decoder():
    replace = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    steps = [replace, {"type": "ByteFallback"}, {"type": "Fuse"}, strip]
    assert decoding_of(byte_level()) == Decoding(is_byte_level=True)
    assert decoding_of({"decoder": {"type": "Sequence", "decoders": steps}}) == Decoding(False, True, True)
    assert decoding_of({"decoder": {"type": "Sequence", "decoders": steps[:3]}}) == Decoding(False, True, False)
    assert decoding_of({"decoder": METASPACE}) == Decoding(False, False, True)
    assert decoding_of({"decoder": METASPACE | {"prepend_scheme": "never"}}) == Decoding(False, False, False)


def test_what_is_put_around_a_text_is_read_from_the_post_processor():
    processor = bos_template("<s>", 1)
    assert template_ends({"post_processor": processor}) == ("<s>", "")
    assert template_ends({"post_processor": {"type": "Sequence", "processors": [{"type": "ByteLevel"}, processor]}}) == (
        "<s>",
        "",
    )
    assert template_ends(content_of({}, [], [], "gpt-2")) == ("", "")
    assert template_ends({"post_processor": {"type": "TemplateProcessing", "single": [7, {"SpecialToken": 7}]}}) == ("", "")
