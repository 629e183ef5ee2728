"""The verb evaluate: trimmed clips, the stream of joined clips, the original long videos, or one recording."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.markup import escape

from kd_edge import recipes
from kd_edge.cli.console import (
    DataOption,
    EngineOption,
    JsonOption,
    allow_only,
    err,
    faults,
    out,
    print_json,
    table,
    typed,
)
from kd_edge.cli.progress import progress_bar
from kd_edge.errors import ConfigError, printable

if TYPE_CHECKING:  # a robot shows labels without the packages of the other stages
    from kd_edge.engines import EngineName
    from kd_edge.evaluate import Evaluation
    from kd_edge.evaluate.joined import LiveScore, Score, StreamingScore
    from kd_edge.evaluate.recordings import RecordingScore
    from kd_edge.evaluate.untrimmed import DetectionEvaluation, DetectionScore


app = typer.Typer()

_OF_DATA = ("--data", "--split", "--engine", "--threads")
_OF_RECORDING = ("--labels", "--engine", "--threads", "--smooth-ms")
_OF_DETECTION = ("--threshold", "--iou", "--scale", "--proposals", "--write")


@app.command(
    epilog="Examples:  kd-edge evaluate student.onnx --streaming --data ~/data/utd-mhad  |  kd-edge evaluate runs/mine"
    "  |  kd-edge evaluate student.onnx --detection --write found --data ~/data/pku-mmd"
    "  |  kd-edge evaluate student.onnx --recording out.mcap"
)
def evaluate(
    context: typer.Context,
    model: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RUN|ARTIFACT]", help="What to evaluate; default the newest artifact here, else the bundled one."
        ),
    ] = None,
    data: DataOption = None,
    split: Annotated[
        str | None,
        typer.Option("--split", metavar="NAME", help="Protocol; default the one the model was trained under."),
    ] = None,
    streaming: Annotated[
        bool,
        typer.Option("--streaming", help="Also score a stream: the joined clips, or whole recordings."),
    ] = False,
    orders: Annotated[
        int,
        typer.Option(
            "--orders", metavar="N", min=0, help="Also score N random orders of the clips, for mean and spread."
        ),
    ] = 0,
    smooth_ms: Annotated[
        float | None,
        typer.Option(
            "--smooth-ms", metavar="MS", help="Smoothing as for run; default one segment spacing, 0 for none."
        ),
    ] = None,
    detection: Annotated[
        bool, typer.Option("--detection", help="Detect the actions in the long videos instead (pku_mmd).")
    ] = False,
    threshold: Annotated[
        float | None,
        typer.Option("--threshold", metavar="P", help="Detection: minimum probability of a proposal; default 0.1."),
    ] = None,
    iou: Annotated[
        float | None,
        typer.Option("--iou", metavar="O", help="Detection: minimum overlap (IoU) of a match; default 0.5."),
    ] = None,
    scales: Annotated[
        list[float] | None,
        typer.Option(
            "--scale", metavar="X", help="Detection: window length relative to training; default 1. Repeatable."
        ),
    ] = None,
    proposals: Annotated[
        str | None,
        typer.Option("--proposals", metavar="KIND", help="Detection: runs (merged windows, the default) or windows."),
    ] = None,
    write: Annotated[
        Path | None,
        typer.Option(
            "--write", metavar="DIR", help="Detection: write the proposals in the format of PKU-MMD's evaluator."
        ),
    ] = None,
    recording: Annotated[
        str | None,
        typer.Option(
            "--recording",
            metavar="FILE",
            help="Score a recording of run --record instead, or any file that replay: reads.",
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels", metavar="CSV", help="Recording: true actions (start_s,end_s,label); default as recorded."
        ),
    ] = None,
    engine: EngineOption = "onnxruntime",
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads of the engine.")] = 1,
    json_: JsonOption = False,
) -> None:
    """Score a model on the test clips of its data set, on the long videos they were cut from, or on a recording.

    Exit code 1 if the recording is damaged; it is scored up to that point.
    """
    from kd_edge.engines import engine_name

    runner = engine_name(engine)
    if recording is not None:
        allow_only(context, "--recording", *_OF_RECORDING, fix="score the data set by itself")
        _score_recording(_chosen(model), recording, labels, smooth_ms, runner, threads, json_)
        return
    if detection:
        allow_only(context, "--detection", *_OF_DETECTION, *_OF_DATA, fix="evaluate twice")
        given = {"threshold": threshold, "scales": scales or None, "proposals": proposals}
        chosen = {key: value for key, value in given.items() if value is not None}
        _detect(_chosen(model), data, split, chosen, 0.5 if iou is None else iou, write, runner, threads, json_)
        return
    for mode, options in (("--recording", ("--labels",)), ("--detection", _OF_DETECTION)):
        if alone := [option for option in typed(context) if option in options]:
            raise ConfigError(f"{', '.join(alone)} without {mode}", "both", f"add {mode}")
    from kd_edge.evaluate import evaluate as evaluate_model

    path = _chosen(model)
    with progress_bar(err) as bar:
        task = bar.add_task("test clips", total=None)
        result = evaluate_model(
            path,
            data_root=data,
            split=split,
            streaming=streaming,
            orders=orders,
            smooth_ms=smooth_ms,
            engine=runner,
            threads=threads,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if json_:
        print_json(result)
    else:
        out.print(evaluation_report(result))


def _chosen(model: Path | None) -> Path:
    """Return the given model, or the default of ``run``, which is then printed."""
    if model is not None:
        return model
    from kd_edge.artifact import BUNDLED, default_model

    path = default_model()
    newest = "" if path == BUNDLED else " (the newest here; name another one)"
    err.print(f"model {escape(printable(str(path)))}{newest}")
    return path


def _score_recording(
    model: Path,
    recording: str,
    labels: Path | None,
    smooth_ms: float | None,
    engine: EngineName,
    threads: int,
    json_: bool,
) -> None:
    from kd_edge.evaluate.recordings import evaluate_recording

    result = evaluate_recording(model, recording, labels=labels, engine=engine, threads=threads, smooth_ms=smooth_ms)
    if json_:
        print_json(result)
    else:
        out.print(recording_report(result))
    if result.fault:
        raise typer.Exit(1)


def _detect(
    model: Path,
    data: Path | None,
    split: str | None,
    chosen: dict[str, Any],
    iou: float,
    write: Path | None,
    engine: EngineName,
    threads: int,
    json_: bool,
) -> None:
    from kd_edge.evaluate import detect
    from kd_edge.evaluate.spotting import Spotting

    settings = recipes.validate(chosen, Spotting, "--detection")
    with progress_bar(err) as bar:
        task = bar.add_task("long videos", total=None)
        result = detect(
            model,
            data_root=data,
            split=split,
            settings=settings,
            iou=iou,
            engine=engine,
            threads=threads,
            write=write,
            progress=lambda frames, done, total: bar.update(task, completed=done, total=total, note=f"{frames} frames"),
        )
    if json_:
        print_json(result)
    else:
        out.print(detection_report(result))
        if write is not None:
            out.print(f"proposals in {write}, one file per video")


def _title(result: Evaluation | DetectionEvaluation) -> str:
    """Title: the model and the test data."""
    title = f"{result.model} ({result.precision}) on {result.dataset}, split {result.split}, {result.modality}"
    return f"{title}, {result.engine}" if result.engine else title


def evaluation_report(result: Evaluation) -> RenderableType:
    """Scores clip by clip, and as a stream."""
    scores: list[tuple[str, Score | None]] = [("clip by clip", result.clip)]
    clip = result.clip
    lines = [f"clip by clip: mAP {clip.map:.1%}, top 5 {clip.top5:.1%}, calibration error {clip.ece:.3f}"]
    if result.streaming is not None:
        stream = result.streaming
        scores += [
            ("streaming, every clip", stream.every),
            ("streaming, clips that fill the window", stream.window_filled),
            ("streaming, clips shorter than the window", stream.shorter),
        ]
        lines.append(
            f"{stream.frames} frames at {stream.frames_per_second:.0f} frames/s; {stream.unlabelled} clips without a "
            f"label (counted as wrong), {stream.unknown} unknown at their end (scored by their best guess)"
        )
        if result.stream_change is not None:
            lines.append(f"every clip in the stream less clip by clip: {100 * result.stream_change:+.1f} points")
        if (frame := stream.frame) is not None:
            threads = "1 thread" if frame.threads == 1 else f"{frame.threads} threads"
            lines.append(
                f"a frame takes {frame.median_ms:.2f} ms (99 of 100 at most {frame.p99_ms:.2f} ms) with {threads}; one "
                f"comes every {frame.period_ms:.1f} ms"
            )
        lines.append(f"frame by frame, as a robot sees it: {live_report([stream])}")
    if result.orders:
        over = len(result.orders)
        lines.append(
            f"{over} random orders: {_spread([s.every.accuracy for s in result.orders], '.1%')} of the clips right at "
            f"their ends; {live_report(result.orders)}"
        )
    rows = [(name, str(s.clips), f"{s.accuracy:.1%}", f"{s.macro_f1:.1%}") for name, s in scores if s is not None]
    title = _title(result)
    lines.append(f"window {result.clip_seconds:.2f} s{faults(result.skipped, 'could not be read')}")
    return Group(escape(title), table(("", "clips", "accuracy", "macro F1"), rows), *lines)


def live_report(scores: Sequence[StreamingScore]) -> str:
    """Frame-by-frame scores of one stream, or mean and spread over several."""
    return _live_text([score.live for score in scores])


def _live_text(live: Sequence[LiveScore]) -> str:
    changes, noticed = sum(one.changes for one in live), sum(one.noticed for one in live)
    labelled = f"{_spread([one.labelled for one in live], '.1%')} of the frames have a label"
    if not any(one.labelled for one in live):
        return f"{labelled}: a robot receives no label"
    after = f", after {_spread([one.delay_seconds for one in live], '.2f')} s" if noticed else ""
    return (
        f"{labelled}, {_spread([one.accuracy for one in live], '.1%')} of labels right, "
        f"{_spread([one.false_changes_per_minute for one in live], '.1f')} false changes a minute, {noticed} of "
        f"{changes} changes noticed{after}"
    )


def _spread(values: Sequence[float], form: str) -> str:
    """The mean; with several values, also the standard deviation."""
    mean = statistics.fmean(values)
    return f"{mean:{form}}" if len(values) == 1 else f"{mean:{form}} ± {statistics.stdev(values):{form}}"


def recording_report(result: RecordingScore) -> RenderableType:
    """Frame-by-frame scores of a recording."""
    rows = [
        (name, str(c.frames), f"{c.labelled / c.frames:.1%}", f"{c.right / c.labelled:.1%}" if c.labelled else "")
        for name, c in result.by_class.items()
    ]
    states = ", ".join(f"{count} {state}" for state, count in result.states.items())
    lines = [
        f"{result.frames} frames in {result.seconds:.1f} s ({states}); of {result.judged} with a known action "
        f"{result.labelled} have a label",
        f"frame by frame, as a robot sees it: {_live_text([result.live])}",
        f"labels sha256 {result.labels_sha256}",
    ]
    if result.hint:
        lines.append(f"[yellow]no label:[/yellow] {escape(printable(result.hint))}")
    if result.fault:
        lines.append(f"[red]scored up to a fault:[/red] {escape(result.fault)}")
    title = escape(printable(f"{result.model} on {result.recording}, {result.engine}"))
    return Group(title, table(("action", "frames", "with a label", "of these right"), rows), *lines)


def detection_report(result: DetectionEvaluation) -> RenderableType:
    """Detection scores on long videos."""
    scores: list[tuple[str, DetectionScore | None]] = [
        ("all proposals", result.every),
        (f"proposals of at least {result.unknown_threshold:.2f}", result.confident),
    ]
    rows = [
        (
            name,
            str(s.proposals),
            *(f"{value:.3f}" for value in (s.ap, s.f1, s.map_action, s.map_video, s.two_d_ap)),
        )
        for name, s in scores
        if s is not None
    ]
    header = ("", "proposals", "AP", "F1", "mAP_action", "mAP_video", "2D-AP")
    windows = ", ".join(f"{scale * result.clip_seconds:.2f}" for scale in result.settings.scales)
    title = _title(result)
    lines = [
        f"{result.videos} long videos, {result.actions} actions, overlap {result.iou:g}; "
        f"{result.without_proposal} videos without a proposal (they count 0)",
        f"windows of {windows} s, {result.settings.proposals} from probability {result.settings.threshold:g}; "
        f"{result.frames} frames at {result.frames_per_second:.0f} frames/s",
    ]
    if result.confident is None:
        lines.append("F1 depends on --threshold, which is not fitted: choose it on training videos")
    unread = faults(result.skipped, "could not be read (they count 0)")
    return Group(escape(title), table(header, rows), *lines, *([unread.lstrip("\n")] if unread else []))
