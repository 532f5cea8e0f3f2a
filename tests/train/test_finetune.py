"""Whole runs of fine-tuning on a toy model: what is learned, what counts, what resumes to the bit, and what is refused."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch comes with llamita[train]")

import toy_chats  # pyright: ignore[reportMissingImports]

from llamita import load
from llamita.conversation import Conversation
from llamita.data.examples import open_chats
from llamita.data.vocabulary import learn_vocabulary
from llamita.engine import Sampling
from llamita.errors import LlamitaError, SettingError
from llamita.formats import read_model
from llamita.train.base import open_base
from llamita.train.finetune import FinetuneWish, run_finetuning, set_up
from llamita.train.finetune_company import FinetuneCompany
from llamita.train.finetune_plan import DEFAULT_EPOCHS
from llamita.train.network import Llama
from llamita.train.run_folder import read_run
from llamita.train.weights import load_weights
from llamita.train.world import World

QUICK: dict[str, Any] = {
    "batch": 2, "accumulation": 2, "row_tokens": 64, "learning_rate": 1e-2, "warmup_steps": 2, "n_steps": 12, "eval_every": 4,
    "save_every": 4, "sample_every": 0, "dtype": "float32",
}  # fmt: skip
WHOLE: dict[str, Any] = {}
LORA: dict[str, Any] = {"lora_rank": 4, "lora_alpha": 8.0, "lora_dropout": 0.1}


@pytest.fixture(scope="module")
def base(tmp_path_factory, toy_sentencepiece_bytes) -> Path:
    return toy_chats.write_base(tmp_path_factory.mktemp("model"), toy_sentencepiece_bytes)


@pytest.fixture(scope="module")
def chats(tmp_path_factory) -> Path:
    return toy_chats.write_chats(tmp_path_factory.mktemp("chats") / "chats.jsonl")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    return toy_chats.write_pairs(tmp_path_factory.mktemp("pairs") / "pairs.jsonl")


def finetune(base: Path, chats: Path, out: Path, tell: Any = None, resume: Any = False, **overrides) -> int | None:
    wish = FinetuneWish(
        out, base, "toy", (str(chats),), resume, overrides=QUICK | overrides, device="cpu", n_threads=1, tensorboard=False
    )
    return run_finetuning(wish, FinetuneCompany(), tell)


def answer(model: Path, adapter: Path | None = None) -> str:
    """What a model answers to a question of the kind that it was taught."""
    with load(model, adapter=adapter) as opened:
        talk = Conversation(opened, Sampling(temperature=0.0), n_tokens=30)
        try:
            return "".join(talk.ask(toy_chats.QUESTION.format(77)))
        finally:
            talk.close()


def test_the_loss_falls_and_the_answer_is_learned_to_its_end(base, chats, tmp_path):
    assert finetune(base, chats, tmp_path, n_steps=100, learning_rate=2e-2) is None
    losses = [line["loss"] for line in toy_chats.logged(tmp_path, "step")]
    assert losses[-1] < 0.1 < 3 < losses[0]
    assert answer(tmp_path).strip() == toy_chats.ANSWER
    assert read_model(tmp_path).config.vocab_size == toy_chats.CONFIG.vocab_size + 2, "chatml's two marks"


def test_the_loss_is_the_cross_entropy_of_the_assistants_tokens_alone(base, chats, tmp_path):
    """One row holds all chats, so the first update's loss is that of the model as it began."""
    finetune(base, chats, tmp_path, n_steps=1, row_tokens=2048, batch=1, accumulation=1)
    begun, data = open_base(base, "toy").begun, open_chats(tmp_path / "data").train
    network = Llama(begun.config, 0.0, begun.config.context)
    load_weights(network, begun)
    total = 0.0
    for index in range(data.n_examples):
        ids, counted = torch.from_numpy(data.ids(index)), torch.from_numpy(data.counted(index))
        with torch.no_grad():
            shares = torch.log_softmax(network.logits(ids[None, :-1])[0], -1)
        total -= float(shares.gather(1, ids[1:, None])[counted[1:]].sum())
    assert toy_chats.logged(tmp_path, "step")[0]["loss"] == pytest.approx(total / data.n_counted, rel=1e-5)


class PowerCut(Exception):
    """The end of a process without a chance to save."""


def cut_power(_: object, *__: object) -> list[tuple[str, str]]:
    raise PowerCut


