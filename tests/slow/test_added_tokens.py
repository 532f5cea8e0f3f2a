"""transformers and llama.cpp know the marks that were added to a vocabulary, and transformers counts what we count."""

from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from llamita.config import ModelConfig
from llamita.formats import write_model
from llamita.model import Model, random_model, with_more_rows
from llamita.tokenizer import Tokenizer
from llamita.tokenizer.added_tokens import missing_marks, with_special_tokens
from llamita.tokenizer.chat_template import open_template
from llamita.tokenizer.library import LibraryTokenizer
from llamita.tokenizer.published_templates import jinja_of
from llamita.tokenizer.sentencepiece import parse_sentencepiece
from small_vocabularies import byte_level

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # their warnings are not ours to mend

TALK = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Once upon a time, 日本?"},
    {"role": "assistant", "content": "They played.\n"},
    {"role": "user", "content": " So?"},
    {"role": "assistant", "content": " The end 😀"},
]
MARKED = "a<|im_start|>user\nHello<|im_end|>\n"


@pytest.fixture(params=["sentencepiece", "byte-level"])
def model(request, toy_sentencepiece_bytes: bytes) -> Model:
    library = LibraryTokenizer(byte_level("gpt-2", marks=("<s>", "</s>")))
    plain: Tokenizer = {
        "sentencepiece": parse_sentencepiece(toy_sentencepiece_bytes, "toy"),
        "byte-level": library.with_ends(library.token_id("<s>"), library.token_id("</s>"), adds_bos=True),
    }[request.param]
    tokenizer = with_special_tokens(plain, missing_marks("chatml", plain))
    template = open_template("chatml", tokenizer)
    base = replace(random_model(ModelConfig(64, 1, 2, 2, 64, plain.vocab_size, 128), seed=3), tokenizer=plain)
    grown = with_more_rows(base, tokenizer.vocab_size)
    return replace(grown, tokenizer=tokenizer, chat_template=jinja_of(template), stop_ids=tuple(sorted(template.stop_ids)))


def test_transformers_loads_the_marks_and_the_template_and_leaves_the_marks_out_of_texts(model: Model, tmp_path: Path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    write_model(model, tmp_path / "model", "safetensors")
    theirs, ours = transformers.AutoTokenizer.from_pretrained(tmp_path / "model"), cast(Tokenizer, model.tokenizer)
    assert len(theirs) == ours.vocab_size
    assert theirs.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"]) == [ours.vocab_size - 2, ours.vocab_size - 1]
    assert {"<|im_start|>", "<|im_end|>"} <= {*theirs.all_special_tokens}
    ids = open_template("chatml", ours).encode(TALK)
    assert theirs.apply_chat_template(TALK, add_generation_prompt=True)["input_ids"] == ids
    assert theirs.decode(ids, skip_special_tokens=True).split() == ours.decode(ids).split()
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert loaded.get_input_embeddings().weight.shape[0] == ours.vocab_size
    assert ours.vocab_size - 1 in loaded.generation_config.eos_token_id


def test_transformers_masks_what_we_count(model: Model, tmp_path: Path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    write_model(model, tmp_path / "model", "safetensors")
    theirs, ours = transformers.AutoTokenizer.from_pretrained(tmp_path / "model"), cast(Tokenizer, model.tokenizer)
    source = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
        "{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}"
        "{% else %}{{ m.content }}<|im_end|>{% endif %}{{ '\n' }}{% endfor %}"
    )
    found = theirs.apply_chat_template(TALK, chat_template=source, return_dict=True, return_assistant_tokens_mask=True)
    for template in (source, "chatml"):
        (example,) = open_template(template, ours).encode_answers(TALK)
        assert example.ids == found["input_ids"]
        assert example.counted == [bool(flag) for flag in found["assistant_masks"]]


def test_llama_cpp_takes_the_marks_for_tokens_that_are_no_text(model: Model, tmp_path: Path):
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    write_model(model, tmp_path / "model.gguf", "gguf")
    llama = llama_cpp.Llama(str(tmp_path / "model.gguf"), vocab_only=True, verbose=False)
    ours = cast(Tokenizer, model.tokenizer)
    ids = llama.tokenize(MARKED.encode(), add_bos=False, special=True)
    assert ids == ours.encode_marked(MARKED)
    assert ours.vocab_size - 1 not in llama.tokenize(MARKED.encode(), add_bos=False, special=False)
    assert llama.metadata["tokenizer.chat_template"] == model.chat_template
    assert llama_cpp.llama_vocab_is_eog(llama._model.vocab, ours.vocab_size - 1)
