"""`llamita bench`: flags in, tables out. What is measured, and how, is in llamita/bench/."""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llamita.cli import debug_option
from llamita.cli.screen import print_table

if TYPE_CHECKING:
    from llamita.bench.protocol import Protocol

DTYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1")


@click.command("bench", context_settings={"show_default": True})
@click.argument("models", metavar="[MODEL]...", nargs=-1)
@click.option(
    "--dtype", "dtypes", type=click.Choice(DTYPES), multiple=True, default=("q8_0",), help="Of shapes; may be repeated."
)
@click.option("--against", metavar="PEER", multiple=True, help="Path of run, runq or llama-bench, or llama-cpp-python.")
@click.option("-p", "--prompt-tokens", type=click.IntRange(min=1), default=512, help="Prompt, cut to the context.")
@click.option("-n", "--decode-tokens", type=click.IntRange(min=1), default=128, help="Tokens to make, cut to the context.")
@click.option("-d", "--depth", type=click.IntRange(min=0), default=0, help="Tokens that are in the cache before.")
@click.option("-r", "--repetitions", type=click.IntRange(min=1), default=5, help="After one warm-up.")
@click.option("-t", "--threads", type=click.IntRange(min=1), default=None, help="Threads of all; else one per core.")
@click.option("--batch", type=click.IntRange(min=1), default=8, help="Sequences at once; 1: leave out.")
@click.option("--busy", is_flag=True, help="Also decode beside a process that keeps a core busy.")
@click.option("--start/--no-start", default=True, help="Also start `llamita run` afresh: first token, memory.")
@click.option(
    "--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), default=None, help="Also write all to PATH."
)
@debug_option
def command(
    models: tuple[str, ...], dtypes: tuple[str, ...], against: tuple[str, ...], json_path: Path | None, **flags
) -> None:
    """Measure MODEL: a file, a folder, a bundled model, or a shape of random weights (15M, 42M, 110M, 1.1B).

    Without MODEL: the bundled stories, 15M and 110M. Peers run the same weights in the same rounds; llamita is faster where the
    ratio is above 1.

    \b
        llamita bench stories15M.bin
        llamita bench 15M 110M --against ./runq --against ./llama-bench --json bench.json
    """
    from llamita.bench.peers import find_peers
    from llamita.bench.protocol import Protocol
    from llamita.bench.report import report
    from llamita.engine.team import default_threads

    protocol = Protocol(
        n_threads=flags["threads"] or default_threads(),
        prompt_tokens=flags["prompt_tokens"],
        decode_tokens=flags["decode_tokens"],
        depth_tokens=flags["depth"],
        repetitions=flags["repetitions"],
        batch=flags["batch"],
        busy=flags["busy"],
        start=flags["start"],
    )
    peers = find_peers(against)
    pairs = chosen(models, dtypes)
    done = report(protocol, peers, [])
    check_json(json_path)
    click.echo(f"{done['machine']['cpu']}, {protocol.n_threads} threads")
    for model, dtype in pairs:
        measured = measure(model, dtype, protocol, peers)
        show(measured)
        done["models"].append(measured)
        write_json(json_path, done)


def chosen(models: tuple[str, ...], dtypes: tuple[str, ...]) -> list[tuple[str | Path, str]]:
    """(model, dtype) of everything to be measured: the path of a file, once, or the name of a shape, in each dtype."""
    from llamita.config import PRESETS
    from llamita.formats import read_model
    from llamita.language_model import find_model

    pairs: list[tuple[str | Path, str]] = []
    for model in models or ("stories", "15M", "110M"):
        if model in PRESETS:
            pairs += [(model, dtype) for dtype in dtypes]
        else:
            read_model(path := find_model(model))  # a wrong path shall not show after minutes
            pairs.append((path, ""))
    return pairs


def check_json(path: Path | None) -> None:
    """Raise ModelFileError for a path that cannot be written: that shall not show after minutes."""
    from llamita.errors import ModelFileError
    from llamita.files import check_replaceable, check_room

    if path:
        check_room(path, 1 << 20)
        check_replaceable(path)
        if not os.access(path.parent, os.W_OK):
            raise ModelFileError(path, "file", "a folder where you may not write", "another one")


