"""Hostile tokenizer.json files: vocabularies, merges and rules at which the library would panic, or that make no sense."""

import json
from collections.abc import Callable, Mapping

from hostile.case import Case, read_vocabulary

VOCAB = {"a": 0, "b": 1, "ab": 2, "Ġ": 3}
FLAGS = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
END = {"id": 4, "content": "<|end|>", "special": True, **FLAGS}
SEQUENCE = '{"type":"Sequence","normalizers":['
MODEL = {"type": "BPE", "vocab": VOCAB, "merges": [["a", "b"]]}
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
CONTENT = {
    "version": "1.0",
    "added_tokens": [END],
    "normalizer": None,
    "pre_tokenizer": BYTE_LEVEL,
    "post_processor": None,
    "decoder": BYTE_LEVEL,
    "model": MODEL,
}
UNIGRAM = {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.0], ["b", -2.0], ["ab", -1.5]]}


def case(fault: str, field: str, content: Callable[[], bytes], beside: Mapping[str, bytes] | None = None) -> Case:
    """A tokenizer.json, and files beside it."""
    return Case(fault, field, lambda: {"tokenizer.json": content(), **(beside or {})}, "tokenizer.json", read_vocabulary)


def changed(fault: str, says: str, **fields: object) -> Case:
    """The sound file with other fields; ... takes one out."""
    content = {name: value for name, value in (CONTENT | fields).items() if value is not ...}
    return case(fault, f"content: found {says}", lambda: json.dumps(content).encode())


def model(fault: str, says: str, base: Mapping[str, object] = MODEL, /, **fields: object) -> Case:
    """The sound file with other fields of its model."""
    return changed(fault, says, model={name: value for name, value in (dict(base) | fields).items() if value is not ...})


def added(fault: str, says: str, **fields: object) -> Case:
    """The sound file with another added token."""
    return changed(fault, says, added_tokens=[{name: value for name, value in (END | fields).items() if value is not ...}])


def beside(fault: str, field: str, name: str = "tokenizer_config.json", content: object = b"") -> Case:
    """The sound file, with a file beside it that says something about it."""
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    return case(fault, field, lambda: json.dumps(CONTENT).encode(), {name: data})


def charsmap(text: str) -> dict[str, object]:
    return {"type": "Precompiled", "precompiled_charsmap": text}


def with_pattern(kind: str, pattern: str) -> dict[str, object]:
    """A step that cuts or replaces what a regular expression matches."""
    return {"type": kind, "pattern": {"Regex": pattern}, "content": "", "behavior": "Isolated", "invert": False}


SOUND = {
    "bytes": changed("", ""),
    "merges as texts": model("", "", merges=["a b"]),
    "pieces with scores": model("", "", UNIGRAM),
    "with a config": beside("", "", content={"bos_token": None, "eos_token": "<|end|>", "add_bos_token": False}),
}

