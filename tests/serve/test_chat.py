"""POST /v1/chat/completions: messages in, messages out."""

from dataclasses import replace

import pytest
from web import Web, serving, talk

from llamita.model import Model
from llamita.serve.responses import ChatChunk, ChatResponse


def test_an_answer_has_the_shape_of_openai(web: Web):
    answer = web.chat("Hello", max_tokens=8, n=2, logprobs=True, top_logprobs=3)
    ChatResponse.model_validate(answer)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    for choice in answer["choices"]:
        assert "".join(t["token"] for t in choice["logprobs"]["content"]).startswith(choice["message"]["content"][:1])
        assert all(len(token["top_logprobs"]) == 3 for token in choice["logprobs"]["content"])


def test_a_stream_says_who_speaks_then_what_then_why_it_ends(web: Web):
    body = {"messages": talk("Hello"), "max_tokens": 8, "seed": 6}
    events = web.post("/v1/chat/completions", body | {"stream": True}).events
    for event in events:
        ChatChunk.model_validate(event)
        assert "usage" not in event
    first, *middle, last = [event["choices"][0] for event in events]
    assert first["delta"] == {"role": "assistant", "content": ""}
    assert all(set(part["delta"]) == {"content"} for part in middle)
    assert (last["delta"], last["finish_reason"]) == ({}, "length")
    assert (
        "".join(part["delta"]["content"] for part in middle)
        == web.chat("Hello", max_tokens=8, seed=6)["choices"][0]["message"]["content"]
    )


def test_logprobs_of_a_stream_are_those_of_the_whole(web: Web):
    body = {"messages": talk("Hello"), "max_tokens": 12, "seed": 8, "logprobs": True, "top_logprobs": 1}
    whole = web.chat("Hello", max_tokens=12, seed=8, logprobs=True, top_logprobs=1)["choices"][0]["logprobs"]["content"]
    parts = [event["choices"][0]["logprobs"] for event in web.post("/v1/chat/completions", body | {"stream": True}).events]
    assert [token for part in parts if part for token in part["content"]] == whole


def test_without_a_limit_an_answer_fills_the_context(web: Web):
    answer = web.chat("Hello", ignore_eos=True)
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["total_tokens"] == web.get("/v1/models").json["data"][0]["max_model_len"]


def test_the_newer_name_of_the_limit_counts(web: Web):
    assert web.chat("Hello", max_tokens=5, max_completion_tokens=2, ignore_eos=True)["usage"]["completion_tokens"] == 2


def test_content_may_come_in_parts_and_roles_have_their_new_names(web: Web):
    parts = [{"type": "text", "text": "Hello"}, {"type": "text", "text": "you"}]
    messages = [{"role": "developer", "content": "Be kind."}, {"role": "user", "content": parts}]
    as_one = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello\nyou"}]
    answers = [web.post("/v1/chat/completions", {"messages": m, "seed": 1, "max_tokens": 5}).json for m in (messages, as_one)]
    assert answers[0]["choices"] == answers[1]["choices"]


def test_pictures_are_refused_by_name(web: Web):
    picture = [{"type": "image_url", "image_url": {"url": "data:,"}}]
    answer = web.post("/v1/chat/completions", {"messages": [{"role": "user", "content": picture}]})
    assert answer.status == 400
    assert "image_url" in answer.error["message"]


def test_a_template_of_the_model_writes_messages_and_its_end_ends_answers(toy_model: Model):
    source = "{% for m in messages %}<s>{{ m.role }}: {{ m.content }}{% endfor %}{% if add_generation_prompt %}!{% endif %}"
    with serving(replace(toy_model, chat_template=source)) as web:
        tokenizer = web.service.model.tokenizer
        expected = [1, *tokenizer.encode("user: Hi"), 1, *tokenizer.encode("assistant: Ho"), 1, *tokenizer.encode("user: <s>!")]
        tokens = web.post("/tokenize", {"messages": talk("Hi", "Ho", "<s>")}).json["tokens"]
        assert tokens.count(1) == 3  # what a user writes is never a special token
        assert tokenizer.decode(tokens) == tokenizer.decode(expected)
        assert web.get("/v1/models").json["data"][0]["template"] == "jinja"


