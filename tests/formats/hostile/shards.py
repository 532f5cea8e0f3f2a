"""Hostile folders of shards: an index that leads out of the folder, lies about its shards, or lists what is not there."""

import json
from collections.abc import Callable

from hostile.case import Case
from hostile.safetensors import CONFIG, GATE, NORM, SHAPES, file, header

INDEX = "model.safetensors.index.json"
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
NAMES = {FIRST: list(SHAPES)[:5], SECOND: list(SHAPES)[5:]}
WEIGHT_MAP = {name: shard for shard, names in NAMES.items() for name in names}


def shard(name: str, also: str = "") -> bytes:
    """The first or the second shard, with one tensor more."""
    names = NAMES[name] + [also] * bool(also)
    entries = header(names)
    n_bytes = entries[names[-1]]["data_offsets"][1]  # pyright: ignore[reportIndexIssue]
    return file(entries, n_bytes)


def case(fault: str, field: str, index: Callable[[], bytes], shards: Callable[[], dict[str, bytes]] = dict) -> Case:
    """A folder with this index, and the sound shards but for those given; b"" takes one away."""

    def files() -> dict[str, bytes]:
        contents = {FIRST: shard(FIRST), SECOND: shard(SECOND), "config.json": json.dumps(CONFIG).encode(), INDEX: index()}
        return {name: content for name, content in (contents | shards()).items() if content or name == INDEX}

    return Case(fault, field, files, ".")


def index(weight_map: object = None, **more: object) -> bytes:
    return json.dumps({"weight_map": WEIGHT_MAP if weight_map is None else weight_map, **more}).encode()


def place(shard_name: object, tensor: str = NORM) -> Callable[[], bytes]:
    """An index in which one tensor lies in a shard of this name."""
    return lambda: index(WEIGHT_MAP | {tensor: shard_name})


def renamed(name: str) -> Case:
    """An index that calls the second shard so: a name that is not to be followed, whatever lies there."""
    return case(
        f"a shard called {name.encode('unicode_escape').decode()}",
        "weight_map of",
        lambda: index({tensor: name if shard == SECOND else shard for tensor, shard in WEIGHT_MAP.items()}),
    )


SOUND = {"two shards": case("", "", index)}

CASES = [
    case("nothing in it", "file size: found 0 bytes", lambda: b""),
    case("an index cut off", "content: found", lambda: index()[:-30]),
    case("an index that is a list", "content: found", lambda: json.dumps([WEIGHT_MAP]).encode()),
    case("an index without a map", "weight_map: found None", lambda: b'{"metadata": {"total_size": 436}}'),
    case("a map that is a list", r"weight_map: found \[", lambda: index(list(WEIGHT_MAP))),
    case("a map that is a text", "weight_map: found model", lambda: index(FIRST)),
    case("an empty map", "weight_map: found {}", lambda: index({})),
    case("a tensor's name twice", "content: found the name", lambda: index().replace(GATE.encode(), NORM.encode())),
    case("an index of more than a megabyte", "file size", lambda: index(padding="x" * (1 << 20))),
    case("seventy thousand tensors", "content: found", lambda: index(dict.fromkeys(range(70_000), "a"))),
    case("a shard that is a number", f"weight_map of {NORM}: found 2", place(2)),
    case("a shard that is null", f"weight_map of {NORM}: found None", place(None)),
    case("a shard that is a list of shards", f"weight_map of {NORM}", place([FIRST, SECOND])),
    case("a shard that is an object", f"weight_map of {NORM}", place({"name": SECOND})),
    *map(
        renamed,
        [
            "",
            ".",
            "..",
            "../model.safetensors",
            "../../../../etc/shadow.safetensors",
            "/etc/passwd",
            "/tmp/model.safetensors",
            "sub/model.safetensors",
            "./model-00002-of-00002.safetensors",
            "sub/../model-00002-of-00002.safetensors",
            "..\\model.safetensors",
            "C:\\model.safetensors",
            "C:model.safetensors",
            "\\\\server\\share\\model.safetensors",
            "file:///model.safetensors",
            "https://example.com/model.safetensors",
            "model.safetensors\0.txt",
            "model\n.safetensors",
            "model\x1b[2J.safetensors",
            "pytorch_model-00002-of-00002.bin",
            "config.json",
            "model.safetensors.index.json",
            "model-00002-of-00002.SAFETENSORS",
        ],
    ),
    case("a shard called by half a character", "content: found 'utf-8'", place("model\ud800.safetensors")),
    case("a shard with a name too long for a file", "file: found", place("a" * 5000 + ".safetensors")),
    case("a shard that is missing", "file: found", index, lambda: {SECOND: b""}),
    case("a third shard that is missing", "file: found", place("model-00000-of-00003.safetensors")),
    case("a shard that is a folder", "file: found a folder", index, lambda: {SECOND: b"", f"{SECOND}/model.bin": b"\0"}),
    case("a shard that is cut off", "file size.*cut off", index, lambda: {SECOND: shard(SECOND)[:-1]}),
    case("a shard of nothing but its header", "file size.*cut off", index, lambda: {FIRST: file(header(NAMES[FIRST]), 0)}),
    case("a shard that is an index", "header length", index, lambda: {FIRST: index()}),
    case("the first shard twice", "tensors: found", index, lambda: {SECOND: shard(FIRST)}),
    case("the shards exchanged", "tensors: found", index, lambda: {FIRST: shard(SECOND), SECOND: shard(FIRST)}),
    case("a tensor that the index puts into the other shard", "tensors: found", place(FIRST)),
    case(
        "a tensor in both shards",
        f"tensors: found {NORM}, which lies there unlisted",
        index,
        lambda: {FIRST: shard(FIRST, NORM)},
    ),
    case("a tensor that no shard has", "tensors: found model.extra", lambda: index(WEIGHT_MAP | {"model.extra": FIRST})),
    case(
        "a tensor that the index leaves out",
        f"tensors: found {NORM}, which lies there unlisted",
        lambda: index({name: shard for name, shard in WEIGHT_MAP.items() if name != NORM}),
    ),
]
