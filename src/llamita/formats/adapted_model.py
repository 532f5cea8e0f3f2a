"""A model that was read, with the adapter of a folder: its weights, and what the folder brings for chats.

The folder's tokenizer, chat template and ids that end a text come before the model's own: training may have added tokens. Knows
no format of models.
"""

from collections import Counter
from dataclasses import replace
from os import PathLike

from llamita.cache import announce
from llamita.errors import ModelFileError
from llamita.formats.adapter import adapter_folder, read_adapter
from llamita.formats.file_names import ADAPTER_WEIGHTS_NAME
from llamita.formats.huggingface_extras import read_chat_template, read_stop_ids
from llamita.formats.merged_model import merged
from llamita.formats.tokenizer_files import find_tokenizer
from llamita.model import Model
from llamita.quant import FLOAT_DTYPES
from llamita.tokenizer import Tokenizer
from llamita.tokenizer.marks import end_ids

_TOKENIZER_NAMES = ("tokenizer.bin", "tokenizer.model", "tokenizer.json")


def brings_tokenizer(folder: str | PathLike[str]) -> bool:
    """Whether a tokenizer lies beside an adapter."""
    return any((adapter_folder(folder) / name).exists() for name in _TOKENIZER_NAMES)


def adapted(model: Model, folder: str | PathLike[str]) -> Model:
    """The model with the weights and the chat template of an adapter's folder; see merged_model.py. Raises LlamitaError."""
    folder = adapter_folder(folder)
    changed = merged(model, read_adapter(folder, model.config))
    _tell_of_other_dtypes(model, changed)
    stop_ids = read_stop_ids(folder, changed.config.vocab_size) or model.stop_ids
    return replace(changed, chat_template=read_chat_template(folder) or model.chat_template, stop_ids=stop_ids)


def with_adapters_tokenizer(model: Model, folder: str | PathLike[str], may_be_padded: bool) -> tuple[Model, Tokenizer]:
    """The model with the ids that end a text in this tokenizer, too, and the tokenizer beside an adapter.

    Raises ModelFileError where it does not have a token for each row, perhaps after padding.
    """
    folder, vocab_size = adapter_folder(folder), model.config.vocab_size
    tokenizer = find_tokenizer(folder / ADAPTER_WEIGHTS_NAME, vocab_size, may_be_padded)
    if tokenizer is None:
        expected = f"one of {vocab_size} tokens, as the model has rows with this adapter"
        raise ModelFileError(folder, "tokenizer", "one of another size", expected, "name the right one with -z")
    return replace(model, stop_ids=tuple(dict.fromkeys((*model.stop_ids, *end_ids(tokenizer))))), tokenizer


def _tell_of_other_dtypes(model: Model, changed: Model) -> None:
    """Say which quantized matrices are larger now: 4 bits would round away most of what an adapter adds."""
    pairs = [(tensor, changed.tensors[name]) for name, tensor in model.tensors.items()]
    kinds = Counter((old.dtype, new.dtype) for old, new in pairs if old.dtype not in FLOAT_DTYPES and old.dtype != new.dtype)
    for (old, new), n in sorted(kinds.items()):
        announce(
            f"llamita: {n} matrices that the adapter changes are {new} instead of {old}, which is too coarse for its changes"
        )
