from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from kd_edge.errors import ConfigError, DataError
from kd_edge.preprocess import centre_crop, clip_input, clip_limits
from kd_edge.train.augment import CropDraw, draw_crop, jitter_limits, mix_colours
from kd_edge.train.clips import ClipDataset, EpochBatches, Windows, clip_length_ns
from kd_edge.train.material import Material, gather_material
from kd_edge.train.recipe import Augment, Recipe

from .conftest import tiny_values

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


def test_worker_processes_deliver_the_same_clips(tiny: Recipe) -> None:
    def clips(workers: int) -> list[torch.Tensor]:
        material = gather_material(tiny.model_copy(update={"workers": workers}))
        loader, batches = material.training_loader(["student"], 10)
        batches.epoch = 3
        return [batch["inputs"][0] for batch in loader]

    assert all(torch.equal(a, b) for a, b in zip(clips(0), clips(1), strict=True))


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


def test_looping_windows_run_over_the_end_with_one_spacing() -> None:
    stamps = np.arange(100, dtype=np.int64) * 10_000_000  # 1 s, 100 frames
    windows = Windows(8, random_seconds=1.0, loop=True)
    spacings, starts, wrapped = set(), set(), 0
    for seed in range(200):
        chosen = windows.choose(stamps, np.random.default_rng(seed))
        steps = np.diff(chosen) % 100
        assert steps.max() - steps.min() <= 2  # one spacing; both its ends are rounded to a frame
        spacings.add(int(steps.min()))
        starts.add(int(chosen[0]) // 10)
        wrapped += bool((np.diff(chosen) < 0).any())
    assert min(spacings) in (5, 6)  # 0.5 x 1 s / 8 = 6.25 frames
    assert max(spacings) in (17, 18)  # 1.5 x 1 s / 8 = 18.75 frames
    assert starts == set(range(10))
    assert wrapped > 100


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


@pytest.mark.parametrize("shape", [(40, 48), (36, 36), (90, 60)])
def test_crops_are_square_and_inside_whatever_the_frame(shape: tuple[int, int]) -> None:
    augment = Augment(crop_scale=(0.4, 1.0), flip=True)
    flips = 0
    for seed in range(100):
        draw = draw_crop(augment, np.random.default_rng(seed))
        crop = draw.on(*shape)
        assert crop.height * shape[0] == pytest.approx(crop.width * shape[1])
        assert crop.top >= -1e-12
        assert crop.left >= -1e-12
        assert crop.top + crop.height <= 1 + 1e-12
        assert crop.left + crop.width <= 1 + 1e-12
        flips += crop.flip
    assert 30 < flips < 70


def test_a_still_crop_is_the_centre_crop() -> None:
    crop, centre = CropDraw(32 / 40, 0.0, 0.0, False).on(40, 48), centre_crop(40, 48, 32)
    assert (crop.top, crop.left, crop.height) == pytest.approx((centre.top, centre.left, centre.height))


def test_gain_and_offset_change_the_window_within_their_bounds() -> None:
    limits = np.array([[100, 200], [110, 250]], dtype=np.float32)
    augment = Augment(gain=0.2, offset=0.1)
    for seed in range(50):
        changed = jitter_limits(limits, augment, np.random.default_rng(seed))
        ratio = (changed[:, 1] - changed[:, 0]) / (limits[:, 1] - limits[:, 0])
        assert np.ptp(ratio) < 1e-5
        assert 0.8 <= ratio[0] <= 1.2
        assert abs(changed[0].mean() - 150) <= 10 + 1e-3
    still = jitter_limits(limits, Augment(), np.random.default_rng(0))
    assert np.allclose(still, limits)


def test_batches_are_dealt_to_the_processes_without_overlap() -> None:
    whole = list(EpochBatches(20, 6, seed=1))
    parts = [list(EpochBatches(20, 6, seed=1, rank=rank, world=2)) for rank in range(2)]
    assert len(whole) == 3
    assert all(set(a) | set(b) == set(w) for w, a, b in zip(whole, *parts, strict=True))
    assert [len(b) for b in EpochBatches(20, 6, seed=None)] == [6, 6, 6, 2]
    assert [len(b) for b in EpochBatches(4, 6, seed=0)] == [4]


def _channels(values: dict[str, dict[str, dict[str, int]]]) -> None:
    values["student"]["preprocess"]["channels"] = 3


def _modality(values: dict[str, dict[str, str]]) -> None:
    values["student"]["modality"] = "nirr"


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [(_channels, ConfigError, "student.preprocess.channels=1"), (_modality, DataError, "did you mean 'nir'")],
)
def test_a_recipe_that_does_not_fit_the_data_is_one_line(
    change: Callable[[object], None], error: type[Exception], message: str
) -> None:
    values = tiny_values()
    change(values)
    with pytest.raises(error, match=message):
        gather_material(Recipe.model_validate(values))


def test_colours_are_shuffled_and_faded_alike_in_all_frames() -> None:
    rng = np.random.default_rng(3)
    clip = rng.normal(size=(2, 6, 4, 4)).astype(np.float32)  # two segments of two stacked colour frames
    assert mix_colours(clip, Augment(), rng) is clip
    mixed = mix_colours(clip, Augment(colour=1.0), np.random.default_rng(5)).reshape(2, 2, 3, 4, 4)
    planes = clip.reshape(2, 2, 3, 4, 4)
    torch.testing.assert_close(torch.from_numpy(mixed.mean(2)), torch.from_numpy(planes.mean(2)))
    draw = np.random.default_rng(5)
    share, order = draw.uniform(0, 1), draw.permutation(3)
    grey = planes.mean(2)
    for c in range(3):
        expected = (1 - share) * planes[:, :, order[c]] + share * grey
        assert np.allclose(mixed[:, :, c], expected, atol=1e-6)
