"""The verb run: live labels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from kd_edge.cli.console import EngineOption, checked, err
from kd_edge.errors import ArtifactError, DataError, SinkError, printable
from kd_edge.runtime.statistics import WITH_LABEL

if TYPE_CHECKING:  # a robot shows labels without the packages of the other stages
    from kd_edge.artifact import Manifest
    from kd_edge.engines import StepEngine
    from kd_edge.runtime.statistics import Statistics
    from kd_edge.runtime.stream import LabelStream
    from kd_edge.runtime.tally import Tally

app = typer.Typer()


def tally_report(counts: Tally) -> str:
    """Score of the labels against the ground truth."""
    if not counts.labels:
        return "no label"
    text = (
        f"{counts.right} of {counts.labels} labels right ({counts.accuracy:.0%}), "
        f"{counts.changes} changes of the label for {counts.real_changes} real ones"
    )
    return f"{text}, noticed after {counts.delay_seconds:.1f} s" if counts.noticed else text


def stream_summary(statistics: Statistics, window_seconds: float, tallies: Mapping[str, Tally]) -> str:
    """Summary of a stream: in total, and per camera if there are several."""
    from kd_edge.runtime.tally import together

    counts = together(list(tallies.values()))
    states = _states(statistics.labels)
    text = f"{statistics.pushed} frames labelled ({states or 'no label'}), {statistics.fps:.1f} frames/s"
    for count, what in (
        (statistics.dropped, "frames dropped"),
        (statistics.skipped, "skipped as too old"),
        (statistics.frozen, "frozen"),
        (statistics.damaged, "damaged"),
        (statistics.misdated, "with impossible stamps"),
        (statistics.engine_failures, "engine failures"),
        (statistics.reconnects, "reconnects"),
        (statistics.sink_dropped, "labels lost by sinks"),
    ):
        if count:
            text += f", {count} {what}"
    hints = list(statistics.too_short(window_seconds))
    for hint in hints:
        text += f"\n[yellow]no label:[/yellow] {escape(printable(hint))}"
    if not hints and not WITH_LABEL & statistics.labels.keys():
        often = max(statistics.reasons, key=lambda code: statistics.reasons[code], default="")
        text += f"\n[yellow]no label:[/yellow] the window of {window_seconds:.2f} s was never full"
        text += " (too short, or gaps)" if often in ("", "start", "gap") else f" ({often})"
    if counts.labels:
        text += f"; {tally_report(counts)}"
    if statistics.recorded or statistics.unrecorded or statistics.record_fault:
        text += f"; {statistics.recorded} frames recorded"
    if statistics.unrecorded:
        text += f"\n[yellow]{statistics.unrecorded} frames are not in the recording:[/yellow] its labels will differ"
    if statistics.clips or statistics.lost_clips:
        text += f"; {statistics.clips} clips kept"
        text += f", {statistics.lost_clips} not" if statistics.lost_clips else ""
    if statistics.record_fault:
        text += f"\n[red]the recording stopped early:[/red] {escape(statistics.record_fault)}"
    for sink, fault in statistics.sink_faults.items():
        text += f"\n[red]sink {escape(sink)} does not work:[/red] {escape(fault)}"
    for name, source in statistics.sources.items() if len(statistics.sources) > 1 else ():
        of = tallies.get(name)
        right = f"; {tally_report(of)}" if of is not None and of.labels else ""
        states = _states(source.labels) or "no label"
        text += f"\n  {escape(printable(name))}: {states}, {source.seconds:.1f} s{right}"
    return text


def _states(labels: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {state}" for state, count in labels.items())


def first_line(path: Path, manifest: Manifest, *, is_chosen: bool) -> str:
    """The model, how it was chosen, and whether its confidences are calibrated."""
    from kd_edge.artifact import BUNDLED, UNCALIBRATED

    model = f"model {escape(printable(str(path)))}"
    if not is_chosen and path != BUNDLED:
        model += " (the newest here; --model chooses another)"
    return model if manifest.calibrated_on else f"{model} [yellow]({UNCALIBRATED})[/yellow]"


@app.command(
    epilog="Examples:  kd-edge run --camera ir0  |  kd-edge run --camera synthetic: --duration 20  |  "
    "kd-edge run --camera replay:clip_depth.mat --model student.onnx --sink jsonl:-  |  "
    "kd-edge run --camera ir0 --camera ir1"
)
def run(
    camera: Annotated[
        list[str],
        typer.Option(
            "--camera", "-c", metavar="NAME|URI", help="Camera; kd-edge cameras lists them. Repeatable: NAME=URI."
        ),
    ],
    model: Annotated[
        Path | None,
        typer.Option("--model", "-m", metavar="FILE", help="Artifact; default the newest here, else bundled."),
    ] = None,
    sinks: Annotated[
        list[str] | None,
        typer.Option(
            "--sink", metavar="URI", help="Output of the labels: terminal: (the default) or jsonl:PATH. Repeatable."
        ),
    ] = None,
    duration: Annotated[
        float | None,
        typer.Option("--duration", metavar="S", min=0.1, help="Stop after this many seconds."),
    ] = None,
    realtime: Annotated[
        bool, typer.Option("--realtime", help="Replay a recording at the pace of its time stamps.")
    ] = False,
    engine: EngineOption = "auto",
    threads: Annotated[
        int | None,
        typer.Option("--threads", min=1, help="Threads of the engine; default from the camera file, else 1."),
    ] = None,
    provider: Annotated[
        str | None,
        typer.Option(
            "--provider", metavar="NAME", help="Device: cpu; cuda with onnxruntime; gpu or npu with openvino."
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Treat any fallback as an error.")] = False,
    cuda_binding: Annotated[
        str,
        typer.Option(
            "--cuda-binding",
            metavar="NAME",
            help="For TensorRT: cuda-python, pycuda, or auto for whichever is installed.",
        ),
    ] = "auto",
    trust: Annotated[
        Path | None,
        typer.Option(
            "--trust", metavar="KEY", help="Run only models signed with this public key, or one of a folder of keys."
        ),
    ] = None,
    accept: Annotated[
        bool,
        typer.Option(
            "--accept-self-test", help="Run a model even if it fails its self-test; its labels are 'degraded'."
        ),
    ] = False,
    valid_ms: Annotated[
        float | None,
        typer.Option(
            "--valid-ms", metavar="MS", help="How long a label is valid after its frame; default from the model."
        ),
    ] = None,
    max_age_ms: Annotated[
        float | None,
        typer.Option("--max-age-ms", metavar="MS", help="Skip frames that are older than this when processed."),
    ] = None,
    smooth_ms: Annotated[
        float | None,
        typer.Option(
            "--smooth-ms",
            metavar="MS",
            help="How long a window counts in labels; default one segment spacing, 0: newest window only.",
        ),
    ] = None,
    notify: Annotated[bool, typer.Option("--notify", help="Report to systemd (READY, WATCHDOG).")] = False,
    record: Annotated[
        Path | None,
        typer.Option("--record", metavar="FILE", help="Record frames, time stamps and labels in a new .mcap file."),
    ] = None,
    record_on_: Annotated[
        str | None,
        typer.Option(
            "--record-on", metavar="WHEN", help="Save clips to label and train on: unknown, low-confidence, degraded."
        ),
    ] = None,
    record_dir: Annotated[
        Path | None, typer.Option("--record-dir", metavar="DIR", help="Folder of these clips, with a manifest.csv.")
    ] = None,
    record_max_mb: Annotated[
        float, typer.Option("--record-max-mb", metavar="MB", help="Maximum size of these clips.")
    ] = 2000.0,
) -> None:
    """Label one or several cameras live; Ctrl-C stops.

    Several cameras share one model, and their frames are labelled together
    where possible; a lost camera does not affect the others. NAME=URI sets
    the camera's name in its labels.

    Exit code 1 if at the end no sink works, a sink lost a label of a
    recording, --record stopped early, or a recording is damaged after its
    first frame (it is labelled up to that point); 0 if at least one sink
    works.
    """
    import time

    from kd_edge.artifact import default_model, load
    from kd_edge.engines import engine_name, provider_name
    from kd_edge.engines.cuda import cuda_binding as binding_name
    from kd_edge.runtime.cameras.config import camera_config
    from kd_edge.runtime.clip_recorder import record_on
    from kd_edge.runtime.signals import interrupt_on_termination
    from kd_edge.runtime.stream import stream
    from kd_edge.runtime.tally import Tally

    runner, device, binding, kept_clips, *_ = checked(
        lambda: engine_name(engine),
        lambda: None if provider is None else provider_name(provider),
        lambda: binding_name(cuda_binding),
        lambda: None if record_on_ is None else record_on(record_on_),
        *(partial(camera_config, name) for name in camera),
    )
    try:
        path = model or default_model()
        artifact = load(path, trust=trust)
    except ArtifactError as error:
        if model is not None:
            raise
        raise ArtifactError(error.found, error.expected, f"{error.fix}; or choose another with --model") from error
    err.print(first_line(path, artifact.manifest, is_chosen=model is not None))
    sinks = sinks or ["terminal:"]
    labels = stream(
        model=artifact,
        camera=camera,
        realtime=realtime,
        sinks=sinks,
        engine=runner,
        threads=threads,
        provider=device,
        strict=strict,
        cuda_binding=binding,
        trust=trust,
        self_test="accept" if accept else "raise",
        valid_ms=valid_ms,
        max_age_ms=max_age_ms,
        smooth_ms=smooth_ms,
        notify=notify,
        record=record,
        record_on=kept_clips,
        record_dir=record_dir,
        record_max_mb=record_max_mb,
    )
    tallies = defaultdict[str, Tally](Tally)  # by camera
    try:
        with interrupt_on_termination(), labels:
            start = time.monotonic()  # excludes loading and the measurement of engines
            err.print(escape(printable(_engine_line(labels.recognizer.engine))))
            if signed_by := labels.recognizer.signed_by:
                err.print(f"signed by key {signed_by[:16]}")
            for prediction in labels:
                tallies[prediction.source].add(prediction)
                if not labels.is_heard:
                    break
                if duration is not None and time.monotonic() - start > duration:
                    break
    except (SinkError, DataError):
        if labels.statistics.labels:
            _summarise(labels, tallies)
        raise
    except KeyboardInterrupt:
        if not hasattr(labels, "recognizer"):  # while the model was loading
            raise typer.Exit(130) from None
    _summarise(labels, tallies)
    if labels.statistics.record_fault or not labels.any_sink_works:
        raise typer.Exit(1)


def _engine_line(engine: StepEngine) -> str:
    """The engine that runs the model, and why if it was chosen by measurement."""
    from kd_edge.engines import Engine

    choice = engine.choice if isinstance(engine, Engine) else None
    return f"engine {engine.name}" if choice is None else choice.text


def _summarise(labels: LabelStream, tallies: Mapping[str, Tally]) -> None:
    window_seconds = labels.recognizer.manifest.clip_seconds
    err.print(stream_summary(labels.statistics, window_seconds, tallies))
    if labels.label_hash is not None and labels.label_hash.by_source:
        err.print(f"labels sha256 {labels.label_hash.hexdigest()}")
        _compare(labels, labels.label_hash.by_source)


def _compare(labels: LabelStream, hashes: dict[str, str]) -> None:
    """Print whether the replay of a recording produced the same labels as when it was recorded."""
    recorded = {camera.name: getattr(camera, "recorded_hash", "") for camera in labels.cameras}
    others = {name: digest for name, digest in recorded.items() if digest and digest != hashes.get(name)}
    if others:
        for name, digest in others.items():
            which = f"of {escape(printable(name))} " if len(recorded) > 1 else ""
            err.print(f"{which}when it was recorded: {digest}")
    elif all(recorded.values()):
        err.print("the same as when it was recorded")
