"""The folder that a verb writes into: it may hold what the same verb has left there, but nobody's model."""

import re
import shutil
from pathlib import Path

from llamita.data.manifest import MANIFEST_NAME
from llamita.data.tokenizer_copy import EXTRA_NAMES, NAMES
from llamita.errors import DataError, one_line
from llamita.formats.file_names import CONFIG_NAME

_TELLS_CHATS = re.compile(rf"{re.escape(MANIFEST_NAME)}|(train|validation)\.\w+\.bin|\.parts")
_OF_CHATS = re.compile(
    "|".join([_TELLS_CHATS.pattern, *map(re.escape, (*NAMES, *EXTRA_NAMES)), r"\.[\w.]+\.[0-9a-f]{8}\.part"])
)


def check_no_model(folder: Path) -> None:
    """Raise DataError for the folder of a model, whose weights or tokenizer would be written over."""
    if (folder / CONFIG_NAME).exists():
        raise DataError(one_line(f"{folder}: found a model there ({CONFIG_NAME}), expected another; name it with --out"))


def empty_of_chats(folder: Path) -> None:
    """Remove what `prepare_chats` has left in a folder; raise DataError, and remove nothing, where anything else lies there.

    Only tokens or their manifest tell that the folder is ours: somebody may keep a tokenizer, or all text, under that name.
    """
    found = list(folder.iterdir()) if folder.is_dir() and not folder.is_symlink() else []
    others = [path.name for path in found if not _OF_CHATS.fullmatch(path.name)]
    if (folder / MANIFEST_NAME).exists() and b"llamita-chats" not in (folder / MANIFEST_NAME).read_bytes():
        others.append(MANIFEST_NAME)
    if others or (found and not any(_TELLS_CHATS.fullmatch(path.name) for path in found)):
        name = others[0] if others else found[0].name
        raise DataError(one_line(f"{folder}: found {name}, expected nothing of yours there: the chats' tokens come there"))
    for path in found:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
