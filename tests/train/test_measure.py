"""Measuring a machine by a few real updates, and planning with what was found."""

import pytest

torch = pytest.importorskip("torch")

from llamita.train.machine import Machine, describe_machine, find_machine, free_memory_bytes
from llamita.train.measure import measure, plan_and_measure
from llamita.train.plan import Dial, plan

CPU = torch.device("cpu")
QUICK = {"width": 32, "n_layers": 2, "context": 32, "vocab_size": 64, "batch": 4, "compile": False, "mlp_width": 64}
ASSUMED = Machine("cpu", "a laptop", 2, 8 << 30, "float32", False, 1e15)


def test_a_measurement_is_a_speed_of_this_recipe():
    recipe = plan(Dial(params=100_000), None, ASSUMED, QUICK).recipe
    found = measure(recipe, CPU, print)
    assert found.batch == 4
    assert not found.compiled
    assert 100 < found.tokens_per_second < 1e9


def test_a_batch_that_does_not_fit_is_halved(monkeypatch):
    from llamita.train.update import Updater

    run, notes = Updater.run, []

    def run_if_small(self: Updater, step: int):
        if self.batch > 1:
            raise torch.OutOfMemoryError
        return run(self, step)

    monkeypatch.setattr(Updater, "run", run_if_small)
    recipe = plan(Dial(params=100_000), None, ASSUMED, QUICK).recipe
    assert measure(recipe, CPU, notes.append).batch == 1
    assert len(notes) == 2


def test_a_plan_with_measurement_has_the_measured_speed():
    notes = []
    made = plan_and_measure(Dial(params=100_000), None, ASSUMED, QUICK, CPU, notes.append)
    assert made.tokens_per_second < plan(Dial(params=100_000), None, ASSUMED, QUICK).tokens_per_second
    assert any("measured" in line.how for line in made.lines)
    assert len(notes) == 1


def test_this_machine_is_described():
    machine = find_machine("cpu")
    assert machine.device == "cpu"
    assert machine.flops_per_second > 0
    assert machine.memory_bytes is None or machine.memory_bytes > 1 << 20
    assert free_memory_bytes() == pytest.approx(machine.memory_bytes, rel=0.5)
    described = describe_machine()
    assert described["cores"] >= 1
    assert described["versions"]["torch"]


def test_pages_of_files_that_nobody_reads_are_free_memory_in_a_container(monkeypatch, tmp_path):
    monkeypatch.setattr("llamita.train.machine.CONTROL_GROUP", tmp_path)
    before = free_memory_bytes()
    for name, text in (("max", "3000"), ("current", "2500"), ("stat", "anon 900\ninactive_file 1500\nactive_file 100\n")):
        (tmp_path / f"memory.{name}").write_text(text)
    assert free_memory_bytes() == 2000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory_bytes() == pytest.approx(before, rel=0.5)
