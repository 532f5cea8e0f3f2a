"""What a reader does on the page, in words; and answers that a test writes itself, in the server's shape."""

import json
import re
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Locator, Page, Route
from web import Web

PATIENCE_MILLISECONDS = 20_000


class Reader:
    """Somebody in front of the page of one server."""

    def __init__(self, page: Page, web: Web) -> None:
        self.page, self.web, self.host = page, web, "127.0.0.1"
        self.asked: list[dict[str, Any]] = []  # bodies of what the page sent to the model
        self.urls: list[str] = []
        page.on("request", self._note)

    def _note(self, request: Any) -> None:
        self.urls.append(request.url)
        if request.method == "POST":
            self.asked.append(json.loads(request.post_data))

    @property
    def address(self) -> str:
        return f"http://{self.host}:{self.web.port}"

    def open(self) -> "Reader":
        self.page.goto(f"{self.address}/")
        self.page.wait_for_selector("#model:not(:empty)")
        return self

    def another_tab(self, script: str = "") -> "Reader":
        """The same reader in another tab of the browser, in which a script runs before the page's own."""
        page = self.page.context.new_page()
        page.add_init_script(script)
        return Reader(page, self.web).open()

    def set(self, **settings: float) -> "Reader":
        """Sampling settings, typed into their fields."""
        self.page.click("#show-settings")
        for name, value in settings.items():
            self.page.fill(f"#setting-{name}", str(value))
            self.page.locator(f"#setting-{name}").blur()
        self.page.click("#hide-settings")
        return self

    def type(self, text: str) -> None:
        self.page.fill("#input", text)
        self.page.press("#input", "Enter")

    def ask(self, text: str) -> str:
        """The whole answer to a message."""
        self.type(text)
        return self.wait()

    def wait(self) -> str:
        """The last answer, once it is whole."""
        self.page.wait_for_selector("#stop", state="hidden", timeout=PATIENCE_MILLISECONDS)
        return self.last_answer

    def wait_for_text(self) -> str:
        """The last answer, once it has begun."""
        self.wait_until(lambda: self.page.locator(".message.assistant").count() > 0 and len(self.last_answer) > 8)
        return self.last_answer

    def wait_until(self, is_so: Callable[[], bool]) -> None:
        """Look again and again; the page's policy forbids what wait_for_function does."""
        for _ in range(PATIENCE_MILLISECONDS // 10):
            if is_so():
                return
            self.page.wait_for_timeout(10)
        raise AssertionError("waited too long")

    @property
    def last_answer(self) -> str:
        return self.page.locator(".message.assistant .body").last.text_content() or ""

    @property
    def titles(self) -> list[str]:
        """Of the conversations at the side."""
        return self.page.locator("#conversations .open").all_text_contents()

    @property
    def focused(self) -> str:
        """What has the focus: its name for those who hear the page, else its text, else what kind of element it is."""
        return self.page.evaluate(
            "(({ ariaLabel, id, textContent, tagName }) => ariaLabel ?? (id || textContent || tagName))(document.activeElement)"
        )

    @property
    def questions(self) -> list[str]:
        return self.page.locator(".message.user .body").all_text_contents()

    def show_tokens(self) -> Locator:
        """The tokens of the last answer."""
        if self.page.get_attribute("#tokens", "aria-pressed") == "false":
            self.page.click("#tokens")
        return self.page.locator(".message.assistant").last.locator(".token")

    def alternatives(self) -> Locator:
        """The tokens in the panel."""
        return self.page.locator("#alternatives button.row")

    def press_button(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).last.click()


def script_answers(page: Page, *texts: str) -> None:
    """The model says these texts, one after the other, whatever it is asked."""
    left = list(texts)

    def answer(route: Route) -> None:
        route.fulfill(status=200, headers={"Content-Type": "text/event-stream"}, body=stream_of(left.pop(0)))

    page.route("**/v1/chat/completions", answer)


def stream_of(text: str) -> str:
    """A text as a stream of the server, a token each word."""
    tokens = re.findall(r"\s*\S+|\s+$", text)
    events: list[dict[str, Any]] = [_event({"role": "assistant", "content": ""})]
    for number, token in enumerate(tokens):
        events.append(_event({"content": token}, {"content": [_token(100 + 10 * number, token)], "refusal": None}))
    events.append(_event({}, finish_reason="stop"))
    usage = {"prompt_tokens": 3, "completion_tokens": len(tokens), "total_tokens": len(tokens) + 3}
    events.append(_event({}) | {"choices": [], "usage": usage})
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"


def _token(token_id: int, text: str) -> dict[str, Any]:
    places = [
        {"id": token_id + i, "token": f"{text}{'!' * i}", "logprob": -0.5 - i, "bytes": list(f"{text}{'!' * i}".encode())}
        for i in range(3)
    ]
    return places[0] | {"top_logprobs": places}


def _event(delta: dict[str, Any], logprobs: dict[str, Any] | None = None, finish_reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "toy", "choices": [choice]}
