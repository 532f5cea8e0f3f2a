"""A real Chromium, headless, and real servers of the bundled model: one tells stories, one chats. See make test-browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from web import Web, serving

from llamita.formats import read_model
from llamita.language_model import find_model
from llamita.model import Model

if TYPE_CHECKING:  # without playwright the tests are skipped, with this file read all the same
    from page_driver import Reader
    from playwright.sync_api import Browser, BrowserContext, Page

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "browser" in item.path.parts:
            item.add_marker("browser")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """The system's Chromium, else the one that playwright installs."""
    from playwright.sync_api import sync_playwright

    path = os.environ.get("LLAMITA_CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUM)), None)
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium has no sandbox for root
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def stories() -> Model:
    return read_model(find_model("stories"))


@pytest.fixture(scope="session")
def story_web(stories: Model) -> Iterator[Web]:
    with serving(stories) as web:
        yield web


@pytest.fixture(scope="session")
def chat_web(stories: Model) -> Iterator[Web]:
    """It was not trained to answer, but neither knows the page."""
    with serving(stories, template="zephyr") as web:
        yield web


@pytest.fixture(scope="session")
def slow_web(stories: Model) -> Iterator[Web]:
    """It says a token at a time, so that a test can look at what is under way."""
    with pytest.MonkeyPatch.context() as patch, serving(stories, seconds_per_pass=0.03, template="zephyr") as web:
        patch.setattr("llamita.serve.planner.BURST_SECONDS", 0.0)
        yield web


@pytest.fixture
def new_reader(chromium: Browser) -> Iterator[Callable[..., Reader]]:
    """Makes readers, each with a browser profile of its own; what a page complains of fails the test."""
    from page_driver import Reader

    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def complain_of(page: Page) -> None:
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text) if is_complaint(message) else None)

    def new(web: Web, width: int = 1180, height: int = 760, **options) -> Reader:
        context = chromium.new_context(viewport={"width": width, "height": height}, **options)
        context.set_default_timeout(20_000)
        contexts.append(context)
        context.on("page", complain_of)
        return Reader(context.new_page(), web)

    yield new
    for context in contexts:
        context.close()
    assert not complaints


def is_complaint(message) -> bool:
    """Chromium tells of refused requests by itself; those are some tests' purpose."""
    return message.type in ("error", "warning") and "Failed to load resource" not in message.text


@pytest.fixture
def reader(new_reader: Callable[..., Reader], chat_web: Web) -> Reader:
    """Somebody who chats."""
    return new_reader(chat_web).open()


@pytest.fixture
def patient_reader(new_reader: Callable[..., Reader], slow_web: Web) -> Reader:
    """Somebody who chats slowly; "A long one" takes seconds to answer."""
    return new_reader(slow_web).open().set(temperature=0.8, top_p=1, seed=1)
