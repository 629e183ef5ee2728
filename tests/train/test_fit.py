"""A stage goes on where it was killed, keeps the better weights, and stops at what is no number."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest
import torch

from kd_edge.errors import TrainingError
from kd_edge.rundir import read_metrics
from kd_edge.train import fit
from kd_edge.train.recipe import Recipe
from kd_edge.train.results.run import Run, load_state
from tests.runs import killed, run_all, same, tiny_values, weights
from tests.shared import Trained


def test_kill_minus_nine_then_resume_gives_the_same_weights_bit_for_bit(trained: Trained, tmp_path: Path) -> None:
    """Killed in the first epoch, in the teacher and in the student, with selection by validation and dropout on."""
    values = tiny_values(validation_subjects=["1"])
    whole, folder = trained(values), tmp_path / "killed"
    for resume, at in ((False, ("teacher", 1, 2)), (True, ("teacher", 3, 2)), (True, ("student", 3, 1))):
        assert killed(values, folder, resume, at) == -signal.SIGKILL
        assert not (folder / "summary.json").exists()
    run_all(Recipe.model_validate(values), folder, resume=True)
    assert same(weights(folder), weights(whole))
    timeless = [
        [m.model_dump(exclude={"seconds", "clips_per_second"}) for m in read_metrics(run)] for run in (folder, whole)
    ]
    assert timeless[0] == timeless[1]
    tests = [json.loads((run / "summary.json").read_text())["stages"]["student"]["test"] for run in (folder, whole)]
    assert tests[0] == tests[1]


@pytest.mark.slow
def test_balanced_and_repeated_draws_are_resumed_bit_for_bit(tmp_path: Path) -> None:
    values = tiny_values(teacher=None, losses=[])
    values["student"] |= {"sampler": "balanced", "repeat": 2, "class_weights": {"sit down": 2.0}, "epochs": 2}
    run_all(Recipe.model_validate(values), tmp_path / "whole")
    assert killed(values, tmp_path / "killed", False, ("student", 2, 4)) == -signal.SIGKILL
    run_all(Recipe.model_validate(values), tmp_path / "killed", resume=True)
    assert same(weights(tmp_path / "killed"), weights(tmp_path / "whole"))


def test_validation_chooses_the_epoch_and_calibrates(trained: Trained) -> None:
    run = trained(tiny_values(validation_subjects=["1"]))
    summary = Run.load(run).summary
    student = summary.stages["student"]
    scores = [m.validation.accuracy for m in read_metrics(run) if m.stage == "student"]
    assert student.validation.accuracy == pytest.approx(max(scores))
    assert student.selected_epoch == max(i for i, s in enumerate(scores, 1) if s == max(scores))
    assert summary.temperature != 1.0
    assert summary.calibrated_on == "validation clips"


def test_a_state_that_is_not_the_runs_is_one_line(tiny: Recipe, trained: Trained, tmp_path: Path) -> None:
    folder = shutil.copytree(trained(tiny_values()), tmp_path / "run")
    (folder / "summary.json").unlink()
    state = torch.load(folder / "state.pt", weights_only=True)
    lost = state["learner"].popitem()[0]
    torch.save(state, folder / "state.pt")
    with pytest.raises(TrainingError, match=rf"state.pt is damaged \(its content does not match this run: .*{lost}"):
        run_all(tiny, folder, resume=True)


@pytest.mark.parametrize("clip_gradient", [None, 20.0])
def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_state(
    clip_gradient: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rate = fit.learning_rate
    monkeypatch.setattr(fit, "learning_rate", lambda stage, step, steps: rate(stage, step, steps) if step < 7 else 1e30)
    values = tiny_values(teacher=None, losses=[])
    values["student"]["clip_gradient"] = clip_gradient
    recipe = Recipe.model_validate(values)
    with pytest.raises(
        TrainingError, match=r"student's loss is not finite in epoch 2, step \d+ \(ce .*\); the state after"
    ) as caught:
        run_all(recipe, tmp_path / "r")
    assert "\n" not in str(caught.value)
    state = load_state(tmp_path / "r", recipe)
    assert state is not None
    assert state["epoch"] == 1
    assert all(v.isfinite().all() for v in state["learner"].values())
    assert not (tmp_path / "r" / "summary.json").exists()
