"""What the tests of data/ share: a small tokenizer in a file, stories enough to be divided."""

from pathlib import Path

import pytest

from llamita.formats import write_tokenizer
from llamita.tokenizer.learn import learn
from stories import story


@pytest.fixture(scope="session")
def tokenizer_path(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    write_tokenizer(learn(map(story, range(50)), 330), path)
    return path


@pytest.fixture
def stories_path(tmp_path: Path) -> Path:
    """A file of 300 stories with the usual marker between them."""
    path = tmp_path / "stories.txt"
    path.write_text("\n<|endoftext|>\n".join(map(story, range(300))), encoding="utf-8")
    return path
