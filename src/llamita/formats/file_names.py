"""How the files of each format are called and begin: what tells one from another before any reader is loaded."""

import mmap

# of a Hugging Face folder; the first weights that are there count, as in transformers
CONFIG_NAME = "config.json"
GENERATION_NAME = "generation_config.json"
WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
TORCH_WEIGHTS_NAME = "pytorch_model.bin"
TORCH_INDEX_NAME = "pytorch_model.bin.index.json"
SHARDS = ("model-*-of-*.safetensors", "pytorch_model-*-of-*.bin")  # any of which stands for its folder
MAIN_NAMES = (CONFIG_NAME, WEIGHTS_NAME, INDEX_NAME, TORCH_WEIGHTS_NAME, TORCH_INDEX_NAME)

PARAMS_NAME = "params.json"  # of Meta's folders

# of PEFT's folders
ADAPTER_CONFIG_NAME = "adapter_config.json"
ADAPTER_WEIGHTS_NAME = "adapter_model.safetensors"
ADAPTER_TORCH_NAME = "adapter_model.bin"

ZIP_MAGIC = b"PK\3\4"
OLD_TORCH_MAGIC = b"\x80\x02\x8a\x0a"  # how files of torch before 1.6 begin


def is_safetensors(data: bytes | mmap.mmap) -> bool:
    """Whether a file begins as one of safetensors: the length of a header that can be, in eight bytes, then a JSON object."""
    return int.from_bytes(data[:8], "little") < 1 << 32 and data[8:9] == b"{"
