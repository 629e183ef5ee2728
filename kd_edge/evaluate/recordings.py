"""Evaluation on one recording as a robot would see it: a model's labels against the true actions."""

from __future__ import annotations

import csv
import io
import math
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from kd_edge.artifact import load
from kd_edge.engines import EngineName
from kd_edge.errors import DataError, KdEdgeError, did_you_mean, printable, reason
from kd_edge.evaluate.joined import LiveScore
from kd_edge.files import expanded
from kd_edge.reading import read_bytes
from kd_edge.runtime import stream
from kd_edge.runtime.tally import Tally
from kd_edge.types import Prediction

COLUMNS = ("start_s", "end_s", "label")
LABELS_BYTES = 10_000_000
"""Maximum size of a file with the labels of one recording."""


class Truth(NamedTuple):
    """A true action over an interval, in seconds from the first frame; the end is exclusive."""

    start_s: float
    end_s: float
    label: str


@dataclass(frozen=True, slots=True)
class ClassScore:
    """Scores of one action.

    Attributes:
        frames: Number of frames that show the action.
        labelled: Number of these with a label that a robot may act on.
        right: Number of these with the right label.
    """

    frames: int
    labelled: int
    right: int


@dataclass(frozen=True, slots=True)
class RecordingScore:
    """Frame-by-frame scores of a recording.

    Attributes:
        recording: Path of the recording.
        model: Name of the model.
        engine: Name of the engine.
        frames: Number of frames with a prediction, including those without a label.
        seconds: Time from the first to the last of these frames.
        states: Number of predictions by state.
        judged: Number of frames whose action is known.
        labelled: Number of these with a label that a robot may act on.
        live: Accuracy, flicker and delay over these frames.
        by_class: Scores of each true action.
        labels_sha256: See ``kd_edge.runtime.label_hash``.
        fault: Why the recording ends early; empty if it does not.
        hint: What to do if the recording is too short for the model's window; empty otherwise.
    """

    recording: str
    model: str
    engine: str
    frames: int
    seconds: float
    states: dict[str, int]
    judged: int
    labelled: int
    live: LiveScore
    by_class: dict[str, ClassScore]
    labels_sha256: str
    fault: str
    hint: str = ""


def evaluate_recording(
    model: Path,
    recording: str,
    *,
    labels: Path | None = None,
    engine: EngineName = "onnxruntime",
    threads: int = 1,
    smooth_ms: float | None = None,
) -> RecordingScore:
    """Label a recording frame by frame and compare with the true actions.

    Args:
        model: Artifact.
        recording: A ``replay:`` URI, or its path without the scheme.
        labels: CSV with ``start_s,end_s,label``, seconds from the first frame; by default the recorded truth.
        engine: Engine that runs the model.
        threads: Threads of the engine.
        smooth_ms: How long a window counts in a label, see ``Recognizer.load``.

    Raises:
        DataError: Recording or labels cannot be read, or the true actions are unknown.
        KdEdgeError: As ``stream``.
    """
    artifact = load(model)
    truths = None if labels is None else read_truths(labels, artifact.manifest.labels)
    score = _Scoring(truths)
    fault = ""
    with stream(
        model=artifact,
        camera=f"replay:{recording.removeprefix('replay:')}",
        engine=engine,
        threads=threads,
        smooth_ms=smooth_ms,
    ) as predictions:
        try:
            for prediction in predictions:
                score.add(prediction)
        except DataError as error:  # damaged or cut off: score the frames before
            if not score.states:
                raise
            fault = printable(error.found)
        name = predictions.recognizer.engine.name
    if not score.by_class:
        raise DataError(
            f"nothing tells what was done in {recording}, {score.seconds:.1f} s long",
            "truth in the recording, or a file of it",
            f"--labels labels.csv, with {','.join(COLUMNS)} in seconds from the first frame",
        )
    return RecordingScore(
        recording=recording,
        model=artifact.manifest.name,
        engine=name,
        frames=sum(score.states.values()),
        seconds=score.seconds,
        states=dict(score.states),
        judged=score.by_class.total(),
        labelled=score.tally.labels,
        live=LiveScore.of(score.tally),
        by_class=score.classes(),
        labels_sha256="" if predictions.label_hash is None else predictions.label_hash.hexdigest(),
        fault=fault,
        hint="; ".join(predictions.statistics.too_short(artifact.manifest.clip_seconds)),
    )


