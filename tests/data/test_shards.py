"""Windows of tokens out of shards, and folders that are refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamita.data.manifest import Shard, Split, read_manifest, write_manifest
from llamita.data.prepare import prepare
from llamita.data.shards import TokenStream, open_dataset
from llamita.errors import LlamitaError


@pytest.fixture
def folder(tmp_path: Path, stories_path: Path, tokenizer_path: Path) -> Path:
    prepare([stories_path], tokenizer_path, tmp_path / "tokens")
    return tmp_path / "tokens"


def refused(folder: Path) -> str:
    with pytest.raises(LlamitaError) as caught:
        open_dataset(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    starts=st.lists(st.integers(-(2**40), 2**40), max_size=6),
    length=st.integers(0, 40),
)
def test_windows_go_around_the_circle_of_all_shards(sizes: list[int], starts: list[int], length: int):
    tokens = np.arange(sum(sizes), dtype=np.uint16)
    shards = np.split(tokens, np.cumsum(sizes)[:-1])
    stream = TokenStream(Split(1, len(tokens), 1, ()), shards)
    expected = (np.array(starts, np.int64)[:, None] + np.arange(length)) % len(tokens)
    windows = stream.windows(np.array(starts, np.int64), length)
    assert windows.dtype == np.int64
    assert windows.shape == (len(starts), length)
    assert (windows == expected).all()


def test_a_folder_opens_with_all_that_its_manifest_says(folder: Path):
    dataset = open_dataset(folder)
    assert dataset.folder == folder
    assert dataset.fingerprint == dataset.manifest.fingerprint
    for stream, split in ((dataset.train, dataset.manifest.train), (dataset.validation, dataset.manifest.validation)):
        assert (stream.n_tokens, stream.n_documents, stream.n_bytes) == (split.n_tokens, split.n_documents, split.n_bytes)
        tokens = stream.windows(np.array([0]), stream.n_tokens)[0]
        assert (tokens == np.concatenate([np.fromfile(folder / shard.name, "<u2") for shard in split.shards])).all()
        assert (tokens == dataset.manifest.bos_id).sum() == stream.n_documents


def test_the_fingerprint_follows_the_tokens_and_nothing_else(folder: Path):
    manifest = open_dataset(folder).manifest
    other_names = replace(manifest, detected={}, recipe=replace(manifest.recipe, sources=()))
    assert other_names.fingerprint == manifest.fingerprint
    other_tokens = replace(manifest.train, shards=(Shard("train-00000.bin", manifest.train.n_tokens, "0" * 64),))
    assert replace(manifest, train=other_tokens).fingerprint != manifest.fingerprint


def test_a_manifest_survives_the_disk(folder: Path):
    manifest = read_manifest(folder)
    write_manifest(manifest, folder)
    assert read_manifest(folder) == manifest


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path):
    assert "found no manifest.json, expected a folder that `llamita prepare` has finished" in refused(tmp_path)
    assert "found no manifest.json" in refused(tmp_path / "nowhere")


def test_a_truncated_shard_is_refused(folder: Path):
    shard = folder / "train-00000.bin"
    shard.write_bytes(shard.read_bytes()[:-2])
    assert "train-00000.bin: found" in refused(folder)
    shard.write_bytes(b"")
    assert "train-00000.bin: file size" in refused(folder)
    shard.unlink()
    assert "train-00000.bin: file: found No such file" in refused(folder)


def test_ids_outside_the_vocabulary_are_refused(folder: Path):
    shard = folder / "train-00000.bin"
    content = bytearray(shard.read_bytes())
    content[-2:] = (330).to_bytes(2, "little")
    shard.write_bytes(content)
    assert "found token 330, expected ids below 330" in refused(folder)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"version": 99}, "found ('llamita-tokens', 99), expected ('llamita-tokens', 1)"),
        ({"format": "other"}, "found ('other', 1)"),
        ({"dtype": "float64"}, "found dtype float64"),
        ({"vocab_size": "many"}, "wrong fields (vocab_size is 'many')"),
        ({"train": None}, "wrong fields"),
        ({"train": {"n_documents": 1, "n_tokens": 5, "n_bytes": 9, "shards": []}}, "found shards of other sizes"),
        (
            {
                "train": {
                    "n_documents": 1,
                    "n_tokens": 5,
                    "n_bytes": 9,
                    "shards": [{"name": "../x", "n_tokens": 5, "sha256": ""}],
                }
            },
            "found the shard ../x",
        ),
    ],
)
def test_a_hostile_manifest_is_refused(folder: Path, change: dict, expected: str):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert expected in refused(folder)


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b"[" * 100_000, b"{}"])
def test_a_broken_manifest_is_refused(folder: Path, content: bytes):
    (folder / "manifest.json").write_bytes(content)
    assert "manifest.json: found" in refused(folder)
