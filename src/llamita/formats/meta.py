"""Meta's folders of a Llama: params.json and consolidated.NN.pth, one file for each device that the model was split over.

The files are read by torch_file.py, which runs nothing. One file: its tensors stay views of the mapped file. Several: each
matrix is joined when it is touched (joined_tensor.py). Knows no tokenizer, which lies beside or, of Llama 2, one folder up.
Source: checkpoint.py of github.com/meta-llama/llama-models; export.py of llama2.c.
"""

from os import PathLike
from pathlib import Path

from llamita.errors import ModelFileError
from llamita.files import read_file
from llamita.formats.file_names import PARAMS_NAME
from llamita.formats.joined_tensor import JoinedTensor
from llamita.formats.json_text import parse_object, shown
from llamita.formats.meta_weights import Params, build_model
from llamita.formats.torch_file import read_weights
from llamita.model import Model
from llamita.quant import Tensor

_SPLIT_ALONG_COLUMNS = (".attention.wo.weight", ".feed_forward.w2.weight")
_MAX_CONFIG_BYTES = 1 << 16
_MAX_FILES = 64


def read(folder: str | PathLike[str]) -> Model:
    """Read a folder with params.json and consolidated.00.pth, and those that follow, as a Model without a tokenizer.

    Raises ModelFileError for anything but a Llama whose tensors are all there, and nothing else is.
    """
    folder = Path(folder)
    config_path = folder / PARAMS_NAME
    params = Params(parse_object(read_file(config_path, _MAX_CONFIG_BYTES), config_path), config_path)
    width = params.count("dim", "width")
    shards = [read_weights(path) for path in weight_paths(folder)]
    for shard in shards[1:]:
        if differing := sorted(set(shard) ^ set(shards[0])):
            raise ModelFileError(folder, "tensors", f"{shown(differing[0])} in some files only", "the same names in all files")
    stored = {name: _join(folder, name, [shard[name] for shard in shards], width) for name in shards[0]}
    return build_model(folder, stored, params, "Meta")


def weight_paths(folder: str | PathLike[str]) -> list[Path]:
    """The files that hold the weights of a folder, in order; raise ModelFileError where one is missing."""
    folder = Path(folder)
    found = sorted(path.name for path in folder.glob("consolidated.*.pth"))
    expected = [f"consolidated.{i:02d}.pth" for i in range(max(len(found), 1))]
    if found != expected or len(found) > _MAX_FILES:
        missing = next((name for name in expected if name not in found), f"at most {_MAX_FILES} files")
        raise ModelFileError(
            folder, "weights", shown(", ".join(found) or "no consolidated.*.pth"), missing, "is the folder complete?"
        )
    return [folder / name for name in found]


def _join(folder: Path, name: str, pieces: list[Tensor], width: int) -> Tensor:
    """One tensor of its pieces: matrices along the axis that Meta split, vectors as each file has them whole.

    Llama 2's embedding is split along its columns, Llama 3's along the vocabulary: its pieces' width tells.
    """
    first = pieces[0]
    if len(pieces) == 1 or len(first.shape) != 2:
        return first
    by_columns = name.endswith(_SPLIT_ALONG_COLUMNS) or (name == "tok_embeddings.weight" and first.shape[1] != width)
    axis = 1 if by_columns else 0
    for piece in pieces:
        if piece.dtype != first.dtype or len(piece.shape) != 2 or piece.shape[1 - axis] != first.shape[1 - axis]:
            found = f"{piece.dtype} {piece.shape} beside {first.dtype} {first.shape}"
            raise ModelFileError(folder, f"pieces of {shown(name)}", found, "pieces of one matrix")
    return JoinedTensor.of(pieces, axis)
