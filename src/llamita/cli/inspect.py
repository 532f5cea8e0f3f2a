"""`llamita inspect`: what a model file holds and what it costs to run, from its header and the shapes that follow from it.

The file is mapped, and no weight is read.
"""

import json
import math
import re
from typing import TYPE_CHECKING

import click

from llamita.cli import debug_option
from llamita.cli.adapter_option import adapter_option
from llamita.cli.screen import print_table

if TYPE_CHECKING:
    from llamita.model import Model
    from llamita.quant import Tensor

VOCABULARIES = {
    "Llama2cTokenizer": "llama2.c's tokenizer.bin",
    "SentencePieceTokenizer": "sentencepiece",
    "LibraryTokenizer": "Hugging Face's, by the tokenizers library",
}
# quant.Tensor.dtype -> what its data are
STORED_AS = {
    "f32": "float32 weights",
    "f16": "float16 weights",
    "bf16": "bfloat16 weights",
    "q8_0": "int8 weights",
    "q4_0": "pairs of int4 weights",
    "q4_1": "pairs of int4 weights",
}


@click.command("inspect", context_settings={"show_default": True})
@click.argument("model")
@click.option(
    "--context", type=click.IntRange(min=1), default=None, help="Tokens to make room for; else as the model was trained."
)
@adapter_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of tables.")
@debug_option
def command(model: str, context: int | None, adapter: str | None, as_json: bool) -> None:
    """Show what MODEL holds: shapes, parameters, bytes, memory. No weight is read.

    With an adapter also what that changes, and what both together take to run.
    """
    from llamita.errors import SettingError
    from llamita.formats import read_model
    from llamita.language_model import find_model
    from llamita.simd.isa import detect_isa

    opened = read_model(find_model(model))
    context = context or opened.config.context
    if context > opened.config.context:
        raise SettingError(f"context: found {context}, expected 1 to {opened.config.context}, the model's")
    facts = describe(opened, context) | {"instruction_set": detect_isa()}
    if adapter:
        facts |= describe_adapter(opened, read_model(find_model(model), adapter=adapter), adapter, context)
    if as_json:
        click.echo(json.dumps(facts, indent=2))
    else:
        show(facts)


def describe(model: "Model", context: int) -> dict:
    """Everything that inspect knows, as plain numbers and texts."""
    return {
        "path": model.name,
        "format": model.source_format,
        "vocabulary": VOCABULARIES.get(type(model.tokenizer).__name__),
        "config": model.config.to_dict(),
        "parameters": model.config.n_parameters,
        "tensors": shapes_of(model),
        "file": sum_of_the_file(model),
        "memory": memory_for(model, context),
    }


def describe_adapter(base: "Model", changed: "Model", path: str, context: int) -> dict:
    """What inspect knows of an adapter, and of the model with it."""
    from llamita.formats.adapted_model import brings_tokenizer
    from llamita.formats.adapter import adapter_paths, read_adapter

    adapter = read_adapter(path, base.config)
    names = sorted({re.sub(r"^layers\.\d+\.", "", name) for name in [*adapter.pairs, *adapter.whole, *adapter.rows]})
    facts = {
        "path": adapter.name,
        "base": adapter.base,
        "rank": adapter.rank,
        "alpha": adapter.alpha,
        "rslora": adapter.use_rslora,
        "changes": names,
        "parameters": adapter.n_parameters,
        "bytes": sum(file.stat().st_size for file in adapter_paths(path)),
        "vocab_size": changed.config.vocab_size,
        "tokenizer": brings_tokenizer(path),
        "chat_template": changed.chat_template != base.chat_template,
    }
    return {"adapter": facts, "memory": memory_for(changed, context)}


def shapes_of(model: "Model") -> list[dict]:
    """One row per kind of tensor; those of all layers share one row, layers.*."""
    rows: dict[str, dict] = {}
    for name, tensor in model.tensors.items():
        kind = re.sub(r"^layers\.\d+\.", "layers.*.", name)
        empty = {"name": kind, "shape": list(tensor.shape), "stored": tensor.dtype, "group": tensor.group}
        row = rows.setdefault(kind, empty | {"count": 0, "parameters": 0, "bytes": 0})
        row["count"] += 1
        row["parameters"] += math.prod(tensor.shape)
        row["bytes"] += tensor.n_bytes
    return list(rows.values())


