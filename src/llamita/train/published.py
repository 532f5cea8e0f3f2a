"""Recipes that others have published, for the shapes of config.PRESETS.

llama2.c: doc/stories260K.md, README.md and the defaults of train.py; that of its 42M was not written down and is taken to be
like 15M's. 1.1B: TinyLlama (arXiv:2401.02385). 7B: Llama 2 (arXiv:2307.09288). `batch` is what fitted their GPUs; the planner
may split an update's sequences in another way.
"""

from llamita.train.config import TrainConfig


def _llama2c(batch: int, accumulation: int, learning_rate: float, **others) -> TrainConfig:
    settings = {"n_steps": 100_000, "warmup_steps": 1000, "schedule": "cosine", "optimizer": "adamw"} | others
    return TrainConfig(batch=batch, accumulation=accumulation, learning_rate=learning_rate, **settings)


PUBLISHED = {
    "260K": _llama2c(128, 1, 1e-3, beta2=0.99, weight_decay=0.01, dropout=0.05),
    "15M": _llama2c(128, 4, 5e-4),
    "42M": _llama2c(32, 4, 5e-4),
    "110M": _llama2c(16, 8, 4e-4, dropout=0.1),
    "1.1B": _llama2c(512, 2, 4e-4, n_steps=1_430_000, warmup_steps=2000, final_share=0.1),
    "7B": _llama2c(512, 4, 3e-4, n_steps=500_000, warmup_steps=2000, final_share=0.1),
}
