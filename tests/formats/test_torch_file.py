"""Files of torch.save: torch and we read the same from each other's; nothing in them is believed, and nothing ever runs."""

import copyreg
import io
import pickle
import random
import tracemalloc
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from llamita.errors import ModelFileError
from llamita.formats.torch_file import TorchFile
from llamita.quant import Tensor, convert
from torch_files import Opcodes, call, name, pickled, saved, storage, tensor, value, wrapped

RNG = np.random.default_rng(0)
WEIGHTS = Tensor.from_array(RNG.standard_normal((4, 6), dtype=np.float32))
STATE = OrderedDict(full=WEIGHTS, half=convert(WEIGHTS, "f16"), brain=convert(WEIGHTS, "bf16"), again=WEIGHTS)
NUMBERS = np.arange(24, dtype=np.float32).tobytes()
HEAP_LIMIT_BYTES = 16 << 20
EXTENSION = 0x7B  # of copyreg, where os.system gets a number


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "weights.pth"


def read(path: Path, content: bytes) -> TorchFile:
    path.write_bytes(content)
    return TorchFile(path)


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(found) == list(expected)
    for key, one in expected.items():
        assert (found[key].dtype, found[key].shape) == (one.dtype, one.shape)
        np.testing.assert_array_equal(found[key].data, one.data)


def test_weights_are_views_of_the_file(path):
    file = read(path, saved(STATE))
    tensors = file.tensors(file.content)
    assert_equal(tensors, STATE)
    for found in tensors.values():
        assert not found.data.flags.owndata
        assert not found.data.flags.writeable
    assert np.shares_memory(tensors["full"].data, tensors["again"].data)


def test_plain_values_come_back(path):
    content = {"a": [1, -(1 << 40), 2.5, True, None], "b": {"c": ("ü", ())}, 3: "x", "empty": OrderedDict()}
    assert read(path, saved(content)).content == content


def test_a_part_of_a_storage_is_seen_as_torch_would(path):
    part = tensor(storage("FloatStorage", "0", 24), (3, 4), (6, 1), offset=2)
    file = read(path, wrapped(pickled({"part": part}), {"0": NUMBERS}))
    np.testing.assert_array_equal(file.tensors(file.content)["part"].data, np.arange(24).reshape(4, 6)[:3, 2:])


def test_parameters_are_tensors_and_versions_of_modules_are_dropped(path):
    hooks = call("collections", "OrderedDict")
    parameter = call("torch._utils", "_rebuild_parameter", tensor(storage("FloatStorage", "0", 24), (24,)), True, hooks)
    state = Opcodes(value(OrderedDict(weight=parameter)) + value({"_metadata": OrderedDict({"": {"version": 1}})}) + b"b")
    file = read(path, wrapped(pickled({"state": state}), {"0": NUMBERS}))
    np.testing.assert_array_equal(file.tensors(file.content["state"])["weight"].data, np.arange(24))  # pyright: ignore


def test_other_dtypes_are_passed_over_until_somebody_wants_them(path):
    steps = tensor(storage("LongStorage", "0", 12), (12,))
    file = read(path, wrapped(pickled({"steps": steps}), {"0": NUMBERS}))
    with pytest.raises(ModelFileError, match=r"dtype of steps: found torch.LongStorage, expected float32, float16 or bfloat16"):
        file.tensors(file.content)


@pytest.mark.parametrize("content", [[1], {}, {"a": 1}, {1: WEIGHTS}, None])
def test_what_is_no_dict_of_tensors_is_refused(path, content):
    file = read(path, saved(content))
    with pytest.raises(ModelFileError, match=r"expected (names and tensors|a dict of tensors); save the weights alone"):
        file.tensors(file.content)


def test_columns_side_by_side_are_refused_with_the_remedy(path):
    turned = tensor(storage("FloatStorage", "0", 24), (6, 4), (1, 6))
    file = read(path, wrapped(pickled({"turned": turned}), {"0": NUMBERS}))
    with pytest.raises(ModelFileError, match=r"place of turned: found strides \(1, 6\) .*; save it .contiguous\(\)"):
        file.tensors(file.content)


