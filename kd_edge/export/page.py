"""The report of an export for people: whether the exported model can be trusted, and where it differs."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kd_edge import metrics
from kd_edge.artifact import Manifest, Parity
from kd_edge.errors import ExportError
from kd_edge.export.charts import confusion_chart, layer_chart, number, reliability_chart
from kd_edge.export.document import Block, Paragraph, Picture, Section, Table, to_html, to_markdown
from kd_edge.export.layers import LayerError
from kd_edge.export.parity import Answers, shipped_of
from kd_edge.export.profile import ExportProfile, scaled
from kd_edge.files import check_writable, replacing
from kd_edge.metrics import Reliability
from kd_edge.types import Int64

POOR_CALIBRATION = 0.1
"""Calibration error above which the page warns."""
MOST_DRAWN_CLASSES = 60
"""Largest number of classes for which confusion matrices are drawn; with more, only the worst pairs are listed."""
_MOST_ROWS = 15


def check_report_folder(folder: Path) -> None:
    """Check that a report can be written, before any slow step; nothing is created.

    Raises:
        ExportError: The report cannot be written, for example because the path is a file.
    """
    if os.path.lexists(folder) and not folder.is_dir():
        kind = "a file" if folder.is_file() else "not a folder"
        raise ExportError(f"{folder} is {kind}", "a folder for the report", "choose another --report")
    check_writable(folder / "report.html", ExportError, option="--report")


def write_report(
    folder: Path,
    *,
    manifest: Manifest,
    profile: ExportProfile,
    truth: Int64,
    answers: Sequence[Answers],
    layers: Sequence[LayerError],
    file_bytes: int,
) -> tuple[Path, Path]:
    """Write ``report.md`` and ``report.html`` into a folder, which is created; older reports are replaced.

    Args:
        folder: Folder for the report.
        manifest: Manifest of the exported model, with its figures.
        profile: The profile used.
        truth: (N,) int64, classes of the compared clips.
        answers: Answers of all stages, from the trained model to the exported graph.
        layers: Errors of the exported graph; empty for float32.
        file_bytes: Size of the artifact.

    Returns:
        Paths of the two files.

    Raises:
        ExportError: No clips were compared, or the folder cannot be written.
    """
    if manifest.parity is None:
        raise ExportError("an export without a comparison", "an export with parity figures", "leave out --report")
    facts = _Facts(manifest, manifest.parity, profile, truth, tuple(answers), tuple(layers), file_bytes)
    title, sections = f"{manifest.name}: export to {manifest.precision}", list(_sections(facts))
    check_report_folder(folder)
    texts = {"report.md": to_markdown(title, sections), "report.html": to_html(title, sections)}
    for name, text in texts.items():
        with replacing(folder / name, ExportError, option="--report") as file:
            file.write(text.encode())
    return folder / "report.md", folder / "report.html"


@dataclass(frozen=True, slots=True)
class _Facts:
    """The data behind the sections of the report."""

    manifest: Manifest
    parity: Parity
    profile: ExportProfile
    truth: Int64
    answers: tuple[Answers, ...]
    layers: tuple[LayerError, ...]
    file_bytes: int

    @property
    def shipped(self) -> Answers:
        """Answers of ONNX Runtime with the exported graph; other engines have rows of their own."""
        return shipped_of(self.answers, self.manifest.precision)

    @property
    def predictions(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Classes (N,) predicted by the trained model and by the exported model."""
        before, after = self.answers[0].logits, self.shipped.logits
        return before.argmax(axis=1), after.argmax(axis=1)

    @property
    def confusions(self) -> tuple[Int64, Int64]:
        """Confusion matrices (K, K) of the trained model and of the exported model."""
        classes = len(self.manifest.labels)
        before, after = (metrics.confusion(predicted, self.truth, classes) for predicted in self.predictions)
        return before, after

    def reliability(self, temperature: float) -> Reliability:
        """Reliability of the exported model."""
        logits = np.nan_to_num(self.shipped.logits)
        return metrics.reliability(metrics.softmax(logits, temperature), self.truth)


class _Bound(NamedTuple):
    """A bound of the profile and the value found."""

    name: str
    found: str
    allowed: str
    met: bool


def _sections(facts: _Facts) -> Iterator[Section]:
    yield Section("Can it be trusted?", list(_verdict(facts)))
    yield Section("Stages", list(_stages(facts)))
    if facts.manifest.precision != "fp32":
        yield Section("Layer by layer", list(_layers(facts)))
    yield Section("Confidence", list(_confidence(facts)))
    yield Section("Classes", list(_classes(facts)))
    yield Section("The file", list(_file(facts)))


