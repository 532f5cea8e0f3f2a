"""What a model, a file or another page may try: text stays text, everywhere on the page."""

import json
from collections.abc import Callable

import pytest

pytest.importorskip("playwright", reason="needs playwright: make test-browser")

from page_driver import Reader, script_answers
from playwright.sync_api import Browser
from web import Web

ATTACKS = [
    '<img src=x onerror="window.hacked = 1">',
    "<script>window.hacked = 1</script>",
    "<svg onload=window.hacked=1><a xlink:href=javascript:window.hacked=1>x</a></svg>",
    '<iframe srcdoc="<script>parent.hacked=1</script>"></iframe>',
    "[click](javascript:window.hacked=1)",
    '[click](JaVaScRiPt:window.hacked=1 "title")',
    "[click](&#106;avascript:window.hacked=1)",
    "[click]( java\tscript:window.hacked=1)",
    "[click](data:text/html,<script>window.hacked=1</script>)",
    "[click](vbscript:window.hacked=1) [click](//evil.example) [click](/v1/models)",
    '![x](javascript:window.hacked=1) ![x]("onerror=window.hacked=1)',
    '<javascript:window.hacked=1> <https://a.example/"onclick=window.hacked=1>',
    "```<img src=x onerror=window.hacked=1>\n<script>window.hacked=1</script>\n```",
    '```"><img/src/onerror=window.hacked=1>\ncode\n```',
    "| <img src=x onerror=window.hacked=1> | b |\n|---|---|\n| [c](javascript:window.hacked=1) | d |",
    "# <img src=x onerror=window.hacked=1>\n> <script>window.hacked=1</script>\n\n- <b onclick=window.hacked=1>x</b>",
    '[a](https://ok.example/" onmouseover="window.hacked=1)',
    "[<img src=x onerror=window.hacked=1>](https://ok.example/)",
    "</textarea></div><style>*{display:none}</style>",
    "`<script>window.hacked=1</script>` **<img src=x onerror=window.hacked=1>**",
    "\u202e\u0000\ufeff<scr\u0000ipt>window.hacked=1</scr\u0000ipt>",
]
LONG_TEXTS = [
    "*" * 50_000, "[" * 50_000, "`" * 50_000, "\\" * 50_000, "> " * 20_000, "- " * 20_000, "**a " * 20_000, "[a](" * 20_000,
    "_a*b~~" * 10_000, "https://" * 10_000, "`a``" * 10_000, "|a" * 20_000 + "\n" + "|-" * 20_000,
    "a  \n" * 10_000, "- a\n" * 10_000,
]  # fmt: skip
MANY = " " * 100_000
LONG_LINES = [
    f"# a{MANY}b", f"# {MANY}\u2028{MANY}", f"# a{' #' * 50_000}b", f"```{'a' * 100_000}`", f"```{MANY}`", f"{'`' * 100_000}a`",
    f"~~~{MANY}`", f"a|b\n-{MANY}x", f"a|b\n|{MANY}x", f"a|b\n{'-' * 100_000}x", f"a|b\n{'| ' * 50_000}x",
    f"- {MANY}\u2028{MANY}", f"-{MANY}x", "- " * 50_000 + "x", f"` {'a' * 100_000}`", f"`{' a' * 50_000}`",
    "ahttps://" * 11_000, "https://[" * 11_000,
    "[" * 100_000 + "](", ("[a](https://a.b" + " " * 2020 + ")") * 50, ("https://a" + "." * 2000 + "x ") * 50,
]  # fmt: skip
FORBIDDEN = "img, script, iframe, svg, object, embed, style, form, base, meta, link, [onclick], [onerror], [onload], [srcdoc]"


