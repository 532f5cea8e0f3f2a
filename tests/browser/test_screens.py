"""The page on a phone, where nothing is wider than the screen and all is within reach, and in light and dark."""

from collections.abc import Callable

import pytest

pytest.importorskip("playwright", reason="needs playwright: make test-browser")

from page_driver import Reader, script_answers
from web import Web

LONG = "x" * 300
TEXT = f"# {LONG}\n\n```\n{LONG}\n```\n\n| {LONG} | b |\n|---|---|\n| c | {LONG} |\n\n- {LONG}\n\nhttps://example.com/{LONG}"


@pytest.fixture
def phone(new_reader: Callable[..., Reader], chat_web: Web) -> Reader:
    return new_reader(chat_web, width=360, height=640, has_touch=True, is_mobile=True).open()


def is_within_screen(phone: Reader) -> bool:
    return phone.page.evaluate("document.documentElement.scrollWidth <= 360 && innerWidth === 360")


def test_long_lines_do_not_widen_the_page(phone: Reader):
    script_answers(phone.page, TEXT)
    phone.ask(LONG)
    assert is_within_screen(phone)
    phone.show_tokens()
    assert is_within_screen(phone)
    box = phone.page.locator("#send").bounding_box()
    assert box
    assert box["x"] + box["width"] <= 360
    assert box["y"] + box["height"] <= 640


def test_conversations_and_settings_lie_above_the_talk_and_close(phone: Reader):
    script_answers(phone.page, "One.")
    phone.ask("Hi")
    page = phone.page
    assert page.is_hidden("#sidebar")
    page.tap("#show-sidebar")
    assert page.is_visible("#sidebar")
    page.tap("#conversations .open")
    assert page.is_hidden("#sidebar")
    page.tap("#show-settings")
    assert page.is_visible("#settings")
    assert is_within_screen(phone)
    page.touchscreen.tap(10, 300)
    assert page.is_hidden("#settings")


def test_alternatives_open_at_a_tap_within_the_screen(phone: Reader):
    script_answers(phone.page, "one two three", " four")
    phone.ask("Count.")
    tokens = phone.show_tokens()
    tokens.nth(2).tap()
    box = phone.page.locator("#alternatives").bounding_box()
    assert box
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 360
    phone.alternatives().nth(1).tap()
    phone.page.wait_for_selector("text=2 of 2")
    assert phone.wait() == "one two three! four"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_follow_the_system_until_the_reader_chooses(new_reader: Callable[..., Reader], chat_web: Web, scheme: str):
    page = new_reader(chat_web, color_scheme=scheme).open().page

    def is_dark() -> bool:
        return page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(25, 24, 23)"

    assert is_dark() == (scheme == "dark")
    page.click("#show-settings")
    page.select_option("#theme", {"light": "dark", "dark": "light"}[scheme])
    assert is_dark() == (scheme == "light")
    page.reload()
    assert is_dark() == (scheme == "light")
