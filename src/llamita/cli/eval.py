"""`llamita eval`: a model through tasks of EleutherAI's lm-evaluation-harness. Flags in, its table out; judge/ does it."""

import os
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llamita.cli import debug_option
from llamita.cli.sampling_options import engine_options
from llamita.cli.template_option import template_option, template_source

if TYPE_CHECKING:
    from llamita.judge.harness import HarnessModel

LARGEST_SEED = (1 << 32) - 1  # numpy's


@click.command("eval", context_settings={"show_default": True})
@click.argument("model", default="stories")
@click.option(
    "--tasks", metavar="NAME,...", multiple=True, required=True,
    help="Tasks, groups or tags of the harness or of --include-path, or files of tasks; may be repeated; list: names all.",
)  # fmt: skip
@click.option(
    "--include-path", metavar="FOLDER", type=click.Path(path_type=Path), default=None, help="Tasks of your own, NAME.yaml."
)
@click.option(
    "--num-fewshot", metavar="N", type=click.IntRange(min=0), default=None,
    help="Examples before each question; else as the task says.",
)  # fmt: skip
@click.option(
    "--limit", metavar="N", type=float, default=None, help="The first N documents of each task; below 1: this share of them."
)
@click.option("--batch", type=click.IntRange(1, 256), default=8, help="Texts that are read or written at once.")
@click.option("--apply-chat-template", is_flag=True, help="Ask as in a talk, in the model's chat template.")
@template_option("With --apply-chat-template: the")
@click.option("--system-instruction", metavar="TEXT", default=None, help="A system prompt for every question.")
@click.option(
    "--gen-kwargs", metavar="KEY=VALUE,...", default=None,
    help="How answers are written, in place of what tasks say: max_gen_toks, do_sample, temperature, top_p, top_k, min_p.",
)  # fmt: skip
@click.option(
    "--seed", type=click.IntRange(0, LARGEST_SEED), default=None, help="Of examples and of sampling; else the harness's own."
)
@click.option(
    "--output", metavar="PATH", type=click.Path(dir_okay=False, path_type=Path), default=None,
    help="Write the harness's results as JSON.",
)  # fmt: skip
@click.option("--log-samples", is_flag=True, help="With --output: each request and reply, too.")
@click.option("--json", "as_json", is_flag=True, help="The results as JSON instead of a table.")
@click.option("--confirm-run-unsafe-code", is_flag=True, help="Let tasks run code that the model writes, on this machine.")
@click.option("-z", "--tokenizer", metavar="PATH", default=None, help="The model's tokenizer; else the one beside it.")
@engine_options
@debug_option
def command(model: str, tasks: tuple[str, ...], as_json: bool, output: Path | None, **flags) -> None:
    """Evaluate MODEL (a file, a folder or the name of a bundled model) on tasks of lm-evaluation-harness.

    Needs the extra: pip install "llamita[eval]". Tasks are programs: those of --include-path may run any code.

    \b
        llamita eval smollm2 --tasks hellaswag,arc_easy --limit 100 --output results.json
        llamita eval my_model --tasks my_task --include-path tasks/
    """
    prepare_harness()
    names = tuple(name for given in tasks for name in given.split(",") if name)
    if names == ("list",):
        list_tasks(flags["include_path"])
        return
    if flags["log_samples"] and output is None:
        raise click.UsageError("--log-samples: found it without --output, expected a file to write them to")
    if flags["template"] and not flags["apply_chat_template"]:
        raise click.UsageError("--template: found it without --apply-chat-template, expected both")
    check_output(output)
    results = run(model, names, flags)
    if output is not None:
        write_json(output, results)
    results.pop("samples", None)
    show(results, as_json)


def run(path: str, names: tuple[str, ...], flags: Mapping[str, Any]) -> dict[str, Any]:
    """The harness's results for a model."""
    from llamita.judge.evaluation import Evaluation, evaluate

    settings = Evaluation(
        tasks=names,
        include_path=flags["include_path"],
        num_fewshot=flags["num_fewshot"],
        limit=flags["limit"],
        apply_chat_template=flags["apply_chat_template"],
        system_instruction=flags["system_instruction"],
        gen_kwargs=flags["gen_kwargs"],
        seed=flags["seed"],
        allow_code=flags["confirm_run_unsafe_code"],
        log_samples=flags["log_samples"],
    ).validate()
    return evaluate(open_model(path, flags), settings)


def open_model(path: str, flags: Mapping[str, Any]) -> "HarnessModel":
    """The model as the harness asks it, which shows how far it is."""
    from llamita.cli.progress import counted
    from llamita.judge.harness import HarnessModel

    return HarnessModel(
        path,
        tokenizer=flags["tokenizer"],
        dtype=flags["dtype"],
        threads=flags["threads"],
        max_length=flags["context"],
        batch_size=flags["batch"],
        template=template_source(flags["template"]),
        counted=lambda title, total: counted(title, total, in_bytes=False),
    )


def prepare_harness() -> None:
    """Set what the harness and its libraries look at when they are loaded; raise SettingError where they are not installed."""
    from llamita.errors import SettingError

    if find_spec("lm_eval") is None:
        raise SettingError('found no lm_eval, which tasks come with: pip install "llamita[eval]"')
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # it forks
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")


def list_tasks(include_path: Path | None) -> None:
    """Print every name that --tasks takes, and whether it is a task, a group or a tag."""
    from llamita.judge.evaluation import task_names

    click.echo("".join(f"{name}\t{kind}\n" for name, kind in task_names(include_path)), nl=False)


def check_output(path: Path | None) -> None:
    """Raise SettingError for a file that could not be written: that shall not show after minutes."""
    from llamita.errors import SettingError

    if path is not None and not os.access(path.parent, os.W_OK):
        raise SettingError(f"output: found no folder {path.parent} to write to, expected one")


def write_json(path: Path, results: dict[str, Any]) -> None:
    """Write the results, whole or not at all."""
    from llamita.files import atomic_file
    from llamita.judge.evaluation import as_json

    with atomic_file(path) as file:
        file.write(as_json(results).encode() + b"\n")


def show(results: dict[str, Any], in_json: bool) -> None:
    """Print the results."""
    from llamita.judge.evaluation import as_json, as_table

    click.echo(as_json(results) + "\n" if in_json else as_table(results), nl=False)
