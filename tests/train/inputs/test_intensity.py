from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as reference

from kd_edge.crop import WHOLE
from kd_edge.preprocess import Preprocess, clip_input
from kd_edge.train.inputs.draws import Draws
from kd_edge.train.inputs.intensity import (
    add_noise,
    add_pattern,
    blur,
    change_input,
    change_planes,
    darken_corners,
    jitter_colours,
    jitter_limits,
    mix_colours,
    normalised,
    plain,
)
from kd_edge.train.recipe.augment import Augment
from kd_edge.window import clip_limits

DRAWS = Draws((0, 1, 2, 0))


class Fixed(np.random.Generator):
    """Draws given values from ``uniform``, and a given order."""

    def __init__(self, values: object, order: tuple[int, ...] = (0, 1, 2)) -> None:
        super().__init__(np.random.PCG64(0))
        self._values, self._order = values, np.array(order)

    def uniform(self, low: object = 0.0, high: object = 1.0, size: object = None) -> object:
        assert np.all(np.less_equal(low, self._values))
        assert np.all(np.less_equal(self._values, high))
        return np.asarray(self._values, dtype=float) if np.ndim(self._values) else self._values

    def permutation(self, count: int) -> np.ndarray:
        assert count == len(self._order)
        return self._order


def planes(frames: int, channels: int, size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((frames, channels, size, size), dtype=np.float32)


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


def test_corners_darken_with_the_squared_distance() -> None:
    """5 x 5, centred: squared distances 8, 5, 4 of the corner's 8, so 0.4, 0.625, 0.7 of 1 for a strength of 0.6."""
    clip = np.ones((2, 3, 5, 5), np.float32)
    darken_corners(clip, 0.8, Fixed((0.6, 0.0, 0.0)))
    row = [1 - 0.6 * 8 / 8, 1 - 0.6 * 5 / 8, 1 - 0.6 * 4 / 8, 1 - 0.6 * 5 / 8, 1 - 0.6 * 8 / 8]
    assert clip[0, 0, 0].tolist() == pytest.approx(row)
    assert clip[1, 2, :, 0].tolist() == pytest.approx(row)
    assert clip[0, 0, 2, 2] == 1


def test_vignetting_off_centre_darkens_the_far_corner_most() -> None:
    clip = np.ones((1, 1, 5, 5), np.float32)
    darken_corners(clip, 0.8, Fixed((0.5, 0.2, -0.2)))  # the centre lies lower and further left
    assert clip[0, 0, 0, 4] == pytest.approx(0.5)  # 1.2^2 + 1.2^2 = 2.88, the furthest
    assert clip[0, 0, 4, 0] == pytest.approx(1 - 0.5 * (0.8**2 + 0.8**2) / 2.88)
    assert clip[0, 0, 4, 4] == pytest.approx(1 - 0.5 * (0.8**2 + 1.2**2) / 2.88)


def test_vignetting_is_bounded_and_alike_in_all_frames() -> None:
    for seed in range(50):
        clip = np.ones((3, 2, 9, 9), np.float32)
        darken_corners(clip, 0.4, np.random.default_rng(seed))
        assert 0.6 - 1e-6 <= clip.min() <= clip.max() <= 1
        assert (clip == clip[0, 0]).all()


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.7])
def test_blur_is_a_gaussian_cut_off_at_three_deviations(sigma: float) -> None:
    radius = math.ceil(3 * sigma)
    clip = np.zeros((2, 1, 25, 25), np.float32)
    clip[1, 0, 12, 12] = 1
    blur(clip, 5.0, Fixed(sigma))
    weights = np.exp(-0.5 * (np.arange(-12, 13) / sigma) ** 2) * (np.abs(np.arange(-12, 13)) <= radius)
    weights /= weights.sum()
    np.testing.assert_allclose(clip[1, 0], np.outer(weights, weights), atol=1e-6)
    assert not clip[0].any()


