"""The training loop of a stage: steps, epochs, selection of weights, and resuming."""

from __future__ import annotations

import time
import zlib
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from kd_edge import rundir
from kd_edge.errors import reason
from kd_edge.rundir import MetricsLine, Scores, Selection, Spread
from kd_edge.train import checks
from kd_edge.train.collapse import SpreadMeter
from kd_edge.train.devices import averaged, share_statistics
from kd_edge.train.events import Collapsed, EpochDone, Event, StageStarted, StepDone
from kd_edge.train.inputs.clips import Loaders
from kd_edge.train.optim import learning_rate, set_learning_rate
from kd_edge.train.recipe.stages import Training
from kd_edge.train.results import run, scores
from kd_edge.train.session import Session
from kd_edge.train.step import Step, on_device
from kd_edge.train.teachers.base import LabelLearner, Teacher


def fit(
    session: Session,
    name: str,
    stage: Training,
    learner: LabelLearner,
    loaders: Loaders,
    teacher: Teacher | None = None,
) -> Generator[Event, None, Selection]:
    """Train one stage, from its beginning or from where an interrupted run stopped.

    Args:
        session: The run.
        name: Name of the stage.
        stage: Its settings.
        learner: What is trained; afterwards its model has the selected weights.
        loaders: The clips.
        teacher: The teacher; None trains without one.

    Yields:
        Events.

    Returns:
        The selected weights' epoch and figures.
    """
    step = Step(session.fabric, learner, stage, teacher)
    progress = _restored(session, name, step)
    yield StageStarted(name, stage.epochs, len(loaders.batches), progress.epoch + 1, loaders.note)
    for epoch in range(progress.epoch + 1, stage.epochs + 1):
        totals = yield from _epoch(session, name, stage, step, loaders, epoch)
        checks.check_weights(learner, name, epoch, session.folder)  # before they are evaluated or saved
        if (collapsed := progress.measure(learner.spread, epoch)) is not None:
            yield Collapsed(name, epoch, collapsed)
        share_statistics(session.fabric, learner)
        validation = None
        if loaders.validation is not None:
            validation = scores.brief(*scores.predict(learner.model, loaders.validation, session.fabric.device))
            progress.keep_better(learner.model, epoch, validation.accuracy)
        line = _line(session, name, epoch, learner, totals, validation, progress.spread)
        progress.epoch, progress.seconds = epoch, progress.seconds + totals.seconds
        if session.writes:
            rundir.append_metrics(session.folder, line)  # before the state: resuming drops surplus lines
            _save(session, name, step, progress)
        yield EpochDone(name, epoch, line)
    return progress.selection(learner.model, by_validation=loaders.validation is not None)


@dataclass
class _Progress:
    """Progress of a stage, as saved for resuming.

    Attributes:
        epoch: Number of finished epochs.
        seconds: Time spent in their steps.
        best: Number, validation accuracy and weights of the best epoch.
        spread: Spread of the embeddings in the last epoch, if a loss uses features.
        collapsed: The first epoch in which the embeddings collapsed; 0 if none.
    """

    epoch: int = 0
    seconds: float = 0.0
    best: dict[str, Any] = field(default_factory=lambda: {"epoch": 0, "score": -1.0, "model": {}})
    spread: Spread | None = None
    collapsed: int = 0

    def measure(self, meter: SpreadMeter | None, epoch: int) -> Spread | None:
        """Store an epoch's spread of embeddings, and return it if they collapsed for the first time."""
        self.spread = None if meter is None else meter.of_epoch()
        if meter is None or self.spread is None or self.collapsed or not meter.is_collapsed(self.spread):
            return None
        self.collapsed = epoch
        return self.spread

    def keep_better(self, model: nn.Module, epoch: int, score: float) -> None:
        """Store an epoch's weights unless an earlier epoch was better."""
        if score >= self.best["score"]:  # of equal scores prefer the later, trained at a lower rate
            weights = {key: value.detach().clone() for key, value in model.state_dict().items()}
            self.best = {"epoch": epoch, "score": score, "model": weights}

    def selection(self, model: nn.Module, *, by_validation: bool) -> Selection:
        """Load the selected weights into the model and describe them."""
        kept: dict[str, Any] = {"seconds": round(self.seconds, 1), **_measured(self.spread)}
        if self.collapsed:
            kept["collapsed_epoch"] = self.collapsed
        if not by_validation:
            return Selection(selected_epoch=self.epoch, selected_by="last epoch", **kept)
        model.load_state_dict(self.best["model"])
        return Selection(selected_epoch=self.best["epoch"], selected_by="validation accuracy", **kept)


