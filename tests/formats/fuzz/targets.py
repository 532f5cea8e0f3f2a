"""What is fuzzed: for each format a few sound models or tokenizers, which of their files is damaged, and how they are read.

The files come from the corpus and the hand-made builders of the tests, so that they share no code with the readers.
"""

import json
import random
from base64 import b64encode
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from fuzz import layouts
from fuzz.json_damage import damaged_json
from fuzz.spans import Layout, damaged, damaged_bytes
from gguf import GGML_QUANT_SIZES
from hostile import (
    adapters,
    gguf_models,
    llama2c,
    meta_folders,
    piece_lists,
    safetensors,
    sentencepiece,
    shards,
    tokenizer_json,
    torch_layout,
)
from hostile.case import Case, Files, read_vocabulary, read_whole_model

import gguf_bytes as hand
from llamita.errors import LlamitaError
from torch_files import Opcodes, call, pickled, storage, tensor, value, wrapped

BLIND = 0.1  # how often a file is damaged without regard to its layout
TEXT = "Once upon a time 日本 😀\n\n  <s>ab</s> 12345"


@dataclass(frozen=True)
class Seed:
    """Sound files, the one of them that is damaged, and the function that damages it."""

    files: Files
    damaged_name: str
    damage: Callable[[random.Random], bytes]


@dataclass(frozen=True)
class Target:
    """A format: its name and seeds, what is opened ("." for the folder), and the reader."""

    name: str
    seeds: tuple[Seed, ...]
    opened: str
    read: Callable[[Path], object]

    def damaged(self, seed: int, number: int) -> tuple[int, bytes]:
        """Which of the seeds is damaged in the file of this number, and the damaged content: the same ones for ever."""
        rng = random.Random(f"{self.name} {seed} {number}")
        index = rng.randrange(len(self.seeds))
        chosen, other = self.seeds[index], rng.choice(self.seeds)
        if rng.random() < BLIND:
            return index, damaged_bytes(chosen.files[chosen.damaged_name], rng, other.files[other.damaged_name])
        return index, chosen.damage(rng)


def read_and_use_tokenizer(path: Path) -> None:
    """Read a tokenizer, then encode a text, as far as the vocabulary can, and decode what came out."""
    tokenizer = read_vocabulary(path)
    try:
        ids = tokenizer.encode(TEXT) + tokenizer.encode_marked(TEXT) + tokenizer.encode(TEXT, bos=True)
        assert all(0 <= token_id < tokenizer.vocab_size for token_id in ids)
        tokenizer.decode(ids)
    except LlamitaError as error:
        if has_panicked(error):
            raise AssertionError("the library panicked") from error


def has_panicked(error: BaseException | None) -> bool:
    """Whether a library in Rust panicked somewhere below: caught or not, it writes a page to stderr."""
    while error is not None and type(error).__name__ != "PanicException":
        error = error.__context__
    return error is not None


def targets() -> list[Target]:
    """All formats."""
    return [
        _models("llama2c", "model.bin", llama2c.SOUND.values(), layouts.llama2c_model),
        Target("safetensors", (_safetensors(),), ".", read_whole_model),
        Target("huggingface", tuple(_huggingface()), ".", read_whole_model),
        Target("adapter", tuple(_adapters()), ".", adapters.read),
        Target("gguf", (*map(_gguf, _gguf_files()), *_gguf_shards()), ".", read_whole_model),
        _models("zip", "ckpt.pt", [_checkpoint()], layouts.zip_file),
        Target("pickle", tuple(_pickles()), "ckpt.pt", read_whole_model),
        Target("meta", tuple(_meta()), ".", read_whole_model),
        _tokenizers("tokenizer.bin", "tokenizer.bin", [piece_lists.SOUND["tokenizer.bin"]], layouts.llama2c_tokenizer),
        _tokenizers("sentencepiece", "tokenizer.model", _sentencepiece(), layouts.sentencepiece_model),
        Target("tiktoken", (_tiktoken(),), "tokenizer.model", read_and_use_tokenizer),
        Target("tokenizer.json", tuple(_tokenizer_json()), "tokenizer.json", read_and_use_tokenizer),
    ]


def find_target(name: str) -> Target:
    """The format of this name."""
    return next(target for target in targets() if target.name == name)


