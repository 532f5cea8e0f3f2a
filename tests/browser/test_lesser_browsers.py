"""Browsers that give the page less: no clipboard over plain http, no storage; and keys that no header carries."""

from collections.abc import Callable, Iterator

import pytest

pytest.importorskip("playwright", reason="needs playwright: make test-browser")

from page_driver import Reader, script_answers
from web import Web, serving

from llamita.model import Model

BLOCKED = """for (const name of ["localStorage", "sessionStorage"])
  Object.defineProperty(window, name, { get() { throw new DOMException("Access is denied.", "SecurityError"); } });"""
ABSENT = """for (const name of ["localStorage", "sessionStorage"]) Object.defineProperty(window, name, { get: () => null });"""
NO_ROOM = """Storage.prototype.setItem = () => { throw new DOMException("No room.", "QuotaExceededError"); };"""


@pytest.fixture
def plain_reader(new_reader: Callable[..., Reader], stories: Model) -> Iterator[Reader]:
    """Somebody to whom the page comes over plain http from what browsers do not take for this machine."""
    with serving(stories, template="zephyr", host="0.0.0.0", insecure=True) as web:
        reader = new_reader(web)
        reader.host = "0.0.0.0"
        reader.open()
        assert not reader.page.evaluate("isSecureContext || navigator.clipboard || crypto.randomUUID")
        yield reader


def pasted(reader: Reader) -> str:
    """What the clipboard holds."""
    reader.page.fill("#input", "")
    reader.page.focus("#input")
    reader.page.keyboard.press("Control+V")
    return reader.page.input_value("#input")


def test_answers_and_code_are_copied_over_plain_http(plain_reader: Reader):
    reader = plain_reader
    text = "Some *code*:\n\n```\nx = 1\ny = 2\n```"
    script_answers(reader.page, text)
    reader.ask("Hi")
    reader.page.focus(".code-bar button")
    reader.page.keyboard.press("Enter")
    assert reader.page.inner_text(".code-bar button") == "Copied"
    assert reader.focused == "Copied"
    assert pasted(reader) == "x = 1\ny = 2"
    reader.page.click("footer button[title='Copy the text']")
    assert pasted(reader) == text
    reader.wait_until(lambda: reader.page.get_by_role("button", name="Copy", exact=True).count() == 2)


def test_answers_are_copied_where_there_is_a_clipboard(new_reader: Callable[..., Reader], chat_web: Web):
    reader = new_reader(chat_web, permissions=["clipboard-read", "clipboard-write"]).open()
    script_answers(reader.page, "One.")
    reader.ask("Hi")
    reader.press_button("Copy")
    reader.page.wait_for_selector("text=Copied")
    assert reader.page.evaluate("navigator.clipboard.readText()") == "One."


def test_a_text_that_cannot_be_copied_is_told(plain_reader: Reader):
    reader = plain_reader
    script_answers(reader.page, "One.")
    reader.ask("Hi")
    n_fields = reader.page.locator("textarea").count()
    reader.page.evaluate("document.execCommand = () => false")
    reader.press_button("Copy")
    reader.page.wait_for_selector(".notice:has-text('does not let this page copy')")
    assert reader.page.locator("textarea").count() == n_fields


@pytest.mark.parametrize("script", [BLOCKED, ABSENT, NO_ROOM], ids=["blocked", "absent", "no room"])
def test_without_storage_the_page_works_and_says_that_it_keeps_nothing(
    new_reader: Callable[..., Reader], chat_web: Web, script: str
):
    reader = new_reader(chat_web)
    reader.page.add_init_script(script)
    reader.open()
    assert reader.page.is_visible(".notice:has-text('keeps nothing')")
    script_answers(reader.page, "One.", "Two.", "Three.")
    reader.ask("First")
    reader.page.click("#new")
    reader.ask("Second")
    assert reader.titles == ["Second", "First"]
    reader.page.click("text=First")
    assert reader.last_answer == "One."
    reader.set(temperature=0.3)
    reader.page.click("#show-settings")
    reader.page.select_option("#theme", "dark")
    reader.page.click("#hide-settings")
    assert reader.ask("More") == "Three."
    assert reader.asked[-1]["temperature"] == 0.3
    reader.open()
    assert not reader.titles


