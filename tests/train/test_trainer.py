from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from kd_edge import recipes
from kd_edge.errors import ConfigError, TrainingError
from kd_edge.models.saved import SavedStudent
from kd_edge.rundir import read_metrics
from kd_edge.train import step, trainer
from kd_edge.train.events import EpochDone, Finished, Prepared, StageStarted, StepDone
from kd_edge.train.inputs import clips
from kd_edge.train.inputs.gathering import gather_material
from kd_edge.train.recipe import Recipe
from kd_edge.train.results.run import Run, load_recipe, load_state
from kd_edge.train.teachers import images
from kd_edge.train.trainer import train
from tests.runs import killed, on_a_full_disk, run_all, same, tiny_values, weights
from tests.shared import Trained


@pytest.fixture
def finished(trained: Trained) -> Path:
    """The complete run of the tiny recipe."""
    return trained(tiny_values())


@pytest.mark.slow
@pytest.mark.usefixtures("drawn")
def test_events_tell_the_story_in_order_and_the_same_recipe_gives_the_same_weights(
    tiny: Recipe, finished: Path, tmp_path: Path
) -> None:
    threads = torch.get_num_threads()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        events = run_all(tiny, tmp_path / "again")
        assert torch.is_deterministic_algorithms_warn_only_enabled(), "the caller's mode is back"
    finally:
        torch.use_deterministic_algorithms(False)
    assert isinstance(events[0], Prepared)
    assert isinstance(events[-1], Finished)
    started = [e for e in events if isinstance(e, StageStarted)]
    assert [(e.stage, e.epochs, e.steps_per_epoch) for e in started] == [("teacher", 3, 5), ("student", 3, 5)]
    steps = [(e.stage, e.epoch, e.step) for e in events if isinstance(e, StepDone)]
    assert steps == [(s, e, k) for s in ("teacher", "student") for e in (1, 2, 3) for k in (1, 2, 3, 4, 5)]
    last = [e for e in events if isinstance(e, EpochDone)][-1]
    assert set(last.metrics.losses) == {"ce", "dkd", "mgcam", "soft_target", "total"}
    assert torch.get_num_threads() == threads
    assert same(weights(finished), weights(tmp_path / "again"))
    pictures = {path.name: cv2.imread(str(path)) for path in (tmp_path / "again" / "plots").iterdir()}
    assert pictures.keys() == {"confusion-student.png", "confusion-teacher.png", "curves.png"}
    assert all(picture is not None and picture.std() > 10 for picture in pictures.values())


