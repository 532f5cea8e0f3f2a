"""run.c's encode, line by line: every pair is looked at again after each merge. The plain twin of tokenizer/merging.py."""


def encode(pieces: list[bytes], scores: list[float], text: str, bos: bool = False, eos: bool = False) -> list[int]:
    """The ids that run.c gives; bytes have the ids byte + 3, pieces are distinct."""
    ids_of = {piece: token_id for token_id, piece in enumerate(pieces)}
    ids = [1] if bos else []
    if text:
        ids.append(ids_of[b" "])
    for character in text:
        data = character.encode("utf-8")
        ids += [ids_of[data]] if data in ids_of else [byte + 3 for byte in data]
    while True:
        best_score, best_place, best_id = -1e10, -1, -1
        for place in range(len(ids) - 1):
            merged_id = ids_of.get(pieces[ids[place]] + pieces[ids[place + 1]], -1)
            if merged_id >= 0 and scores[merged_id] > best_score:
                best_score, best_place, best_id = scores[merged_id], place, merged_id
        if best_place < 0:
            return [*ids, 2] if eos else ids
        ids[best_place : best_place + 2] = [best_id]
