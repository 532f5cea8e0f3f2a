"""Adapter: what fine-tuning with LoRA changes of a model, in canonical names and order; its folder in PEFT's format, read.

adapter_config.json says what there is (adapter_config.py), adapter_model.safetensors holds the numbers, in old folders
adapter_model.bin. adapter_writer.py is the other direction, merged_model.py applies an adapter to a Model. Source: LoRA
(arXiv:2106.09685); PEFT's save_and_load.py and the layers of tuners/lora and tuners/trainable_tokens.
"""

import hashlib
from dataclasses import dataclass, field, replace
from os import PathLike, fspath
from pathlib import Path
from typing import NoReturn

import numpy as np

from llamita.config import ModelConfig
from llamita.errors import ModelFileError
from llamita.files import sha256_of
from llamita.formats.adapter_config import AdapterConfig, read_adapter_config
from llamita.formats.file_names import ADAPTER_CONFIG_NAME, ADAPTER_TORCH_NAME, ADAPTER_WEIGHTS_NAME
from llamita.formats.huggingface import huggingface_name, rotated_heads, to_neighbours
from llamita.formats.json_text import shown
from llamita.formats.safetensors import read_tensors
from llamita.formats.torch_file import read_weights
from llamita.model import tensor_shapes
from llamita.quant import Tensor

PREFIX = "base_model.model."
LOW, HIGH = ".lora_A.weight", ".lora_B.weight"
# An embedding is looked up, not multiplied: what PEFT calls its A is, turned over, the B of the others, and the other way round
EMBEDDING_LOW, EMBEDDING_HIGH = ".lora_embedding_B", ".lora_embedding_A"
WHOLE, ROWS = ".weight", ".token_adapter.trainable_tokens_delta"
# The embedding before the adapter, where it was resized; and a whole tensor under a second name
_BASES = (".base_layer.weight", ".token_adapter.base_layer.weight", ".original_module.weight")
_AGAIN = ".modules_to_save.weight"
_KINDS = (*_BASES, _AGAIN, LOW, HIGH, EMBEDDING_LOW, EMBEDDING_HIGH, ROWS, WHOLE)
_VOCABULARY = ("embedding", "head")  # which have a row for each token
_OTHER_MODEL = "is it the adapter of another model?"


@dataclass(frozen=True, eq=False)
class Adapter:
    """What becomes of a model's tensors, by canonical name; all numbers are float32.

    pairs: (A (r, in), B (out, r)): the tensor W becomes W + scale(name) * B @ A; of an embedding in is D, out V. rank, alpha:
    of most of them; alphas: of those with another alpha. dropout: of A's input in training. whole: tensors that take the place
    of the model's before that, with more rows where the vocabulary grew. rows: of embedding and head, (ids int64 (n,), rows
    (n, D)) that take the place of the model's, or stand behind them. Where embedding and head of a model are one, they stay so,
    and what is said of the embedding holds for both, unless `unties`. base: the model that it was made for, as somebody named
    it. name: for messages.
    """

    rank: int
    alpha: float
    dropout: float = 0.0
    pairs: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    base: str = ""
    use_rslora: bool = False
    alphas: dict[str, float] = field(default_factory=dict)
    whole: dict[str, np.ndarray] = field(default_factory=dict)
    rows: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    unties: bool = False
    name: str = "adapter"

    def scale(self, name: str) -> float:
        """What B @ A of a tensor is multiplied by: alpha / rank, or alpha / sqrt(rank) (rsLoRA, arXiv:2312.03732)."""
        rank = len(self.pairs[name][0])
        return self.alphas.get(name, self.alpha) / (rank**0.5 if self.use_rslora else rank)

    def vocab_size(self, n_rows: int) -> int:
        """Rows of the embedding with this adapter, of a model that has n_rows."""
        sizes = [len(self.whole[name]) for name in _VOCABULARY if name in self.whole]
        return max([n_rows, *sizes, *(int(ids.max(initial=-1)) + 1 for ids, _ in self.rows.values())])

    @property
    def n_parameters(self) -> int:
        """Numbers that the adapter brings."""
        arrays = [*self.whole.values(), *(rows for _, rows in self.rows.values())]
        return sum(a.size + b.size for a, b in self.pairs.values()) + sum(array.size for array in arrays)


def read_adapter(folder: str | PathLike[str], config: ModelConfig) -> Adapter:
    """Read an adapter for a model of this config from its folder, or from one of the two files in it.

    Raises ModelFileError for what is no LoRA that we can compute, and for tensors that are missing, unknown, no numbers or of
    other shapes than the model's.
    """
    folder = adapter_folder(folder)
    path = _weights_path(folder)
    said = read_adapter_config(folder / ADAPTER_CONFIG_NAME)
    stored = read_weights(path) if path.name == ADAPTER_TORCH_NAME else read_tensors(path)
    return _Reading(path, said, config, stored).adapter(fspath(folder))


