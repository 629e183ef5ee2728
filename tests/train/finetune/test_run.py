"""Runs that go on from trained weights: what they begin with, what stays, what they note, and that they resume."""

from __future__ import annotations

import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from kd_edge.errors import TrainingError
from kd_edge.export.exporter import export
from kd_edge.export.profile import ExportProfile
from kd_edge.models.saved import SavedStudent
from kd_edge.rundir import SourceNote
from kd_edge.train.events import FineTuned, Finished
from kd_edge.train.finetune.differences import differences
from kd_edge.train.finetune.source import open_source
from kd_edge.train.inputs.gathering import gather_material
from kd_edge.train.inputs.material import Material
from kd_edge.train.networks import begin_student, build_student, student_learner
from kd_edge.train.optim import make_optimiser
from kd_edge.train.recipe import Recipe
from kd_edge.train.rehearsal import rehearse
from kd_edge.train.results.run import Run, load_recipe
from tests.runs import killed, run_all, same, weights
from tests.train.finetune.conftest import alone
from tests.train.test_dense import SIGNALS


def material_of(values: dict[str, Any]) -> Material:
    return gather_material(Recipe.model_validate(values))


def frames_of(material: Material) -> torch.Tensor:
    """Frames of two training clips as evaluation sees them, (2 T, C, S, S)."""
    loader = material.evaluation_loader("student", material.train[:2])
    return next(iter(loader))["inputs"][0].flatten(0, 1)


# ---------------------------------------------------------------------------------------------------- what begins


def test_the_backbone_of_a_new_student_sees_what_that_of_the_run_saw(finished: Path) -> None:
    material = material_of(alone(source=str(finished)))
    frames, theirs = frames_of(material), SavedStudent.load(finished).model
    mine, note = begin_student(material)
    with torch.no_grad():
        assert torch.equal(mine.backbone.eval()(frames), theirs.backbone(frames))
    assert note is not None
    assert (note.taken, note.new, note.ignored, note.head) == (32, 0, {}, "kept")
    assert note.classes_kept == material.dataset.labels
    assert note.differences == ()
    assert same(dict(mine.state_dict()), dict(build_student(material).state_dict())), "the same each time"


def test_that_of_an_artifact_to_rounding_and_it_learns_from_there(finished: Path, exported: Path) -> None:
    material = material_of(alone(source=str(exported)))
    frames, theirs = frames_of(material), SavedStudent.load(finished).model
    mine, note = begin_student(material)
    with torch.no_grad():
        torch.testing.assert_close(mine.backbone.eval()(frames), theirs.backbone(frames), atol=1e-4, rtol=1e-4)
    assert note is not None
    assert (note.kind, note.taken, note.new) == ("artifact", 32, 0)
    norm = mine.backbone.get_submodule("layer2.1")
    assert norm.get_buffer("running_mean").abs().max() > 0.01, "found again on training clips"
    assert same(dict(mine.state_dict()), dict(build_student(material).state_dict())), "the same each time"


def test_what_follows_the_student_is_the_same_random_numbers_whatever_the_source(
    finished: Path, exported: Path
) -> None:
    drawn = []
    for source in (None, str(finished), str(exported)):
        begin_student(material_of(alone(source=source)))
        drawn.append(torch.rand(3))
    assert all(torch.equal(each, drawn[0]) for each in drawn)


def test_head_rate_doubles_the_first_step_of_what_is_new_exactly(finished: Path) -> None:
    """From weights of 0 and with gradients of one value a step is -rate * gradient, without rounding."""
    steps = {}
    for rate in (1.0, 2.0):
        values = alone(source=str(finished), head_rate=rate, optimiser="sgd", weight_decay=0.0, learning_rate=0.125)
        values["student"]["model"] = values["student"]["model"] | {"hidden": 12}  # another head: it begins anew
        learner = student_learner(material_of(values), None)
        optimiser = make_optimiser(learner, Recipe.model_validate(values).student)
        with torch.no_grad():
            for parameter in learner.parameters():
                parameter.zero_()
                parameter.grad = torch.full_like(parameter, 0.3)
        optimiser.step()
        steps[rate] = {name: p.detach().clone() for name, p in learner.model.named_parameters()}
    for name, once in steps[1.0].items():
        factor = 2.0 if name.startswith("head.") else 1.0
        assert torch.equal(steps[2.0][name], factor * once), name
        assert torch.equal(once, torch.full_like(once, 0.3) * -0.125)