def test_a_file_of_old_torch_is_named(path):
    with pytest.raises(ModelFileError, match=r"found a file of torch before 1.6, expected the newer form; load and save it"):
        read(path, b"\x80\x02\x8a\x0a" + bytes(100))


def test_a_file_of_another_byte_order_is_refused(path):
    with pytest.raises(ModelFileError, match="byteorder: found another"):
        read(path, saved(STATE).replace(b"little", b"big***"))


# What runs code in Python's own pickle; {canary} is the file that it makes
ARMED: dict[str, Callable[[str], Opcodes]] = {
    "a call of os.system": lambda canary: call("os", "system", f"touch {canary}"),
    "a call of posix.system": lambda canary: call("posix", "system", f"touch {canary}"),
    "exec": lambda canary: call("builtins", "exec", f"import os; os.mkdir({canary!r})"),
    "eval": lambda canary: call("builtins", "eval", f"__import__('os').mkdir({canary!r})"),
    "eval of Python 2's name": lambda canary: call("__builtin__", "eval", f"__import__('os').mkdir({canary!r})"),
    "a call of os.mkdir": lambda canary: call("os", "mkdir", canary),
    "subprocess": lambda canary: call("subprocess", "check_call", ["touch", canary]),
    "a chain of getattr": lambda canary: Opcodes(
        call("builtins", "getattr", call("importlib", "import_module", "os"), "system") + value((f"touch {canary}",)) + b"R"
    ),
    "a name with dots by STACK_GLOBAL": lambda canary: Opcodes(
        b"\x80\x04" + value("pathlib") + value("Path.touch") + b"\x93" + value((call("pathlib", "Path", canary),)) + b"R"
    ),
    "INST": lambda canary: Opcodes(b"(" + value("touch " + canary) + b"ios\nsystem\n"),
    "OBJ": lambda canary: Opcodes(b"(" + name("os", "system") + value("touch " + canary) + b"o"),
    "NEWOBJ, and BUILD of a partial": lambda canary: Opcodes(
        name("functools", "partial") + value((name("os", "getcwd"),)) + b"\x81"
        + value((name("os", "mkdir"), (canary,), {}, None)) + b"b)R"
    ),
    "NEWOBJ_EX": lambda canary: Opcodes(
        name("functools", "partial") + value((name("os", "mkdir"),)) + value({"path": canary}) + b"\x92)R"
    ),
    "a number of copyreg": lambda canary: Opcodes(bytes([0x82, EXTENSION]) + value((f"touch {canary}",)) + b"R"),
    "a pickle inside": lambda canary: call(
        "pickle", "loads", call("_codecs", "encode", pickled(call("os", "mkdir", canary)).decode("latin-1"), "latin-1")
    ),
    "a call among the items of a state": lambda canary: value(OrderedDict(weight=call("os", "system", f"touch {canary}"))),
    "a call by map": lambda canary: call("builtins", "list", call("builtins", "map", name("os", "mkdir"), [canary])),
}  # fmt: skip

