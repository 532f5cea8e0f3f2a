"""Hostile adapters beside a sound model, in one folder: their config, the names and shapes of their tensors, the numbers.

What a safetensors file, a pickle or a JSON text may be by itself is in the modules of those.
"""

import json
import struct
from collections.abc import Callable
from math import prod
from pathlib import Path

import numpy as np

from hostile import safetensors
from hostile.case import Case, Files, touched
from llamita.formats import read_model
from llamita.model import Model

CONFIG: dict[str, object] = {
    "base_model_name_or_path": "base",
    "bias": "none",
    "lora_alpha": 4,
    "lora_dropout": 0.1,
    "modules_to_save": None,
    "peft_type": "LORA",
    "r": 2,
    "target_modules": ["q_proj", "down_proj"],
    "task_type": "CAUSAL_LM",
}
Q, DOWN = (f"base_model.model.model.layers.0.{module}" for module in ("self_attn.q_proj", "mlp.down_proj"))
EMBED, HEAD = "base_model.model.model.embed_tokens", "base_model.model.lm_head"
SHAPES: dict[str, list[int]] = {
    f"{Q}.lora_A.weight": [2, 4],
    f"{Q}.lora_B.weight": [4, 2],
    f"{DOWN}.lora_A.weight": [2, 6],
    f"{DOWN}.lora_B.weight": [4, 2],
}
ROWS = f"{EMBED}.token_adapter.trainable_tokens_delta"
NAME, CONFIG_NAME = "adapter_model.safetensors", "adapter_config.json"
LATIN = "é"


def read(folder: Path) -> Model:
    """Read the model of a folder with the adapter that lies there, too, and touch every weight."""
    return touched(read_model(folder, adapter=folder))