def _seed(name: str, case: Case, parse: Callable[[bytes], Layout]) -> Seed:
    """The only file of a case, damaged by its layout."""
    content = next(iter(case.files().values()))
    layout = parse(content)
    return Seed({name: content}, name, lambda rng: damaged(layout, rng))


def _models(name: str, file_name: str, sound: Iterable[Case], parse: Callable[[bytes], Layout]) -> Target:
    return Target(name, tuple(_seed(file_name, case, parse) for case in sound), file_name, read_whole_model)


def _tokenizers(name: str, file_name: str, sound: Iterable[Case], parse: Callable[[bytes], Layout]) -> Target:
    return Target(name, tuple(_seed(file_name, case, parse) for case in sound), file_name, read_and_use_tokenizer)


def _json(files: Files, name: str) -> Seed:
    return Seed(files, name, lambda rng: damaged_json(files[name], rng))


def _safetensors() -> Seed:
    """The header is damaged as JSON, and its length is that of what comes out."""
    header = json.dumps(safetensors.header()).encode()

    def damage(rng: random.Random) -> bytes:
        return safetensors.file(damaged_json(header, rng))

    return Seed(safetensors.SOUND["one file"].files(), "model.safetensors", damage)


def _huggingface() -> list[Seed]:
    """A folder with all that may lie in it, each file damaged in turn; and an index of shards."""
    ends = {"bos_token": "a", "eos_token": {"content": "b"}, "add_bos_token": True, "chat_template": "{{ x }}"}
    beside = {
        "generation_config.json": b'{"bos_token_id": 1, "eos_token_id": [2, 3]}',
        "tokenizer_config.json": json.dumps(ends).encode(),
        "special_tokens_map.json": b'{"bos_token": "a", "unk_token": "b"}',
        "tokenizer.json": json.dumps(tokenizer_json.CONTENT).encode(),
    }
    scaling: Mapping[str, object] = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    scaling = {**scaling, "original_max_position_embeddings": 16, "rope_theta": 5e5}
    more = {"rms_norm_eps": 1e-5, "head_dim": 2, "bos_token_id": 1, "eos_token_id": [2]}
    scaled = safetensors.CONFIG | more | {"rope_parameters": scaling}
    files = {**safetensors.SOUND["one file"].files(), **beside, "config.json": json.dumps(scaled).encode()}
    index = _json(shards.SOUND["two shards"].files(), shards.INDEX)
    return [*(_json(files, name) for name in ("config.json", *beside)), index]


def _adapters() -> list[Seed]:
    """A model with an adapter beside it: in turn what the config says and what the header of its weights does are damaged."""
    more = {"rank_pattern": {"down_proj": 2, ".*k_proj": 4}, "alpha_pattern": {"layers.0.self_attn.q_proj": 3.5}}
    more |= {"layers_to_transform": [0], "exclude_modules": ["v_proj"], "use_rslora": True, "init_lora_weights": "gaussian"}
    said = {name: case.files() for name, case in adapters.SOUND.items()}
    said["an adapter"] = {**said["an adapter"], adapters.CONFIG_NAME: json.dumps(adapters.CONFIG | more).encode()}
    return [*(_json(files, adapters.CONFIG_NAME) for files in said.values()), *map(_adapter_weights, said.values())]


def _adapter_weights(files: Files) -> Seed:
    content = files[adapters.NAME]
    end = 8 + int.from_bytes(content[:8], "little")

    def damage(rng: random.Random) -> bytes:
        header = damaged_json(content[8:end], rng)
        return len(header).to_bytes(8, "little") + header + content[end:]

    return Seed(files, adapters.NAME, damage)


