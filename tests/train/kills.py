"""A program: train, kill the process at random moments with SIGKILL, resume; and train without being killed. Prints both ends.

    python kills.py FOLDER N_KILLS SEED

Children are forked from a process that has imported torch and computed nothing, so that a start costs no seconds. They save after
every other step, so that about half of the kills hit a save.
"""

import hashlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from llamita.config import ModelConfig
from llamita.data.prepare import prepare
from llamita.data.shards import open_dataset
from llamita.data.vocabulary import learn_vocabulary
from llamita.train import checkpoint
from llamita.train.config import Recipe, TrainConfig
from llamita.train.recorder import Audience, Recorder
from llamita.train.trainer import CHECKPOINTS, Trainer
from llamita.train.world import open_world

N_STEPS = 60


def make_text(folder: Path) -> None:
    """Sentences of a small world, and their shards."""
    rng = random.Random(0)
    words = "the cat dog bird sees likes finds a red small old ball tree house and then again today".split()
    (folder / "text.txt").write_text("\n".join(" ".join(rng.choices(words, k=12)) for _ in range(400)))
    learn_vocabulary([folder / "text.txt"], 300, folder / "vocabulary")
    prepare([folder / "text.txt"], folder / "vocabulary", folder / "tokens")


def train(tokens: Path, out: Path) -> None:
    """Begin, or go on with, a run of a few seconds."""
    recipe = Recipe(
        ModelConfig(width=32, n_layers=2, n_heads=4, n_kv_heads=2, mlp_width=64, vocab_size=300, context=32),
        TrainConfig(
            n_steps=N_STEPS, batch=4, accumulation=2, learning_rate=3e-3, warmup_steps=5, dropout=0.1, eval_every=6,
            eval_tokens=512, sample_every=0, save_every=2,
        ),
    )  # fmt: skip
    start = checkpoint.newest(out / CHECKPOINTS, print)
    with open_world("cpu", n_threads=2) as world, Path(os.devnull).open("w") as nowhere:
        audience = Audience(tensorboard=False, screen=nowhere)
        with Recorder(out, start[1].step if start else 0, N_STEPS, 1.0, None, audience) as recorder:
            Trainer(recipe, open_dataset(tokens), out, world, recorder, start).run()


def run_child(tokens: Path, out: Path, seconds: float | None) -> bool:
    """Train in a child, killed after some seconds; return whether it came to its end."""
    child = os.fork()
    if child == 0:
        try:
            train(tokens, out)
        except BaseException as error:
            print(f"child: {error!r}", flush=True)
            os._exit(1)
        os._exit(0)
    deadline = time.monotonic() + (600 if seconds is None else seconds)
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            assert status == 0, f"the run failed with status {status}"
            return True
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def end_of(out: Path) -> dict:
    """Everything that has to be the same: the last checkpoint's bytes, and what was logged of every step."""
    last = out / CHECKPOINTS / f"step-{N_STEPS:08d}"
    checkpoint.read_state(last)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    kept = ("step", "loss", "learning_rate", "gradient_norm", "bits_per_byte")
    return {
        "files": {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(last.glob("*.safetensors"))},
        "log": [{key: line[key] for key in kept if key in line} for line in lines if "loss" in line],
    }


def main(folder: Path, n_kills: int, seed: int) -> None:
    """Print one JSON object: both ends, and what the kills met."""
    make_text(folder)
    started = time.monotonic()
    assert run_child(folder / "tokens", folder / "whole", None)
    whole_seconds = time.monotonic() - started
    rng, kills, in_a_save, steps = random.Random(seed), 0, 0, set()
    out = folder / "killed"
    while kills < n_kills:
        # the later in the run, the sooner a kill would come too late: aim at a part of what is left, and count kills only
        done = max((int(path.name[5:]) for path in out.glob(f"{CHECKPOINTS}/step-*")), default=0)
        left = (N_STEPS - done) / N_STEPS * whole_seconds
        if run_child(folder / "tokens", out, rng.uniform(0.05, 0.3 + left / 4)):
            (out / "metrics.jsonl").rename(out / f"finished-{kills}.jsonl")
            out.rename(folder / f"finished-{kills}")  # finished before all kills were dealt: one more run
            continue
        kills += 1
        in_a_save += any(out.glob(f"{CHECKPOINTS}/.step-*"))
        steps.add(done)
    run_child(folder / "tokens", out, None)
    print(json.dumps({"whole": end_of(folder / "whole"), "killed": end_of(out), "in_a_save": in_a_save, "n_places": len(steps)}))


if __name__ == "__main__":
    torch.set_num_interop_threads(1)
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