class _Scoring:
    """Compares predictions with the truth and counts them."""

    def __init__(self, truths: list[Truth] | None) -> None:
        self._truths = truths
        self._starts = [] if truths is None else [truth.start_s for truth in truths]
        self._first_ns: int | None = None
        self.seconds = 0.0
        self.tally = Tally()
        self.states: Counter[str] = Counter()
        self.by_class: Counter[str] = Counter()
        self._labelled: Counter[str] = Counter()
        self._right: Counter[str] = Counter()

    def add(self, prediction: Prediction) -> None:
        """Count the next prediction."""
        self._first_ns = prediction.captured_ns if self._first_ns is None else self._first_ns
        self.seconds = (prediction.captured_ns - self._first_ns) / 1e9
        self.states[prediction.state.value] += 1
        truth = prediction.truth if self._truths is None else self._truth_at(self.seconds)
        self.tally.add(replace(prediction, truth=truth))
        if truth is None:
            return
        self.by_class[truth] += 1
        self._labelled[truth] += prediction.label is not None
        self._right[truth] += prediction.label == truth

    def _truth_at(self, seconds: float) -> str | None:
        index = bisect_right(self._starts, seconds) - 1
        if self._truths is None or index < 0 or seconds >= self._truths[index].end_s:
            return None
        return self._truths[index].label

    def classes(self) -> dict[str, ClassScore]:
        """Scores of each true action, by name."""
        return {
            name: ClassScore(self.by_class[name], self._labelled[name], self._right[name])
            for name in sorted(self.by_class)
        }


def read_truths(path: Path, known: tuple[str, ...]) -> list[Truth]:
    """Read the intervals of a CSV file, sorted.

    Args:
        path: The file.
        known: The model's labels.

    Raises:
        DataError: It cannot be read, or a row is wrong, overlaps another one or names what the model does not know.
    """
    path = expanded(path)
    try:
        text = read_bytes(path, LABELS_BYTES).decode("utf-8-sig")
        rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True))
    except OSError as error:
        raise DataError(f"labels {path}: {error.strerror or reason(error)}", "a file", "check its path") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise _wrong(path, reason(error)) from error
    if not rows:
        raise _wrong(path, "it has no rows")
    if missing := [name for name in COLUMNS if name not in rows[0]]:
        raise _wrong(path, f"it has no column {', '.join(missing)}, but {', '.join(map(str, rows[0]))}")
    truths = sorted(_truth(path, number, row, known) for number, row in enumerate(rows, 2))
    for before, after in pairwise(truths):
        if after.start_s < before.end_s:
            raise _wrong(path, f"two intervals overlap at {after.start_s:g} s")
    return truths


def _truth(path: Path, number: int, row: dict[str, str], known: tuple[str, ...]) -> Truth:
    try:
        start_s, end_s = float(row["start_s"]), float(row["end_s"])
    except (TypeError, ValueError) as error:
        raise _wrong(path, f"line {number}: start_s and end_s are not numbers") from error
    if not 0 <= start_s < end_s < math.inf:
        raise _wrong(path, f"line {number}: from {start_s:g} to {end_s:g} s")
    label = row["label"] or ""
    if label not in known:
        raise _wrong(
            path, f"line {number}: label '{label:.80}', which the model does not know{did_you_mean(label, known)}"
        )
    return Truth(start_s, end_s, label)


def _wrong(path: Path, found: str) -> KdEdgeError:
    return DataError(
        f"labels {path}: {printable(found)}",
        f"{','.join(COLUMNS)}, one interval a line, none across another, of the model's labels",
        "correct the file; leave out what the model does not know",
    )
