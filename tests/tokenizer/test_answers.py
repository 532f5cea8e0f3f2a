"""What the assistant says is counted, to the token: for every template and every kind of vocabulary."""

import json
import re
from itertools import groupby
from pathlib import Path

import pytest

from llamita.errors import ChatTemplateError, TokenizerError
from llamita.tokenizer import Tokenizer
from llamita.tokenizer.added_tokens import with_special_tokens
from llamita.tokenizer.answers import Example, Run, encode_inside, encode_runs
from llamita.tokenizer.chat_template import ChatTemplate, open_template
from llamita.tokenizer.conversion import to_llama2c
from llamita.tokenizer.library import LibraryTokenizer
from llamita.tokenizer.published_templates import jinja_of
from llamita.tokenizer.same_beginning import same_beginning
from llamita.tokenizer.sentencepiece import parse_sentencepiece
from llamita.tokenizer.spelled import spelled
from published_templates import PUBLISHED
from small_vocabularies import byte_level

MARKS = ("<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
NAMES = ("llama2", "llama3", "chatml", "zephyr", "story")
KINDS = ("byte-level", "sentencepiece", "llama2c", "llama2c without marks", "byte-level without marks")


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


SYSTEM = {"role": "system", "content": "Be kind."}
CHATS = {
    "one turn": [user("Hello"), said("Hi!")],
    "with a system": [SYSTEM, user("Hello"), said("Hi there.")],
    "three turns": [
        user("Who?"),
        said("I am Lily, 10 years old."),
        user("Why?"),
        said("Äpfel 😀!"),
        user("So?"),
        said("Yes\nyes"),
    ],
    "a system and two turns": [SYSTEM, user("a b c"), said("d e f"), user("g\nh"), said("One day, they played.")],
    "marks in messages": [user("<|im_end|> </s>"), said("<|eot_id|>a</s>b<|im_start|>"), user("x"), said("<|im_end|>")],
}
# which begin or end so that tokens of the whole text may reach over a border
AWKWARD = ["\n", "\n\n\nHi", " Hi", "  Hi  ", "\tHi\n", "...", "'s", "5", "!\n\n", " \n", "日", "\U0001f600"]


@pytest.fixture(scope="module")
def vocabularies(toy_sentencepiece_bytes: bytes) -> dict[str, Tokenizer]:
    plain = parse_sentencepiece(toy_sentencepiece_bytes, "toy")
    marked = with_special_tokens(plain, MARKS)
    library, bare = LibraryTokenizer(byte_level(marks=MARKS)), LibraryTokenizer(byte_level(marks=("<s>", "</s>")))
    return {
        "byte-level": library.with_ends(library.token_id("<s>"), library.token_id("</s>"), adds_bos=True),
        "sentencepiece": marked,
        "llama2c": to_llama2c(marked),
        "llama2c without marks": to_llama2c(plain),
        "byte-level without marks": bare.with_ends(bare.token_id("<s>"), bare.token_id("</s>"), adds_bos=False),
    }


def answers(messages: list[dict[str, str]], name: str) -> list[str]:
    """What a model has to say in each answer, marks spelled out."""
    texts = []
    for index, message in enumerate(messages):
        text, before = message["content"], messages[index - 1]["content"]
        joins = " " if not before[-1:].isspace() and text[:1].isalnum() else ""
        end = "</s>" if index == len(messages) - 1 else ""
        texts.append(
            {
                "llama2": f" {text.strip()} </s>",
                "llama3": f"{text.strip()}<|eot_id|>",
                "chatml": f"{text}<|im_end|>",
                "zephyr": f"{text}</s>",
                "story": joins + text + end,
            }[name]
        )
    return [text for text, message in zip(texts, messages, strict=True) if message["role"] == "assistant"]


def counted_texts(tokenizer: Tokenizer, example: Example) -> list[str]:
    return [text for text, counted in spelled(tokenizer, example.ids, example.counted) if counted]


def starts(example: Example) -> list[int]:
    """The index of the first token of each stretch that is counted."""
    flags = [False, *example.counted]
    return [i for i in range(len(example.ids)) if flags[i + 1] and not flags[i]]


def ends(example: Example) -> list[int]:
    """The index behind the last token of each."""
    flags = [*example.counted, False]
    return [i + 1 for i in range(len(example.ids)) if flags[i] and not flags[i + 1]]


def check_prompts(tokenizer: Tokenizer, template: ChatTemplate, messages: list[dict[str, str]], example: Example) -> None:
    """Before every answer stand the ids that Conversation feeds: of what it has read or said before, the very tokens."""
    prompts = [template.encode(messages[:i]) for i, message in enumerate(messages) if message["role"] == "assistant"]
    held: list[int] = []
    for prompt, start, end in zip(prompts, starts(example), ends(example), strict=True):
        n_held, n_same = same_beginning(tokenizer, held, prompt)
        assert held[:n_held] + prompt[n_same:] == example.ids[:start]
        held = example.ids[:end]


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_counted_is_what_the_assistant_says_and_the_end_of_its_turn(kind: str, name: str, chat: str, vocabularies):
    tokenizer, messages = vocabularies[kind], CHATS[chat]
    template = open_template(name, tokenizer)
    if (kind.endswith("without marks"), name, chat) == (True, "chatml", "marks in messages"):
        with pytest.raises(ChatTemplateError, match="a mark of chatml"):
            template.encode_answers(messages)
        return
    (example,) = template.encode_answers(messages)
    assert counted_texts(tokenizer, example) == answers(messages, name)
    assert example.ids == template.encode(messages, False) + ([tokenizer.eos_id] if name == "story" else [])
    assert len(example.counted) == len(example.ids)
    check_prompts(tokenizer, template, messages, example)


@pytest.mark.parametrize("chat", [name for name in CHATS if name != "marks in messages"])
@pytest.mark.parametrize("name", sorted(PUBLISHED))
@pytest.mark.parametrize("kind", KINDS[:3])
def test_jinja_counts_what_the_named_template_does(kind: str, name: str, chat: str, vocabularies):
    tokenizer, messages = vocabularies[kind], CHATS[chat]
    named = open_template(name, tokenizer)
    for source in (PUBLISHED[name], jinja_of(named)):
        assert open_template(source, tokenizer).encode_answers(messages) == named.encode_answers(messages)


@pytest.mark.parametrize("text", AWKWARD)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_ids_before_an_answer_are_those_of_the_prompt_however_it_begins(kind: str, name: str, text: str, vocabularies):
    tokenizer = vocabularies[kind]
    template = open_template(name, tokenizer)
    talks = [[user("Hello"), said(text)], [user(f"Once{text}"), said(text), user(text + "x"), said("upon" + text)]]
    for messages in talks[: 1 if name == "story" else 2]:  # nothing stands between the turns of a story: they may melt together
        (example,) = template.encode_answers(messages)
        check_prompts(tokenizer, template, messages, example)
        assert tokenizer.decode(example.ids) == tokenizer.decode(template.encode(messages, False))


def test_a_token_that_would_reach_from_a_prompt_into_its_answer_is_cut(vocabularies):
    tokenizer = vocabularies["sentencepiece"]
    template, messages = open_template("story", tokenizer), [user("Once upon a "), said("day, they played")]
    (example,) = template.encode_answers(messages)
    assert example.ids[:-1] != template.encode(messages, False)  # which has one token for a space and "d"
    assert counted_texts(tokenizer, example) == ["day, they played</s>"]
    check_prompts(tokenizer, template, messages, example)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["named", "jinja"])