# --------------------------------------------------------------------------------------------------------- verdict


def _verdict(facts: _Facts) -> Iterator[Block]:
    manifest, parity = facts.manifest, facts.parity
    bounds = list(_bounds(facts))
    broken = [bound for bound in bounds if not bound.met]
    trained, shipped = facts.answers[0].figures, facts.shipped.figures
    runs = {"step": "one frame at a time", "clip": "a whole clip at a time", "backbone": "a frame to its feature"}
    summary = (
        f"{manifest.name} was exported to {manifest.precision}: {_megabytes(facts.file_bytes)} that recognise "
        f"{len(manifest.labels)} actions in {manifest.modality} frames, {runs[manifest.graph]}."
    )
    comparison = (
        f"On {parity.clips} {parity.side} it predicts the trained model's class for "
        f"{_percent(parity.argmax_agreement)}, its logits differ by at most {number(parity.max_abs_error)}, and it is "
        f"right on {_percent(shipped.accuracy)} where the trained model is on {_percent(trained.accuracy)}."
    )
    verdict = f"Every bound of profile '{facts.profile.name}' is met: it changes the trained model little."
    if broken:
        named = "; ".join(f"{bound.name}: {bound.found}, allowed {bound.allowed}" for bound in broken)
        verdict = f"It must not be trusted. Out of bounds: {named}."
    tested = facts.manifest.accuracy.get("accuracy")
    yield Paragraph(f"{summary} {comparison} {verdict}", "bad" if broken else "good")
    if tested is not None:
        generated = " They are generated recordings." if manifest.dataset.get("kind") == "synthetic" else ""
        yield Paragraph(
            f"Whether the model is good enough is another question: after training the trained model was right on "
            f"{_percent(tested)} of all test clips.{generated} This file was not run on them: use 'kd-edge evaluate "
            "FILE --streaming'."
        )
    yield _calibration(facts)
    if facts.profile.precision != "fp32" and parity.stream is None:
        yield Paragraph("It was not compared frame by frame in a stream.")
    yield Table(
        (f"bound of profile '{facts.profile.name}'", "found", "allowed", "met"),
        [(bound.name, bound.found, bound.allowed, "yes" if bound.met else "NO") for bound in bounds],
    )


def _calibration(facts: _Facts) -> Paragraph:
    manifest = facts.manifest
    if not manifest.calibrated_on:
        return Paragraph(
            "UNCALIBRATED: temperature and unknown threshold were not fitted, as no clips were held out. Confidences "
            "may be far off and must not be acted on. Hold subjects out in the recipe and train again.",
            "warning",
        )
    threshold = f"below {_percent(manifest.unknown_threshold)} the answer is 'unknown'"
    logits = facts.shipped.logits
    confidence = metrics.softmax(logits, manifest.temperature).max(axis=1)
    known = confidence >= manifest.unknown_threshold
    right = (logits.argmax(axis=1) == facts.truth)[known]
    kept = f"{_percent(float(known.mean()))} of these clips stay known"
    of_those = f", and {_percent(float(right.mean()))} of those are right" if known.any() else ""
    ece = facts.shipped.figures.ece
    poor = " That is high: check the diagram before acting on a confidence." if ece > POOR_CALIBRATION else ""
    return Paragraph(
        f"Confidences are calibrated on {manifest.calibrated_on}: temperature {manifest.temperature:.3g}, {threshold}, "
        f"which keeps 95 % of the trained model's right answers; with the exported model, {kept}{of_those}. Its "
        f"calibration error (ECE) is {_percent(ece)}, measured on the clips that temperature and threshold were fitted "
        f"on, so slightly optimistic.{poor}",
        "warning" if poor else "plain",
    )


def _bounds(facts: _Facts) -> Iterator[_Bound]:
    """Compare the bounds of the profile with the values found, stage by stage."""
    profile, (trained, *others) = facts.profile, facts.answers
    largest = float(np.abs(trained.logits).max())
    graph = trained
    for answer in others:
        stage, error = answer.figures.stage, answer.figures.max_abs_error
        name, limit = f"largest error, {stage}", profile.max_abs_error
        if stage not in ("onnx", profile.precision):
            name, limit = f"largest difference, {stage} from ONNX Runtime", profile.max_engine_error
            error = _largest_difference(answer, graph)
        else:
            graph = answer
            limit = profile.max_onnx_error if stage == "onnx" and profile.precision != "fp32" else limit
        allowed = scaled(limit, largest)
        yield _Bound(name, number(error), number(allowed), error <= allowed)
    expected = trained.logits.argmax(axis=1)
    agreement = min((float(np.mean(a.logits.argmax(axis=1) == expected)) for a in others), default=1.0)
    least = profile.min_argmax_agreement
    yield _Bound("same class, at least", _percent(agreement), _percent(least), agreement >= least)
    drop = max((trained.figures.accuracy - answer.figures.accuracy for answer in others), default=0.0)
    yield _Bound(
        "accuracy lost, at most", _percent(drop), _percent(profile.max_accuracy_drop), drop <= profile.max_accuracy_drop
    )
    stream, least = facts.parity.stream, profile.min_stream_agreement
    if stream is not None:
        met = stream.agreement >= least
        yield _Bound("same class in a stream, at least", _percent(stream.agreement), _percent(least), met)


