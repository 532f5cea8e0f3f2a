"""Tokenizers on disk: read whichever kind a file holds, find the one beside a model, write it in the forms that give its ids.

Stands beside the readers and writers of weights; what the bytes mean is parsed in tokenizer/. Knows no weights.
"""

import json
from dataclasses import replace
from os import PathLike
from pathlib import Path

from llamita.errors import ModelFileError, TokenizerError
from llamita.files import atomic_file, read_file
from llamita.formats.huggingface_extras import SPECIAL_TOKENS_NAME, TEMPLATE_NAME, TOKENIZER_CONFIG_NAME, Ends, read_ends
from llamita.formats.json_text import parse_object
from llamita.formats.lfs_pointer import check_no_pointer
from llamita.tokenizer import Tokenizer
from llamita.tokenizer.llama2c import Llama2cTokenizer, parse_tokenizer_bin, serialize_tokenizer_bin

LIMIT_BYTES = 64 << 20
# Beside a model, in this order; the last two only where one file alone fits, such as tok512.bin. tokenizer.bin comes first
# because it starts faster than tokenizer.model and gives llama2.c's ids.
NAMES_BESIDE = ("tokenizer.bin", "tokenizer.model", "tokenizer.json", "{stem}.model", "tok*.bin", "tok*.model")
USUAL_NAME = "tokenizer.bin"  # llama2.c's -z, where none is named
HUGGINGFACE_NAMES = (
    "tokenizer.model",
    "tokenizer.bin",
    "tokenizer.json",
    "added_tokens.json",
    TOKENIZER_CONFIG_NAME,
    SPECIAL_TOKENS_NAME,
    TEMPLATE_NAME,
)
_MAX_JSON_ITEMS = 1 << 21  # brackets and commas of a tokenizer.json; Llama 3's has about a million
_BOS_TEXTS = ("<|begin_of_text|>", "<s>", "<bos>", "<|endoftext|>")  # of a tokenizer.json by itself, which says neither
_EOS_TEXTS = ("<|end_of_text|>", "</s>", "<eos>", "<|endoftext|>")


def read_tokenizer(path: str | PathLike[str], vocab_size: int | None = None) -> Tokenizer:
    """Read a tokenizer.bin of llama2.c, a tokenizer.model of sentencepiece or Llama 3, or a tokenizer.json, whichever it is.

    What a folder of Hugging Face says of BOS and EOS counts. Raises ModelFileError where the file is none of these, or does not
    have vocab_size tokens, where that is given.
    """
    data = read_file(path, LIMIT_BYTES)
    check_no_pointer(path, data)
    ends = read_ends(Path(path).parent) if Path(path).stem == "tokenizer" else Ends()
    if data[2:4] == b"\0\0":  # the longest piece of a tokenizer.bin has fewer than 65,536 bytes; no protobuf goes on so
        tokenizer = parse_tokenizer_bin(data, path)
    elif data[:1] == b"\x0a":
        tokenizer = _read_sentencepiece(data, path, ends)
    elif data[:1] == b"{":
        tokenizer = _read_json(data, path, ends)
    else:
        from llamita.tokenizer.tiktoken import is_tiktoken, parse_tiktoken

        if not is_tiktoken(data):
            expected = "a tokenizer.bin, a tokenizer.model of sentencepiece or Llama 3, or a tokenizer.json"
            raise ModelFileError(path, "content", f"first bytes {data[:4].hex()}", expected)
        tokenizer = parse_tiktoken(data, path)
    if vocab_size is not None and tokenizer.vocab_size != vocab_size:
        raise ModelFileError(path, "vocabulary", f"{tokenizer.vocab_size} tokens", f"{vocab_size} as the model has")
    return tokenizer


def write_tokenizer(tokenizer: Tokenizer, path: str | PathLike[str]) -> None:
    """Write a tokenizer as llama2.c's NAME.bin, sentencepiece's NAME.model or Hugging Face's NAME.json, converted as needed.

    Raises ModelFileError where the file cannot be written, TokenizerError where the format cannot hold the vocabulary.
    """
    from llamita.tokenizer.conversion import to_llama2c

    suffix = Path(path).suffix
    if suffix == ".bin":
        data = serialize_tokenizer_bin(to_llama2c(tokenizer))
    elif suffix == ".model":
        data = _tokenizer_model(tokenizer)
    elif suffix == ".json":
        data = _tokenizer_json(tokenizer)
    else:
        expected = "NAME.bin for llama2.c, NAME.model for sentencepiece or NAME.json for Hugging Face"
        raise ModelFileError(path, "name", f"ending {suffix!r}", expected)
    with atomic_file(path) as file:
        file.write(data)


