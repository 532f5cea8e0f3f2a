"""--adapter of run, chat, serve, export and inspect: the model with it is what runs, is written, is shown and is named."""

import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from llamita.cli import main, serve
from llamita.cli.adapter_option import name_with
from llamita.config import ModelConfig
from llamita.formats import read_model, write_model
from llamita.formats.adapter import Adapter
from llamita.formats.adapter_writer import write_adapter
from llamita.formats.tokenizer_files import huggingface_files
from llamita.language_model import load
from llamita.model import random_model
from llamita.tokenizer import Tokenizer
from llamita.tokenizer.added_tokens import with_special_tokens
from llamita.tokenizer.sentencepiece import parse_sentencepiece

CONFIG = ModelConfig(width=64, n_layers=2, n_heads=4, n_kv_heads=2, mlp_width=96, vocab_size=400, context=64)
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def base(tmp_path: Path, toy_sentencepiece_bytes: bytes) -> str:
    tokenizer = parse_sentencepiece(toy_sentencepiece_bytes, "toy")
    write_model(replace(random_model(CONFIG), tokenizer=tokenizer), tmp_path / "base", "safetensors", dtype="bf16")
    return str(tmp_path / "base")


@pytest.fixture
def adapter(tmp_path: Path, base: str) -> str:
    """One that brings two tokens and a template."""
    rng = np.random.default_rng(0)
    pairs = {}
    for name in ("layers.0.attention.query", "layers.1.mlp.down"):
        rows, columns = read_model(base).tensors[name].shape
        pairs[name] = rng.normal(0, 0.2, (2, columns)).astype("f4"), rng.normal(0, 0.2, (rows, 2)).astype("f4")
    rows = {"embedding": (np.array([400, 401]), rng.normal(size=(2, 64)).astype(np.float32))}
    write_adapter(Adapter(2, 4.0, pairs=pairs, rows=rows, base=base), tmp_path / "pirate", CONFIG)
    grown = with_special_tokens(cast(Tokenizer, read_model(base).tokenizer), ("<|im_start|>", "<|im_end|>"))
    for name, content in huggingface_files(grown, 64, TEMPLATE).items():
        (tmp_path / "pirate" / name).write_bytes(content)
    return str(tmp_path / "pirate")


def said(capsys, *arguments: str) -> str:
    assert main(list(arguments)) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def test_run_tells_with_the_adapter(base, adapter, capsys):
    flags = ("-i", "Once upon", "-t", "0", "-n", "20")
    with load(base, adapter=adapter) as model:
        expected = model.generate("Once upon", 20, temperature=0)
    told = said(capsys, "run", base, *flags, "--adapter", adapter)
    assert told.startswith("Once upon")
    assert told.strip("\n") == ("Once upon" + expected)[: len(told.strip("\n"))]
    assert told != said(capsys, "run", base, *flags)


