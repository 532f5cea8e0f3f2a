"""A program: train, kill the process at random moments with SIGKILL, resume; and train without being killed. Prints both ends.

    python kills.py FOLDER N_KILLS SEED N_THREADS

Children are forked from a process that has imported torch and computed nothing, so that a start costs no seconds. They save
after every other step. Half of the kills come from outside, a random while after some save. The others the child deals itself
when it touches a file of a save for the nth time, so that they fall into saves however fast the disk is.
"""

import hashlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from llamita.config import ModelConfig
from llamita.data.prepare import prepare
from llamita.data.shards import open_dataset
from llamita.data.vocabulary import learn_vocabulary
from llamita.train import checkpoint
from llamita.train.config import Recipe, TrainConfig
from llamita.train.pretraining import Pretraining
from llamita.train.recorder import Audience, Recorder
from llamita.train.trainer import CHECKPOINTS, Trainer
from llamita.train.world import open_world

N_STEPS = 80
MOST_SAVES = 4  # between two kills
MOST_TOUCHES = 40  # of files that are being saved: about eight to a save


def make_text(folder: Path) -> None:
    """Sentences of a small world, and their shards."""
    rng = random.Random(0)
    words = "the cat dog bird sees likes finds a red small old ball tree house and then again today".split()  # noqa: SIM905
    (folder / "text.txt").write_text("\n".join(" ".join(rng.choices(words, k=12)) for _ in range(400)))
    learn_vocabulary([folder / "text.txt"], 300, folder / "vocabulary")
    prepare([folder / "text.txt"], folder / "vocabulary", folder / "tokens")


def train(tokens: Path, out: Path, n_threads: int) -> None:
    """Begin, or go on with, a run of a few seconds."""
    recipe = Recipe(
        ModelConfig(width=32, n_layers=2, n_heads=4, n_kv_heads=2, mlp_width=64, vocab_size=300, context=32),
        TrainConfig(
            n_steps=N_STEPS, batch=4, accumulation=2, learning_rate=3e-3, warmup_steps=5, dropout=0.1, eval_every=6,
            eval_tokens=512, sample_every=0, save_every=2,
        ),
    )  # fmt: skip
    checkpoint.remove_leftovers(out / CHECKPOINTS)
    start = checkpoint.newest(out / CHECKPOINTS, print)
    with open_world("cpu", n_threads) as world, Path(os.devnull).open("w") as nowhere:
        audience = Audience(tensorboard=False, screen=nowhere)
        with Recorder(out, start[1].step if start else 0, N_STEPS, 1.0, None, audience) as recorder:
            Trainer(Pretraining(recipe, open_dataset(tokens)), out, world, recorder, start).run()


def run_child(work: Callable[[], None], moment: Callable[[], bool]) -> bool:
    """Do work in a child that is killed when the moment has come, or kills itself; return whether it came to its end before."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            print(f"child: {error!r}", flush=True)
            os._exit(1)
        os._exit(0)
    while not moment():
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            assert status in (0, signal.SIGKILL), f"the run failed with status {status}"
            return status == 0
        time.sleep(0.0005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def random_moment(out: Path, rng: random.Random) -> Callable[[], bool]:
    """A moment somewhere between two saves, a few saves from now."""
    wanted, delay = last_step(out) + 2 * rng.randint(0, MOST_SAVES), rng.uniform(0, 0.03)

    def has_come() -> bool:
        if last_step(out) < wanted:
            return False
        time.sleep(delay)
        return True

    return has_come


def die_in_a_save(n_touches: int) -> None:
    """Let this process kill itself just before it makes, opens or renames a file of a save for the nth time."""
    n_left = n_touches

    def look(event: str, arguments: tuple) -> None:
        nonlocal n_left
        if event in ("open", "os.mkdir", "os.rename") and "/.step-" in str(arguments[0]):
            n_left -= 1
            if n_left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(look)


def last_step(out: Path) -> int:
    """The step of the newest checkpoint; 0 where there is none."""
    return max((int(path.name[5:]) for path in out.glob(f"{CHECKPOINTS}/step-*")), default=0)


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


def main(folder: Path, n_kills: int, seed: int, n_threads: int) -> None:
    """Print one JSON object: both ends, and what the kills met."""
    make_text(folder)
    whole, killed = folder / "whole", folder / "killed"
    assert run_child(lambda: train(folder / "tokens", whole, n_threads), lambda: False)
    rng, n_done, n_in_a_save, places = random.Random(seed), 0, 0, set()

    def work(n_touches: int | None = None) -> None:
        if n_touches is not None:
            die_in_a_save(n_touches)
        train(folder / "tokens", killed, n_threads)

    while n_done < n_kills:
        if rng.random() < 0.5:
            ended = run_child(work, random_moment(killed, rng))
        else:
            ended = run_child(partial(work, rng.randint(1, MOST_TOUCHES)), lambda: False)
        if ended:
            assert end_of(killed) == end_of(whole)
            killed.rename(folder / f"finished-{n_done}")  # and one more run, for the kills that are left
            continue
        n_done += 1
        n_in_a_save += any(killed.glob(f"{CHECKPOINTS}/.step-*"))
        places.add(last_step(killed))
    assert run_child(work, lambda: False)
    print(json.dumps({"whole": end_of(whole), "killed": end_of(killed), "n_in_a_save": n_in_a_save, "n_places": len(places)}))


if __name__ == "__main__":
    torch.set_num_interop_threads(1)
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