def find_tokenizer(model_path: str | PathLike[str], vocab_size: int, may_be_padded: bool = False) -> Tokenizer | None:
    """Read the tokenizer beside a model, as NAMES_BESIDE says; raise ModelFileError where several of equal rank fit.

    may_be_padded: where none has vocab_size tokens, one by its usual name that has somewhat fewer counts too, and is filled up:
    some models have more rows than tokens.
    """
    path = Path(model_path)
    short: list[Tokenizer] = []
    for name in NAMES_BESIDE:
        found = [(beside.name, _tokenizer_at(beside, is_guess="*" in name)) for beside in _beside(path, name)]
        fitting = [(name, tokenizer) for name, tokenizer in found if tokenizer and tokenizer.vocab_size == vocab_size]
        if len(fitting) > 1:
            names = " and ".join(name for name, _ in fitting)
            raise ModelFileError(path.parent, "tokenizer", names, "one that fits the model", "name the right one with -z")
        if fitting:
            return fitting[0][1]
        short += [tokenizer for file_name, tokenizer in found if tokenizer and file_name == name]
    return _filled(short, vocab_size) if may_be_padded else None


def find_usual_tokenizer(vocab_size: int) -> Tokenizer | None:
    """The tokenizer.bin in the working directory, where llama2.c looks when -z names none, if it has vocab_size tokens."""
    path = Path(USUAL_NAME)
    found = _tokenizer_at(path, is_guess=True) if path.is_file() else None
    return found if found and found.vocab_size == vocab_size else None


def tokenizer_paths(model_path: str | PathLike[str]) -> list[Path]:
    """The files beside a model that find_tokenizer may read, and those that say more of them; no guess that is none."""
    path = Path(model_path)
    paths = [beside for name in HUGGINGFACE_NAMES for beside in _beside(path, name)]
    for name in NAMES_BESIDE:
        paths += [beside for beside in _beside(path, name) if "*" not in name or _tokenizer_at(beside, is_guess=True)]
    return list(dict.fromkeys(paths))


def _beside(path: Path, name: str) -> list[Path]:
    """The files that a name, such as those of NAMES_BESIDE, stands for beside a model."""
    named = sorted(path.parent.glob(name)) if "*" in name else [path.with_name(name.format(stem=path.stem))]
    return [beside for beside in named if beside.is_file()]


def huggingface_files(tokenizer: Tokenizer, context: int, chat_template: str = "") -> dict[str, bytes]:
    """Name -> content of each file of a Hugging Face folder that gives the ids of this tokenizer, and its chat template.

    Raises TokenizerError where no kind of file does.
    """
    from llamita.tokenizer.library import LibraryTokenizer

    if isinstance(tokenizer, LibraryTokenizer):
        config = _tokenizer_config(tokenizer, context, chat_template, has_json=True)
        return {"tokenizer.json": _tokenizer_json(tokenizer), TOKENIZER_CONFIG_NAME: config}
    files: dict[str, bytes] = {}
    refusals: list[TokenizerError] = []
    kinds = {"tokenizer.model": _tokenizer_model, "tokenizer.bin": _tokenizer_bin, "tokenizer.json": _tokenizer_json}
    for name, serialize in kinds.items():
        try:
            files[name] = serialize(tokenizer)
        except TokenizerError as refusal:
            refusals.append(refusal)
    if not files:
        raise refusals[0]
    if "tokenizer.model" in files:
        files[TOKENIZER_CONFIG_NAME] = _tokenizer_config(tokenizer, context, chat_template, "tokenizer.json" in files)
    return files


def _filled(tokenizers: list[Tokenizer], vocab_size: int) -> Tokenizer | None:
    """The largest tokenizer that can be padded to a size."""
    from llamita.tokenizer.conversion import padded

    candidates = [padded(tokenizer, vocab_size) for tokenizer in sorted(tokenizers, key=lambda t: t.vocab_size, reverse=True)]
    return next((tokenizer for tokenizer in candidates if tokenizer.vocab_size == vocab_size), None)


def _read_sentencepiece(data: bytes, path: str | PathLike[str], ends: Ends) -> Tokenizer:
    """Parse a tokenizer.model, with the control pieces that its folder calls BOS and EOS."""
    from llamita.tokenizer.sentencepiece import SentencePieceTokenizer, parse_sentencepiece  # most models come with a .bin

    found = parse_sentencepiece(data, path)
    bos, eos = (
        (found.rules.bos_piece if ends.bos is None else ends.bos),
        (found.rules.eos_piece if ends.eos is None else ends.eos),
    )
    rules = replace(found.rules, bos_piece=bos, eos_piece=eos)
    return SentencePieceTokenizer(found.pieces, found.scores, found.types, rules, adds_bos=ends.adds_bos is not False)


