"""What takes long once is kept: the folder for it, and the line that tells why nothing happens for some seconds.

Knows nothing of what is kept; everything there can be made again, so anybody may delete it.
"""

import contextlib
import os
import sys
import tempfile
from pathlib import Path

from llamita.errors import one_line

FOLDER_VARIABLE = "LLAMITA_CACHE_DIR"


def cache_folder() -> Path | None:
    """A folder of this user's that can be written, or None. LLAMITA_CACHE_DIR moves it.

    It is nobody else's: machine code from a folder of others' must not be run.
    """
    for folder in _candidates():
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = folder.stat()
            is_ours = not hasattr(os, "getuid") or (status.st_uid == os.getuid() and not status.st_mode & 0o022)
            if is_ours and os.access(folder, os.W_OK):
                return folder
    return None


def why_no_folder() -> str:
    """What to say where cache_folder found none: which folders it tried, and what to do."""
    tried = " and ".join(one_line(str(folder)) for folder in _candidates())
    return f"found {tried}, expected a folder that you alone may write; set {FOLDER_VARIABLE} to another one"


def _candidates() -> list[Path]:
    """Where the folder may lie, the likeliest first."""
    if named := os.environ.get(FOLDER_VARIABLE):
        return [Path(named)]
    folders = []
    with contextlib.suppress(RuntimeError):  # no home folder
        import platformdirs

        folders.append(Path(platformdirs.user_cache_dir("llamita")))
    owner = os.getuid() if hasattr(os, "getuid") else "user"
    return [*folders, Path(tempfile.gettempdir()) / f"llamita-{owner}"]


def announce(line: str) -> None:
    """Tell the user why nothing happens for some seconds."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            print(line, file=sys.stderr, flush=True)
