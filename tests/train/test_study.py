"""The journal of a sweep: what it says survives the process, and a line that a kill has torn."""

from pathlib import Path

import pytest

pytest.importorskip("optuna", reason="optuna comes with llamita[sweep]")

from llamita.errors import DataError
from llamita.train.study import FAILED, FINISHED, RUNNING, STOPPED, Study, ranking

GRID = {"learning_rate": (1e-3, 1e-2), "tied_embedding": (True, False)}
COMBINATIONS = [{"learning_rate": rate, "tied_embedding": tied} for rate in (1e-3, 1e-2) for tied in (True, False)]


def open_study(folder: Path) -> Study:
    return Study(folder / "study.journal", GRID, COMBINATIONS)


def test_what_became_of_trials_is_there_when_the_journal_is_opened_again(tmp_path: Path):
    study = open_study(tmp_path)
    study.note_loss(0, 0, 3.0)
    study.note_loss(1, 0, 2.0)
    study.note_loss(1, 1, 1.5)
    study.fail(2, "step 7: loss nan")
    study.stop(0)
    study.finish(1, 1.5)
    for seen in (study, open_study(tmp_path)):
        assert [seen.state(number) for number in range(4)] == [STOPPED, FINISHED, FAILED, RUNNING]
        assert seen.losses(0) == {0: 3.0, 1: 2.0}
        assert seen.losses(1) == {1: 1.5}
        assert seen.why(2) == "step 7: loss nan"
        assert ranking(seen, 4, 2) == [1, 0, 3, 2]


def test_a_journal_may_end_anywhere(tmp_path: Path):
    path = tmp_path / "study.journal"
    study = open_study(tmp_path)
    for number in range(4):
        study.note_loss(number, 0, float(number))
    content = path.read_bytes()
    for end in [*range(0, len(content), 61), len(content) - 1]:
        path.write_bytes(content[:end])
        (tmp_path / "study.journal.lock").touch()  # of a process that was killed while it wrote
        again = open_study(tmp_path)
        again.note_loss(3, 0, 9.0)
        assert open_study(tmp_path).losses(0)[3] == 9.0
        assert [again.state(number) for number in range(4)] == [RUNNING] * 4


@pytest.mark.parametrize("content", [b"no journal\n", b'{"op_code": 99}\n', b"[1]\n", b"\xff\xfe\n"])
def test_a_damaged_journal_is_one_line(tmp_path: Path, content: bytes):
    (tmp_path / "study.journal").write_bytes(content)
    with pytest.raises(DataError, match=r"study.journal: found no journal of a sweep") as caught:
        open_study(tmp_path)
    assert len(str(caught.value).splitlines()) == 1


def test_the_journal_of_another_grid_is_refused(tmp_path: Path):
    open_study(tmp_path)
    with pytest.raises(DataError, match="trials of another grid"):
        Study(tmp_path / "study.journal", {"seed": (1, 2)}, [{"seed": 1}, {"seed": 2}])


def test_optunas_own_tools_open_the_journal(tmp_path: Path):
    import optuna
    from optuna.storages.journal import JournalFileBackend, JournalStorage

    study = open_study(tmp_path)
    study.note_loss(3, 0, 1.0)
    study.finish(3, 1.0)
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "study.journal")))
    best = optuna.load_study(study_name="sweep", storage=storage).best_trial
    assert (best.number, best.params) == (3, COMBINATIONS[3])
