"""Records of every shape that people keep chats in become the same chat; what is no chat is said in one line."""

import json
from typing import Any

import pytest

from llamita.data.chat_options import ChatOptions
from llamita.data.chat_records import BadChatError, Chat, read_chats, shape_of
from llamita.errors import SettingError

DEFAULTS = ChatOptions()
PAIRS = ChatOptions(kind="pairs")
ASKED = {"role": "user", "content": "Who?"}
SAID = {"role": "assistant", "content": "Lily."}
OTHER = {"role": "assistant", "content": "Nobody."}
RECORDS: dict[str, list[Any]] = {
    "openai": [
        {"messages": [ASKED, SAID]},
        {"messages": [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "Lily."}], "id": 7},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Who?"}]}, SAID | {"refusal": None}]},
        {"messages": [ASKED, SAID, {"role": "user", "content": "And then?"}]},
        [ASKED, SAID],
    ],
    "sharegpt": [
        {"conversations": [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "Lily."}]},
        {"conversation": [{"from": "user", "value": "Who?"}, {"from": "chatgpt", "value": "Lily."}]},
        {"conversations": [ASKED, SAID], "system": ""},
    ],
    "alpaca": [
        {"instruction": "Who?", "input": "", "output": "Lily."},
        {"instruction": "Who?", "output": "Lily.", "input": None},
        {"instruction": "Who?", "response": "Lily.", "context": ""},
    ],
    "completion": [
        {"prompt": "Who?", "completion": "Lily."},
        {"question": "Who?", "answer": "Lily."},
        {"prompt": [ASKED], "completion": [SAID]},
        {"prompt": "Who?", "response": "Lily."},
    ],
}
PAIR_RECORDS: list[Any] = [
    {"prompt": "Who?", "chosen": "Lily.", "rejected": "Nobody."},
    {"prompt": [ASKED], "chosen": [SAID], "rejected": [OTHER]},
    {"chosen": [ASKED, SAID], "rejected": [ASKED, OTHER]},
    {"prompt": "Who?", "chosen": [ASKED, SAID], "rejected": [ASKED, OTHER]},
    {"conversations": [{"from": "human", "value": "Who?"}], "chosen": {"from": "gpt", "value": "Lily."}, "rejected": OTHER},
    {"instruction": "Who?", "input": "", "chosen": "Lily.", "rejected": "Nobody."},
]


def read(record: object, options: ChatOptions = DEFAULTS) -> Chat:
    (chat,) = read_chats(record, options.shape or shape_of(record, options), options)
    return chat


def refused(record: object, options: ChatOptions = DEFAULTS) -> BadChatError:
    with pytest.raises(BadChatError) as caught:
        read_chats(record, options.shape or shape_of(record, options), options)
    assert len(str(caught.value)) < 500
    return caught.value


@pytest.mark.parametrize(("shape", "record"), [(shape, record) for shape, records in RECORDS.items() for record in records])
def test_every_shape_is_known_and_gives_the_same_chat(shape: str, record: object):
    assert shape_of(record, DEFAULTS) == shape
    assert read(record) == Chat([ASKED, SAID], frozenset({1}))


@pytest.mark.parametrize("record", PAIR_RECORDS, ids=str)
def test_every_form_of_a_pair_gives_the_same_two_chats(record: object):
    assert shape_of(record, PAIRS) == "pairs"
    chosen, rejected = read_chats(record, "pairs", PAIRS)
    assert chosen == Chat([ASKED, SAID], frozenset({1}))
    assert rejected == Chat([ASKED, OTHER], frozenset({1}))


def test_of_pairs_only_what_differs_is_learned():
    more = {"role": "user", "content": "And then?"}
    record = {"chosen": [ASKED, SAID, more, SAID], "rejected": [ASKED, SAID, more, OTHER]}
    assert [chat.learned for chat in read_chats(record, "pairs", PAIRS)] == [{3}, {3}]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"prompt": "Who?", "chosen": "a", "rejected": "a"}, "equal answers"),
        ({"chosen": [ASKED, SAID], "rejected": [{"role": "user", "content": "Why?"}, OTHER]}, "two prompts"),
        ({"chosen": "a", "rejected": "b"}, "no answer"),
        ({"prompt": "Who?", "chosen": "a", "rejected": " "}, "empty answer"),
        ({"prompt": "Who?", "chosen": "a", "rejected": 3}, "no text"),
        ({"prompt": "Who?", "chosen": [SAID], "rejected": [OTHER, ASKED, SAID]}, None),
    ],
)
def test_what_is_no_pair_is_refused(record: dict, reason: str | None):
    if reason is None:
        assert [len(chat.messages) for chat in read_chats(record, "pairs", PAIRS)] == [2, 4]
    else:
        assert refused(record, PAIRS).reason == reason


