import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from kd_edge.crop import Crop, centre_crop, crop_pixels
from kd_edge.preprocess import Normalise, Preprocess, clip_input, plane
from kd_edge.window import FixedWindow, clip_limits

WHOLE = Crop(0, 0, 1, 1)


def test_plane_windows_and_clips() -> None:
    image = np.array([[0, 100], [150, 300]], np.uint16)
    assert plane(image, (100, 200), WHOLE, 2).tolist() == [[0.0, 0.0], [0.5, 1.0]]


def test_plane_flips_after_the_crop() -> None:
    image = np.arange(16, dtype=np.uint8).reshape(4, 4)
    right_half = Crop(0, 0.5, 0.5, 0.5, flip=True)
    assert (plane(image, (0, 1000), right_half, 2) * 1000).round().tolist() == [[3, 2], [7, 6]]


@pytest.mark.parametrize(
    ("crop", "expected"),
    [
        (Crop(0, 0, 1, 1), (slice(0, 72), slice(0, 96))),
        (centre_crop(72, 96, 64), (slice(4, 68), slice(16, 80))),
        (Crop(0.99, 0.99, 0.5, 0.5), (slice(71, 72), slice(95, 96))),  # never empty, never outside
    ],
)
def test_crop_pixels(crop: Crop, expected: tuple[slice, slice]) -> None:
    assert crop_pixels((72, 96), crop) == expected


def test_replication_uses_each_channels_statistics() -> None:
    spec = Preprocess(resize_px=8, input_px=8, replicate=3, mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 1.0))
    out = np.empty((3, 8, 8), np.float32)
    Normalise(spec).stack_windowed([np.full((8, 8), 0.5, np.float32)], out)
    assert out[:, 0, 0].tolist() == [0.0, 1.0, 0.5]


def test_colour_channels_stay_in_order() -> None:
    spec = Preprocess(channels=3, resize_px=8, input_px=8, mean=(0.0,), std=(1.0,))
    frames = np.zeros((1, 8, 8, 3), np.uint8)
    frames[..., 0], frames[..., 2] = 255, 51
    out = clip_input(frames, np.array([[0, 255]], np.float32), np.array([[0]]), WHOLE, spec)
    assert out.shape == (1, 3, 8, 8)
    assert out[0, :, 3, 3].tolist() == [1.0, 0.0, pytest.approx(0.2)]


def test_motion_stack_is_newest_first() -> None:
    spec = Preprocess(resize_px=8, input_px=8, motion_offsets_ms=(0, 70), mean=(0.0,), std=(1.0,))
    frames = np.stack([np.full((8, 8), v, np.uint8) for v in (0, 51, 102)])
    limits = clip_limits(np.zeros((3, 2), np.float32), np.arange(3, dtype=np.int64), FixedWindow())
    out = clip_input(frames, limits, np.array([[2, 1], [0, 0]]), WHOLE, spec)
    np.testing.assert_allclose(out[:, :, 0, 0], [[0.4, 0.2], [0.0, 0.0]], rtol=1e-6)


def test_a_colour_motion_stack_has_three_channels_a_frame() -> None:
    spec = Preprocess(channels=3, resize_px=8, input_px=8, motion_offsets_ms=(0, 70), mean=(0.0,), std=(1.0,))
    frames = np.zeros((2, 8, 8, 3), np.uint8)
    frames[0] = [51, 102, 153]
    frames[1] = [204, 255, 0]
    limits = np.array([[0, 255], [0, 255]], np.float32)
    out = clip_input(frames, limits, np.array([[1, 0]]), WHOLE, spec)
    assert spec.input_channels == 6
    np.testing.assert_allclose(out[0, :, 0, 0], [0.8, 1.0, 0.0, 0.2, 0.4, 0.6], rtol=1e-6)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Preprocess, list[np.ndarray], list[tuple[float, float]]]:
    """A preprocessing, one raw part per motion offset, and each part's limits."""
    dtype = draw(st.sampled_from(["uint8", "uint16"]))
    channels, offsets, replicate = draw(st.sampled_from([(1, (0,), 1), (1, (0,), 3), (1, (0, 70), 1), (3, (0, 70), 1)]))
    count = draw(st.sampled_from([1, channels * len(offsets) * replicate]))
    statistic = st.floats(0.0625, 2, width=32)
    spec = Preprocess(
        channels=channels,
        resize_px=8,
        input_px=8,
        motion_offsets_ms=offsets,
        replicate=replicate,
        mean=tuple(draw(st.lists(statistic, min_size=count, max_size=count))),
        std=tuple(draw(st.lists(statistic, min_size=count, max_size=count))),
    )
    rng, top = np.random.default_rng(draw(st.integers(0, 2**32 - 1))), int(np.iinfo(dtype).max)
    shape = (8, 8) if channels == 1 else (8, 8, 3)
    parts = [rng.integers(0, top + 1, shape).astype(dtype) for _ in offsets]
    for part in parts:
        part.flat[:3] = [0, top, top // 2]
    low = st.floats(-100, top)
    limits = [(a, a + draw(st.floats(1, top))) for a in (draw(low) for _ in offsets)]
    return spec, parts, limits


@given(cases(), st.booleans())
def test_what_is_done_to_a_plane_early_changes_no_bit(
    case: tuple[Preprocess, list[np.ndarray], list[tuple[float, float]]], flip: bool
) -> None:
    spec, parts, limits = case
    parts = [part[:, ::-1] for part in parts] if flip else parts
    normalise, shape = Normalise(spec), (spec.input_channels, 8, 8)
    planes = [normalise.plane(part, pair) for part, pair in zip(parts, limits, strict=True)]
    unit = []
    for part, (low, high) in zip(parts, limits, strict=True):
        scale = np.float32(1) / (np.float32(high) - np.float32(low))
        unit.append(np.clip((part.astype(np.float32) - np.float32(low)) * scale, np.float32(0), np.float32(1)))
    expected = normalise.stack_windowed(unit, np.empty(shape, np.float32))
    np.testing.assert_array_equal(normalise.stack(planes, np.empty(shape, np.float32)), expected)
    for c in (0, spec.input_channels - 1):
        mean, std = (np.float32(values[c % len(values)]) for values in (spec.mean, spec.std))
        last = unit[-1 if c else 0]
        values = last if last.ndim == 2 else last[:, :, 2 if c else 0]
        np.testing.assert_array_equal(expected[c], values * (np.float32(1) / std) + -mean / std)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"resize_px": 64, "input_px": 72}, "must not exceed"),
        ({"motion_offsets_ms": (70, 140)}, "start with 0"),
        ({"motion_offsets_ms": (0, 140, 70)}, "increase"),
        ({"channels": 3, "replicate": 3}, "one-channel"),
        ({"channels": 3, "holes": "left_out"}, "a black pixel of a colour camera is no hole"),
        ({"motion_offsets_ms": (0, 70), "replicate": 3}, "either"),
        ({"mean": (0.1, 0.2)}, "needs 1 value, as many as input channels, got 2"),
        ({"window": {"kind": "fixed", "low": 5, "high": 5}}, "below high"),
        ({"window": {"kind": "percentile", "low_percent": 60, "high_percent": 40}}, "below high_percent"),
        ({"std": (0.0,)}, "greater than 0"),
    ],
)
def test_inconsistent_settings(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Preprocess.model_validate(values)