def adapter_folder(path: str | PathLike[str]) -> Path:
    """The folder of an adapter that is named by itself or by one of its files; raise ModelFileError where there is none."""
    path = Path(path)
    folder = path.parent if path.name in (ADAPTER_CONFIG_NAME, ADAPTER_WEIGHTS_NAME, ADAPTER_TORCH_NAME) else path
    if not (folder / ADAPTER_CONFIG_NAME).is_file():
        found = "a file" if path.is_file() else f"no {ADAPTER_CONFIG_NAME}" if folder.is_dir() else "no such folder"
        expected = f"a folder with {ADAPTER_CONFIG_NAME} and {ADAPTER_WEIGHTS_NAME}, as PEFT writes it"
        raise ModelFileError(path, "adapter", found, expected)
    return folder


def adapter_paths(path: str | PathLike[str]) -> list[Path]:
    """The two files of an adapter; raise ModelFileError where there is none."""
    folder = adapter_folder(path)
    return [folder / ADAPTER_CONFIG_NAME, _weights_path(folder)]


def adapter_digest(path: str | PathLike[str]) -> str:
    """A number of the content of an adapter's files, in hex."""
    return hashlib.sha256("".join(map(sha256_of, adapter_paths(path))).encode()).hexdigest()


def module_name(name: str) -> str:
    """What PEFT calls a canonical tensor's module.

    >>> module_name("layers.3.mlp.gate")
    'model.layers.3.mlp.gate_proj'
    """
    return huggingface_name(name).removesuffix(".weight")


def stored_name(name: str, kind: str) -> str:
    """What a tensor of some kind, such as LOW, is called in the file."""
    return f"{PREFIX}{module_name(name)}{kind}"


def _weights_path(folder: Path) -> Path:
    """The file of the numbers: safetensors before torch's, as in PEFT."""
    paths = [folder / name for name in (ADAPTER_WEIGHTS_NAME, ADAPTER_TORCH_NAME)]
    return next((path for path in paths if path.exists()), paths[0])


