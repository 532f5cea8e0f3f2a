"""A program: sweep, kill the process at random moments with SIGKILL, go on; and sweep without being killed. Prints both ends.

    python sweep_kills.py FOLDER N_KILLS SEED

Children are forked as in kills.py. Kills come when the sweep's files have grown a random bit, so that they fall anywhere.
"""

import hashlib
import json
import random
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from kills import make_text, run_child  # pyright: ignore[reportMissingImports]

from llamita.train.company import Company
from llamita.train.grid import parse_grid
from llamita.train.session import Wish
from llamita.train.sizing import Dial
from llamita.train.sweep import SweepWish, run_sweep
from llamita.train.sweep_results import results

SETTINGS = {
    "width": 16, "n_layers": 1, "n_heads": 2, "n_kv_heads": 1, "mlp_width": 32, "context": 16, "n_steps": 60, "batch": 2,
    "accumulation": 1, "warmup_steps": 2, "save_every": 12, "eval_every": 12, "eval_tokens": 64, "dropout": 0.1,
    "compile": False,
}  # fmt: skip


def sweep(folder: Path, out: Path) -> None:
    """Begin, or go on with, a sweep of four trials, of which one comes to the second rung."""
    grid = parse_grid(["learning_rate=1e-3,1e-2", "schedule=wsd,cosine"])
    run = Wish(out, (str(folder / "tokens"),), dial=Dial(params=10_000), overrides=SETTINGS, device="cpu", n_threads=1)
    sweep, study, signal_number = run_sweep(SweepWish(run, grid), Company())
    assert signal_number is None
    told = [result.to_dict() | {"seconds": 0.0, "curves": result.curves} for result in results(sweep, study)]
    (out / "told.json").write_text(json.dumps(told))


def name_and_size(path: Path) -> tuple[str, int] | None:
    """Of a file that may be gone at any moment."""
    try:
        return path.name, path.stat().st_size
    except FileNotFoundError:
        return None


def random_moment(out: Path, rng: random.Random) -> Callable[[], bool]:
    """A moment some writes from now."""
    n_more = rng.randint(1, 12)
    seen, n_seen = None, -1

    def has_come() -> bool:
        nonlocal seen, n_seen
        time.sleep(0.003)  # looking costs more than a step
        now = [found for path in out.glob("*") if (found := name_and_size(path))]
        now += [str(path) for path in out.glob("trials/*/*/checkpoints/*")]
        if now != seen:
            seen, n_seen = now, n_seen + 1
        return n_seen >= n_more

    return has_come


def end_of(out: Path) -> dict:
    """Everything that has to be the same: what is told of the trials, the best recipe, the bytes of the best model."""
    model = hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()
    return {"told": json.loads((out / "told.json").read_text()), "recipe": (out / "best.toml").read_text(), "model": model}


def main(folder: Path, n_kills: int, seed: int) -> None:
    """Print one JSON object: both ends, and at how many different places the kills came."""
    make_text(folder)
    whole, killed = folder / "whole", folder / "killed"
    assert run_child(lambda: sweep(folder, whole), lambda: False)
    rng, places, n_killed, expected = random.Random(seed), set(), 0, end_of(whole)
    while n_killed < n_kills:
        if run_child(lambda: sweep(folder, killed), random_moment(killed, rng)):  # to the end: another one for the other kills
            assert end_of(killed) == expected
            shutil.rmtree(killed)
            continue
        n_killed += 1
        places.add(tuple(sorted(str(path) for path in killed.glob("trials/*/*/checkpoints/*"))))
    assert run_child(lambda: sweep(folder, killed), lambda: False)
    print(json.dumps({"whole": expected, "killed": end_of(killed), "n_places": len(places)}))


if __name__ == "__main__":
    torch.set_num_interop_threads(1)
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
