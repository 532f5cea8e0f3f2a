"""The folder that a verb writes into: it may hold what the same verb has left there, but nobody's model."""

from pathlib import Path

from llamita.errors import DataError, one_line
from llamita.formats.file_names import CONFIG_NAME


def check_no_model(folder: Path) -> None:
    """Raise DataError for the folder of a model, whose weights or tokenizer would be written over."""
    if (folder / CONFIG_NAME).exists():
        raise DataError(one_line(f"{folder}: found a model there ({CONFIG_NAME}), expected another; name it with --out"))