def _gguf_files() -> list[bytes]:
    """One file for each kind of vocabulary and of tensors, and one with values of all types."""
    numbers = {f"number.{kind}": (kind, 1) for kind in hand.NUMBERS}
    lists = {f"list.{kind}": (hand.ARRAY, (kind, [0, 1, 1])) for kind in hand.NUMBERS}
    more = {"llama.rope.freq_base": (hand.FLOAT32, 1e5), "llama.attention.key_length": (hand.UINT32, 4)}
    more |= {
        "llama.attention.head_count_kv": (hand.ARRAY, (hand.INT32, [2])),
        "tokenizer.chat_template": (hand.STRING, "{{ x }}"),
    }
    more |= {"llama.rope.scaling.type": (hand.STRING, "linear"), "llama.rope.scaling.factor": (hand.FLOAT32, 2.0)}
    ends = {"tokenizer.ggml.eos_token_id": (hand.UINT32, 4), "tokenizer.ggml.add_bos_token": (hand.BOOL, True)}
    widths = {n: {f"llama.{name}_length": (hand.UINT32, n) for name in ("embedding", "feed_forward")} for n in (32, 256)}
    fused = {f"blk.0.attn_{part}.weight": None for part in "qkv"} | {"blk.0.attn_qkv.weight": ((8, 24), hand.F32)}
    return [
        hand.model_file(numbers | lists | {"texts": (hand.ARRAY, (hand.STRING, ["a", "", "😀"]))}),
        hand.model_file(gguf_models.LLAMA | more, {gguf_models.ROPE: ((2,), hand.F32, b"\0\0\x80?" * 2)}),
        hand.model_file(gguf_models.GPT2 | ends, {"output.weight": ((8, 5), hand.F32)}),
        hand.model_file(widths[32], _blocks()),
        hand.model_file(widths[256], _large_blocks()),
        hand.model_file({"general.alignment": (hand.UINT32, 8)}, fused, alignment=8),
    ]


def _blocks() -> dict[str, tuple[tuple[int, ...], int]]:
    """Tensors of a model of width 32, the matrices in turn of all types that a file made by hand may have."""
    kinds = (hand.Q8_0, hand.Q4_0, hand.Q4_1, hand.BF16, hand.F16, hand.F64)
    blocks = {}
    for i, (name, (dims, _)) in enumerate(hand.TENSORS.items()):
        n_rows = 5 if name == "token_embd.weight" else 32
        blocks[name] = ((32,), hand.F32) if len(dims) == 1 else ((32, n_rows), kinds[i % len(kinds)])
    return blocks


def _large_blocks() -> dict[str, tuple[tuple[int, ...], int, bytes]]:
    """Tensors of a model of width 256, the matrices of types whose blocks have 256 weights."""
    sizes = GGML_QUANT_SIZES.items()
    kinds = [(kind.value, n_bytes) for kind, (weights, n_bytes) in sizes if weights == 256 and kind.name != "Q8_K"]
    blocks = {}
    for i, (name, (dims, _)) in enumerate(hand.TENSORS.items()):
        n_rows = 5 if name == "token_embd.weight" else 256
        kind, n_bytes = kinds[i % len(kinds)]
        vector, matrix = ((256,), hand.F32, bytes(1024)), ((256, n_rows), kind, bytes(n_bytes * n_rows))
        blocks[name] = vector if len(dims) == 1 else matrix
    return blocks


def _gguf(content: bytes, name: str = "model.gguf", beside: Files | None = None) -> Seed:
    """The header is damaged; the data begin on the next border behind it."""
    layout = layouts.gguf_header(content)
    data = content[len(hand.padded(layout.data)) :]
    return Seed({name: content, **(beside or {})}, name, lambda rng: hand.padded(damaged(layout, rng)) + data)


def _gguf_shards() -> list[Seed]:
    """A model in two files, each damaged in turn."""
    names = list(hand.TENSORS)
    shards = {}
    for i, absent in enumerate((names[6:], names[:6])):
        keys = {"split.count": (hand.UINT16, 2), "split.no": (hand.UINT16, i)}
        shards[f"model-0000{i + 1}-of-00002.gguf"] = hand.model_file(keys, dict.fromkeys(absent))
    return [_gguf(content, name, shards) for name, content in shards.items()]


def _checkpoint() -> Case:
    content = torch_layout.archive(torch_layout.members())
    return Case("", "", lambda: {"ckpt.pt": content}, "ckpt.pt")