def _largest_difference(answer: Answers, of: Answers) -> float:
    """Return the largest difference of a logit; infinite if a logit is not finite."""
    if not np.isfinite(answer.logits).all():
        return math.inf
    return float(np.abs(answer.logits.astype(np.float64) - of.logits).max())


# ---------------------------------------------------------------------------------------------------------- stages


def _stages(facts: _Facts) -> Iterator[Block]:
    yield Paragraph(
        "All stages run on the same clips. Errors are measured against the trained model's logits, flips against the "
        "previous stage; ms is the rough time of one frame (for the trained model, of one clip) on the machine that "
        "exported: use kd-edge bench for exact times."
    )
    head = ("stage", "engine", "largest error", "relative error", "flips", "accuracy", "macro F1", "ECE", "ms")
    rows = []
    for answer in facts.answers:
        own = answer.figures
        errors = (number(own.max_abs_error), number(own.relative_error), str(own.flips))
        shares = (_percent(own.accuracy), _percent(own.macro_f1), _percent(own.ece))
        rows.append((own.stage, own.engine, *errors, *shares, f"{answer.milliseconds:.2f}"))
    yield Table(head, rows, words=2)
    stream = facts.parity.stream
    if stream is not None:
        low, high = stream.agreement_interval
        down, up = stream.accuracy_change_interval
        yield Paragraph(
            f"Frame by frame in streams of {stream.clips} clips, {stream.frames:,} frames: the exported model predicts "
            f"the float32 graph's class in {_percent(stream.agreement)} of the frames (95 % interval {_percent(low)} "
            f"to {_percent(high)})."
        )
        change = f"{_points(stream.accuracy_change)} against the float32 graph (95 % interval {_points(down)} to "
        change = f"{change}{_points(up)})" if down < up else "and no frame became right or wrong"
        yield Paragraph(
            f"It is right in {_percent(stream.accuracy)} of these frames, {change}. That is lower than the clips' "
            "accuracy in every precision, because every frame counts, including those whose window still reaches back "
            "into the previous clip. 'kd-edge evaluate --streaming' scores one label per clip."
        )


# ---------------------------------------------------------------------------------------------------------- layers


def _layers(facts: _Facts) -> Iterator[Block]:
    if facts.layers:
        yield from _errors(facts)
    yield from _precision(facts)


def _errors(facts: _Facts) -> Iterator[Block]:
    kept = facts.manifest.kept_float32
    worst = sorted(facts.layers, key=lambda layer: -layer.added)[:3]
    named = ", ".join(f"{layer.name} ({number(layer.added)})" for layer in worst if layer.added)
    yield Paragraph(f"Most error is added by {named}." if named else "No layer adds any error.")
    rows = [
        (
            layer.name,
            number(layer.error),
            number(layer.added),
            number(layer.largest),
            "yes" if layer.name in kept else "",
        )
        for layer in facts.layers
    ]
    yield Picture(
        layer_chart(facts.layers, kept),
        "Relative error of each layer's output against the float32 graph (dot), with a line from the largest error of "
        "its inputs; a hollow dot is kept in float32. Last column: the largest value in the float32 graph.",
        Table(("layer", "error", "added", "largest value", "kept in float32"), rows),
    )


def _precision(facts: _Facts) -> Iterator[Block]:
    ranges, kept = facts.manifest.ranges, facts.manifest.kept_float32
    if ranges is not None:
        yield Paragraph(
            f"The ranges of its activations come from {ranges.frames} frames of {len(ranges.clips)} {ranges.side} "
            f"(method {ranges.method})."
        )
    if kept:
        yield Table(("kept in float32", "why"), list(kept.items()), words=2)
    else:
        yield Paragraph("No layer was kept in float32.")


# ------------------------------------------------------------------------------------------------------ confidence


