"""What takes long once is kept: the folder for it, and the line that tells why nothing happens for some seconds.

Knows nothing of what is kept; everything there can be made again, so anybody may delete it.
"""

import contextlib
import os
import sys
import tempfile
from pathlib import Path


def cache_folder() -> Path | None:
    """A folder of this user's that can be written, or None. LLAMITA_CACHE_DIR moves it.

    It is nobody else's: machine code from a folder of others' must not be run.
    """
    candidates = [os.environ.get("LLAMITA_CACHE_DIR")]
    if not candidates[0]:
        with contextlib.suppress(RuntimeError):  # no home folder
            import platformdirs

            candidates = [platformdirs.user_cache_dir("llamita")]
        owner = os.getuid() if hasattr(os, "getuid") else "user"
        candidates.append(str(Path(tempfile.gettempdir()) / f"llamita-{owner}"))
    for candidate in filter(None, candidates):
        folder = Path(candidate)
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = folder.stat()
            is_ours = not hasattr(os, "getuid") or (status.st_uid == os.getuid() and not status.st_mode & 0o022)
            if is_ours and os.access(folder, os.W_OK):
                return folder
    return None


def announce(line: str) -> None:
    """Tell the user why nothing happens for some seconds."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            print(line, file=sys.stderr, flush=True)
