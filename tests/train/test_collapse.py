"""Collapsed embeddings: the figures by hand, runs that must be warned of, and runs that must not."""

from __future__ import annotations

import io
import math
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from kd_edge.cli.progress import TrainingDisplay
from kd_edge.rundir import Spread, read_metrics
from kd_edge.train.collapse import SpreadMeter
from kd_edge.train.events import Collapsed
from kd_edge.train.recipe import Recipe
from kd_edge.train.results.run import Run
from tests.runs import killed, run_all, tiny_values


@pytest.mark.parametrize(
    ("embeddings", "cosine", "dimensions"),
    [
        ([[3, 0], [0, 0.2]], 0, 1),  # two clips lie on a line
        ([[1, 0], [-2, 0], [0, 3], [0, -4]], -1 / 3, 2),  # of six pairs two are opposite, the others across
        ([[1, 0, 0], [0, 1, 0], [0, 0, 1]], 0, 2),  # a triangle
        ([[2, 2], [5, 5], [1, 1]], 1, 0),
        ([[0, 0], [0, 0]], 1, 0),
        ([[1, 0], [0.8, 0.6]], 0.8, 1),
    ],
)
def test_cosine_and_dimensions_by_hand(embeddings: list[list[float]], cosine: float, dimensions: float) -> None:
    whole, parts = SpreadMeter(), SpreadMeter()
    whole.add(torch.tensor(embeddings, dtype=torch.float32), 4)
    for row in embeddings:
        parts.add(torch.tensor([row], dtype=torch.float32), 4)
    for meter in (whole, parts):
        found = meter.of_epoch()
        assert found is not None
        assert found.cosine == pytest.approx(cosine, abs=2e-6)
        assert found.dimensions == pytest.approx(dimensions, abs=2e-3)
        assert meter.of_epoch() is None  # it begins anew


def test_a_single_clip_tells_nothing() -> None:
    meter = SpreadMeter()
    assert meter.of_epoch() is None
    meter.add(torch.ones(1, 3), 4)
    assert meter.of_epoch() is None


@pytest.mark.parametrize(
    ("cosine", "dimensions", "distinct", "expected"),
    [
        (0.99, 5.0, 10, False),
        (0.998, 5.0, 10, False),
        (0.9991, 5.0, 2, True),
        (0.5, 1.01, 10, True),
        (0.5, 1.01, 2, False),  # two classes need one dimension
        (0.5, 1.2, 10, False),
    ],
)
def test_what_counts_as_collapsed(cosine: float, dimensions: float, distinct: int, expected: bool) -> None:
    meter = SpreadMeter()
    meter.add(torch.ones(2, 2), distinct)
    assert meter.is_collapsed(Spread(cosine=cosine, dimensions=dimensions)) == expected


def test_measuring_sends_no_gradient() -> None:
    embeddings = torch.randn(4, 3, requires_grad=True)
    meter = SpreadMeter()
    meter.add(embeddings, 4)
    assert meter._sums is not None
    assert not any(part.requires_grad for part in meter._sums)


def fading(**changes: Any) -> dict[str, Any]:
    """A student whose weights are decayed to nothing, so that all clips look the same to it."""
    values = tiny_values(losses=[{"kind": "fitnet"}, {"kind": "sp"}], validation_subjects=["1"], **changes)
    values["teacher"]["epochs"] = 1
    values["student"] |= {"learning_rate": 1e-6, "weight_decay": 9e5, "schedule": "step", "epochs": 4}
    return values


@pytest.mark.slow
def test_a_run_that_collapses_is_warned_of_once_and_remembers_it(tmp_path: Path) -> None:
    values = fading()
    events = [e for e in run_all(Recipe.model_validate(values), tmp_path / "whole") if isinstance(e, Collapsed)]
    assert len(events) == 1
    (event,) = events
    assert event.stage == "student"
    assert event.spread.cosine > 0.999
    assert f"mean cosine between clips {event.spread.cosine:.5f}" in str(event)
    summary = Run.load(tmp_path / "whole").summary.stages
    assert summary["student"].collapsed_epoch == event.epoch < 4
    assert summary["teacher"].spread is None
    lines = [m for m in read_metrics(tmp_path / "whole") if m.stage == "student"]
    assert all(line.spread is not None for line in lines)
    assert lines[-1].spread == summary["student"].spread
    assert killed(values, tmp_path / "killed", False, ("student", 4, 1)) == -signal.SIGKILL
    again = run_all(Recipe.model_validate(values), tmp_path / "killed", resume=True)
    assert not any(isinstance(e, Collapsed) for e in again)  # it was told
    resumed = Run.load(tmp_path / "killed").summary.stages["student"]
    assert (resumed.collapsed_epoch, resumed.spread) == (event.epoch, summary["student"].spread)


@pytest.mark.slow
def test_a_healthy_run_is_not_warned_of(tmp_path: Path) -> None:
    losses = [{"kind": "fitnet"}, {"kind": "at"}, {"kind": "sp"}, {"kind": "contrastive"}]
    values = tiny_values(losses=losses)
    values["teacher"]["epochs"] = 1
    events = run_all(Recipe.model_validate(values), tmp_path / "run")
    assert not any(isinstance(e, Collapsed) for e in events)
    student = Run.load(tmp_path / "run").summary.stages["student"]
    assert student.collapsed_epoch is None
    assert student.spread is not None
    assert student.spread.cosine < 0.99
    assert student.spread.dimensions > 1.2


def test_losses_on_logits_are_not_looked_after(tmp_path: Path) -> None:
    values = tiny_values(losses=[{"kind": "dkd"}])
    values["teacher"]["epochs"] = values["student"]["epochs"] = 1
    run_all(Recipe.model_validate(values), tmp_path / "run")
    assert Run.load(tmp_path / "run").summary.stages["student"].spread is None
    assert '"spread"' not in (tmp_path / "run" / "metrics.jsonl").read_text()


@pytest.mark.slow
def test_a_dense_stage_that_collapses(tmp_path: Path) -> None:
    values = tiny_values(teacher=None, losses=[])
    targets = [{"kind": "signals", "sensors": ["accelerometer", "gyroscope"]}]
    decay = {"learning_rate": 1e-6, "weight_decay": 9e5, "schedule": "step"}
    dense = {"kind": "dense", "targets": targets, "epochs": 2, "frames": 3, "batch_size": 6, "repeat": 2} | decay
    values["stages"] = [dense, {"kind": "head", "epochs": 1, "passes": 1, "batch_size": 6}]
    events = run_all(Recipe.model_validate(values), tmp_path / "run")
    assert [e.stage for e in events if isinstance(e, Collapsed)] == ["dense"]
    report = Run.load(tmp_path / "run").summary.stages["student"].dense
    assert report is not None
    assert report.collapsed_epoch is not None


def test_the_display_says_so() -> None:
    said = io.StringIO()
    display = TrainingDisplay(Console(file=said, width=200))
    list(display.watch([Collapsed("student", 2, Spread(cosine=0.999991, dimensions=math.pi))]))
    assert "warning: the student's embeddings collapse (student stage, epoch 2)" in said.getvalue()
    assert "0.99999, 3.14 dimensions" in said.getvalue()