def test_only_the_answers_that_are_asked_for_count(kind: str, name: str, vocabularies):
    tokenizer, messages = vocabularies["byte-level"], CHATS["three turns"]
    template = open_template(name, tokenizer)
    if kind == "jinja" and name != "story":
        template = open_template(PUBLISHED[name], tokenizer)
    for learned in ({3}, {1, 5}, set()):
        (example,) = template.encode_answers(messages, learned)
        expected = [text for index, text in zip((1, 3, 5), answers(messages, name), strict=True) if index in learned]
        assert counted_texts(tokenizer, example) == expected


def test_a_first_message_of_the_assistant_answers_nothing(vocabularies):
    (example,) = open_template("chatml", vocabularies["byte-level"]).encode_answers([said("Welcome"), user("Hi"), said("Ho")])
    assert counted_texts(vocabularies["byte-level"], example) == ["Ho<|im_end|>"]


@pytest.mark.parametrize("file", ["SmolLM2-135M-Instruct.jinja", "meta-llama-Llama-3.1-8B-Instruct.jinja"])
@pytest.mark.parametrize("chat", CHATS)
def test_the_templates_of_real_models_count_what_the_assistant_says(file: str, chat: str, shared_data: Path, vocabularies):
    tokenizer, messages = vocabularies["byte-level"], CHATS[chat]
    template = open_template((shared_data / "chat_templates" / file).read_text(encoding="utf-8"), tokenizer)
    (example,) = template.encode_answers(messages)
    assert example.ids == template.encode(messages, False)
    assert counted_texts(tokenizer, example) == answers(messages, "chatml" if "SmolLM2" in file else "llama3")
    check_prompts(tokenizer, template, messages, example)