def test_chat_writes_messages_as_the_adapters_template_does(base, adapter, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hello\n"))
    flags = ("-t", "0", "-n", "4", "--adapter", adapter)
    assert main(["chat", base, *flags]) == 0
    assert "story" not in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hello\n"))
    assert main(["chat", base, "-t", "0", "-n", "4"]) == 0
    assert "base has no chat template: it goes on with what you type, as a story" in capsys.readouterr().err


def test_the_server_calls_the_model_after_both(base, adapter, monkeypatch):
    served = {}
    monkeypatch.setattr(serve, "serve", lambda settings, open_model: served.update(settings=settings, open=open_model))
    assert main(["serve", base, "--adapter", adapter, "--slots", "1"]) == 0
    assert served["settings"].name == "base+pirate"
    model = served["open"]()
    try:
        assert (model.tokenizer.vocab_size, model.template.name, model.name) == (402, "jinja", "base+pirate")
    finally:
        model.scheduler.close()
    assert main(["serve", base, "--adapter", adapter, "--alias", "jack"]) == 0
    assert served["settings"].name == "jack"


def test_a_name_is_that_of_the_folder(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "adapter_config.json").touch()
    monkeypatch.chdir(tmp_path / "a")
    assert [name_with("m", path) for path in (None, ".", "adapter_config.json", "../a/", "/x/b")] == [
        "m",
        "m+a",
        "m+a",
        "m+a",
        "m+b",
    ]


@pytest.mark.parametrize("name", ["out", "out.gguf"])
def test_export_merges_and_verifies_against_the_merged(base, adapter, capsys, tmp_path, name):
    out = tmp_path / name
    facts = json.loads(said(capsys, "export", base, str(out), "--adapter", adapter, "--verify", "--dtype", "f32", "--json"))
    assert facts["verify"]["complaints"] == []
    assert facts["verify"]["bounds"]["dtype"] == "f16", "in which the engine runs what is computed from bf16"
    merged, written = read_model(base, adapter=adapter), read_model(out)
    assert written.config == merged.config
    assert written.chat_template == TEMPLATE
    for key, tensor in merged.tensors.items():
        np.testing.assert_allclose(written.tensors[key].dequantize(), tensor.dequantize(), atol=1e-6)


def test_an_export_that_forgot_the_adapter_would_be_noticed(base, adapter, capsys, tmp_path, monkeypatch):
    from llamita import formats

    def forgetful(model, path, to, **flags):
        plain = read_model(base).tensors
        changed = {key: tensor if key == "embedding" else plain[key] for key, tensor in model.tensors.items()}
        write_model(replace(model, tensors=changed), path, to, **flags)

    monkeypatch.setattr(formats, "write_model", forgetful, raising=False)
    assert main(["export", base, str(tmp_path / "out"), "--adapter", adapter, "--verify"]) == 1
    assert "mean KL divergence: found" in capsys.readouterr().err


def test_export_keeps_the_dtype_of_what_is_stored(base, adapter, capsys, tmp_path):
    assert json.loads(said(capsys, "export", base, str(tmp_path / "out"), "--adapter", adapter, "--json"))["dtype"] == "bf16"


def test_export_does_not_write_over_the_adapter(base, adapter, capsys):
    for target in (adapter, f"{adapter}/adapter_config.json"):
        assert main(["export", base, target, "--adapter", adapter, "--to", "safetensors"]) == 1
        assert "found adapter_config.json, which must stay, expected another name" in capsys.readouterr().err
    assert "found the model" not in said(capsys, "inspect", base, "--adapter", adapter)


def test_inspect_shows_what_the_adapter_changes_and_what_both_take(base, adapter, capsys):
    facts = json.loads(said(capsys, "inspect", base, "--adapter", adapter, "--json"))
    plain = json.loads(said(capsys, "inspect", base, "--json"))
    assert facts["adapter"]["changes"] == ["attention.query", "embedding", "mlp.down"]
    assert facts["adapter"]["parameters"] == 2 * (64 + 64 + 64 + 96) + 2 * 64
    assert facts["adapter"]["vocab_size"] == 402
    assert facts["adapter"]["tokenizer"]
    assert facts["adapter"]["chat_template"]
    assert facts["file"] == plain["file"]
    assert facts["memory"]["weight_bytes"] == plain["memory"]["weight_bytes"] + 2 * 64 * 2
    assert "layers" not in said(capsys, "inspect", base, "--adapter", adapter).partition("Adapter")[2].partition("Memory")[0]


@pytest.mark.parametrize("verb", ["run", "chat", "inspect"])
def test_a_folder_that_holds_no_adapter_is_one_line(base, verb, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert main([verb, base, "--adapter", str(tmp_path / "nowhere")]) == 1
    line = capsys.readouterr().err.strip()
    assert line.startswith(f"llamita: {tmp_path / 'nowhere'}: adapter: found no such folder, expected a folder with")
    assert "\n" not in line