def test_of_a_head_that_is_kept_the_classifier_alone_is_faster(finished: Path) -> None:
    values = alone(source=str(finished), head_rate=5.0, optimiser="sgd", learning_rate=0.1)
    learner = student_learner(material_of(values), None)
    names = {id(p): name for name, p in learner.named_parameters()}
    optimiser = make_optimiser(learner, Recipe.model_validate(values).student)
    fast = {names[id(p)] for group in optimiser.param_groups if group["rate"] == 5.0 for p in group["params"]}
    assert fast == {"model.head.classifier.weight", "model.head.classifier.bias"}


# ---------------------------------------------------------------------------------------------------- whole runs


def test_a_run_notes_what_it_is_of_and_what_is_frozen_stays_bit_for_bit(finished: Path, tmp_path: Path) -> None:
    values = alone(source=str(finished), freeze=["layer1", "layer2"], epochs=1, head_rate=3.0)
    events = run_all(Recipe.model_validate(values), tmp_path / "run")
    told = [event.note for event in events if isinstance(event, FineTuned)]
    assert isinstance(events[-1], Finished)
    before, after = weights(finished), weights(tmp_path / "run")
    changed = {key for key, value in after.items() if not torch.equal(value, before[key])}
    assert not any(key.startswith(("backbone.layer1.", "backbone.layer2.")) for key in changed)
    for layer in ("layer3", "layer4"):
        for name in ("0.weight", "1.weight", "1.bias", "1.running_mean", "1.running_var"):
            assert f"backbone.{layer}.{name}" in changed
    assert "head.norm1.running_mean" in changed
    run = Run.load(tmp_path / "run")
    assert [run.summary.source] == told
    assert told[0].frozen == ("layer1", "layer2")
    assert told[0].frozen_parameters == 8 * 9 + 16 + 12 * 8 * 9 + 24
    assert told[0].head_rate == 3.0
    assert run.recipe.student.source == str(finished)
    assert run.recipe.student.source_sha256 == told[0].sha256
    assert Run.load(finished).summary.source is None


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["run", "artifact"])
def test_a_killed_run_resumes_bit_for_bit(kind: str, finished: Path, exported: Path, tmp_path: Path) -> None:
    source = finished if kind == "run" else exported
    values = alone(source=str(source), freeze=["layer1"], epochs=2)
    run_all(Recipe.model_validate(values), tmp_path / "whole")
    assert killed(values, tmp_path / "killed", False, ("student", 2, 2)) == -signal.SIGKILL
    run_all(load_recipe(tmp_path / "killed"), tmp_path / "killed", resume=True)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "killed"))


