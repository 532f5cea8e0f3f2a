"""What is being typed and what has the focus outlive all that the page draws meanwhile."""

import pytest

pytest.importorskip("playwright", reason="needs playwright: make test-browser")

from page_driver import Reader, script_answers


@pytest.fixture
def asking(patient_reader: Reader) -> Reader:
    """Somebody with one whole answer, while the second is written."""
    script_answers(patient_reader.page, "One.")
    patient_reader.set(max_tokens=80).ask("First")
    patient_reader.page.unroute_all()
    patient_reader.type("A long one")
    patient_reader.wait_until(lambda: patient_reader.page.locator(".message.assistant").count() == 2)
    patient_reader.wait_for_text()
    return patient_reader


def test_a_question_that_is_edited_while_an_answer_ends_stays(asking: Reader):
    asking.page.get_by_role("button", name="Edit").first.click()
    asking.page.keyboard.type(" and more")
    asking.wait()
    assert asking.page.input_value(".editor textarea") == "First and more"
    assert asking.focused == "Edit"
    asking.page.keyboard.type(" still")
    script_answers(asking.page, "Edited.")
    asking.page.keyboard.press("Enter")
    asking.page.wait_for_selector("text=Edited.")
    assert asking.questions == ["First and more still"]
    assert asking.focused == "input"


def test_a_question_edited_in_vain_gives_the_focus_back(asking: Reader):
    asking.wait()
    asking.page.get_by_role("button", name="Edit").first.focus()
    asking.page.keyboard.press("Enter")
    asking.page.fill(".editor textarea", "  ")
    asking.page.keyboard.press("Enter")
    assert asking.page.is_visible(".editor")  # nothing cannot be asked
    asking.page.keyboard.press("Escape")
    assert asking.focused == "Edit"
    assert asking.questions == ["First", "A long one"]


def test_a_title_that_is_typed_while_an_answer_ends_stays(asking: Reader):
    asking.page.hover("#conversations li")
    asking.page.get_by_label("Rename First").click()
    asking.page.keyboard.type("Better")
    asking.wait()
    assert asking.focused == "Title"
    asking.page.keyboard.type(" title")
    asking.page.keyboard.press("Enter")
    assert asking.titles == ["Better title"]
    assert asking.focused == "Rename Better title"
    asking.page.keyboard.press("Enter")
    asking.page.keyboard.type("No")
    asking.page.keyboard.press("Escape")
    assert asking.titles == ["Better title"]


def test_a_title_is_typed_while_the_list_changes_its_order(reader: Reader):
    script_answers(reader.page, "One.", "Two.")
    reader.ask("First")
    reader.page.click("#new")
    reader.ask("Second")
    other = reader.another_tab()
    other.page.click("text=First")
    reader.page.hover("#conversations li:has-text('First')")
    reader.page.get_by_label("Rename First").click()
    reader.page.keyboard.type("Mine")
    script_answers(other.page, "Three.")
    other.ask("More")
    reader.wait_until(lambda: reader.page.locator("#conversations li").first.locator("input").count() == 1)
    assert reader.focused == "Title"
    reader.page.keyboard.type(" own")
    reader.page.keyboard.press("Enter")
    assert reader.titles == ["Mine own", "Second"]


def test_deleting_by_keyboard_leaves_the_focus_in_the_list(reader: Reader):
    script_answers(reader.page, "One.", "Two.", "Three.")
    for text in ("First", "Second", "Third"):
        reader.page.click("#new")
        reader.ask(text)
    reader.page.get_by_label("Delete Second").focus()
    reader.page.keyboard.press("Enter")
    assert reader.titles == ["Third", "First"]
    assert reader.focused == "First"


@pytest.mark.parametrize("name", ["Again", "Go on"])
def test_the_button_that_was_pressed_has_the_focus_again_behind_the_answer(patient_reader: Reader, name: str):
    reader = patient_reader
    reader.set(max_tokens=4).ask("A long one")
    reader.page.get_by_role("button", name=name, exact=True).focus()
    reader.page.keyboard.press("Enter")
    reader.page.wait_for_selector("#stop:visible")
    assert reader.focused == "Answer"
    reader.wait()
    assert reader.focused == name


def test_the_versions_can_be_walked_through_by_keyboard(reader: Reader):
    script_answers(reader.page, "One.", "Two.", "Three.")
    reader.ask("Hi")
    for text in ("Two.", "Three."):
        reader.press_button("Again")
        reader.page.wait_for_selector(f"text={text}")
        reader.wait()
    reader.page.get_by_label("Version before").focus()
    reader.page.keyboard.press("Enter")
    assert reader.last_answer == "Two."
    assert reader.focused == "Version before"
    reader.page.keyboard.press("Enter")
    assert reader.last_answer == "One."
    assert reader.focused == "Next version"


def test_send_and_stop_hand_the_focus_on(patient_reader: Reader):
    reader = patient_reader
    reader.page.fill("#input", "A long one")
    reader.page.focus("#send")
    reader.page.keyboard.press("Enter")
    reader.wait_for_text()
    assert reader.focused == "stop"
    reader.page.keyboard.press("Enter")
    reader.wait()
    assert reader.focused == "send"


def test_what_is_selected_in_an_earlier_answer_stays_selected(asking: Reader):
    asking.page.locator(".message.assistant .body").first.evaluate("(node) => getSelection().selectAllChildren(node)")
    asking.wait()
    assert asking.page.evaluate("getSelection().toString()") == "One."
