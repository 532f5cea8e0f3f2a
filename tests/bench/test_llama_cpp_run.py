"""llama-cpp-python is asked for the protocol's tokens, in llama-bench's words; a stand-in counts them."""

import sys
from types import ModuleType

import pytest

from llamita.bench.llama_cpp_run import measure


class Counting:
    """Stands in for llama_cpp.Llama and notes how many ids each eval got."""

    evals: list[int]

    def __init__(self, path: str, n_ctx: int, **settings) -> None:
        Counting.evals, self.path, self.n_ctx, self.settings = [], path, n_ctx, settings

    def n_vocab(self) -> int:
        return 100

    def reset(self) -> None:
        Counting.evals.append(0)

    def eval(self, ids: list[int]) -> None:
        assert all(3 <= token_id < 100 for token_id in ids)
        Counting.evals.append(len(ids))


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    module = ModuleType("llama_cpp")
    vars(module).update(Llama=Counting, __version__="0.0")
    monkeypatch.setitem(sys.modules, "llama_cpp", module)


def test_the_rows_are_llama_bench_s():
    prefill, decode = measure("model.gguf", 8, 3, 0, 2)
    assert (prefill["n_prompt"], prefill["n_gen"], decode["n_prompt"], decode["n_gen"]) == (8, 0, 0, 3)
    assert prefill["samples_ts"][0] > 0
    assert decode["samples_ts"][0] > 0
    assert Counting.evals == [0, 8, 0, 1, 0, 8, 0, 1, 1, 1]  # 0: an empty cache; the first two are the warm-up


def test_a_depth_is_read_before_each_measurement():
    measure("model.gguf", 4, 2, 6, 2)
    assert Counting.evals == [0, 6, 4, 0, 6, 1, 0, 6, 4, 0, 6, 1, 1]
