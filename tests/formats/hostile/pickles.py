"""Hostile data.pkl members of a ckpt.pt: programs, broken opcodes, storages and tensors that lie, other things than weights.

The zip file around them is sound. That armed pickles run nothing is tests/formats/test_torch_file.py.
"""

import struct

from hostile.case import Case
from hostile.torch_layout import ARGS, SHAPES, STATE, archive, checkpoint, members
from torch_files import Opcodes, call, name, pickled, storage, tensor, value

LAST = "norm.weight"
KEY = str(len(SHAPES) - 1)  # of its storage
DENSE = storage("FloatStorage", KEY, 4)


def case(fault: str, field: str, pickle: bytes) -> Case:
    return Case(fault, field, lambda: {"ckpt.pt": archive(members(pickle))}, "ckpt.pt")


def weight(fault: str, field: str, opcodes: object) -> Case:
    """The sound checkpoint with something else for its last tensor."""
    return case(fault, field, checkpoint(STATE | {LAST: opcodes}))


def raw(fault: str, opcodes: bytes) -> Case:
    """A pickle of nothing but these opcodes."""
    return case(fault, "data.pkl: found", opcodes)


def args(fault: str, field: str, **changes: object) -> Case:
    """The sound checkpoint with other model_args; ... takes one out."""
    values = {key: number for key, number in (ARGS | changes).items() if number is not ...}
    return case(fault, field, checkpoint(args=values))


SOUND = {"pickle": case("", "", checkpoint())}

