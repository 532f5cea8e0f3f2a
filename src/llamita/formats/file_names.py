"""How the files of each format are called and begin: what tells one from another before any reader is loaded."""

# of a Hugging Face folder; the first weights that are there count, as in transformers
CONFIG_NAME = "config.json"
GENERATION_NAME = "generation_config.json"
WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
TORCH_WEIGHTS_NAME = "pytorch_model.bin"
TORCH_INDEX_NAME = "pytorch_model.bin.index.json"
MAIN_NAMES = (CONFIG_NAME, WEIGHTS_NAME, INDEX_NAME, TORCH_WEIGHTS_NAME, TORCH_INDEX_NAME)

PARAMS_NAME = "params.json"  # of Meta's folders

# of PEFT's folders
ADAPTER_CONFIG_NAME = "adapter_config.json"
ADAPTER_WEIGHTS_NAME = "adapter_model.safetensors"
ADAPTER_TORCH_NAME = "adapter_model.bin"

ZIP_MAGIC = b"PK\3\4"
OLD_TORCH_MAGIC = b"\x80\x02\x8a\x0a"  # how files of torch before 1.6 begin
