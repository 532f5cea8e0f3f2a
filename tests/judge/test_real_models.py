"""Real models on real stories: what llama2.c publishes, torch's own loss, and every format that the engine reads."""

from pathlib import Path
from typing import cast

import pytest

from llamita.data.sources import documents, find_sources
from llamita.formats import read_model
from llamita.judge import score
from llamita.model import Model, with_dtype
from llamita.tokenizer import Tokenizer

FILES = [
    "stories260K.bin",
    "stories260K.gguf",
    "derived/stories260K_v1_fp32.bin",
    "derived/stories260K_repack.pt",
    "derived/hf",
]


@pytest.fixture(scope="module")
def model(shared_data: Path) -> Model:
    return read_model(shared_data / "models/stories260K/stories260K.bin")


@pytest.fixture(scope="module")
def stories(shared_data: Path) -> list[str]:
    """The first 150 of a file of real TinyStories."""
    path = shared_data / "text/tinystories/decodinggpt_tinystories_10k.txt"
    return [document.text for document in documents(find_sources([path]))][:150]


def test_stories260k_comes_near_what_llama2c_publishes(model: Model, stories: list[str]):
    found = score(model, stories)
    assert found.cross_entropy == pytest.approx(1.297, abs=0.05)
    assert found.interval
    assert found.interval.high - found.interval.low < 0.08


@pytest.mark.parametrize("name", FILES)
def test_the_same_weights_in_another_format_have_the_same_score(name: str, model: Model, stories: list[str], shared_data: Path):
    folder = shared_data / "models/stories260K"
    other = read_model(folder / name, folder / "tok512.bin")
    expected, found = (score(one, stories[:4], context=512) for one in (model, other))
    assert found.n_tokens == expected.n_tokens
    assert found.cross_entropy == pytest.approx(expected.cross_entropy, abs=1e-5)


def test_torch_has_the_same_cross_entropy(model: Model, stories: list[str]):
    torch = pytest.importorskip("torch")
    from llamita.train.network import Llama

    network = Llama(model.config).eval()
    network.load_state_dict({name: torch.from_numpy(t.dequantize().copy()) for name, t in model.tensors.items()})
    tokenizer = cast(Tokenizer, model.tokenizer)
    ids = torch.tensor([token_id for story in stories[:12] for token_id in tokenizer.encode(story, bos=True)])
    nats, n_tokens = 0.0, 0
    with torch.no_grad():
        for window in (ids[start : start + 513] for start in range(0, len(ids) - 1, 512)):
            logits = network.logits(window[None, :-1])[0].double()
            nats += float(torch.nn.functional.cross_entropy(logits, window[1:], reduction="sum"))
            n_tokens += len(window) - 1
    found = score(model, stories[:12], "stream")
    assert found.n_tokens == n_tokens
    assert found.cross_entropy == pytest.approx(nats / n_tokens, abs=1e-5)


@pytest.mark.parametrize(("dtype", "most"), [("q8_0", 0.01), ("q4_0", 0.6), ("q4_1", 0.6)])
def test_quantized_weights_cost_what_is_known(dtype: str, most: float, model: Model, stories: list[str]):
    exact, found = (score(one, stories[:20]) for one in (model, with_dtype(model, dtype, 32 if dtype != "q8_0" else 4)))
    assert 0 < found.cross_entropy - exact.cross_entropy + 0.005 < most