@pytest.mark.slow
def test_a_run_resumes_from_no_other_source(finished: Path, tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    shutil.copy(finished / "student.safetensors", file)
    values = alone(source=str(file), epochs=2)
    assert killed(values, tmp_path / "run", False, ("student", 2, 1)) == -signal.SIGKILL
    left = sorted(path.name for path in (tmp_path / "run").iterdir())
    state = load_file(file)
    save_file({key: value + 1 for key, value in state.items()}, file)
    with pytest.raises(TrainingError, match="is not what this run is fine-tuned from"):
        run_all(load_recipe(tmp_path / "run"), tmp_path / "run", resume=True)
    file.unlink()
    with pytest.raises(TrainingError, match=r"cannot be read \(No such file or directory\).*Fix: put it back"):
        run_all(load_recipe(tmp_path / "run"), tmp_path / "run", resume=True)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == left
    with pytest.raises(TrainingError, match="the recipe differs"):
        run_all(Recipe.model_validate(alone(source=str(finished), epochs=2)), tmp_path / "run", resume=True)


def test_a_source_that_cannot_be_used_leaves_no_run(finished: Path, tmp_path: Path) -> None:
    values = alone(source=str(tmp_path / "gone.pt"))
    with pytest.raises(TrainingError, match=r"gone\.pt cannot be read"):
        run_all(Recipe.model_validate(values), tmp_path / "run")
    values = alone(source=str(finished))
    values["student"]["model"] = {"backbone": "resnet10_thin", "temporal": "tsn"}
    with pytest.raises(TrainingError, match="nothing is taken from"):
        run_all(Recipe.model_validate(values), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_every_kind_of_stage_begins_with_the_source_and_keeps_what_is_frozen(finished: Path, tmp_path: Path) -> None:
    stages = [
        {"kind": "dense", "targets": [SIGNALS], "epochs": 1, "frames": 3, "batch_size": 6, "keep": False},
        {"kind": "labels"},
        {"kind": "head", "epochs": 1, "passes": 1, "batch_size": 6, "start": "trained"},
    ]
    values = alone(source=str(finished), freeze=["layer1"], epochs=1) | {"stages": stages}
    run_all(Recipe.model_validate(values), tmp_path / "run")
    before, after = weights(finished), weights(tmp_path / "run")
    frozen = [key for key in before if key.startswith("backbone.layer1.")]
    assert len(frozen) == 6
    assert all(torch.equal(after[key], before[key]) for key in frozen)
    assert not torch.equal(after["backbone.layer2.0.weight"], before["backbone.layer2.0.weight"])
    assert not torch.equal(after["head.convolution1.weight"], before["head.convolution1.weight"])


def test_a_frozen_backbone_under_a_new_head_stage(finished: Path, tmp_path: Path) -> None:
    stages = [{"kind": "labels"}, {"kind": "head", "epochs": 1, "passes": 1, "batch_size": 6}]
    values = alone(source=str(finished), freeze="backbone", epochs=1) | {"stages": stages}
    events = run_all(Recipe.model_validate(values), tmp_path / "run")
    (note,) = [event.note for event in events if isinstance(event, FineTuned)]
    assert note.head == "kept; the head stage begins with a new one (start = 'trained' keeps it)"
    before, after = weights(finished), weights(tmp_path / "run")
    assert all(torch.equal(after[key], before[key]) for key in before if key.startswith("backbone."))


@pytest.mark.slow
def test_a_fine_tuned_student_is_exported_as_a_stream_like_any_other(finished: Path, tmp_path: Path) -> None:
    values = alone(source=str(finished), freeze="backbone", epochs=1)
    run_all(Recipe.model_validate(values), tmp_path / "run")
    made = export(tmp_path / "run", ExportProfile(name="tiny", health=False), tmp_path / "student.onnx")
    assert made.artifact.manifest.graph == "step"
    assert made.report.parity is not None
    assert made.report.parity.max_abs_error < 1e-4


def test_a_dry_run_says_what_would_be_taken_and_writes_nothing(finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    seen = rehearse(Recipe.model_validate(alone(source=str(finished))))
    assert seen.source is not None
    assert seen.source.taken == 32
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before
    assert rehearse(Recipe.model_validate(alone())).source is None


# ------------------------------------------------------------------------------------------ what is told and asked


def test_settings_that_differ_are_named_with_both_values(finished: Path) -> None:
    values = alone(source=str(finished))
    values["student"]["preprocess"] |= {"mean": [0.25], "input_px": 28, "motion_offsets_ms": [0, 70]}
    values |= {"segments": 6, "clip_seconds": 1.5}
    material = material_of(values)
    source = open_source(material.recipe.student)
    assert source is not None
    assert source.facts is not None
    assert differences(source.facts, material) == (
        "preprocess.input_px: 32 there, 28 here",
        "preprocess.motion_offsets_ms: [0] there, [0, 70] here",
        "preprocess.mean: [0.5] there, [0.25] here",
        "segments: 4 there, 6 here",
        f"clip_seconds: {source.facts.clip_seconds} there, 1.5 here",
    )
    other = alone(source=str(finished), modality="rgb")
    other["student"]["preprocess"] |= {"channels": 3}
    lines = differences(source.facts, material_of(other))
    assert lines == ("modality: nir there, rgb here", "preprocess.channels: 1 there, 3 here")
    assert differences(replace(source.facts, temporal="tsm"), material_of(alone())) == (
        "temporal: tsm there, tconv here",
    )
    assert "does not say how its pictures were made" in differences(None, material)[0]
    assert np.isfinite(source.facts.clip_seconds)


def test_another_split_of_the_same_data_is_named(finished: Path) -> None:
    material = material_of(alone(source=str(finished)))
    source = open_source(material.recipe.student)
    assert source is not None
    assert source.facts is not None
    facts = source.facts.__class__(
        **{name: getattr(source.facts, name) for name in source.facts.__slots__} | {"split": "trials"}
    )
    assert differences(facts, material) == (
        "split: 'trials' there, 'subjects' here, of one kind of data set: clips that this run tests may have trained "
        "the source",
    )


def test_the_report_is_short() -> None:
    note = SourceNote(
        source="runs/a",
        kind="artifact",
        precision="fp16",
        sha256="0123456789abcdef",
        taken=70,
        new=2,
        ignored={"of the head": 4},
        channels=(3, 1),
        head="kept",
        classes_kept=("sit",),
        classes_new=("wave", "clap"),
        classes_left=("jump",),
        frozen=("layer1",),
        frozen_parameters=23328,
        head_rate=5.0,
        differences=("segments: 8 there, 6 here",),
    )
    assert note.lines == [
        "fine-tuned from runs/a (artifact, rounded to fp16, SHA-256 0123456789ab): 70 tensors taken, 2 new, 4 ignored",
        "backbone: taken, its first convolution from 3 to 1 channels; frozen: layer1 (23,328 parameters)",
        "temporal head: kept",
        "classes: 1 of 3 kept by name; new: wave, clap; left out: jump",
        "ignored: 4 of the head",
        "learning rate of classifier and new parts: 5 times the rest (student.head_rate)",
        "differs: segments: 8 there, 6 here",
    ]


def test_recipes_of_before_keep_their_fingerprints_and_a_hash_is_none_of_the_settings(finished: Path) -> None:
    plain = Recipe.model_validate(alone())
    dumped = plain.model_dump(mode="json")["student"]
    assert (dumped["source"], dumped["freeze"]) == (None, None)
    known = Recipe.model_validate(alone(source=str(finished), source_sha256="0" * 64))
    assert known.fingerprint() == Recipe.model_validate(alone(source=str(finished))).fingerprint()
    assert len({r.fingerprint() for r in (plain, known, Recipe.model_validate(alone(source="bundled")))}) == 3
    frozen = Recipe.model_validate(alone(source=str(finished), freeze="backbone"))
    assert frozen.fingerprint() != known.fingerprint()


@pytest.mark.parametrize(
    ("student", "stages", "said"),
    [
        ({"freeze": "backbone"}, None, "freeze needs pretrained weights"),
        ({"freeze": 3, "source": "a"}, None, "freeze"),
        ({"freeze": [], "source": "a"}, None, "freeze"),
        ({"source": "a", "initial_weights": "b"}, None, "keep one"),
        ({"source": ""}, None, "at least 1 character"),
        ({"source_sha256": "0" * 64}, None, "source_sha256 without a source"),
        ({"source": "a", "source_sha256": "xyz"}, None, "pattern"),
        ({"source": "a", "freeze": "backbone"}, ["dense", "labels"], "student.freeze = 'backbone' freezes it"),
    ],
)
def test_settings_that_contradict_each_other(student: dict[str, Any], stages: list[str] | None, said: str) -> None:
    values = alone(**student)
    if stages is not None:
        values["stages"] = [{"kind": kind} | ({"targets": [SIGNALS]} if kind == "dense" else {}) for kind in stages]
    with pytest.raises(ValidationError, match=said):
        Recipe.model_validate(values)
