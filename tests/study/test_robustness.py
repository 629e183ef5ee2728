"""Robustness: each figure measured once, kept in a ledger, and one table of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kd_edge import artifact
from kd_edge.data import SyntheticData, open_dataset
from kd_edge.engines import open_engine
from kd_edge.errors import DataError
from kd_edge.evaluate import clip_logits
from kd_edge.evaluate.corruptions import CLEAN, EVERY, KINDS, SEVERITIES, VERSION, Corruption
from kd_edge.evaluate.robustness import CorruptedTest
from kd_edge.study.ledger import Entry, add, current, read_ledger, read_lines
from kd_edge.study.robustness import RobustnessLine, measure, robustness_markdown


@pytest.fixture
def test_side(monkeypatch: pytest.MonkeyPatch) -> Iterator[CorruptedTest]:
    """The student in the package on ten generated clips of one subject, which are painted once."""
    bundled = artifact.load(artifact.BUNDLED)
    dataset = open_dataset(SyntheticData(clips_per_class=4, subjects=4, seed=3))
    monkeypatch.setattr(type(dataset), "open", cache(type(dataset).open))
    with open_engine(bundled) as engine:
        yield CorruptedTest(bundled, dataset, dataset.split("subjects"), engine)


def line(row: str, corruption: Corruption, accuracy: float, **changes: Any) -> RobustnessLine:
    values = {
        "format": 1, "row": row, "recipe_fingerprint": "f", "precision": "fp32", "dataset": "d", "split": "s",
        "kind": corruption.kind, "severity": corruption.severity, "version": VERSION, "clips": 4,
        "accuracy": accuracy, "right": {"1": "1100"},
    }  # fmt: skip
    return RobustnessLine.model_validate(values | changes)


@pytest.mark.slow
def test_every_corruption_is_measured_once_and_the_clean_clips_are_those_of_an_evaluation(
    test_side: CorruptedTest, tmp_path: Path
) -> None:
    path, seen = tmp_path / "robustness.jsonl", []
    measuring = measure("bundled", test_side, [], lambda done, total: seen.append((done, total)))
    for _ in range(3):  # killed after three
        add(path, [next(measuring)], RobustnessLine)
    known = read_lines(path, RobustnessLine)
    assert {known_line.corruption for known_line in known} == set(EVERY[:3])
    assert (seen[0], seen[-1]) == ((1, 190), (30, 190))
    rest = list(measure("bundled", test_side, known))
    assert [left.corruption for left in rest] == list(EVERY[3:])
    assert not list(measure("bundled", test_side, [*known, *rest]))
    assert next(measure("other", test_side, [*known, *rest])).corruption == CLEAN, "another row is measured anew"
    clean = next(known_line for known_line in known if known_line.corruption == CLEAN)
    dataset = open_dataset(SyntheticData(clips_per_class=4, subjects=4, seed=3))
    samples = sorted(dataset.split("subjects").test, key=lambda s: s.id)
    with open_engine(artifact.load(artifact.BUNDLED)) as engine:
        right = [clip_logits(engine, dataset.open(s, "nir"), test_side.manifest).argmax() == s.label for s in samples]
    assert clean.right == {samples[0].subject: "".join("01"[int(mark)] for mark in right)}
    assert clean.accuracy == np.mean(right)
    worst = {one.kind: one.accuracy for one in rest if one.severity == 3}
    assert min(worst.values()) < clean.accuracy, "something is lost"


@pytest.mark.slow
def test_a_model_that_was_trained_again_is_measured_again(test_side: CorruptedTest) -> None:
    """So is one of a line that told no content; the table has the new one beside another seed of its row."""
    first = next(measure("bundled", test_side))
    assert first.content == test_side.manifest.manifest_sha256
    assert first.data_fingerprint == test_side.manifest.data_fingerprint
    told = first.model_dump()
    silent = RobustnessLine.model_validate({key: told[key] for key in told.keys() - {"content", "measured"}})
    assert next(measure("bundled", test_side, [first])).corruption == EVERY[1]
    for known in (silent, first.model_copy(update={"data_fingerprint": "other recordings"})):
        assert next(measure("bundled", test_side, [known])).corruption == CLEAN
    test_side.content = "trained again"
    again = next(measure("bundled", test_side, [first]))
    assert (again.corruption, again.content) == (CLEAN, "trained again")
    seed = first.model_copy(update={"recipe_fingerprint": "another seed"})
    assert current([silent, first, again, seed]) == [again, seed]
    assert current([silent, first, again, seed], {("bundled", first.content)}) == [first, seed]


def test_the_table_has_all_rows_side_by_side_and_the_mean() -> None:
    every = [line("alone", CLEAN, 0.875), line("taught", CLEAN, 0.925)]
    for number, kind in enumerate(KINDS):
        for severity in SEVERITIES:
            every.append(line("alone", Corruption(kind, severity), (80 - 10 * severity - number) / 100))
            if (kind, severity) != ("noise", 3):
                every.append(line("taught", Corruption(kind, severity), 0.9))
    every.append(line("alone", CLEAN, 0.885, recipe_fingerprint="another seed"))
    every.append(line("alone", CLEAN, 0.1, version=VERSION - 1))
    assert robustness_markdown(every).splitlines() == [
        "| corruption | alone: 1 | alone: 2 | alone: 3 | taught: 1 | taught: 2 | taught: 3 |",
        "|---|---|---|---|---|---|---|",
        "| none | 88.0 |  |  | 92.5 |  |  |",
        "| dots | 70.0 | 60.0 | 50.0 | 90.0 | 90.0 | 90.0 |",
        "| illumination fall-off | 69.0 | 59.0 | 49.0 | 90.0 | 90.0 | 90.0 |",
        "| saturation | 68.0 | 58.0 | 48.0 | 90.0 | 90.0 | 90.0 |",
        "| gain step | 67.0 | 57.0 | 47.0 | 90.0 | 90.0 | 90.0 |",
        "| blur | 66.0 | 56.0 | 46.0 | 90.0 | 90.0 | 90.0 |",
        "| noise | 65.0 | 55.0 | 45.0 | 90.0 | 90.0 | - |",
        "| mean of all | 67.5 | 57.5 | 47.5 | 90.0 | 90.0 | - |",
        "",
        "Accuracy in percent; mean over kinds and severities: alone 57.5, -30.5 to none (2 runs); "
        "taught not measured in full (1 run).",
    ]
    assert robustness_markdown(every, ["taught"]).startswith("| corruption | taught: 1 | taught: 2 | taught: 3 |\n")
    other = [*every, line("few", CLEAN, 1.0, clips=3)]
    assert robustness_markdown(other).endswith("\nThe rows were tested on different numbers of clips: 3, 4.\n")


def test_the_gain_is_over_the_same_clips_under_the_same_corruptions() -> None:
    """Of clip 1 the taught row is always right and the other under half of the corruptions; clip 2 both never are."""
    both = [line("taught", corruption, 0.5, right={"1": "10"}) for corruption in EVERY[1:]]
    for number, corruption in enumerate(EVERY[1:]):
        both.append(line("alone", corruption, 0.5, right={"1": f"{number % 2}0"}))
    told = robustness_markdown(both, ["alone", "taught"], "alone").splitlines()[-1]
    assert told == "taught over alone: +25.0 points, 95 % by subject -, by clip +0.0 to +50.0."
    incomplete = robustness_markdown(both[1:], ["alone", "taught"], "alone")
    assert incomplete.endswith("taught over alone: not told, both must be measured in full on the same clips.\n")
    longer = [*both[:18], *(other.model_copy(update={"right": {"1": "100"}}) for other in both[18:])]
    assert "not told" in robustness_markdown(longer, ["alone", "taught"], "alone")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda text: text[:-20], "line 2 of .* is damaged"),
        (lambda text: text.replace('"format": 1', '"format": 9'), "line 1 of .* has format 9"),
        (
            lambda text: text + text.replace("0.5", "0.75"),
            "lines 1 and 3 .* different figures for one run .alone .fp32",
        ),
        (lambda text: text.replace("1100", "11x0", 1), "line 1 of .* is damaged .right.1: .*pattern"),
        (lambda text: text.replace("0.5", "7.1", 1), "line 1 of .* is damaged .accuracy: .*less than or equal to 1"),
        (lambda text: text.replace('"kind": "blur"', '"kind": "rain"'), "line 1 of .* is damaged .kind"),
    ],
)
def test_a_spoilt_ledger_is_refused(tmp_path: Path, spoil: Callable[[str], str], message: str) -> None:
    path = tmp_path / "robustness.jsonl"
    add(path, [line("alone", Corruption("blur", 1), 0.5), line("alone", Corruption("noise", 2), 0.5)], RobustnessLine)
    path.write_text(spoil(path.read_text()))
    with pytest.raises(DataError, match=message):
        read_lines(path, RobustnessLine)


def test_other_figures_of_a_measured_corruption_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "robustness.jsonl"
    assert add(path, [line("alone", CLEAN, 0.5)], RobustnessLine) == 1
    assert add(path, [line("alone", CLEAN, 0.5)], RobustnessLine) == 0
    assert add(path, [line("alone", CLEAN, 0.5, precision="int8")], RobustnessLine) == 1
    with pytest.raises(DataError, match=r"has other figures for alone \(fp32\), clean 0"):
        add(path, [line("alone", CLEAN, 0.75)], RobustnessLine)
    with pytest.raises(DataError, match="is damaged"):
        read_ledger(path)
    with pytest.raises(DataError, match="is damaged"):
        add(path, [], Entry)
