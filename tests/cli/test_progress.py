"""How long work goes on: a bar on a terminal, a line now and then elsewhere, both on stderr."""

from types import SimpleNamespace

from llamita.cli.progress import ShownProgress, counted


def test_progress_is_a_line_now_and_then_where_no_terminal_is(capsys, monkeypatch):
    monkeypatch.setattr("llamita.cli.progress._SECONDS_BETWEEN_LINES", 0)
    with ShownProgress("encoding") as progress:
        progress.update(1_000_000, 4_000_000)
    assert capsys.readouterr().err.startswith("encoding: 1 of about 4 MB, ")


def test_progress_is_a_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    with ShownProgress("encoding") as progress:
        progress.say("a line")
        progress.update(1_000_000, 4_000_000)
        progress.update(4_000_000, 0)
    shown = capsys.readouterr().err
    assert "a line" in shown
    assert "encoding" in shown


def test_parts_are_counted_together(capsys, monkeypatch):
    monkeypatch.setattr("llamita.cli.progress._SECONDS_BETWEEN_LINES", 0)
    with counted("writing", 5_000_000) as advance:
        advance(1_000_000)
        advance(2_000_000)
    with counted("comparing", 2048, in_bytes=False) as advance:
        advance(1024)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "writing: 0 of about 5 MB",
        "writing: 1 of about 5 MB",
        "writing: 3 of about 5 MB",
        "comparing: 0 of about 2",
        "comparing: 1",
    ]
    assert lines[-1].startswith("comparing: 1,024 of about 2,048, ")


def test_counts_and_bytes_stand_beside_the_bar(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    with counted("comparing", 2048, in_bytes=False) as advance:
        advance(2048)
    assert "2048/2048" in capsys.readouterr().err
    with counted("writing", 5_000_000) as advance:
        advance(5_000_000)
    assert "5.0/5.0 MB" in capsys.readouterr().err


def test_slow_work_shows_that_it_goes_on(capsys, monkeypatch):
    monkeypatch.setattr("llamita.cli.progress._SECONDS_BETWEEN_LINES", 0)
    clock = SimpleNamespace(monotonic=iter((0.0, 100.0, 100.0, 200.0, 200.0)).__next__)
    monkeypatch.setattr("llamita.cli.progress.time", clock)
    with ShownProgress("scoring") as progress:
        progress.update(1_200_000, 40_000_000)
        progress.update(2_000, 30_000)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["scoring: 1.2 of about 40 MB, 12 kB/s", "scoring: 2 of about 30 kB, 10 bytes/s"]
