"""How a run of the command ends: its exit status, and what it leaves on stderr."""

import os
import signal
import subprocess
import sys

import pytest

from llamita import __main__
from llamita.cli import main

HELP_MUST_NOT_LOAD = ("numpy", "numba", "llvmlite", "rich", "sentencepiece", "torch")


@pytest.mark.parametrize("arguments", [[], ["run"], ["inspect"]], ids=str)
def test_help_loads_no_heavy_library(arguments: list[str]):
    code = "import sys; from llamita.cli import main; main([*sys.argv[1:], '--help']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("Usage: llamita")
    assert not set(HELP_MUST_NOT_LOAD) & set(done.stderr.split())


def test_version_is_the_packages(llamita):
    import llamita as package

    assert llamita("--version").stdout == f"llamita {package.__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["walk"],
        ["run", "--walk"],
        ["run", "-n", "many"],
        ["run", "-m", "sing"],
        ["run", "-i"],
        ["run", "--logit-bias", "2"],
        ["run", "one.bin", "two.bin"],
        ["run", "-m", "chat", "--samples", "2"],
        ["inspect"],
        ["walk", "run"],
        ["--walk", "run"],
        ["run", "one.bin", "two\x1b[31m.bin"],
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_is_one_line_and_exit_2(arguments: list[str], capsys):
    assert main(arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    named = "" if "walk" in arguments[0] else f" {arguments[0]}"
    assert output.err.startswith(f"llamita{named}: ")
    assert output.err.endswith(f"; llamita{named} --help tells more\n")
    assert output.err.count("\n") == 1
    assert output.err[:-1].isprintable()


@pytest.mark.parametrize("verb", ["run", "inspect"])
def test_a_mistake_of_the_user_is_one_line_and_exit_1(verb: str, tmp_path, llamita):
    (tmp_path / "empty.bin").touch()
    for path in (tmp_path, tmp_path / "absent.bin", tmp_path / "empty.bin"):
        done = llamita(verb, str(path))
        assert done.returncode == 1
        assert done.stdout == ""
        assert done.stderr.startswith("llamita: ")
        assert done.stderr.count("\n") == 1
        assert str(path) in done.stderr


@pytest.mark.parametrize("arguments", [["--debug", "inspect"], ["inspect", "--debug"]], ids=" ".join)
def test_debug_shows_the_traceback(arguments: list[str], tmp_path, llamita):
    done = llamita(*arguments, str(tmp_path / "absent.bin"))
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_a_reader_that_goes_away_ends_the_run_in_silence():
    command = f'"{sys.executable}" -m llamita run -t 0 -n 0 | head -c 4; echo " ${{PIPESTATUS[0]}}"'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "Once 141\n"
    assert not any(word in done.stderr for word in ("Traceback", "Broken", "Exception"))


def test_a_closed_output_is_no_error():
    command = f'"{sys.executable}" -m llamita run -t 0 -n 8 >&- 2>&-; echo $?'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "0\n"


def test_a_closed_input_is_no_error():
    command = f'"{sys.executable}" -m llamita run -t 0 -n 8 <&-; echo $?'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.endswith("\n0\n")


def test_a_full_disk_is_an_error_and_no_traceback():
    if not os.path.exists("/dev/full"):  # noqa: PTH110
        pytest.skip("this system has no /dev/full")
    command = f'"{sys.executable}" -m llamita run -t 0 -n 8 >/dev/full; echo $?'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "1\n"
    assert "Traceback" not in done.stderr


def test_ctrl_c_while_the_command_line_is_loaded_shows_no_stack(monkeypatch):
    def interrupted() -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("llamita.cli.main", interrupted)
    assert __main__.main() == 130


def test_more_threads_than_cores_are_not_started(monkeypatch, capsys):
    monkeypatch.setattr("llamita.cli.sampling_options.available_cores", lambda: 1)
    assert main(["run", "-n", "5", "--threads", "1"]) == 0
    assert "cores" not in capsys.readouterr().err
    assert main(["run", "-n", "5", "--threads", "60"]) == 0
    assert "llamita: --threads: found 60, more than there are cores; takes 1\n" in capsys.readouterr().err


def test_ctrl_c_ends_a_story_that_has_no_end():
    story = subprocess.Popen(
        [sys.executable, "-m", "llamita", "run", "-t", "1", "-n", "0", "--samples", "100000"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert story.stdout
    assert story.stdout.read(1)
    story.send_signal(signal.SIGINT)
    _, errors = story.communicate(timeout=60)
    assert story.returncode == 130
    assert "Traceback" not in errors
