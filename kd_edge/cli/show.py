"""Figures and events as text for a terminal. Builds what the verbs print; prints nothing itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:  # a robot shows labels without the packages of the other stages
    from kd_edge.bench import BenchReport
    from kd_edge.data.check import Report, SplitReport
    from kd_edge.doctor import Finding
    from kd_edge.export.export import Exported
    from kd_edge.runtime.cameras.listing import Cameras
    from kd_edge.runtime.stream import Statistics
    from kd_edge.runtime.tally import Tally
    from kd_edge.train.events import Event
    from kd_edge.train.material import Material

Shown = TypeVar("Shown")

NAMED = 5
"""So many faulty samples are named; the rest is a count."""
REMARKS = 12
"""So many remarks on a data set are printed; the rest is a count."""


def progress(console: Console) -> Progress:
    """A progress bar with count and remaining time; nothing where nobody watches."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    return _WithNote(*columns, console=console, disable=not console.is_terminal)


class _WithNote(Progress):
    """A progress bar whose tasks have a note, empty unless given."""

    def add_task(self, description: str, *args: Any, **fields: Any) -> TaskID:
        return super().add_task(description, *args, **{"note": "", **fields})


class Training:
    """Progress of a training run: a live bar on a terminal, one line per epoch elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = progress(console)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Training:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def decoding(self, modality: str, done: int, total: int) -> None:
        """Progress of a frame cache."""
        self._bar.update(self._task(f"decoding {modality}", total), completed=done)

    def follow(self, events: Iterable[Event]) -> dict[str, Any]:
        """Show events as they come; returns the run's summary."""
        from kd_edge.train.events import Finished

        summary: dict[str, Any] = {}
        for event in self.watch(events):
            if isinstance(event, Finished):
                summary = event.summary
        return summary

    def watch(self, events: Iterable[Shown]) -> Iterator[Shown]:
        """Show the trainer's events, and hand on every event."""
        from kd_edge.train.events import EpochDone, Prepared, StageStarted, StepDone

        steps = 0
        for event in events:
            if isinstance(event, Prepared):
                self._console.print(_prepared(event))
            elif isinstance(event, StageStarted):
                steps = event.steps_per_epoch
                task = self._task(event.stage, event.epochs * steps)
                self._bar.update(task, completed=(event.first_epoch - 1) * steps)
            elif isinstance(event, StepDone):
                note = f"epoch {event.epoch}  loss {event.losses['total']:.3f}  {event.clips_per_second:.0f} clips/s"
                done = (event.epoch - 1) * steps + event.step
                self._bar.update(self._tasks[event.stage], completed=done, note=note)
            elif isinstance(event, EpochDone) and not self._console.is_terminal:
                self._console.print(_epoch(event.stage, event.metrics))
            yield event

    def restart(self) -> None:
        """Another run begins: its stages get bars of their own."""
        for task in self._tasks.values():
            self._bar.remove_task(task)
        self._tasks.clear()

    def _task(self, name: str, total: int) -> TaskID:
        if name not in self._tasks:
            self._tasks[name] = self._bar.add_task(name, total=total)
        return self._tasks[name]


def _prepared(event: Any) -> str:
    parts = [f"{event.train} training", f"{event.validation} validation", f"{event.test} test clips"]
    text = (
        f"{event.run}: {event.classes} classes, {', '.join(parts)}, window {event.clip_seconds:.2f} s, {event.device}"
    )
    if event.resumed:
        text += f"; goes on with the {event.resumed}"
    return text + faults(event.skipped, "cannot be used")


def _epoch(stage: str, metrics: Mapping[str, Any]) -> str:
    losses = " ".join(f"{k} {v:.4g}" for k, v in metrics["losses"].items())
    validation = metrics.get("validation")
    score = f"  validation {validation['accuracy']:.1%}" if validation else ""
    return f"{stage} epoch {metrics['epoch']}: {losses}  {metrics['clips_per_second']:.0f} clips/s{score}"


def faults(skipped: Mapping[str, str], what: str) -> str:
    """Named faulty samples as extra lines; an empty string when there is none."""
    if not skipped:
        return ""
    named = [f"\n  {escape(name)}: {escape(why)}" for name, why in list(skipped.items())[:NAMED]]
    more = f"\n  and {len(skipped) - NAMED} more" if len(skipped) > NAMED else ""
    return f"\n[yellow]{len(skipped)} samples {what}:[/yellow]{''.join(named)}{more}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A plain table; every column but the first is right-aligned."""
    built = Table(box=None, pad_edge=False)
    for position, name in enumerate(header):
        built.add_column(name, justify="left" if position == 0 else "right")
    for row in rows:
        built.add_row(*row)
    return built