def send_signal(_: object, *__: object) -> list[tuple[str, str]]:
    os.kill(os.getpid(), signal.SIGTERM)
    return []


@pytest.mark.parametrize("settings", [WHOLE, LORA], ids=["all weights", "LoRA"])
@pytest.mark.parametrize("kind", ["answers", "preferences"])
def test_a_run_that_was_interrupted_ends_as_one_that_was_not(base, chats, pairs, tmp_path, settings: dict[str, Any], kind):
    """At step 6 the process dies, two steps after the last save; at step 10 the next is told to stop; the third finishes."""
    file = chats if kind == "answers" else pairs
    settings = settings | {"row_tokens": 128, "dropout": 0.1}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    finetune(base, file, whole, **settings)
    with pytest.raises(PowerCut):
        finetune(base, file, cut, cut_power, **settings | {"sample_every": 6})
    assert not toy_chats.checkpoint_bytes(cut, 6)
    assert finetune(base, file, cut, send_signal, resume=True, **settings | {"sample_every": 10}) == signal.SIGTERM
    assert finetune(base, file, cut, resume=True, **settings) is None
    assert len(toy_chats.checkpoint_bytes(whole, 12)) == 2
    assert toy_chats.checkpoint_bytes(cut, 12) == toy_chats.checkpoint_bytes(whole, 12)
    for kind_of_line in ("step", "validation", "preference"):
        assert toy_chats.logged(cut, kind_of_line) == toy_chats.logged(whole, kind_of_line)


def test_lora_leaves_the_base_as_it_is_and_its_adapter_says_what_was_learned(base, chats, tmp_path):
    before = {path.name: path.read_bytes() for path in base.iterdir()}
    finetune(base, chats, tmp_path, n_steps=60, learning_rate=2e-2, **LORA | {"lora_dropout": 0.0, "lora_rank": 8})
    assert {path.name: path.read_bytes() for path in base.iterdir()} == before
    assert (tmp_path / "adapter_config.json").exists()
    assert not (tmp_path / "config.json").exists()
    assert answer(base, tmp_path).strip() == toy_chats.ANSWER
    assert answer(base).strip() != toy_chats.ANSWER


@pytest.mark.parametrize("settings", [WHOLE, LORA], ids=["all weights", "LoRA"])
def test_preferences_raise_the_margin_between_chosen_and_rejected(base, pairs, tmp_path, settings: dict[str, Any]):
    finetune(base, pairs, tmp_path, **settings | {"row_tokens": 128})
    seen = [line for line in toy_chats.logged(tmp_path, "preference") if line["what"] == "training"]
    assert seen[0]["reward_margin"] == pytest.approx(0, abs=1e-4), "before the first update nothing has changed"
    assert seen[-1]["reward_margin"] > 1
    assert seen[-1]["reward_accuracy"] == 1
    losses = [line["loss"] for line in toy_chats.logged(tmp_path, "step")]
    assert losses[0] == pytest.approx(0.6931, abs=1e-4)
    assert losses[-1] < 0.3


@pytest.mark.parametrize("kind", ["answers", "preferences"])
def test_two_ranks_learn_from_the_same_batches_as_one(base, chats, pairs, tmp_path, kind):
    file = chats if kind == "answers" else pairs
    settings: dict[str, Any] = {"row_tokens": 128, "n_steps": 4}
    finetune(base, file, tmp_path / "one", **settings)
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in (QUICK | settings).items()]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "llamita"]
    command = [*launcher, "finetune", base, file, "--out", tmp_path / "two", "--device=cpu", "--threads=1", *flags]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stderr
    one, two = (toy_chats.logged(tmp_path / name, "step") for name in ("one", "two"))
    assert [line["n_tokens"] for line in two] == [line["n_tokens"] for line in one]
    assert [line["loss"] for line in two] == pytest.approx([line["loss"] for line in one], rel=1e-4)