def test_a_storage_without_room_for_more_still_shows_what_is_in_it(reader: Reader):
    script_answers(reader.page, "One.", "Two.", "Three.")
    reader.ask("First")
    reader.page.add_init_script(f"if (!sessionStorage.again) {{ window.setItem = Storage.prototype.setItem; {NO_ROOM} }}")
    reader.open()
    assert reader.titles == ["First"]
    assert reader.ask("Second") == "Two."
    assert reader.page.is_visible(".notice:has-text('no room left')")
    reader.page.click("#new")
    reader.set(temperature=0.3)
    reader.page.click("#conversations .open")
    assert reader.questions == ["First", "Second"]  # gone when the page is closed, and not before
    reader.page.click("#new")
    reader.ask("Third")
    assert reader.titles == ["Third", "First"]
    reader.page.click("text=First")
    reader.page.click("text=Third")
    assert reader.last_answer == "Three."
    reader.page.evaluate("sessionStorage.again = true")
    reader.page.evaluate("() => { Storage.prototype.setItem = window.setItem; }")
    reader.page.get_by_label("Delete First").focus()
    reader.page.keyboard.press("Enter")
    reader.open()
    assert reader.titles == ["Third"]


@pytest.fixture
def stranger(new_reader: Callable[..., Reader], stories: Model) -> Iterator[Reader]:
    """Somebody who is asked for a key."""
    with serving(stories, api_key="sk-secret", template="zephyr") as web:
        reader = new_reader(web)
        reader.page.goto(reader.address)
        reader.page.wait_for_selector("#key-dialog[open]")
        yield reader


def kept_key(reader: Reader) -> str | None:
    return reader.page.evaluate("sessionStorage.getItem('llamita.key')")


@pytest.mark.parametrize("key", ["sk-sécret", "sk-secret\u200b", "“sk-secret”", "sk secret", "\u043a\u043b\u044e\u0447"])
def test_a_key_that_no_header_carries_is_refused_in_the_dialog(stranger: Reader, key: str):
    stranger.page.fill("#key", key)
    stranger.page.keyboard.press("Enter")
    assert "signs of ASCII only" in stranger.page.inner_text("#key-error")
    assert stranger.page.is_visible("#key-dialog")
    assert kept_key(stranger) is None
    stranger.page.fill("#key", " sk-secret ")
    assert stranger.page.inner_text("#key-error") == ""
    stranger.page.keyboard.press("Enter")
    stranger.page.wait_for_selector("#model:has-text('toy')")
    assert kept_key(stranger) == "sk-secret"


def test_only_a_key_that_the_server_took_is_kept(stranger: Reader):
    stranger.page.fill("#key", "sk-wrong")
    stranger.page.keyboard.press("Enter")
    stranger.page.wait_for_selector("text=does not take this key")
    assert kept_key(stranger) is None
    stranger.page.fill("#key", "sk-secret")
    stranger.page.keyboard.press("Enter")
    stranger.page.wait_for_selector("#model:has-text('toy')")
    stranger.open()
    assert stranger.page.is_hidden("#key-dialog")


@pytest.mark.parametrize("key", ["“sk-old”", "sk-old"])
def test_a_kept_key_that_is_good_no_longer_is_forgotten(stranger: Reader, key: str):
    stranger.page.evaluate("(key) => sessionStorage.setItem('llamita.key', key)", key)
    stranger.page.goto(stranger.address)
    stranger.page.wait_for_selector("#key-dialog[open]")
    stranger.page.fill("#key", "sk-secret")
    stranger.page.keyboard.press("Enter")
    stranger.page.wait_for_selector("#model:has-text('toy')")
    assert kept_key(stranger) == "sk-secret"


def test_a_full_storage_keeps_all_texts_and_forgets_tokens_of_the_oldest_conversation(reader: Reader):
    texts = ["a " * 200, "b " * 200]
    script_answers(reader.page, *texts)
    reader.ask("First")
    reader.page.evaluate("""() => {
        const tries = (n) => { try { localStorage.filler = "x".repeat(n); return true; } catch { return false; } };
        let [fits, not] = [0, 16e6];
        while (not - fits > 1) tries((fits + not) >> 1) ? (fits = (fits + not) >> 1) : (not = (fits + not) >> 1);
        localStorage.filler = "x".repeat(fits - 3000);
    }""")
    reader.page.click("#new")
    reader.ask("Second")
    assert reader.page.locator(".notice").count() == 0
    reader.open()
    assert reader.last_answer.split() == ["b"] * 200
    assert reader.show_tokens().count() > 100
    reader.page.click("text=First")
    assert reader.last_answer.split() == ["a"] * 200
    assert reader.show_tokens().count() == 0