def is_unharmed(reader: Reader) -> bool:
    page = reader.page
    for link in page.locator("#messages a").all():
        assert (link.get_attribute("href") or "").startswith(("http://", "https://"))
        assert link.get_attribute("rel") == "noopener noreferrer"
    assert page.locator(f"#messages :is({FORBIDDEN})").count() == 0
    assert page.locator(f"#sidebar :is({FORBIDDEN})").count() == 0
    return page.evaluate("window.hacked === undefined")


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_a_model_says_stays_text(reader: Reader, attack: str):
    script_answers(reader.page, attack)
    reader.ask(attack)
    assert is_unharmed(reader)
    for link in reader.page.locator("#messages a").all():
        link.hover()
    tokens = reader.show_tokens()
    tokens.first.click()
    assert is_unharmed(reader)
    assert reader.page.locator("#alternatives :is(img, script, iframe, svg)").count() == 0
    reader.open()
    reader.page.hover("#conversations .open")
    assert is_unharmed(reader)


def test_a_title_stays_text_also_when_it_is_edited(reader: Reader):
    script_answers(reader.page, "Hello.")
    reader.ask("Hi")
    reader.page.hover("#conversations li")
    reader.page.get_by_label("Rename Hi").click()
    reader.page.keyboard.type("<img src=x onerror=window.hacked=1>")
    reader.page.keyboard.press("Enter")
    assert reader.page.inner_text("#conversations .open") == "<img src=x onerror=window.hacked=1>"
    reader.open()
    assert is_unharmed(reader)


@pytest.mark.parametrize(
    "stored", ["{", "null", "[]", '{"messages": 5}', '{"messages": [{"role": "assistant"}]}', '"<script>"']
)
def test_damaged_storage_does_no_harm(reader: Reader, stored: str):
    script_answers(reader.page, "Hello.")
    reader.ask("Hi")
    names = "Object.keys(localStorage).filter((name) => name.startsWith('llamita'))"
    reader.page.evaluate(f"(stored) => {names}.forEach((name) => localStorage.setItem(name, stored))", stored)
    reader.page.evaluate("onpagehide = null")
    reader.open()
    assert reader.page.is_visible("#input")
    script_answers(reader.page, "Hello again.")
    assert reader.ask("Hi") == "Hello again."


def test_the_name_of_the_model_and_its_errors_stay_text(new_reader: Callable[..., Reader], chat_web: Web):
    reader = new_reader(chat_web)
    model = {"id": "<img src=x onerror=window.hacked=1>", "max_model_len": 8, "template": "jinja", "stop_ids": []}
    reader.page.route("**/v1/models", lambda route: route.fulfill(json={"data": [model]}))
    error = {"error": {"message": "<script>window.hacked=1</script>", "type": "x", "param": None, "code": None}}
    reader.page.route("**/v1/chat/completions", lambda route: route.fulfill(status=400, json=error))
    reader.open()
    reader.ask("Hi")
    assert reader.page.inner_text(".error") == "<script>window.hacked=1</script>"
    assert reader.page.inner_text("#model") == "<img src=x onerror=window.hacked=1>"
    assert is_unharmed(reader)


def test_the_policy_stops_what_would_slip_through(chromium: Browser, chat_web: Web):
    page = chromium.new_page()
    refused: list[str] = []
    page.on("console", lambda message: refused.append(message.text) if "Content Security Policy" in message.text else None)
    page.goto(f"http://127.0.0.1:{chat_web.port}/")
    page.evaluate("""document.body.innerHTML = '<img src="x" onerror="window.hacked = 1">'""")
    page.wait_for_timeout(300)
    assert page.evaluate("window.hacked === undefined")
    assert refused
    page.close()


@pytest.mark.parametrize("text", LONG_TEXTS + LONG_LINES, ids=lambda text: ascii(text[:20]))
def test_hostile_markdown_costs_no_more_than_other_text(reader: Reader, text: str):
    milliseconds = reader.page.evaluate(
        """async (text) => {
          const { renderMarkdown } = await import("/page/markdown.js");
          const started = performance.now();
          document.createElement("div").append(...renderMarkdown(text));
          return performance.now() - started;
        }""",
        text,
    )
    assert milliseconds < 2000, json.dumps(text[:20])
