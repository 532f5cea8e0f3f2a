"""`llamita export`: a model in another format, and how near it stays to the source. Flags and tables only.

What a format holds is in formats/writing.py, what must not be overwritten in formats/target.py, how to compare in fidelity.py.
"""

import json
import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from llamita.cli import debug_option
from llamita.cli.adapter_option import adapter_option
from llamita.cli.screen import print_table

if TYPE_CHECKING:
    from llamita.model import Model
    from llamita.tokenizer import Tokenizer

FORMATS = ("llama2c-v0", "llama2c-v1", "llama2c-v2", "safetensors", "gguf")
DTYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1")
VERSIONS = {"-1": "safetensors", "0": "llama2c-v0", "1": "llama2c-v1", "2": "llama2c-v2"}  # as llama2.c's export.py has them
STATES = {
    "written": "made of the model's",
    "there already": "which was there already",
    "another": "which is another one and stays; name the model's own with -z",
}
LONGEST_TEXT_BYTES = 1 << 20


@click.command("export")
@click.argument("source", metavar="IN")
@click.argument("target", metavar="OUT")
@click.option(
    "--to",
    type=click.Choice(FORMATS),
    default=None,
    help="The format; else as OUT is named: NAME.bin llama2c-v0 (v2 with --dtype q8_0), NAME.gguf, a folder: safetensors.",
)
@click.option("--version", type=click.Choice(list(VERSIONS)), default=None, help="The same in llama2.c's numbers.")
@click.option(
    "--dtype",
    type=click.Choice(DTYPES),
    default=None,
    help="Of the matrices: f32 in llama2c-v0 and -v1, q8_0 in -v2; f32, f16 or bf16 in safetensors; any in gguf. Else IN's own "
    "where the format has it, or f32.",
)
@click.option("-z", "--tokenizer", metavar="PATH", default=None, help="The tokenizer to go with it; else the one beside IN.")
@adapter_option
@click.option("--verify", is_flag=True, help="Read OUT back and compare it with IN on real text; exit 1 past a bound.")
@click.option("--verify-text", metavar="FILE", default=None, help="A text for it; else tales that come with llamita.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of lines and a table.")
@debug_option
def command(
    source: str,
    target: str,
    to: str | None,
    version: str | None,
    dtype: str | None,
    tokenizer: str | None,
    adapter: str | None,
    verify: bool,
    verify_text: str | None,
    as_json: bool,
) -> None:
    """Write the model IN (a file, a folder or a bundled name) to OUT in another format.

    A folder gets the tokenizer too, a GGUF file holds it, and beside a llama2.c file goes a tokenizer.bin, unless there is one.
    OUT is replaced when all is written.

    \b
        llamita export /path/to/7B-chat llama2_7b_chat.bin
        llamita export stories15M.bin stories15M.gguf --dtype q8_0 --verify
        llamita export my_model merged.gguf --adapter my_adapter
    """
    from llamita.errors import ModelError, one_line
    from llamita.formats import read_model
    from llamita.formats.target import format_of
    from llamita.formats.writing import check_dtype
    from llamita.language_model import find_model

    if to and version:
        raise click.UsageError("--version: found it beside --to, expected one of the two")
    to = to or (VERSIONS[version] if version else format_of(target, dtype))
    check_dtype(to, dtype)
    model = read_model(find_model(source), tokenizer, adapter=adapter)
    text = text_for(model, verify_text) if verify or verify_text else None
    named = [Path(path) for path in (tokenizer, verify_text) if path]
    facts = write(model, Path(target), to, dtype, adapter, named)
    if not as_json:
        show(facts)
    complaints = []
    if text is not None:
        facts["verify"] = compare(model, Path(target), text)
        complaints = facts["verify"]["complaints"]
        if not as_json:
            show_comparison(facts["verify"])
    if as_json:
        click.echo(as_object(facts))
    if complaints:
        raise ModelError(one_line(f"{target}: {'; '.join(complaints)}"))


def write(model: "Model", path: Path, to: str, dtype: str | None, adapter: str | None, named: list[Path]) -> dict:
    """Write the model and, beside a llama2.c file, its tokenizer; return what there is now. named: what else is read."""
    from llamita.cli.progress import counted
    from llamita.formats import weight_paths, write_model
    from llamita.formats.target import check_target, source_paths
    from llamita.formats.writing import default_dtype, expected_bytes

    dtype = dtype or default_dtype(model, to)
    check_target(path, to, weight_paths(model), [*source_paths(model, adapter), *named])
    started = time.monotonic()
    with counted("writing", expected_bytes(model, to, dtype)) as progress:
        write_model(model, path, to, dtype=dtype, progress=progress)
    seconds = time.monotonic() - started
    n_bytes = sum(file.stat().st_size for file in path.iterdir()) if path.is_dir() else path.stat().st_size
    dtypes = dtype or ", ".join(sorted({tensor.dtype for tensor in model.tensors.values() if len(tensor.shape) == 2}))
    facts = {"path": str(path), "format": to, "dtype": dtypes, "bytes": n_bytes, "seconds": round(seconds, 3)}
    return facts | {"tokenizer": write_tokenizer(model, path, to), "verify": None}


