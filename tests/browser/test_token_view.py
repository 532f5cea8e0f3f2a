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
    assert drawn() == ["100.0 %", "cut by temp. 0", "cut by temp. 0"]


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


def test_lines_break_where_the_text_breaks_them(reader: Reader):
    script_answers(reader.page, "one two\nthree\n\nfour")
    reader.ask("Count.")
    tokens = reader.show_tokens()
    assert tokens.all_text_contents() == ["one", " two", "⏎\nthree", "⏎\n⏎\nfour"]
    boxes = tokens.evaluate_all(
        "(nodes) => nodes.map((node) => [...node.getClientRects()].map(({ left, top }) => [left, top]))"
    )
    (one,), (two,), (end, three), (_, empty, four) = boxes
    assert one[1] == two[1] == end[1] < three[1] < empty[1] < four[1]
    assert one[0] == pytest.approx(three[0], abs=1) == pytest.approx(four[0], abs=1)


def test_a_token_that_is_the_likeliest_is_replaced_by_keyboard(reader: Reader):
    script_answers(reader.page, "one two three", " four")
    reader.set(temperature=1, top_p=1).ask("Count.")
    page = reader.page
    reader.show_tokens().nth(0).focus()
    page.keyboard.press("ArrowRight")
    assert reader.focused == "two, 60.7 %"
    for key in ("Enter", "ArrowDown", " "):
        page.keyboard.press(key)
        assert reader.focused == "two!, model 22.3 %, drawn 22.3 %"  # the first row is the token itself, and disabled
        page.keyboard.press("ArrowDown")
        assert reader.focused.startswith("two!!,")
        page.keyboard.press("ArrowUp")
        page.keyboard.press("Escape")
        assert reader.focused == "two, 60.7 %"
        assert page.is_hidden("#alternatives")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=2 of 2")
    assert reader.wait() == "one two! four"
    assert reader.focused == "two!, 22.3 %"
    assert page.is_hidden("#alternatives")
    page.keyboard.press("ArrowRight")
    assert reader.focused == "four, 60.7 %"


def test_white_space_is_named_to_those_who_hear_the_page(reader: Reader):
    script_answers(reader.page, "one\n\ntwo \n\n\t  ")
    reader.set(temperature=1, top_p=1).ask("Count.")
    tokens = reader.show_tokens()
    labels = [tokens.nth(i).get_attribute("aria-label") for i in range(tokens.count())]
    assert labels == ["one, 60.7 %", "two, 60.7 %", "space, 2 line breaks, tab, 2 spaces, 60.7 %"]
    tokens.nth(2).click()
    label = reader.alternatives().first.get_attribute("aria-label")
    assert label == "space, 2 line breaks, tab, 2 spaces, model 60.7 %, drawn 60.7 %"


@pytest.mark.parametrize("width", [1180, 360])
def test_each_alternative_stands_in_one_line(new_reader: Callable[..., Reader], chat_web: Web, width: int):
    reader = new_reader(chat_web, width=width).open()
    script_answers(reader.page, "one two three")
    reader.set(temperature=0).ask("Count.")
    reader.show_tokens().nth(1).click()
    heights = reader.page.locator("#alternatives .row").evaluate_all("(rows) => rows.map((row) => row.offsetHeight)")
    assert len(heights) == 5
    assert max(heights) - min(heights) <= 1
    cells = reader.page.locator("#alternatives .row span")
    assert all(cells.evaluate_all("(cells) => cells.map((cell) => cell.scrollWidth <= cell.offsetWidth)"))


def test_an_open_panel_stays_while_the_answer_below_it_grows(patient_reader: Reader):
    reader = patient_reader
    reader.set(max_tokens=60).type("A long one")
    reader.wait_for_text()
    tokens = reader.show_tokens()
    tokens.nth(1).click()
    focused = reader.focused
    reader.wait()
    assert reader.page.is_visible("#alternatives")
    assert reader.focused == focused
    reader.page.keyboard.press("Escape")
    assert reader.focused == tokens.nth(1).get_attribute("aria-label")


@pytest.mark.parametrize("height", [760, 260])  # room below the token, or above it
def test_the_panel_lies_beside_a_token_that_stands_in_two_lines(new_reader: Callable[..., Reader], chat_web: Web, height: int):
    reader = new_reader(chat_web, width=700, height=height).open()
    script_answers(reader.page, "word " * 60)
    reader.ask("Go.")
    places = "(nodes) => nodes.map((node) => [...node.getClientRects()].map(({ top, bottom }) => [top, bottom]))"
    tokens = reader.show_tokens()
    split = [i for i, lines in enumerate(tokens.evaluate_all(places)) if len(lines) == 2][-1]
    tokens.nth(split).focus()
    reader.page.wait_for_timeout(200)  # for what scrolls, which closes the panel
    reader.page.keyboard.press("Enter")
    lines = tokens.evaluate_all(places)[split]
    box = reader.page.locator("#alternatives").bounding_box()
    assert box
    assert all(bottom <= box["y"] or top >= box["y"] + box["height"] for top, bottom in lines)
