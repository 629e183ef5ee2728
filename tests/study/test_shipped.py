"""What ships: a line for each artifact, once, and the table of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kd_edge import artifact
from kd_edge.errors import ArtifactError, DataError
from kd_edge.evaluate import ClipScore, Evaluation
from kd_edge.evaluate.joined import FrameTime, LiveScore, Score, StreamingScore
from kd_edge.study.ledger import add, current, read_lines
from kd_edge.study.shipped import ShippedLine, shipped, shipped_markdown

STREAM = StreamingScore(
    Score(430, 0.9, 0.89), None, None, 0, 30, LiveScore(0.6, 30.0, 0.9, 104, 90, 0.815), 29100, 400.0,
    FrameTime(2.345, 4.0, 33.333, 1),
)  # fmt: skip
JUDGED = Evaluation(
    "best.onnx", "utd_mhad", "odd_even", "depth", "int8", 2.2, ClipScore(430, 0.914, 0.91, 0.99, 0.96, 0.05),
    STREAM, {}, [], engine="onnxruntime 1.22",
)  # fmt: skip


def line(**changes: Any) -> ShippedLine:
    return shipped("best", artifact.load(artifact.BUNDLED), JUDGED).model_copy(update=changes)


def test_a_line_has_the_figures_of_the_evaluation_and_of_the_file() -> None:
    bundled = artifact.load(artifact.BUNDLED)
    made = line()
    assert (made.row, made.precision, made.recipe_fingerprint) == (
        "best", bundled.manifest.precision, bundled.manifest.recipe_fingerprint,
    )  # fmt: skip
    assert (made.clips, made.accuracy, made.stream_accuracy, made.labelled) == (430, 0.914, 0.9, 0.815)
    assert (made.median_ms, made.p99_ms, made.period_ms, made.threads) == (2.345, 4.0, 33.333, 1)
    assert made.megabytes == artifact.BUNDLED.stat().st_size / 1e6
    assert made.is_of("best", bundled.manifest) is False, "of another split than the bundled one's"
    assert line(split=bundled.manifest.split).is_of("best", bundled.manifest)
    for other in ({"manifest_sha256": "trained again"}, {"data_fingerprint": "other recordings"}):
        again = bundled.manifest.model_copy(update=other)
        assert not line(split=bundled.manifest.split).is_of("best", again)
    with pytest.raises(ArtifactError, match="was not streamed"):
        shipped("best", bundled, replace(JUDGED, streaming=None))


def test_the_table_puts_clips_and_stream_side_by_side() -> None:
    lines = [line(precision="fp32", megabytes=5.0, accuracy=0.912), line(precision="int8", megabytes=1.43)]
    assert shipped_markdown([*lines, line(row="other")], ["best"]).splitlines() == [
        "| model | precision | MB | clip by clip, % | at clips' ends in the stream, % | change, points | "
        "frames with a label, % | ms a frame, median | 99 of 100 |",
        "|---|---|---|---|---|---|---|---|---|",
        "| best | fp32 | 5.0 | 91.2 | 90.0 | -1.2 | 81.5 | 2.35 | 4.00 |",
        "| best | int8 | 1.4 | 91.4 | 90.0 | -1.4 | 81.5 | 2.35 | 4.00 |",
        "",
        "430 test clips of utd_mhad, split odd_even. onnxruntime 1.22, threads: 1; one frame comes every 33.3 ms.",
    ]


def test_a_new_model_takes_the_place_of_the_old_one_of_its_name_and_precision(tmp_path: Path) -> None:
    """Lines of a release that told no content are the oldest; what is asked for comes before what is newer."""
    old = {key: value for key, value in line().model_dump().items() if key not in ("content", "measured")}
    first = line(content="a", measured="2026-11-29T10:00:00+00:00", accuracy=0.5)
    second = line(content="b", measured="2026-11-29T11:00:00+00:00", accuracy=0.6, dataset="another")
    int8 = line(content="c", precision="int8", measured="2026-11-29T09:00:00+00:00")
    lines = [second, ShippedLine.model_validate(old), int8, first]
    path = tmp_path / "shipped.jsonl"
    assert add(path, lines, ShippedLine) == 4
    read = read_lines(path, ShippedLine)
    assert [(one.content, one.accuracy) for one in current(read)] == [("b", 0.6), ("c", 0.914)]
    assert {one.content for one in current(read, {("best", "a")})} == {"a"}
    assert {one.content for one in current(read, {("best", "a")}, beside=["best"])} == {"a", "c"}
    assert {one.content for one in current(read, {("best", "a"), ("best", "b")})} == {"a", "b"}
    assert {one.content for one in current(read, {("other", "a")})} == set()
    assert current(list[ShippedLine]()) == []


def test_another_pace_is_the_same_result_and_another_accuracy_is_not(tmp_path: Path) -> None:
    path = tmp_path / "shipped.jsonl"
    assert add(path, [line()], ShippedLine) == 1
    assert add(path, [line(median_ms=9.0)], ShippedLine) == 0
    assert [kept.median_ms for kept in read_lines(path, ShippedLine)] == [2.345]
    assert add(path, [line(precision="fp32")], ShippedLine) == 1
    with pytest.raises(DataError, match="has other figures for best"):
        add(path, [line(stream_accuracy=0.5)], ShippedLine)
