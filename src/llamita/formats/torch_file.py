"""Files of torch.save, read without torch and without running anything: plain containers, and tensors as views of the file.

Such a file is an uncompressed zip file: data.pkl says what there is, one member for each storage holds the numbers. The pickle
goes through inert_pickle.py, which knows the few names below and calls nothing. Knows no model. Source: torch's
serialization.py and _utils.py.
"""

import math
from dataclasses import dataclass
from os import PathLike

import numpy as np

from llamita.errors import ModelFileError
from llamita.files import map_file
from llamita.formats.file_names import OLD_TORCH_MAGIC
from llamita.formats.inert_pickle import Call, MoreThanDataError, Name, PickleError, read_pickle
from llamita.formats.json_text import shown
from llamita.formats.lfs_pointer import check_no_pointer
from llamita.formats.stored_zip import Member, read_member, read_members
from llamita.quant import Tensor

# torch's name of a storage's type -> the dtype of Tensor, "" for what weights cannot be, and bytes of one number
_STORAGES = {
    "torch.FloatStorage": ("f32", 4),
    "torch.HalfStorage": ("f16", 2),
    "torch.BFloat16Storage": ("bf16", 2),
    "torch.DoubleStorage": ("", 8),
    "torch.LongStorage": ("", 8),
    "torch.IntStorage": ("", 4),
    "torch.ShortStorage": ("", 2),
    "torch.CharStorage": ("", 1),
    "torch.ByteStorage": ("", 1),
    "torch.BoolStorage": ("", 1),
}
_NUMPY_DTYPES = {"f32": np.dtype("<f4"), "f16": np.dtype("<f2"), "bf16": np.dtype("<u2")}
_OTHER_NAMES = [f"torch.{name}" for name in ("float32", "float16", "bfloat16", "float64", "int64", "int32", "uint8", "bool")]
_PICKLE_NAME = "/data.pkl"
_MAX_PICKLE_BYTES = 2 << 20  # of ten thousand tensors; one wide character makes a text four times as big
_MAX_AXES = 8
_MAX_COUNT = 1 << 48
SAVE_AGAIN = "save the weights alone with torch.save(model.state_dict(), NAME)"


@dataclass(frozen=True)
class _Storage:
    """The numbers of one member of the file, which tensors share."""

    kind: str  # such as torch.FloatStorage
    offset: int  # in the file
    n_numbers: int


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies in the file; it is checked that it lies there, and nothing is read. offset, strides: in numbers."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_weights(path: str | PathLike[str]) -> dict[str, Tensor]:
    """The weights of a file that holds nothing else, by name, as read-only views; raise ModelFileError."""
    file = TorchFile(path)
    return file.tensors(file.content)


