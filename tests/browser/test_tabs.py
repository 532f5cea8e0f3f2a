"""One reader, two tabs: neither may overwrite what was said in the other."""

import json

import pytest

pytest.importorskip("playwright", reason="needs playwright: make test-browser")

from page_driver import Reader, script_answers


def kept_questions(reader: Reader) -> list[tuple[str, list[str]]]:
    """The title and the questions of each conversation that the browser keeps."""
    conversations = reader.page.evaluate(
        "Object.keys(localStorage).filter((key) => key.startsWith('llamita.conversation.')).map((key) => localStorage[key])"
    )
    return [
        (talk["title"], [message["content"] for message in talk["messages"] if message["role"] == "user"])
        for talk in map(json.loads, conversations)
    ]


def kept(reader: Reader) -> dict[str, list[str]]:
    """The same by title."""
    by_title = dict(kept_questions(reader))
    assert len(by_title) == len(kept_questions(reader))
    return by_title


def test_a_conversation_goes_on_in_either_of_two_tabs(reader: Reader):
    script_answers(reader.page, "One.", "Three.")
    reader.ask("first message one")
    other = reader.another_tab()
    assert other.questions == ["first message one"]
    script_answers(other.page, "Two.")
    other.ask("from tab TWO")
    reader.wait_until(lambda: reader.questions == ["first message one", "from tab TWO"] and reader.last_answer == "Two.")
    reader.ask("from tab ONE again")
    everything = ["first message one", "from tab TWO", "from tab ONE again"]
    other.wait_until(lambda: other.questions == everything and other.last_answer == "Three.")
    for tab in (reader, other):
        tab.open()
        assert tab.questions == everything
        assert tab.titles == ["first message one"]


def test_two_tabs_that_ask_at_the_same_time_make_two_conversations(patient_reader: Reader):
    reader = patient_reader
    reader.set(max_tokens=60)
    script_answers(reader.page, "One.")
    reader.ask("first")
    reader.page.unroute_all()
    other = reader.another_tab("addEventListener('storage', (event) => event.stopImmediatePropagation(), true)")
    reader.type("from ONE")
    other.type("from TWO")
    answers = reader.wait(), other.wait()
    assert sorted(kept(reader).values()) == [["first", "from ONE"], ["first", "from TWO"]]
    assert set(kept(reader)) == {"first", "first (2)"}
    for tab, answer, question in ((reader, answers[0], "from ONE"), (other, answers[1], "from TWO")):
        assert tab.questions == ["first", question]
        assert tab.last_answer == answer
        tab.open()  # each tab stays with its own
        assert tab.questions == ["first", question]
        assert tab.last_answer == answer
        assert sorted(tab.titles) == ["first", "first (2)"]


def test_an_answer_that_another_tab_went_on_from_is_kept_whole(patient_reader: Reader):
    reader = patient_reader
    reader.set(max_tokens=120).type("A long one")
    reader.wait_for_text()
    other = reader.another_tab()
    script_answers(other.page, "Early.")
    other.ask("Already?")
    whole = reader.wait()
    assert reader.page.is_visible(".notice:has-text('Another tab has gone on with the same conversation')")
    assert kept(reader) == {"A long one": ["A long one", "Already?"], "A long one (2)": ["A long one"]}
    reader.open()
    assert reader.last_answer == whole


def test_what_one_tab_overwrote_unseen_is_kept_as_another_conversation(reader: Reader):
    """Storage has no locks: another tab's write lies over one that it did not know."""
    script_answers(reader.page, "One.")
    reader.ask("Hi")
    other = reader.another_tab()
    other.page.evaluate("""() => {
        const key = Object.keys(localStorage).find((key) => key.startsWith("llamita.conversation."));
        const messages = [{ role: "user", content: "Over it" }];
        localStorage[key] = JSON.stringify({ ...JSON.parse(localStorage[key]), messages, writes: { unaware: 1 } });
    }""")
    reader.wait_until(lambda: sorted(kept(reader).values()) == [["Hi"], ["Over it"]])
    assert reader.questions == ["Hi"]
    reader.wait_until(lambda: sorted(reader.titles) == ["Hi", "Hi (2)"])


