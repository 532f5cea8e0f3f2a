"""The functions of llamita.files under the name that formats/ knew them by."""

from llamita.files import atomic_file, map_file, read_file

__all__ = ["atomic_file", "map_file", "read_file"]
