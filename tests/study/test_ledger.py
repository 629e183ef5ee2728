"""The ledger keeps what runs came to: once each, whole or not at all, and tables are written from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kd_edge.errors import ConfigError, DataError
from kd_edge.rundir import Summary
from kd_edge.study.ledger import FORMAT, Entry, add, entry, ledger_of, read_ledger, recorded
from kd_edge.study.plan import Planned, StudyConfig, plan
from kd_edge.study.report import report, report_markdown

RIGHT = {"1": "1101", "2": "1000"}


def summary(run: Planned, accuracy: float = 0.5, right: dict[str, str] | None = None) -> Summary:
    test = {"accuracy": accuracy, "macro_f1": 0.4, "confusion": [[3, 1], [2, 2]], "right": right or RIGHT}
    return Summary.model_validate(
        {
            "complete": True,
            "recipe": {"name": "tiny", "losses": []},
            "protocol": {"dataset": "d", "test_samples": 8, "skipped": {"a_clip": "why"}},
            "seed": run.seed,
            "recipe_fingerprint": run.config.fingerprint(),
            "data_fingerprints": {"student": "s"},
            "student_model": {"labels": ["a", "b"]},
            "stages": {"student": {"test": test, "epochs": 3, "selected_epoch": 3}},
        }
    )


def _tested(figures: bytes) -> bytes:
    """A line of a run with these test figures."""
    stages = b'{"student": {"test": {%s}}}' % figures
    return b'{"row": "a", "split": "b", "seed": 0, "summary": {"stages": %s}}' % stages


@pytest.fixture
def runs(study: StudyConfig) -> list[Planned]:
    return plan(study, seeds=[0, 1])


def test_a_line_has_the_figures_and_nothing_of_the_clips(runs: list[Planned], tmp_path: Path) -> None:
    path = ledger_of("studies/mine.toml", tmp_path)
    assert path == tmp_path / "mine.jsonl"
    assert add(path, [entry(runs[0], summary(runs[0]))]) == 1
    (line,) = path.read_text().splitlines()
    values = json.loads(line)
    assert (values["format"], values["row"], values["split"], values["seed"]) == (
        FORMAT, runs[0].row.name, runs[0].split, 0,
    )  # fmt: skip
    kept = values["summary"]
    assert kept["stages"]["student"]["test"]["right"] == RIGHT
    assert kept["stages"]["student"]["test"]["confusion"] == []
    assert not {"recipe", "student_model"} & kept.keys()
    assert "a_clip" not in line
    assert len(line) < 2000
    (read,) = read_ledger(path)
    assert read == Entry.model_validate_json(line)


def test_a_run_counts_once_and_settings_make_it_another(runs: list[Planned], tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    first, second = (entry(run, summary(run)) for run in runs[:2])
    assert add(path, [second, first]) == 2
    before = path.read_bytes()
    assert add(path, [first, second, first]) == 0
    assert path.read_bytes() == before
    changed = summary(runs[0]).model_copy(update={"recipe_fingerprint": "another recipe under an old name"})
    assert add(path, [entry(runs[0], changed)]) == 1
    found = read_ledger(path)
    assert len(found) == 3
    assert recorded(runs[0], found) == first.summary
    assert recorded(runs[0], [e for e in found if e.key != first.key]) is None
    merged = path.read_bytes() + before  # two machines' lines, merged as text
    path.write_bytes(merged)
    assert len(read_ledger(path)) == 3


def test_two_machines_that_took_one_row_count_once_if_their_figures_agree(runs: list[Planned], tmp_path: Path) -> None:
    """They differ in time, place and versions; a table has the row once, a gain its clips once."""
    path, found = tmp_path / "l.jsonl", summary(runs[0])
    student = found.stages["student"].model_copy(update={"seconds": 99.0})
    later = found.model_copy(update={"stages": {"student": student}, "finished": "2027-01-01", "device": "cuda:0"})
    first, second = entry(runs[0], found), entry(runs[0], later)
    assert add(path, [first]) == 1
    assert add(path, [second]) == 0
    path.write_bytes(path.read_bytes() + second.model_dump_json().encode() + b"\n")  # or merged as text
    (kept,) = read_ledger(path)
    assert kept == first, "the one that came first"


def test_a_run_of_other_recordings_is_another_and_the_last_one_counts(runs: list[Planned], tmp_path: Path) -> None:
    """As after clips were added: the run of before stays in the ledger, the table has the new one."""
    path, found = tmp_path / "l.jsonl", summary(runs[0])
    before = found.model_copy(update={"data_fingerprint": "a", "finished": "2026-01-02"})
    after = summary(runs[0], accuracy=0.9).model_copy(update={"data_fingerprint": "b", "finished": "2026-01-03"})
    assert [add(path, [entry(runs[0], each)]) for each in (after, before, after)] == [1, 1, 0]
    counted = recorded(runs[0], read_ledger(path))
    assert counted is not None
    assert counted.stages["student"].test is not None
    assert (counted.data_fingerprint, counted.stages["student"].test.accuracy) == ("b", pytest.approx(0.9))


def test_two_studies_of_one_name_share_a_ledger_and_no_run(
    study: StudyConfig, runs: list[Planned], tmp_path: Path
) -> None:
    """As two files of the same name in two folders: rows of one name and other settings."""
    path = tmp_path / "l.jsonl"
    other = study.model_copy(update={"set": {"student": {"epochs": 2}, "teacher": {"epochs": 1}}})
    theirs = plan(other, seeds=[0])
    assert theirs[0].name == runs[0].name
    add(path, [entry(run, summary(run)) for run in runs])
    assert add(path, [entry(run, summary(run, accuracy=0.6)) for run in theirs]) == len(theirs)
    kept = read_ledger(path)
    assert len(kept) == len(runs) + len(theirs)
    for each, accuracy in ((study, 50), (other, 60)):
        cells = [line.cells["subjects"] for line in report(each, tmp_path / "none", ledger=kept) if not line.shared]
        assert [cell.values for cell in cells] == [{0: pytest.approx(accuracy)}] * 3


def test_a_line_of_a_later_release_keeps_what_this_one_does_not_know(runs: list[Planned], tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    add(path, [entry(runs[0], summary(runs[0]))])
    values = json.loads(path.read_text()) | {"release": "9.9", "energy_joules": 3}
    values["summary"]["colour"] = "blue"
    path.write_text(json.dumps(values) + "\n")
    add(path, [entry(runs[1], summary(runs[1]))])
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert values in lines
    assert len(lines) == 2


def test_other_figures_of_one_run_are_told_not_counted(runs: list[Planned], tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    add(path, [entry(runs[0], summary(runs[0]))])
    before = path.read_bytes()
    other = entry(runs[0], summary(runs[0], accuracy=0.6))
    with pytest.raises(
        DataError, match=rf"has other figures for {runs[0].row.name}, .* seed 0 under the same settings"
    ):
        add(path, [other])
    assert path.read_bytes() == before
    path.write_bytes(before + other.model_dump_json().encode() + b"\n")
    with pytest.raises(DataError, match=r"lines 1 and 2 of .* have different figures for one run"):
        read_ledger(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", r"line 2 of .* is damaged \(.*JSON"),
        (b'{"row": "a"}', r"line 2 of .* is damaged \(split: Field required"),
        (
            b'{"row": "a", "split": "b", "seed": 0, "summary": {}, "format": 9, "release": "7.0"}',
            "format 9 .kd-edge 7.0",
        ),
        (b'{"format": 2, "release": "9.9", "runs": []}', r"line 2 of .* has format 2 \(kd-edge 9.9\)"),
        (b'{"release": "9.9", "row": "a"}', r"damaged \(split: Field required; kd-edge 9.9 wrote it, this is \d"),
        (b'{"format": "two"}', r"line 2 of .* is damaged \(format: .*integer"),
        (_tested(b'"accuracy": 7.1'), r"damaged \(summary.stages.student.test.accuracy: .*less than or equal to 1"),
        (_tested(b'"accuracy": -0.1'), r"damaged \(.*accuracy: .*greater than or equal to 0"),
        (_tested(b'"accuracy": 0, "macro_f1": 1.5'), r"damaged \(.*macro_f1: .*less than or equal to 1"),
        (_tested(b'"accuracy": 0, "per_class": {"a": -1}'), r"damaged \(.*per_class.a: .*greater than or equal to 0"),
        (_tested(b'"accuracy": 0, "right": {"3": "abc2x"}'), r"damaged \(.*right.3: .*pattern"),
        (_tested(b'"accuracy": 0, "right": {"3": ""}'), r"damaged \(.*right.3: .*pattern"),
        (b"<<<<<<< HEAD", r"line 2 of .* is damaged"),  # a merge that nobody has resolved
        (b"\xff\xfe\x00", r"line 2 of .* is damaged"),
        (b'{"row": "a", "split": "b", "seed": -1, "summary": {}}', r"damaged \(seed: .*greater than or equal to 0"),
        (
            b'{"row": "a", "split": "b", "seed": 0, "summary": {"stages": {"student": {"test": {"accuracy": NaN}}}}}',
            r"damaged \(summary.stages.student.test.accuracy: .*finite",
        ),
    ],
)
def test_a_line_that_cannot_be_read_is_named(line: bytes, message: str, runs: list[Planned], tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    add(path, [entry(runs[0], summary(runs[0]))])
    path.write_bytes(path.read_bytes() + line + b"\n")
    before = path.read_bytes()
    with pytest.raises(DataError, match=message):
        read_ledger(path)
    with pytest.raises(DataError, match="line 2"):
        add(path, [entry(runs[1], summary(runs[1]))])
    assert path.read_bytes() == before
    assert read_ledger(tmp_path / "none.jsonl") == []


def test_a_table_is_the_same_from_folders_and_from_the_ledger(
    study: StudyConfig, runs: list[Planned], tmp_path: Path
) -> None:
    folder = tmp_path / "studies" / "mine"
    for k, run in enumerate(runs):
        place = folder / run.name
        place.mkdir(parents=True)
        (place / "summary.json").write_text(summary(run, accuracy=0.5 + k / 100).model_dump_json())
    path = tmp_path / "l.jsonl"
    add(path, [entry(run, summary(run, accuracy=0.5 + k / 100)) for k, run in enumerate(runs)])
    here = report_markdown(study, report(study, folder, seeds=[0, 1]))
    gone = report_markdown(study, report(study, tmp_path / "nowhere", seeds=[0, 1], ledger=read_ledger(path)))
    assert here == gone
    assert "not run" in report_markdown(study, report(study, tmp_path / "nowhere", seeds=[0, 1]))


def test_gains_stand_beside_the_rows(study: StudyConfig, runs: list[Planned], tmp_path: Path) -> None:
    names = list(dict.fromkeys(run.row.name for run in runs))
    marks = {names[0]: {"1": "1100", "2": "0000"}}
    kept = [entry(run, summary(run, right=marks.get(run.row.name, RIGHT))) for run in runs]
    lines = report(study, tmp_path / "nowhere", seeds=[0, 1], ledger=kept, against=names[0])
    cells: dict[str, Any] = {line.name: line.cells[study.splits[0]] for line in lines}
    assert cells[names[0]].gain is None
    found = cells[names[1]].gain
    assert found is not None
    assert found.points == pytest.approx(25.0)  # 4 right of 8 against 2
    assert found.subjects == {"1": pytest.approx(25.0), "2": pytest.approx(25.0)}
    text = report_markdown(study, lines)
    assert "gain, points | 95 % by subject | 95 % by clip |" in text
    assert "| +25.0 | +25.0 to +25.0 |" in text
    with pytest.raises(ConfigError, match="no row 'nobody' with runs"):
        report(study, tmp_path / "nowhere", seeds=[0], ledger=kept, against="nobody")
