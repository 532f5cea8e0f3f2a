"""`llamita export`: what OUT's name asks for, what is said, what is refused, and the gate of --verify."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llamita import fidelity
from llamita.bench.subject import made_up_tokenizer
from llamita.cli import export, main
from llamita.formats import read_model, read_tokenizer, write_model, writing
from llamita.formats.target import write_tokenizer_beside
from llamita.language_model import BUNDLED
from llamita.model import Model, random_model, with_more_rows
from llamita.tokenizer.added_tokens import with_special_tokens
from llamita.tokenizer.conversion import to_llama2c
from llamita.tokenizer.library import LibraryTokenizer
from llamita.tokenizer.llama2c import Llama2cTokenizer, serialize_tokenizer_bin
from llamita.tokenizer.sentencepiece import parse_sentencepiece
from small_vocabularies import byte_level


@pytest.fixture
def toy_model(tiny_config, toy_sentencepiece_bytes: bytes) -> Model:
    """A model of random weights with a tokenizer."""
    tokenizer = parse_sentencepiece(toy_sentencepiece_bytes, "toy.model")
    config = replace(tiny_config, width=32, mlp_width=64, head_size=8, vocab_size=tokenizer.vocab_size)
    return replace(random_model(config), tokenizer=tokenizer)


@pytest.fixture
def source(toy_model: Model, tmp_path: Path) -> str:
    write_model(toy_model, tmp_path / "source", "safetensors")
    return str(tmp_path / "source")


def exported(capsys, *arguments: str) -> dict:
    assert main(["export", *arguments, "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def refused(capsys, *arguments: str) -> str:
    assert main(["export", *arguments]) == 1
    return capsys.readouterr().err.splitlines()[-1]


def test_choices_are_those_of_the_writers():
    assert export.FORMATS == writing.FORMATS
    assert {*export.DTYPES} == {dtype for dtypes in writing.DTYPES.values() for dtype in dtypes}
    assert {*export.VERSIONS.values()} < {*export.FORMATS}


@pytest.mark.parametrize(
    ("name", "flags", "source_format", "dtype"),
    [
        ("out.bin", [], "llama2.c v0", "f32"),
        ("out.bin", ["--dtype", "q8_0"], "llama2.c v2", "q8_0"),
        ("out.bin", ["--to", "llama2c-v1"], "llama2.c v1", "f32"),
        ("out.bin", ["--version", "2"], "llama2.c v2", "q8_0"),
        ("out", ["--version", "-1"], "Hugging Face", "f32"),
        ("out", ["--dtype", "bf16"], "Hugging Face", "bf16"),
        ("out.gguf", [], "GGUF v3", "f32"),
        ("out.gguf", ["--dtype", "q4_0"], "GGUF v3", "q4_0"),
    ],
)
def test_the_name_and_the_flags_say_what_is_written(capsys, tmp_path, source, name, flags, source_format, dtype):
    target = tmp_path / "new" / name
    target.parent.mkdir()
    facts = exported(capsys, source, str(target), *flags)
    read = read_model(target)
    assert (read.source_format, read.tensors["layers.0.mlp.up"].dtype) == (source_format, dtype)
    assert read.config == read_model(source).config
    assert read.tokenizer is not None
    assert (facts["path"], facts["dtype"], facts["verify"]) == (str(target), dtype, None)
    files = [target] if target.is_file() else list(target.iterdir())
    assert facts["bytes"] == sum(file.stat().st_size for file in files)


def test_a_bundled_name_is_a_source(capsys, tmp_path):
    exported(capsys, "stories", str(tmp_path / "stories.bin"), "--dtype", "q8_0")
    assert (tmp_path / "stories.bin").read_bytes() == (BUNDLED / "stories" / "model.bin").read_bytes()
    assert (tmp_path / "tokenizer.bin").read_bytes() == (BUNDLED / "stories" / "tokenizer.bin").read_bytes()


def test_what_was_written_is_said(capsys, tmp_path, source):
    assert main(["export", source, str(tmp_path / "out.bin")]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{tmp_path / 'out.bin'}: llama2c-v0, f32, {(tmp_path / 'out.bin').stat().st_size:,} bytes in ")
    assert second == f"tokenizer: {tmp_path / 'tokenizer.bin'}, made of the model's"
    main(["export", source, str(tmp_path / "out.bin")])
    assert capsys.readouterr().out.splitlines()[1].endswith("tokenizer.bin, which was there already")
    (tmp_path / "tokenizer.bin").write_bytes(b"mine")
    main(["export", source, str(tmp_path / "out.bin")])
    assert "which is another one and stays; name the model's own with -z" in capsys.readouterr().out
    assert (tmp_path / "tokenizer.bin").read_bytes() == b"mine"


def test_what_a_llama2c_file_has_no_place_for_is_said(capsys, tmp_path, toy_model):
    tokenizer = with_special_tokens(toy_model.tokenizer, ["<|im_start|>", "<|im_end|>"])
    grown = with_more_rows(toy_model, tokenizer.vocab_size)
    write_model(replace(grown, tokenizer=tokenizer, chat_template="{{ messages }}"), tmp_path / "source", "safetensors")
    said = exported(capsys, str(tmp_path / "source"), str(tmp_path / "out.bin"))["tokenizer"]
    assert "llama2.c's run takes <|im_start|>, <|im_end|> for text" in said
    assert said.endswith("the chat template has no place there: name it with --template")
    said = exported(capsys, str(tmp_path / "source"), str(tmp_path / "out.gguf"))["tokenizer"]
    assert said == f"in {tmp_path / 'out.gguf'}"


def test_a_tokenizer_named_with_z_goes_along(capsys, tmp_path, toy_model):
    write_model(replace(toy_model, tokenizer=None), tmp_path / "model.bin", "llama2c-v0")
    (tmp_path / "else").mkdir()
    path, _ = write_tokenizer_beside(toy_model.tokenizer, tmp_path / "else" / "any.bin")  # pyright: ignore[reportArgumentType]
    assert exported(capsys, str(tmp_path / "model.bin"), str(tmp_path / "a.gguf"))["tokenizer"].startswith("none found beside")
    exported(capsys, str(tmp_path / "model.bin"), str(tmp_path / "b"), "-z", str(path))
    assert read_tokenizer(tmp_path / "b" / "tokenizer.bin").vocab_size == toy_model.config.vocab_size


def test_a_vocabulary_that_tokenizer_bin_cannot_hold_is_left_out_and_that_is_said(capsys, tmp_path, tiny_config):
    tokenizer = LibraryTokenizer(byte_level())
    model = replace(random_model(replace(tiny_config, vocab_size=tokenizer.vocab_size)), tokenizer=tokenizer)
    write_model(model, tmp_path / "source", "safetensors")
    facts = exported(capsys, str(tmp_path / "source"), str(tmp_path / "out.bin"))
    assert facts["tokenizer"].startswith("no tokenizer.bin, as it cannot hold this one: ")
    assert not (tmp_path / "tokenizer.bin").exists()
    exported(capsys, str(tmp_path / "source"), str(tmp_path / "out.gguf"), "--verify-text", __file__)
    assert read_model(tmp_path / "out.gguf").tokenizer is not None


def test_what_llama2c_cannot_hold_is_refused_with_the_reason(capsys, tmp_path, toy_model):
    config = replace(toy_model.config, rope_theta=500000.0)
    write_model(replace(toy_model, config=config), tmp_path / "source", "safetensors")
    line = refused(capsys, str(tmp_path / "source"), str(tmp_path / "out.bin"))
    assert line.endswith(
        "rope_theta: found 500000.0, expected 10000; llama2.c's files cannot say otherwise: choose another format"
    )
    assert not (tmp_path / "out.bin").exists()
    assert not (tmp_path / "tokenizer.bin").exists()


def test_the_model_itself_is_never_written_over(capsys, source):
    before = (Path(source) / "model.safetensors").read_bytes()
    for target in (source, f"{source}/model.safetensors", f"{source}/../source"):
        assert "found the model itself" in refused(capsys, source, target, "--to", "safetensors")
    assert (Path(source) / "model.safetensors").read_bytes() == before


def test_an_older_file_is_replaced(capsys, tmp_path, source):
    (tmp_path / "out.bin").write_bytes(b"old")
    exported(capsys, source, str(tmp_path / "out.bin"))
    assert read_model(tmp_path / "out.bin").source_format == "llama2.c v0"


def test_flags_that_say_two_things_are_a_usage_error(capsys, source):
    assert main(["export", source, "out", "--to", "gguf", "--version", "0"]) == 2
    assert "--version: found it beside --to" in capsys.readouterr().err
    assert refused(capsys, source, "out.bin", "--dtype", "f16").startswith(
        "llamita: dtype: found f16, expected f32: llama2c-v0 "
    )


@pytest.mark.parametrize(("name", "dtype"), [("a.bin", "f32"), ("b", "bf16"), ("c.gguf", "q8_0"), ("d.gguf", "q4_1")])
def test_what_was_written_is_verified_within_the_bounds_of_its_dtype(capsys, tmp_path, name, dtype):
    found = exported(capsys, "stories", str(tmp_path / name), "--dtype", dtype, "--verify")["verify"]
    kind = dtype if dtype == "q4_1" else "q8_0"  # the bundled model is q8_0, and so are activations
    assert found["bounds"]["dtype"] == kind
    assert found["complaints"] == []
    assert found["n_tokens"] > 1000
    assert 0 <= found["kl_divergence"] < fidelity.BOUNDS[kind].kl_divergence
    assert found["source_cross_entropy"] > 3


def test_a_text_of_ones_own_is_read(capsys, tmp_path, source):
    (tmp_path / "text").write_text("Once upon a time, Lily saw a ball. " * 3)
    found = exported(capsys, source, str(tmp_path / "out.bin"), "--verify-text", str(tmp_path / "text"))["verify"]
    assert 30 < found["n_tokens"] < 120
    assert found["top1_agreement"] == 1
    (tmp_path / "empty").touch()
    assert "found 0 bytes" in refused(capsys, source, str(tmp_path / "new.bin"), "--verify-text", str(tmp_path / "empty"))
    assert not (tmp_path / "new.bin").exists()


def test_numbers_and_bounds_stand_in_a_table(capsys, tmp_path, source):
    assert main(["export", source, str(tmp_path / "out.gguf"), "--dtype", "f16", "--verify"]) == 0
    table = capsys.readouterr().out
    for row in (
        "largest difference of a logit",
        "mean KL divergence",
        "top-1 agreement",
        "cross entropy of the source",
        "change of it",
    ):
        assert row in table
    assert "bounds of f16" in table


def test_a_file_past_a_bound_ends_with_1_and_says_which(capsys, tmp_path, source, monkeypatch):
    def spoilt(model: Model, *arguments, **names) -> None:
        tensors = {name: replace(tensor, data=np.roll(tensor.data, 1, axis=0)) for name, tensor in model.tensors.items()}
        write_model(replace(model, tensors=tensors), *arguments, **names)

    monkeypatch.setattr("llamita.formats.write_model", spoilt)
    line = refused(capsys, source, str(tmp_path / "out.bin"), "--verify")
    assert line.startswith(f"llamita: {tmp_path / 'out.bin'}: largest logit difference: found ")
    assert "mean KL divergence: found " in line
    assert "expected at most 1e-06" in line
    assert main(["export", source, str(tmp_path / "two.bin"), "--verify", "--json"]) == 1
    assert len(json.loads(capsys.readouterr().out)["verify"]["complaints"]) == 4


def test_another_tokenizer_beside_the_file_is_a_complaint(capsys, tmp_path, source, toy_model):
    tokenizer = to_llama2c(toy_model.tokenizer)
    (tmp_path / "tokenizer.bin").write_bytes(
        serialize_tokenizer_bin(Llama2cTokenizer(tokenizer.pieces, tokenizer.scores[::-1]))  # merges in another order
    )
    line = refused(capsys, source, str(tmp_path / "out.bin"), "--verify")
    assert line.endswith("out.bin: tokenizer: found other ids for this text, expected those of the source")


def test_a_tokenizer_of_another_size_beside_the_file_is_a_complaint(capsys, tmp_path):
    (tmp_path / "tokenizer.bin").write_bytes(serialize_tokenizer_bin(made_up_tokenizer(512)))
    assert main(["export", "stories", str(tmp_path / "m.bin"), "--verify"]) == 1
    assert "tokenizer: found another model's beside it" in capsys.readouterr().err


def test_without_a_tokenizer_nothing_can_be_verified(capsys, tmp_path, tiny_config):
    write_model(random_model(tiny_config), tmp_path / "source", "safetensors")
    line = refused(capsys, str(tmp_path / "source"), str(tmp_path / "out.bin"), "--verify")
    assert "--verify needs a tokenizer, found none beside the model; name one with -z" in line
    assert not (tmp_path / "out.bin").exists()


def test_help_loads_no_library():
    code = "import sys; from llamita.cli import main; main(['export', '--help']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert not {"numpy", "numba", "rich"} & {*done.stderr.split()}


def test_nothing_that_an_export_reads_is_written_over(capsys, tmp_path, source, toy_model):
    write_model(toy_model, tmp_path / "m.bin", "llama2c-v0")
    write_tokenizer_beside(toy_model.tokenizer, tmp_path / "m.bin")  # pyright: ignore[reportArgumentType]
    own, other, text = tmp_path / "tokenizer.bin", tmp_path / "else.bin", tmp_path / "text.bin"
    other.write_bytes(own.read_bytes())
    text.write_text("Once upon a time")
    flags = ("-z", str(other), "--verify-text", str(text))
    cases = [(str(tmp_path / "m.bin"), path, flags) for path in (other, text)]
    cases += [(str(tmp_path / "m.bin"), own, ()), (source, Path(source) / "tokenizer.bin", ())]
    for model, path, extra in cases:
        before = path.read_bytes()
        assert f"target: found {path.name}, which must stay" in refused(capsys, model, str(path), *extra)
        assert path.read_bytes() == before


def test_names_that_are_no_utf8_or_no_line_are_exported_and_shown_as_one(capsys, tmp_path, toy_model):
    for name in (b"bad\xff\xfe", b"red\x1b[31m\nline"):
        path = tmp_path / os.fsdecode(name)
        write_model(toy_model, path.with_suffix(".bin"), "llama2c-v0")
        for ending in (".gguf", ""):
            assert main(["export", str(path.with_suffix(".bin")), str(path.with_suffix(ending))]) == 0
            output = capsys.readouterr()
            assert "\x1b" not in output.out
            assert len(output.out.splitlines()) == 2
            assert read_model(path.with_suffix(ending)).config == toy_model.config