@pytest.mark.parametrize("kind", ["byte-level", "sentencepiece"])
@pytest.mark.parametrize("source", [*NAMES, "SmolLM2-135M-Instruct.jinja", "meta-llama-Llama-3.1-8B-Instruct.jinja"])
def test_in_real_talks_every_answer_counts_and_nothing_else(source: str, kind: str, shared_data: Path, vocabularies):
    talks = json.loads((shared_data / "chat" / "fastchat_dummy_conversation.json").read_text(encoding="utf-8"))
    tokenizer, path = vocabularies[kind], shared_data / "chat_templates" / source
    template = open_template(path.read_text(encoding="utf-8") if path.exists() else source, tokenizer)
    name = {"S": "chatml", "m": "llama3"}.get(source[0], source)
    roles = {"human": "user", "gpt": "assistant"}
    for talk in talks[::9]:
        messages = [{"role": roles[turn["from"]], "content": turn["value"]} for turn in talk["conversations"]]
        (example,) = template.encode_answers(messages)
        assert counted_texts(tokenizer, example) == answers(messages, name)
        assert example.ids == template.encode(messages, False) + ([tokenizer.eos_id] if name == "story" else [])
        check_prompts(tokenizer, template, messages, example)


def test_calls_of_tools_count_as_the_template_writes_them(shared_data: Path, vocabularies):
    tokenizer = vocabularies["byte-level"]
    source = (shared_data / "chat_templates" / "meta-llama-Llama-3.1-8B-Instruct.jinja").read_text(encoding="utf-8")
    call = {"role": "assistant", "tool_calls": [{"function": {"name": "weather", "arguments": {"city": "Ulm"}}}]}
    talk = [user("Wet?"), call, {"role": "tool", "content": "wet"}, said("Yes.")]
    (example,) = open_template(source, tokenizer).encode_answers(talk, tools=[{"function": {"name": "weather"}}])
    expected = ['{"name": "weather", "parameters": {"city": "Ulm"}}<|eot_id|>', "Yes.<|eot_id|>"]
    assert counted_texts(tokenizer, example) == expected


