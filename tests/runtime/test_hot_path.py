"""What one push allocates; what it costs in time, ``kd-edge bench`` tells (host work)."""

from __future__ import annotations

import tracemalloc

import pytest

from kd_edge.crop import ForegroundRegion
from kd_edge.preprocess import Preprocess
from kd_edge.runtime import Recognizer
from kd_edge.window import PercentileWindow

MS = 1_000_000
KINDS = {
    "224 px": Preprocess(resize_px=256, input_px=224),
    "224 px replicated": Preprocess(resize_px=224, input_px=224, replicate=3),
    "96 px motion stack": Preprocess(resize_px=96, input_px=96, motion_offsets_ms=(0, 70, 140)),
    "96 px percentile motion stack": Preprocess(
        resize_px=96, input_px=96, motion_offsets_ms=(0, 70, 140), window=PercentileWindow()
    ),
    "96 px foreground": Preprocess(resize_px=110, input_px=96, region=ForegroundRegion(low=100)),
    "96 px foreground motion stack": Preprocess(
        resize_px=110, input_px=96, motion_offsets_ms=(0, 70, 140), region=ForegroundRegion(low=100)
    ),
}


@pytest.fixture(params=KINDS)
def steady(request, make_model, noise):
    """A recogniser in steady state, and frames of 640x480."""
    path, _ = make_model(preprocess=KINDS[request.param], segments=8, clip_seconds=2.4, feature_size=512)
    recognizer = Recognizer.load(path)
    frames = noise(16, (480, 640))
    for k in range(100):
        recognizer.push(frames[k % 16], k * 33 * MS)
    return recognizer, frames


def test_steady_state_allocates_no_frame_sized_buffer(steady):
    recognizer, frames = steady
    smallest_buffer = 96 * 96  # bytes of the smallest resized frame
    tracemalloc.start()
    try:
        for k in range(100, 160):  # until what the engine keeps of its runs, some 8 kB, is there
            recognizer.push(frames[k % 16], k * 33 * MS)
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        for k in range(160, 210):
            recognizer.push(frames[k % 16], k * 33 * MS)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    limit = 6 * smallest_buffer  # NumPy's casting buffer (8192 elements) and the percentile grid, not images
    assert peak - before < limit
    assert after - before < smallest_buffer
