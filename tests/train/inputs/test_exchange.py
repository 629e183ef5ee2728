"""A teacher that sees another clip: whose, and that student and labels stay what they were."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from kd_edge.data import Sample, open_dataset
from kd_edge.data.cache.frames import CachedClip
from kd_edge.data.cache.pairs import PairedClips
from kd_edge.errors import DataError
from kd_edge.preprocess import Preprocess
from kd_edge.train.inputs.clips import ClipDataset
from kd_edge.train.inputs.exchange import exchange
from kd_edge.train.inputs.gathering import _check_exchanged, gather_material
from kd_edge.train.inputs.material import Material
from kd_edge.train.inputs.windows import Windows
from kd_edge.train.recipe import Recipe
from kd_edge.train.recipe.augment import Augment
from kd_edge.window import FixedWindow
from tests.runs import killed, run_all, same, tiny_values, weights

FRAME_NS = 100_000_000
SAMPLES = [Sample(str(k), "1", "front", "1", label=k % 2) for k in range(5)]


class Told:
    """Clips of one modality in memory; each frame has one value: 1000 times its clip's number and its own place."""

    modality = "told"
    skipped: dict[str, str] = {}  # noqa: RUF012

    def __init__(self, frames: int) -> None:
        self.frames = frames

    def __contains__(self, sample_id: object) -> bool:
        return True

    def clip(self, sample_id: str) -> CachedClip:
        count = self.frames + int(sample_id)
        values = (1000 * (int(sample_id) + 1) + np.arange(count)).astype(np.uint16)
        frames = np.broadcast_to(values[:, None, None], (count, 8, 8)).copy()
        return CachedClip(frames, np.arange(count) * FRAME_NS, np.full((count, 2), np.nan, np.float32))


class Signals:
    """Tells whose signals were asked for, and over which time."""

    def of(self, sample_id: str, stamps_ns: np.ndarray, draws: object) -> np.ndarray:
        return np.array([int(sample_id), len(stamps_ns)], np.float32)


SPEC = Preprocess(resize_px=8, input_px=8, channels=1, window=FixedWindow(low=0, high=65535), mean=(0.0,), std=(1.0,))


def dataset(windows: Windows, givers: dict[str, str], **changes: Any) -> ClipDataset:
    pairs = PairedClips([Told(8), Told(20)], SAMPLES, givers)  # type: ignore[list-item]
    still = Augment(crop_scale=(1.0, 1.0), shift=0.0)
    return ClipDataset(pairs, [SPEC, SPEC], windows, [still, still], 0, **changes)


def values(planes: np.ndarray) -> np.ndarray:
    """(T,) raw values of a modality's window."""
    return np.rint(planes[:, 0, 4, 4] * 65535).astype(int)


GIVERS = {"0": "2", "2": "4", "4": "0", "1": "3", "3": "1"}