_PICKLE = "data.pkl: found "
CASES = [
    raw("nothing", b""),
    raw("a protocol and nothing else", b"\x80\x02"),
    raw("a stop without an object", b"\x80\x02."),
    raw("no stop", checkpoint()[:-1]),
    raw("cut off in the middle", checkpoint()[:700]),
    raw("something behind the stop", checkpoint() + b"\0"),
    raw("protocol 0", b"(dp0\nVmodel\np1\n(dp2\ns."),
    raw("protocol 4, in frames", b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b"}."),
    raw("protocol 255", b"\x80\xff}."),
    raw("zeros", bytes(1000)),
    raw("marks and nothing else", b"\x80\x02" + b"(" * 100_000),
    raw("two hundred thousand empty dicts", b"\x80\x02" + b"}" * 200_000 + b"."),
    raw("as many dicts as opcodes are allowed", b"\x80\x02" + b"}NNs" * 32_000 + b"."),
    raw("a memo of fifty thousand places", b"\x80\x02" + b"".join(b"}r" + struct.pack("<I", i) for i in range(50_000)) + b"."),
    raw("a text of 2^32 - 1 bytes", b"\x80\x02X\xff\xff\xff\xffabc."),
    raw("a text of two million characters, one of them wide", pickled({"a" * 2_000_000 + "😀": 1})[:-1] + b"0"),
    case("three million characters", "size of zip member ckpt/data.pkl", pickled({"a" * 3_000_000: 1})),
    raw("a text that is no UTF-8", b"\x80\x02X\2\0\0\0\xc3\x28."),
    raw("bytes of 2^63", b"\x80\x02\x8e" + struct.pack("<Q", 1 << 63) + b"."),
    raw("a bytearray of 2^63", b"\x80\x02\x96" + struct.pack("<Q", 1 << 63) + b"."),
    raw("an integer of 2^31 - 1 bytes", b"\x80\x02\x8b" + struct.pack("<i", (1 << 31) - 1) + b"."),
    raw("an integer of -1 bytes", b"\x80\x02\x8b" + struct.pack("<i", -1) + b"."),
    raw("an integer written in digits", b"\x80\x02I" + b"9" * 100_000 + b"\n."),
    raw("a name of ten thousand characters", b"\x80\x02c" + b"a" * 10_000 + b"\nb\n."),
    raw("a name with escape codes", b"\x80\x02c\x1b[2J\nsystem\n."),
    raw("an empty stack popped", b"\x80\x02s."),
    raw("a tuple of what is not there", b"\x80\x02N\x87."),
    raw("items without a mark", b"\x80\x02}u."),
    raw("a place of the memo that nobody set", b"\x80\x02h\7."),
    raw("a dict that is its own key", b"\x80\x02}q\0h\0h\0s."),
    raw("a list that holds itself, as a key", b"\x80\x02}]q\0h\0aNs."),
    raw("thirty thousand tuples in tuples, as a key", b"\x80\x02})" + b"\x85" * 30_000 + b"Ns."),
    raw("an item set in a list, as CVE-2026-24747 does", b"\x80\x02]NNs."),
    raw("an item appended to a tuple", b"\x80\x02)Na."),
    raw("the state of a text set", b"\x80\x02X\1\0\0\0a}b."),
    raw("os.system", pickled(call("os", "system", "true"))),
    raw("builtins.eval", pickled(call("builtins", "eval", "1"))),
    raw("a function of torch that reads files", pickled(call("torch", "load", "/etc/passwd"))),
    raw("getattr of a name that is allowed", pickled(call("builtins", "getattr", name("torch", "Size"), "__init__"))),
    raw("a global by the stack", b"\x80\x04" + value("os") + value("system") + b"\x93."),
    raw("an instance", b"\x80\x02(ios\nsystem\n."),
    raw("an object of a class", b"\x80\x02(" + name("collections", "OrderedDict") + b"o."),
    raw("a new object", b"\x80\x02" + name("collections", "OrderedDict") + b")\x81."),
    raw("an extension of copyreg", b"\x80\x02\x82\1)R."),
    raw("a persistent id as a line", b"\x80\x02Pstorage\n."),
    raw("a call of a storage's type", pickled(call("torch", "FloatStorage", 4))),
    raw("a call with a list of arguments", b"\x80\x02" + name("collections", "OrderedDict") + b"]R."),
    raw("an OrderedDict of an OrderedDict", pickled(call("collections", "OrderedDict", call("collections", "OrderedDict")))),
    case("None", "content: found", pickled(None)),
    case("a tuple", "content: found", pickled((1, 2))),
    case("a number", "content: found", pickled(7)),
    case("a tensor alone", "content: found", pickled(tensor(DENSE, (4,)))),
    case("a state without model_args", "content: found", pickled(STATE)),
    case("a checkpoint of Hugging Face's trainer", "content: found", pickled({"model.norm.weight": tensor(DENSE, (4,))})),
    case("a million characters as the only name", "content: found", pickled({"a" * 1_000_000: 1})),
    case("no weights", "model: found", checkpoint({})),
    case("a list of weights", "model: found a list", checkpoint(list(STATE.values()))),
    case("weights by number", "tensors: found", checkpoint(dict(enumerate(STATE.values())))),
    case("args that are a list", "model_args: found a list", checkpoint(args=list(ARGS.values()))),
    case("args that are None", "model_args: found", checkpoint(args=None)),
    args("no width", "dim: found None", dim=...),
    args("a width of 0", "dim: found 0", dim=0),
    args("a width of 2^70", "dim: found 1180591620717411303424", dim=1 << 70),
    args("a width of 4.0", "dim: found 4.0", dim=4.0),
    args("no heads", "n_heads: found 0", n_heads=0),
    args("three heads", "n_heads: found", n_heads=3, n_kv_heads=3),
    args("more key than query heads", "n_heads: found", n_kv_heads=4),
    args("a layer more than there is", "tensors: found no layers.1", n_layers=2),
    args("2^40 layers", "n_layers: found", n_layers=1 << 40),
    args("a mlp of another width", "width of the MLP", multiple_of=32),
    args("a multiplier that is not a number", "ffn_dim_multiplier: found nan", ffn_dim_multiplier=float("nan")),
    args("a negative epsilon", "norm_eps: found -1", norm_eps=-1.0),
    args("an infinite theta", "rope_theta: found inf", rope_theta=float("inf")),
    weight("a number for a tensor", "tensors: found a int", 7),
    weight("a dict for a tensor", "tensors: found a dict", {}),
    weight("a parameter of None", _PICKLE, call("torch._utils", "_rebuild_parameter", None, True, {})),
    weight("a tensor of None", _PICKLE, call("torch._utils", "_rebuild_tensor_v2", None, 0, (4,), (1,), False, {})),
    weight("a tensor without arguments", _PICKLE, call("torch._utils", "_rebuild_tensor_v2")),
    weight("hooks that are a text", _PICKLE, call("torch._utils", "_rebuild_tensor_v2", DENSE, 0, (4,), (1,), False, "hooks")),
    weight("a shape that is a list", _PICKLE, call("torch._utils", "_rebuild_tensor_v2", DENSE, 0, [4], (1,), False, {})),
    weight("a sparse tensor", _PICKLE, call("torch._utils", "_rebuild_sparse_tensor", DENSE)),
    weight("a quantized tensor", _PICKLE, call("torch._utils", "_rebuild_qtensor", DENSE, 0, (4,), (1,), (), False, {})),
    weight("a tensor on the meta device", _PICKLE, call("torch._utils", "_rebuild_meta_tensor_no_storage", (4,), (1,), False)),
    weight("a storage that is not there", _PICKLE + "storage 99", tensor(storage("FloatStorage", "99", 4), (4,))),
    weight("a storage out of the folder", _PICKLE + "storage ../", tensor(storage("FloatStorage", "../version", 4), (4,))),
    weight("a storage of more numbers", _PICKLE, tensor(storage("FloatStorage", KEY, 5), (4,))),
    weight("a storage of 2^62 numbers, whose bytes wrap", _PICKLE, tensor(storage("FloatStorage", KEY, (1 << 62) + 4), (4,))),
    weight("a storage of -4 numbers", _PICKLE, tensor(storage("FloatStorage", KEY, -4), (4,))),
    weight("a storage without a type", _PICKLE, tensor(Opcodes(value(("storage", None, KEY, "cpu", 4)) + b"Q"), (4,))),
    weight("a storage of an unknown type", _PICKLE, tensor(storage("QInt8Storage", KEY, 16), (4,))),
    weight("a storage of integers", f"dtype of {LAST}", tensor(storage("IntStorage", KEY, 4), (4,))),
    weight("float64 numbers", f"dtype of {LAST}", tensor(storage("DoubleStorage", KEY, 2), (2,))),
    weight("a tensor larger than its storage", _PICKLE, tensor(DENSE, (5,))),
    weight("a tensor that begins behind its storage", _PICKLE, tensor(DENSE, (4,), offset=4)),
    weight("a tensor that begins before its storage", _PICKLE, tensor(DENSE, (4,), offset=-4)),
    weight("a tensor that begins at 2^61, which wraps to 0", _PICKLE, tensor(DENSE, (4,), offset=1 << 62)),
    weight("negative strides", _PICKLE, tensor(DENSE, (4,), (-1,), offset=3)),
    weight("one number repeated 2^40 times", _PICKLE, tensor(DENSE, (1 << 40,), (0,))),
    weight("strides of two", _PICKLE, tensor(DENSE, (4,), (2,))),
    weight("numbers two apart", f"place of {LAST}", tensor(DENSE, (2,), (2,))),
    weight("a negative size", _PICKLE, tensor(DENSE, (-4,), (1,))),
    weight("a size that is true", _PICKLE, tensor(DENSE, (True,), (1,))),
    weight("a size of 4.0", _PICKLE, tensor(DENSE, (4.0,), (1,))),  # pyright: ignore[reportArgumentType]
    weight("a thousand axes", _PICKLE, tensor(DENSE, (1,) * 1000)),
    weight("fewer strides than sizes", _PICKLE, tensor(DENSE, (2, 2), (1,))),
    weight("a shape of 2^47 by 0 by 2^47", _PICKLE, tensor(DENSE, (1 << 47, 0, 1 << 47), (1, 1, 1))),
    weight("an empty tensor with strides of 2^47", f"shape of {LAST}", tensor(DENSE, (0, 4), (1 << 47, 1))),
    weight("a matrix for a vector", f"shape of {LAST}", tensor(DENSE, (2, 2))),
    weight("no axes", f"shape of {LAST}", tensor(DENSE, ())),
    case("a tensor more", "tensors: found bias", checkpoint(STATE | {"bias": tensor(DENSE, (4,))})),
    case("a tensor less", "tensors: found no norm.weight", checkpoint({key: STATE[key] for key in STATE if key != LAST})),
]
