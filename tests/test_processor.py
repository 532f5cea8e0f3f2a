"""What the operating system says of our share of the processor."""

import os

import pytest

from llamita import processor
from llamita.processor import available_cores


@pytest.fixture
def many_cores(monkeypatch, tmp_path):
    """A machine of 32 cores and the folder of its control group."""
    monkeypatch.setattr(processor, "CONTROL_GROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(32)), raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("5000 100000", 1),
        ("max 100000", 32),
        ("9900000 100000", 32),
        ("broken", 32),
    ],
)
def test_a_container_has_as_many_cores_as_its_share_of_time_is_worth(many_cores, quota: str, cores: int):
    (many_cores / "cpu.max").write_text(quota + "\n")
    assert available_cores() == cores


def test_without_a_container_all_cores_are_ours(many_cores):
    assert list(many_cores.iterdir()) == []
    assert available_cores() == 32