def _read_json(data: bytes, path: str | PathLike[str], ends: Ends) -> Tokenizer:
    """Parse a tokenizer.json. It says what is put before a text; what ends one is known from its folder, or a guess."""
    from llamita.tokenizer.library import LibraryTokenizer
    from llamita.tokenizer.library_content import template_ends

    content = parse_object(data, path, max_items=_MAX_JSON_ITEMS)
    try:
        tokenizer = LibraryTokenizer(content)
        first, _ = template_ends(content)
    except TokenizerError as error:
        raise ModelFileError(path, "content", error, "a tokenizer.json that works") from None
    known = tokenizer.special_tokens
    bos = ends.bos if ends.bos is not None else first or next((text for text in _BOS_TEXTS if text in known), "")
    eos = ends.eos if ends.eos is not None else next((text for text in _EOS_TEXTS if text in known), "")
    adds_bos = ends.adds_bos if ends.adds_bos is not None else bool(first) and first == bos
    tokenizer = tokenizer.with_ends(tokenizer.token_id(bos), tokenizer.token_id(eos), adds_bos)
    tokenizer.source = data
    return tokenizer


def _tokenizer_at(path: Path, is_guess: bool) -> Tokenizer | None:
    """Read a tokenizer, or None where only a guess from the name fails: tok*.bin may as well be tokens, or a model."""
    try:
        return read_tokenizer(path)
    except ModelFileError:
        if not is_guess:
            raise
        return None


def _tokenizer_model(tokenizer: Tokenizer) -> bytes:
    from llamita.tokenizer.conversion import to_sentencepiece
    from llamita.tokenizer.sentencepiece import serialize_sentencepiece

    return serialize_sentencepiece(to_sentencepiece(tokenizer))


def _tokenizer_bin(tokenizer: Tokenizer) -> bytes:
    """A tokenizer.bin that gives the same ids; to_llama2c also takes vocabularies for which run.c gives others."""
    from llamita.tokenizer.conversion import to_llama2c, to_sentencepiece
    from llamita.tokenizer.merges import check_merges_alone

    if not isinstance(tokenizer, Llama2cTokenizer):
        source = to_sentencepiece(tokenizer)
        check_merges_alone(source)
        rules = source.rules
        if not (rules.byte_fallback and rules.add_dummy_prefix) or rules.remove_extra_whitespaces:
            raise TokenizerError("rules: found others than run.c's, expected byte fallback and every space as it is")
    return serialize_tokenizer_bin(to_llama2c(tokenizer))


def _tokenizer_json(tokenizer: Tokenizer) -> bytes:
    from llamita.tokenizer.huggingface import serialize_tokenizer_json

    return serialize_tokenizer_json(tokenizer)


def _tokenizer_config(tokenizer: Tokenizer, context: int, chat_template: str, has_json: bool) -> bytes:
    """What AutoTokenizer looks for: which class reads the files, and which pieces are special."""
    ends, unknown = (tokenizer.bos_id, tokenizer.eos_id), _unknown_piece(tokenizer)
    values: dict[str, object] = {
        "add_bos_token": tokenizer.adds_bos,
        "add_eos_token": False,
        "bos_token": _spelling(tokenizer, tokenizer.bos_id),
        "clean_up_tokenization_spaces": False,
        "eos_token": _spelling(tokenizer, tokenizer.eos_id),
        "legacy": False,
        "model_input_names": ["input_ids", "attention_mask"],  # else generate() stumbles over token_type_ids
        "model_max_length": context,
        "tokenizer_class": "PreTrainedTokenizerFast" if has_json else "LlamaTokenizer",
        "unk_token": unknown,
    }
    if marks := [text for text, token_id in tokenizer.special_tokens.items() if token_id not in ends and text != unknown]:
        values["additional_special_tokens"] = marks
    if chat_template:
        values["chat_template"] = chat_template
    return json.dumps(values, indent=2, ensure_ascii=False).encode() + b"\n"


def _spelling(tokenizer: Tokenizer, token_id: int) -> str | None:
    return next((text for text, special_id in tokenizer.special_tokens.items() if special_id == token_id), None)


def _unknown_piece(tokenizer: Tokenizer) -> str | None:
    from llamita.tokenizer.conversion import to_sentencepiece
    from llamita.tokenizer.library import LibraryTokenizer
    from llamita.tokenizer.sentencepiece import UNKNOWN

    if isinstance(tokenizer, LibraryTokenizer):
        return tokenizer.content()["model"].get("unk_token")
    source = to_sentencepiece(tokenizer)
    return source.pieces[source.types.index(UNKNOWN)]
