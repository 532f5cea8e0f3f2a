"""What a Hugging Face folder says beside config and weights: read in every way that real folders say it, refused if broken."""

import json

import pytest

from llamita.errors import ModelFileError
from llamita.formats.huggingface_extras import Ends, read_chat_template, read_ends, read_stop_ids

TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


def write(folder, name: str, value: object) -> None:
    (folder / name).write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")


def read_all(folder) -> None:
    read_ends(folder)
    read_chat_template(folder)
    read_stop_ids(folder, 8)


def test_an_empty_folder_says_nothing(tmp_path):
    assert read_ends(tmp_path) == Ends(None, None, None)
    assert read_chat_template(tmp_path) == ""
    assert read_stop_ids(tmp_path, 100) == ()


def test_special_tokens_are_spelled_by_themselves_or_with_flags(tmp_path):
    eos = {"__type": "AddedToken", "content": "</s>", "lstrip": False}
    write(tmp_path, "tokenizer_config.json", {"bos_token": "<s>", "eos_token": eos, "add_bos_token": True})
    assert read_ends(tmp_path) == Ends("<s>", "</s>", True)


def test_null_means_that_there_is_none(tmp_path):
    write(tmp_path, "tokenizer_config.json", {"bos_token": None, "eos_token": "<|im_end|>"})
    assert read_ends(tmp_path) == Ends("", "<|im_end|>", None)


def test_the_older_file_of_special_tokens_counts_where_the_newer_says_nothing(tmp_path):
    write(tmp_path, "special_tokens_map.json", {"bos_token": "<a>", "eos_token": "<b>"})
    write(tmp_path, "tokenizer_config.json", {"eos_token": "<c>"})
    assert read_ends(tmp_path) == Ends("<a>", "<c>", None)


@pytest.mark.parametrize(
    "template",
    [TEMPLATE, [{"name": "tool_use", "template": "no"}, {"name": "default", "template": TEMPLATE}]],
    ids=["a text", "named ones"],
)
def test_the_chat_template_is_read_from_the_tokenizers_config(tmp_path, template):
    write(tmp_path, "tokenizer_config.json", {"chat_template": template})
    assert read_chat_template(tmp_path) == TEMPLATE


def test_named_templates_without_a_default_are_none(tmp_path):
    write(tmp_path, "tokenizer_config.json", {"chat_template": [{"name": "rag", "template": "x"}, 7]})
    assert read_chat_template(tmp_path) == ""


def test_a_template_in_a_file_of_its_own_comes_first(tmp_path):
    write(tmp_path, "tokenizer_config.json", {"chat_template": "old"})
    write(tmp_path, "chat_template.jinja", TEMPLATE)
    assert read_chat_template(tmp_path) == TEMPLATE


@pytest.mark.parametrize(("value", "expected"), [(2, (2,)), ([2, 7, 2], (2, 7)), ([], ()), (-1, ()), (None, ())])
def test_stop_ids_are_a_number_or_a_list(tmp_path, value, expected):
    write(tmp_path, "generation_config.json", {"eos_token_id": value})
    assert read_stop_ids(tmp_path, 8) == expected


def test_config_json_counts_where_generation_config_says_nothing(tmp_path):
    write(tmp_path, "config.json", {"eos_token_id": [3, 4]})
    assert read_stop_ids(tmp_path, 8) == (3, 4)
    write(tmp_path, "generation_config.json", {"temperature": 0.6})
    assert read_stop_ids(tmp_path, 8) == (3, 4)
    write(tmp_path, "generation_config.json", {"eos_token_id": 5})
    assert read_stop_ids(tmp_path, 8) == (5,)


BROKEN = [
    ("tokenizer_config.json", {"bos_token": 1}, "bos_token: found 1"),
    ("tokenizer_config.json", {"eos_token": {"content": ["x"]}}, "eos_token: found"),
    ("tokenizer_config.json", {"add_bos_token": "yes"}, "add_bos_token: found yes, expected true or false"),
    ("tokenizer_config.json", {"chat_template": 5}, "chat_template: found 5"),
    ("tokenizer_config.json", {"chat_template": [{"name": "default", "template": 5}]}, "chat_template: found 5"),
    ("tokenizer_config.json", "[]", "content: found"),
    ("tokenizer_config.json", "[" * 100_000, "content: found"),
    ("generation_config.json", {"eos_token_id": 8}, "eos_token_id: found 8, expected ids below"),
    ("generation_config.json", {"eos_token_id": [1, "2"]}, "eos_token_id: found"),
    ("generation_config.json", {"eos_token_id": True}, "eos_token_id: found True"),
    ("generation_config.json", {"eos_token_id": {}}, "eos_token_id: found"),
]


@pytest.mark.parametrize(("name", "value", "message"), BROKEN)
def test_what_is_broken_is_named(tmp_path, name, value, message):
    write(tmp_path, name, value)
    with pytest.raises(ModelFileError, match=f"{name}: {message}") as caught:
        read_all(tmp_path)
    assert len(str(caught.value)) < 400


def test_a_template_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(ModelFileError, match=r"chat_template.jinja: content: found .* expected text in UTF-8"):
        read_chat_template(tmp_path)
