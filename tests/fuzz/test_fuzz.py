"""The fuzzing command in short: the first cases of each kind, and that its watch sees what it watches for."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.fuzz import campaign
from tests.fuzz.campaign import Figures, cases_of, tried
from tests.fuzz.mutate import message_bytes, parse_message
from tests.runtime.conftest import TinyStep, tiny_manifest


@pytest.mark.filterwarnings("ignore")  # of SciPy, about what it reads
@pytest.mark.parametrize(
    ("kind", "count"), [("artifacts", 150), ("bags", 80), ("lists", 150), ("replays", 60), ("tomls", 60)]
)
def test_whatever_is_in_a_file_it_is_refused_in_one_line_or_works(tmp_path: Path, kind: str, count: int) -> None:
    case = cases_of(kind, tmp_path, large=False)
    figures = Figures()
    for index in range(count):
        figures.count(index, *tried(case, 7, index))
    assert not figures.notes, figures.notes[0]
    assert figures.outcomes["refused"] > count // 2
    assert figures.outcomes["accepted"] > 0, "no mutation got as far as being used"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", [0, 10_000])
def test_twenty_thousand_artifacts(first: int) -> None:
    """In children: none crashes, hangs, raises anything else than a refusal, or takes more than 500 MB."""
    figures = campaign.run("artifacts", 10_000, 12, first)
    assert not figures.notes, figures.notes[0]
    assert figures.outcomes["refused"] + figures.outcomes["accepted"] == 10_000
    assert figures.outcomes["accepted"] > 100
    assert figures.peak_mb <= 500, figures.line()


def test_a_message_taken_apart_is_the_same_message() -> None:
    graph = TinyStep(tiny_manifest()).graph()
    fields = parse_message(graph)
    assert fields is not None
    assert message_bytes(fields) == graph


CHILD = """
import json, os, time
for case in range({first}, {end}):
    if case == 0:
        os._exit(7)
    if case == 2:
        time.sleep(1000)
    print(json.dumps(["refused", "", 0.1, 50.0 + case]), flush=True)
"""


def test_a_crash_and_a_hang_cost_one_case_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Case 0 crashes, case 2 hangs; each child's first answer has all the time it needs."""

    def command(kind: str, seed: int, first: int, end: int, folder: str) -> list[str]:
        return [sys.executable, "-c", CHILD.format(first=first, end=end)]

    monkeypatch.setattr(campaign, "command", command)
    monkeypatch.setattr(campaign, "CASE_SECONDS", 0.05)
    figures = campaign.run("any", 4, 0)
    assert figures.line() == (
        "4 cases: 2 refused, 0 accepted, 0 raw, 1 hung, 1 crashed; peak 53 MB (case 3), slowest 0.10 s (case 3)"
    )
    assert [note.partition(":")[0] for note in figures.notes] == ["case 0", "case 2"]
    assert "crashed, exit code 7" in figures.notes[0]


def test_an_exception_that_is_no_refusal_is_kept_with_its_traceback() -> None:
    outcome, note = tried(lambda rng: str(1 // 0), 0, 0)
    assert outcome == "raw"
    assert "ZeroDivisionError" in note
