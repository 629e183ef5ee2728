from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from kd_edge.crop import ForegroundRegion, PersonRegion
from kd_edge.data.cache.frames import CachedClip
from kd_edge.data.cache.pairs import PairedClips
from kd_edge.data.dataset import Sample
from kd_edge.data.readers.files import Files
from kd_edge.errors import ConfigError, DataError
from kd_edge.preprocess import Preprocess, centre_crop, clip_input, recorded_input
from kd_edge.train.inputs.clips import ClipDataset, EpochBatches, Key, make_loader
from kd_edge.train.inputs.gathering import gather_material
from kd_edge.train.inputs.material import Material
from kd_edge.train.inputs.windows import Windows, clip_length_ns, same_share
from kd_edge.train.recipe import Recipe
from kd_edge.train.recipe.augment import Augment
from kd_edge.types import Clip, Float32
from kd_edge.window import FixedWindow, clip_limits
from tests.runs import tiny_values

FRAME_NS = 33_333_333


@pytest.fixture
def material(tiny: Recipe) -> Material:
    return gather_material(tiny)


def test_material_follows_split_and_median_clip(material: Material) -> None:
    assert (len(material.train), len(material.validation), len(material.test)) == (30, 0, 10)
    lengths = [len(material.caches["student"].clip(s.id).frames) / 30 for s in material.train]
    assert material.clip_seconds == pytest.approx(np.median(lengths), abs=1e-3)


def test_validation_subjects_are_held_out(tiny: Recipe) -> None:
    subject = gather_material(tiny).train[0].subject
    held = gather_material(tiny.model_copy(update={"validation_subjects": (subject,)}))
    assert {s.subject for s in held.validation} == {subject}
    assert len(held.train) + len(held.validation) == 30


@pytest.mark.slow
def test_validation_trials_are_held_out(tiny: Recipe) -> None:
    twice = tiny.model_copy(update={"data": tiny.data.model_copy(update={"clips_per_class": 8})})
    held = gather_material(twice.model_copy(update={"validation_trials": ("2",)}))
    assert {s.trial for s in held.validation} == {"2"}
    assert {s.trial for s in held.train} == {"1"}
    assert {s.subject for s in held.validation} == {s.subject for s in held.train}
    with pytest.raises(DataError, match="validation trial '77' is not on the training side"):
        gather_material(tiny.model_copy(update={"validation_trials": ("77",)}))