@dataclass
class _EpochTotals:
    """Sums over the steps of an epoch."""

    losses: dict[str, float] = field(default_factory=dict)
    right: int = 0
    clips: int = 0
    steps: int = 0
    seconds: float = 0.0
    rate: float = 0.0

    def add(self, losses: dict[str, float], right: int, clips: int) -> None:
        """Add one step."""
        self.losses = {key: self.losses.get(key, 0.0) + value for key, value in losses.items()}
        self.right, self.clips, self.steps = self.right + right, self.clips + clips, self.steps + 1


def _epoch(
    session: Session, name: str, stage: Training, step: Step, loaders: Loaders, epoch: int
) -> Generator[Event, None, _EpochTotals]:
    """Run the steps of one epoch."""
    # Random numbers depend only on (seed, stage, epoch), so that resuming needs no generator state.
    torch.manual_seed(zlib.crc32(f"{session.recipe.seed} {name} {epoch}".encode()))
    loaders.batches.epoch = epoch
    step.learner.train()
    totals, steps, start = _EpochTotals(rate=stage.learning_rate), len(loaders.batches), time.perf_counter()
    arriving = on_device(session.fabric, loaders.training)
    batch = next(arriving, None)
    while batch is not None:
        totals.rate = learning_rate(stage, (epoch - 1) * steps + totals.steps, stage.epochs * steps)
        set_learning_rate(step.optimiser, totals.rate)
        clips, outcome = len(batch["labels"]), step(batch, epoch)
        batch = next(arriving, None)  # loaded while the device works on this one
        losses, right = outcome.wait()
        checks.check_finite(losses, name, epoch, totals.steps + 1, session.folder)
        totals.add(losses, right, clips)
        pace = totals.clips * session.fabric.world_size / (time.perf_counter() - start)
        yield StepDone(name, epoch, totals.steps, losses, pace)
    totals.seconds = time.perf_counter() - start
    return totals


def _line(
    session: Session,
    name: str,
    epoch: int,
    learner: LabelLearner,
    totals: _EpochTotals,
    validation: Scores | None,
    spread: Spread | None,
) -> MetricsLine:
    """Figures of an epoch, averaged over all processes."""
    fabric = session.fabric
    means = (value / totals.steps for value in totals.losses.values())
    accuracy, *losses = averaged(fabric, totals.right / totals.clips, *means)
    return MetricsLine(
        stage=name,
        epoch=epoch,
        losses=dict(zip(totals.losses, losses, strict=True)),
        train_accuracy=accuracy if learner.answers else None,
        learning_rate=totals.rate,
        seconds=round(totals.seconds, 3),
        clips_per_second=round(totals.clips * fabric.world_size / totals.seconds, 2),
        validation=validation,
        **_measured(spread),
    )


def _measured(spread: Spread | None) -> dict[str, Any]:
    """Fields for the spread of the embeddings, if it was measured."""
    return {} if spread is None else {"spread": spread}


def _restored(session: Session, name: str, step: Step) -> _Progress:
    """Restore progress, learner and optimiser if an interrupted run was in this stage."""
    saved = session.state
    if saved is None or saved["stage"] != name:
        return _Progress()
    try:
        step.learner.load_state_dict(saved["learner"])
        step.optimiser.load_state_dict(saved["optimiser"])
    except (RuntimeError, KeyError, ValueError, TypeError) as error:
        raise run.damaged(
            session.folder / rundir.STATE, f"its content does not match this run: {reason(error)}"
        ) from error
    spread = Spread(**saved["spread"]) if saved.get("spread") else None
    return _Progress(saved["epoch"], saved["seconds"], saved["best"], spread, saved.get("collapsed", 0))


def _save(session: Session, name: str, step: Step, progress: _Progress) -> None:
    """Save everything that is needed to resume after this epoch."""
    state = {
        "data_fingerprint": session.material.fingerprint,
        "recipe_fingerprint": session.recipe.fingerprint(),
        "threads": torch.get_num_threads(),
        "stage": name,
        "epoch": progress.epoch,
        "learner": step.learner.state_dict(),
        "optimiser": step.optimiser.state_dict(),
        "best": progress.best,
        "seconds": progress.seconds,
        "spread": None if progress.spread is None else progress.spread.model_dump(),
        "collapsed": progress.collapsed,
        "report": {stage: kept.model_dump() for stage, kept in session.selections.items()},
    }
    run.save_state(session.folder, state)