def sum_of_the_file(model: "Model") -> list[dict]:
    """What the bytes of the file, or of a folder's weights, are, kind by kind: count times bytes each.

    The last row is what remains: the header, a vocabulary inside, and what a Llama does not need, such as a head that is the
    embedding.
    """
    from llamita.formats import weight_paths

    counts: dict[tuple[str, int], int] = {}
    for tensor in model.tensors.values():
        for what, count, bytes_each in parts_of(tensor):
            counts[what, bytes_each] = counts.get((what, bytes_each), 0) + count
    if model.source_format == "llama2.c v0":
        counts["RoPE tables, which readers skip", 4] = model.config.context * model.config.head_size
    rows = [{"what": what, "count": count, "bytes_each": each, "bytes": count * each} for (what, each), count in counts.items()]
    if paths := weight_paths(model):
        remainder = sum(path.stat().st_size for path in paths) - sum(row["bytes"] for row in rows)
        what = "header" if len(paths) == 1 else f"headers of {len(paths)} files"
        what += ", vocabulary and padding" if model.source_format.startswith("GGUF") else ""
        what += ", optimizer" if model.source_format == "llama2.c checkpoint" else ""
        rows.append({"what": what, "count": remainder, "bytes_each": 1, "bytes": remainder})
    return rows


def parts_of(tensor: "Tensor") -> list[tuple[str, int, int]]:
    """What a tensor consists of: what, how many, and bytes of each; nothing of it is read."""
    from llamita.quant import FLOAT_DTYPES

    kind = "norms" if len(tensor.shape) == 1 else "matrices"
    what = f"{STORED_AS.get(tensor.dtype, f'bytes of {tensor.dtype} blocks')} of {kind}"
    if tensor.dtype in FLOAT_DTYPES:  # whose data may lie in several files, to be joined by whoever asks for them
        n_weights = math.prod(tensor.shape)
        return [(what, n_weights, tensor.n_bytes // n_weights)]
    parts = {
        what: tensor.data,
        f"scales, one per {tensor.group} weights": tensor.scales,
        f"offsets, one per {tensor.group} weights": tensor.offsets,
    }
    return [(name, part.size, part.itemsize) for name, part in parts.items() if part is not None]


def memory_for(model: "Model", context: int) -> dict:
    """Bytes to run the model: its weights, and a key and a value per layer, head and position."""
    weight_bytes, per_token = model.n_bytes, model.cache_bytes_per_token
    return {
        "context_tokens": context,
        "weight_bytes": weight_bytes,
        "kv_bytes_per_token": per_token,
        "kv_bytes": context * per_token,
        "bytes": weight_bytes + context * per_token,
    }


def show(facts: dict) -> None:
    """Print what describe found as tables."""
    from llamita.errors import one_line

    config, memory = facts["config"], facts["memory"]
    vocabulary = facts["vocabulary"] or "none found"
    first = f"{facts['path']}: {facts['format']}, {facts['parameters']:,} parameters, vocabulary: {vocabulary}"
    click.echo(one_line(first))
    print_table("Config", ("field", "value"), list(config.items()))
    shapes = [
        (row["name"], " x ".join(map(str, row["shape"])), row["count"], row["parameters"], row["stored"], row["bytes"])
        for row in facts["tensors"]
    ]
    shapes.append(("together", "", "", facts["parameters"], "", sum(row["bytes"] for row in facts["tensors"])))
    print_table("Tensors", ("name", "shape", "x times", "= parameters", "stored as", "bytes"), shapes)
    sums = [(row["what"], row["count"], row["bytes_each"], row["bytes"]) for row in facts["file"]]
    sums.append(("the file", "", "", sum(row["bytes"] for row in facts["file"])))
    print_table("The file, byte by byte", ("what", "count", "x bytes", "= bytes"), sums)
    if adapter := facts.get("adapter"):
        changes = adapter | {"changes": ", ".join(adapter["changes"])}
        changes |= {name: one_line(str(adapter[name])) for name in ("path", "base")}
        brought = {name: "its own" if adapter[name] else "the model's" for name in ("tokenizer", "chat_template")}
        print_table("Adapter", ("field", "value"), list((changes | brought).items()))
    rows = [
        ("weights", memory["weight_bytes"]),
        (f"keys and values: {memory['context_tokens']:,} tokens x {memory['kv_bytes_per_token']:,}", memory["kv_bytes"]),
        ("together", memory["bytes"]),
    ]
    print_table(f"Memory to run it with a context of {memory['context_tokens']:,} tokens", ("what", "bytes"), rows)
    click.echo(f"\nKernels on this machine: {facts['instruction_set']}")