def test_a_run_goes_on_with_its_own_chats_and_model_only(base, chats, tmp_path, toy_sentencepiece_bytes):
    finetune(base, chats, tmp_path / "out", n_steps=2)
    more = toy_chats.write_chats(tmp_path / "chats.jsonl", 30)
    with pytest.raises(LlamitaError, match=r"bytes of .*: then absent, now "):
        finetune(base, more, tmp_path / "out", resume=True, n_steps=2)
    (tmp_path / "other").mkdir()
    other = toy_chats.write_base(tmp_path / "other", toy_sentencepiece_bytes)
    weights = bytearray((other / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (other / "model.safetensors").write_bytes(weights)
    with pytest.raises(LlamitaError, match=r"model \(sha256\): then \w+, now \w+"):
        finetune(other, chats, tmp_path / "out", resume=True, n_steps=2)


def resume(out: Path, *arguments: Any, **asked: Any) -> None:
    """Go on with a run, with nothing said but what is given here."""
    wish = FinetuneWish(out, *arguments, resume=True, device="cpu", n_threads=1, tensorboard=False, **asked)
    assert run_finetuning(wish, FinetuneCompany()) is None


def test_a_default_that_is_said_is_a_setting_too(base, chats, tmp_path):
    asked: dict[str, Any] = {"epochs": 5.0, "options": {"too_long": "drop"}}
    resume(tmp_path, base, "toy", (str(chats),), overrides=QUICK | {"n_steps": 2}, **asked)
    resume(tmp_path)
    resume(tmp_path, **asked)
    for wrong, expected in (
        ({"epochs": DEFAULT_EPOCHS}, "epochs: then 5.0, now 3.0"),
        ({"options": {"too_long": "cut"}}, "too_long: then drop, now cut"),
    ):
        with pytest.raises(SettingError, match=expected):
            resume(tmp_path, **wrong)


@pytest.mark.parametrize("settings", [WHOLE, LORA], ids=["all weights", "LoRA"])
def test_a_model_that_was_moved_is_named_anew(base, chats, tmp_path, settings: dict[str, Any]):
    out, before, after = tmp_path / "out", tmp_path / "before", tmp_path / "after"
    shutil.copytree(base, before)
    finetune(before, chats, out, n_steps=2, save_every=1, eval_every=1, **settings)
    last, content = out / "checkpoints/step-00000002", toy_chats.checkpoint_bytes(out, 2)
    shutil.rmtree(last)
    before.rename(after)
    with pytest.raises(SettingError, match=f"{before}: found nothing, expected the model that the run began with"):
        resume(out)
    resume(out, after, "moved")
    assert toy_chats.checkpoint_bytes(out, 2) == content
    facts = read_run(out)
    assert (facts["model"], facts["model_name"]) == (str(after), "moved")
    resume(out)


def test_another_tokenizer_than_the_runs_is_refused(base, chats, tmp_path, toy_sentencepiece_bytes):
    finetune(base, chats, tmp_path / "out", n_steps=2)
    same, other = tmp_path / "same.model", tmp_path / "other"
    same.write_bytes(toy_sentencepiece_bytes)
    words = [f"{a}{b}{c} " for a in "bdfgklmn" for b in "aeiou" for c in ("ck", "nd", "rt", "st")]
    (tmp_path / "words.txt").write_text("".join(words) * 20)
    learn_vocabulary([tmp_path / "words.txt"], 400, other)
    resume(tmp_path / "out", tokenizer=str(same))
    assert read_run(tmp_path / "out")["tokenizer"] == str(same)
    with pytest.raises(SettingError, match=r"tokenizer \(sha256\): then \w+, now \w+"):
        resume(tmp_path / "out", tokenizer=str(other / "tokenizer.model"))


def test_an_update_that_ranks_cannot_share_is_refused_before_anything_is_written(base, chats, tmp_path):
    two = World(0, 2, torch.device("cpu"), "ddp")
    for overrides in ({"batch": 3, "accumulation": 1}, {"accumulation": 3}):
        with pytest.raises(SettingError, match="found 3 sequences per update, expected a multiple of the 2 processes"):
            set_up(FinetuneWish(tmp_path, base, "toy", (str(chats),), overrides=overrides), two, FinetuneCompany())
    assert {path.name for path in tmp_path.iterdir()} <= {"data"}
    overrides = {"batch": 4, "accumulation": 1}
    set_up(FinetuneWish(tmp_path, base, "toy", (str(chats),), overrides=overrides), two, FinetuneCompany())
    assert read_run(tmp_path)["n_ranks"] == 2


def test_a_call_that_is_no_utf8_is_recorded_as_it_was(base, chats, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["llamita", "finetune", "caf\udce9", "café"])
    set_up(FinetuneWish(tmp_path, base, "caf\udce9", (str(chats),)), World(0, 1, torch.device("cpu"), "ddp"), FinetuneCompany())
    assert read_run(tmp_path)["command"] == ["finetune", "caf\udce9", "café"]
    assert read_run(tmp_path)["model_name"] == "caf\udce9"