def test_evaluation_is_centre_frames_and_centre_crop(material: Material) -> None:
    batch = next(iter(material.evaluation_loader("student", material.test)))
    clip = material.caches["student"].clip(material.test[0].id)
    frames = len(clip.frames)
    at = np.array([(2 * k + 1) * frames // 8 for k in range(4)])
    spec = material.recipe.student.preprocess
    crop = centre_crop(*clip.frames.shape[1:3], spec.input_px)
    limits = clip_limits(clip.own_limits, clip.stamps_ns, spec.window)
    expected = clip_input(clip.frames, limits, at[:, None], crop, spec)
    assert np.array_equal(batch["inputs"][0][0].numpy(), expected)
    assert batch["labels"].tolist() == [s.label for s in material.test]


def test_an_item_depends_on_seed_epoch_and_sample_only(material: Material) -> None:
    loader, batches = material.training_loader(["student", "teacher"], 6)
    dataset = loader.dataset
    assert isinstance(dataset, ClipDataset)
    torch.manual_seed(0)
    first = dataset[3, 1]
    np.random.seed(5)  # noqa: NPY002 - shows that the global generator does not matter
    again, later = dataset[3, 1], dataset[3, 2]
    assert all(np.array_equal(a, b) for a, b in zip(first[0], again[0], strict=True))
    assert not np.array_equal(first[0][0], later[0][0])
    batches.epoch = 1
    assert list(batches) == list(batches)
    order = [key for batch in batches for key in batch]
    assert len({position for position, _ in order}) == 30
    batches.epoch = 2
    assert [key for batch in batches for key in batch] != [(position, 2) for position, _ in order]


def test_the_loader_leaves_the_networks_random_numbers_alone(material: Material) -> None:
    loader, batches = material.training_loader(["student"], 10)
    before = torch.get_rng_state()
    for batches.epoch in (1, 2):
        assert len(list(loader)) == len(batches)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
def test_worker_processes_deliver_the_same_clips(tiny: Recipe) -> None:
    def clips(workers: int) -> list[torch.Tensor]:
        material = gather_material(tiny.model_copy(update={"workers": workers}))
        loader, batches = material.training_loader(["student"], 10)
        batches.epoch = 3
        return [batch["inputs"][0] for batch in loader]

    assert all(torch.equal(a, b) for a, b in zip(clips(0), clips(1), strict=True))


class Large(Dataset[tuple[list[Float32], int]]):
    """Batches that take long to hand over."""

    def __getitem__(self, key: Key) -> tuple[list[Float32], int]:
        return [np.zeros((16, 3, 256, 256), dtype=np.float32)], 0


@pytest.mark.slow
def test_a_loader_that_is_given_up_in_the_middle_of_an_epoch_ends_quietly(capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(4):
        loader = make_loader(Large(), EpochBatches(64, 4, seed=0), workers=1)
        assert next(iter(loader))["inputs"][0].shape == (4, 16, 3, 256, 256)
        del loader
        gc.collect()
    assert capfd.readouterr() == ("", "")


def test_teacher_and_student_move_in_lockstep(cache_folder: Path) -> None:
    """With the same modality and preprocessing on both sides, frames, crop and flip make the two inputs equal."""
    values = tiny_values()
    values["teacher"]["modality"] = "nir"
    values["teacher"]["preprocess"] = values["student"]["preprocess"]
    values["student"]["augment"] = {"crop_scale": [0.6, 0.9], "flip": True}
    loader, batches = gather_material(Recipe.model_validate(values)).training_loader(["student", "teacher"], 6)
    batches.epoch = 1
    for batch in loader:
        assert torch.equal(*batch["inputs"])


def test_further_draws_of_a_clip_have_other_windows(material: Material) -> None:
    loader, _ = material.training_loader(["student", "teacher"], 6)
    dataset = loader.dataset
    first, second, third = (dataset[key][0][0] for key in ((3, 1), (3, 1, 1), (3, 1, 2)))
    assert not np.array_equal(first, second)
    assert not np.array_equal(second, third)
    assert np.array_equal(second, dataset[3, 1, 1][0][0])


def test_class_weights_follow_the_training_side_and_the_mirror(tiny: Recipe) -> None:
    """30 training clips of ten classes, of which some are left out: 27 clips, the first class has one of three."""
    student = tiny.student.model_copy(update={"class_weights": "balanced"})
    material = gather_material(tiny.model_copy(update={"student": student}))
    zero = [s for s in material.train if s.label == 0]
    rare = replace(material, train=tuple(s for s in material.train if s not in zero[1:]))
    assert [sum(s.label == k for s in rare.train) for k in range(10)] == [1, *[3] * 9]
    weights = rare.class_weights("student")
    assert weights is not None
    assert weights.tolist() == pytest.approx([28 / (10 * 1), *[28 / (10 * 3)] * 9])
    assert rare.class_weights("teacher") is None
    named = student.model_copy(update={"class_weights": {material.dataset.labels[1]: 2.0}})
    weights = replace(rare, recipe=tiny.model_copy(update={"student": named})).class_weights("student")
    assert weights is not None
    assert weights.tolist() == pytest.approx([28 / 31, 2 * 28 / 31, *[28 / 31] * 8])  # 1 + 2 * 3 + 8 * 3 = 31


def test_mirrored_clips_count_for_what_they_become(tiny: Recipe) -> None:
    class Mirrored:
        labels = ("left", "right", "jump")
        flip_labels = (1, 0, 2)

    student = tiny.student.model_copy(
        update={"class_weights": "balanced", "augment": tiny.student.augment.model_copy(update={"flip": True})}
    )
    recipe = tiny.model_copy(update={"student": student})
    train = tuple(Sample(str(k), "1", "1", "1", label) for k, label in enumerate([0, 0, 0, 1, 2, 2]))
    material = Material(recipe, Mirrored(), train, (), (), {}, {}, 1.0)  # type: ignore[arg-type]
    weights = material.class_weights("student")
    assert weights is not None
    assert weights.tolist() == pytest.approx([1.0, 1.0, 1.0])  # half of 3 left and 1 right each, and 2 jumps


def test_an_epoch_of_a_stage_draws_by_its_sampler(tiny: Recipe) -> None:
    student = tiny.student.model_copy(update={"sampler": "balanced", "repeat": 2})
    material = gather_material(tiny.model_copy(update={"student": student}))
    _, batches = material.training_loader(["student", "teacher"], 6)
    assert (batches.draws, len(batches)) == (60, 10)
    labels = [material.train[key[0]].label for key in epoch_of(batches, 1)]
    assert np.bincount(labels).tolist() == [6] * 10
    assert material.training_loader(["teacher"], 6)[1].draws == 30


def test_looping_windows_have_any_phase_and_half_to_one_and_a_half_of_the_length() -> None:
    stamps = np.arange(200, dtype=np.int64) * 10_000_000  # 2 s
    windows = Windows(8, random_seconds=1.0, loop=True)
    spacings, newest = [], []
    for seed in range(200):
        moments = windows.around(stamps, np.random.default_rng(seed))
        steps = np.diff(moments)
        assert steps.max() - steps.min() <= 10_000_000  # one spacing; both its ends are moments of frames
        assert (moments % 10_000_000 == 0).all()
        spacings.append(steps.mean() * 8 / 1e9)
        newest.append(moments[-1] / 1e9)
    for values, low, high in ((spacings, 0.5, 1.5), (newest, 0.0, 2.0)):
        assert np.histogram(values, 5, (low, high))[0].min() > 20  # 40 on average
        assert low - 0.02 <= min(values) < max(values) <= high + 0.02


def test_after_another_action_a_quarter_of_the_window_has_passed() -> None:
    stamps = np.arange(200, dtype=np.int64) * 10_000_000
    windows = Windows(8, random_seconds=1.0, loop=True)
    for seed in range(100):
        moments = windows.around(stamps, np.random.default_rng(seed), other_before=True)
        assert 2 * np.diff(moments).mean() - 10_000_000 <= moments[-1] <= 2e9
    tiny = windows.around(stamps[:5], np.random.default_rng(0), other_before=True)  # shorter than that quarter
    assert tiny[-1] == 50_000_000


def test_a_streams_windows_end_with_the_action_and_begin_in_the_one_before() -> None:
    stamps = np.arange(200, dtype=np.int64) * 10_000_000  # 2 s
    windows = Windows(8, random_seconds=2.0, loop=True, before_share=1.0, at_end=True)
    spacings, newest = [], []
    for seed in range(300):
        moments = windows.around(stamps, np.random.default_rng(seed), other_before=True)
        spacings.append(np.diff(moments).mean() * 8 / 2e9)
        newest.append(moments[-1] / 2e9)
    for values, low, high in ((spacings, 0.7, 1.35), (newest, 0.85, 1.0)):
        assert np.histogram(values, 5, (low, high))[0].min() > 30  # 60 on average
        assert low - 0.01 <= min(values) < max(values) <= high + 0.01


def test_random_windows_have_one_spacing_between_half_and_one_and_a_half_of_the_length() -> None:
    stamps = np.arange(300, dtype=np.int64) * FRAME_NS
    windows = Windows(8, random_seconds=2.0)
    spans = []
    for seed in range(200):
        chosen = windows.choose(stamps, np.random.default_rng(seed))
        steps = np.diff(chosen)
        assert steps.max() - steps.min() <= 1
        spans.append((stamps[chosen[-1]] - stamps[chosen[0]]) / 1e9 * 8 / 7)
    assert 1.0 - 0.05 <= min(spans) < 1.1
    assert 2.9 < max(spans) <= 3.0 + 0.05


@pytest.mark.parametrize("frames", [1, 2, 5, 8, 20])
def test_a_window_longer_than_the_clip_is_cut_and_a_tiny_clip_still_gives_segments(frames: int) -> None:
    stamps = np.arange(frames, dtype=np.int64) * FRAME_NS
    for seed in range(50):
        chosen = Windows(8, random_seconds=10.0).choose(stamps, np.random.default_rng(seed))
        assert len(chosen) == 8
        assert chosen[0] >= 0
        assert chosen[-1] < frames
        assert np.all(np.diff(chosen) >= 0)
    if frames == 20:
        assert chosen[-1] - chosen[0] >= 16


def test_clip_length_counts_every_frame() -> None:
    assert clip_length_ns(np.array([0, 100, 200])) == 300


def test_batches_are_dealt_to_the_processes_without_overlap() -> None:
    whole = list(EpochBatches(20, 6, seed=1))
    parts = [list(EpochBatches(20, 6, seed=1, rank=rank, world=2)) for rank in range(2)]
    assert len(whole) == 3
    assert all(set(a) | set(b) == set(w) for w, a, b in zip(whole, *parts, strict=True))
    assert [len(b) for b in EpochBatches(20, 6, seed=None)] == [6, 6, 6, 2]
    assert [len(b) for b in EpochBatches(4, 6, seed=0)] == [4]


def epoch_of(batches: EpochBatches, epoch: int) -> list[tuple[int, ...]]:
    batches.epoch = epoch
    return [key for batch in batches for key in batch]


def test_a_repeated_epoch_draws_every_clip_so_often() -> None:
    batches = EpochBatches(5, 4, seed=1, repeat=4)
    assert len(batches) == 5
    drawn = epoch_of(batches, 2)
    assert sorted(key[0] for key in drawn) == sorted([0, 1, 2, 3, 4] * 4)
    assert all(key[1] == 2 for key in drawn)
    assert sorted((*key, 0)[2] for key in drawn if key[0] == 3) == [0, 1, 2, 3]  # each draw has its own randomness
    assert epoch_of(EpochBatches(5, 4, seed=1, repeat=4), 2) == drawn
    assert epoch_of(batches, 3) != [(key[0], 3, *key[2:]) for key in drawn]


def test_one_draw_of_each_clip_is_what_it_was() -> None:
    """Of runs that were trained before there was another sampler: NumPy's permutation by seed and epoch."""
    assert [key[0] for key in epoch_of(EpochBatches(6, 6, seed=1), 3)] == [2, 3, 4, 0, 5, 1]


def test_balanced_epochs_draw_every_class_equally_often() -> None:
    classes = [0] * 7 + [1] * 2 + [2]  # ten clips of three classes: ceil(10 / 3) = 4 rounds
    batches = EpochBatches(10, 3, seed=0, classes=classes)
    assert (batches.draws, len(batches)) == (12, 4)
    of_the_first, orders = set(), set()
    for epoch in range(1, 9):
        drawn = epoch_of(batches, epoch)
        assert [sorted(classes[key[0]] for key in drawn[k : k + 3]) for k in (0, 3, 6, 9)] == [[0, 1, 2]] * 4
        rare = sorted(key for key in drawn if key[0] == 9)
        assert rare == [(9, epoch), (9, epoch, 1), (9, epoch, 2), (9, epoch, 3)]
        assert sorted(key[0] for key in drawn if classes[key[0]] == 1) == [7, 7, 8, 8]  # each has its turn
        frequent = [key[0] for key in drawn if classes[key[0]] == 0]
        assert len(set(frequent)) == 4
        of_the_first |= set(frequent)
        orders.add(tuple(key[0] for key in drawn))
    assert of_the_first == {0, 1, 2, 3, 4, 5, 6}  # other clips of it every epoch
    assert len(orders) == 8
    assert epoch_of(EpochBatches(10, 3, seed=0, classes=classes), 8) == drawn  # no state but seed and epoch


def test_balanced_epochs_repeat_and_are_dealt_to_the_processes() -> None:
    classes = [0] * 7 + [1] * 2 + [2]
    whole = EpochBatches(10, 4, seed=0, repeat=2, classes=classes)  # ceil(20 / 3) = 7 rounds, 21 draws
    assert (whole.draws, len(whole)) == (21, 5)
    counts = np.bincount([classes[key[0]] for key in epoch_of(whole, 1)])
    assert counts.sum() == 20
    assert counts.max() - counts.min() == 1  # the batch that was dropped held one
    parts = [list(EpochBatches(10, 4, seed=0, rank=r, world=2, repeat=2, classes=classes)) for r in range(2)]
    whole.epoch = 0
    assert all(set(a) | set(b) == set(w) for w, a, b in zip(whole, *parts, strict=True))


class Recorded:
    """One modality of one sample in memory, as the frame cache hands it out."""

    modality = "recorded"
    skipped: dict[str, str] = {}  # noqa: RUF012

    def __init__(self, frames: np.ndarray) -> None:
        self.frames = frames
        self.stamps = np.arange(len(frames), dtype=np.int64) * FRAME_NS

    def __contains__(self, sample_id: object) -> bool:
        return sample_id == "a"

    def clip(self, sample_id: str) -> CachedClip:
        assert sample_id == "a"
        return CachedClip(self.frames, self.stamps, np.full((len(self.frames), 2), np.nan, np.float32))


SAMPLE = Sample("a", subject="1", view="1", trial="1", label=1)


def in_memory(
    frames: list[np.ndarray], specs: list[Preprocess], augments: list[Augment] | None, **changes: object
) -> ClipDataset:
    pairs = PairedClips([Recorded(f) for f in frames], [SAMPLE])  # type: ignore[list-item]
    return ClipDataset(pairs, specs, Windows(len(frames[0])), augments, seed=0, **changes)  # type: ignore[arg-type]


class Session:
    """Clips of one modality in memory; each frame has one value: 1000 times its clip's number and its own place."""

    modality = "recorded"
    skipped: dict[str, str] = {}  # noqa: RUF012

    def __init__(self, frames: dict[str, int]) -> None:
        self.frames = frames

    def __contains__(self, sample_id: object) -> bool:
        return sample_id in self.frames

    def clip(self, sample_id: str) -> CachedClip:
        count = self.frames[sample_id]
        values = (1000 * (int(sample_id) + 1) + np.arange(count)).astype(np.uint16)
        frames = np.broadcast_to(values[:, None, None], (count, 8, 8)).copy()
        return CachedClip(frames, np.arange(count) * FRAME_NS, np.full((count, 2), np.nan, np.float32))


def test_a_stream_sees_the_end_of_another_action_of_the_same_session() -> None:
    samples = [
        Sample("0", "1", "front", "1", label=0), Sample("1", "1", "front", "1", label=1),  # a session
        Sample("2", "1", "front", "2", label=2), Sample("3", "2", "front", "1", label=3),  # others
    ]  # fmt: skip
    lengths = {"0": 60, "1": 50, "2": 40, "3": 40}
    pairs = PairedClips([Session(lengths)], samples)  # type: ignore[list-item]
    whole = FixedWindow(low=0, high=65535)
    spec = Preprocess(resize_px=8, input_px=8, window=whole, motion_offsets_ms=(0, 67), mean=(0.0,), std=(1.0,))
    still = Augment(crop_scale=(1.0, 1.0), shift=0.0)
    dataset = ClipDataset(pairs, [spec], Windows(4, 2.0, loop=True, before_share=0.5), [still], seed=0)
    mixed = 0
    for epoch in range(100):
        for position in range(4):
            (clip,), label = dataset[position, epoch]
            values = np.rint(clip[:, :, 0, 0] * 65535).astype(int)  # (T, M): newest frame of a stack first
            source, place = values // 1000 - 1, values % 1000
            assert label == position == source[-1, 0]
            assert np.isin(np.diff(place)[source[:, 0] == source[:, 1]], [-2, *(n - 2 for n in lengths.values())]).all()
            before = source[:, 0] != position
            assert before.tolist() == sorted(before, reverse=True)  # first the other action, then this one
            if before.any():
                mixed += 1
                assert set(source[before, 0]) == {1 - position}
                timeline = np.where(before, place[:, 0] - lengths[str(1 - position)], place[:, 0])  # 0 at the joint
                steps = np.diff(timeline) % 50
                assert steps.max() - steps.min() <= 1 or lengths[str(1 - position)] != 50
    assert 50 < mixed < 100  # half of the windows of two samples may see something before, most of them do


def ramps(height: int, width: int, axis: int) -> np.ndarray:
    """Four frames whose value is the place along an axis, 0 to 60000."""
    length = (height, width)[axis]
    values = ((np.arange(length) + 0.5) / length * 60000).astype(np.uint16)
    frame = np.broadcast_to(values[:, None] if axis == 0 else values, (height, width))
    return np.stack([frame] * 4)


def ramp_spec(px: int) -> Preprocess:
    window = FixedWindow(low=0, high=60000)
    return Preprocess(resize_px=px, input_px=16, window=window, mean=(0.0,), std=(1.0,))


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("crop", ["random", "multi_scale"])
def test_frames_of_different_sizes_show_the_same_part(axis: int, crop: str) -> None:
    """Each pixel's value is its place in the frame: both modalities must show the same places."""
    augments = [Augment.model_validate({"crop": crop, "flip": True}), Augment(crop_scale=(0.1, 0.1), shift=0.0)]
    frames = [ramps(72, 96, axis), ramps(240, 320, axis)]
    dataset = in_memory(frames, [ramp_spec(72), ramp_spec(240)], augments)
    ends = set()
    for epoch in range(40):
        (small, large), _ = dataset[0, epoch]
        assert np.abs(small - large).max() < 1 / 72  # a pixel of the smaller frame
        profile = small[0, 0, :, 0] if axis == 0 else small[0, 0, 0]
        ends.add((round(float(profile[0]), 2), round(float(profile[-1]), 2)))
    assert len(ends) > 5
    flipped = sum(first > last for first, last in ends)
    assert flipped > 2 if axis == 1 else flipped == 0


def test_labels_follow_the_mirror() -> None:
    dataset = in_memory([ramps(72, 96, 1)], [ramp_spec(72)], [Augment(flip=True)], flip_labels=(1, 0))
    seen = set()
    for epoch in range(20):
        (clip,), label = dataset[0, epoch]
        mirrored = bool(clip[0, 0, 0, 0] > clip[0, 0, 0, -1])
        assert label == (0 if mirrored else SAMPLE.label)
        seen.add(mirrored)
    assert seen == {True, False}


class Worn:
    """Signals of the one sample; nobody mirrors them."""

    def of(self, sample_id: str, stamps_ns: np.ndarray, draws: object) -> np.ndarray:
        return np.ones((2, 3, 8), np.float32)


@pytest.mark.parametrize(("flip_labels", "mirrored"), [((1, 0), {False}), ((0, 1), {True, False})])
def test_with_sensors_a_clip_is_mirrored_only_where_its_class_stays(
    flip_labels: tuple[int, ...], mirrored: set[bool]
) -> None:
    dataset = in_memory(
        [ramps(72, 96, 1)], [ramp_spec(72)], [Augment(flip=True)], flip_labels=flip_labels, signals=Worn()
    )
    seen = set()
    for epoch in range(20):
        (clip, signals), label = dataset[0, epoch]
        assert label == SAMPLE.label
        assert signals.shape == (2, 3, 8)
        seen.add(bool(clip[0, 0, 0, 0] > clip[0, 0, 0, -1]))
    assert seen == mirrored


def test_without_random_changes_a_training_clip_is_the_evaluation_clip() -> None:
    frames = np.random.default_rng(0).integers(0, 60000, (4, 16, 20), dtype=np.uint16)
    still = Augment(crop_scale=(1.0, 1.0), shift=0.0)
    spec = ramp_spec(16)
    trained = in_memory([frames], [spec], [still])[0, 5][0][0]
    evaluated = in_memory([frames], [spec], None)[0, 5][0][0]
    assert np.array_equal(trained, evaluated)


def test_each_modality_has_its_own_changes_of_intensity() -> None:
    frames = np.random.default_rng(0).integers(10000, 50000, (4, 72, 96), dtype=np.uint16)
    specs = [ramp_spec(72)] * 2
    loud = Augment(gain=0.3, offset=0.2, vignetting=0.5, blur=1.0, brightness=0.3, pattern_noise=0.1, noise=0.1)

    def inputs(student: Augment, teacher: Augment) -> list[np.ndarray]:
        return in_memory([frames, frames], specs, [student, teacher])[0, 1][0]

    still = inputs(Augment(), Augment())
    assert np.array_equal(still[0], still[1])
    student, teacher = inputs(Augment(), loud)
    assert np.array_equal(student, still[0])
    assert not np.allclose(teacher, still[1], atol=0.05)
    student, teacher = inputs(loud, Augment())
    assert np.array_equal(teacher, still[1])
    assert not np.allclose(student, still[0], atol=0.05)
    both = inputs(loud, loud)
    assert np.array_equal(both[0], student)
    assert not np.allclose(both[0], both[1], atol=0.05)  # independent draws


@pytest.mark.parametrize(
    "name", ["vignetting", "blur", "brightness", "contrast", "pattern_noise", "noise", "gain", "offset", "flip"]
)
def test_switching_one_change_on_leaves_the_others_draws(name: str) -> None:
    """The crop's place, read from the ramp, and the frames stay; the ramp's slope survives all changes roughly."""
    base = in_memory([ramps(72, 96, 1)], [ramp_spec(72)], [Augment(crop="multi_scale")])
    value = True if name == "flip" else 1e-4
    augment = Augment.model_validate({"crop": "multi_scale", name: value})
    other = in_memory([ramps(72, 96, 1)], [ramp_spec(72)], [augment])
    for epoch in range(10):
        a, b = base[0, epoch][0][0], other[0, epoch][0][0]
        if name == "flip":
            assert np.allclose(a, b, atol=1e-6) or np.allclose(a, b[..., ::-1], atol=1e-6)
        else:
            assert np.allclose(a, b, atol=2e-3)


def person(left: int, width: int = 10) -> np.ndarray:
    """Four frames of 72 x 96 with somebody at 2 m, his shading fixed to him."""
    frames = np.zeros((4, 72, 96), np.uint16)
    frames[:, 20:52, left : left + width] = 2000 + np.arange(32 * width).reshape(32, width)
    return frames


def test_a_foreground_region_follows_the_person_in_training_and_evaluation() -> None:
    """Wherever he stands, the same draws show the same part of him."""
    region = ForegroundRegion(low=1500, high=3500, margin=0.5)  # 32 rows grow to a square of 64
    window = FixedWindow(low=0, high=4000)
    spec = Preprocess(resize_px=72, input_px=32, window=window, region=region, mean=(0.0,), std=(1.0,))
    for augments in ([Augment(crop_scale=(0.5, 1.0))], [Augment(crop="multi_scale", vignetting=0.3)], None):
        here, there = (in_memory([person(left)], [spec], augments) for left in (30, 51))
        for epoch in range(10):
            np.testing.assert_array_equal(here[0, epoch][0][0], there[0, epoch][0][0])
    evaluated = in_memory([person(30)], [spec], None)[0, 0][0][0]
    frames = person(30)
    clip = Clip(frames, np.arange(4, dtype=np.int64) * FRAME_NS)
    assert np.array_equal(evaluated, recorded_input(clip, np.arange(4), spec))
    assert np.flatnonzero((evaluated > 0).any(axis=(0, 1, 3))).tolist() == list(range(8, 24))  # the middle half


def _channels(values: dict[str, dict[str, dict[str, int]]]) -> None:
    values["student"]["preprocess"]["channels"] = 3


def _modality(values: dict[str, dict[str, str]]) -> None:
    values["student"]["modality"] = "nirr"


def _colours(values: dict[str, dict[str, dict[str, float]]]) -> None:
    values["student"]["augment"] = {"saturation": 0.4}


def _region(values: dict[str, dict[str, dict[str, object]]]) -> None:
    values["student"]["preprocess"]["region"] = {"kind": "foreground", "low": 1500, "high": 3500}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (_channels, ConfigError, "student.preprocess.channels=1"),
        (_modality, DataError, "did you mean 'nir'"),
        (_region, ConfigError, "looks for values from 1500 to 3500. Expected values of nir, 0 to 255"),
        (_colours, ConfigError, "student.augment changes colours, but nir of synthetic has none"),
    ],
)
def test_a_recipe_that_does_not_fit_the_data_is_one_line(
    change: Callable[[object], None], error: type[Exception], message: str
) -> None:
    values = tiny_values()
    change(values)
    with pytest.raises(error, match=message):
        gather_material(Recipe.model_validate(values))


def test_a_crop_in_metres_is_of_the_recordings_lens(tmp_path: Path) -> None:
    for label in ("walk", "sit"):
        (tmp_path / label).mkdir()
        np.save(tmp_path / label / "a_depth.npy", np.full((4, 24, 32), 2000, np.uint16))
    region = PersonRegion(low=1500, high=3700, side_m=2.2, focal=0.89)
    values = tiny_values()
    values["student"]["modality"] = "depth"
    values["student"]["preprocess"]["region"] = region.model_dump()
    student = Recipe.model_validate(values).student
    for told in ("", "focal = 0.89", "focal = 0.92"):  # 3.4 % off
        (tmp_path / "dataset.toml").write_text(f'name = "lens"\n[modality.depth]\n{told}\n')
        student.check_data("student", Files(tmp_path))
    (tmp_path / "dataset.toml").write_text('name = "lens"\n[modality.depth]\nfocal = 0.61\n')
    with pytest.raises(ConfigError, match=r"region.focal is 0.89, depth of lens was seen with 0.61\. .*focal=0.61"):
        student.check_data("student", Files(tmp_path))


def test_modalities_of_other_lengths_are_taken_at_the_same_share() -> None:
    first, other = np.arange(90) * 33_000_000, 5_000_000 + np.arange(60) * 33_000_000
    moments = first[[0, 44, 89]]
    shares = (same_share(first, moments, other) - other[0]) / (other[-1] - other[0])
    assert np.allclose(shares, (moments - first[0]) / (first[-1] - first[0]), atol=1e-8)
    assert np.array_equal(same_share(first, moments, first), moments)
    assert np.array_equal(same_share(first[:1], first[:1], other), other[:1])
