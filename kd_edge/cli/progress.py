"""Progress bars."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from kd_edge.cli.console import faults
from kd_edge.errors import printable

if TYPE_CHECKING:  # a robot shows labels without the packages of the other stages
    from kd_edge.rundir import MetricsLine, SourceNote, Summary
    from kd_edge.train.events import Event


Shown = TypeVar("Shown")


def progress_bar(console: Console) -> Progress:
    """A progress bar with count and remaining time; disabled without a terminal."""
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


class TrainingDisplay:
    """Progress of a training run: a live bar on a terminal, one line per epoch elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = progress_bar(console)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> TrainingDisplay:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def decoding(self, modality: str, done: int, total: int) -> None:
        """Progress of a frame cache."""
        self._bar.update(self._task(f"decoding {modality}", total), completed=done)

    def follow(self, events: Iterable[Event]) -> Summary | None:
        """Show events as they arrive; returns the run's summary, or None in a process that leaves it to another."""
        from kd_edge.train.events import Finished

        summary: Summary | None = None
        for event in self.watch(events):
            if isinstance(event, Finished):
                summary = event.summary
        return summary

    def watch(self, events: Iterable[Shown]) -> Iterator[Shown]:
        """Show the trainer's events, and yield every event."""
        from kd_edge.train.events import Collapsed, EpochDone, FineTuned, Prepared, StageStarted, StepDone

        steps = 0
        for event in events:
            if isinstance(event, Prepared):
                self._console.print(_prepared(event))
            elif isinstance(event, FineTuned):
                self._console.print(source_report(event.note), soft_wrap=True)
            elif isinstance(event, StageStarted):
                steps = event.steps_per_epoch
                if event.note:
                    self._console.print(f"{event.stage}: {event.note}")
                task = self._task(event.stage, event.epochs * steps)
                self._bar.update(task, completed=(event.first_epoch - 1) * steps)
            elif isinstance(event, StepDone):
                note = f"epoch {event.epoch}  loss {event.losses['total']:.3f}  {event.clips_per_second:.0f} clips/s"
                done = (event.epoch - 1) * steps + event.step
                self._bar.update(self._tasks[event.stage], completed=done, note=note)
            elif isinstance(event, Collapsed):
                self._console.print(f"[yellow]warning:[/yellow] {event}", soft_wrap=True)
            elif isinstance(event, EpochDone) and not self._console.is_terminal:
                self._console.print(_epoch(event.metrics))
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


def source_report(note: SourceNote) -> str:
    """What a student was fine-tuned from: one line, with details indented below."""
    return "\n  ".join(escape(printable(line)) for line in note.lines)


def _prepared(event: Any) -> str:
    parts = [f"{event.train} training", f"{event.validation} validation", f"{event.test} test clips"]
    text = (
        f"{event.run}: {event.classes} classes, {', '.join(parts)}, window {event.clip_seconds:.2f} s, {event.device}"
    )
    if event.resumed:
        text += f"; resumes with the {event.resumed}"
    text += f"; teacher of {event.teacher_run}" if event.teacher_run else ""
    text += f"; dense stage of {event.dense_run}" if event.dense_run else ""
    for run in event.not_taken:
        text += f"\n{run} was trained on other clips and is not reused"
    return text + faults(event.skipped, "cannot be used")


def _epoch(line: MetricsLine) -> str:
    losses = " ".join(f"{name} {value:.4g}" for name, value in line.losses.items())
    score = f"  validation {line.validation.accuracy:.1%}" if line.validation else ""
    return f"{line.stage} epoch {line.epoch}: {losses}  {line.clips_per_second:.0f} clips/s{score}"
