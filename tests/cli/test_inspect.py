"""`llamita inspect`: the sums are right, and no weight is read."""

import json
import resource
from dataclasses import replace
from pathlib import Path

import pytest

from llamita.cli import main
from llamita.config import PRESETS
from llamita.formats import write_model
from llamita.model import random_model

FILES = {
    "stories260K.bin": ("llama2.c v0", 1_056_540),
    "derived/stories260K_v1_fp32.bin": ("llama2.c v1", 1_040_384),
    "derived/stories260K_v2_q80_gs4.bin": ("llama2.c v2", 521_728),
}


def facts_of(capsys, *arguments: str) -> dict:
    assert main(["inspect", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("name", FILES)
def test_the_sum_of_the_parts_is_the_file(name: str, shared_data: Path, capsys):
    facts = facts_of(capsys, str(shared_data / "models" / "stories260K" / name))
    assert (facts["format"], sum(row["bytes"] for row in facts["file"])) == FILES[name]
    n_header = 28 if facts["format"] == "llama2.c v0" else 256
    assert facts["file"][-1] == {"what": "header", "count": n_header, "bytes_each": 1, "bytes": n_header}
    assert all(row["count"] * row["bytes_each"] == row["bytes"] for row in facts["file"])


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_the_sum_of_a_folder_is_its_file_of_weights(tmp_path: Path, capsys, tiny_config, dtype: str):
    write_model(random_model(tiny_config), tmp_path / "model", "safetensors", dtype=dtype)
    facts = facts_of(capsys, str(tmp_path / "model"))
    weights = tmp_path / "model" / "model.safetensors"
    assert sum(row["bytes"] for row in facts["file"]) == weights.stat().st_size
    n_header = 8 + int.from_bytes(weights.read_bytes()[:8], "little")
    assert facts["file"][-1] == {"what": "header", "count": n_header, "bytes_each": 1, "bytes": n_header}
    assert facts["memory"]["weight_bytes"] == tiny_config.n_parameters * (4 if dtype == "f32" else 2)


@pytest.mark.parametrize("dtype", ["f16", "q8_0", "q4_1"])
def test_the_sum_of_a_gguf_file_is_the_file(tmp_path: Path, capsys, tiny_config, dtype: str):
    config = replace(tiny_config, width=32, head_size=8, mlp_width=64)
    write_model(random_model(config), tmp_path / "model.gguf", "gguf", dtype=dtype)
    facts = facts_of(capsys, str(tmp_path / "model.gguf"))
    assert facts["format"] == "GGUF v3"
    assert sum(row["bytes"] for row in facts["file"]) == (tmp_path / "model.gguf").stat().st_size
    assert all(row["count"] * row["bytes_each"] == row["bytes"] for row in facts["file"])
    n_matrices = config.n_parameters - 32 * 5
    bytes_by_what = {row["what"]: row["bytes"] for row in facts["file"]}
    parts = {
        "f16": {"float16 weights of matrices": 2 * n_matrices},
        "q8_0": {"int8 weights of matrices": n_matrices, "scales, one per 32 weights": n_matrices // 16},
        "q4_1": {"pairs of int4 weights of matrices": n_matrices // 2, "offsets, one per 32 weights": n_matrices // 16},
    }
    assert bytes_by_what.items() >= parts[dtype].items()
    assert facts["file"][-1]["what"] == "header, vocabulary and padding"


def test_parameters_are_counted_from_the_shapes(capsys):
    facts = facts_of(capsys, "stories")
    assert sum(row["parameters"] for row in facts["tensors"]) == facts["parameters"]


def test_the_vocabulary_is_told_in_words(capsys):
    assert facts_of(capsys, "stories")["vocabulary"] == "llama2.c's tokenizer.bin"


def test_memory_follows_the_context(capsys):
    config, memory = (facts := facts_of(capsys, "stories", "--context", "100"))["config"], facts["memory"]
    n_bytes = 2  # float16, because its weights are integers
    assert memory["kv_bytes"] == 100 * 2 * config["n_layers"] * config["n_kv_heads"] * config["head_size"] * n_bytes
    assert memory["bytes"] == memory["kv_bytes"] + memory["weight_bytes"]


def test_plain_tables_say_the_same(capsys):
    facts = facts_of(capsys, "stories")
    main(["inspect", "stories"])
    text = capsys.readouterr().out
    assert f"{facts['parameters']:,} parameters" in text
    assert f"Kernels on this machine: {facts['instruction_set']}" in text
    assert "\x1b" not in text


def test_a_terminal_gets_drawn_tables(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    main(["inspect", "stories"])
    assert "━" in capsys.readouterr().out


def test_no_weight_is_read_of_a_file_larger_than_memory(tmp_path: Path, capsys):
    config = PRESETS["7B"]
    file = tmp_path / "model.bin"
    header = [
        config.width,
        config.mlp_width,
        config.n_layers,
        config.n_heads,
        config.n_kv_heads,
        -config.vocab_size,
        config.context,
    ]
    with file.open("wb") as stream:  # a file with a hole where the weights would be
        stream.write(b"".join(number.to_bytes(4, "little", signed=True) for number in header))
        stream.truncate(28 + 4 * config.n_parameters + 4 * config.context * config.head_size)
    peak_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert facts_of(capsys, str(file))["parameters"] == config.n_parameters
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_before < 100 * 1024  # KiB; mapped pages count once touched


def test_a_context_that_run_refuses_is_refused(capsys):
    n = facts_of(capsys, "stories")["config"]["context"]
    assert main(["inspect", "stories", "--context", str(n + 1)]) == 1
    assert capsys.readouterr().err == f"llamita: context: found {n + 1}, expected 1 to {n}, the model's\n"


def test_a_name_is_one_line(tmp_path: Path, capsys, tiny_config):
    write_model(random_model(tiny_config), tmp_path / "red\x1b[31m\nline.bin", "llama2c-v0")
    assert main(["inspect", str(tmp_path / "red\x1b[31m\nline.bin")]) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "red\\x1b[31m\\nline.bin: llama2.c v0" in printed
