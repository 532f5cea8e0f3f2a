"""One hostile file, or folder of files: what is wrong with it, how it is made, and what our error must name.

The modules beside this one hold lists of them, a module per format. Each builds its files from a small sound one, in plain code
that shares nothing with our writers; SOUND in each module is that file, which must be read.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llamita.formats import read_model, read_tokenizer
from llamita.model import Model
from llamita.tokenizer import Tokenizer

Files = Mapping[str, bytes]


def read_whole_model(path: Path) -> Model:
    """Read a model and touch it."""
    return touched(read_model(path))


def touched(model: Model) -> Model:
    """Let a model validate itself and touch every weight, so that no view reaches past its file."""
    model.validate()
    with np.errstate(all="ignore"):  # weights may be anything
        for tensor in model.tensors.values():
            tensor.dequantize()
    return model


def read_vocabulary(path: Path) -> Tokenizer:
    """Read a tokenizer and decode every id."""
    tokenizer = read_tokenizer(path)
    tokenizer.decode(range(tokenizer.vocab_size))
    return tokenizer


@dataclass(frozen=True)
class Case:
    """fault: what is wrong; field: a pattern for what the message says behind the path; files: name -> content.

    opened: the file, or "." for the folder, that is given to `read`.
    """

    fault: str
    field: str
    files: Callable[[], Files]
    opened: str
    read: Callable[[Path], object] = read_whole_model

    def write(self, folder: Path) -> Path:
        """Write the files into a folder; return the path to open."""
        for name, content in self.files().items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        return folder / self.opened
