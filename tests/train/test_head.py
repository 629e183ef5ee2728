"""The head stage: stored features are the backbone's, windows over them lie as those over frames, runs go on."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from kd_edge.data import Sample
from kd_edge.errors import TrainingError
from kd_edge.models import build_model
from kd_edge.rundir import read_metrics
from kd_edge.train import head
from kd_edge.train.head import HeadLearner, feature_loaders
from kd_edge.train.inputs import features
from kd_edge.train.inputs.features import FeatureDataset, StoredFeatures, encode, store_features
from kd_edge.train.inputs.gathering import gather_material
from kd_edge.train.inputs.material import Material
from kd_edge.train.inputs.windows import Windows
from kd_edge.train.recipe import HeadStage, Recipe
from kd_edge.train.results.run import Run
from tests.runs import killed, run_all, same, tiny_values, weights

CPU = torch.device("cpu")


def two_stages(**changes: object) -> dict[str, object]:
    """A student alone: 4 segments end to end, then a head over 6 of them."""
    values = tiny_values(teacher=None, losses=[], segments=6, validation_subjects=["1"], **changes)
    values["student"] |= {"epochs": 2, "model": {"backbone": "tiny", "temporal": "tcn", "hidden": 8}}
    stage = {"kind": "head", "epochs": 3, "batch_size": 6, "passes": 2, "mixup": 0.2}
    return values | {"stages": [{"kind": "labels", "segments": 4}, stage]}


@pytest.fixture(scope="module")
def material(cache_folder: Path) -> Material:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KD_EDGE_CACHE", str(cache_folder))
        return gather_material(Recipe.model_validate(two_stages()))


def stored_numbers(counts: tuple[int, ...], passes: int = 1) -> StoredFeatures:
    """Features that tell which clip, pass and frame they are of: clip, pass, frame."""
    stored = StoredFeatures.__new__(StoredFeatures)
    stored.samples = tuple(Sample(f"a{k}", "1", "", "1", k % 3) for k in range(len(counts)))
    stored.stamps_ns = [np.arange(n, dtype=np.int64) * 100_000_000 for n in counts]
    stored.values = [
        np.array([[[k, r, i] for i in range(n)] for r in range(passes)], dtype=np.float32) for k, n in enumerate(counts)
    ]
    stored.labels = [[sample.label] * passes for sample in stored.samples]
    return stored


def test_stored_features_are_what_the_backbone_makes_of_every_frame(material: Material) -> None:
    model = build_model(material.recipe.student.model, 1, 3, 6).eval()
    some = material.having("student", material.validation)[:2]
    clips = material.student_clips(some)
    stored = store_features(model.backbone, clips, model.backbone.feature_size, 1, CPU)
    every = np.arange(len(stored.stamps_ns[0]))
    whole = clips.still(0, every)
    assert len(whole) == len(material.clips["student"].clip(some[0].id).stamps_ns) == stored.values[0].shape[1]
    with torch.inference_mode():
        expected = model.backbone(torch.from_numpy(whole)).numpy()
    np.testing.assert_allclose(stored.values[0][0], expected, atol=1e-6)
    assert stored.labels[0][0] == some[0].label
    window, _ = FeatureDataset(stored, Windows(6), None)[0, 0]
    centre, _ = clips[0, 0]  # what evaluation shows the whole network
    np.testing.assert_allclose(window[0], encode(model.backbone, centre[0], CPU), atol=1e-6)


def test_each_pass_changes_a_clip_in_its_own_way_and_all_its_frames_alike(material: Material) -> None:
    recipe = material.recipe
    augment = recipe.student.augment.model_copy(update={"gain": 0.5, "crop_scale": (1.0, 1.0), "shift": 0.0})
    changed = Recipe.model_validate(two_stages())
    student = changed.student.model_copy(update={"augment": augment})
    changed_material = Material(**{**material.__dict__, "recipe": changed.model_copy(update={"student": student})})
    clips = changed_material.student_clips(material.train, changing=True)
    every = np.arange(len(clips.pairs.clips(0)[0].stamps_ns))
    first, second, again = (clips.changed(0, every, draw)[0] for draw in (0, 1, 0))
    assert np.array_equal(first, again)
    assert not np.allclose(first, second)
    gains = second.std(axis=(1, 2, 3)) / first.std(axis=(1, 2, 3))
    assert gains.std() < 0.2 * gains.mean()


def test_windows_over_features_are_of_one_pass_and_may_begin_in_another_clip() -> None:
    stored = stored_numbers((12, 8, 9), passes=3)
    inside = FeatureDataset(stored, Windows(4), seed=0)
    taken = set()
    for epoch in range(1, 60):
        (window,), label = inside[0, epoch]
        assert label == 0
        assert set(window[:, 0]) == {0.0}
        assert len(set(window[:, 1])) == 1
        assert (np.diff(window[:, 2]) > 0).all()
        taken.add(window[0, 1])
    assert taken == {0.0, 1.0, 2.0}
    assert np.array_equal(inside[0, 5][0][0], inside[0, 5][0][0])
    assert any(not np.array_equal(inside[0, 5][0][0], inside[0, 5, k][0][0]) for k in range(1, 5))  # drawn again
    stream = FeatureDataset(stored, Windows(4, 1.0, loop=True, before_share=1.0, at_end=True), seed=0)
    others = set()
    for epoch in range(1, 200):
        (window,), _ = stream[0, epoch]
        clips, frames = window[:, 0], window[:, 2]
        assert clips[-1] == 0  # it ends where the action does: in the last 15 % of 12 frames
        assert frames[-1] >= 10
        for other in set(clips) - {0.0}:
            of_other = frames[clips == other]
            assert len(set(clips) - {0.0}) == 1
            assert of_other[-1] >= len(stored.stamps_ns[int(other)]) - 4  # the one before came to its end
            others.add(other)
    assert others <= {1.0, 2.0}


def test_mixup_mixes_windows_and_their_losses_by_one_share() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(1), torch.nn.Linear(6, 3))
    inputs, labels = torch.randn(4, 2, 3), torch.tensor([0, 1, 2, 1])
    learner = HeadLearner(model, HeadStage(mixup=0.4, label_smoothing=0.0))
    torch.manual_seed(3)
    losses, _ = learner(inputs, labels)
    torch.manual_seed(3)
    share = torch.distributions.Beta(0.4, 0.4).sample()
    order = torch.randperm(4)
    seen = torch.stack([share * inputs[i] + (1 - share) * inputs[order[i]] for i in range(4)])
    log = model(seen).log_softmax(1)
    expected = -sum(share * log[i, labels[i]] + (1 - share) * log[i, labels[order[i]]] for i in range(4)) / 4
    assert losses["total"].item() == pytest.approx(expected.item(), rel=1e-5)
    plain, _ = HeadLearner(model, HeadStage(label_smoothing=0.0))(inputs, labels)
    assert plain["ce"].item() == pytest.approx(torch.nn.functional.cross_entropy(model(inputs), labels).item())


def test_features_that_do_not_fit_into_memory_are_refused(material: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "LARGEST_BYTES", 10_000)
    model = build_model(material.recipe.student.model, 1, 3, 6)
    with pytest.raises(TrainingError, match=r"2 passes of features of \d+ clips need 0\.\d GB.*lower passes"):
        feature_loaders(material, model, HeadStage(passes=2), CPU)


@pytest.mark.slow
def test_a_killed_head_stage_goes_on_to_the_same_weights_bit_for_bit(tmp_path: Path) -> None:
    values = two_stages(windows="stream")
    recipe = Recipe.model_validate(values)
    run_all(recipe, tmp_path / "whole")
    for resume, at in ((False, ("student", 2, 1)), (True, ("head", 1, 1)), (True, ("head", 3, 1))):
        assert killed(values, tmp_path / "killed", resume, at) == -signal.SIGKILL
    run_all(recipe, tmp_path / "killed", resume=True)
    assert same(weights(tmp_path / "killed"), weights(tmp_path / "whole"))
    summary = Run.load(tmp_path / "whole").summary
    student = summary.stages["student"]
    assert student.head is not None
    scores = [m.validation.accuracy for m in read_metrics(tmp_path / "whole") if m.stage == "head"]
    assert student.validation.accuracy == pytest.approx(max(scores))  # stored features are those of the network
    assert student.head.selected_epoch == max(i for i, s in enumerate(scores, 1) if s == max(scores))
    assert [m.stage for m in read_metrics(tmp_path / "killed")] == ["student"] * 2 + ["head"] * 3
    assert summary.student_model["segments"] == 6


@pytest.mark.slow
def test_the_backbone_stays_and_a_trained_head_goes_on(tmp_path: Path) -> None:
    values = two_stages()
    values["stages"][0]["segments"] = None
    runs = {}
    for start, rate in (("new", 1e-3), ("trained", 1e-9)):
        stages = [values["stages"][0], values["stages"][1] | {"start": start, "learning_rate": rate, "weight_decay": 0}]
        run_all(Recipe.model_validate(values | {"stages": stages}), tmp_path / start)
        runs[start] = weights(tmp_path / start)
    run_all(Recipe.model_validate(values | {"stages": stages[:1]}), tmp_path / "before")
    before = weights(tmp_path / "before")
    for name, value in before.items():
        if name.startswith("backbone."):
            assert all(torch.equal(run[name], value) for run in runs.values()), name
    classifier = "head.classifier.weight"
    torch.testing.assert_close(runs["trained"][classifier], before[classifier], atol=1e-5, rtol=0)
    assert (runs["new"][classifier] - before[classifier]).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages": []}, "at least 1 item"),
        ({"stages": [{"kind": "head"}]}, "stages are head: use each of"),
        ({"stages": [{"kind": "labels"}, {"kind": "labels"}]}, "stages are labels, labels"),
        ({"stages": [{"kind": "labels", "segments": 4}]}, "trained on more in a head stage"),
        ({"stages": [{"kind": "labels", "segments": 7}, {"kind": "head"}]}, "trained on more in a head stage"),
        ({"stages": [{"kind": "labels"}, {"kind": "head", "weights": "x"}]}, "weights is for the teacher"),
        ({"stages": [{"kind": "labels"}, {"kind": "head", "passes": 0}]}, "greater than or equal to 1"),
    ],
)
def test_stages_that_do_not_go_together(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Recipe.model_validate(two_stages() | changes)


def test_a_shifting_backbone_has_no_features_of_single_frames() -> None:
    values = two_stages()
    values["student"]["model"] = {"backbone": "resnet10_thin", "temporal": "tsm_causal"}
    with pytest.raises(ValidationError, match="temporal 'tsm_causal' mixes segments"):
        Recipe.model_validate(values | {"stages": [{"kind": "labels"}, {"kind": "head"}]})


def test_loaders_are_those_of_the_stage(material: Material) -> None:
    stage = material.recipe.head_stage
    assert stage is not None
    model = build_model(material.recipe.student.model, 1, 3, 6)
    loaders = head.feature_loaders(material, model, stage, CPU)
    batch = next(iter(loaders.training))
    assert batch["inputs"][0].shape == (6, 6, model.backbone.feature_size)
    assert loaders.validation is not None
    assert sum(len(b["labels"]) for b in loaders.validation) == len(material.validation)


@pytest.mark.parametrize("temporal", ["tcn", "trn"])
def test_a_teacher_sees_the_moments_of_the_labels_stage(tmp_path: Path, temporal: str) -> None:
    """It teaches no other stage: its head, which may not take any number of moments, is built for those."""
    values = tiny_values() | {key: value for key, value in two_stages().items() if key not in ("teacher", "losses")}
    values["teacher"]["model"] = {"backbone": "tiny", "temporal": temporal, "hidden": 8}
    values["teacher"]["epochs"] = 1
    recipe = Recipe.model_validate(values)
    material = gather_material(recipe)
    loader, _ = material.training_loader(["student", "teacher"], 6)
    student, teacher = next(iter(loader))["inputs"]
    assert (student.shape[:3], teacher.shape[:3]) == ((6, 4, 1), (6, 4, 3))
    for name, segments in (("student", 6), ("teacher", 4)):
        assert next(iter(material.evaluation_loader(name, material.test)))["inputs"][0].shape[1] == segments
    run_all(recipe, tmp_path)
    run = Run.load(tmp_path)
    assert run.summary.student_model["segments"] == 6
    assert {"teacher", "student", "head"} <= {line.stage for line in read_metrics(tmp_path)}
    assert run.summary.stages["teacher"].test_samples > 0


def test_the_moments_of_the_labels_stage_decide_the_teacher() -> None:
    values = tiny_values() | {key: value for key, value in two_stages().items() if key not in ("teacher", "losses")}
    recipe = Recipe.model_validate(values)
    fewer = Recipe.model_validate(values | {"stages": [{"kind": "labels", "segments": 3}, values["stages"][1]]})
    alike = Recipe.model_validate(values | {"segments": 8})
    before = Recipe.model_validate(tiny_values(segments=4, validation_subjects=["1"]))
    assert fewer.teacher_fingerprint() != recipe.teacher_fingerprint() == alike.teacher_fingerprint()
    assert before.teacher_fingerprint() == recipe.teacher_fingerprint()
    assert recipe.clip_shapes == ((4, 1, 32, 32), (4, 3, 32, 32))
