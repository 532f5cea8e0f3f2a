"""A short campaign over every format: each damaged file is read or refused with one line; and the fuzzer sees what breaks."""

import multiprocessing
import random
from pathlib import Path

import pytest
from fuzz.broken import FAULTS, find_broken
from fuzz.campaign import KEPT, Campaign, scratch_folder
from fuzz.examine import Examiner, Finding
from fuzz.spans import Layout, damaged
from fuzz.targets import find_target, targets

N_FILES = 1500
SEED = 0
NAMES = [target.name for target in targets()]


@pytest.mark.parametrize("name", NAMES)
def test_damaged_files_are_read_or_refused(name: str):
    with scratch_folder() as folder:
        examiner = Examiner(find_target(name), folder)
        findings = {i: finding for i in range(N_FILES) if (finding := examiner.examine(SEED, i))}
    assert not findings, next(iter(findings.items()))
    assert 0 < examiner.n_read < N_FILES


@pytest.mark.parametrize("name", NAMES)
def test_a_number_stands_for_one_file(name: str):
    one, other = find_target(name), find_target(name)
    files = [one.damaged(SEED, i) for i in range(50)]
    assert files == [other.damaged(SEED, i) for i in range(50)]
    assert len(set(files)) > 40
    assert files != [one.damaged(SEED + 1, i) for i in range(50)]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_damaged_is_sound(name: str, tmp_path: Path):
    target = find_target(name)
    for i, seed in enumerate(target.seeds):
        folder = tmp_path / str(i)
        folder.mkdir()
        for file_name, content in seed.files.items():
            (folder / file_name).write_bytes(content)
        target.read(folder / target.opened)


def test_lengths_and_counts_follow_a_change_unless_the_damage_is_a_lie():
    """A count, and texts with their lengths behind the length of them all: most files can still be walked over."""
    texts = [b"one", b"three", b"", b"twelve"]
    body = b"".join(bytes([len(text)]) + text for text in texts)
    layout = Layout(bytes([len(body), len(texts)]) + body)
    (total, _), (count, n_texts) = layout.number("<B"), layout.number("<B")
    for _ in range(n_texts):
        start = layout.at
        layout.text("<B", inside=(total,))
        layout.item(start, inside=(total,), counted=count)
    layout = Layout(layout.data, [span for span in layout.spans if span.kind != "number"])
    n_sound = sum(can_be_walked_over(damaged(layout, random.Random(i))) for i in range(500))
    assert 350 < n_sound < 500


def can_be_walked_over(data: bytes) -> bool:
    place = 2
    for _ in range(data[1]):
        if place >= len(data):
            return False
        place += 1 + data[place]
    return place == len(data) == data[0] + 2


def test_a_campaign_keeps_the_files_at_which_a_reader_breaks_and_goes_on(tmp_path: Path):
    seed, n_files = 777, 12  # each fault is among these, and few of them end a child
    contents = [find_broken("broken").damaged(seed, i)[1] for i in range(n_files)]
    assert set(contents) > set(FAULTS)
    shown: list[int] = []
    campaign = Campaign("broken", seed, 0, n_files, tmp_path, find_broken, hang_seconds=1)
    assert campaign.run(2, shown.append) == sum(content in FAULTS for content in contents)
    assert shown == sorted(shown)
    assert shown[-1] == n_files
    for content, (name, _) in FAULTS.items():
        kept = list(tmp_path.glob(f"broken-{name}*"))
        assert len(kept) == contents.count(content)
        assert {(folder / "file").read_bytes() for folder in kept} == {content}
        assert all((folder / "report.txt").read_text() for folder in kept)


def test_of_findings_with_one_cause_a_few_are_kept(tmp_path: Path):
    campaign, n_found = Campaign("broken", SEED, 0, 10, tmp_path, find_broken), multiprocessing.Value("q", 0)
    for i in range(10):
        campaign.keep(i, Finding("same: cause", f"report {i}"), n_found)
    assert n_found.value == 10
    assert sorted(folder.name for folder in tmp_path.iterdir()) == [f"broken-same--cause-{SEED}-{i}" for i in range(KEPT)]