@pytest.mark.parametrize(
    ("record", "reason", "complaint"),
    [
        ("text", "no chat", "found str 'text', expected an object"),
        (None, "no chat", "found nothing, expected an object"),
        ({"text": "a"}, "no chat", "found the fields text, expected messages, conversations"),
        ({"messages": []}, "no chat", "found list [], expected a list of messages"),
        ({"messages": {}}, "no chat", "expected a list of messages"),
        ({"messages": [ASKED, "x"]}, "wrong role", "message 1: found str 'x', expected system"),
        ({"messages": [ASKED, {"content": "x"}]}, "wrong role", "message 1: found the role nothing"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "wrong role", "the role str 'wizard'"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "wrong role", "the role list"),
        ({"messages": [ASKED, {"role": "assistant", "content": 5}]}, "no text", "message 1: found int 5, expected a text"),
        ({"messages": [ASKED, {"role": "assistant"}]}, "no text", "message 1: found nothing, expected a text"),
        (
            {"messages": [ASKED, {"role": "assistant", "content": [{"type": "image_url"}]}]},
            "no text",
            "found a part that is no",
        ),
        ({"messages": [ASKED, {"role": "assistant", "content": "a\ud800"}]}, "no text", "half a surrogate pair"),
        ({"messages": [ASKED, {"role": "assistant", "content": " \n"}]}, "empty answer", "message 1: found an empty answer"),
        ({"messages": [ASKED]}, "no answer", "found messages of user, expected an answer"),
        ({"messages": [SAID, ASKED]}, "no answer", "found messages of assistant, user, expected"),
        ({"messages": [ASKED, SAID | {"weight": 0}]}, "no answer", "expected an answer of the assistant"),
        ({"messages": [ASKED, SAID | {"weight": "1"}]}, "no chat", "weight: found str '1', expected 0 or 1"),
        ({"instruction": "a", "output": ""}, "empty answer", "message 1"),
        ({"instruction": 4, "output": "b"}, "no text", "instruction or input: found int 4"),
        ({"instruction": "a", "input": [1], "output": "b"}, "no text", "instruction or input: found list [1]"),
        ({"instruction": "a", "output": None}, "no text", "message 1: found nothing"),
        ({"instruction": "a", "output": "b", "history": ["x"]}, "no chat", "history: found str 'x'"),
        ({"prompt": None, "completion": "a"}, "no answer", "found messages of assistant"),
        ({"prompt": "a", "completion": ["x"]}, "wrong role", "message 0: found str 'x'"),
    ],
)
def test_what_is_no_chat_is_one_line(record: object, reason: str, complaint: str):
    error = refused(record)
    assert error.reason == reason
    assert complaint in str(error)


def test_a_shape_that_was_set_is_what_counts():
    record = {"prompt": "a", "completion": "b", "messages": [ASKED, SAID]}
    assert read(record).messages == [ASKED, SAID]
    assert read(record, ChatOptions(shape="completion")).messages[0]["content"] == "a"
    assert "found no field 'conversations', expected one" in str(refused(record, ChatOptions(shape="sharegpt")))


def test_fields_with_other_names_are_named():
    options = ChatOptions(columns={"prompt": "q", "completion": "a1"})
    assert read({"q": "Who?", "a1": "Lily.", "a2": "x"}, options).messages == [ASKED, SAID]
    assert "found no field 'a1', expected one as completion; it has q" in str(refused({"q": "Who?"}, options))


