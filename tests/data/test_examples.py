"""A folder of examples is checked when it is opened: whatever was changed in it is refused in one line."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from llamita.data.chat_manifest import ChatManifest, Side, read_chat_manifest, write_chat_manifest
from llamita.data.example_files import Spool, draw
from llamita.data.examples import open_chats
from llamita.errors import DataError, LlamitaError
from llamita.tokenizer.answers import Example

V = 50


def spooled(folder: Path, n: int) -> tuple[dict[str, Side], list[Example]]:
    rng = np.random.default_rng(5)
    examples = []
    (folder / ".parts").mkdir(parents=True)
    with Spool(folder / ".parts", np.dtype("<u2"), np.arange(V)) as spool:
        for i in range(n):
            ids = rng.integers(0, V, rng.integers(2, 9)).tolist()
            examples.append(Example(ids, [False, *rng.integers(0, 2, len(ids) - 2).astype(bool).tolist(), True]))
            spool.add([examples[-1]], f"question {i // 2}")
        sides, n_duplicates, was_divided = spool.divide(0.2)
    assert (n_duplicates, was_divided) == (0, False)
    return sides, examples


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, list[Example]]:
    folder = tmp_path_factory.mktemp("chats") / "data"
    sides, examples = spooled(folder, 40)
    facts = {"n_read": 40, "n_duplicates": 0, "n_cut": 0, "left_out": {}, "shapes": {}, "recipe": {"tokenizer": "x"}}
    ends = {"vocab_size": V, "bos_id": 1, "eos_id": 2, "tokenizer": "tokenizer.json", "template": "chatml"}
    manifest = ChatManifest("chats", "uint16", **ends, **sides, **facts)  # type: ignore[arg-type]
    write_chat_manifest(manifest, folder)
    return folder, examples


@pytest.fixture
def folder(made: tuple[Path, list[Example]], tmp_path: Path) -> Path:
    return Path(shutil.copytree(made[0], tmp_path / "data"))


def refused(folder: Path) -> str:
    with pytest.raises(LlamitaError) as caught:
        open_chats(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_all_examples_are_there_in_their_order(made: tuple[Path, list[Example]]):
    folder, examples = made
    data = open_chats(folder)
    sides = (data.train, data.validation)
    found = [[Example(side.ids(i).tolist(), side.counted(i).tolist()) for i in range(side.n_examples)] for side in sides]
    assert len(found[1]) == 8
    assert sorted(found[0] + found[1]) == sorted(examples)
    assert found[0] == [example for example in examples if example in found[0]]
    assert data.train.n_bytes == sum(
        token_id for ids, counted in found[0] for token_id, flag in zip(ids, counted, strict=True) if flag
    )


def test_a_manifest_survives_the_disk(folder: Path):
    manifest = read_chat_manifest(folder)
    write_chat_manifest(manifest, folder)
    assert read_chat_manifest(folder) == manifest


@pytest.mark.parametrize("name", ["train.tokens.bin", "train.counted.bin", "train.ends.bin", "validation.tokens.bin"])
def test_a_file_that_was_changed_cut_or_lost_is_refused(folder: Path, name: str):
    path = folder / name
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    assert f"{name}: found {len(content) - 1} bytes, expected {len(content)}" in refused(folder)
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert f"{name}: found other content" in refused(folder)
    path.write_bytes(b"")
    assert name in refused(folder)
    path.unlink()
    assert name in refused(folder)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"version": 9}, "found ('llamita-chats', 9), expected ('llamita-chats', 1)"),
        ({"format": "llamita-tokens"}, "found ('llamita-tokens', 1)"),
        ({"dtype": "uint8"}, "found wrong values"),
        ({"vocab_size": 10}, "found ends, ids or counts that do not fit"),
        ({"vocab_size": "x"}, "wrong fields (vocab_size is 'x')"),
        ({"train": []}, "wrong fields"),
        ({"train": None}, "wrong fields"),
        ({"left_out": []}, "wrong fields"),
        ({"n_read": [3]}, "wrong fields"),
        ({"train": {"n_examples": 0, "n_tokens": 0, "n_counted": 0, "n_bytes": 0, "sha256": {}}}, "found wrong values"),
        ({"train": {"n_examples": -1, "n_tokens": -5, "n_counted": 0, "n_bytes": 0, "sha256": {}}}, "found wrong values"),
        ({"train": {"n_examples": 1 << 70, "n_tokens": 5, "n_counted": 0, "n_bytes": 0, "sha256": {}}}, "train.tokens.bin"),
    ],
    ids=str,
)
def test_a_hostile_manifest_is_refused(folder: Path, change: dict, complaint: str):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert complaint in refused(folder)


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b"[" * 100_000, b"{}"])
def test_a_broken_manifest_is_refused(folder: Path, content: bytes):
    (folder / "manifest.json").write_bytes(content)
    assert "manifest.json: found" in refused(folder)


def test_a_folder_of_other_things_is_refused(tmp_path: Path):
    assert "found no manifest.json, expected chats that were prepared to the end" in refused(tmp_path)


@pytest.mark.parametrize(
    ("n", "share", "expected"), [(2, 0.01, 1), (2, 0.99, 1), (100, 0.05, 5), (100, 0.999, 99), (3, 0.5, 2)]
)
def test_a_share_validates_at_least_one_and_never_all(n: int, share: float, expected: int):
    digests = np.random.default_rng(0).integers(0, 1 << 63, (n, 2)).astype(np.uint64)
    validates, was_divided = draw(digests, share)
    assert (int(validates.sum()), was_divided) == (expected, False)


def test_units_of_one_lot_stay_together_as_far_as_lots_fit():
    digests = np.zeros((100, 2), np.uint64)
    digests[:, 0] = np.random.default_rng(0).permutation(100)
    digests[:90, 1] = 7  # one lot that is larger than what shall validate
    digests[90:, 1] = np.arange(100, 110)
    validates, was_divided = draw(digests, 0.05)
    assert (validates[:90].sum(), validates[90:].sum(), was_divided) == (0, 5, False)
    validates, was_divided = draw(digests[:90], 0.1)
    assert (validates.sum(), was_divided) == (9, True)


def test_which_units_validate_does_not_depend_on_their_order():
    rng = np.random.default_rng(1)
    digests = rng.integers(0, 1 << 63, (50, 2)).astype(np.uint64)
    order = rng.permutation(50)
    assert (draw(digests, 0.2)[0][order] == draw(digests[order], 0.2)[0]).all()


def test_equal_units_are_counted_once(tmp_path: Path):
    (tmp_path / "data" / ".parts").mkdir(parents=True)
    example, other = Example([1, 2, 3], [False, True, True]), Example([1, 2, 3], [False, False, True])
    with Spool(tmp_path / "data" / ".parts", np.dtype("<u2"), np.ones(9)) as spool:
        for each in (example, example, other, example):
            spool.add([each], "a")
        sides, n_duplicates, _ = spool.divide(0.5)
    assert n_duplicates == 2
    assert sides["train"].n_examples == sides["validation"].n_examples == 1


def test_one_unit_cannot_be_divided(tmp_path: Path):
    (tmp_path / ".parts").mkdir()
    with Spool(tmp_path / ".parts", np.dtype("<u2"), np.ones(9)) as spool:
        spool.add([Example([1, 2], [False, True])], "a")
        with pytest.raises(DataError, match="found 1 different ones, expected at least 2"):
            spool.divide(0.5)