class _Reading:
    """What the file of weights holds, sorted and checked, one kind after the other."""

    def __init__(self, path: Path, said: AdapterConfig, config: ModelConfig, stored: dict[str, Tensor]) -> None:
        self._path, self._said, self._config = path, said, config
        self._shapes = tensor_shapes(replace(config, tied_embedding=False))
        self._of_module = {module_name(name): name for name in self._shapes}
        self._saved = {name for module, name in self._of_module.items() if said.is_saved(module)}
        self._found: dict[str, dict[str, Tensor]] = {kind: {} for kind in _KINDS}
        for name_there, tensor in stored.items():
            kind, name = self._place(name_there)
            self._found[kind][name] = tensor

    def adapter(self, folder: str) -> Adapter:
        """The adapter of these tensors."""
        said, unties = self._said, self._config.tied_embedding and self._unties()
        stays_tied = self._config.tied_embedding and not unties
        names = ("embedding",) if stays_tied else _VOCABULARY
        bases = self._bases()
        if unties and bases:
            bases = dict.fromkeys(names, next(iter(bases.values())))  # PEFT changes copies of this one
        whole = bases | {name: self._whole(name) for name in self._found[WHOLE] if name in self._saved}
        if stays_tied and "head" in whole:
            head = whole.pop("head")
            whole = {"embedding": head} | whole  # the same numbers, if both are there
        self._check_whole(whole, names)
        pairs = self._pairs(whole, names)
        rows = self._rows(names)
        if not (pairs or whole or rows):
            raise ModelFileError(self._path, "tensors", "none", "those of LoRA")
        alphas = {name: alpha for name in pairs if (alpha := said.alpha_of(module_name(name))) != said.alpha}
        return Adapter(
            said.rank, said.alpha, said.dropout, pairs, said.base, said.use_rslora, alphas, whole, rows, unties, folder
        )

    def _place(self, name_there: str) -> tuple[str, str]:
        """The kind of a tensor, and the canonical name of the one that it changes."""
        for kind in _KINDS:
            name = self._of_module.get(name_there.removeprefix(PREFIX).removesuffix(kind))
            if name is not None and name_there == stored_name(name, kind) and _may_have(name, kind):
                return kind, name
        expected = f"those of LoRA in a Llama of {self._config.n_layers} layers"
        raise ModelFileError(self._path, "tensors", shown(name_there), expected, _OTHER_MODEL)

    def _unties(self) -> bool:
        """Whether embedding and head, one in the model, part: PEFT changes a copy, unless it was asked to keep them tied."""
        ids = [self._token_ids(name) for name in _VOCABULARY]
        changed = [name for kind in (LOW, EMBEDDING_LOW) for name in _VOCABULARY if name in self._found[kind]]
        changed += [name for name in self._found[WHOLE] if name in self._saved and name in _VOCABULARY]
        return not self._said.ties and (bool(changed) or ids[1] not in ((), ids[0]))

    def _bases(self) -> dict[str, np.ndarray]:
        """Embedding and head as they were before the adapter, where they are there: PEFT saves them when they were resized."""
        bases = {name: self._whole(name, kind) for kind in _BASES for name in self._found[kind]}
        for name in sorted(self._found[WHOLE].keys() - self._saved):
            if name not in _VOCABULARY:
                self._refuse_tensor(name, WHOLE, "only those that modules_to_save names")
            bases[name] = self._whole(name)
        return bases

    def _whole(self, name: str, kind: str = WHOLE) -> np.ndarray:
        """A tensor that takes the place of the model's; of embedding and head it may have more rows."""
        shape = self._shapes[name]
        n_rows = self._found[kind][name].shape[0] if name in _VOCABULARY and self._found[kind][name].shape else 0
        return self._in_our_order(name, self._numbers(name, kind, (max(n_rows, shape[0]), *shape[1:])))

    def _check_whole(self, whole: dict[str, np.ndarray], names: tuple[str, ...]) -> None:
        """Refuse an adapter whose config promises more, and an embedding that grew without its head."""
        for name in sorted(self._saved - whole.keys()):
            if name in names or name not in _VOCABULARY:
                self._refuse_missing(name, WHOLE, "modules_to_save")
        sizes = {name: len(whole[name]) if name in whole else self._config.vocab_size for name in names}
        if len(set(sizes.values())) > 1:
            found = " and ".join(f"{n} of {name}" for name, n in sizes.items())
            raise ModelFileError(self._path, "rows", found, "as many of both")

    def _pairs(self, whole: dict[str, np.ndarray], names: tuple[str, ...]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Canonical name -> A (r, in), B (out, r)."""
        pairs = {}
        for module, name in self._of_module.items():
            if len(self._shapes[name]) < 2 or (name in _VOCABULARY and name not in names):
                continue
            kinds = (EMBEDDING_LOW, EMBEDDING_HIGH) if name == "embedding" else (LOW, HIGH)
            there = [kind for kind in kinds if name in self._found[kind]]
            is_expected = self._said.is_target(module)
            if there or is_expected:
                if len(there) < 2:
                    missing = next(kind for kind in kinds if kind not in there)
                    self._refuse_missing(name, missing, "the other of the pair" if there else "target_modules")
                if self._said.targets and not is_expected:
                    self._refuse_tensor(name, kinds[0], "only those that target_modules names")
                pairs[name] = self._pair(name, len(whole[name]) if name in whole else self._shapes[name][0])
        return pairs

    def _pair(self, name: str, n_rows: int) -> tuple[np.ndarray, np.ndarray]:
        n_columns, rank = self._shapes[name][1], self._said.rank_of(module_name(name))
        if name == "embedding":
            low = self._numbers(name, EMBEDDING_LOW, (n_columns, rank)).T
            return np.ascontiguousarray(low), np.ascontiguousarray(self._numbers(name, EMBEDDING_HIGH, (rank, n_rows)).T)
        high = self._numbers(name, HIGH, (n_rows, rank))
        return self._numbers(name, LOW, (rank, n_columns)), self._in_our_order(name, high)

    def _rows(self, names: tuple[str, ...]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        rows = {}
        for name in names:
            ids = self._token_ids(name)
            if ids and name not in self._found[ROWS]:
                self._refuse_missing(name, ROWS, "trainable_token_indices")
            if name in self._found[ROWS]:
                if not ids:
                    self._refuse_tensor(name, ROWS, "only those that trainable_token_indices names")
                rows[name] = np.array(ids, np.int64), self._numbers(name, ROWS, (len(ids), self._config.width))
        return rows

    def _token_ids(self, name: str) -> tuple[int, ...]:
        module = module_name(name)
        return next((ids for key, ids in self._said.token_ids.items() if f".{module}".endswith(f".{key}")), ())

    def _numbers(self, name: str, kind: str, shape: tuple[int, ...]) -> np.ndarray:
        """The float32 numbers of a tensor, which must have this shape."""
        name_there, tensor = stored_name(name, kind), self._found[kind][name]
        if tensor.shape != shape:
            of_model = " x ".join(map(str, self._shapes[name]))
            expected = f"{shape} beside the model's {name}, {of_model}"
            raise ModelFileError(self._path, f"shape of {name_there}", tensor.shape, expected, _OTHER_MODEL)
        numbers = tensor.dequantize()
        if not np.isfinite(numbers).all():
            raise ModelFileError(self._path, name_there, "a number that is infinite or none", "finite numbers")
        return numbers

    def _in_our_order(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Rows that RoPE turns, in canonical order; others as they are."""
        n_heads = rotated_heads(self._config, name)
        return to_neighbours(rows, n_heads).reshape(rows.shape) if n_heads else rows

    def _refuse_missing(self, name: str, kind: str, who: str) -> NoReturn:
        raise ModelFileError(
            self._path, "tensors", f"no {stored_name(name, kind)}", f"one, as {who} says", "is the file whole?"
        )

    def _refuse_tensor(self, name: str, kind: str, expected: str) -> NoReturn:
        raise ModelFileError(self._path, "tensors", stored_name(name, kind), expected)


def _may_have(name: str, kind: str) -> bool:
    """Whether a tensor of some kind may belong to a canonical name."""
    if kind in (EMBEDDING_LOW, EMBEDDING_HIGH):
        return name == "embedding"
    if kind in (LOW, HIGH):
        return name != "embedding" and not name.endswith("norm")
    return kind == WHOLE or name in _VOCABULARY