# What would make torch's own functions run code or write memory, if they were called as the pickle says
DENSE = storage("FloatStorage", "0", 24)
HOSTILE: dict[str, object] = {
    "hooks that are a call": call(
        "torch._utils", "_rebuild_tensor_v2", DENSE, 0, (4,), (1,), False, call("os", "system", "true")
    ),
    "a rebuilder of any type": call("torch._tensor", "_rebuild_from_type_v2", name("os", "system"), Opcodes(b")"), (), {}),
    "torch.load inside": call("torch", "load", "weights.pth"),
    "a method of a storage": call("torch.storage", "_load_from_bytes", "x"),
    "an OrderedDict of a call": call("collections", "OrderedDict", [("a", 1)]),
    "a defaultdict": call("collections", "defaultdict", name("collections", "OrderedDict")),
    "a call of a dict": Opcodes(b"})R"),
    "a call of a class of storages": call("torch", "FloatStorage", 10),
    "a call without arguments' tuple": Opcodes(name("collections", "OrderedDict") + b"]R"),
    "attributes of a tensor": Opcodes(tensor(DENSE, (4,)) + b"}b"),
    "attributes of a list": Opcodes(b"]}b"),
    "an item set in a list": Opcodes(value([1, 2]) + value(0) + value(5) + b"s"),
    "an item set in a tensor": Opcodes(tensor(DENSE, (4,)) + value(0) + value(5) + b"s"),
    "items set in a text": Opcodes(value("text") + b"(" + value(0) + value(5) + b"u"),
    "a key without a value": Opcodes(b"}(" + value("a") + b"u"),
    "an item for a dict's list": Opcodes(b"}" + value(1) + b"a"),
    "a storage larger than its member": tensor(storage("FloatStorage", "0", 1 << 20), (1 << 20,)),
    "a storage smaller than its member": tensor(storage("FloatStorage", "0", 6), (6,)),
    "a storage of another dtype": tensor(storage("HalfStorage", "0", 24), (24,)),
    "a storage of negative size": tensor(storage("FloatStorage", "0", -24), (4,)),
    "a storage that is not there": tensor(storage("FloatStorage", "7", 24), (24,)),
    "a storage outside the folder": tensor(storage("FloatStorage", "../data/0", 24), (24,)),
    "a tensor behind its storage": tensor(DENSE, (4,), offset=21),
    "a tensor at a negative place": tensor(DENSE, (4,), offset=-1),
    "strides beyond the storage": tensor(DENSE, (4, 6), (7, 1)),
    "negative strides": tensor(DENSE, (4, 6), (-6, 1)),
    "a small storage repeated": tensor(DENSE, (1 << 40, 24), (0, 1)),
    "a shape beyond 64 bits": tensor(DENSE, (1 << 62, 1 << 62), (0, 0)),
    "a shape with a text": tensor(DENSE, (4, "6"), (6, 1)),  # pyright: ignore[reportArgumentType]
    "fewer strides than axes": tensor(DENSE, (4, 6), (1,)),
    "nine axes": tensor(DENSE, (1,) * 9),
    "a persistent id that is a text": Opcodes(value("0") + b"Q"),
    "a persistent id without a size": Opcodes(value(("storage", name("torch", "FloatStorage"), "0", "cpu")) + b"Q"),
    "a persistent id of a module": Opcodes(value(("module", name("torch", "FloatStorage"), "0", "cpu", 24)) + b"Q"),
    "a persistent id with a list": Opcodes(value(["storage", name("torch", "FloatStorage"), "0", "cpu", 24]) + b"Q"),
    "a tensor of a dict": call("torch._utils", "_rebuild_tensor_v2", {}, 0, (4,), (1,), False, {}),
    "a parameter of a parameter's class": call("torch._utils", "_rebuild_parameter", name("torch", "Size"), True, {}),
    "tuples in tuples as a key": Opcodes(b"}" + b")" + b"\x85" * 50_000 + value(1) + b"s"),
    "lists in lists": Opcodes(b"]" * 100_000 + b"a" * 99_999),
    "marks without an end": Opcodes(b"(" * 200_000 + b"N"),
    "a text of four gigabytes": Opcodes(b"X\xff\xff\xff\xff" + b"a"),
    "a text that is no UTF-8": Opcodes(b"X\2\0\0\0\xff\xff"),
    "a name without an end": Opcodes(b"c" + b"a" * 1000),
    "an unknown place of the memo": Opcodes(b"j\xff\xff\xff\xff"),
    "more than the stack has": Opcodes(b"\x87"),
    "a mark that is not there": Opcodes(b"t"),
    "an empty stack": Opcodes(b"0"),
    "a frame": Opcodes(b"\x95" + b"\xff" * 8),
    "bytes of protocol 5": Opcodes(b"\x96" + b"\xff" * 8),
    "an integer of Python 1": Opcodes(b"L" + b"9" * 100_000 + b"L\n"),
    "an unknown opcode": Opcodes(b"\xfe"),
    "two objects": Opcodes(b"NN"),
    "a pickle in a pickle": Opcodes(b"N.\x80\x02N"),
}  # fmt: skip


@pytest.mark.parametrize("payload", ARMED)
def test_a_pickle_that_would_run_code_is_refused_and_does_not(payload, path, tmp_path):
    content = pickled({"weight": ARMED[payload](str(tmp_path / "canary"))})
    with pytest.raises(ModelFileError, match=r"data.pkl: found (the name|opcode|protocol) "):
        read(path, wrapped(content))
    assert list(tmp_path.iterdir()) == [path]


