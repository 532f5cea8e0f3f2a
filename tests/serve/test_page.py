"""The page's files: what they are served as, under which policy, and that nothing in them leads elsewhere."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from web import Web, serving

from llamita.model import Model
from llamita.serve.routes.page import FOLDER

FILES = sorted(path.name for path in FOLDER.iterdir())
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
REPOSITORY = Path(__file__).parents[2]


class References(HTMLParser):
    """What a page loads, and what it holds that its policy forbids."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded, self.forbidden = list[str](), list[str]()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.loaded += [value for name, value in attrs if name in ("src", "href") and value]
        self.forbidden += [f"{tag} {name}" for name in values if name == "style" or name.startswith("on")]
        if tag == "style" or (tag == "script" and "src" not in values):
            self.forbidden.append(tag)


def test_the_root_is_the_page(web: Web):
    answer = web.get("/")
    assert answer.status == 200
    assert answer.data == (FOLDER / "index.html").read_bytes()


@pytest.mark.parametrize("name", FILES)
def test_a_file_has_its_type_and_a_strict_policy(web: Web, name: str):
    answer = web.get(f"/page/{name}")
    assert answer.status == 200
    assert answer.headers["content-type"].split(";")[0] == TYPES[Path(name).suffix]
    policy = answer.headers["content-security-policy"].split("; ")
    assert policy[0] == "default-src 'self'"
    assert not [directive for directive in policy if "unsafe" in directive or "script-src" in directive]
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("name", FILES)
def test_no_file_names_another_machine(name: str):
    text = (FOLDER / name).read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert not re.findall(r"(?:https?:)?//[\w-]+\.[\w.-]+|url\(|@import", text)


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".js")])
def test_scripts_import_only_files_that_are_there_and_parse_no_html_and_no_code(name: str):
    text = (FOLDER / name).read_text(encoding="utf-8")
    imported = re.findall(r'from "\./([^"]+)"', text)
    assert len(imported) == len(re.findall(r"^import\b|\bimport\(", text, re.MULTILINE))
    assert set(imported) <= set(FILES)
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\(|new Function|srcdoc|\.cssText|setHTML"
    )
    assert not re.findall(forbidden, text)


def test_the_page_loads_its_own_files_and_holds_nothing_that_its_policy_forbids():
    page = References((FOLDER / "index.html").read_text(encoding="utf-8"))
    assert len(page.loaded) >= 4
    assert all(link.removeprefix("/page/") in FILES for link in page.loaded)
    assert not page.forbidden


def test_the_page_needs_no_key_but_what_it_asks_for_does(toy_model: Model):
    with serving(toy_model, api_key="sk-secret") as web:
        assert {web.get(path).status for path in ("/", *(f"/page/{name}" for name in FILES))} == {200}
        assert web.get("/v1/models").status == 401


@pytest.mark.parametrize("name", ["nothing.js", "..%2fapp.py", "%2e%2e", "..%5capp.py", "index.html%00", "__init__.py"])
def test_other_files_are_not_there(web: Web, name: str):
    assert web.get(f"/page/{name}").status == 404


def test_the_wheel_holds_the_page():
    wheel = pytest.importorskip("hatchling.builders.wheel", reason="needs hatchling, which builds the wheel")
    packed = {file.distribution_path for file in wheel.WheelBuilder(str(REPOSITORY)).recurse_included_files()}
    assert {f"llamita/serve/page/{name}" for name in FILES} <= packed
