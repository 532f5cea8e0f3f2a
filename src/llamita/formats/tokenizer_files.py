"""Tokenizers on disk: read whichever kind a file holds, find the one beside a model, write it in the forms that give its ids.

Stands beside the readers and writers of weights; what the bytes mean is parsed in tokenizer/. Knows no weights.
"""

import json
from os import PathLike
from pathlib import Path

from llamita.errors import ModelFileError, TokenizerError
from llamita.files import atomic_file, read_file
from llamita.tokenizer import Tokenizer
from llamita.tokenizer.llama2c import Llama2cTokenizer, parse_tokenizer_bin, serialize_tokenizer_bin

LIMIT_BYTES = 64 << 20
# Beside a model, in this order; the last two only where one file alone fits, such as tok512.bin. tokenizer.bin comes first
# because it starts faster than tokenizer.model and gives llama2.c's ids.
NAMES_BESIDE = ("tokenizer.bin", "tokenizer.model", "{stem}.model", "tok*.bin", "tok*.model")
HUGGINGFACE_NAMES = ("tokenizer.model", "tokenizer.bin", "tokenizer.json", "tokenizer_config.json")


def read_tokenizer(path: str | PathLike[str], vocab_size: int | None = None) -> Tokenizer:
    """Read a tokenizer.bin of llama2.c or a tokenizer.model of sentencepiece, whichever it is.

    Raises ModelFileError where it is neither, or does not have vocab_size tokens, where that is given.
    """
    data = read_file(path, LIMIT_BYTES)
    if data[2:4] == b"\0\0":  # the longest piece of a tokenizer.bin has fewer than 65,536 bytes; no protobuf goes on so
        tokenizer = parse_tokenizer_bin(data, path)
    elif data[:1] == b"\x0a":
        from llamita.tokenizer.sentencepiece import parse_sentencepiece  # most models come with a tokenizer.bin

        tokenizer = parse_sentencepiece(data, path)
    else:
        raise ModelFileError(
            path, "content", f"first bytes {data[:4].hex()}", "a tokenizer.bin or a sentencepiece tokenizer.model"
        )
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


def find_tokenizer(model_path: str | PathLike[str], vocab_size: int) -> Tokenizer | None:
    """Read the tokenizer beside a model, as NAMES_BESIDE says; raise ModelFileError where several of equal rank fit."""
    path = Path(model_path)
    for name in NAMES_BESIDE:
        paths = sorted(path.parent.glob(name)) if "*" in name else [path.with_name(name.format(stem=path.stem))]
        found = [(beside.name, _tokenizer_at(beside, is_guess="*" in name)) for beside in paths if beside.is_file()]
        fitting = [(name, tokenizer) for name, tokenizer in found if tokenizer and tokenizer.vocab_size == vocab_size]
        if len(fitting) > 1:
            names = " and ".join(name for name, _ in fitting)
            raise ModelFileError(path.parent, "tokenizer", names, "one that fits the model", "name the right one with -z")
        if fitting:
            return fitting[0][1]
    return None


def huggingface_files(tokenizer: Tokenizer, context: int) -> dict[str, bytes]:
    """Name -> content of each file of a Hugging Face folder that gives the ids of this tokenizer.

    Raises TokenizerError where no kind of file does.
    """
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
        files["tokenizer_config.json"] = _tokenizer_config(tokenizer, context, "tokenizer.json" in files)
    return files


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
    from llamita.tokenizer.huggingface import check_merges_alone

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


def _tokenizer_config(tokenizer: Tokenizer, context: int, has_json: bool) -> bytes:
    """What AutoTokenizer looks for: which class reads the files, and which pieces are special."""
    from llamita.tokenizer.conversion import to_sentencepiece
    from llamita.tokenizer.sentencepiece import UNKNOWN

    source = to_sentencepiece(tokenizer)
    values = {
        "add_bos_token": source.bos_id >= 0,
        "add_eos_token": False,
        "bos_token": source.rules.bos_piece if source.bos_id >= 0 else None,
        "clean_up_tokenization_spaces": False,
        "eos_token": source.rules.eos_piece if source.eos_id >= 0 else None,
        "legacy": False,
        "model_input_names": ["input_ids", "attention_mask"],  # else generate() stumbles over token_type_ids
        "model_max_length": context,
        "tokenizer_class": "PreTrainedTokenizerFast" if has_json else "LlamaTokenizer",
        "unk_token": source.pieces[source.types.index(UNKNOWN)],
    }
    return json.dumps(values, indent=2, ensure_ascii=False).encode() + b"\n"