class TorchFile:
    """A file of torch.save; `content` is what was saved, with a StoredTensor in the place of each tensor.

    Raises ModelFileError for a file that torch.save did not write, or that holds more than tensors and plain values.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = path
        self._mapping = map_file(path)
        check_no_pointer(path, self._mapping)
        if self._mapping[:4] == OLD_TORCH_MAGIC:
            raise ModelFileError(path, "content", "a file of torch before 1.6", "the newer form", "load and save it with torch")
        members = read_members(path, self._mapping)
        name = _pickle_name(path, members)
        pickle = read_member(path, self._mapping, name, members[name], _MAX_PICKLE_BYTES)
        folder = name.removesuffix(_PICKLE_NAME)
        order = members.get(f"{folder}/byteorder")
        if order and self._mapping[order.offset : order.offset + min(order.n_bytes, 8)] != b"little":
            raise ModelFileError(path, "byteorder", "another", "little", "save it again on a common machine")
        storages = {
            name.removeprefix(f"{folder}/data/"): member
            for name, member in members.items()
            if name.startswith(f"{folder}/data/")
        }
        try:
            self.content = read_pickle(
                pickle, _CALLS, [*_STORAGES, *_OTHER_NAMES], lambda identity: _find_storage(identity, storages)
            )
        except PickleError as error:
            remedy = SAVE_AGAIN if isinstance(error, MoreThanDataError) else "the file is damaged"
            raise ModelFileError(path, "data.pkl", error.found, error.expected, remedy) from None

    def tensors(self, content: object, field: str = "content") -> dict[str, Tensor]:
        """The weights of a dict of StoredTensors, by name, as read-only views; field: its name in messages."""
        if type(content) is not dict or not content:
            found = "an empty dict" if type(content) is dict else f"a {type(content).__name__}"
            raise ModelFileError(self.path, field, found, "a dict of tensors", SAVE_AGAIN)
        return {name: self._tensor(name, stored) for name, stored in content.items()}

    def _tensor(self, name: object, stored: object) -> Tensor:
        if type(name) is not str or type(stored) is not StoredTensor:
            found = f"a {type(stored).__name__} of the name {shown(name)}"
            raise ModelFileError(self.path, "tensors", found, "names and tensors", SAVE_AGAIN)
        dtype, n_bytes = _STORAGES[stored.storage.kind]
        if not dtype:
            raise ModelFileError(self.path, f"dtype of {shown(name)}", stored.storage.kind, "float32, float16 or bfloat16")
        offset = stored.storage.offset + stored.offset * n_bytes
        if (stored.strides and stored.strides[-1] != 1) or offset % n_bytes:
            expected = f"rows of numbers side by side, at a multiple of {n_bytes} bytes"
            found = f"strides {stored.strides} at byte {offset}"
            raise ModelFileError(self.path, f"place of {shown(name)}", found, expected, "save it .contiguous() with torch.save")
        strides = [stride * n_bytes for stride in stored.strides]
        return Tensor(dtype, stored.shape, np.ndarray(stored.shape, _NUMPY_DTYPES[dtype], self._mapping, offset, strides))


def _pickle_name(path: str | PathLike[str], members: dict[str, Member]) -> str:
    names = [name for name in members if name.endswith(_PICKLE_NAME) and name.count("/") == 1]
    if len(names) != 1:
        raise ModelFileError(path, "zip members", f"{len(names)} named NAME/data.pkl", "one, as torch.save writes it")
    return names[0]


def _find_storage(identity: object, members: dict[str, Member]) -> _Storage:
    """The storage of a persistent id: ("storage", type, key, device, how many numbers)."""
    match identity:
        case ("storage", Name(kind), str(key), str(), int(n_numbers)) if type(identity) is tuple and kind in _STORAGES:
            member = members.get(key)
            if member is None or member.n_bytes != n_numbers * _STORAGES[kind][1]:
                found = "no such member" if member is None else f"{member.n_bytes} bytes"
                raise PickleError(f"storage {shown(key)} with {found}", f"{shown(n_numbers)} numbers of {kind}")
            return _Storage(kind, member.offset, n_numbers)
    raise PickleError(f"a {type(identity).__name__} for a storage", "type, key, device and size")


def _make_tensor(arguments: tuple) -> StoredTensor:
    """What torch._utils._rebuild_tensor_v2 would make of: storage, offset, shape, strides, requires_grad, hooks."""
    match arguments:
        case (_Storage() as storage, int(offset), tuple(shape), tuple(strides), bool(), dict(), *_):
            counts = (offset, *shape, *strides)
            if len(shape) != len(strides) or len(shape) > _MAX_AXES or not all(map(_is_count, counts)):
                raise PickleError("a tensor of odd shape or strides", f"up to {_MAX_AXES} counts for each")
            if math.prod(max(n, 1) for n in shape) > _MAX_COUNT:  # beside an axis of 0 too: numpy looks at the others
                raise PickleError("a tensor of huge shape", f"at most {_MAX_COUNT} numbers")
            n_numbers = math.prod(shape)
            end = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True)) + 1 if n_numbers else offset
            if max(n_numbers, end) > storage.n_numbers:
                raise PickleError(f"a tensor of {n_numbers} numbers up to {end}", f"a storage's {storage.n_numbers} at most")
            return StoredTensor(storage, offset, shape, strides)
    raise PickleError("a tensor of something else", "storage, offset, shape and strides")


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= _MAX_COUNT


def _make_parameter(arguments: tuple) -> StoredTensor:
    """What torch._utils._rebuild_parameter would make of: tensor, requires_grad, hooks."""
    match arguments:
        case (StoredTensor() as tensor, bool(), dict()):
            return tensor
    raise PickleError("a parameter of something else", "a tensor")


def _make_dict(arguments: tuple) -> dict:
    if arguments:
        raise PickleError("an OrderedDict of something", "an empty one, to be filled")
    return {}


def _make_size(arguments: tuple) -> tuple:
    match arguments:
        case (tuple(numbers),):
            return numbers
    raise PickleError("a torch.Size of something else", "a tuple")


_CALLS: dict[str, Call] = {
    "collections.OrderedDict": _make_dict,
    "torch._utils._rebuild_tensor_v2": _make_tensor,
    "torch._utils._rebuild_parameter": _make_parameter,
    "torch.Size": _make_size,
}
