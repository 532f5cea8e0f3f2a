"""git-lfs pointers: what a clone without git-lfs has in the place of large files, three lines of text.

Every reader of a file that may be large asks here first. Source: github.com/git-lfs/git-lfs, docs/spec.md.
"""

import mmap
from os import PathLike

from llamita.errors import ModelFileError

_BEGINNING = b"version https://git-lfs"


def check_no_pointer(path: str | PathLike[str], data: bytes | mmap.mmap) -> None:
    """Raise ModelFileError where a file's content is that of a pointer."""
    if data[: len(_BEGINNING)] == _BEGINNING:
        remedy = "run git lfs pull in its folder"
        raise ModelFileError(path, "content", "a git-lfs pointer", "the file that it points to", remedy)
