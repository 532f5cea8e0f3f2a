"""manifest.json of a folder of rendered chats: what it holds, what it was made from, and how to tell that it is whole.

Written last by chats.py, so a folder with a manifest is complete; read first by examples.py. Knows no tokens.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from llamita.data.manifest import MANIFEST_NAME, parse_facts, read_facts
from llamita.errors import DataError, one_line
from llamita.files import atomic_file

FORMAT, VERSION = "llamita-chats", 1


@dataclass(frozen=True)
class Side:
    """The examples of one side: how many, of how many tokens, n_counted of which are learned; n_bytes: UTF-8 bytes of those.

    sha256: of each of the three files.
    """

    n_examples: int
    n_tokens: int
    n_counted: int
    n_bytes: int
    sha256: dict[str, str]


@dataclass(frozen=True)
class ChatManifest:
    """The facts of a folder of rendered chats.

    kind: chats, or pairs. template: what open_template opens it by. tokenizer: the file in the folder. n_read: chats, or pairs,
    in the files. n_cut: those whose end was cut off. left_out: how many for which reason. shapes: of each source. recipe: all
    that the content follows from.
    """

    kind: str
    dtype: str
    vocab_size: int
    bos_id: int
    eos_id: int
    tokenizer: str
    template: str
    train: Side
    validation: Side
    n_read: int
    n_duplicates: int
    n_cut: int
    left_out: dict[str, int]
    shapes: dict[str, str]
    recipe: dict[str, Any]
    format: str = field(default=FORMAT)
    version: int = field(default=VERSION)

    def to_dict(self) -> dict[str, Any]:
        """The manifest as plain values, as manifest.json has it."""
        return {"format": self.format, "version": self.version} | asdict(self)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that determines the examples: equal folders have equal fingerprints."""
        sides = [[side.n_examples, sorted(side.sha256.items())] for side in (self.train, self.validation)]
        facts = [FORMAT, VERSION, self.kind, self.dtype, self.vocab_size, self.recipe.get("tokenizer"), sides]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def write_chat_manifest(manifest: ChatManifest, folder: Path) -> None:
    """Write manifest.json, whole or not at all."""
    with atomic_file(folder / MANIFEST_NAME) as file:
        file.write(json.dumps(manifest.to_dict(), indent=1).encode() + b"\n")


def read_chat_manifest(folder: Path) -> ChatManifest:
    """Read manifest.json of a folder; raise DataError where it is missing, broken or of something else."""
    facts = read_facts(folder, (FORMAT, VERSION), "chats that were prepared to the end")
    try:
        manifest = parse_facts(ChatManifest, facts, {"train": Side, "validation": Side})
    except (TypeError, KeyError, AttributeError) as error:
        path = folder / MANIFEST_NAME
        raise DataError(one_line(f"{path}: found wrong fields ({error}), expected a manifest of version {VERSION}")) from None
    if manifest.dtype not in ("uint16", "uint32") or min(manifest.train.n_examples, manifest.validation.n_examples) < 1:
        raise DataError(one_line(f"{folder / MANIFEST_NAME}: found wrong values, expected examples on both sides"))
    return manifest