def test_the_same_pickles_do_run_code_in_pythons_own_reader(tmp_path):
    copyreg.add_extension("os", "system", EXTENSION)
    try:
        for payload in ARMED:
            canary = tmp_path / payload.replace(" ", "_").replace("'", "")
            with suppress(TypeError):  # of what comes after the call
                pickle.loads(pickled({"weight": ARMED[payload](str(canary))}))
            assert canary.exists(), payload
    finally:
        copyreg.remove_extension("os", "system", EXTENSION)


@pytest.mark.parametrize("fault", HOSTILE)
def test_a_hostile_pickle_is_refused_with_one_line_and_little_memory(fault, path):
    content = wrapped(pickled({"weight": HOSTILE[fault]}), {"0": NUMBERS})
    tracemalloc.start()
    try:
        with pytest.raises(ModelFileError, match=r"weights.pth: data.pkl: found ") as caught:
            read(path, content)
        assert tracemalloc.get_traced_memory()[1] < len(content) + HEAP_LIMIT_BYTES
    finally:
        tracemalloc.stop()
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("content", [b"", b"\x80", b"\x80\x02", b"\x80\x02.", b"\x80\x02(.", b"\x80\x02(N.", b"\x80\x04N."])
def test_a_pickle_of_nothing_is_refused(path, content):
    with pytest.raises(ModelFileError, match=r"data.pkl: found "):
        read(path, wrapped(content))


def is_read(path: Path, content: bytes) -> bool:
    """Whether weights were read; anything but a refusal of one line fails the test."""
    line = ""
    try:
        file = read(path, content)
        if isinstance(file.content, dict):
            file.tensors(file.content.get("model"))
    except ModelFileError as error:
        line = str(error)
    assert not line or line.isprintable()
    return not line


def test_damaged_files_are_read_or_refused(path):
    """Half of them have a checksum that fits, so that the damage reaches the pickle."""
    storages: dict[str, bytes] = {}
    good = pickled({"model": STATE, "config": {"dim": 6, "rates": [0.5, None]}}, storages)
    rng = random.Random(0)
    n_read = 0
    for i in range(400):
        content = bytearray(good if i % 2 else wrapped(good, storages))
        for _ in range(rng.randint(1, 3)):
            place = rng.randrange(len(content))
            content[place] = rng.choice([content[place] ^ 1 << rng.randrange(8), *b"\x00\xff.(RQtscub}])", rng.randrange(256)])
        n_read += is_read(path, wrapped(bytes(content), storages) if i % 2 else bytes(content))
    assert 0 < n_read < 400


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_what_torch_saved_is_read_as_torch_has_it(path, dtype):
    torch = pytest.importorskip("torch")
    linear = torch.nn.Linear(6, 4, bias=False, dtype=getattr(torch, dtype))
    content = {"model": linear.state_dict(), "parameter": linear.weight, "step": torch.tensor(3.0), "args": {"dim": 6}}
    content["part"] = linear.weight.detach()[1:3, 2:]
    torch.save(content, path)
    file = TorchFile(path)
    assert isinstance(file.content, dict)
    tensors = file.tensors(file.content["model"] | {key: file.content[key] for key in ("parameter", "part", "step")})
    for key, expected in {"weight": linear.weight, "parameter": linear.weight, "part": content["part"]}.items():
        np.testing.assert_array_equal(tensors[key].dequantize(), expected.detach().float().numpy())
    assert float(tensors["step"].data) == 3.0
    assert file.content["args"] == {"dim": 6}


def test_torch_reads_what_the_builder_of_these_tests_writes():
    torch = pytest.importorskip("torch")
    content = torch.load(io.BytesIO(saved({"model": STATE, "args": [1, None, (2.5, "ü")]})), weights_only=True)
    assert content["args"] == [1, None, (2.5, "ü")]
    for key, expected in STATE.items():
        np.testing.assert_array_equal(content["model"][key].float().numpy(), expected.dequantize())
