"""Models of odd sizes for the engine's tests, and the comparison of a running engine with the numpy reference.

Run as a program it does that comparison in this process and prints one line a case: how other instruction sets are tested.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))
from llamita.config import ModelConfig
from llamita.engine import Engine, Sampling
from llamita.model import Model, random_model
from llamita.quant import Tensor
from llamita.simd.isa import INSTRUCTION_SETS, detect_isa
from reference import reference_logits


@dataclass(frozen=True)
class Case:
    """A shape and the int8 group that is tried with it."""

    name: str
    config: ModelConfig
    group: int


CASES = (
    # like stories260K: heads of 8, a width that is no multiple of 16, groups of 4
    Case("tiny", ModelConfig(64, 2, 8, 4, 172, 512, 128), 4),
    Case("groups of 32", ModelConfig(96, 3, 6, 6, 256, 512, 128), 32),
    Case("grouped queries", ModelConfig(256, 2, 8, 2, 512, 1000, 128), 64),
    # nothing divides: one key/value head, heads of 10, groups of 6, an untied head, another theta and epsilon
    Case(
        "odd",
        ModelConfig(90, 2, 3, 1, 54, 161, 100, head_size=10, rope_theta=5e5, norm_epsilon=1e-6, tied_embedding=False),
        6,
    ),
)
DTYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1")
HALF_CACHE_DTYPES = ("f32", "q8_0")  # of weights with which a cache of float16 is tried


def make_model(case: Case, dtype: str) -> Model:
    """A random model; int8 scales are rounded to float16, as the engine keeps them, so that the reference is exact."""
    model = random_model(case.config, dtype, case.group)

    def with_half_scales(t: Tensor) -> Tensor:
        if t.dtype != "q8_0" or t.scales is None:
            return t
        return replace(t, scales=t.scales.astype(np.float16).astype(np.float32))

    return replace(model, tensors={name: with_half_scales(t) for name, t in model.tensors.items()})


def with_least_bytes(model: Model) -> Model:
    """The int8 model with weights of -128, which no quantizer writes but a file may hold: every one below -100 is one."""

    def least(t: Tensor) -> Tensor:
        return t if t.dtype != "q8_0" else replace(t, data=np.where(t.data < -100, np.int8(-128), t.data))

    return replace(model, tensors={name: least(t) for name, t in model.tensors.items()})


def random_ids(case: Case, n: int) -> list[int]:
    """Reproducible token ids."""
    return np.random.default_rng(1).integers(0, case.config.vocab_size, n).tolist()


def logits_of_decode(engine: Engine, ids: list[int]) -> np.ndarray:
    """Logits (T, V) from T single steps, each fed with the next of ids."""
    sequence, rows = engine.sequence(Sampling(temperature=0)), []
    for i, token in enumerate(ids):
        sequence.rewind(i)
        sequence.append([token])
        sequence.n_read = i  # what was read stays read
        sequence.next()
        rows.append(engine.logits_buffer[0, : engine.config.vocab_size].copy())
    sequence.close()
    return np.array(rows)


def drift_of_least_bytes(case: Case) -> float:
    """The error of the int8 model with_least_bytes against unrounded activations, relative to the largest logit."""
    model, ids = with_least_bytes(make_model(case, "q8_0")), random_ids(case, 20)
    smooth = reference_logits(model, ids, quantize_activations=False)
    with Engine(model, n_threads=2) as engine:
        return float(np.abs(engine.logits(ids) - smooth).max() / np.abs(smooth).max())


def errors_of(case: Case, dtype: str, n_threads: int, n_tokens: int = 90, cache_itemsize: int = 4) -> tuple[float, float, bool]:
    """(error against the same arithmetic in float64, error against unrounded activations, decode == prefill to the bit).

    Relative to the largest logit. An activation on the edge of rounding (1 in 1e5) moves its token, and through the cache
    all later ones, as much as rounding itself does: so the first error is that of the best tenth of the tokens.
    """
    model, ids = make_model(case, dtype), random_ids(case, n_tokens)
    exact = reference_logits(model, ids, half_cache=cache_itemsize == 2)
    smooth = reference_logits(model, ids, quantize_activations=False)
    with Engine(model, n_threads=n_threads, cache_itemsize=cache_itemsize) as engine:
        logits = engine.logits(ids)
        same = np.array_equal(logits_of_decode(engine, ids[:40]), logits[:40])
        sequence = engine.sequence(Sampling(temperature=0))
        sequence.append(ids)
        sequence.next()
        same = same and np.array_equal(engine.logits_buffer[0, : case.config.vocab_size], logits[-1])
    error = np.quantile(np.abs(logits - exact).max(1), 0.1) / np.abs(exact).max()
    return float(error), float(np.abs(logits - smooth).max() / np.abs(smooth).max()), same


def is_right(dtype: str, errors: tuple[float, float, bool], cache_itemsize: int = 4) -> bool:
    """Whether errors_of is what rounding explains.

    A key on the edge between two float16 moves less than an activation of 8 bits does, but every token has thousands.
    """
    error, drift, same = errors
    if cache_itemsize == 2:
        return same and (drift < 0.03 if dtype.startswith("q") else error < 5e-6 and drift < 5e-4)
    return error < 2e-6 and drift < (0.03 if dtype.startswith("q") else 2e-6) and same


if __name__ == "__main__":
    half = [(dtype, 2) for dtype in HALF_CACHE_DTYPES if INSTRUCTION_SETS[detect_isa()].has_half_cache]
    for case in CASES:
        for dtype, cache_itemsize in [*((dtype, 4) for dtype in DTYPES), *half]:
            errors = errors_of(case, dtype, n_threads=2, cache_itemsize=cache_itemsize)
            verdict = "right" if is_right(dtype, errors, cache_itemsize) else "WRONG"
            print(f"{case.name} {dtype}, cache of {cache_itemsize} bytes: {errors} {verdict}")
        drift = drift_of_least_bytes(case)
        print(f"{case.name} weights of -128: {drift} {'right' if drift < 0.03 else 'WRONG'}")