CASES = [
    case("cut off", "content: found", lambda: json.dumps(CONTENT).encode()[:-30]),
    case("no object behind its first bracket", "content: found", lambda: b"{" * 1000),
    case("UTF-16 without a mark", "content: found", lambda: json.dumps(CONTENT).encode("utf-16-le")),
    case("bytes that are no UTF-8", "content: found 'utf-8'", lambda: b'{"model": "\xff"}'),
    case("a field twice", "content: found the name model twice", lambda: b'{"model": 1, "model": 2}'),
    case("objects fifty thousand deep", "content: found", lambda: b'{"a":' * 50_000),
    case("an endless number", "content: found Exceeds", lambda: b'{"model": ' + b"9" * 10_000 + b"}"),
    case("half of a character", "content: found", lambda: json.dumps(CONTENT).replace('"ab"', r'"\ud800"').encode()),
    changed("no model", "model: found None", model=...),
    changed("a model that is a text", "model: found None", model="BPE"),
    changed("a model that is a list", "model: found None", model=[MODEL]),
    model("a model of words", "model: found 'WordLevel'", type="WordLevel"),
    model("a model of pieces of words", "model: found 'WordPiece'", type="WordPiece"),
    model("a type that is a list", r"model: found \['BPE'\]", type=["BPE"]),
    model("no vocabulary", "vocab: found", vocab=...),
    model("a vocabulary that is a list", "vocab: found", vocab=list(VOCAB)),
    model("an empty vocabulary", "ids: found 1 tokens", vocab={}, merges=[]),
    model("an id that is a text", "vocab: found", vocab=VOCAB | {"c": "4"}),
    model("an id that is true", "vocab: found", vocab=VOCAB | {"b": True}),
    model("an id with a fraction", "vocab: found", vocab=VOCAB | {"b": 1.0}),
    model("a negative id", "ids: found", vocab=VOCAB | {"Ġ": -1}),
    model("an id of 2^32, which wraps to 0", "ids: found", vocab=VOCAB | {"Ġ": 1 << 32}),
    model("an id of 10^300", "ids: found", vocab=VOCAB | {"Ġ": 10**300}),
    model("an id twice", "ids: found", vocab=VOCAB | {"Ġ": 2}),
    model("an id left out", "ids: found", vocab=VOCAB | {"Ġ": 7}),
    model("thirty thousand ids from one on", "ids: found", vocab={f"t{i}": i + 1 for i in range(30_000)}, merges=[]),
    model("no merges", "merges: found None", merges=...),
    model("merges that are an object", "merges: found", merges={"a": "b"}),
    model("merges that are one text", "merges: found 'a b'", merges="a b"),
    model("a merge of one piece", "merge: found 'ab'", merges=["ab"]),
    model("a merge of three pieces", r"merge: found \['a', 'b', 'a'\]", merges=[["a", "b", "a"]]),
    model("a merge that is a number", "merge: found 7", merges=[7]),
    model("a merge of numbers", r"merge: found \[0, 1\]", merges=[[0, 1]]),
    model("a merge of lists", "merge: found", merges=[[["a"], ["b"]]]),
    model("a merge of an unknown piece", "merge: found 'a x'", merges=["a x"]),
    model("a merge that makes no piece", "merge: found 'b a'", merges=["b a"]),
    model("a merge of two empty pieces", "merge: found ' '", merges=[" "]),
    model("a merge of a hundred thousand characters", "merge: found 'aaa", merges=["a" * 100_000]),
    model("a prefix of continuing pieces", "continuing_subword_prefix: found", continuing_subword_prefix="##"),
    model("an ending of words", "end_of_word_suffix: found", end_of_word_suffix="</w>"),
    model("dropout, which is chance", "dropout: found 0.1", dropout=0.1),
    model("dropout that is a text", "dropout: found 'no'", dropout="no"),
    model("an unknown token that is no piece", "unk_token: found '<unk>'", unk_token="<unk>"),
    model("an unknown token that is a list", "unk_token: found", unk_token=["a"]),
    model("a flag that is a text", "byte_fallback: found 'no'", byte_fallback="no"),
    model("a flag that is null", "fuse_unk: found None", fuse_unk=None),
    model("pieces without scores", "vocab: found", UNIGRAM, vocab=["<unk>", "a"]),
    model("pieces with scores that are texts", "vocab: found", UNIGRAM, vocab=[["<unk>", "0"]]),
    model("a score of 10^400", r"vocab: found \['a', 1000", UNIGRAM, vocab=[["<unk>", 0], ["a", 10**400]]),
    model("a piece twice", "vocab: found a piece twice", UNIGRAM, vocab=[["<unk>", 0], ["a", -1], ["a", -2], ["b", -2]]),
    model("an unknown id outside", "unk_id: found 99", UNIGRAM, unk_id=99),
    model("an unknown id of -1", "unk_id: found -1", UNIGRAM, unk_id=-1),
    model("an unknown id that is a text", "unk_id: found '0'", UNIGRAM, unk_id="0"),
    changed("no list of added tokens", "added_tokens: found None", added_tokens=...),
    changed("added tokens that are an object", "added_tokens: found", added_tokens={"<|end|>": 4}),
    changed("an added token that is a text", "added token: found '<", added_tokens=["<|end|>"]),
    changed("an added token twice", "added token: found '<|ids", added_tokens=[END, END | {"id": 5}]),
    added("an added token without an id", "added token: found", id=...),
    added("an added token whose id is a text", "added token: found", id="4"),
    added("an added token of id -1", "ids: found", id=-1),
    added("an added token of id 2^40", "ids: found", id=1 << 40),
    added("an added token with the id of a piece", "ids: found", id=2),
    added("an added token that is a piece with another id", "added token: found 'ab' with two ids", content="ab"),
    added("an empty added token", "added token: found", content=""),
    added("an added token that is a number", "added token: found", content=4),
    added("an added token without flags", "added token: found", special=...),
    added("a flag of an added token that is 1", "added token: found", lstrip=1),
    changed("a normalizer that is a text", "normalizer", normalizer="NFC"),
    changed("a normalizer of an unknown type", "normalizer: found 'Mystery'", normalizer={"type": "Mystery"}),
    changed("a normalizer whose type is a list", "normalizer: found", normalizer={"type": ["NFC"]}),
    changed("a normalizer without a type", "normalizer: found None", normalizer={}),
    changed("a normalizer without its fields", "the tokenizers library refuses", normalizer={"type": "Prepend"}),
    changed("a normalizer with a broken pattern", "the tokenizers library", normalizer=with_pattern("Replace", "(")),
    changed("a charsmap that is no base64", "precompiled_charsmap: found", normalizer=charsmap("!")),
    changed("a charsmap with a padding too much", "precompiled_charsmap: found", normalizer=charsmap("AA==AAA=")),
    changed("a charsmap of one half of a byte", "precompiled_charsmap: found", normalizer=charsmap("AAB=")),
    changed("a charsmap of letters that are not ASCII", "precompiled_charsmap: found", normalizer=charsmap("ÄÄÄÄ")),
    changed("a charsmap of nothing", "precompiled_charsmap: found ''", normalizer=charsmap("")),
    changed("a charsmap of zeros", "charsmap: found", normalizer=charsmap("AAAA" * 33)),
    changed("sequences in sequences, twenty deep", "normalizers: found", normalizer=json.loads(SEQUENCE * 20 + "]}" * 20)),
    changed("a pre-tokenizer of an unknown type", "pre_tokenizer: found 'Bert", pre_tokenizer={"type": "BertPreTokenizer"}),
    changed("a cut with a broken pattern", "the tokenizers library", pre_tokenizer=with_pattern("Split", "[a")),
    changed("no decoder, and pieces that are text", "decoder: found none", decoder=None, pre_tokenizer=None),
    changed("a decoder of an unknown type", "decoder: found", decoder={"type": "WordPiece", "prefix": "##", "cleanup": True}),
    changed("a decoder that is a text", "decoders: found 'ByteLevel'", decoder="ByteLevel"),
    beside("a config beside it that is cut off", "content: found", content=b'{"bos_token": "<s>'),
    beside("a config beside it that is a list", r"content: found \[", content=[{"bos_token": "<s>"}]),
    beside("a config beside it whose BOS is a number", "bos_token: found 1", content={"bos_token": 1}),
    beside("a config beside it whose EOS is a list", "eos_token: found", content={"eos_token": ["<|end|>"]}),
    beside("a config beside it whose EOS has no text", "eos_token: found", content={"eos_token": {"content": 4}}),
    beside("a config beside it whose BOS is half a character", "content: found", content=b'{"bos_token": "\\ud800"}'),
    beside("a config beside it with a flag as a text", "add_bos_token: found false", content={"add_bos_token": "false"}),
    beside("a config beside it of three megabytes", "file size", content={"a": "a" * (3 << 20)}),
    beside("a config beside it of a megabyte", "content: found", content=b'{"a": "' + "😀".encode() + b"a" * 1_000_000),
    beside("a config beside it of two hundred thousand items", "content: found", content=[0] * 200_000),
    beside("a map beside it that is empty", "file size: found 0", "special_tokens_map.json"),
    beside("a map beside it that is a text", "content: found", "special_tokens_map.json", "<s>"),
]
