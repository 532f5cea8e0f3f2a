"""Subject: a model to be measured, ours to run and in a file for every peer: llama2.c v0 and v2, GGUF, tokenizer.bin.

The model comes from a file or is made of random weights in a shape that people know by name. Files are written when they are
asked for, into a folder that the caller makes and removes.
"""

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import cast

from llamita.config import PRESETS, ModelConfig
from llamita.formats import gguf_writer, read_model, weight_paths, write_model, write_tokenizer
from llamita.model import Model, random_model, tensor_shapes
from llamita.quant import Tensor
from llamita.tokenizer import Tokenizer
from llamita.tokenizer.llama2c import BOS_PIECE, EOS_PIECE, Llama2cTokenizer

PROMPT = "once upon a"  # made of the letters that made_up_tokenizer knows
LLAMA2C_FORMATS = {"f32": "llama2c-v0", "q8_0": "llama2c-v2"}  # dtype -> what holds it


class Subject:
    """A model, its label and its files in `folder`."""

    def __init__(self, label: str, model: Model, folder: Path) -> None:
        self.label, self.model, self._folder = label, model, folder
        self.tokenizer = cast(Tokenizer, model.tokenizer or made_up_tokenizer(model.config.vocab_size))
        head = model.head
        self.dtype, self.group = head.dtype, head.group
        kinds = sorted({tensor.dtype for tensor in model.tensors.values() if len(tensor.shape) == 2})
        self.stored = " and ".join(kinds)  # what a title says of a model whose matrices differ

    @property
    def llama2c_file(self) -> Path | None:
        """The model in llama2.c's format of its dtype, or None where there is none."""
        to = LLAMA2C_FORMATS.get(self.dtype)
        if to is None or self.model.source_format == to.replace("llama2c-", "llama2.c "):
            return None if to is None else Path(self.model.name)
        path = self._folder / f"{to}.bin"
        if not path.exists():
            write_model(self.model, path, to)
        return path

    @property
    def own_command(self) -> list[str]:
        """The model as `llamita run` takes it: the file that it came from, or one of its random weights; a tokenizer; a prompt.

        A model that begins texts with BOS gets no prompt, so that the first byte is a token that it chose.
        """
        own = self.model.name if weight_paths(self.model) else self.llama2c_file or self.gguf_file
        tokenizer = [] if self.model.tokenizer else ["-z", str(self.tokenizer_file)]
        return [str(own), *tokenizer, *([] if self.tokenizer.adds_bos else ["-i", PROMPT])]

    @property
    def gguf_file(self) -> Path:
        """The model as GGUF: its own file, or its weights as they are stored, without the vocabulary."""
        if self.model.source_format.startswith("GGUF"):
            return Path(self.model.name)
        path = self._folder / "model.gguf"
        if not path.exists():
            gguf_writer.write(replace(self.model, tokenizer=None), path, dtype=None)
        return path

    @property
    def tokenizer_file(self) -> Path:
        """The tokenizer as tokenizer.bin."""
        path = self._folder / "bench-tokenizer.bin"
        if not path.exists():
            write_tokenizer(self.tokenizer, path)
        return path


def open_subject(name: str | Path, dtype: str, folder: Path) -> Subject:
    """Open a model file, or make the shape of that name (a key of PRESETS, no Path) in `dtype`. Raises ModelFileError."""
    if isinstance(name, Path):
        model = read_model(name)
        return Subject(name.stem if name.is_file() else name.name, model, folder)
    made = shape_model(PRESETS[name], dtype)
    if dtype not in LLAMA2C_FORMATS:  # no file to map: each layer gets memory of its own, or the caches would flatter us
        return Subject(name, replace(made, tensors={key: own_memory(t) for key, t in made.tensors.items()}), folder)
    path = folder / f"{name}-{dtype}.bin"
    write_model(made, path, LLAMA2C_FORMATS[dtype], made.head.group if dtype == "q8_0" else None)
    return Subject(name, read_model(path), folder)


def shape_model(config: ModelConfig, dtype: str) -> Model:
    """Random weights; all layers share those of the first, so that a large model takes no time and no memory."""
    group = math.gcd(64, config.width, config.query_width, config.mlp_width)
    one = random_model(replace(config, n_layers=1), dtype, group)
    tensors = {name: one.tensors[re.sub(r"^layers\.\d+", "layers.0", name)] for name in tensor_shapes(config)}
    return Model(config, tensors, name=f"random {dtype}")


def own_memory(tensor: Tensor) -> Tensor:
    """A copy of the tensor."""
    parts = {name: getattr(tensor, name) for name in ("data", "scales", "offsets")}
    return replace(tensor, **{name: None if part is None else part.copy() for name, part in parts.items()})


def made_up_tokenizer(vocab_size: int) -> Llama2cTokenizer:
    """A vocabulary for random weights: single letters, so that prompts can be read, then words that mean nothing."""
    letters = [b" ", *(bytes([letter]) for letter in range(ord("a"), ord("z") + 1))]
    pieces = [b"<unk>", BOS_PIECE, EOS_PIECE, *letters]
    pieces += [b" word%d" % i for i in range(len(pieces), vocab_size)]
    return Llama2cTokenizer(pieces[:vocab_size], [-float(i) for i in range(vocab_size)])