def numbers(shapes: dict[str, list[int]], dtype: str = "F32", fill: bytes = b"\0\0\0\0") -> bytes:
    """A file of these tensors, each filled with one number."""
    entries: dict[str, object] = {}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + len(fill) * prod(shape)
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + fill * (end // len(fill))


def files(config: bytes, weights: bytes | None = None, name: str = NAME) -> Files:
    """A sound model with an adapter beside it."""
    beside = {CONFIG_NAME: config, name: numbers(SHAPES) if weights is None else weights}
    return {**safetensors.SOUND["one file"].files(), **beside}


def written(fault: str, field: str, content: Callable[[], bytes]) -> Case:
    """Such a text for a config."""
    return Case(fault, field, lambda: files(content()), ".", read)


def said(fault: str, field: str, **changes: object) -> Case:
    """The sound config with some fields changed; ... takes one out."""
    values = {name: value for name, value in (CONFIG | changes).items() if value is not ...}
    return written(fault, field, lambda: json.dumps(values).encode())


def held(fault: str, field: str, changes: dict[str, list[int] | None], **said: object) -> Case:
    """The sound file with some tensors of other shapes, or, None, without them; and a config that fits."""
    shapes = {name: shape for name, shape in (SHAPES | changes).items() if shape is not None}
    return Case(fault, field, lambda: files(json.dumps(CONFIG | said).encode(), numbers(shapes)), ".", read)


def filled(fault: str, field: str, fill: bytes, dtype: str = "F32") -> Case:
    """The sound file with one number everywhere."""
    return Case(fault, field, lambda: files(json.dumps(CONFIG).encode(), numbers(SHAPES, dtype, fill)), ".", read)


def pattern(fault: str, text: str) -> Case:
    """A pattern of ranks."""
    return said(fault, "rank_pattern: found", rank_pattern={text: 2})


SAVED = {"target_modules": ["q_proj", "down_proj"], "modules_to_save": ["embed_tokens"]}
TOKENS = {"trainable_token_indices": [1, 7]}

SOUND = {
    "an adapter": Case("", "", lambda: files(json.dumps(CONFIG).encode()), ".", read),
    "rows": held("", "", {ROWS: [2, 4]}, **TOKENS),
    "a whole embedding": held("", "", {f"{EMBED}.weight": [7, 4], f"{HEAD}.weight": [7, 4]}),
    "no null": said("", "", modules_to_save=[], rank_pattern=None, alpha_pattern=None, layers_to_transform=[]),
}

CASES = [
    # the text of the config
    written("nothing in it", "file size: found 0 bytes", lambda: b""),
    written("cut off", "content: found", lambda: json.dumps(CONFIG).encode()[:-9]),
    written("a list", r"content: found \[", lambda: json.dumps([CONFIG]).encode()),
    written("a config of a model", "peft_type: found None", lambda: json.dumps(safetensors.CONFIG).encode()),
    written("a kind twice", "content: found the name peft_type", lambda: b'{"peft_type": "IA3", "peft_type": "LORA"}'),
    written("more than a megabyte", "file size", lambda: json.dumps(CONFIG).encode() + b" " * (1 << 20)),
    written("a hundred thousand targets", "content: found 100", lambda: json.dumps(CONFIG | {"t": [0] * 100_000}).encode()),
    written("objects nine thousand deep", "content: found brackets", lambda: b'{"r":' * 9_000),
    written("Latin-1", "content: found 'utf-8'", lambda: f'{{"r": "{LATIN}"}}'.encode("latin-1")),
    # other computations
    said("no kind", "peft_type: found None", peft_type=...),
    said("another kind", "peft_type: found IA3, expected LORA", peft_type="IA3"),
    said("a kind in small letters", "peft_type: found lora", peft_type="lora"),
    said("a kind that is a list", r"peft_type: found \['LORA'\]", peft_type=["LORA"]),
    said("a kind with the escape codes of a terminal", r"peft_type: found \\x1b", peft_type="\x1b[2J"),
    said("a kind of a hundred thousand characters", "peft_type: found xxx", peft_type="x" * 100_000),
    said("DoRA", "use_dora: found True", use_dora=True),
    said("DoRA by a number", "use_dora: found 1", use_dora=1),
    said("biases", "bias: found all", bias="all"),
    said("a bias of B", "lora_bias: found True", lora_bias=True),
    said("weights on their side", "fan_in_fan_out: found True", fan_in_fan_out=True),
    said("layers that are repeated", "layer_replication: found", layer_replication=[[0, 1], [0, 1]]),
    said("parameters instead of modules", "target_parameters: found", target_parameters=["w"]),
    said("PiSSA", "init_lora_weights: found pissa", init_lora_weights="pissa"),
    said("a beginning that is a list", r"init_lora_weights: found \[True\]", init_lora_weights=[True]),
    said("activated LoRA", "alora_invocation_tokens: found", alora_invocation_tokens=[1]),
    # numbers
    said("no rank", "r: found 0, expected a whole number", r=0),
    said("a negative rank", "r: found -2", r=-2),
    said("a rank of 2.0", "r: found 2.0", r=2.0),
    said("a rank that is true", "r: found True", r=True),
    said("a rank of null", "r: found None", r=None),
    said("a rank of a billion", "r: found 1000000000, expected a whole number from 1 to 131072", r=1_000_000_000),
    said("a rank that is a text", "r: found 2", r="2"),
    said("an alpha that is a text", "lora_alpha: found 4", lora_alpha="4"),
    said("an alpha of null", "lora_alpha: found None", lora_alpha=None),
    said("a negative alpha", "lora_alpha: found -4", lora_alpha=-4),
    said("an alpha that float32 cannot hold", "lora_alpha: found 1e\\+300", lora_alpha=1e300),
    written(
        "an alpha of NaN", "content: found the number NaN", lambda: json.dumps(CONFIG | {"lora_alpha": float("nan")}).encode()
    ),
    said("a dropout that is a list", r"lora_dropout: found \[\]", lora_dropout=[]),
    said("a flag that is a text", "use_rslora: found true", use_rslora="true"),
    said("a tie that is a number", "ensure_weight_tying: found 1", ensure_weight_tying=1),
    # names and patterns
    said("targets that are a number", r"target_modules: found \[7\]", target_modules=[7]),
    said("an empty target", r"target_modules: found \[''\]", target_modules=[""]),
    said("excluded modules that are an object", "exclude_modules: found {}", exclude_modules={}),
    said("whole modules that are a text", "modules_to_save: found lm_head", modules_to_save="lm_head"),
    said("layers that are texts", r"layers_to_transform: found \['0'\]", layers_to_transform=["0"]),
    said("a layer twice", r"layers_to_transform: found \[0, 0\]", layers_to_transform=[0, 0]),
    said("ranks that are a list", r"rank_pattern: found \[\]", rank_pattern=[]),
    said("a rank of zero of one module", "rank_pattern of q_proj: found 0", rank_pattern={"q_proj": 0}),
    said("an alpha of null of one module", "alpha_pattern of q_proj: found None", alpha_pattern={"q_proj": None}),
    said("twenty thousand ranks", "rank_pattern: found {", rank_pattern={f"m{i}": 2 for i in range(20_000)}),
    said("a hundred patterns", "rank_pattern: found 100 patterns", rank_pattern={f"m{i}.*": 2 for i in range(100)}),
    pattern("a pattern that takes ages", "(.*.*)*x"),
    pattern("another pattern that takes ages", ".*.*.*.*.*.*x"),
    pattern("choices that take ages", "(m|m)(o|o)(d|d)(e|e)(l|l)(.|.)(l|l)(a|a)(y|y)(e|e)(r|r)x"),
    pattern("a repeated group", "(q|q_proj)+"),
    pattern("a group that nobody closes", "(q_proj"),
    pattern("a pattern that looks back", r"(q)\1"),
    pattern("a pattern with a condition", "(?=q)q_proj"),
    pattern("a pattern that counts", "q{1,1000}"),
    pattern("a set inside a set", "[[a]"),
    pattern("a pattern of ten thousand characters", ".*" + "q" * 10_000),
    said("tokens that are a text", "trainable_token_indices of embed_tokens: found 1", trainable_token_indices="1"),
    said("a negative token", "trainable_token_indices of embed_tokens: found", trainable_token_indices=[-1]),
    said(
        "a token beyond any vocabulary",
        "trainable_token_indices of lm_head: found",
        trainable_token_indices={"lm_head": [1 << 40]},
    ),
    said("a token twice", "trainable_token_indices of embed_tokens: found", trainable_token_indices=[1, 1]),
    said("a token that is true", "trainable_token_indices of embed_tokens: found", trainable_token_indices=[True]),
    # what the file has, and what the config promises
    said("targets that are not there", "tensors: found no .*v_proj.lora_A", target_modules=["q_proj", "down_proj", "v_proj"]),
    said("tensors that are no targets", "tensors: found .*down_proj.lora_A.weight, expected only", target_modules=["q_proj"]),
    said("a whole module that is not there", f"tensors: found no {EMBED}.weight, expected one, as modules_to", **SAVED),
    said("rows that are not there", f"tensors: found no {ROWS}", **TOKENS),
    said("another rank", r"shape of .*q_proj.lora_B.weight: found \(4, 2\), expected \(4, 3\)", r=3),
    said("another rank of one module", r"shape of .*down_proj.lora_B", rank_pattern={"down_proj": 1}),
    held("no tensors", "tensors: found no", dict.fromkeys(SHAPES)),
    held("no tensors, and none wanted", "tensors: found none", dict.fromkeys(SHAPES), target_modules=[]),
    held(
        "an A without its B",
        "tensors: found no .*q_proj.lora_B.weight, expected one, as the other",
        {f"{Q}.lora_B.weight": None},
    ),
    held(
        "a B without its A",
        "tensors: found no .*q_proj.lora_A.weight, expected one, as the other",
        {f"{Q}.lora_A.weight": None},
    ),
    held(
        "a layer that the model has not",
        "tensors: found .*layers.1.*Llama of 1 layers",
        {Q.replace(".0.", ".1.") + ".lora_A.weight": [2, 4]},
    ),
    held("a layer under another number", "tensors: found .*layers.00.", {Q.replace(".0.", ".00.") + ".lora_A.weight": [2, 4]}),
    held("a magnitude of DoRA", "tensors: found .*magnitude", {f"{Q}.lora_magnitude_vector": [4]}),
    held("a bias", "tensors: found .*lora_B.bias", {f"{Q}.lora_B.bias": [4]}),
    held("a name with the adapter's in it", "tensors: found .*lora_A.default", {f"{Q}.lora_A.default.weight": [2, 4]}),
    held("a name without the prefix", "tensors: found layers.0", {"layers.0.self_attn.q_proj.lora_A.weight": [2, 4]}),
    held("a tensor without a name", "tensors: found , expected", {"": [1]}),
    held("LoRA of a norm", "tensors: found .*norm.lora_A", {"base_model.model.model.norm.lora_A.weight": [2, 4]}),
    held("an embedding that is multiplied", "tensors: found .*embed_tokens.lora_A", {f"{EMBED}.lora_A.weight": [2, 4]}),
    held("a matrix that is looked up", "tensors: found .*q_proj.lora_embedding_A", {f"{Q}.lora_embedding_A": [2, 4]}),
    held("rows of a matrix", "tensors: found .*q_proj.token_adapter", {f"{Q}.token_adapter.trainable_tokens_delta": [2, 4]}),
    held(
        "a whole matrix that nobody names",
        "tensors: found .*q_proj.weight, expected only those that modules",
        {f"{Q}.weight": [4, 4]},
    ),
    held("rows that nobody names", "tensors: found .*delta, expected only those that trainable", {ROWS: [2, 4]}),
    # shapes
    held(
        "an A of another width",
        r"shape of .*q_proj.lora_A.weight: found \(2, 8\), expected \(2, 4\)",
        {f"{Q}.lora_A.weight": [2, 8]},
    ),
    held("an A on its side", r"shape of .*q_proj.lora_A.weight: found \(4, 2\)", {f"{Q}.lora_A.weight": [4, 2]}),
    held("an A of no rows", r"shape of .*q_proj.lora_A.weight: found \(0, 4\)", {f"{Q}.lora_A.weight": [0, 4]}),
    held("an A of one axis", r"shape of .*q_proj.lora_A.weight: found \(8,\)", {f"{Q}.lora_A.weight": [8]}),
    held("an A of no axis", r"shape of .*q_proj.lora_A.weight: found \(\)", {f"{Q}.lora_A.weight": []}),
    held("a B of more rows", r"shape of .*down_proj.lora_B.weight: found \(6, 2\)", {f"{DOWN}.lora_B.weight": [6, 2]}),
    held("rows of another width", r"shape of .*delta: found \(2, 3\), expected \(2, 4\)", {ROWS: [2, 3]}, **TOKENS),
    held("a row for each of another token", r"shape of .*delta: found \(3, 4\)", {ROWS: [3, 4]}, **TOKENS),
    held(
        "an embedding with fewer rows",
        r"shape of .*embed_tokens.weight: found \(3, 4\), expected \(5, 4\)",
        {f"{EMBED}.weight": [3, 4]},
    ),
    held("an embedding without an axis", r"shape of .*embed_tokens.weight: found \(\)", {f"{EMBED}.weight": []}),
    held("an embedding of another width", r"shape of .*embed_tokens.weight: found \(5, 6\)", {f"{EMBED}.weight": [5, 6]}),
    # numbers
    filled("weights that are no numbers", f"{Q}.lora_B.weight: found a number that is infinite", struct.pack("<f", np.nan)),
    filled("infinite weights", f"{Q}.lora_B.weight: found a number that is infinite", struct.pack("<f", np.inf)),
    filled("infinite weights in half precision", f"{Q}.lora_B.weight: found a number", struct.pack("<e", np.inf), "F16"),
    filled("infinite weights in bfloat16", f"{Q}.lora_B.weight: found a number", b"\x80\x7f", "BF16"),
    filled("a product that overflows", "with it, layers.0.attention.query of", struct.pack("<f", 1e30)),
    filled("weights that are integers", "dtype of .*: found I64", bytes(8), "I64"),
    # other files
    Case("weights of nothing", "file size: found 0 bytes", lambda: files(json.dumps(CONFIG).encode(), b""), ".", read),
    Case(
        "a pickle of something else",
        "end of the zip file: found",
        lambda: files(json.dumps(CONFIG).encode(), b"PK\3\4" + bytes(60), "adapter_model.bin"),
        ".",
        read,
    ),
    Case(
        "weights under another name",
        "file: found No such file",
        lambda: files(json.dumps(CONFIG).encode(), b"x", "a.bin"),
        ".",
        read,
    ),
]
