"""What the trainer tells while it runs; the command line turns it into a progress bar."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kd_edge.rundir import MetricsLine, SourceNote, Spread, Summary


@dataclass(frozen=True, slots=True)
class Prepared:
    """Recordings are ready.

    Attributes:
        run: The run directory.
        classes: Number of classes.
        train: Clips to train on.
        validation: Clips to choose by.
        test: Clips touched once, at the end.
        skipped: Sample id -> why it cannot be used.
        clip_seconds: Length of the live window.
        device: What trains, for example ``cpu`` or ``cuda:0``.
        threads: CPU threads of PyTorch.
        resumed: Where an interrupted run goes on, for example ``student after epoch 12``; None for a new run.
        teacher_run: The run whose teacher is taken, if any.
        dense_run: The run whose dense stage is taken, if any.
        not_taken: Runs that had the very teacher or dense stage, but trained on other clips, where no other one had it.
    """

    run: Path
    classes: int
    train: int
    validation: int
    test: int
    skipped: dict[str, str]
    clip_seconds: float
    device: str
    threads: int
    resumed: str | None = None
    teacher_run: Path | None = None
    dense_run: Path | None = None
    not_taken: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class FineTuned:
    """The student begins with the weights of a source; ``note`` says which, and what is new."""

    note: SourceNote


@dataclass(frozen=True, slots=True)
class StageStarted:
    """The teacher's or the student's training begins or goes on.

    Attributes:
        stage: Its name.
        epochs: In all.
        steps_per_epoch: Of the optimiser.
        first_epoch: Where it begins or goes on.
        note: What else is worth knowing of it: whom an encoder is trained without, which targets its clips
            lack, what features take in memory.
    """

    stage: str
    epochs: int
    steps_per_epoch: int
    first_epoch: int = 1
    note: str = ""


@dataclass(frozen=True, slots=True)
class StepDone:
    """One optimiser step; ``epoch`` and ``step`` count from 1, ``losses`` are by name, with ``total``."""

    stage: str
    epoch: int
    step: int
    losses: dict[str, float]
    clips_per_second: float


@dataclass(frozen=True, slots=True)
class EpochDone:
    """One epoch; ``metrics`` is the line written to ``metrics.jsonl``."""

    stage: str
    epoch: int
    metrics: MetricsLine


@dataclass(frozen=True, slots=True)
class Collapsed:
    """The student's embeddings have collapsed in an epoch, which is told once a stage; training goes on."""

    stage: str
    epoch: int
    spread: Spread

    def __str__(self) -> str:
        return (
            f"the student's embeddings collapse ({self.stage} stage, epoch {self.epoch}): mean cosine between clips "
            f"{self.spread.cosine:.5f}, {self.spread.dimensions:.2f} dimensions in use; lower the weight of the losses "
            "on features, or the learning rate"
        )


@dataclass(frozen=True, slots=True)
class Finished:
    """The run is complete: its directory and its summary."""

    run: Path
    summary: Summary


Event = Prepared | FineTuned | StageStarted | StepDone | EpochDone | Collapsed | Finished
