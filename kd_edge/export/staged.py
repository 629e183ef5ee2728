"""Run the stages of an export and check each against its bounds: trained model, float32 graph, precision, engines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import onnx

from kd_edge.artifact import ActivationRanges, Artifact, Manifest, StreamFigures, load, write
from kd_edge.engines import Engine, EngineName, open_engine
from kd_edge.errors import ExportError, printable
from kd_edge.export.culprits import culprits
from kd_edge.export.layers import layer_errors, likeliest
from kd_edge.export.ncnn import to_ncnn, verify
from kd_edge.export.parity import Answers, Bound, Comparison, Fault, engine_faults, parity, stage_faults
from kd_edge.export.precision import Converted, convert, observe
from kd_edge.export.profile import ExportProfile
from kd_edge.export.ranges import Feed, training_feeds
from kd_edge.export.recordings import Recordings
from kd_edge.export.streams import StreamComparison
from kd_edge.machine import usable_cores
from kd_edge.models.saved import SavedStudent

Say = Callable[[str], None]
"""Callback for progress messages."""

MOST_THREADS = 4
_TRIES = 20
"""Largest number of conversions in the search for nodes that must stay in float32."""
_VERIFIED = 8
"""Number of clips on which all outputs of a converted step are compared, not only its logits."""
_NAMED = 6
"""Number of nodes named in an error; the rest are counted."""
_KEPT = "without it the {precision} graph is out of the bounds of profile '{profile}'"


@dataclass(frozen=True, slots=True)
class Staged:
    """The verified result of all stages, with the data of the comparison.

    Attributes:
        proto: The graph in its precision.
        exact: The float32 graph.
        artifact: A file with the graph and its attachments, without golden clip, in the scratch folder.
        manifest: The manifest with the figures of all stages.
        attachments: Models for other engines, by name.
        comparison: The clips and the trained model's answers.
        answers: Answers of all stages, the trained model's first.
        feeds: Inputs of the float32 graph on training clips; empty for float32.
    """

    proto: onnx.ModelProto
    exact: onnx.ModelProto
    artifact: Artifact
    manifest: Manifest
    attachments: dict[str, bytes]
    comparison: Comparison
    answers: tuple[Answers, ...]
    feeds: tuple[Feed, ...]


def export_threads() -> int:
    """Number of threads for the engines of an export."""
    return min(MOST_THREADS, usable_cores())


def open_here(artifact: Artifact, engine: EngineName = "onnxruntime") -> Engine:
    """Open an engine for the comparisons of an export, without fallback to another one."""
    return open_engine(artifact, engine=engine, threads=export_threads(), strict=True)


def stage(
    student: SavedStudent,
    recordings: Recordings,
    profile: ExportProfile,
    exact: onnx.ModelProto,
    manifest: Manifest,
    folder: Path,
    *,
    auto_precision: bool,
    say: Say,
) -> Staged:
    """Convert a float32 graph to the profile's precision, comparing every stage with the trained model.

    Args:
        student: The trained model.
        recordings: Its clips.
        profile: Precision, engines and bounds.
        exact: The float32 graph.
        manifest: The manifest of the exported graph, without figures.
        folder: Folder for intermediate files.
        auto_precision: Keep the nodes in float32 that put a lower precision out of bounds.
        say: Called with a message for each step.

    Raises:
        ExportError: A stage is out of bounds.
    """
    say(f"running the trained model on {recordings.side}")
    comparison = Comparison.of(student, recordings, profile)
    ranges: ActivationRanges | None = None
    stream: StreamFigures | None = None
    feeds: tuple[Feed, ...] = ()
    with ExitStack() as opened:
        say("running the float32 graph")
        written = _write_and_load(exact, manifest.model_copy(update={"precision": "fp32"}), folder / "fp32.onnx")
        exact_engine = opened.enter_context(open_here(written))
        answers = [comparison.trained, comparison.answer("onnx", exact_engine, comparison.trained)]
        bound: Bound = "max_abs_error" if profile.precision == "fp32" else "max_onnx_error"
        _refuse(stage_faults(answers[-1], comparison, profile, bound), "float32 graph", (), RELEASES)
        shipped, lowered = Converted(exact, {}), answers[-1]
        if profile.precision != "fp32":
            say(f"converting to {profile.precision}")
            feeds, ranges = training_feeds(student, recordings, exact_engine, profile)
            streams = None
            if profile.graph == "step" and profile.stream_frames:
                say("labelling streams with the float32 graph")
                streams = StreamComparison(student, recordings, exact_engine, profile.stream_frames)
            lowering = _Lowering(exact, manifest, profile, feeds, comparison, streams, answers[-1], folder)
            shipped, written, lowered, stream = lowering.within_bounds(auto_precision=auto_precision, say=say)
            answers.append(lowered)
        attachments = _convert_carried(student, profile, say)
        manifest = manifest.model_copy(
            update={
                "kept_float32": shipped.kept,
                "ranges": ranges if profile.precision.startswith("int8") else None,
            }
        )
        if attachments:
            written = _write_and_load(shipped.proto, manifest, folder / "carrying.onnx", attachments)
        for name in engines_of(profile)[1:]:
            say(f"running {name}")
            if name in profile.carry:  # converted by another program, so features and states are verified, too
                verify(student.model, written, comparison.inputs[:_VERIFIED], profile.max_engine_error)
            engine = opened.enter_context(open_here(written, name))
            answers.append(comparison.answer(name, engine, answers[-1]))
            _refuse(engine_faults(answers[-1], lowered, comparison, profile), name, (), OTHER_ENGINE)
    figures = parity(answers, comparison, profile.precision, profile.max_abs_error, stream)
    return Staged(
        proto=shipped.proto,
        exact=exact,
        artifact=written,
        manifest=manifest.model_copy(update={"parity": figures}),
        attachments=attachments,
        comparison=comparison,
        answers=tuple(answers),
        feeds=feeds,
    )


def check_carried(profile: ExportProfile, segments: int) -> None:
    """Check that ncnn can run what the profile requests, before any slow step.

    Raises:
        ExportError: ncnn cannot run it.
    """
    fault = ""
    if "ncnn" in profile.carry and profile.graph != "step":
        fault = "an ncnn model with a clip graph"
    elif "ncnn" in profile.carry and profile.precision.startswith("int8"):
        fault = (
            f"an ncnn model with {profile.precision}: ncnn is slow in integers, and in float32 it would be another "
            "function"
        )
    elif "ncnn" in profile.carry and segments < 2:
        fault = "an ncnn model for windows of one segment, whose past is empty"
    elif profile.engine == "ncnn" and "ncnn" not in profile.carry:
        fault = "engine 'ncnn' without an ncnn model in the artifact"
    if fault:
        raise ExportError(
            fault,
            "a streaming step in fp32 or fp16 over two segments or more, with carry = ['ncnn']",
            "leave out --with ncnn, or change the profile",
        )


def engines_of(profile: ExportProfile) -> tuple[EngineName, ...]:
    """Names of the engines to compare, ONNX Runtime first."""
    return tuple(dict.fromkeys(("onnxruntime", profile.engine, *profile.carry)))


# ------------------------------------------------------------------------------------------------ a lower precision


class _Attempt(NamedTuple):
    """A graph in its precision, its file and its answers."""

    converted: Converted
    written: Artifact
    answers: Answers
    stream: StreamFigures | None


class _Lowering:
    """Attempts at a lower precision, with different sets of nodes kept in float32."""

    def __init__(
        self,
        exact: onnx.ModelProto,
        manifest: Manifest,
        profile: ExportProfile,
        feeds: Sequence[Feed],
        comparison: Comparison,
        streams: StreamComparison | None,
        before: Answers,
        folder: Path,
    ) -> None:
        self._exact, self._manifest, self._profile, self._feeds = exact, manifest, profile, feeds
        self._comparison, self._streams = comparison, streams
        self._before, self._path = before, folder / "lowered.onnx"
        self._tried = 0
        self._seen = observe(exact, profile, feeds)  # once for all conversions

    def within_bounds(self, *, auto_precision: bool, say: Say) -> _Attempt:
        """Convert the graph to its precision, within the profile's bounds.

        Raises:
            ExportError: The graph is out of bounds; the error names the nodes that cause it.
        """
        stage = f"{self._profile.precision} graph"
        say(f"running the {stage}")
        first = self._attempt(frozenset())
        faults = self._faults(first)
        if not faults:
            return first
        say(f"the {stage} is out of bounds: looking for the nodes that cause it")
        lowered = [node.name for node in self._exact.graph.node if node.name not in first.converted.kept]
        found = culprits(
            lowered,
            lambda kept: self._passes(kept, say),
            likeliest=likeliest(layer_errors(self._exact, first.converted.proto, self._feeds)),
            tries=_TRIES,
        )
        if found is None or not auto_precision:
            _refuse(faults, stage, () if found is None else found.nodes, HIGHER if found is None else AUTOMATIC)
            raise AssertionError
        last = self._attempt(frozenset(found.nodes))
        why = _KEPT.format(precision=self._profile.precision, profile=self._profile.name)
        kept = last.converted.kept | dict.fromkeys(found.nodes, why)
        return last._replace(converted=last.converted._replace(kept=kept))

    def _passes(self, keep: frozenset[str], say: Say) -> bool:
        self._tried += 1
        say(f"looking for the nodes that cause it: try {self._tried} of at most {_TRIES}, {len(keep)} kept in float32")
        return not self._faults(self._attempt(keep))

    def _attempt(self, keep: frozenset[str]) -> _Attempt:
        converted = convert(self._exact, self._profile, self._feeds, keep=keep, seen=self._seen)
        written = _write_and_load(converted.proto, self._manifest, self._path)
        with open_here(written) as engine:
            answers = self._comparison.answer(self._profile.precision, engine, self._before)
            stream = None
            if self._streams is not None and not self._clip_faults(answers):  # otherwise it fails anyway
                stream = self._streams.figures(engine)
        return _Attempt(converted, written, answers, stream)

    def _faults(self, attempt: _Attempt) -> list[Fault]:
        faults = self._clip_faults(attempt.answers)
        return faults if attempt.stream is None else [*faults, *stream_faults(attempt.stream, self._profile)]

    def _clip_faults(self, answers: Answers) -> list[Fault]:
        return list(stage_faults(answers, self._comparison, self._profile, "max_abs_error"))


# --------------------------------------------------------------------------------------------------------- refusals

RELEASES = "try other releases of torch and onnxruntime, or widen the bound in a profile of your own"
HIGHER = "export in a higher precision, or widen the bound in a profile of your own"
AUTOMATIC = "add --auto-precision to keep these nodes in float32, or export in a higher precision"
OTHER_ENGINE = "leave it out, try another release of it, or widen the bound in a profile of your own"


def stream_faults(stream: StreamFigures, profile: ExportProfile) -> list[Fault]:
    """Find violations of the profile's bounds in a stream."""
    if stream.agreement >= profile.min_stream_agreement:
        return []
    return [
        Fault(
            f"names the float32 graph's class in only {stream.agreement:.1%} of {stream.frames} frames of a stream",
            f"at least {profile.min_stream_agreement:.1%} (min_stream_agreement of profile '{profile.name}')",
        )
    ]


def _refuse(faults: Iterable[Fault], stage: str, nodes: Sequence[str], fix: str) -> None:
    """Raise an ExportError for the first fault, if any."""
    for fault in faults:
        because = ""
        if nodes:
            named = ", ".join(printable(node) for node in nodes[:_NAMED])
            more = f" and {len(nodes) - _NAMED} more" if len(nodes) > _NAMED else ""
            because = f", because of {named}{more}"
        raise ExportError(f"the {stage} {fault.found}{because}", fault.expected, f"{fix}; nothing was written")


def _convert_carried(student: SavedStudent, profile: ExportProfile, say: Say) -> dict[str, bytes]:
    """Convert the models for other engines; return them by attachment name."""
    if "ncnn" not in profile.carry:
        return {}
    say("converting for ncnn")
    preprocess = student.spec.preprocess
    half = profile.precision == "fp16"
    converted = to_ncnn(student.model, in_channels=preprocess.input_channels, input_px=preprocess.input_px, half=half)
    return converted.attachments


def _write_and_load(
    proto: onnx.ModelProto, manifest: Manifest, path: Path, attachments: dict[str, bytes] | None = None
) -> Artifact:
    write(proto.SerializeToString(), manifest, None, path, attachments=attachments or {})
    return load(path)