def test_nothing_is_lost_when_three_tabs_ask_as_fast_as_they_can(reader: Reader):
    script_answers(reader.page, "One.")
    reader.ask("first")
    tabs = [reader, reader.another_tab(), reader.another_tab()]
    n = 12
    for name, tab in enumerate(tabs):
        script_answers(tab.page, *["Yes."] * n)
        tab.page.evaluate(
            """([name, n]) => {
              const said = Array.from({ length: n }, (_, i) => `${name} ${i}`);
              const timer = setInterval(() => {
                if (document.getElementById("send").hidden) return;
                if (!said.length) return clearInterval(timer);
                document.getElementById("input").value = said.shift();
                document.getElementById("composer").requestSubmit();
              }, 7);
            }""",
            [f"tab {name}", n],
        )
    everything = {"first"} | {f"tab {name} {i}" for name in range(3) for i in range(n)}
    reader.wait_until(lambda: {text for _, questions in kept_questions(reader) for text in questions} == everything)


def test_an_edit_that_is_being_typed_stays_while_another_tab_goes_on(reader: Reader):
    script_answers(reader.page, "One.", "Three.")
    reader.ask("Hi")
    reader.press_button("Edit")
    reader.page.keyboard.type(" there")
    other = reader.another_tab()
    script_answers(other.page, "Two.")
    other.ask("From here")
    reader.page.wait_for_timeout(300)
    assert reader.page.input_value(".editor textarea") == "Hi there"
    reader.page.keyboard.press("Escape")
    reader.wait_until(lambda: reader.questions == ["Hi", "From here"])
    reader.page.get_by_role("button", name="Edit").first.click()
    script_answers(other.page, "Four.")
    other.ask("And here")
    reader.page.fill(".editor textarea", "Hi there")
    reader.page.keyboard.press("Enter")
    reader.page.wait_for_selector("text=Three.")
    reader.wait()
    assert sorted(kept(reader).values()) == [["Hi", "From here", "And here"], ["Hi there"]]
    reader.press_button("Undo")
    assert reader.questions == ["Hi", "From here"]


def test_a_conversation_renamed_in_one_tab_is_renamed_in_the_other_that_is_writing_it(patient_reader: Reader):
    reader = patient_reader
    reader.set(max_tokens=100).type("A long one")
    reader.wait_for_text()
    other = reader.another_tab()
    other.page.hover("#conversations li")
    other.page.get_by_label("Rename A long one").click()
    other.page.keyboard.type("Short")
    other.page.keyboard.press("Enter")
    assert other.focused == "Rename Short"
    reader.wait_until(lambda: reader.titles == ["Short"])
    reader.wait()
    assert set(kept(reader)) == {"Short"}


def test_a_conversation_deleted_in_another_tab_is_written_no_further_and_can_be_gone_on_with(patient_reader: Reader):
    reader = patient_reader
    reader.type("A long one")
    reader.wait_for_text()
    other = reader.another_tab()
    other.page.hover("#conversations li")
    other.page.get_by_label("Delete A long one").click()
    reader.wait()
    assert "stopped" in reader.page.locator(".stats").last.inner_text()
    assert kept(reader) == {}
    reader.wait_until(lambda: reader.titles == [])
    script_answers(reader.page, "More.")
    reader.ask("Go on")
    assert kept(reader) == {"A long one": ["A long one", "Go on"]}


def test_a_list_that_two_tabs_overwrote_finds_its_conversations_again(reader: Reader):
    script_answers(reader.page, "One.", "Two.")
    reader.ask("First")
    reader.page.click("#new")
    reader.ask("Second")
    index = "llamita.conversations"
    reader.page.evaluate(f"localStorage['{index}'] = JSON.stringify(JSON.parse(localStorage['{index}']).slice(0, 1))")
    reader.open()
    assert reader.titles == ["Second", "First"]


def test_undoing_an_edit_while_its_answer_comes_leaves_what_was_before(patient_reader: Reader):
    reader = patient_reader
    script_answers(reader.page, "One.", "Two.")
    reader.ask("First")
    reader.ask("Second")
    reader.page.unroute_all()
    reader.page.get_by_role("button", name="Edit").first.click()
    reader.page.fill(".editor textarea", "A long one")
    reader.page.keyboard.press("Enter")
    reader.wait_until(lambda: reader.questions == ["A long one"])
    reader.wait_for_text()
    reader.press_button("Undo")
    reader.wait()
    reader.page.wait_for_timeout(300)
    assert kept(reader) == {"First": ["First", "Second"]}
    assert reader.questions == ["First", "Second"]
