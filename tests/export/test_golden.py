from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from kd_edge.artifact import GOLDEN_BYTES, write
from kd_edge.data import ImageFormat
from kd_edge.export.exporter import build_graph, describe
from kd_edge.export.golden import draw, golden_clip, golden_stamps
from kd_edge.export.profile import ExportProfile
from kd_edge.models import ClipModel, ModelConfig, build_model
from kd_edge.models.saved import StudentSpec
from kd_edge.preprocess import Preprocess, recorded_input
from kd_edge.runtime import Recognizer
from kd_edge.types import Clip
from kd_edge.window import FixedWindow, PercentileWindow

MS = 1_000_000
FP32 = ExportProfile(name="fp32")


def test_stamps_without_motion_are_the_segments() -> None:
    segments, stamps = golden_stamps(4, 250 * MS, (0,))
    assert segments.tolist() == stamps.tolist() == [0, 250 * MS, 500 * MS, 750 * MS]


def test_stamps_with_motion_by_hand() -> None:
    segments, stamps = golden_stamps(2, 250 * MS, (0, 70, 140))
    assert (segments // MS).tolist() == [140, 390]
    assert (stamps // MS).tolist() == [0, 70, 140, 250, 320, 390]


def test_close_moments_share_a_frame() -> None:
    # 70, 150, 230 need 0, 80, 160: the last two are served from 10 ms away, with 80 ms halved
    segments, stamps = golden_stamps(3, 80 * MS, (0, 70))
    assert (stamps // MS).tolist() == [0, 70, 110, 150, 190, 230]
    assert (segments // MS).tolist() == [70, 150, 230]


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_have_the_camera_format_and_pack_well(dtype: str, channels: int) -> None:
    picture = draw(0.3, 320, (0, 4000 if dtype == "uint16" else 255), dtype, channels)
    assert picture.shape == ((320, 426) if channels == 1 else (320, 426, 3))
    assert picture.dtype == dtype
    assert picture.max() == round(0.95 * (4000 if dtype == "uint16" else 255))
    assert not np.array_equal(picture, draw(0.4, 320, (0, 255), dtype, channels))


def spec_of(preprocess: Preprocess, dtype: str, clip_seconds: float) -> StudentSpec:
    band = "rgb" if preprocess.channels == 3 else "nir"
    top = 4000.0 if dtype == "uint16" else 255.0
    return StudentSpec.model_validate(
        {
            "model": ModelConfig(backbone="tiny", temporal="tconv", hidden=8),
            "preprocess": preprocess,
            "segments": 8,
            "clip_seconds": clip_seconds,
            "labels": ["a", "b", "c"],
            "modality": band,
            "data": {"kind": "synthetic"},
            "image_format": ImageFormat(band, dtype, preprocess.channels, "grey level", (0.0, top), 30.0),  # type: ignore[arg-type]
            "split": "subjects",
        }
    )


FIXED = Preprocess(resize_px=36, input_px=32, replicate=3)
DEPTH = Preprocess(
    resize_px=36,
    input_px=32,
    window=PercentileWindow(ignore_value=0, time_constant_ms=200),
    motion_offsets_ms=(0, 70, 140),
)
COLOUR = Preprocess(channels=3, resize_px=36, input_px=32, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
HOLED = DEPTH.model_copy(update={"holes": "left_out"})
LONG = Preprocess(resize_px=36, input_px=32, window=FixedWindow(low=40, high=200), motion_offsets_ms=(0, 200, 500))


def seeded_model(spec: StudentSpec) -> ClipModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return build_model(spec.model, spec.preprocess.input_channels, 3, 8).eval()


@pytest.fixture(scope="module")
def graph() -> bytes:
    """The same for all of these: a graph begins behind the preprocessing, at three planes of 32 pixels."""
    assert {(p.input_channels, p.input_px) for p in (FIXED, DEPTH, HOLED, COLOUR, LONG)} == {(3, 32)}
    spec = spec_of(FIXED, "uint8", 2.0)
    return build_graph(seeded_model(spec), spec, FP32).SerializeToString()


@pytest.mark.parametrize(
    ("preprocess", "dtype", "clip_seconds"),
    [
        (FIXED, "uint8", 2.0),
        (COLOUR, "uint8", 1.0),
        (DEPTH, "uint16", 0.56),  # a segment exactly every offset
        (DEPTH, "uint16", 0.8),
        (DEPTH, "uint16", 1.2),
        (DEPTH, "uint16", 1.31),
        (DEPTH, "uint16", 2.27),
        (DEPTH, "uint16", 30.0),
        (HOLED, "uint16", 1.2),
        (LONG, "uint8", 3.3),
    ],
)
def test_a_recognizer_reproduces_the_golden_logits(
    preprocess: Preprocess, dtype: str, clip_seconds: float, graph: bytes, tmp_path: Path
) -> None:
    spec = spec_of(preprocess, dtype, clip_seconds)
    model = seeded_model(spec)
    golden = golden_clip(model.answer, preprocess, spec.image_format, segments=8, clip_seconds=clip_seconds, bound=1e-4)
    manifest = describe(model, spec, FP32, name="tiny")
    write(graph, manifest, golden, tmp_path / "a.onnx")
    error = Recognizer.load(tmp_path / "a.onnx").self_test_error
    assert error is not None
    assert error <= 1e-5


def test_a_runtime_that_averages_holes_is_found_out() -> None:
    spec = spec_of(HOLED, "uint16", 1.2)
    model = seeded_model(spec)
    golden = golden_clip(model.answer, HOLED, spec.image_format, segments=8, clip_seconds=1.2, bound=1e-4)
    assert (golden.frames == 0).any(axis=(1, 2)).all()
    segments, stamps = golden_stamps(8, 150 * MS, HOLED.motion_offsets_ms)
    at = np.searchsorted(stamps, segments)
    error = {}
    for spec_of_it in (DEPTH, HOLED):
        inputs = recorded_input(Clip(golden.frames, golden.stamps_ns), at, spec_of_it)
        error[spec_of_it.holes] = float(np.abs(model.answer(inputs[None])[0] - golden.logits).max())
    assert error["left_out"] <= golden.tolerance < error["averaged"]


@pytest.mark.slow
def test_the_largest_golden_clip_fits_its_share_of_the_file(tmp_path: Path) -> None:
    """Three frames for each of 16 segments at the size of a 256-pixel input, 16 bit."""
    preprocess = Preprocess(resize_px=256, input_px=224, motion_offsets_ms=(0, 70, 140), holes="left_out")
    spec = spec_of(preprocess, "uint16", 4.0)
    model = build_model(spec.model, 3, 3, 16).eval()
    golden = golden_clip(model.answer, preprocess, spec.image_format, segments=16, clip_seconds=4.0, bound=1e-4)
    assert len(golden.frames) == 48
    manifest = describe(model, spec, FP32, name="tiny")
    path = tmp_path / "a.onnx"
    write(b"\x08\x0a", manifest, golden, path)
    assert path.stat().st_size < GOLDEN_BYTES / 2
