"""The compiled table of character replacements inside a sentencepiece model, checked before the C++ library walks through it.

The table is a trie in an array of 32-bit units (Darts-clone), then the replacements, each ended by a zero. The library follows
offsets without looking at the array's end, so every offset in the array is looked at here. Knows nothing of what is replaced.
"""

import struct

import numpy as np

from llamita.errors import TokenizerError


def check_charsmap(data: bytes) -> None:
    """Raise TokenizerError unless every walk through the trie stays inside it and ends at a replacement that is there."""
    if not data:
        return
    trie_bytes = struct.unpack_from("<I", data)[0] if len(data) >= 4 else 0
    if trie_bytes % 1024 or not 0 < trie_bytes < len(data) - 4:  # Darts-clone fills blocks of 256 units
        raise TokenizerError(f"charsmap: found a trie of {trie_bytes} bytes in {len(data)}, expected blocks of 1024 and texts")
    texts_bytes = len(data) - 4 - trie_bytes
    units = np.frombuffer(data, "<u4", trie_bytes // 4, 4)
    is_leaf = units >> 31 == 1  # the library never goes on from a leaf, except from the root, which it does not look at
    offsets = (units >> 10) << ((units & (1 << 9)) >> 6)
    children = np.arange(len(units), dtype=np.int64) ^ offsets.astype(np.int64)  # the child of label c is at children ^ c
    inside = is_leaf | ((children | 0xFF) < len(units))
    has_value = ~is_leaf & (units & (1 << 8) != 0) & inside
    values = units[children[has_value]] & 0x7FFFFFFF
    if is_leaf[0] or not inside.all() or (values >= texts_bytes).any() or data[-1] != 0:
        raise TokenizerError("charsmap: found an offset outside the table, expected all inside")
