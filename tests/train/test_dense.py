"""The dense stage: what is trained, what stays in the student, and that a killed run goes on."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from kd_edge import recipes
from kd_edge.errors import ConfigError
from kd_edge.models import ModelConfig, build_model
from kd_edge.models.saved import SavedStudent
from kd_edge.rundir import read_metrics
from kd_edge.train.collapse import SpreadMeter
from kd_edge.train.dense import DenseLearner, explained_shares, frame_loaders
from kd_edge.train.inputs.gathering import gather_material
from kd_edge.train.inputs.material import Material
from kd_edge.train.inputs.targets import DenseTargets, Group
from kd_edge.train.recipe import Recipe
from kd_edge.train.results.run import Run
from tests.runs import killed, run_all, same, tiny_values, weights

CPU = torch.device("cpu")
SIGNALS = {"kind": "signals", "sensors": ["accelerometer", "gyroscope"], "smooth_ms": 0}


def dense_values(*, keep: bool = True, **changes: object) -> dict[str, object]:
    """A student alone that regresses two sensors first."""
    values = tiny_values(teacher=None, losses=[], validation_subjects=["1"], **changes)
    stages = [
        {"kind": "dense", "targets": [SIGNALS], "epochs": 2, "frames": 3, "batch_size": 6, "keep": keep},
        {"kind": "labels"},
        {"kind": "head", "epochs": 2, "passes": 1, "batch_size": 6},
    ]
    values["student"]["epochs"] = 2
    return {"stages": stages} | values


@pytest.fixture(scope="module")
def material(cache_folder: Path) -> Material:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KD_EDGE_CACHE", str(cache_folder))
        return gather_material(Recipe.model_validate(dense_values()))


def test_frames_come_with_their_own_targets(material: Material) -> None:
    recipe = material.recipe
    assert recipe.dense_stage is not None
    loaders = frame_loaders(material, recipe.dense_stage)
    loaders.batches.epoch = 1
    batch = next(iter(loaders.training))
    assert batch["inputs"][0].shape == (6, 3, 1, 32, 32)
    assert (batch["labels"].shape, batch["labels"].dtype) == ((6, 3, 6), torch.float32)
    targets = material.dense_targets
    every = {
        s.id: targets.of(s.id, np.arange(len(material.clips["student"].clip(s.id).stamps_ns))) for s in material.train
    }
    first = batch["labels"].numpy()[0]
    assert any((np.abs(v[None] - first[:, None]).max(axis=2).min(axis=1) < 1e-6).all() for v in every.values())
    values = np.concatenate(list(every.values()))
    for group in targets.groups:  # of spread 1 about 0 over the training frames
        assert np.abs(values[:, group.columns].mean(axis=0)).max() < 1e-4
        assert np.sqrt((values[:, group.columns] ** 2).mean()) == pytest.approx(1, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("keep", [True, False])
def test_the_backbone_learns_what_it_regresses(keep: bool) -> None:
    """The target is the mean of the picture, which a linear layer can tell."""
    torch.manual_seed(0)
    targets = DenseTargets([Group("x", 0, 1, False, 1.0)], {}, {}, "")
    config = Recipe.model_validate(dense_values()).student.model.model_copy(update={"regressed": int(keep)})
    model = build_model(config, 1, 3, 4)
    learner = DenseLearner(model, targets, keep=keep)
    head = {k: v.clone() for k, v in model.head.state_dict().items()}
    frames = torch.randn(16, 4, 1, 1, 1).expand(-1, -1, -1, 32, 32).contiguous() + 0.1 * torch.randn(16, 4, 1, 32, 32)
    wanted = frames.mean(dim=(2, 3, 4))[..., None]
    optimiser = torch.optim.Adam(learner.parameters(), lr=0.01)
    losses = []
    for _ in range(60):
        values, _ = learner(frames, wanted)
        optimiser.zero_grad()
        values["total"].backward()
        optimiser.step()
        losses.append(values["total"].item())
    assert losses[-1] < 0.2 * losses[0]
    assert all(torch.equal(v, head[k]) for k, v in model.head.state_dict().items())
    loader = [{"inputs": [frames[:8]], "labels": wanted[:8]}, {"inputs": [frames[8:]], "labels": wanted[8:]}]
    share = explained_shares(learner, loader, targets, CPU)["x"]
    assert share is not None
    assert 0.5 < share <= 1


def test_explained_is_of_what_is_there() -> None:
    """Targets 1 and 3, regressed as 2: the mean itself explains nothing."""
    targets = DenseTargets([Group("a", 0, 1, False, 1.0), Group("b", 1, 1, False, 1.0)], {}, {}, "")

    class Twos(DenseLearner):
        def regress(self, frames: torch.Tensor) -> torch.Tensor:
            return torch.full((*frames.shape[:2], 2), 2.0)

    config = Recipe.model_validate(dense_values()).student.model
    learner = Twos(build_model(config, 1, 3, 4), targets, keep=False)
    nan = float("nan")
    loader = [{"inputs": [torch.zeros(1, 3, 1, 8, 8)], "labels": torch.tensor([[[1, nan], [3, nan], [nan, nan]]])}]
    assert explained_shares(learner, loader, targets, CPU) == {"a": 0.0, "b": None}


@pytest.mark.slow
def test_a_killed_dense_stage_goes_on_to_the_same_weights_bit_for_bit(tmp_path: Path) -> None:
    values = dense_values()
    recipe = Recipe.model_validate(values)
    run_all(recipe, tmp_path / "whole")
    for resume, at in ((False, ("dense", 2, 1)), (True, ("student", 1, 2)), (True, ("head", 2, 1))):
        assert killed(values, tmp_path / "killed", resume, at) == -signal.SIGKILL
    run_all(recipe, tmp_path / "killed", resume=True)
    assert same(weights(tmp_path / "killed"), weights(tmp_path / "whole"))
    lines = read_metrics(tmp_path / "killed")
    assert [m.stage for m in lines] == ["dense"] * 2 + ["student"] * 2 + ["head"] * 2
    assert [m.train_accuracy is None for m in lines] == [True] * 2 + [False] * 4
    found = [Run.load(tmp_path / name).summary.stages["student"] for name in ("whole", "killed")]
    assert found[0].dense is not None
    assert found[1].dense is not None
    assert found[0].dense.explained == found[1].dense.explained
    assert set(found[0].dense.explained) == {"accelerometer", "gyroscope"}
    assert (found[0].dense.targets, found[0].dense.selected_by) == (6, "last epoch")


@pytest.mark.slow
def test_a_killed_run_on_control_targets_goes_on_bit_for_bit(tmp_path: Path) -> None:
    values = dense_values()
    pixels = {"kind": "pixels", "components": 5, "side_px": 8}
    values["stages"] = [
        values["stages"][0] | {"targets": [pixels, {"kind": "random", "of": SIGNALS}, SIGNALS | {"shuffle": "class"}]},
        values["stages"][2],
    ]
    recipe = Recipe.model_validate(values)
    run_all(recipe, tmp_path / "whole")
    assert killed(values, tmp_path / "killed", False, ("dense", 2, 1)) == -signal.SIGKILL
    run_all(recipe, tmp_path / "killed", resume=True)
    assert same(weights(tmp_path / "killed"), weights(tmp_path / "whole"))
    report = Run.load(tmp_path / "killed").summary.stages["student"].dense
    assert report is not None
    assert report.targets == 5 + 6 + 6
    assert list(report.explained) == [
        "pixels",
        "accelerometer (random)",
        "gyroscope (random)",
        "accelerometer (shuffled: class)",
        "gyroscope (shuffled: class)",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("reads", "size"), [("targets", 6), ("features", 24)])
def test_a_head_may_read_the_numbers_or_the_features_alone(reads: str, size: int, tmp_path: Path) -> None:
    values = dense_values()
    values["stages"] = [values["stages"][0], values["stages"][2]]
    values["student"]["model"]["reads"] = reads
    run_all(Recipe.model_validate(values), tmp_path / "run")
    student = SavedStudent.load(tmp_path / "run")
    assert (student.model.backbone.feature_size, student.model.head.convolution1.in_channels) == (size, size)
    assert student.spec.model.regressed == (6 if reads == "targets" else 0)
    dense = Run.load(tmp_path / "run").summary.stages["student"].dense
    assert dense is not None
    assert dense.targets == 6


@pytest.mark.slow
def test_what_is_kept_ships_with_the_student_and_what_is_not_does_not(tmp_path: Path) -> None:
    for keep in (True, False):
        values = dense_values(keep=keep)
        values["stages"] = [values["stages"][0], values["stages"][2]]  # no labels end to end
        run_all(Recipe.model_validate(values), tmp_path / str(keep))
    kept, dropped = (weights(tmp_path / name) for name in ("True", "False"))
    assert {k for k in kept if "regression" in k} == {f"backbone.regression.numbers.{n}" for n in ("weight", "bias")}
    assert not any("regress" in k for k in dropped)
    student = SavedStudent.load(tmp_path / "True")
    assert student.spec.model.regressed == 6
    assert student.model.backbone.feature_size == 24 + 6
    assert student.model.head.convolution1.in_channels == 30


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages": [{"kind": "dense", "targets": [SIGNALS]}]}, "stages are dense: use each of"),
        ({"stages": [{"kind": "dense", "targets": []}, {"kind": "labels"}]}, "at least 1 item"),
        ({"stages": [{"kind": "labels"}, {"kind": "dense", "targets": [SIGNALS]}]}, "stages are labels, dense"),
        (
            {"stages": [{"kind": "dense", "targets": [SIGNALS], "label_smoothing": 0.1}, {"kind": "labels"}]},
            "for stages that see labels",
        ),
        (
            {"stages": [{"kind": "dense", "targets": [{"kind": "bones"}]}, {"kind": "labels"}]},
            "'joints', 'signals', 'pixels', 'random'",
        ),
    ],
)
def test_dense_stages_that_do_not_go_together(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Recipe.model_validate(dense_values() | changes)


def test_a_wrong_target_is_one_fault() -> None:
    """That none is left of the list then is no second one."""
    wrong = [{"kind": "dense", "targets": [{"kind": "joints", "lag_ms": 9999}]}, {"kind": "labels"}]
    with pytest.raises(ConfigError, match=r"^a recipe has 1 fault: stages\.0\.targets\.0\.lag_ms: "):
        recipes.validate(dense_values() | {"stages": wrong}, Recipe, "a recipe")


def test_numbers_that_are_not_there_cannot_be_read() -> None:
    for changes in ({"stages": [{"kind": "labels"}]}, {"stages": dense_values(keep=False)["stages"]}):
        values = dense_values() | changes
        values["student"]["model"] = values["student"]["model"] | {"reads": "targets"}
        with pytest.raises(ValidationError, match="'targets' needs a dense stage that keeps its targets"):
            Recipe.model_validate(values)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (
            {"kind": "joints"},
            "a mirrored skeleton has its left and right sides swapped: set student.augment.flip = false",
        ),
        (SIGNALS, "signals of worn sensors are not mirrored"),
        ({"kind": "pixels"}, "components of the picture are not mirrored"),
    ],
)
def test_targets_that_a_mirrored_picture_contradicts_are_refused(target: dict[str, object], message: str) -> None:
    values = dense_values()
    values["stages"][0]["targets"] = [target]
    Recipe.model_validate(values)
    values["student"]["augment"] = {"flip": True}
    with pytest.raises(ValidationError, match=message):
        Recipe.model_validate(values)
    values["stages"][0]["targets"] = [{"kind": "random", "of": target}]  # which contradict every picture alike
    Recipe.model_validate(values)


@pytest.mark.parametrize(("reads", "keep"), [("both", True), ("targets", True), ("both", False)])
def test_spread_is_of_the_feature_that_is_regressed_from(reads: str, keep: bool) -> None:
    """Also of a student that keeps the numbers alone: it has no column of the feature left."""
    config = ModelConfig(backbone="tiny", regressed=6 if keep else 0, reads=reads if keep else "both")
    model = build_model(config, 1, 3, 2)
    targets = DenseTargets([Group("a", 0, 6, False, 1.0)], {}, {}, "")
    learner = DenseLearner(model, targets, keep=keep).train()
    features: list[torch.Tensor] = []
    flatten = learner.model.get_submodule("flatten")
    flatten.register_forward_hook(lambda _, __, feature: features.append(feature.detach()))
    learner.regress(torch.randn(4, 2, 1, 32, 32, generator=torch.Generator().manual_seed(0)))
    meter = SpreadMeter()
    meter.add(features[0], 6)
    assert features[0].shape[1] == learner.model.stage_channels[-1]
    assert learner.spread is not None
    found = learner.spread.of_epoch()
    assert found == meter.of_epoch()
    assert found is not None
    assert found.dimensions > 0
