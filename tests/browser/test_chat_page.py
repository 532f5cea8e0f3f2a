"""A chat in the browser: type, stream, stop, go on, edit, keep, and the keys."""

from collections.abc import Callable

import pytest

pytest.importorskip("playwright", reason="needs playwright: make test-browser")

from page_driver import Reader, script_answers
from web import Web, serving

from llamita.model import Model


def test_an_answer_streams_and_says_how_fast_it_was(patient_reader: Reader):
    reader = patient_reader
    reader.set(max_tokens=96).type("A long one")
    lengths = [len(reader.wait_for_text())]
    while reader.page.is_visible("#stop"):
        lengths.append(len(reader.last_answer))
        reader.page.wait_for_timeout(20)
    assert len(set(lengths)) > 3
    assert lengths == sorted(lengths)
    stats = reader.page.locator(".stats").last.inner_text()
    assert "tokens/s" in stats
    assert "first after" in stats
    assert reader.page.input_value("#input") == ""
    assert "of 384" in reader.page.inner_text("#context")


def test_settings_and_system_prompt_are_sent_and_kept(reader: Reader):
    reader.set(temperature=0.3, top_p=0.7, top_k=40, min_p=0.05, max_tokens=8, seed=11)
    reader.page.click("#show-settings")
    reader.page.fill("#system", "Be kind.")
    reader.page.click("#hide-settings")
    reader.ask("Hi")
    sent = reader.asked[-1]
    assert {name: sent[name] for name in ("temperature", "top_p", "top_k", "min_p", "max_tokens", "seed")} == {
        "temperature": 0.3, "top_p": 0.7, "top_k": 40, "min_p": 0.05, "max_tokens": 8, "seed": 11,
    }  # fmt: skip
    assert [message["role"] for message in sent["messages"]] == ["system", "user"]
    reader.open()
    assert reader.page.input_value("#setting-temperature") == "0.3"
    assert reader.page.input_value("#system") == "Be kind."


def test_the_same_seed_gives_the_same_answer(reader: Reader):
    first = reader.set(max_tokens=24, seed=5).ask("Tell me of a fox.")
    reader.press_button("Again")
    assert reader.wait() == first
    assert "2 of 2" in reader.page.inner_text(".message.assistant footer")


def test_escape_stops_an_answer_frees_its_slot_and_it_can_go_on(patient_reader: Reader):
    reader = patient_reader
    reader.type("A long one")
    reader.wait_for_text()
    reader.page.keyboard.press("Escape")
    stopped = reader.wait()
    assert "stopped" in reader.page.locator(".stats").last.inner_text()
    reader.page.wait_for_timeout(500)
    assert reader.web.n_busy == 0
    assert reader.last_answer == stopped
    reader.set(max_tokens=8)
    reader.press_button("Go on")
    assert reader.wait().startswith(stopped)
    assert len(reader.asked[-1]["answer_ids"]) >= 3


def test_the_stop_button_stops(patient_reader: Reader):
    reader = patient_reader
    reader.type("A long one")
    reader.wait_for_text()
    reader.page.click("#stop")
    assert reader.wait()
    assert "stopped" in reader.page.locator(".stats").last.inner_text()


def test_conversations_survive_a_reload_also_while_an_answer_is_written(patient_reader: Reader):
    reader = patient_reader
    script_answers(reader.page, "First answer.", "Second answer.")
    reader.ask("First question")
    reader.page.click("#new")
    reader.ask("Second question")
    reader.page.unroute_all()
    reader.type("A long one")
    begun = reader.wait_for_text()
    reader.open()
    assert reader.questions == ["Second question", "A long one"]
    assert reader.last_answer.startswith(begun[:8])
    assert reader.page.locator("#conversations .open").all_text_contents() == ["Second question", "First question"]
    reader.page.click("text=First question")
    assert reader.last_answer == "First answer."


def test_an_answer_goes_on_while_another_conversation_is_open(patient_reader: Reader):
    reader = patient_reader
    reader.type("A long one")
    reader.wait_for_text()
    reader.page.click("#new")
    assert reader.page.is_visible("#send")
    assert not reader.questions
    reader.page.click("#conversations .open")
    assert reader.questions == ["A long one"]
    assert len(reader.wait()) > 8


def test_a_question_can_be_edited_and_sent_again_and_what_followed_comes_back(reader: Reader):
    script_answers(reader.page, "One.", "Two.", "Three.")
    reader.ask("First")
    reader.ask("Second")
    reader.page.get_by_role("button", name="Edit").first.click()
    reader.page.fill(".editor textarea", "Better")
    reader.page.press(".editor textarea", "Enter")
    reader.page.wait_for_selector("text=Three.")
    reader.wait()
    assert reader.questions == ["Better"]
    assert reader.asked[-1]["messages"] == [{"role": "user", "content": "Better"}]
    reader.press_button("Undo")
    assert reader.questions == ["First", "Second"]
    assert reader.last_answer == "Two."


