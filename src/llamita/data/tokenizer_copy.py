"""The tokenizer of a data set: found where the user points, copied beside the tokens, so that training needs one folder only.

The file itself is copied as it is; beside it the same vocabulary is written for other programs, as far as their files hold it.
"""

import os
import shutil
from contextlib import suppress
from pathlib import Path

from llamita.errors import DataError, TokenizerError, one_line
from llamita.files import atomic_file
from llamita.formats import read_tokenizer, write_tokenizer
from llamita.formats.huggingface_extras import SPECIAL_TOKENS_NAME, TEMPLATE_NAME, TOKENIZER_CONFIG_NAME
from llamita.tokenizer import Tokenizer

NAMES = ("tokenizer.model", "tokenizer.bin", "tokenizer.json")  # the first that is there encodes: it is the fastest
EXTRA_NAMES = (TOKENIZER_CONFIG_NAME, SPECIAL_TOKENS_NAME, TEMPLATE_NAME)


def find_tokenizer(path: str | os.PathLike[str]) -> Path:
    """The tokenizer file that is named, or the one in the folder that is named; raise DataError where there is none."""
    named = Path(path)
    found = next((named / name for name in NAMES if (named / name).is_file()), None) if named.is_dir() else named
    if found is None or not found.is_file():
        raise DataError(one_line(f"{named}: found no tokenizer, expected {', '.join(NAMES)} or a folder with one"))
    return found


def copy_tokenizer(path: Path, folder: Path) -> tuple[Path, Tokenizer]:
    """Copy a tokenizer into a folder, with the other files that can hold it; where the copy lies, and what was read.

    Raises ModelFileError for a broken one and TokenizerError for one without BOS, which begins every document.
    """
    tokenizer = read_tokenizer(path)
    tokenizer.encode("", bos=True)
    copied_path = folder / f"tokenizer{path.suffix}"
    _copy(path, copied_path)
    for name in EXTRA_NAMES:  # what a folder of Hugging Face says of BOS, EOS and chat
        if path.stem == "tokenizer" and path.with_name(name).is_file():
            _copy(path.with_name(name), folder / name)
    for name in NAMES:
        if name != copied_path.name:
            with suppress(TokenizerError):  # a tokenizer.bin holds byte pairs only, say
                write_tokenizer(tokenizer, folder / name)
    return copied_path, tokenizer


def _copy(path: Path, target: Path) -> None:
    with path.open("rb") as content, atomic_file(target) as file:
        shutil.copyfileobj(content, file)