def _confidence(facts: _Facts) -> Iterator[Block]:
    temperatures = dict.fromkeys((1.0, facts.manifest.temperature))
    panels = {f"at temperature {value:.3g}": facts.reliability(value) for value in temperatures}
    errors = [f"{_percent(binned.error)} {name}" for name, binned in panels.items()]
    yield Paragraph(
        f"Mean gap between confidence and accuracy (ECE, 15 bins) of the exported model: {', '.join(errors)}."
    )
    first, *_ = panels.values()
    bins = len(first.counts)
    rows = [
        (
            f"{100 * k / bins:.0f} to {100 * (k + 1) / bins:.0f} %",
            *chain.from_iterable(_bin(b, k) for b in panels.values()),
        )
        for k in range(bins)
        if any(binned.counts[k] for binned in panels.values())
    ]
    heads = chain.from_iterable((f"clips {name}", "mean confidence", "right") for name in panels)
    yield Picture(
        reliability_chart(list(panels.items())),
        "Share of right answers, % (blue line), by the confidence of the exported model; orange is the gap to the mean "
        "confidence. On the diagonal, confidence equals accuracy. Below: the number of clips.",
        Table(("confidence", *heads), rows),
    )


def _bin(binned: Reliability, k: int) -> tuple[str, str, str]:
    if not binned.counts[k]:
        return "0", "", ""
    return str(binned.counts[k]), _percent(float(binned.confidence[k])), _percent(float(binned.accuracy[k]))


# --------------------------------------------------------------------------------------------------------- classes


def _classes(facts: _Facts) -> Iterator[Block]:
    labels, (before, after) = facts.manifest.labels, facts.confusions
    yield from _changed(facts)
    pairs = dict.fromkeys(chain(metrics.worst_confusions(after), metrics.worst_confusions(before)))
    clips = after.sum(axis=1)
    rows = [(labels[i], labels[j], str(clips[i]), str(before[i, j]), str(after[i, j])) for i, j in pairs]
    if rows:
        yield Paragraph("The most frequent confusions, in clips:")
        yield Table(("true", "predicted", "clips", "trained model", "exported model"), rows, words=2)
    if len(labels) > MOST_DRAWN_CLASSES:
        return
    drawn = [("trained model", before), (f"exported model ({facts.manifest.precision})", after)]
    if np.array_equal(before, after):
        drawn = [("trained model and exported model, identical", after)]
    for title, counts in drawn:
        caption = "Rows are the truth, columns the predictions, in percent of the row."
        yield Picture(confusion_chart(counts, labels, title), caption)


def _changed(facts: _Facts) -> Iterator[Block]:
    """List the classes whose recall changed."""
    first, last = facts.answers[0].figures, facts.shipped.figures
    clips = np.bincount(facts.truth, minlength=len(facts.manifest.labels))
    found = [
        (label, int(n), before, after)
        for label, n, before, after in zip(facts.manifest.labels, clips, first.per_class, last.per_class, strict=True)
        if before is not None and after is not None and before != after
    ]
    found.sort(key=lambda row: -abs(row[3] - row[2]))
    before, after = facts.predictions
    yield Paragraph(
        f"{int(np.sum(before != after))} of {len(facts.truth)} clips get another class than from the trained model; "
        f"{len(found)} of {len(facts.manifest.labels)} classes are right more or less often."
    )
    if found:
        rows = [(label, str(n), _percent(a), _percent(b), _points(b - a)) for label, n, a, b in found[:_MOST_ROWS]]
        yield Table(("class", "clips", "trained model", "exported model", "change"), rows)


# -------------------------------------------------------------------------------------------------------- the file


def _file(facts: _Facts) -> Iterator[Block]:
    manifest = facts.manifest
    spec = manifest.preprocess
    yield Table(
        ("fact", "value"),
        [
            ("size", f"{_megabytes(facts.file_bytes)} ({facts.file_bytes:,} bytes)"),
            ("precision, profile", f"{manifest.precision}, {facts.profile.name}"),
            ("graph", manifest.graph),
            ("input", f"{spec.input_channels} x {spec.input_px} x {spec.input_px}"),
            ("window", f"{manifest.segments} segments over {manifest.clip_seconds:g} s"),
            ("trained on", f"{manifest.dataset.get('kind', 'unknown')}, split {manifest.split or 'unknown'}"),
            ("compared on", f"{facts.parity.clips} {facts.parity.side}"),
            *((f"version of {name}", version) for name, version in sorted(manifest.versions.items())),
        ],
        words=2,
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _points(change: float) -> str:
    return f"{100 * change:+.1f} points"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
