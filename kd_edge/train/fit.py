"""The loop of a stage: steps and epochs, what is kept after each epoch, and how an interrupted stage goes on."""

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
    """Train one stage, from its beginning or from where an interrupted run had left it.

    Args:
        session: The run.
        name: The stage's.
        stage: How it is trained.
        learner: What is trained; afterwards its model holds the selected weights.
        loaders: The clips.
        teacher: Who is looked at.

    Yields:
        What happens.

    Returns:
        Which weights were selected.
    """
    step = Step(session.fabric, learner, stage, teacher)
    standing = _taken_up(session, name, step)
    yield StageStarted(name, stage.epochs, len(loaders.batches), standing.epoch + 1, loaders.note)
    for epoch in range(standing.epoch + 1, stage.epochs + 1):
        taken = yield from _epoch(session, name, stage, step, loaders, epoch)
        checks.check_weights(learner, name, epoch, session.folder)  # before they are judged or saved
        if (collapsed := standing.measure(learner.spread, epoch)) is not None:
            yield Collapsed(name, epoch, collapsed)
        share_statistics(session.fabric, learner)
        judged = None
        if loaders.validation is not None:
            judged = scores.brief(*scores.predict(learner.model, loaders.validation, session.fabric.device))
            standing.keep_better(learner.model, epoch, judged.accuracy)
        line = _line(session, name, epoch, learner, taken, judged, standing.spread)
        standing.epoch, standing.seconds = epoch, standing.seconds + taken.seconds
        if session.writes:
            rundir.append_metrics(session.folder, line)  # before the state: a resume drops a line too many
            _save(session, name, step, standing)
        yield EpochDone(name, epoch, line)
    return standing.selection(learner.model, is_judged=loaders.validation is not None)


@dataclass
class _Standing:
    """How far a stage is: what an interrupted run takes up again.

    Attributes:
        epoch: Epochs done.
        seconds: Spent in their steps.
        best: Number, accuracy on the validation clips and weights of the best epoch.
        spread: Of the last epoch's embeddings, where a loss looks at features.
        collapsed: The first epoch in which they had collapsed; 0 is none.
    """

    epoch: int = 0
    seconds: float = 0.0
    best: dict[str, Any] = field(default_factory=lambda: {"epoch": 0, "score": -1.0, "model": {}})
    spread: Spread | None = None
    collapsed: int = 0

    def measure(self, meter: SpreadMeter | None, epoch: int) -> Spread | None:
        """Take an epoch's spread of embeddings, and return it if they have collapsed in it for the first time."""
        self.spread = None if meter is None else meter.of_epoch()
        if meter is None or self.spread is None or self.collapsed or not meter.is_collapsed(self.spread):
            return None
        self.collapsed = epoch
        return self.spread

    def keep_better(self, model: nn.Module, epoch: int, score: float) -> None:
        """Keep an epoch's weights, if those of none before were better."""
        if score >= self.best["score"]:  # of equals the later one, trained at a lower rate
            weights = {key: value.detach().clone() for key, value in model.state_dict().items()}
            self.best = {"epoch": epoch, "score": score, "model": weights}

    def selection(self, model: nn.Module, *, is_judged: bool) -> Selection:
        """Which weights are kept, loaded into the model."""
        kept: dict[str, Any] = {"seconds": round(self.seconds, 1), **_measured(self.spread)}
        if self.collapsed:
            kept["collapsed_epoch"] = self.collapsed
        if not is_judged:
            return Selection(selected_epoch=self.epoch, selected_by="last epoch", **kept)
        model.load_state_dict(self.best["model"])
        return Selection(selected_epoch=self.best["epoch"], selected_by="validation accuracy", **kept)


@dataclass
class _Taken:
    """What the steps of an epoch add up to."""

    losses: dict[str, float] = field(default_factory=dict)
    right: int = 0
    clips: int = 0
    steps: int = 0
    seconds: float = 0.0
    rate: float = 0.0

    def add(self, losses: dict[str, float], right: int, clips: int) -> None:
        """Count one step."""
        self.losses = {key: self.losses.get(key, 0.0) + value for key, value in losses.items()}
        self.right, self.clips, self.steps = self.right + right, self.clips + clips, self.steps + 1


