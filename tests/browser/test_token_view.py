"""The token view: shades, alternatives, what settings make of them, and another token in the place of one."""

from collections.abc import Callable

import pytest

pytest.importorskip("playwright", reason="needs playwright: make test-browser")

from page_driver import Reader, script_answers
from web import Web


def test_each_token_is_shaded_by_its_probability(reader: Reader):
    script_answers(reader.page, "one two three")
    reader.ask("Count.")
    tokens = reader.show_tokens()
    assert tokens.all_text_contents() == ["one", " two", " three"]
    assert tokens.nth(1).get_attribute("aria-label") == "two, 60.7 %"
    doubts = tokens.evaluate_all("nodes => nodes.map((node) => Number(node.style.getPropertyValue('--doubt')))")
    assert doubts == pytest.approx([0.393] * 3, abs=1e-3)
    assert reader.page.is_visible("#legend")


def test_alternatives_show_on_hover_on_focus_and_stay_on_click(reader: Reader):
    script_answers(reader.page, "one two three")
    reader.ask("Count.")
    tokens = reader.show_tokens()
    tokens.nth(1).hover()
    reader.page.wait_for_selector("#alternatives:visible")
    assert reader.alternatives().locator(".piece").all_text_contents() == [" two", " two!", " two!!"]
    reader.page.mouse.move(5, 400)
    reader.page.wait_for_selector("#alternatives", state="hidden")
    tokens.nth(0).focus()
    reader.page.keyboard.press("ArrowRight")
    reader.page.wait_for_selector("#alternatives:visible")
    reader.page.keyboard.press("Enter")
    reader.page.mouse.move(5, 400)
    reader.page.wait_for_timeout(500)
    assert reader.page.is_visible("#alternatives")
    reader.page.keyboard.press("Escape")
    assert reader.page.is_hidden("#alternatives")


@pytest.mark.parametrize("kind", ["chat", "story"])
def test_a_token_is_replaced_and_the_text_goes_on_from_it(
    new_reader: Callable[..., Reader], chat_web: Web, story_web: Web, kind: str
):
    reader = new_reader({"chat": chat_web, "story": story_web}[kind]).open()
    reader.set(max_tokens=24, temperature=0).ask("Tell me of a fox.")
    tokens = reader.show_tokens()
    before = tokens.all_text_contents()
    tokens.nth(8).click()
    chosen = reader.alternatives().nth(1)
    piece = chosen.locator(".piece").inner_text()
    chosen.click()
    reader.page.wait_for_selector("text=2 of 2")
    reader.wait()
    after = reader.show_tokens().all_text_contents()
    assert after[:9] == [*before[:8], piece]
    assert len(after) > 9
    assert "chosen" in (reader.show_tokens().nth(8).get_attribute("class") or "")
    sent = reader.asked[-1]["answer_ids"]
    assert len(sent) == 9
    text = reader.web.post("/detokenize", {"tokens": sent}).json["prompt"]
    assert text.strip() == "".join(after[:9]).replace("⏎", "").strip()
    reader.page.get_by_label("Version before").click()
    assert reader.show_tokens().all_text_contents() == before
    reader.open()
    assert reader.show_tokens().all_text_contents() == before


def test_the_panel_follows_the_settings(reader: Reader):
    script_answers(reader.page, "one two three")
    reader.ask("Count.")
    reader.page.click("#show-settings")
    reader.show_tokens().nth(1).click()

    def drawn() -> list[str]:
        return reader.alternatives().locator("span:last-child").all_text_contents()

    settings = {"temperature": 1, "top_p": 1}
    for name, value in settings.items():
        reader.page.fill(f"#setting-{name}", str(value))
        reader.page.keyboard.press("Enter")
    assert drawn() == ["60.7 %", "22.3 %", "8.2 %"]
    reader.page.fill("#setting-top_p", "0.5")
    reader.page.keyboard.press("Enter")
    assert drawn() == ["100.0 %", "cut by top-p", "cut by top-p"]
    reader.page.fill("#setting-top_p", "1")
    reader.page.keyboard.press("Enter")
    reader.page.fill("#setting-temperature", "0")
    reader.page.keyboard.press("Enter")
    assert drawn() == ["100.0 %", "cut by temperature 0", "cut by temperature 0"]


def test_choosing_the_end_ends_the_text_without_asking_the_model(new_reader: Callable[..., Reader], story_web: Web):
    reader = new_reader(story_web).open()
    page = reader.page
    reader.set(max_tokens=300, temperature=0).ask("Once upon a time")
    tokens = reader.show_tokens()
    last = tokens.count() - 1
    assert tokens.nth(last).inner_text() == "■ end"
    tokens.nth(last).click()
    reader.alternatives().nth(1).click()
    page.wait_for_selector("text=2 of 2")
    reader.wait()
    n_asked, whole = len(reader.asked), reader.last_answer
    reader.show_tokens().nth(last).click()
    reader.alternatives().filter(has_text="end of the text").click()
    page.wait_for_selector("text=3 of 3")
    assert len(reader.asked) == n_asked
    assert whole.startswith(reader.last_answer.removesuffix("■ end"))


def test_replacing_in_an_earlier_answer_can_be_taken_back(reader: Reader):
    script_answers(reader.page, "one two", "three four", " five")
    reader.ask("First")
    reader.ask("Second")
    reader.show_tokens()
    reader.page.locator(".message.assistant").first.locator(".token").first.click()
    reader.alternatives().nth(1).click()
    reader.page.wait_for_selector("text=2 of 2")
    reader.wait()
    assert reader.last_answer == "one! five"
    assert reader.questions == ["First"]
    reader.press_button("Undo")
    assert reader.questions == ["First", "Second"]
    assert reader.last_answer == "three four"
