"""`llamita finetune` as a user types it: from chats to a model that answers; stopped, killed, resumed, and told nonsense."""

import io
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch comes with llamita[train]")

sys.path.append(str(Path(__file__).parents[1] / "train"))
import toy_chats  # pyright: ignore[reportMissingImports]

from llamita.cli import main
from llamita.formats import read_model

SMALL = [
    *("--template=chatml", "--row-tokens=64", "--batch=2", "--accumulation=2", "--learning-rate=0.01", "--warmup-steps=2"),
    *("--steps=12", "--eval-every=4", "--save-every=4", "--sample-every=6", "--dtype=float32", "--device=cpu", "--threads=1"),
]
NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system messages') }}{% endif %}"
    "{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)


@pytest.fixture(scope="module")
def base(tmp_path_factory, toy_sentencepiece_bytes) -> Path:
    return toy_chats.write_base(tmp_path_factory.mktemp("model"), toy_sentencepiece_bytes)


@pytest.fixture(scope="module")
def chats(tmp_path_factory) -> Path:
    return toy_chats.write_chats(tmp_path_factory.mktemp("chats") / "chats.jsonl")


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "llamita", "finetune", *map(str, arguments)]


def finetune(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=170, check=False)


@pytest.fixture(scope="module")
def finished(base, chats, tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    out = tmp_path_factory.mktemp("run") / "lily"
    return out, finetune(base, chats, "--out", out, "--show-examples=1", *SMALL)


def test_what_is_learned_is_shown_on_stdout_and_nothing_else_is(finished):
    out, done = finished
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == f"{out / 'data'}: what is between [[ and ]] is learned, the rest is only read"
    assert f"[[{toy_chats.ANSWER}<|im_end|>]]" in done.stdout
    assert done.stdout.count("---") == 2


def test_a_run_says_what_it_will_do_what_the_model_answers_and_how_to_talk_to_it(finished, base):
    out, done = finished
    for expected in ("the shape is completion, by the first record", "new tokens, for the template chatml: <|im_start|>",
                     f"{base}: ", "all weights", "12 updates of 4 x 64 tokens", "step 12/12", "step 12, sample: ",
                     f"talk to it: llamita chat {out}\n"):  # fmt: skip
        assert expected in done.stderr, expected
    assert "<html" in (out / "report.html").read_text()
    asked = json.loads((out / "samples.jsonl").read_text().splitlines()[0])["prompt"]
    assert re.fullmatch(r"<\|im_start\|> ?user\nLily, can you say \d+\?<\|im_end\|> ?\n<\|im_start\|> ?assistant\n", asked)


def test_chat_opens_what_was_trained(finished, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("Lily, can you say 77?\n"))
    assert main(["chat", str(finished[0]), "-t", "0", "-n", "4"]) == 0
    told = capsys.readouterr()
    assert told.out.strip()
    assert "story" not in told.err, "it has a chat template now"


def test_a_run_that_is_killed_and_one_that_is_stopped_end_like_one_that_was_left_alone(finished, base, chats, tmp_path):
    out = tmp_path / "lily"
    for number, expected, step in ((signal.SIGKILL, -signal.SIGKILL, 4), (signal.SIGINT, 128 + signal.SIGINT, 8)):
        process = subprocess.Popen(
            command(base, chats, "--out", out, "--resume", *SMALL), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        while process.poll() is None and not (out / "checkpoints" / f"step-{step:08d}").exists():
            time.sleep(0.001)
        process.send_signal(number)
        _, told = process.communicate(timeout=60)
        if (out / "checkpoints" / "step-00000012").exists():
            break  # the machine was faster than the signal
        assert process.returncode == expected, told
    assert finetune("--out", out, "--resume").returncode == 0
    assert toy_chats.checkpoint_bytes(out, 12) == toy_chats.checkpoint_bytes(finished[0], 12)
    for kind in ("step", "validation"):
        assert toy_chats.logged(out, kind) == toy_chats.logged(finished[0], kind)


def test_an_adapter_is_written_opened_and_merged(base, chats, tmp_path, capsys):
    out = tmp_path / "adapter"
    assert main(["finetune", str(base), str(chats), "--out", str(out), "--lora-rank=4", *SMALL]) == 0
    told = capsys.readouterr().err
    assert "LoRA of rank 4" in told
    assert f"talk to it: llamita chat {base} --adapter {out}\n" in told
    assert main(["run", str(base), "--adapter", str(out), "-i", "Once", "-n", "8", "-t", "0"]) == 0
    assert main(["export", str(base), str(tmp_path / "merged"), "--adapter", str(out)]) == 0
    assert read_model(tmp_path / "merged").config.vocab_size == toy_chats.CONFIG.vocab_size + 2
    assert main(["report", str(out)]) == 0


def test_chats_to_measure_on_may_be_given(base, chats, tmp_path, capsys):
    held = toy_chats.write_records(
        tmp_path / "held.jsonl", [{"prompt": f"Who is {i}?", "completion": "Tom."} for i in range(3)]
    )
    arguments = ["finetune", str(base), str(chats), "--validation", str(held), "--out", str(tmp_path / "out"), "--dry-run"]
    assert main([*arguments, *SMALL]) == 0
    assert re.search(r"24 examples to learn \(.*, 3 examples to measure on \(", capsys.readouterr().err)
    assert main([*arguments[:4], str(tmp_path / "absent.jsonl"), *arguments[5:], *SMALL]) == 1
    assert "absent.jsonl" in (told := capsys.readouterr().err)
    assert told.count("\n") == 1


def test_a_dry_run_shows_the_plan_and_trains_nothing(base, chats, tmp_path, capsys):
    assert main(["finetune", str(base), str(chats), "--out", str(tmp_path / "out"), "--dry-run", *SMALL]) == 0
    assert "12 updates of 4 x 64 tokens" in capsys.readouterr().err
    assert not (tmp_path / "out" / "recipe.toml").exists()


def refusal(capsys, *arguments: object) -> str:
    """The one line that a mistake gives."""
    assert main(["finetune", *map(str, arguments)]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    return told.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--out={tmp}/new"], "found no model; name a model and files of chats"),
        (["{base}", "--out={tmp}/new"], "found no chats to learn from"),
        (["--out={tmp}/new", "--resume"], "found no run to resume there"),
        (["{base}", "{tmp}/missing.jsonl", "--out={tmp}/new"], "missing.jsonl"),
        (["{base}", "{tmp}/plain.txt", "--out={tmp}/new"], "plain.txt: found no file of chats, expected .jsonl"),
        (["{tmp}/nowhere", "{chats}", "--out={tmp}/new"], "nowhere"),
        (["{base}", "{chats}", "--out={base}"], "found a model there (config.json); name another folder with --out"),
        (["{base}", "{chats}", "--out={tmp}/plain.txt"], "plain.txt"),
        (["{base}", "{chats}", "--out={tmp}/new", "--template=nope"], "nope"),
        (["{base}", "{chats}", "--out={tmp}/new", "--context=65"], "context: found 65, expected at most 64"),
        (["{base}", "{chats}", "--out={tmp}/new", "--epochs=0"], "epochs: found 0, expected a positive number"),
        (["{base}", "{chats}", "--out={tmp}/new", "--row-tokens=8"], "row_tokens: found 8, expected at least the "),
        (["{base}", "{chats}", "--out={tmp}/new", "--preference"], "expected chosen and rejected"),
        (["{base}", "{chats}", "--out={tmp}/new", "--context=8", "--too-long=drop"], "found none to learn from (24 longer"),
    ],
)
def test_a_mistake_gives_one_line_and_trains_nothing(base, chats, tmp_path, capsys, arguments, expected):
    (tmp_path / "plain.txt").write_text("Once upon a time.\n")
    told = refusal(capsys, *(argument.format(base=base, chats=chats, tmp=tmp_path) for argument in arguments))
    assert told.startswith("llamita: ")
    assert expected in told
    assert not (tmp_path / "new" / "recipe.toml").exists()


def test_a_folder_with_a_run_is_neither_overwritten_nor_resumed_with_other_settings(finished, base, chats, capsys):
    out, _ = finished
    told = refusal(capsys, base, chats, "--out", out, *SMALL)
    assert told == f"llamita: {out}: found a run there; go on with it by --resume, or name another folder with --out"
    assert "learning_rate: then 0.01, now 0.02" in refusal(capsys, "--out", out, "--resume", "--learning-rate=0.02")
    assert "template: then chatml, now llama2" in refusal(capsys, "--out", out, "--resume", "--template=llama2")


def test_a_default_that_is_said_is_a_setting_too(base, chats, tmp_path, capsys):
    flags = [*SMALL, "--steps=1", "--sample-every=0", "--epochs=5", "--too-long=drop"]
    assert main(["finetune", str(base), str(chats), "--out", str(tmp_path), *flags]) == 0
    assert "epochs: then 5.0, now 3.0" in refusal(capsys, "--out", tmp_path, "--resume", "--epochs=3")
    assert "too_long: then drop, now cut" in refusal(capsys, "--out", tmp_path, "--resume", "--too-long=cut")
    assert main(["finetune", "--out", str(tmp_path), "--resume"]) == 0


def test_a_broken_line_stops_before_training_or_is_left_out_as_told(base, tmp_path, capsys):
    path = toy_chats.write_chats(tmp_path / "chats.jsonl", 12)
    path.write_text(path.read_text() + '{"prompt": "Who\n' + json.dumps({"prompt": "Who?", "completion": "Lily"}) + "\n")
    flags = (base, path, "--out", tmp_path / "out", *SMALL, "--steps=1")
    assert refusal(capsys, *flags).startswith(f"llamita: {path}: line 13: found broken JSON")
    assert not (tmp_path / "out" / "recipe.toml").exists()
    assert main(["finetune", *map(str, flags), "--on-bad=skip"]) == 0
    assert "left out: 1 broken line" in capsys.readouterr().err


def test_a_template_that_cannot_write_a_system_message_says_so_before_training(base, tmp_path, capsys):
    (tmp_path / "plain.jinja").write_text(NO_SYSTEM)
    talk = [{"role": role, "content": role} for role in ("system", "user", "assistant")]
    path = toy_chats.write_records(tmp_path / "chats.jsonl", [{"messages": talk[1:]}, {"messages": talk}])
    flags = (base, path, "--out", tmp_path / "out", *SMALL, "--template", tmp_path / "plain.jinja")
    told = refusal(capsys, *flags)
    assert told.startswith(f"llamita: {path}: line 2: found a system message, which this chat template cannot write")
    assert "--system-messages fold, --system-messages drop" in told
