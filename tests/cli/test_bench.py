"""`llamita bench`: every promised number is there, peers are read, one that fails costs one line. No speeds here."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llamita.bench.subject import made_up_tokenizer
from llamita.cli import main
from llamita.config import ModelConfig
from llamita.formats import write_model, write_tokenizer
from llamita.model import random_model

CONFIG = ModelConfig(width=32, n_layers=2, n_heads=4, n_kv_heads=2, mlp_width=64, vocab_size=64, context=32)
QUICK = ("-r", "2", "-n", "8", "-p", "16", "-t", "1", "--batch", "2")
LLAMA2C = 'echo "achieved tok/s: 100.0" >&2; echo "$OMP_NUM_THREADS $*" >> {log}'
LLAMA_BENCH = """
cat <<'END'
[ {"n_prompt": 16, "n_gen": 0, "samples_ts": [ 50.0 ]}, {"n_prompt": 0, "n_gen": 8, "samples_ts": [ 25.0 ]} ]
END
"""


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with a tiny model in float32 and in int8, and a tokenizer beside them."""
    write_model(random_model(CONFIG, "f32"), tmp_path / "tiny.bin", "llama2c-v0")
    write_model(random_model(CONFIG, "q8_0", 32), tmp_path / "tiny8.bin", "llama2c-v2", 32)
    write_tokenizer(made_up_tokenizer(CONFIG.vocab_size), tmp_path / "tokenizer.bin")
    return tmp_path


