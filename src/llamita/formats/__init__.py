"""Disk to Model and back: `read_model` recognises a format by its content and finds the tokenizer that lies beside it.

The border between untrusted files and the rest: behind it, a Model's parts fit each other. Each format is one module with
`read(path)` and `write(model, path)`; nothing outside formats/ knows a file layout. Knows no engine.
"""

from dataclasses import replace
from os import PathLike, fspath
from pathlib import Path

from llamita.errors import ModelFileError, SettingError
from llamita.files import atomic_file, read_file
from llamita.formats import llama2c, llama2c_writer
from llamita.model import Model, check_tokenizer_fits
from llamita.tokenizer import Tokenizer
from llamita.tokenizer.llama2c import parse_tokenizer_bin, serialize_tokenizer_bin

TOKENIZER_LIMIT_BYTES = 64 << 20
MODEL_FILE_IN_FOLDER = "model.bin"
# Beside MODEL.bin, in this order; the last two only where one file alone fits, such as tok512.bin. tokenizer.bin comes first
# because it starts faster than tokenizer.model and gives llama2.c's ids.
TOKENIZER_NAMES = ("tokenizer.bin", "tokenizer.model", "{stem}.model", "tok*.bin", "tok*.model")
WRITERS = {"llama2c-v0": 0, "llama2c-v1": 1, "llama2c-v2": 2}  # what `llamita export --to` may say -> version


def read_model(path: str | PathLike[str], tokenizer: str | PathLike[str] | None = None) -> Model:
    """Read a model file, or a folder with a model.bin, with the tokenizer named or the one found beside it.

    A tokenizer beside the model counts only if it has as many tokens as the model; without one, Model.tokenizer is None.
    Weights stay on disk until they are touched. Raises ModelFileError; ModelError for a named tokenizer that does not fit.
    """
    model_path = _model_path(path)
    model = llama2c.read(model_path)
    if tokenizer is not None:
        return _with_tokenizer(model, read_tokenizer(tokenizer))
    found = _find_tokenizer(model_path, model.config.vocab_size)
    return model if found is None else _with_tokenizer(model, found)


def read_tokenizer(path: str | PathLike[str], vocab_size: int | None = None) -> Tokenizer:
    """Read a tokenizer.bin of llama2.c or a tokenizer.model of sentencepiece, whichever it is.

    Raises ModelFileError where it is neither, or does not have vocab_size tokens, where that is given.
    """
    data = read_file(path, TOKENIZER_LIMIT_BYTES)
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


def write_model(model: Model, path: str | PathLike[str], to: str, group: int | None = None) -> None:
    """Write a model as llama2c-v0, llama2c-v1 or llama2c-v2, whole or not at all.

    group: weights per scale of v2, where the writer shall not choose. Raises ModelFileError for what the format cannot hold.
    """
    if to not in WRITERS:
        raise SettingError(f"format: found {to}, expected {', '.join(WRITERS)}")
    llama2c_writer.write(model, path, version=WRITERS[to], group=group)


def write_tokenizer(tokenizer: Tokenizer, path: str | PathLike[str]) -> None:
    """Write a tokenizer as llama2.c's NAME.bin or as sentencepiece's NAME.model, converted where it is the other kind.

    Raises ModelFileError where the file cannot be written, TokenizerError where the format cannot hold the vocabulary.
    """
    from llamita.tokenizer.conversion import to_llama2c, to_sentencepiece
    from llamita.tokenizer.sentencepiece import serialize_sentencepiece

    suffix = Path(path).suffix
    if suffix not in (".bin", ".model"):
        raise ModelFileError(path, "name", f"ending {suffix!r}", "NAME.bin for llama2.c or NAME.model for sentencepiece")
    if suffix == ".bin":
        data = serialize_tokenizer_bin(to_llama2c(tokenizer))
    else:
        data = serialize_sentencepiece(to_sentencepiece(tokenizer))
    with atomic_file(path) as file:
        file.write(data)


def _model_path(path: str | PathLike[str]) -> str:
    """The model file itself, where a folder is named."""
    folder = Path(path)
    if not folder.is_dir():
        return fspath(path)
    if not (folder / MODEL_FILE_IN_FOLDER).exists():
        raise ModelFileError(path, "folder", "no model", f"a {MODEL_FILE_IN_FOLDER}", "name the model file itself")
    return fspath(folder / MODEL_FILE_IN_FOLDER)


def _with_tokenizer(model: Model, tokenizer: Tokenizer) -> Model:
    model = replace(model, tokenizer=tokenizer)
    check_tokenizer_fits(model)
    return model


def _find_tokenizer(model_path: str, vocab_size: int) -> Tokenizer | None:
    """The tokenizer beside a model, as TOKENIZER_NAMES says; raise ModelFileError where several of equal rank fit."""
    path = Path(model_path)
    for name in TOKENIZER_NAMES:
        paths = sorted(path.parent.glob(name)) if "*" in name else [path.with_name(name.format(stem=path.stem))]
        found = [(beside.name, _tokenizer_at(beside, is_guess="*" in name)) for beside in paths if beside.is_file()]
        fitting = [(name, tokenizer) for name, tokenizer in found if tokenizer and tokenizer.vocab_size == vocab_size]
        if len(fitting) > 1:
            names = " and ".join(name for name, _ in fitting)
            raise ModelFileError(path.parent, "tokenizer", names, "one that fits the model", "name the right one with -z")
        if fitting:
            return fitting[0][1]
    return None


def _tokenizer_at(path: Path, is_guess: bool) -> Tokenizer | None:
    """Read a tokenizer, or None where only a guess from the name fails: tok*.bin may as well be tokens, or a model."""
    try:
        return read_tokenizer(path)
    except ModelFileError:
        if not is_guess:
            raise
        return None