def test_a_template_that_refuses_is_a_bad_request(toy_model: Model):
    with serving(replace(toy_model, chat_template="{{ raise_exception('no such roles') }}{{ messages }}")) as web:
        answer = web.post("/v1/chat/completions", {"messages": talk("Hi")})
        assert answer.status == 400
        assert "no such roles" in answer.error["message"]


def test_variables_reach_the_template_and_cannot_replace_its_own(toy_model: Model):
    with serving(replace(toy_model, chat_template="{{ mood }}{{ messages[0].content }}")) as web:
        body = {"messages": talk("Hi"), "max_tokens": 1, "chat_template_kwargs": {"mood": "merry"}}
        assert web.post("/v1/chat/completions", body).json["usage"]["prompt_tokens"] > 2
        for name in ("messages", "tools", "self", "add_generation_prompt"):
            assert web.post("/v1/chat/completions", body | {"chat_template_kwargs": {name: 1}}).status == 400


@pytest.mark.parametrize("tool_choice", [None, "auto"])
def test_tools_that_the_template_cannot_write_are_refused(web: Web, tool_choice: str | None):
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    body = {"messages": talk("Hi"), "tools": tools, "tool_choice": tool_choice, "max_tokens": 1}
    assert web.post("/v1/chat/completions", body).status == 400
    assert web.post("/v1/chat/completions", body | {"tool_choice": "none"}).status == 200


@pytest.mark.parametrize(
    ("fields", "is_refused"),
    [
        ({"functions": [{"name": "weather"}]}, True),
        ({"functions": [{"name": "weather"}], "function_call": "auto"}, True),
        ({"functions": [{"name": "weather"}], "function_call": {"name": "weather"}}, True),
        ({"function_call": {"name": "weather"}}, True),
        ({"functions": [{"name": "weather"}], "function_call": "none"}, False),
        ({"functions": [], "function_call": "auto"}, False),
        ({"functions": None, "function_call": None}, False),
    ],
)
def test_functions_of_the_old_kind_are_refused_with_the_remedy(web: Web, fields: dict, is_refused: bool):
    answer = web.post("/v1/chat/completions", {"messages": talk("Hi"), "max_tokens": 1} | fields)
    assert answer.status == (400 if is_refused else 200)
    if is_refused:
        assert "use tools" in answer.error["message"]


def test_a_call_of_the_old_kind_in_a_talk_is_refused_with_the_remedy(web: Web):
    old = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}
    answer = web.post("/v1/chat/completions", {"messages": [*talk("Hi"), old]})
    assert "use tool_calls" in answer.error["message"]
    assert web.post("/v1/chat/completions", {"messages": [*talk("Hi"), old | {"function_call": None}]}).status == 200


def test_an_answer_goes_on_behind_the_tokens_that_it_is_given(web: Web):
    settings = {"temperature": 0, "max_tokens": 12, "ignore_eos": True, "logprobs": True, "top_logprobs": 2}
    whole = web.chat("Hello", **settings)["choices"][0]["logprobs"]["content"]
    assert all(token["id"] == token["top_logprobs"][0]["id"] for token in whole)
    begun = [token["id"] for token in whole[:5]]
    rest = web.chat("Hello", **settings | {"answer_ids": begun, "max_tokens": 7})["choices"][0]["logprobs"]["content"]
    assert [token["id"] for token in rest] == [token["id"] for token in whole[5:]]


def test_an_answer_cannot_begin_with_tokens_of_another_vocabulary_nor_outside_its_grammar(web: Web):
    body = {"messages": talk("Hello"), "max_tokens": 1}
    assert web.post("/v1/chat/completions", body | {"answer_ids": [400]}).error["code"] == "invalid_token_id"
    both = body | {"answer_ids": [300], "response_format": {"type": "json_object"}}
    assert web.post("/v1/chat/completions", both).error["param"] == "answer_ids"


def test_the_model_says_which_tokens_end_its_texts(web: Web):
    assert web.get("/v1/models").json["data"][0]["stop_ids"] == [1, 2]
