"""A program for torchrun: a few steps of a run, on as many ranks as there are; log and checkpoints go to a folder.

torchrun --nproc-per-node 2 ranks.py TOKENS OUT ddp|fsdp KEY=VALUE...     fields of TrainConfig; stop_after=N kills all ranks
"""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

from llamita.config import ModelConfig
from llamita.data.shards import open_dataset
from llamita.train import checkpoint
from llamita.train.config import Recipe, TrainConfig
from llamita.train.pretraining import Pretraining
from llamita.train.recorder import Audience, Recorder, SilentRecorder
from llamita.train.trainer import CHECKPOINTS, Trainer
from llamita.train.world import open_world

N_STEPS = 10


def main(tokens: Path, out: Path, parallel: str, settings: dict) -> None:
    """Begin a run, or go on with it."""
    stop_after = settings.pop("stop_after", None)
    training = TrainConfig(
        n_steps=N_STEPS, batch=4, accumulation=2, learning_rate=3e-3, warmup_steps=2, eval_every=5, eval_tokens=100,
        sample_every=0, save_every=5,
    )  # fmt: skip
    model = ModelConfig(width=32, n_layers=2, n_heads=4, n_kv_heads=2, mlp_width=64, vocab_size=300, context=32)
    recipe = Recipe(model, replace(training, **settings))
    with open_world("cpu", n_threads=1, parallel=parallel) as world, Path(os.devnull).open("w") as nowhere:
        start = checkpoint.newest(out / CHECKPOINTS, print)
        world.wait()
        first = start[1].step if start else 0
        recorder: Recorder | SilentRecorder = SilentRecorder()
        if world.is_first:
            recorder = Recorder(out, first, N_STEPS, 1.0, None, Audience(tensorboard=False, screen=nowhere))
        with recorder:
            trainer = Trainer(Pretraining(recipe, open_dataset(tokens)), out, world, recorder, start)
            if stop_after is not None:
                one_step = trainer._one_step
                trainer._one_step = lambda: os._exit(9) if trainer.step == stop_after else one_step()
            trainer.run()


if __name__ == "__main__":
    main(
        Path(sys.argv[1]),
        Path(sys.argv[2]),
        sys.argv[3],
        {k: json.loads(v) for k, v in (pair.split("=") for pair in sys.argv[4:])},
    )
