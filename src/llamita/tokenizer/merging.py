"""Byte-pair merging by score: the core of encoding with a tokenizer.bin.

Gives exactly what run.c's loop gives (merge the pair of highest score, the leftmost of equals, until none is left; its plain
twin is in tests/), in n log n steps instead of n * n. Knows pieces, scores and text; no special tokens.
"""

import heapq
import re
from collections.abc import Iterator
from functools import cached_property

LOWEST_SCORE = -1e10  # run.c starts its search here, so pairs at or below it are never merged
_LONG_WORD = 48
_CACHED_WORDS = 1 << 16


class Merger:
    """The dictionary of a vocabulary, and a cache of words; built on the first encode."""

    def __init__(self, pieces: list[bytes], scores: list[float]) -> None:
        self._pieces = pieces
        self._scores = scores
        # of equal pieces the first counts
        self._ids = dict(zip(reversed(pieces), range(len(pieces) - 1, -1, -1), strict=True))
        # 0, the unknown piece, stands for bytes that the vocabulary lacks; run.c would print whatever lies at byte + 3
        self._byte_ids = [self._ids.get(b"<0x%02X>" % byte, 0) for byte in range(256)]
        # Words may be merged one by one, and remembered, unless some piece reaches over the beginning of a word
        crosses = b" " not in self._ids or re.search(rb"[^ \xff] ", b"\xff".join(pieces))  # no UTF-8 text holds 0xFF
        self._words = re.compile(r".+" if crosses else r" *[^ ]+| +", re.DOTALL)
        self._cache: dict[str, list[int]] = {}

    def merge(self, text: str) -> list[int]:
        """The ids of a text: characters, or bytes where the vocabulary lacks one, merged as far as scores say."""
        ids: list[int] = []
        cache = self._cache
        for word in self._words.findall(text):
            found = cache.get(word)
            if found is None:
                if len(word) > _LONG_WORD:  # no word of a language with spaces: too rare to remember, too slow to merge whole
                    ids += [token_id for part in self._parts(word) for token_id in self._merge_word(part)]
                    continue
                if len(cache) >= _CACHED_WORDS:
                    cache.clear()
                found = cache[word] = self._merge_word(word)
            ids += found
        return ids

    def _parts(self, word: str) -> Iterator[str]:
        """Cut a long word where no piece has these two characters side by side, so that no merge can reach across."""
        start = 0
        for i in range(1, len(word)):
            if word[i - 1 : i + 1] not in self._neighbours:
                yield word[start:i]
                start = i
        yield word[start:]

    @cached_property
    def _neighbours(self) -> set[str]:
        texts = [piece.decode("utf-8", "replace") for piece in self._pieces]
        return {text[i : i + 2] for text in texts for i in range(len(text) - 1)}

    def _merge_word(self, word: str) -> list[int]:
        ids = self._characters(word)
        end = len(ids)
        after = list(range(1, end + 1))  # the neighbours of a place; merged places are skipped
        before = list(range(-1, end - 1))
        # (-score, left place, ids of the left, right and merged piece): the smallest is the best pair, the leftmost of equals
        heap = [(pair[0], left, *pair[1:]) for left, pair in enumerate(map(self._pair, ids, ids[1:])) if pair]
        heapq.heapify(heap)
        while heap:
            _, left, left_id, right_id, merged_id = heapq.heappop(heap)
            right = after[left]
            if ids[left] != left_id or right == end or ids[right] != right_id:
                continue  # one of the two was merged since
            ids[left], ids[right] = merged_id, -1
            after[left] = following = after[right]
            if following < end:
                before[following] = left
                if pair := self._pair(merged_id, ids[following]):
                    heapq.heappush(heap, (pair[0], left, *pair[1:]))
            preceding = before[left]
            if preceding >= 0 and (pair := self._pair(ids[preceding], merged_id)):
                heapq.heappush(heap, (pair[0], preceding, *pair[1:]))
        return [token_id for token_id in ids if token_id >= 0]

    def _characters(self, word: str) -> list[int]:
        ids: list[int] = []
        for character in word:
            data = character.encode("utf-8")
            token_id = self._ids.get(data)
            if token_id is None:
                ids += [self._byte_ids[byte] for byte in data]
            else:
                ids.append(token_id)
        return ids

    def _pair(self, left_id: int, right_id: int) -> tuple[float, int, int, int] | None:
        """(-score, left id, right id, merged id), or None where the two do not make a piece."""
        merged_id = self._ids.get(self._pieces[left_id] + self._pieces[right_id])
        if merged_id is None or self._scores[merged_id] <= LOWEST_SCORE:
            return None
        return -self._scores[merged_id], left_id, right_id, merged_id