def _epoch(
    session: Session, name: str, stage: Training, step: Step, loaders: Loaders, epoch: int
) -> Generator[Event, None, _Taken]:
    """Take the steps of one epoch."""
    # Everything random starts from (seed, stage, epoch), so a resumed run needs no generator's state.
    torch.manual_seed(zlib.crc32(f"{session.recipe.seed} {name} {epoch}".encode()))
    loaders.batches.epoch = epoch
    step.learner.train()
    taken, steps, start = _Taken(rate=stage.learning_rate), len(loaders.batches), time.perf_counter()
    arriving = on_device(session.fabric, loaders.training)
    batch = next(arriving, None)
    while batch is not None:
        taken.rate = learning_rate(stage, (epoch - 1) * steps + taken.steps, stage.epochs * steps)
        set_learning_rate(step.optimiser, taken.rate)
        clips, outcome = len(batch["labels"]), step(batch, epoch)
        batch = next(arriving, None)  # while the device is still at work on this one
        losses, right = outcome.wait()
        checks.check_finite(losses, name, epoch, taken.steps + 1, session.folder)
        taken.add(losses, right, clips)
        pace = taken.clips * session.fabric.world_size / (time.perf_counter() - start)
        yield StepDone(name, epoch, taken.steps, losses, pace)
    taken.seconds = time.perf_counter() - start
    return taken


def _line(
    session: Session,
    name: str,
    epoch: int,
    learner: LabelLearner,
    taken: _Taken,
    judged: Scores | None,
    spread: Spread | None,
) -> MetricsLine:
    """An epoch's figures, over all processes."""
    fabric = session.fabric
    means = (value / taken.steps for value in taken.losses.values())
    accuracy, *losses = averaged(fabric, taken.right / taken.clips, *means)
    return MetricsLine(
        stage=name,
        epoch=epoch,
        losses=dict(zip(taken.losses, losses, strict=True)),
        train_accuracy=accuracy if learner.answers else None,
        learning_rate=taken.rate,
        seconds=round(taken.seconds, 3),
        clips_per_second=round(taken.clips * fabric.world_size / taken.seconds, 2),
        validation=judged,
        **_measured(spread),
    )


def _measured(spread: Spread | None) -> dict[str, Any]:
    """What is written of the embeddings, where they were measured."""
    return {} if spread is None else {"spread": spread}


def _taken_up(session: Session, name: str, step: Step) -> _Standing:
    """Where a stage begins; learner and optimiser as an interrupted run had saved them, if it was in this stage."""
    saved = session.state
    if saved is None or saved["stage"] != name:
        return _Standing()
    try:
        step.learner.load_state_dict(saved["learner"])
        step.optimiser.load_state_dict(saved["optimiser"])
    except (RuntimeError, KeyError, ValueError, TypeError) as error:
        raise run.damaged(session.folder / rundir.STATE, f"what it holds is not this run's: {reason(error)}") from error
    spread = Spread(**saved["spread"]) if saved.get("spread") else None
    return _Standing(saved["epoch"], saved["seconds"], saved["best"], spread, saved.get("collapsed", 0))


def _save(session: Session, name: str, step: Step, standing: _Standing) -> None:
    """Everything an interrupted run needs to go on after this epoch."""
    state = {
        "data_fingerprint": session.material.fingerprint,
        "recipe_fingerprint": session.recipe.fingerprint(),
        "threads": torch.get_num_threads(),
        "stage": name,
        "epoch": standing.epoch,
        "learner": step.learner.state_dict(),
        "optimiser": step.optimiser.state_dict(),
        "best": standing.best,
        "seconds": standing.seconds,
        "spread": None if standing.spread is None else standing.spread.model_dump(),
        "collapsed": standing.collapsed,
        "report": {stage: kept.model_dump() for stage, kept in session.selections.items()},
    }
    run.save_state(session.folder, state)