def write_tokenizer(model: "Model", path: Path, to: str) -> str:
    """Where the tokenizer is now, in words."""
    from llamita.errors import TokenizerError
    from llamita.formats.target import write_tokenizer_beside

    if model.tokenizer is None:
        return "none found beside the model; name one with -z"
    if not to.startswith("llama2c"):
        return f"in {path}"
    try:
        beside, state = write_tokenizer_beside(cast("Tokenizer", model.tokenizer), path)
    except TokenizerError as refusal:
        return f"no tokenizer.bin, as it cannot hold this one: {refusal}"
    return f"{beside}, {STATES[state]}{left_behind(model)}"


def left_behind(model: "Model") -> str:
    """What of a chat model only llamita still knows from a llama2.c file, or nobody."""
    from llamita.tokenizer.llama2c import BOS_ID, EOS_ID, UNK_ID

    special = cast("Tokenizer", model.tokenizer).special_tokens
    marks = [text for text, token_id in special.items() if token_id not in (UNK_ID, BOS_ID, EOS_ID)]
    lines = [f"llama2.c's run takes {', '.join(marks[:3])} for text"] if marks else []
    lines += ["the chat template has no place there: name it with --template"] if model.chat_template else []
    return "".join(f"; {line}" for line in lines)


def text_for(model: "Model", path: str | None) -> str:
    """The text to verify with; raises ModelError where there is no tokenizer that could read it."""
    from llamita.errors import ModelError, one_line
    from llamita.files import read_file
    from llamita.language_model import BUNDLED

    if model.tokenizer is None:
        raise ModelError(one_line(f"{model.name}: --verify needs a tokenizer, found none beside the model; name one with -z"))
    return read_file(path or BUNDLED / "tales.txt", LONGEST_TEXT_BYTES).decode(errors="replace")


def compare(model: "Model", path: Path, text: str) -> dict:
    """Read back what was written and compare it with the source: numbers, bounds, and what is wrong with it."""
    from llamita.cli.progress import counted
    from llamita.fidelity import BOUNDS, beyond, coarsest_change, measure, split
    from llamita.formats import read_model

    tokenizer = cast("Tokenizer", model.tokenizer)
    ids = tokenizer.encode(text)
    windows = split(ids, [tokenizer.bos_id] if tokenizer.adds_bos else [], model)
    written = read_model(path)
    with counted("comparing", 2 * sum(map(len, windows)), in_bytes=False) as progress:
        found = measure(model, written, windows, progress)
    kind = coarsest_change(model, written)
    complaints = beyond(found, BOUNDS[kind])
    if written.tokenizer is None and is_another(path):
        complaints.append("tokenizer: found another model's beside it, expected that of the source")
    if written.tokenizer is not None and cast("Tokenizer", written.tokenizer).encode(text) != ids:
        complaints.append("tokenizer: found other ids for this text, expected those of the source")
    return found.to_dict() | {"bounds": asdict(BOUNDS[kind]) | {"dtype": kind}, "complaints": complaints}


def is_another(path: Path) -> bool:
    """Whether a tokenizer lies beside a file that found none which fits it."""
    return path.is_file() and (path.parent / "tokenizer.bin").exists()


def as_object(facts: dict) -> str:
    """JSON, which has no NaN: null stands for it."""
    verify = facts["verify"] and {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in facts["verify"].items()
    }
    return json.dumps(facts | {"verify": verify}, indent=2)


def show(facts: dict) -> None:
    """Print what was written."""
    from llamita.errors import one_line

    what = f"{facts['format']}, {facts['dtype']}, {facts['bytes']:,} bytes in {facts['seconds']:.1f} s"
    click.echo(one_line(f"{facts['path']}: {what}"))
    click.echo(one_line(f"tokenizer: {facts['tokenizer']}"))


def show_comparison(found: dict) -> None:
    """Print what compare found as a table."""
    bounds = found["bounds"]
    rows = [
        ("largest difference of a logit", f"{found['logit_difference']:.2g}", f"{bounds['logit_difference']:g}"),
        ("mean KL divergence, nats", f"{found['kl_divergence']:.2g}", f"{bounds['kl_divergence']:g}"),
        ("top-1 agreement", f"{found['top1_agreement']:.2%}", f"{bounds['top1_agreement']:.1%}"),
        ("cross entropy of the source, nats", f"{found['source_cross_entropy']:.4f}", ""),
        ("cross entropy of what was written", f"{found['cross_entropy']:.4f}", ""),
        ("change of it", f"{found['cross_entropy_change']:+.4f}", f"{bounds['cross_entropy_change']:g}"),
    ]
    title = f"Read back and compared with the source on {found['n_tokens']:,} tokens; bounds of {bounds['dtype']}"
    print_table(title, ("what", "found", "bound"), rows)