def test_blur_keeps_flat_images_and_survives_its_extremes() -> None:
    flat = np.full((1, 1, 8, 8), 0.7, np.float32)
    blur(flat, 20.0, Fixed(20.0))  # far wider than the image
    np.testing.assert_allclose(flat, 0.7, rtol=1e-5)
    clip = planes(1, 1, 8)
    still = clip.copy()
    blur(clip, 1.0, Fixed(0.0))
    blur(clip, 1.0, Fixed(1e-9))
    assert np.array_equal(clip, still)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_colour_jitter_of_one_frame_is_torchvisions(order: tuple[int, ...]) -> None:
    clip = planes(1, 3, 12)
    draws = (0.5, -0.6, 0.9)  # factors 1.2, 0.7 and 1.72
    expected = torch.from_numpy(clip.copy())
    steps = [
        lambda x: reference.adjust_brightness(x, 1 + 0.5 * 0.4),
        lambda x: reference.adjust_contrast(x, 1 - 0.6 * 0.5),
        lambda x: reference.adjust_saturation(x, 1 + 0.9 * 0.8),
    ]
    for kind in order:
        expected = steps[kind](expected)
    jitter_colours(clip, 3, Augment(brightness=0.4, contrast=0.5, saturation=0.8), Fixed(draws, order))
    np.testing.assert_allclose(clip, expected.numpy(), atol=2e-6)


def test_contrast_pivots_about_the_grey_of_the_whole_clip() -> None:
    """Grey values 0.2 and 0.6: mean 0.4; half the contrast brings them to 0.3 and 0.5 in every frame."""
    clip = np.full((2, 2, 4, 4), 0.2, np.float32)
    clip[1] = 0.6
    jitter_colours(clip, 1, Augment(contrast=0.5), Fixed((0.0, -1.0, 0.0)))
    np.testing.assert_allclose(clip[:, :, 0, 0], [[0.3, 0.3], [0.5, 0.5]], rtol=1e-6)


def test_brightness_and_saturation_of_known_colours() -> None:
    clip = np.zeros((1, 3, 2, 2), np.float32)
    clip[0, 0] = 1  # red: grey 0.2989
    jitter_colours(clip, 3, Augment(saturation=1.0), Fixed((0.0, 0.0, -1.0)))
    np.testing.assert_allclose(clip[0, :, 0, 0], [0.2989] * 3, rtol=1e-6)
    jitter_colours(clip, 3, Augment(brightness=1.0), Fixed((1.0, 0.0, 0.0)))
    np.testing.assert_allclose(clip[0, :, 0, 0], [0.5978] * 3, rtol=1e-6)
    jitter_colours(clip, 3, Augment(brightness=1.0), Fixed((1.0, 0.0, 0.0)))
    assert clip.max() == 1  # cut off


def test_a_grey_clip_has_no_saturation() -> None:
    clip = planes(2, 3, 8)
    still = clip.copy()
    jitter_colours(clip, 1, Augment(saturation=1.0), Fixed((1.0, 1.0, 1.0)))
    assert np.array_equal(clip, still)


def test_colour_jitter_treats_a_colour_motion_stack_alike() -> None:
    frame = planes(1, 3, 8)
    clip = np.tile(frame, (2, 2, 1, 1))  # (2, 6, 8, 8): the same image everywhere
    augment = Augment(brightness=0.4, contrast=0.4, saturation=0.4)
    jitter_colours(clip, 3, augment, np.random.default_rng(3))
    jitter_colours(frame, 3, augment, np.random.default_rng(3))
    for k in range(2):
        np.testing.assert_allclose(clip[k, :3], frame[0], atol=1e-6)
        np.testing.assert_allclose(clip[k, 3:], frame[0], atol=1e-6)


def test_colours_are_shuffled_and_faded_alike_in_all_frames() -> None:
    rng = np.random.default_rng(3)
    clip = rng.normal(size=(2, 6, 4, 4)).astype(np.float32)  # two segments of two stacked colour frames
    mixed = mix_colours(clip, 1.0, np.random.default_rng(5)).reshape(2, 2, 3, 4, 4)
    stack = clip.reshape(2, 2, 3, 4, 4)
    torch.testing.assert_close(torch.from_numpy(mixed.mean(2)), torch.from_numpy(stack.mean(2)))
    draw = np.random.default_rng(5)
    share, order = draw.uniform(0, 1), draw.permutation(3)
    grey = stack.mean(2)
    for c in range(3):
        expected = (1 - share) * stack[:, :, order[c]] + share * grey
        assert np.allclose(mixed[:, :, c], expected, atol=1e-6)