def test_networks_are_built_once_and_batches_fetched_behind_the_step(
    tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    def spied(module: Any, name: str, what: str) -> None:
        function = getattr(module, name)

        def spy(*given: Any, **named: Any) -> Any:
            told.append(what)
            return function(*given, **named)

        monkeypatch.setattr(module, name, spy)

    spied(images, "build_model", "build")
    spied(step.Step, "__call__", "step")
    spied(step.Outcome, "wait", "wait")
    spied(clips, "collate", "fetch")
    once = {name: stage.model_copy(update={"epochs": 1}) for name, stage in tiny.networks.items()}
    list(train(tiny.model_copy(update=once), tmp_path / "run", accelerator="cpu"))
    epoch = ["fetch", *["step", "fetch", "wait"] * 4, "step", "wait"]
    assert told == ["build", "build", *epoch, *epoch, "fetch", "fetch"], "the last two are the test clips of both"


def test_the_run_directory_is_complete_and_describes_itself(finished: Path) -> None:
    files = {str(p.relative_to(finished)) for p in finished.rglob("*") if p.is_file()}
    assert files == {
        "metrics.jsonl",
        "recipe.toml",
        "state.pt",
        "student.safetensors",
        "summary.json",
        "teachers/teacher.safetensors",
    }
    summary = Run.load(finished).summary
    assert summary.protocol.train_samples == 30
    assert summary.protocol.test_samples == 10
    student = summary.stages["student"]
    assert (student.epochs, student.selected_epoch, student.selected_by) == (3, 3, "last epoch")
    assert student.validation is None
    assert (summary.temperature, summary.unknown_threshold) == (1.0, 0.0)
    assert "no validation_subjects" in summary.calibrated_on
    assert student.test is not None
    confusion = np.array(student.test.confusion)
    assert confusion.sum() == 10
    assert student.test.accuracy == pytest.approx(np.trace(confusion) / 10)
    assert summary.threads == 1
    assert len(read_metrics(finished)) == 6


def test_the_summary_rebuilds_the_student_and_its_test_accuracy(finished: Path) -> None:
    saved = SavedStudent.load(finished)
    material = gather_material(Run.load(finished).recipe)
    right = 0
    for sample in material.test:
        clip = material.dataset.open(sample, saved.spec.modality)
        with torch.no_grad():
            logits = saved.model(torch.from_numpy(saved.network_input(clip))[None])
        right += int(logits.argmax()) == sample.label
    assert right / 10 == pytest.approx(saved.summary.stages["student"].test.accuracy)


@pytest.mark.slow
def test_another_seed_gives_other_weights(finished: Path, tmp_path: Path) -> None:
    run_all(Recipe.model_validate(tiny_values(seed=1)), tmp_path / "other")
    assert not same(weights(finished), weights(tmp_path / "other"))


def test_training_learns(tmp_path: Path) -> None:
    values = tiny_values(teacher=None, losses=[])
    values["student"] |= {"epochs": 40, "learning_rate": 0.01, "augment": {"crop_scale": [0.9, 0.9], "shift": 0.0}}
    values["student"]["model"] = {"backbone": "tiny", "dropout": 0.0}
    lines = [e.metrics for e in run_all(Recipe.model_validate(values), tmp_path / "r") if isinstance(e, EpochDone)]
    assert lines[-1].losses["ce"] < 0.7 * lines[0].losses["ce"]


def test_class_weights_of_another_data_sets_classes_stop_a_run_before_it_begins(tmp_path: Path) -> None:
    values = tiny_values(teacher=None, losses=[])
    values["student"] |= {"class_weights": {"sit dow": 2.0}}
    with pytest.raises(
        ConfigError, match=r"student.class_weights names 'sit dow', which is not a class .did you mean 'sit down'"
    ):
        run_all(Recipe.model_validate(values), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def residual(**changes: object) -> dict[str, object]:
    """A recipe with a residual teacher: its convolutions give other last bits in another memory format."""
    values = tiny_values(**changes)
    values["teacher"]["model"] = {"backbone": "resnet10_thin", "temporal": "tsn"}
    for stage in ("student", "teacher"):
        values[stage]["preprocess"] |= {"resize_px": 52, "input_px": 48}
        values[stage]["epochs"] = 2
    return values


@pytest.mark.slow
def test_a_loaded_teacher_teaches_as_the_one_that_was_just_trained(tmp_path: Path) -> None:
    recipe = Recipe.model_validate(residual())
    run_all(recipe, tmp_path / "whole")
    assert killed(residual(), tmp_path / "killed", False, ("student", 2, 1)) == -signal.SIGKILL
    run_all(recipe, tmp_path / "killed", resume=True)
    assert same(weights(tmp_path / "killed"), weights(tmp_path / "whole"))
    list(train(recipe, tmp_path / "shared", accelerator="cpu", teacher_runs=[tmp_path / "whole"]))
    assert same(weights(tmp_path / "shared"), weights(tmp_path / "whole"))


def test_a_loss_that_does_not_fit_stops_before_the_teacher_is_trained(tmp_path: Path) -> None:
    for loss in (
        {"kind": "fitnet", "student_layers": ["backbone.layr1"]},
        {"kind": "at", "student_layers": ["backbone.layer1"]},
    ):
        seen = []
        with pytest.raises(TrainingError):
            seen.extend(
                train(Recipe.model_validate(tiny_values(losses=[loss])), tmp_path / loss["kind"], accelerator="cpu")
            )
        assert not any(isinstance(event, StageStarted) for event in seen)


def test_resume_refuses_a_complete_run_and_another_recipe(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="is complete"):
        run_all(Recipe.model_validate(tiny_values()), finished, resume=True)
    next(iter(train(Recipe.model_validate(tiny_values()), tmp_path / "r", accelerator="cpu")))
    with pytest.raises(TrainingError, match="recipe differs"):
        run_all(Recipe.model_validate(tiny_values(seed=3)), tmp_path / "r", resume=True)
    with pytest.raises(TrainingError, match="contains a run already"):
        run_all(Recipe.model_validate(tiny_values()), tmp_path / "r")


def test_resume_refuses_a_recipe_that_was_changed_after_an_epoch(finished: Path, tmp_path: Path) -> None:
    """Its first epochs were of another one."""
    folder = shutil.copytree(finished, tmp_path / "run")
    (folder / "summary.json").unlink()
    state = torch.load(folder / "state.pt", weights_only=True)
    assert state["recipe_fingerprint"] == load_recipe(folder).fingerprint()
    changed = Recipe.model_validate(tiny_values(losses=[{"kind": "dkd", "weight": 5.0}]))
    (folder / "recipe.toml").write_text(recipes.to_toml(changed))
    with pytest.raises(TrainingError, match="was changed after the run's last epoch"):
        load_state(folder, changed)
    del state["recipe_fingerprint"]  # as runs of before have it
    torch.save(state, folder / "state.pt")
    assert load_state(folder, changed) is not None


@pytest.mark.slow
def test_a_trained_teacher_is_taken_and_not_trained(finished: Path, tmp_path: Path) -> None:
    values = tiny_values()
    values["teacher"]["weights"] = str(finished)
    events = run_all(Recipe.model_validate(values), tmp_path / "r")
    assert [e.stage for e in events if isinstance(e, StageStarted)] == ["student"]
    assert same(weights(finished), weights(tmp_path / "r"))
    save_file({"head.bias": torch.zeros(3)}, tmp_path / "foreign.safetensors")
    values["teacher"]["weights"] = str(tmp_path / "foreign.safetensors")
    with pytest.raises(TrainingError, match="do not fit the teacher"):
        run_all(Recipe.model_validate(values), tmp_path / "r2")


def test_an_unwritable_folder_and_a_full_disk_are_one_line(tmp_path: Path, tiny: Recipe) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match="cannot be written"):
        run_all(tiny, tmp_path / "file" / "run")
    code, errors = on_a_full_disk(tiny_values(), tmp_path / "full", 20_000)
    assert code == 1
    assert errors.splitlines()[-1].startswith("kd_edge.errors.TrainingError")
    assert "cannot be written (File too large)" in errors.splitlines()[-1]
    assert sorted(p.name for p in (tmp_path / "full").iterdir()) == ["metrics.jsonl", "recipe.toml"]


@pytest.mark.slow
def test_bfloat16_trains_with_finite_float32_losses(tmp_path: Path) -> None:
    lines = [
        e.metrics
        for e in run_all(Recipe.model_validate(tiny_values(precision="bf16-mixed")), tmp_path / "r")
        if isinstance(e, EpochDone)
    ]
    assert all(np.isfinite(list(m.losses.values())).all() for m in lines)
    assert all(v.dtype in (torch.float32, torch.int64) for v in weights(tmp_path / "r").values())


@pytest.mark.slow
def test_a_motion_stack_of_colour_goes_on_and_teaches(tmp_path: Path) -> None:
    """Its run as a student's start, and as a teacher, given as a folder; nothing is converted."""
    alone = tiny_values(teacher=None, losses=[], segments=4)
    alone["student"] |= {"modality": "rgb", "epochs": 1}
    alone["student"]["preprocess"] = {"channels": 3, "resize_px": 36, "input_px": 32, "motion_offsets_ms": [0, 70, 140]}
    run_all(Recipe.model_validate(alone), tmp_path / "first")
    further = json.loads(json.dumps(alone))
    further["student"] |= {"initial_weights": str(tmp_path / "first"), "learning_rate": 1e-9}
    run_all(Recipe.model_validate(further), tmp_path / "second")
    before, after = (load_file(tmp_path / name / "student.safetensors") for name in ("first", "second"))
    assert torch.allclose(before["backbone.layer1.0.weight"], after["backbone.layer1.0.weight"], atol=1e-6)
    taught = tiny_values(losses=[{"kind": "dkd"}])
    taught["teacher"] |= alone["student"] | {"weights": str(tmp_path / "first")}
    taught["student"] |= {"epochs": 1}
    run_all(Recipe.model_validate(taught), tmp_path / "third")
    assert Run.load(tmp_path / "third").summary.stages["teacher"].selected_by == f"weights {tmp_path / 'first'}"


@pytest.mark.parametrize("key", ["teacher.weights", "student.initial_weights", "teacher.initial_weights"])
def test_weights_that_cannot_be_read_stop_a_run_before_anything_is_decoded(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "gather_material", lambda *_: pytest.fail("recordings were read"))
    (tmp_path / "student.onnx").write_bytes(b"\x08\x07graph")
    values = tiny_values()
    stage, name = key.split(".")
    for given, why in (
        ("student.onnx", "it is an artifact"),
        ("gone.pt", "No such file"),
        (".", "it is a folder with"),
    ):
        values[stage][name] = str(tmp_path / given)
        with pytest.raises(TrainingError, match=why) as caught:
            run_all(Recipe.model_validate(values), tmp_path / "run")
        assert key in caught.value.fix
    assert not (tmp_path / "run").exists()
