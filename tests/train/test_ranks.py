"""One rank, two ranks, layers shared out: the same samples, the same losses; and each resumes bit for bit."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch comes with llamita[train]")

import kills  # pyright: ignore[reportMissingImports]

DROPOUT = "dropout=0.1"  # the same of every sample, whichever rank reads it
PROGRAM = Path(__file__).with_name("ranks.py")


@pytest.fixture(scope="module")
def tokens(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    kills.make_text(folder)
    return folder / "tokens"


def torchrun(n_ranks: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n_ranks)]
    return subprocess.run(
        [sys.executable, *launcher, str(PROGRAM), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )


def losses(out: Path) -> list[float]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def weights(out: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((out / "checkpoints" / "step-00000010").glob("*.safetensors"))]


@pytest.fixture(scope="module")
def one_rank(tokens, tmp_path_factory) -> list[float]:
    out = tmp_path_factory.mktemp("one")
    done = torchrun(1, tokens, out, "ddp", DROPOUT)
    assert done.returncode == 0, done.stderr
    return losses(out)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_ranks_train_as_one_and_resume_bit_for_bit(tokens, tmp_path, one_rank, parallel):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = torchrun(2, tokens, whole, parallel, DROPOUT)
    assert done.returncode == 0, done.stderr
    assert losses(whole) == pytest.approx(one_rank, rel=1e-5)

    assert torchrun(2, tokens, killed, parallel, DROPOUT, "stop_after=7").returncode != 0
    assert not (killed / "checkpoints" / "step-00000010").exists()
    done = torchrun(2, tokens, killed, parallel, DROPOUT)
    assert done.returncode == 0, done.stderr
    assert losses(killed) == losses(whole)
    assert weights(killed) == weights(whole)


def test_ranks_that_cannot_share_an_update_evenly_are_refused(tokens, tmp_path):
    done = torchrun(3, tokens, tmp_path, "ddp")
    assert done.returncode != 0
    assert "found 8 sequences per update, expected a multiple of the 3 processes" in done.stderr