def test_instructions_come_with_their_input_system_and_history():
    record = {"instruction": "Add.", "input": "1 2", "output": "3", "system": "Be exact.", "history": [["Hi", "Ho"]]}
    chat = read(record)
    assert [message["role"] for message in chat.messages] == ["system", "user", "assistant", "user", "assistant"]
    assert [message["content"] for message in chat.messages] == ["Be exact.", "Hi", "Ho", "Add.\n\n1 2", "3"]
    assert chat.learned == {2, 4}


def test_the_prompt_of_alpaca_is_stanfords():
    options = ChatOptions(alpaca_prompt=True)
    paired, alone = (read({"instruction": "Add.", "input": given, "output": "3"}, options) for given in ("1 2", ""))
    assert paired.messages[0]["content"] == (
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response:"
    )
    assert alone.messages[0]["content"] == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nAdd.\n\n### Response:"
    )


def test_placeholders_are_filled_and_those_without_a_value_are_told():
    record = {"instruction": "{{ name }}?", "output": "I am {{name}}, by {{author}}; {{x y}} {}"}
    chat = read(record, ChatOptions(values={"name": "Tiny {{author}}"}))
    expected = ["Tiny {{author}}?", "I am Tiny {{author}}, by {{author}}; {{x y}} {}"]
    assert [message["content"] for message in chat.messages] == expected
    assert chat.unfilled == {"author"}


SYSTEM = {"role": "system", "content": "Be kind."}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (ChatOptions(), [SYSTEM, ASKED, SAID]),
        (ChatOptions(system_messages="drop"), [ASKED, SAID]),
        (ChatOptions(system_messages="fold"), [{"role": "user", "content": "Be kind.\n\nWho?"}, SAID]),
        (ChatOptions(system="Be brief."), [SYSTEM, ASKED, SAID]),
    ],
)
def test_system_messages_are_kept_folded_or_dropped(options: ChatOptions, expected: list):
    chat = read({"messages": [SYSTEM, ASKED, SAID]}, options)
    assert chat.messages == expected
    assert chat.learned == {len(expected) - 1}


def test_what_is_told_first_stands_where_a_chat_does_not_say_it():
    record = {"messages": [ASKED, SAID]}
    assert read(record, ChatOptions(system="Be kind.")).messages == [SYSTEM, ASKED, SAID]
    folded = read(record, ChatOptions(system="Be kind.", system_messages="fold"))
    assert folded.messages[0]["content"] == "Be kind.\n\nWho?"
    error = refused({"messages": [ASKED, SAID, SYSTEM]}, ChatOptions(system_messages="fold"))
    assert error.reason == "no question"


def test_answers_of_no_weight_are_read_but_not_learned():
    chat = read({"messages": [ASKED, SAID | {"weight": 0}, ASKED, SAID | {"weight": 1}, ASKED, SAID | {"weight": 0}]})
    assert chat.learned == {3}
    assert chat.messages == [ASKED, SAID, ASKED, SAID]


def test_tools_and_calls_go_to_the_template():
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
    result = {"role": "tool", "content": "3", "tool_call_id": "x"}
    chat = read({"messages": [ASKED, call, result, SAID], "tools": [{"type": "function"}]})
    assert chat.variables == {"tools": [{"type": "function"}]}
    assert chat.messages[1] == {"role": "assistant", "tool_calls": call["tool_calls"]}
    assert chat.messages[2] == result
    assert chat.learned == {1, 3}


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"kind": "talks"}, "kind: found 'talks', expected chats or pairs"),
        ({"shape": "csv"}, "shape: found 'csv'"),
        ({"system_messages": "x"}, "system_messages"),
        ({"too_long": "x"}, "too_long"),
        ({"on_bad": "x"}, "on_bad"),
        ({"mask": "x"}, "mask"),
        ({"kind": "pairs", "mask": "all"}, "mask: found all"),
        ({"context": 1}, "context: found 1"),
        ({"validation_share": 0.0}, "validation_share: found 0.0"),
        ({"validation_share": 1.0}, "validation_share"),
        ({"validation_share": float("nan")}, "validation_share"),
    ],
)
def test_options_out_of_range_are_refused(wrong: dict, complaint: str):
    with pytest.raises(SettingError, match="found") as caught:
        ChatOptions(**wrong).validate()
    assert complaint in str(caught.value)


def test_records_are_what_json_holds():
    for records in RECORDS.values():
        assert json.loads(json.dumps(records)) == records
