"""Training checkpoints of llama2.c: the ckpt.pt of its train.py, a file of torch.save with model, model_args and more.

Weights stay views of the mapped file; the optimizer's state is passed over unread. Knows no tokenizer. Source: train.py and
export.py of llama2.c.
"""

from os import PathLike

from llamita.errors import ModelFileError
from llamita.formats.json_text import shown
from llamita.formats.meta_weights import Params, build_model
from llamita.formats.torch_file import TorchFile
from llamita.model import Model

_COMPILED_PREFIX = "_orig_mod."  # which torch.compile puts before every name


def read(path: str | PathLike[str]) -> Model:
    """Read a ckpt.pt as a Model of read-only views without a tokenizer; raise ModelFileError for anything else."""
    file = TorchFile(path)
    content = file.content
    if type(content) is not dict or not {"model", "model_args"} <= set(content):
        found = f"a {type(content).__name__}"
        if type(content) is dict:
            found = shown(f"{len(content)} entries, {', '.join(map(str, content))}")
        remedy = "of a model of Meta or Hugging Face, name the folder"
        raise ModelFileError(path, "content", found, "model and model_args, as llama2.c's train.py saves them", remedy)
    values = content["model_args"]
    if type(values) is not dict:
        raise ModelFileError(path, "model_args", f"a {type(values).__name__}", "a dict of numbers")
    tensors = file.tensors(content["model"], "model")
    stored = {name.removeprefix(_COMPILED_PREFIX): tensor for name, tensor in tensors.items()}
    return build_model(path, stored, Params(values, path), "llama2.c checkpoint")
