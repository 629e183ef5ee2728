"""Events of a training run; the command line shows them as a progress bar."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kd_edge.rundir import MetricsLine, SourceNote, Spread, Summary


@dataclass(frozen=True, slots=True)
class Prepared:
    """The recordings are ready.

    Attributes:
        run: The run directory.
        classes: Number of classes.
        train: Number of training clips.
        validation: Number of validation clips.
        test: Number of test clips, used once at the end.
        skipped: Sample id -> why it cannot be used.
        clip_seconds: Length of the live window.
        device: Device of the training, for example ``cpu`` or ``cuda:0``.
        threads: CPU threads of PyTorch.
        resumed: Where an interrupted run continues, for example ``student after epoch 12``; None for a new run.
        teacher_run: The run whose teacher is used, if any.
        dense_run: The run whose dense stage is used, if any.
        not_taken: Runs with the same teacher or dense stage that are not used because their clips differ.
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
    """The student starts from the weights of a source; ``note`` lists what was used and what is new."""

    note: SourceNote


@dataclass(frozen=True, slots=True)
class StageStarted:
    """A stage of teacher or student starts or continues.

    Attributes:
        stage: Name of the stage.
        epochs: Total number of epochs.
        steps_per_epoch: Optimiser steps per epoch.
        first_epoch: The first epoch to run.
        note: Further information, such as subjects left out, targets that clips lack, or the memory of features.
    """

    stage: str
    epochs: int
    steps_per_epoch: int
    first_epoch: int = 1
    note: str = ""


@dataclass(frozen=True, slots=True)
class StepDone:
    """An optimiser step is done; ``epoch`` and ``step`` count from 1, ``losses`` are by name, with ``total``."""

    stage: str
    epoch: int
    step: int
    losses: dict[str, float]
    clips_per_second: float


@dataclass(frozen=True, slots=True)
class EpochDone:
    """An epoch is done; ``metrics`` is the line written to ``metrics.jsonl``."""

    stage: str
    epoch: int
    metrics: MetricsLine


@dataclass(frozen=True, slots=True)
class Collapsed:
    """The student's embeddings have collapsed; reported once per stage, and training continues."""

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
    """The run is complete."""

    run: Path
    summary: Summary


Event = Prepared | FineTuned | StageStarted | StepDone | EpochDone | Collapsed | Finished
