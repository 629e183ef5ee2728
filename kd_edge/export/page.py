"""The report of an export for people: may what ships be trusted, and where does it differ from the trained model?"""

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
"""Calibration error from which on the page warns."""
MOST_DRAWN_CLASSES = 60
"""Of more classes only the worst pairs are shown."""
_MOST_ROWS = 15


def check_report_folder(folder: Path) -> None:
    """Make sure that a report can be written, before anything takes time; nothing is made.

    Raises:
        ExportError: It cannot; a file is in the folder's place, for example.
    """
    if os.path.lexists(folder) and not folder.is_dir():
        what = "a file" if folder.is_file() else "no folder"
        raise ExportError(f"{folder} is {what}", "a folder for the report", "choose another --report")
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
    """Write ``report.md`` and ``report.html`` into a folder, which is made; older ones are replaced.

    Args:
        folder: Where to.
        manifest: Of what ships, with its figures.
        profile: What was asked for.
        truth: (N,) int64, classes of the compared clips.
        answers: Of every stage, the trained model's first and what ships last.
        layers: Errors of the shipped graph; none of a float32 one.
        file_bytes: Size of the artifact.

    Returns:
        The two files.

    Raises:
        ExportError: Nothing was compared, or the folder cannot be written.
    """
    if manifest.parity is None:
        raise ExportError("an export whose answers were not compared", "one with figures", "leave out --report")
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
    """What the sections tell of."""

    manifest: Manifest
    parity: Parity
    profile: ExportProfile
    truth: Int64
    answers: tuple[Answers, ...]
    layers: tuple[LayerError, ...]
    file_bytes: int

    @property
    def shipped(self) -> Answers:
        """Of ONNX Runtime with the graph that ships; further engines have lines of their own."""
        return shipped_of(self.answers, self.manifest.precision)

    @property
    def given(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Classes (N,) that the trained model and what ships answer."""
        before, after = self.answers[0].logits, self.shipped.logits
        return before.argmax(axis=1), after.argmax(axis=1)

    @property
    def confusions(self) -> tuple[Int64, Int64]:
        """Of the trained model and of what ships, (K, K) each."""
        before, after = (metrics.confusion(given, self.truth, len(self.manifest.labels)) for given in self.given)
        return before, after

    def reliability(self, temperature: float) -> Reliability:
        """Of what ships."""
        logits = np.nan_to_num(self.shipped.logits)
        return metrics.reliability(metrics.softmax(logits, temperature), self.truth)


class _Bound(NamedTuple):
    """What a profile demands, and what was found."""

    what: str
    found: str
    allowed: str
    met: bool


def _sections(facts: _Facts) -> Iterator[Section]:
    yield Section("May it be trusted?", list(_verdict(facts)))
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
    what = (
        f"{manifest.name} was exported to {manifest.precision}: {_megabytes(facts.file_bytes)} that name one of "
        f"{len(manifest.labels)} actions from {manifest.modality} frames, {runs[manifest.graph]}."
    )
    like = (
        f"On {parity.clips} {parity.side} it gives the trained model's class for {_percent(parity.argmax_agreement)}, "
        f"its logits differ by at most {number(parity.max_abs_error)}, and it is right on {_percent(shipped.accuracy)} "
        f"where the trained model is on {_percent(trained.accuracy)}."
    )
    verdict = f"Every bound of profile '{facts.profile.name}' is met: it changes the trained model little."
    if broken:
        named = "; ".join(f"{bound.what}: {bound.found}, allowed {bound.allowed}" for bound in broken)
        verdict = f"It must not be trusted. Out of bounds: {named}."
    tested = facts.manifest.accuracy.get("accuracy")
    yield Paragraph(f"{what} {like} {verdict}", "bad" if broken else "good")
    if tested is not None:
        generated = " They are generated recordings." if manifest.dataset.get("kind") == "synthetic" else ""
        yield Paragraph(
            f"Whether the model is good enough is another question: after training the trained model was right on "
            f"{_percent(tested)} of all test clips.{generated} This file was not run on them: 'kd-edge evaluate FILE "
            "--streaming' does it."
        )
    yield _calibration(facts)
    if facts.profile.precision != "fp32" and parity.stream is None:
        yield Paragraph("It was not compared frame by frame in a stream.")
    yield Table(
        (f"bound of profile '{facts.profile.name}'", "found", "allowed", "met"),
        [(bound.what, bound.found, bound.allowed, "yes" if bound.met else "NO") for bound in bounds],
    )


def _calibration(facts: _Facts) -> Paragraph:
    manifest = facts.manifest
    if not manifest.calibrated_on:
        return Paragraph(
            "UNCALIBRATED: temperature and unknown threshold were fitted on nobody's clips. A confidence is what the "
            "network happens to say and must not be acted on. Hold subjects out in the recipe and train again.",
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
    poor = " That is much: look at the diagram before acting on a confidence." if ece > POOR_CALIBRATION else ""
    return Paragraph(
        f"Confidences are calibrated on {manifest.calibrated_on}: temperature {manifest.temperature:.3g}, {threshold}, "
        f"which keeps 95 % of the right answers of the trained model; of what ships, {kept}{of_those}. Its calibration "
        f"error (ECE) is {_percent(ece)}, on the clips that decided temperature and threshold, so a little flattering."
        f"{poor}",
        "warning" if poor else "plain",
    )


def _bounds(facts: _Facts) -> Iterator[_Bound]:
    """What of a profile can be held against what was found, stage by stage."""
    profile, (trained, *others) = facts.profile, facts.answers
    largest = float(np.abs(trained.logits).max())
    graph = trained
    for answer in others:
        stage, error = answer.figures.stage, answer.figures.max_abs_error
        what, limit = f"largest error, {stage}", profile.max_abs_error
        if stage not in ("onnx", profile.precision):
            what, limit = f"largest difference, {stage} from ONNX Runtime", profile.max_engine_error
            error = _largest_difference(answer, graph)
        else:
            graph = answer
            limit = profile.max_onnx_error if stage == "onnx" and profile.precision != "fp32" else limit
        allowed = scaled(limit, largest)
        yield _Bound(what, number(error), number(allowed), error <= allowed)
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
    """Of any logit; infinite where one is not finite."""
    if not np.isfinite(answer.logits).all():
        return math.inf
    return float(np.abs(answer.logits.astype(np.float64) - of.logits).max())


# ---------------------------------------------------------------------------------------------------------- stages


def _stages(facts: _Facts) -> Iterator[Block]:
    yield Paragraph(
        "Each stage answers the same clips. Errors are against the trained model's logits, flips against the stage "
        "before; ms is a rough time of one frame on the machine that exported, of the trained model of one clip: "
        "kd-edge bench measures."
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
            f"Frame by frame in streams of {stream.clips} clips, {stream.frames:,} frames: what ships names the "
            f"float32 graph's class in {_percent(stream.agreement)} of the frames (95 % interval {_percent(low)} to "
            f"{_percent(high)})."
        )
        change = f"{_points(stream.accuracy_change)} against the float32 graph (95 % interval {_points(down)} to "
        change = f"{change}{_points(up)})" if down < up else "and no frame became right or wrong"
        yield Paragraph(
            f"It is right in {_percent(stream.accuracy)} of these frames, {change}. That is lower than the clips' "
            "accuracy in every precision: every frame counts, also those whose window still reaches back into the clip "
            "before. 'kd-edge evaluate --streaming' scores one label a clip."
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
        "Relative error of what each layer writes against the float32 graph (dot), from the largest error of what it "
        "reads (line); a hollow dot is kept in float32. Last column: the largest value in the float32 graph.",
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
    yield Paragraph(f"Mean gap between confidence and accuracy (ECE, 15 bins) of what ships: {', '.join(errors)}.")
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
        "Share of right answers, % (blue line), by the confidence of what ships; orange is the gap to the mean "
        "confidence. On the diagonal confidences are honest. Beneath, the number of clips.",
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
        yield Paragraph("What is taken for what most often, in clips:")
        yield Table(("true", "taken for", "clips", "trained model", "what ships"), rows, words=2)
    if len(labels) > MOST_DRAWN_CLASSES:
        return
    drawn = [("trained model", before), (f"what ships ({facts.manifest.precision})", after)]
    if np.array_equal(before, after):
        drawn = [("trained model and what ships, alike", after)]
    for title, counts in drawn:
        caption = "Rows are the truth, columns the answers, in percent of the row."
        yield Picture(confusion_chart(counts, labels, title), caption)


def _changed(facts: _Facts) -> Iterator[Block]:
    """Classes that are right more or less often than before."""
    first, last = facts.answers[0].figures, facts.shipped.figures
    clips = np.bincount(facts.truth, minlength=len(facts.manifest.labels))
    found = [
        (label, int(n), before, after)
        for label, n, before, after in zip(facts.manifest.labels, clips, first.per_class, last.per_class, strict=True)
        if before is not None and after is not None and before != after
    ]
    found.sort(key=lambda row: -abs(row[3] - row[2]))
    before, after = facts.given
    yield Paragraph(
        f"{int(np.sum(before != after))} of {len(facts.truth)} clips get another class than from the trained model; "
        f"{len(found)} of {len(facts.manifest.labels)} classes are right more or less often."
    )
    if found:
        rows = [(label, str(n), _percent(a), _percent(b), _points(b - a)) for label, n, a, b in found[:_MOST_ROWS]]
        yield Table(("class", "clips", "trained model", "what ships", "change"), rows)


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