@pytest.mark.parametrize("epoch", range(1, 6))
def test_the_teacher_sees_another_clip_at_the_same_shares_and_the_label_stays(epoch: int) -> None:
    own, given = dataset(Windows(4), {}), dataset(Windows(4), GIVERS)
    for position, sample in enumerate(SAMPLES):
        (student, teacher), label = given[position, epoch]
        (before, lockstep), _ = own[position, epoch]
        assert label == sample.label
        assert np.array_equal(student, before)
        assert set(values(student) // 1000) == {position + 1}
        assert set(values(lockstep) // 1000) == {position + 1}
        assert set(values(teacher) // 1000) == {int(GIVERS[sample.id]) + 1}
        shares = values(student) % 1000 / (8 + position - 1)
        theirs = values(teacher) % 1000 / (20 + int(GIVERS[sample.id]) - 1)
        np.testing.assert_allclose(theirs, shares, atol=0.5 / 19 + 1e-9)  # to half a frame


def test_what_came_before_in_a_stream_is_of_the_giver_too() -> None:
    """Student: its clip after another one; teacher: that clip's giver after the other one's giver."""
    windows = Windows(6, 1.2, loop=True, before_share=1.0, at_end=True)
    given, seen = dataset(windows, GIVERS), 0
    for epoch in range(1, 30):
        (student, teacher), label = given[0, epoch]
        clips, theirs = values(student) // 1000 - 1, values(teacher) // 1000 - 1
        assert label == 0
        assert clips[-1] == 0
        assert theirs[-1] == 2
        others = set(clips) - {0}
        assert {int(GIVERS[str(clip)]) for clip in others} >= set(theirs) - {2}
        seen += bool(others)
    assert seen > 10


def test_signals_are_of_the_giver_over_the_givers_time() -> None:
    (_, _, signals), label = dataset(Windows(4), GIVERS, signals=Signals())[0, 1]
    assert (signals.tolist(), label) == ([2, 8 + 2], 0)
    (_, _, signals), _ = dataset(Windows(4), {}, signals=Signals())[3, 1]
    assert signals.tolist() == [3, 8 + 3]


@pytest.mark.parametrize("seed", range(4))
def test_everybody_gives_once(seed: int) -> None:
    for by_class in (True, False):
        givers = exchange(SAMPLES, seed, "teacher", by_class=by_class)
        assert sorted(givers) == sorted(givers.values()) == [s.id for s in SAMPLES]
        assert all(name != giver for name, giver in givers.items())
        if by_class:
            assert all(int(name) % 2 == int(giver) % 2 for name, giver in givers.items())


@pytest.fixture(scope="module")
def material(cache_folder: Path) -> Material:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KD_EDGE_CACHE", str(cache_folder))
        return gather_material(Recipe.model_validate(tiny_values()))


def test_a_shuffled_batch_has_the_same_students_and_labels(material: Material) -> None:
    """And each teacher's clip is one of the same class's."""
    shuffled = Recipe.model_validate(tiny_values(teacher_shuffle="class"))
    other = Material(**{**material.__dict__, "recipe": shuffled})
    every = len(material.train)
    batches = [next(iter(m.training_loader(["student", "teacher"], every)[0])) for m in (material, other)]
    plain, changed = batches
    assert torch.equal(plain["labels"], changed["labels"])
    assert torch.equal(plain["inputs"][0], changed["inputs"][0])
    alike = (plain["inputs"][1] == changed["inputs"][1]).flatten(1).all(dim=1)
    assert len(alike) == every
    assert not alike.any()
    alone = [next(iter(m.training_loader(["teacher"], every)[0])) for m in (material, other)]
    assert torch.equal(alone[0]["inputs"][0], alone[1]["inputs"][0]), "a teacher in training sees its own"


def test_a_control_is_another_run_with_the_same_teacher() -> None:
    plain, by_class, any_clip = (
        Recipe.model_validate(tiny_values(teacher_shuffle=how)) for how in (None, "class", "all")
    )
    assert Recipe.model_validate(tiny_values()).fingerprint() == plain.fingerprint()
    assert len({plain.fingerprint(), by_class.fingerprint(), any_clip.fingerprint()}) == 3
    assert plain.teacher_fingerprint() == by_class.teacher_fingerprint()


@pytest.mark.slow
def test_a_killed_control_goes_on_bit_for_bit_and_differs_from_its_lockstep(tmp_path: Path) -> None:
    values = tiny_values(teacher_shuffle="class", losses=[{"kind": "dkd", "weight": 5.0}])
    values["teacher"] |= {"epochs": 1}
    values["student"] |= {"epochs": 2}
    run_all(Recipe.model_validate(values), tmp_path / "whole")
    assert killed(values, tmp_path / "killed", False, ("student", 2, 1)) == -signal.SIGKILL
    run_all(Recipe.model_validate(values), tmp_path / "killed", resume=True)
    run_all(Recipe.model_validate(values | {"teacher_shuffle": None}), tmp_path / "lockstep")
    assert same(weights(tmp_path / "killed"), weights(tmp_path / "whole"))
    assert not same(weights(tmp_path / "lockstep"), weights(tmp_path / "whole"))


@pytest.mark.parametrize(
    ("how", "kept", "message"),
    [
        ("class", lambda s, first: s.label != first.label or s == first, "a single training clip of class '"),
        ("all", lambda s, first: s == first, "teacher_shuffle with a single training clip"),
    ],
)
def test_a_teacher_cannot_be_shown_another_clip_where_there_is_none(how: str, kept: Any, message: str) -> None:
    recipe = Recipe.model_validate(tiny_values(teacher_shuffle=how))
    dataset = open_dataset(recipe.data)
    train = dataset.split(recipe.split).train
    few = [s for s in train if kept(s, train[0])]
    with pytest.raises(DataError, match=message) as caught:
        _check_exchanged(recipe, few, dataset.labels)
    assert how == "all" or f"'{dataset.labels[train[0].label]}'" in str(caught.value)
    _check_exchanged(recipe, train, dataset.labels)
    _check_exchanged(Recipe.model_validate(tiny_values()), few, dataset.labels)


@pytest.mark.parametrize("features", ["stage", "loss", "both"])
def test_a_shuffled_teacher_needs_losses_and_gives_no_features(features: str) -> None:
    """Its features stay with their clips: a control that changes nothing would be taken for one."""
    targets = [{"kind": "features"}]
    losses = {"stage": [], "loss": [{"kind": "dense", "targets": targets}], "both": [{"kind": "dkd"}]}[features]
    stages = [{"kind": "labels"}] if features == "loss" else [{"kind": "dense", "targets": targets}, {"kind": "labels"}]
    Recipe.model_validate(tiny_values(losses=losses, stages=stages))
    with pytest.raises(ValidationError, match="teacher_shuffle applies to losses that compare the student"):
        Recipe.model_validate(tiny_values(losses=losses, stages=stages, teacher_shuffle="all"))


def test_nobody_is_shuffled_without_a_teacher() -> None:
    alone = tiny_values(teacher_shuffle="class", losses=[])
    del alone["teacher"]
    with pytest.raises(ValidationError, match="teacher_shuffle is for a teacher of kind images or sensors"):
        Recipe.model_validate(alone)
    dropped = Recipe.model_validate(tiny_values(teacher_shuffle="class", teacher=None))
    assert dropped.teacher_shuffle is None, "a teacher that is said to be none takes the control with it"