def program(path: Path, script: str) -> str:
    """A shell script that can be run."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def bench(folder: Path, *arguments: str) -> dict:
    """What `llamita bench` writes as JSON."""
    assert main(["bench", *QUICK, *arguments, "--json", str(folder / "out.json")]) == 0
    return json.loads((folder / "out.json").read_text())


def rows_of(model: dict) -> dict[tuple[str, str], dict]:
    return {(row["test"], row["who"]): row for row in model["tests"]}


def test_all_that_is_promised_is_measured(models: Path, capsys):
    done = bench(models, str(models / "tiny8.bin"), "--busy")
    (model,) = done["models"]
    assert (model["model"], model["dtype"], model["group"]) == ("tiny8", "q8_0", 32)
    tests = ["pp16", "tg8", "streamed", "one call a token", "2 sequences at once", "beside a busy core"]
    assert [row["test"] for row in model["tests"]] == tests
    for row in model["tests"]:
        assert len(row["tokens_per_second"]) == 2
        assert 0 < row["min"] <= row["median"] <= row["max"]
    assert model["bandwidth"]["bytes_per_token"] > 0
    assert model["bandwidth"]["share"] > 0
    assert 0 < model["start"]["first_byte_seconds"] <= model["start"]["whole_seconds"]
    assert model["start"]["tokens_per_second"] > 0
    assert model["start"]["peak_bytes"] > model["start"]["weight_bytes"]
    assert model["start"]["kv_bytes"] == 32 * 2 * 2 * 16 * 2  # float16, beside integer weights
    assert {"llamita", "python", "numba"} <= set(done["versions"])
    assert done["machine"]["cpu"] in (printed := capsys.readouterr().out)
    assert all(test in printed for test in tests)


def test_float_weights_are_measured_too(models: Path):
    (model,) = bench(models, str(models / "tiny.bin"), "--no-start")["models"]
    assert ("tg8", "llamita") in rows_of(model)
    assert model["start"] is None


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16", "q8_0"])
def test_shapes_are_made_in_every_dtype(models: Path, dtype: str):
    (model,) = bench(models, "260K", "--dtype", dtype, "--no-start")["models"]
    assert (model["model"], model["dtype"], model["parameters"]) == ("260K", dtype, 260032)


def test_a_depth_shows_in_the_names_and_leaves_room(models: Path):
    (model,) = bench(models, str(models / "tiny8.bin"), "--depth", "24", "--no-start", "--batch", "1")["models"]
    assert [row["test"] for row in model["tests"]] == ["pp8 @ d24", "tg8 @ d24", "streamed", "one call a token"]


def test_llama2c_is_started_with_the_same_weights_and_threads(models: Path):
    runq = program(models / "runq", LLAMA2C.format(log=models / "log"))
    (model,) = bench(models, str(models / "tiny8.bin"), "--no-start", "--against", runq)["models"]
    rows = rows_of(model)
    assert rows["tg8", "runq"]["tokens_per_second"] == [100.0, 100.0]
    ratios = [rate / 100 for rate in rows["tg8", "llamita"]["tokens_per_second"]]
    assert rows["tg8", "runq"]["ratio"] == pytest.approx(sum(ratios) / 2)
    assert ("pp16", "runq") in rows
    first = (models / "log").read_text().splitlines()[0].split()
    assert first[:2] == ["1", str(models / "tiny8.bin")]
    assert Path(first[first.index("-z") + 1]).name.endswith("tokenizer.bin")


def test_llama_bench_is_read(models: Path):
    peer = program(models / "llama-bench", LLAMA_BENCH)
    (model,) = bench(models, str(models / "tiny8.bin"), "--no-start", "--against", peer)["models"]
    assert rows_of(model)["pp16", "llama-bench"]["median"] == 50.0
    assert rows_of(model)["tg8", "llama-bench"]["median"] == 25.0


@pytest.mark.parametrize(
    ("script", "complaint"),
    [("echo no such luck >&2; exit 3", "status 3: no such luck"), ("echo hello >&2", "achieved tok/s', but hello")],
)
def test_a_peer_that_fails_costs_one_line(models: Path, capsys, script: str, complaint: str):
    runq = program(models / "runq", script)
    (model,) = bench(models, str(models / "tiny8.bin"), "--no-start", "--against", runq)["models"]
    assert {row["who"] for row in model["tests"]} == {"llamita"}
    assert len(model["notes"]) == 1
    assert complaint in model["notes"][0]
    assert model["notes"][0] in capsys.readouterr().err.splitlines()


def test_a_peer_of_another_dtype_is_left_out_with_the_reason(models: Path):
    run = program(models / "run", "exit 1")
    (model,) = bench(models, str(models / "tiny8.bin"), "--no-start", "--against", run)["models"]
    assert model["notes"] == ["run: runs f32 only, left out for q8_0"]


@pytest.mark.parametrize(
    "arguments",
    [("no-such.bin",), ("260K", "--against", "no-such-peer"), ("260K", "--depth", "512"), ("260K", "--json", "no/such/folder")],
)
def test_a_mistake_is_one_line(capsys, arguments: tuple[str, ...]):
    assert main(["bench", *QUICK, *arguments]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_peers_of_one_name_are_told_apart(models: Path):
    (models / "other").mkdir()
    peers = [program(models / folder / "runq", LLAMA2C.format(log=models / "log")) for folder in (".", "other")]
    arguments = [word for peer in peers for word in ("--against", peer)]
    (model,) = bench(models, str(models / "tiny8.bin"), "--no-start", *arguments)["models"]
    assert {row["who"] for row in model["tests"]} == {"llamita", *map(str, map(Path, peers))}


def test_a_program_that_no_one_knows_is_refused(models: Path, capsys):
    assert main(["bench", "260K", "--against", program(models / "walk", "exit 0")]) == 1
    assert "llama-bench, runq, run" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="signals of a terminal")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_no_file(models: Path, tmp_path: Path, number: int):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    runq = program(models / "runq", f"touch {models}/started; sleep 60")
    command = [sys.executable, "-m", "llamita", "bench", *QUICK, "260K", "--against", runq]
    with subprocess.Popen(
        command, env={**os.environ, "TMPDIR": str(temporary)}, stderr=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        while not (models / "started").exists():
            assert process.poll() is None
            time.sleep(0.05)
        assert list(temporary.glob("llamita-bench-*"))
        process.send_signal(number)
        _, complaint = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"Traceback" not in complaint
    assert list(temporary.glob("llamita-bench-*")) == []