def _pickles() -> list[Seed]:
    """Pickles are damaged inside a sound zip file: one of plain tensors, one with all that torch saves besides."""
    hooks = call("collections", "OrderedDict")
    state: OrderedDict[str, object] = OrderedDict()
    storages = {"steps": bytes(8)}
    for i, (name, shape) in enumerate(torch_layout.SHAPES.items()):
        kind, n_bytes = (("HalfStorage", 2), ("BFloat16Storage", 2), ("FloatStorage", 4))[i % 3]
        storages[str(i)] = bytes(n_bytes * prod(shape))
        made = tensor(storage(kind, str(i), prod(shape)), shape)
        state[name] = call("torch._utils", "_rebuild_parameter", made, True, hooks) if i % 2 else made
    versions = {"_metadata": OrderedDict({"": {"version": 1}})}
    others = {"steps": tensor(storage("LongStorage", "steps", 1), ()), "rates": [0.5, 1 << 40, None, True], "size": (1, (2,))}
    content = {"model": Opcodes(value(state) + value(versions) + b"b"), "model_args": torch_layout.ARGS, "optimizer": others}
    return [_pickle(torch_layout.checkpoint(), torch_layout.STORAGES), _pickle(pickled(content), storages)]


def _pickle(pickle: bytes, storages: dict[str, bytes]) -> Seed:
    layout = layouts.pickle(pickle)
    return Seed({"ckpt.pt": wrapped(pickle, storages)}, "ckpt.pt", lambda rng: wrapped(damaged(layout, rng), storages))


def _meta() -> list[Seed]:
    one, two, scaled = (meta_folders.SOUND[name].files() for name in ("one shard", "two shards", "scaled"))
    second = layouts.zip_file(two["consolidated.01.pth"])
    return [
        _json(one, "params.json"),
        _json(scaled, "params.json"),
        Seed(two, "consolidated.01.pth", lambda rng: damaged(second, rng)),
    ]


def _sentencepiece() -> list[Case]:
    with_bytes = sentencepiece.model(
        pieces=[*sentencepiece.PIECES, *(sentencepiece.piece(f"<0x{i:02X}>", sentencepiece.BYTE) for i in range(256))],
        trainer=sentencepiece.message(2, sentencepiece.number(3, 2) + sentencepiece.number(35, 1)),
    )
    return [*sentencepiece.SOUND.values(), sentencepiece.case("", "", lambda: with_bytes)]


def _tiktoken() -> Seed:
    """Lines are damaged; in half of the files their ranks are set right again."""
    content = piece_lists.lines(*(piece_lists.line(token, 256 + i) for i, token in enumerate((b"ab", b"abc", b" a", b"  "))))
    layout = layouts.tiktoken(content)

    def damage(rng: random.Random) -> bytes:
        data = damaged(layout, rng)
        if rng.random() < 0.5:
            data = b"".join(b"%s %d\n" % (line.rpartition(b" ")[0], i) for i, line in enumerate(data.splitlines()))
        return data

    return Seed({"tokenizer.model": content}, "tokenizer.model", damage)


def _tokenizer_json() -> list[Seed]:
    sound = [case.files() for case in (*tokenizer_json.SOUND.values(), *_texts_as_pieces())]
    with_config = tokenizer_json.SOUND["with a config"].files()
    return [*(_json(files, "tokenizer.json") for files in sound), _json(with_config, "tokenizer_config.json")]


def _texts_as_pieces() -> list[Case]:
    """Vocabularies as sentencepiece's become: pieces are text, spaces are written as U+2581, BOS stands in a template."""
    pieces = {"<s>": 0, "</s>": 1, "<0x0A>": 2, "a": 3, "b": 4, "ab": 5, "\u2581": 6, "\u2581a": 7}
    space = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    back = {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    mark = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    rules = {
        "added_tokens": [tokenizer_json.END | {"id": 0, "content": "<s>"}],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"}, space]},
        "pre_tokenizer": None,
        "post_processor": {"type": "TemplateProcessing", "single": [mark, {"Sequence": {"id": "A", "type_id": 0}}]},
        "decoder": {"type": "Sequence", "decoders": [back, {"type": "ByteFallback"}, {"type": "Fuse"}, strip]},
    }
    bpe = {"vocab": pieces, "merges": ["a b", "\u2581 a"], "unk_token": "<s>", "fuse_unk": True, "byte_fallback": True}
    charsmap = tokenizer_json.charsmap(b64encode(sentencepiece.CHARSMAP).decode())
    digits = {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, tokenizer_json.BYTE_LEVEL]}
    return [
        tokenizer_json.changed("", "", model=tokenizer_json.MODEL | bpe, **rules),
        tokenizer_json.changed("", "", model=tokenizer_json.UNIGRAM, **rules | {"normalizer": charsmap, "added_tokens": []}),
        tokenizer_json.changed("", "", pre_tokenizer=digits),
    ]