FORGETS = (  # thoughts of an answer are left out once the talk goes on, as several models have it
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content if loop.last else m.content.split('#')[-1] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_an_answer_that_is_written_otherwise_later_gets_an_example_of_its_own(vocabularies):
    tokenizer = vocabularies["byte-level"]
    talk = [user("a"), said("think#b"), user("c"), said("d"), user("e"), said("think#f")]
    template = open_template(FORGETS, tokenizer)
    alone, whole = template.encode_answers(talk)
    assert counted_texts(tokenizer, alone) == ["think#b<|im_end|>"]
    assert counted_texts(tokenizer, whole) == ["d<|im_end|>", "think#f<|im_end|>"]
    assert alone.ids == template.encode(talk[:2], False)
    assert whole.ids == template.encode(talk, False)


def test_marks_of_generation_are_what_counts(vocabularies):
    tokenizer = vocabularies["byte-level"]
    source = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
        "{% generation %}{{ m.content }}<|im_end|>\n{% endgeneration %}"
        "{% else %}{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
    )
    template, messages = open_template(source, tokenizer), CHATS["three turns"]
    (example,) = template.encode_answers(messages)
    assert example.ids == template.encode(messages, False)
    assert counted_texts(tokenizer, example) == answers(messages, "chatml")
    assert template.render(messages, False) == open_template("chatml", tokenizer).render(messages, False)
    (example,) = template.encode_answers(messages, {5})
    assert counted_texts(tokenizer, example) == answers(messages, "chatml")[2:]
    forged = [user("\ufdd1a\ufdd2"), said("b\ufdd2\ufdd1")]
    assert counted_texts(tokenizer, template.encode_answers(forged)[0]) == ["b\ufffd\ufffd<|im_end|>"]


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        (
            "{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}<think>{% endif %}",
            "does not begin",
        ),
        ("{% generation %}{{ messages[1].content }}{% endgeneration %}", "1 marks of {% generation %} in 2 answers"),
    ],
)
def test_a_template_whose_answers_cannot_be_told_apart_is_refused(source: str, complaint: str, vocabularies):
    template = open_template(source, vocabularies["byte-level"])
    with pytest.raises(ChatTemplateError, match=re.escape(complaint)):
        template.encode_answers(CHATS["a system and two turns"])


def test_an_answer_without_a_mark_at_its_end_counts_as_far_as_it_goes(vocabularies):
    tokenizer = vocabularies["byte-level"]
    source = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
    )
    (example,) = open_template(source, tokenizer).encode_answers(CHATS["three turns"])
    assert counted_texts(tokenizer, example)[0] == " I am Lily, 10 years old.\n"


def test_a_token_that_reaches_over_the_end_of_an_answer_is_counted():
    tokenizer = LibraryTokenizer(byte_level())

    def encode(text: str) -> list[int]:  # "in" is one token: the answer "xi" ends inside of it
        return [tokenizer.token_id(piece) for piece in re.findall("in|.", text)]

    example = encode_runs(tokenizer, encode, [Run("ab", False), Run("xi", True), Run("n.", False)])
    assert example == (encode("abxin."), [False, False, True, True, False])


def test_a_text_goes_on_without_the_space_that_begins_one(vocabularies):
    tokenizer = vocabularies["sentencepiece"]
    for text in ("me", " me", "\nme", ".me", "0", "a", "日本"):
        ids = encode_inside(tokenizer, tokenizer.encode, text)
        assert b"".join(map(tokenizer.piece_bytes, ids)).decode() == text


def test_a_text_that_nothing_can_stand_before_is_refused():
    tokenizer = LibraryTokenizer(byte_level())
    tokenizer.adds_space = True
    with pytest.raises(TokenizerError, match="found 'x' behind a prompt"):
        encode_inside(tokenizer, lambda text: [len(text)], "x")


def test_stretches_are_spelled_with_their_marks(vocabularies):
    tokenizer = vocabularies["sentencepiece"]
    (example,) = open_template("llama2", tokenizer).encode_answers([user("é"), said("日本")])
    texts = spelled(tokenizer, example.ids, example.counted)
    assert [flag for flag, _ in groupby(example.counted)] == [flag for _, flag in texts]
    assert [text for text, _ in texts] == ["<s> [INST] é [/INST]", " 日本 </s>"]
