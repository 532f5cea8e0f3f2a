"""What a Hugging Face folder says beside config and weights: chat template, ids that end a text, BOS and EOS of its tokenizer.

Read from tokenizer_config.json, special_tokens_map.json, chat_template.jinja and generation_config.json, each of which may be
missing. Knows neither weights nor how a tokenizer works. Source: transformers' tokenization_utils_base.py and
configuration_utils.py.
"""

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from llamita.errors import ModelFileError
from llamita.files import read_file
from llamita.formats.file_names import CONFIG_NAME, GENERATION_NAME
from llamita.formats.json_text import MAX_TEXT_BYTES, parse_object, shown

TOKENIZER_CONFIG_NAME = "tokenizer_config.json"
SPECIAL_TOKENS_NAME = "special_tokens_map.json"
TEMPLATE_NAME = "chat_template.jinja"


@dataclass(frozen=True)
class Ends:
    """What stands around a text, as a folder says it; None where it says nothing. bos and eos: spellings, "" for none."""

    bos: str | None = None
    eos: str | None = None
    adds_bos: bool | None = None


def read_ends(folder: str | PathLike[str]) -> Ends:
    """Read BOS and EOS of the tokenizer in a folder, and whether a text begins with BOS; raise ModelFileError."""
    folder = Path(folder)
    values = _read_object(folder / SPECIAL_TOKENS_NAME) | _read_object(folder / TOKENIZER_CONFIG_NAME)
    adds_bos = values.get("add_bos_token")
    if adds_bos is not None and not isinstance(adds_bos, bool):
        raise ModelFileError(folder / TOKENIZER_CONFIG_NAME, "add_bos_token", shown(adds_bos), "true or false")
    bos, eos = (_spelling(values, name, folder / TOKENIZER_CONFIG_NAME) for name in ("bos_token", "eos_token"))
    return Ends(bos, eos, adds_bos)


def read_chat_template(folder: str | PathLike[str]) -> str:
    """Read the chat template of a folder, of several the one named "default"; "" where there is none. Raises ModelFileError."""
    folder = Path(folder)
    path = folder / TEMPLATE_NAME
    if path.exists():
        try:
            return read_file(path, MAX_TEXT_BYTES).decode("utf-8")
        except UnicodeDecodeError as error:
            raise ModelFileError(path, "content", error, "text in UTF-8") from None
    path = folder / TOKENIZER_CONFIG_NAME
    template = _read_object(path).get("chat_template")
    if isinstance(template, list):
        named = [entry for entry in template if isinstance(entry, dict) and entry.get("name") == "default"]
        template = named[0].get("template") if named else None
    if template is not None and not isinstance(template, str):
        raise ModelFileError(path, "chat_template", shown(template), "a text, or a list of named ones")
    return template or ""


def read_stop_ids(folder: str | PathLike[str], vocab_size: int) -> tuple[int, ...]:
    """Read the ids that end a text: those of generation_config.json, else of config.json. Raises ModelFileError."""
    for name in (GENERATION_NAME, CONFIG_NAME):
        path = Path(folder) / name
        value = _read_object(path).get("eos_token_id")
        if value is None:
            continue
        ids: list[Any] = value if isinstance(value, list) else [value]
        for token_id in ids:
            if type(token_id) is not int or not -1 <= token_id < vocab_size:
                raise ModelFileError(path, "eos_token_id", shown(value), f"ids below the vocabulary's size {vocab_size}")
        return tuple(dict.fromkeys(token_id for token_id in ids if token_id >= 0))
    return ()


def _spelling(values: dict[str, object], name: str, path: Path) -> str | None:
    """How a special token is spelled, by itself or as an object with flags; null means that there is none."""
    if name not in values:
        return None
    token = values[name]
    text = token.get("content") if isinstance(token, dict) else token
    if text is not None and not isinstance(text, str):
        raise ModelFileError(path, name, shown(token), "a text, or an object with its content")
    return text or ""


def _read_object(path: Path) -> dict[str, object]:
    """The object in a file, empty where there is no file."""
    return parse_object(read_file(path, MAX_TEXT_BYTES), path) if path.exists() else {}