@pytest.mark.parametrize(("channels", "colours"), [(1, 1), (3, 1), (3, 3), (9, 3)])
def test_pattern_noise_is_one_image_for_the_whole_clip(channels: int, colours: int) -> None:
    clip = planes(4, channels, 32)
    still = clip.copy()
    add_pattern(clip, colours, 0.5, np.random.default_rng(0))
    pattern = (clip - still).reshape(4, -1, colours, 32, 32)
    np.testing.assert_allclose(pattern, np.broadcast_to(pattern[:1, :1], pattern.shape), atol=1e-6)
    assert pattern.std() == pytest.approx(0.5, rel=0.1)
    if colours == 3:
        assert not np.allclose(pattern[0, 0, 0], pattern[0, 0, 1], atol=0.1)  # each colour has its own pixels


@pytest.mark.parametrize("copies", [1, 3])
def test_noise_is_new_in_every_frame_and_alike_in_copies(copies: int) -> None:
    clip = np.zeros((4, 3, 32, 32), np.float32)
    add_noise(clip, copies, 0.5, np.random.default_rng(0))
    assert clip.std() == pytest.approx(0.5, rel=0.05)
    assert abs(np.corrcoef(clip[0, 0].ravel(), clip[1, 0].ravel())[0, 1]) < 0.15
    between = np.corrcoef(clip[0, 0].ravel(), clip[0, 2].ravel())[0, 1]
    assert between == pytest.approx(1) if copies == 3 else abs(between) < 0.15


@pytest.mark.parametrize(
    "spec",
    [
        Preprocess(resize_px=20, input_px=16, replicate=3, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 1.0)),
        Preprocess(resize_px=20, input_px=16, motion_offsets_ms=(0, 70)),
        Preprocess(channels=3, resize_px=20, input_px=16, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4)),
        Preprocess(channels=3, resize_px=20, input_px=16, motion_offsets_ms=(0, 70)),
    ],
)
def test_planes_and_normalisation_are_the_network_input(spec: Preprocess) -> None:
    shape = (5, 20, 24, 3) if spec.channels == 3 else (5, 20, 24)
    frames = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    limits = clip_limits(np.zeros((5, 2), np.float32), np.arange(5), spec.window)
    indices = np.array([[1, 0], [4, 2]])[:, : len(spec.motion_offsets_ms)]
    whole = clip_input(frames, limits, indices, WHOLE, spec)
    parts = clip_input(frames, limits, indices, WHOLE, plain(spec))
    assert 0 <= parts.min() <= parts.max() <= 1
    assert np.array_equal(normalised(parts, spec), whole)


FULL = {
    "vignetting": 0.5, "blur": 2.0, "brightness": 0.4, "contrast": 0.4, "saturation": 0.4,
    "colour": 0.5, "pattern_noise": 0.2, "noise": 0.2,
}  # fmt: skip
COLOUR = Preprocess(channels=3, resize_px=20, input_px=16)


def changed(values: dict[str, float], draws: Draws = DRAWS) -> np.ndarray:
    augment = Augment.model_validate(values)
    clip = planes(2, 3, 16, seed=1) * 0.5 + 0.25
    change_planes(clip, 3, augment, draws)
    return change_input(normalised(clip, COLOUR), COLOUR, augment, draws)


def test_without_settings_nothing_changes() -> None:
    assert np.array_equal(changed({}), normalised(planes(2, 3, 16, seed=1) * 0.5 + 0.25, COLOUR))


@pytest.mark.parametrize("name", FULL)
def test_each_change_alone_changes_the_clip_within_reason(name: str) -> None:
    result = changed({name: FULL[name]})
    assert result.dtype == np.float32
    assert not np.allclose(result, changed({}), atol=1e-3)
    assert np.isfinite(result).all()
    if "noise" not in name:
        assert result.min() >= -2 - 1e-5
        assert result.max() <= 2 + 1e-5


@pytest.mark.parametrize("name", ["pattern_noise", "noise"])
def test_one_change_draws_the_same_beside_another(name: str) -> None:
    """What noise adds does not depend on the vignetting before it, to rounding."""
    alone = changed({name: 0.2}) - changed({})
    beside = changed({name: 0.2, "vignetting": 0.5, "blur": 1.0}) - changed({"vignetting": 0.5, "blur": 1.0})
    np.testing.assert_allclose(alone, beside, atol=1e-5)


def test_epochs_and_modalities_differ() -> None:
    assert not np.allclose(changed(FULL), changed(FULL, Draws((0, 2, 2, 0))), atol=1e-2)
    assert not np.allclose(changed(FULL), changed(FULL, Draws((0, 1, 2, 1))), atol=1e-2)
