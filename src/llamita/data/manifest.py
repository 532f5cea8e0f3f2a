"""manifest.json: what a folder of token shards holds, which text and tokenizer it came from, and how to tell that it is whole.

Written last by prepare.py, so a folder with a manifest is complete; read first by shards.py. Knows no tokens.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar, get_origin

from llamita.errors import DataError, one_line
from llamita.files import atomic_file, read_file

FORMAT, VERSION = "llamita-tokens", 1
MANIFEST_NAME = "manifest.json"
_LIMIT_BYTES = 64 << 20
_DICTS = (dict[str, str], dict[str, int], dict[str, Any])
# of a field -> of its JSON
_KINDS: dict[Any, Any] = {int: int, float: (int, float), str: str} | dict.fromkeys(_DICTS, dict)
_Facts = TypeVar("_Facts")


@dataclass(frozen=True)
class Shard:
    """One file of tokens, little-endian and nothing else: its name, how many tokens, and its SHA-256."""

    name: str
    n_tokens: int
    sha256: str


@dataclass(frozen=True)
class Split:
    """The shards of the training or the validation text, in order; n_bytes: UTF-8 bytes of that text."""

    n_documents: int
    n_tokens: int
    n_bytes: int
    shards: tuple[Shard, ...]


@dataclass(frozen=True)
class Overlap:
    """How much of the validation text the training text knows already.

    n_documents: validation documents that stand in the training text to the letter. run_share: of the n_runs runs of run_tokens
    tokens that were looked for, the share that the training text holds; see overlap.py.
    """

    n_documents: int
    run_share: float
    n_runs: int
    run_tokens: int


@dataclass(frozen=True)
class Recipe:
    """Everything that the content of a folder follows from: with an equal recipe, prepare has nothing left to do.

    sources and validation_sources: name, kind, bytes and time of each file. field, separator: as in ReadOptions.
    """

    tokenizer_sha256: str
    sources: tuple[dict[str, Any], ...]
    validation_sources: tuple[dict[str, Any], ...]
    field: str
    separator: str


@dataclass(frozen=True)
class Manifest:
    """The facts of a folder of token shards.

    dtype: `uint16` or `uint32`. tokenizer: the file in the folder that the text was encoded with. text_sha256: over the
    digests of all documents, in order. detected: what was taken for a document, by source. n_duplicates: documents left out
    because their text had come before.
    """

    dtype: str
    vocab_size: int
    bos_id: int
    eos_id: int
    tokenizer: str
    text_sha256: str
    train: Split
    validation: Split
    n_duplicates: int
    overlap: Overlap
    detected: dict[str, str]
    recipe: Recipe
    format: str = field(default=FORMAT)
    version: int = field(default=VERSION)

    def to_dict(self) -> dict[str, Any]:
        """The manifest as plain values, as manifest.json and --json have it."""
        return {"format": self.format, "version": self.version} | asdict(self)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that determines the tokens: equal folders of tokens have equal fingerprints."""
        shards = [[shard.n_tokens, shard.sha256] for split in (self.train, self.validation) for shard in split.shards]
        facts = [VERSION, self.dtype, self.vocab_size, self.recipe.tokenizer_sha256, shards]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Write manifest.json, whole or not at all."""
    with atomic_file(folder / MANIFEST_NAME) as file:
        file.write(json.dumps(manifest.to_dict(), indent=1).encode() + b"\n")


def read_manifest(folder: Path) -> Manifest:
    """Read manifest.json of a folder; raise DataError or ModelFileError where it is missing, broken or of another version."""
    facts = read_facts(folder, (FORMAT, VERSION), "a folder that `llamita prepare` has finished")
    nested = {"train": Split, "validation": Split, "overlap": Overlap, "recipe": Recipe, "shards": Shard}
    try:
        return parse_facts(Manifest, facts, nested)
    except (TypeError, KeyError, AttributeError) as error:
        path = folder / MANIFEST_NAME
        raise DataError(one_line(f"{path}: found wrong fields ({error}), expected a manifest of version {VERSION}")) from None


def read_facts(folder: Path, kind: tuple[str, int], expected: str) -> dict[str, Any]:
    """The values in manifest.json of a folder; raise DataError unless it is there and of this format and version."""
    path = folder / MANIFEST_NAME
    if not path.exists():
        raise DataError(one_line(f"{folder}: found no {MANIFEST_NAME}, expected {expected}"))
    try:
        facts = json.loads(read_file(path, _LIMIT_BYTES))
    except (ValueError, RecursionError) as error:
        raise DataError(one_line(f"{path}: found broken JSON ({error}), expected a manifest")) from None
    found = (facts.get("format"), facts.get("version")) if isinstance(facts, dict) else type(facts).__name__
    if found != kind:
        remedy = "; prepare it again" if isinstance(found, tuple) and found[0] == kind[0] else f": {expected}"
        raise DataError(one_line(f"{path}: found {found}, expected {kind}{remedy}"))
    return facts


def parse_facts(kind: type[_Facts], facts: Mapping[str, Any], nested: Mapping[str, type]) -> _Facts:
    """A dataclass from plain values; raise TypeError or KeyError where they do not fit.

    nested: the dataclasses of fields that hold one, or a list of such.
    """
    values = {}
    for item in fields(kind):  # pyright: ignore[reportArgumentType]
        value, inner = facts[item.name], nested.get(item.name)
        if inner is not None and inner is item.type:
            value = parse_facts(inner, value, nested)
        elif get_origin(item.type) is tuple and isinstance(value, list):
            value = tuple(parse_facts(inner, each, nested) if inner else each for each in value)
        elif not isinstance(value, _KINDS.get(item.type, ())) or isinstance(value, bool):
            raise TypeError(f"{item.name} is {value!r}")
        values[item.name] = value
    return kind(**values)
