"""The tokenizer of a data set: found where the user points, copied beside the tokens, so that training needs one folder only.

A tokenizer often lies in several files (for llamita, llama2.c and other programs); those that go together are copied together.
"""

import os
import shutil
from pathlib import Path

from llamita.errors import DataError, LlamitaError, one_line
from llamita.files import atomic_file
from llamita.formats import read_tokenizer
from llamita.tokenizer import Tokenizer

NAMES = ("tokenizer.model", "tokenizer.bin", "tokenizer.json")  # the first that is there encodes: it is the fastest


def find_tokenizer(path: str | os.PathLike[str]) -> Path:
    """The tokenizer file that is named, or the one in the folder that is named; raise DataError where there is none."""
    named = Path(path)
    found = next((named / name for name in NAMES if (named / name).is_file()), None) if named.is_dir() else named
    if found is None or not found.is_file():
        raise DataError(one_line(f"{named}: found no tokenizer, expected {', '.join(NAMES)} or a folder with one"))
    return found


def copy_tokenizer(path: Path, folder: Path) -> tuple[Path, Tokenizer]:
    """Copy a tokenizer and its other files into a folder under their usual names; where it now lies, and what was read.

    Raises ModelFileError for a broken one and TokenizerError for one without BOS, which begins every document.
    """
    tokenizer = read_tokenizer(path)
    tokenizer.encode("", bos=True)
    copied_path = folder / f"tokenizer{path.suffix}"
    for source, target in [(path, copied_path), *((path.with_name(name), folder / name) for name in NAMES)]:
        if source == path or (target != copied_path and _belongs(source, tokenizer)):
            with source.open("rb") as content, atomic_file(target) as file:
                shutil.copyfileobj(content, file)
    return copied_path, tokenizer


def _belongs(path: Path, tokenizer: Tokenizer) -> bool:
    """Whether a file beside the tokenizer holds the same vocabulary."""
    try:
        other = read_tokenizer(path, tokenizer.vocab_size)
    except LlamitaError:
        return False
    return all(other.piece_bytes(i) == tokenizer.piece_bytes(i) for i in range(tokenizer.vocab_size))
