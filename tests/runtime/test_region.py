"""A foreground region on the robot: the same network input as from the recorded clip, in fixed memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from kd_edge.crop import ForegroundRegion, PersonRegion
from kd_edge.preprocess import Normalise, Preprocess, recorded_input
from kd_edge.runtime.source import SourceState
from kd_edge.types import Clip
from kd_edge.window import FixedWindow, PercentileWindow, RelativeWindow

from .conftest import tiny_manifest

MS = 1_000_000
REGION = ForegroundRegion(low=1000, high=3000)
WINDOWS = {"fixed": FixedWindow(low=500, high=3500), "percentile": PercentileWindow(ignore_value=0)}


def walking(count: int, shape: tuple[int, int], dtype: str) -> np.ndarray:
    """Somebody crosses the view, grows, and is gone in the last frames."""
    rng = np.random.default_rng(1)
    frames = np.zeros((count, *shape), dtype)
    person, far = (2000, 3500) if dtype == "uint16" else (120, 220)
    frames[:] = far + rng.integers(0, 20, frames.shape)
    for k in range(count - 3):
        top, left = shape[0] // 4, k * shape[1] // (2 * count)
        height, width = shape[0] // 3 + k // 2, shape[1] // 8 + k % 5
        noise = rng.integers(0, 30, (height, width))
        frames[k, top : top + height, left : left + width] = person + noise
    return frames


def network_input(state: SourceState, spec: Preprocess) -> np.ndarray:
    assert state.stack is not None
    shape = (spec.input_channels, spec.input_px, spec.input_px)
    return Normalise(spec).stack(state.stack.planes, np.empty(shape, np.float32))


def is_ready(state: SourceState, frame: np.ndarray, stamp_ns: int) -> bool:
    """Whether the network input of a frame can be made."""
    state.observe(frame, stamp_ns)
    return state.stack is not None


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("offsets", [(0,), (0, 70), (0, 70, 140)])
@pytest.mark.parametrize(("dtype", "shape", "resize_px"), [("uint16", (48, 64), 24), ("uint8", (45, 61), 30)])
def test_the_stream_sees_what_the_recorded_clip_shows(
    window: str, offsets: tuple[int, ...], dtype: str, shape: tuple[int, int], resize_px: int
) -> None:
    region, limits = REGION, WINDOWS[window]
    if dtype == "uint8":
        region = ForegroundRegion(low=100, high=160, margin=0.2)
        limits = FixedWindow(low=50, high=250) if window == "fixed" else limits
    spec = Preprocess(resize_px=resize_px, input_px=16, motion_offsets_ms=offsets, window=limits, region=region)
    frames = walking(24, shape, dtype)
    stamps = np.arange(24, dtype=np.int64) * 35 * MS
    expected = recorded_input(Clip(frames, stamps), np.arange(24), spec)
    state = SourceState(tiny_manifest(preprocess=spec, dtype=dtype, clip_seconds=1.2))
    ready = []
    for k, (frame, stamp) in enumerate(zip(frames, stamps, strict=True)):
        state.observe(frame, int(stamp))
        if state.stack is not None:
            assert state.is_due
            assert np.array_equal(network_input(state, spec), expected[k]), k
            assert (state.stack.stamp_ns, state.stack.late_ns) == (stamp, 0)
            ready.append(k)
    assert ready == list(range(max(0, offsets[-1] // 35 - 1), 24))  # half a step, 35 ms, is tolerated
    whole = spec.model_validate({**spec.model_dump(), "region": {"kind": "frame"}})
    assert not np.allclose(recorded_input(Clip(frames, stamps), np.arange(24), whole), expected)


@pytest.mark.parametrize("offsets", [(0,), (0, 70, 140)])
@pytest.mark.parametrize("focal", [0.9, None])
@pytest.mark.parametrize("window", [RelativeWindow(low=1000, high=3000), WINDOWS["percentile"]])
def test_a_stream_follows_a_person_as_the_recorded_clip_does(
    window: RelativeWindow | PercentileWindow, focal: float | None, offsets: tuple[int, ...]
) -> None:
    region = PersonRegion(low=1000, high=3000, focal=focal, time_constant_ms=300)
    spec = Preprocess(resize_px=24, input_px=16, motion_offsets_ms=offsets, window=window, region=region)
    frames = walking(24, (48, 64), "uint16")
    stamps = np.arange(24, dtype=np.int64) * 35 * MS
    expected = recorded_input(Clip(frames, stamps), np.arange(24), spec)
    state = SourceState(tiny_manifest(preprocess=spec, dtype="uint16", clip_seconds=1.2))
    for _ in range(2):  # a restart forgets where the person was
        ready = 0
        for k, (frame, stamp) in enumerate(zip(frames, stamps, strict=True)):
            state.observe(frame, int(stamp))
            if state.stack is not None:
                assert np.array_equal(network_input(state, spec), expected[k]), k
                ready += 1
        assert ready == 24 - max(0, offsets[-1] // 35 - 1)
        state.restart("gap")
    assert not np.allclose(expected[10], expected[20])


def test_a_restart_and_another_size_forget_the_frames() -> None:
    spec = Preprocess(resize_px=24, input_px=16, motion_offsets_ms=(0, 70), window=WINDOWS["fixed"], region=REGION)
    state = SourceState(tiny_manifest(preprocess=spec, dtype="uint16", clip_seconds=1.2))
    small, large = walking(6, (48, 64), "uint16"), walking(6, (96, 128), "uint16")
    assert [is_ready(state, frame, k * 70 * MS) for k, frame in enumerate(small)] == [False] + [True] * 5
    state.restart("gap")
    assert not is_ready(state, small[0], 1000 * MS)
    assert is_ready(state, small[1], 1070 * MS)
    assert not is_ready(state, large[0], 1140 * MS)
    assert state.cause.detail == "frame size changed from 64x48 to 128x96"
    assert is_ready(state, large[1], 1210 * MS)
    expected = recorded_input(Clip(large[:2], np.array([0, 70 * MS])), np.array([1]), spec)[0]
    assert np.array_equal(network_input(state, spec), expected)


def test_a_late_plane_is_reported_and_a_gap_starts_anew() -> None:
    spec = Preprocess(resize_px=24, input_px=16, motion_offsets_ms=(0, 70), window=WINDOWS["fixed"], region=REGION)
    state = SourceState(tiny_manifest(preprocess=spec, dtype="uint16", clip_seconds=1.2))  # longest gap 300 ms
    frames = walking(8, (48, 64), "uint16")
    state.observe(frames[0], 0)
    assert is_ready(state, frames[1], 120 * MS)
    assert state.stack.late_ns == 15 * MS  # 50 ms from its moment, 35 ms are tolerated
    assert is_ready(state, frames[2], 420 * MS)
    assert not is_ready(state, frames[3], 721 * MS)


@pytest.mark.parametrize(
    "changes",
    [{"region": ForegroundRegion(low=100)}, {"region": PersonRegion(low=100), "window": RelativeWindow(high=250)}],
)
def test_steady_state_allocates_no_frame_sized_buffer(changes: dict[str, object]) -> None:
    values = {"resize_px": 256, "input_px": 224, "motion_offsets_ms": (0, 70, 140), **changes}
    spec = Preprocess.model_validate(values)
    state = SourceState(tiny_manifest(preprocess=spec, clip_seconds=2.4))
    frames = np.random.default_rng(0).integers(0, 256, (4, 480, 640), dtype=np.uint8)
    for k in range(20):
        state.observe(frames[k % 4], k * 33 * MS)
    tracemalloc.start()
    try:
        state.observe(frames[0], 20 * 33 * MS)
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        for k in range(21, 60):
            state.observe(frames[k % 4], k * 33 * MS)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < 224 * 224


@pytest.mark.parametrize("region", ["frame", "foreground", "person"])
@pytest.mark.parametrize(("px", "offsets"), [(224, (0,)), (96, (0, 70, 140)), (224, (0, 70, 140))])
def test_a_cameras_frames_of_full_size_give_the_clips_input(region: str, px: int, offsets: tuple[int, ...]) -> None:
    values = {"resize_px": px * 8 // 7, "input_px": px, "motion_offsets_ms": offsets, "region": {"kind": region}}
    spec = Preprocess.model_validate(values)
    state = SourceState(tiny_manifest(preprocess=spec, clip_seconds=2.4))
    frames, stamps = walking(8, (480, 640), "uint8"), np.arange(8, dtype=np.int64) * 35 * MS
    expected = recorded_input(Clip(frames, stamps), np.arange(8), spec)
    ready = [k for k in range(8) if is_ready(state, frames[k], int(stamps[k]))]
    assert ready == list(range(max(0, offsets[-1] // 35 - 1), 8))
    assert np.array_equal(network_input(state, spec), expected[-1])
