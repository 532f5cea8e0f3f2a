"""Before torch is imported: it must be there, and its threads must not spin."""

import os
import sys

import pytest

from llamita.cli import main
from llamita.errors import SettingError
from llamita.train.torch_setup import set_up_torch


def test_without_torch_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SettingError, match=r"found no torch; install it by: pip install 'llamita\[train\]'"):
        set_up_torch()


@pytest.mark.parametrize("verb", [["train", "text", "--out", "run"], ["plan"]])
def test_the_verbs_that_need_torch_end_with_that_line(monkeypatch, capsys, verb):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main(verb) == 1
    assert capsys.readouterr().err.startswith("llamita: training: found no torch")


@pytest.mark.parametrize(("before", "after"), [(None, "2000"), ("7", "7")])
def test_threads_sleep_soon_unless_the_user_says_otherwise(monkeypatch, before, after):
    pytest.importorskip("torch", reason="torch comes with llamita[train]")
    if before is None:
        monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    else:
        monkeypatch.setenv("GOMP_SPINCOUNT", before)
    set_up_torch()
    assert os.environ["GOMP_SPINCOUNT"] == after