def _percent(test: Mapping[str, Any] | None, figure: str) -> str:
    """A figure of a stage that may be untested, or of a release that did not have it."""
    return "" if test is None or figure not in test else f"{test[figure]:.1%}"


def training_summary(summary: Mapping[str, Any]) -> RenderableType:
    """Test figures of each stage of a run."""
    rows = [
        (
            f"{name} ({stage['modality']}, {stage['backbone']} + {stage['temporal']})",
            *(_percent(stage["test"], figure) for figure in ("accuracy", "macro_f1", "map")),
            f"{stage['selected_epoch']} of {stage['epochs']}",
            f"{stage['seconds'] / 60:.1f}",
        )
        for name, stage in summary["stages"].items()
    ]
    protocol = summary["protocol"]
    where = f"{protocol['dataset']}, split {protocol['split']}"
    title = f"{where}, {protocol['test_samples']} test clips, seed {summary['seed']}"
    return Group(title, table(("", "accuracy", "macro F1", "mAP", "epoch", "minutes"), rows))


def demo_table(distilled: Mapping[str, Any], alone: Mapping[str, Any]) -> RenderableType:
    """Test figures of the teacher, the student alone and the student that learnt from the teacher, side by side."""
    rows = []
    for name, of, summary in (
        ("teacher", "teacher", distilled),
        ("student alone", "student", alone),
        ("distilled student", "student", distilled),
    ):
        stage = summary["stages"][of]
        figures = (_percent(stage["test"], figure) for figure in ("accuracy", "macro_f1", "map"))
        rows.append((name, stage["modality"], *figures, f"{stage['seconds'] / 60:.1f}"))
    title = f"{distilled['protocol']['test_samples']} test clips of other people, seed {distilled['seed']}"
    return Group(title, table(("", "sees", "accuracy", "macro F1", "mAP", "minutes"), rows))


def export_summary(exported: Exported) -> RenderableType:
    """What was written, and how closely it reproduces the student."""
    report = exported.report
    lines = [
        f"[b]{report.file}[/b]  {report.file_bytes / 1e6:.1f} MB, {report.precision}, opset {report.opset}, "
        f"{report.parameters / 1e6:.2f} M parameters, {report.step_flops / 1e9:.2f} GFLOP a frame"
    ]
    if report.parity is not None:
        p = report.parity
        lines.append(
            f"against the trained model on {p.clips} real clips: largest logit error {p.max_abs_error:.1e} "
            f"(bound {p.tolerance:.0e}), same label on {p.argmax_agreement:.1%}"
        )
    return "\n".join(lines)


def tally(counts: Tally) -> str:
    """How labels did against the truth."""
    if not counts.labels:
        return "no label"
    return (
        f"{counts.right} of {counts.labels} labels right ({counts.right / counts.labels:.0%}), "
        f"{counts.changes} changes of the label for {counts.real_changes} real ones"
    )


def stream_summary(statistics: Statistics, window_seconds: float, counts: Tally) -> str:
    """How a stream went."""
    states = ", ".join(f"{count} {state}" for state, count in statistics.labels.items())
    text = f"{statistics.pushed} frames labelled ({states or 'no label'}), {statistics.fps:.1f} frames/s"
    for count, what in ((statistics.dropped, "frames dropped"), (statistics.reconnects, "reconnects")):
        if count:
            text += f", {count} {what}"
    if set(statistics.labels) == {"warming"}:
        text += f"\n[yellow]no label:[/yellow] the window of {window_seconds:.2f} s was never full (too short, or gaps)"
    if counts.labels:
        text += f"; {tally(counts)}"
    for sink, fault in statistics.sink_faults.items():
        text += f"\n[red]sink {escape(sink)} stopped:[/red] {escape(fault)}"
    return text


def doctor(findings: Sequence[Finding]) -> RenderableType:
    """One row per finding, its remedy below it."""
    colour = {"ok": "green", "note": "yellow", "problem": "red"}
    built = Table(box=None, pad_edge=False, show_header=False)
    for finding in findings:
        fix = f"\n[dim]-> {escape(finding.fix)}[/dim]" if finding.fix else ""
        level = f"[{colour[finding.level]}]{finding.level}[/]"
        built.add_row(level, escape(finding.topic), escape(finding.found) + fix)
    return built