def test_another_answer_keeps_the_first_as_a_version(reader: Reader):
    script_answers(reader.page, "One.", "Two.")
    reader.ask("Hi")
    reader.press_button("Again")
    reader.page.wait_for_selector("text=Two.")
    reader.wait()
    assert [message["content"] for message in reader.asked[-1]["messages"]] == ["Hi"]
    reader.page.get_by_label("Version before").click()
    assert reader.last_answer == "One."
    reader.open()
    assert reader.last_answer == "One."


def test_a_conversation_can_be_renamed_deleted_and_had_back(reader: Reader):
    script_answers(reader.page, "One.")
    reader.ask("Hi")
    reader.page.hover("#conversations li")
    reader.page.get_by_label("Rename Hi").click()
    reader.page.keyboard.type("Greeting")
    reader.page.keyboard.press("Enter")
    reader.page.hover("#conversations li")
    reader.page.get_by_label("Delete Greeting").click()
    assert not reader.page.locator("#conversations li").count()
    assert not reader.questions
    reader.press_button("Undo")
    assert reader.questions == ["Hi"]
    assert reader.page.inner_text("#conversations .open") == "Greeting"


def test_keys_do_what_the_list_of_keys_says(reader: Reader):
    script_answers(reader.page, "One.", "Two.")
    page = reader.page
    page.focus("#input")
    page.keyboard.type("two")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("lines")
    page.keyboard.press("Enter")
    reader.wait()
    assert reader.questions == ["two\nlines"]
    page.keyboard.press("ArrowUp")
    assert page.input_value(".editor textarea") == "two\nlines"
    page.keyboard.press("Escape")
    assert reader.questions == ["two\nlines"]
    page.focus("#input")
    page.keyboard.press("Escape")
    page.keyboard.press("t")
    assert page.get_attribute("#tokens", "aria-pressed") == "true"
    page.keyboard.press("s")
    assert page.is_visible("#settings")
    page.keyboard.press("Escape")
    assert page.is_hidden("#settings")
    page.keyboard.press("r")
    page.wait_for_selector("text=2 of 2")
    page.keyboard.press("n")
    assert not reader.questions
    assert page.input_value("#input") == ""


def test_the_page_asks_for_the_key_and_forgets_it_with_the_tab(new_reader: Callable[..., Reader], stories: Model):
    with serving(stories, api_key="sk-secret", template="zephyr") as web:
        reader = new_reader(web)
        page = reader.page
        page.goto(reader.address)
        page.fill("#key", "sk-wrong")
        page.keyboard.press("Enter")
        page.wait_for_selector("text=does not take this key")
        page.fill("#key", "sk-secret")
        page.keyboard.press("Enter")
        page.wait_for_selector("#model:has-text('toy')")
        assert reader.set(max_tokens=8).ask("Hi")
        assert "sk-" not in page.evaluate("JSON.stringify(localStorage) + document.cookie + location.href")
        assert page.evaluate("sessionStorage.getItem('llamita.key')") == "sk-secret"


def test_what_the_server_refuses_is_said_in_its_words(reader: Reader):
    reader.ask("word " * 500)
    error = reader.page.inner_text(".message.assistant .error")
    assert "384" in error
    assert "tokens" in error


def test_a_server_that_is_gone_is_told_and_the_talk_is_kept(new_reader: Callable[..., Reader], stories: Model):
    with serving(stories, template="zephyr") as web:
        reader = new_reader(web).open()
        reader.set(max_tokens=4).ask("Hi")
    reader.type("Are you there?")
    reader.page.wait_for_selector(".error:has-text('cannot be reached')")
    assert reader.questions == ["Hi", "Are you there?"]


def test_a_base_model_is_told_as_a_story(new_reader: Callable[..., Reader], story_web: Web):
    reader = new_reader(story_web).open()
    page = reader.page
    assert page.get_attribute("#input", "placeholder") == "How does the story begin?"
    assert page.locator("#system-row").is_hidden()
    story = reader.set(max_tokens=24, temperature=0).ask("Once upon a time")
    assert story.startswith("Once upon a time,")
    assert page.locator(".beginning").inner_text() == "Once upon a time"
    reader.press_button("Go on")
    assert reader.wait().startswith(story)
    reader.press_button("Edit the beginning")
    page.fill(".editor textarea", "The old bear")
    page.keyboard.press("Enter")
    page.wait_for_selector(".beginning:has-text('The old bear')")
    reader.wait()
    reader.type("")  # another story, from nothing
    reader.wait_until(lambda: page.locator("#conversations li").count() == 2)
    assert not reader.wait().startswith((" ", "The old bear"))


def test_nothing_is_asked_of_any_other_machine(reader: Reader):
    script_answers(reader.page, "![picture](https://example.com/x.png) and [link](https://example.com/)")
    reader.ask("Hi")
    reader.show_tokens().first.click()
    assert len(reader.urls) > 10
    assert all(url.startswith(reader.address) for url in reader.urls)
