"""The corpus of hostile files: by kind, the cases that must be refused and the sound files that they damage.

A stranger's file may be cut off, mislabelled, damaged or made to hurt. Add a case where a reader believed something: a line in
the module of the format, with the sentence that says what is wrong.
"""

from hostile import (
    adapters,
    archives,
    configs,
    gguf_containers,
    gguf_models,
    llama2c,
    meta_folders,
    pickles,
    piece_lists,
    safetensors,
    sentencepiece,
    shards,
    tokenizer_json,
)

KINDS = {
    "llama2.c": llama2c,
    "safetensors": safetensors,
    "shards": shards,
    "config": configs,
    "adapter": adapters,
    "zip": archives,
    "pickle": pickles,
    "Meta": meta_folders,
    "GGUF container": gguf_containers,
    "GGUF model": gguf_models,
    "pieces": piece_lists,
    "sentencepiece": sentencepiece,
    "tokenizer.json": tokenizer_json,
}