def cameras(found: Cameras) -> RenderableType:
    """Devices and configured cameras, each with the line that uses it."""
    built = Table(box=None, pad_edge=False)
    for name in ("camera", "what", "use it with"):
        built.add_column(name)
    for device in found.attached:
        built.add_row(device.device, escape(device.description or "video device"), device.use)
    for camera in found.configured:
        state = camera.fault or ("present" if camera.present else "not attached")
        built.add_row(camera.name, escape(f"{camera.uri} ({state})"), camera.use)
    built.add_row("synthetic:", "a generated figure, no device needed", "kd-edge run --camera synthetic:")
    note = "" if found.attached else "no video device is attached to this machine"
    return Group(built, note) if note else built


def data_report(report: Report) -> RenderableType:
    """What is complete, missing and damaged."""
    rows = [
        (
            m.modality,
            str(m.usable),
            str(len(m.unusable)),
            " / ".join(map(str, m.frames)),
            " / ".join(f"{s:.1f}" for s in m.seconds),
        )
        for m in report.modalities
    ]
    header = ("modality", "usable", "unusable", "frames min / median / max", "seconds")
    classes = list(report.per_class.values())
    lines = [
        f"{report.dataset}: {report.samples} samples, {report.complete} complete, {len(report.per_class)} classes "
        f"({min(classes)} to {max(classes)} samples each), {len(report.per_subject)} subjects"
    ]
    gaps = faults(report.gaps, "of the complete data set are not here")
    broken = faults({n: why for m in report.modalities for n, why in m.unusable.items()}, "cannot be used")
    notes = [f"  {escape(remark)}" for remark in report.remarks[:REMARKS]]
    if len(report.remarks) > REMARKS:
        notes.append(f"  and {len(report.remarks) - REMARKS} more remarks (all with --json)")
    if report.quick:
        notes.append("  headers only: damage inside a file is found without --quick")
    verdict = [] if report.split is None else [_split(report.split)]
    faulty = [text.lstrip("\n") for text in (gaps, broken) if text]
    return Group(*lines, *notes, table(header, rows), *faulty, *verdict)


def _split(split: SplitReport) -> str:
    """Whether a recipe's training could start."""
    if split.fault is not None:
        return f"[red]split {escape(split.name)}: training cannot start:[/red] {escape(split.fault)}"
    sides = f"{split.train} training, {split.validation} validation and {split.test} test samples"
    return f"split {escape(split.name)}: training can start, with {sides}"


def material(prepared: Material) -> str:
    """The frame caches and signals of a recipe."""
    lines = [f"{stage}: {cache}" for stage, cache in prepared.caches.items()]
    lines += [f"{sensor}: {count} training samples lack it" for sensor, count in prepared.lacking.items() if count]
    return "\n".join(lines) + faults(prepared.skipped, "cannot be used")


def demo_places(folder: Path, model: Path) -> str:
    """Where the demo left everything, and what to type next."""
    return (
        f"run        {folder}  (recipe.toml, summary.json, metrics.jsonl, plots/)\n"
        f"artifact   {model}\n"
        f"next       kd-edge evaluate {model} --streaming\n"
        f"           kd-edge run --camera synthetic: --model {model}"
    )


def bench(report: BenchReport) -> RenderableType:
    """Latency by stage, ratios, start-up and memory."""
    rows = list(report.stages.items())
    rows += [
        ("push", report.push),
        ("push inside the engine", report.inference),
        ("push with the engine left out", report.host),
        ("push outside the engine, between runs", report.host_between_runs),
    ]
    rows += [(f"one bare {report.bare_is} pass", report.bare), ("re-encoding the whole window", report.naive)]
    cells = [(name, *(f"{v:.3f}" for v in (r.p50, r.p90, r.p99, r.minimum))) for name, r in rows]
    lines: list[RenderableType] = [
        f"{escape(report.model)}, {report.precision}, {report.file_bytes / 1e6:.1f} MB; {report.frame} frames, "
        f"{report.pushes} pushes, {report.engine} on {report.cpu}, {report.threads} thread(s)",
        table(("milliseconds", "median", "90 %", "99 %", "least"), cells),
        f"push = {report.push_to_bare.median:.3f} x one bare {report.bare_is} pass (median of pairs; "
        f"fastest {report.push_to_bare.minimum:.3f})",
        f"re-encoding the window = {report.naive_to_push.median:.2f} x a push "
        f"(fastest {report.naive_to_push.minimum:.2f})",
        f"fresh process: ready in {report.process.ready_seconds:.2f} s, peak {report.process.peak_rss_mb:.0f} MB, "
        f"torch {'imported' if report.process.imports_torch else 'not imported'}",
    ]
    if report.fallback_reason:
        lines.append(f"[yellow]fallback:[/yellow] {escape(report.fallback_reason)}")
    return Group(*lines)