def write_json(path: Path | None, done: dict) -> None:
    """Write all that was found so far, where it is wanted."""
    from llamita.files import atomic_file

    if path:
        with atomic_file(path) as file:
            file.write(f"{json.dumps(done, indent=1)}\n".encode())


def measure(model: str | Path, dtype: str, protocol: "Protocol", peers: list) -> dict:
    """Measure one model, with its files in a folder that does not outlive it."""
    from tempfile import TemporaryDirectory

    from llamita.bench.report import describe_model
    from llamita.bench.rounds import run_rounds
    from llamita.bench.subject import open_subject

    with ended_like_interrupted(), TemporaryDirectory(prefix="llamita-bench-") as folder, progress() as tell:
        subject = open_subject(model, dtype, Path(folder))
        return describe_model(subject, run_rounds(subject, protocol, peers, tell))


@contextmanager
def ended_like_interrupted() -> Iterator[None]:
    """In this block SIGTERM ends us as Ctrl-C does: the files for peers may be large, and must not stay."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """A function that shows what is going on, on one line of a terminal, which is empty again at the end."""
    if not sys.stderr.isatty():
        yield lambda line: None  # noqa: ARG005
        return
    try:
        yield lambda line: click.echo(f"\r\x1b[K{line}", err=True, nl=False)
    finally:
        click.echo("\r\x1b[K", err=True, nl=False)


def show(model: dict) -> None:
    """Print what describe_model found as tables, and its notes on stderr."""
    group = f", groups of {model['group']}" if model["group"] > 1 else ""
    title = f"{model['model']} {model['dtype']}{group}: {model['parameters']:,} parameters, {model['instruction_set']}"
    columns = ("test", "who", "tokens/s", "min", "max", "ratio")
    print_table(title, columns, [row_of(test) for test in model["tests"]])
    print_table("Bytes and seconds", ("what", "value"), [*bandwidth_rows(model["bandwidth"]), *start_rows(model["start"])])
    for note in model["notes"]:
        click.echo(note, err=True)


def row_of(test: dict) -> tuple:
    """One row of the table of tests."""
    rates = [round(test[key]) if test[key] >= 100 else round(test[key], 1) for key in ("median", "min", "max")]
    ratio = "" if test["ratio"] is None else f"{test['ratio']:.2f}x {test['ratio_to']}"
    return test["test"], test["who"], *rates, ratio


def bandwidth_rows(bandwidth: dict) -> list[tuple[str, str]]:
    """What a token costs and how near that comes to reading alone."""
    rows = [
        ("bytes per token: weights, keys, values", f"{bandwidth['bytes_per_token'] / 1e6:,.1f} MB"),
        ("decoding reads", f"{bandwidth['achieved_bytes_per_second'] / 1e9:,.1f} GB/s"),
    ]
    if bandwidth["share"] is not None:
        reads = f"{bandwidth['read_bytes_per_second'] / 1e9:,.1f} GB/s, decoding reaches {bandwidth['share']:.0%}"
        rows.append(("nothing but reading the weights", reads))
    return rows


def start_rows(start: dict | None) -> list[tuple[str, str]]:
    """How soon a fresh process speaks, and what it holds."""
    if start is None:
        return []
    rows = [
        ("fresh process: first token", f"{start['first_byte_seconds']:.2f} s"),
        (f"fresh process: {start['tokens']} tokens", f"{start['whole_seconds']:.2f} s"),
    ]
    if start["tokens_per_second"] is not None:
        rows.append(("fresh process: the speed that it prints", f"{start['tokens_per_second']:,.0f} tokens/s"))
    if start["peak_bytes"] is not None:
        needed = start["weight_bytes"] + start["kv_bytes"]
        rows.append(("fresh process: peak memory", f"{start['peak_bytes'] / 1e6:,.0f} MB"))
        rows.append(("weights + keys and values of the whole context", f"{needed / 1e6:,.0f} MB"))
    return rows
