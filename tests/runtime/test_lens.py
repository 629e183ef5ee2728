"""One scene through two lenses: a crop in metres is the same, because the camera says its focal length."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kd_edge.crop import ForegroundRegion, PersonRegion, focal_of_view
from kd_edge.errors import CameraError, ConfigError
from kd_edge.preprocess import Preprocess, recorded_input
from kd_edge.runtime import Recognizer, stream
from kd_edge.runtime.cameras.advice import diagnose
from kd_edge.runtime.cameras.base import focal_of
from kd_edge.runtime.cameras.config import CameraConfig, camera_config
from kd_edge.runtime.source import SourceState
from kd_edge.types import Clip
from kd_edge.window import RelativeWindow

from .conftest import HandCamera, tiny_manifest

MS = 1_000_000
REGION = PersonRegion(low=1000, high=3000, side_m=2.0, focal=0.5, time_constant_ms=0)
SPEC = Preprocess(
    resize_px=96,
    input_px=64,
    region=REGION,
    window=RelativeWindow(low=1000, high=3000, span=500),
    motion_offsets_ms=(0, 70),
    mean=(0.0,),
    std=(1.0,),
)
WIDE, LONG = 0.5, 1.0
"""Focal lengths as shares of the frame's width: 90 and 53.13 degrees."""


def scene(count: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Somebody 2 m away spreads arms and legs, through a wide lens and through one of twice the focal length.

    They are alike to both sides, upwards and downwards, so that the median lies between two pixels of either picture.
    """
    wide = np.zeros((count, 96, 128), np.uint16)
    for k in range(count):
        reach = 4 + k % 8
        wide[k, 30:66, 56:72] = 2000
        for top in (36 + k % 3, 56 - k % 3):
            wide[k, top : top + 4, 56 - reach : 72 + reach] = 1900
    middle = wide[:, 24:72, 32:96]
    return wide, np.kron(middle, np.ones((1, 2, 2), np.uint16))


def inputs(frames: np.ndarray, focal: float | None) -> list[np.ndarray]:
    state = SourceState(tiny_manifest(preprocess=SPEC, dtype="uint16", clip_seconds=1.2), focal=focal)
    seen = []
    for k, frame in enumerate(frames):
        state.observe(frame, k * 35 * MS)
        if state.stack is not None:
            seen.append(np.stack(state.stack.planes).copy())
    return seen


def test_the_same_scene_through_two_lenses_is_the_same_crop() -> None:
    """2 m at 2 m are 64 pixels of the wide picture, two of each of the other one's for one of the crop."""
    wide, long = scene()
    as_trained = recorded_input(Clip(wide, np.arange(24) * 35 * MS), np.arange(1, 24), SPEC)
    of_wide, of_long = inputs(wide, WIDE), inputs(long, LONG)
    assert len(of_wide) == 23
    assert np.array_equal(np.stack(of_wide), as_trained)
    for k, (a, b) in enumerate(zip(of_wide, of_long, strict=True)):
        assert np.array_equal(a, b), k
    assert of_wide[0].max() > of_wide[0].min(), "somebody is in view"
    assumed = inputs(long, None)
    assert not np.allclose(assumed[0], of_wide[0]), "taken for the lens of training, they look twice as large"
    assert np.array_equal(np.stack(inputs(wide, None)), as_trained), "not known: as trained"


def test_a_lens_counts_where_the_crop_is_in_metres_only() -> None:
    assert SPEC.focal == 0.5
    assert SPEC.seen_through(0.7).focal == 0.7
    assert SPEC.seen_through(None) is SPEC
    for region in (ForegroundRegion(low=1000), REGION.model_copy(update={"focal": None})):
        other = SPEC.model_copy(update={"region": region})
        assert other.focal is None
        assert other.seen_through(0.7) is other


@pytest.mark.parametrize("focal", [0.1, 20.5, -1.0, float("nan"), float("inf")])
def test_no_lens_has_such_a_focal_length(focal: float) -> None:
    with pytest.raises(ConfigError, match=r"focal length of .*divided by the frame's width"):
        SPEC.seen_through(focal)


@pytest.mark.parametrize("value", ["2.9", "158", "nan", "wide"])
def test_a_camera_file_says_a_view_that_lenses_have(value: str) -> None:
    with pytest.raises(ConfigError, match="hfov_deg"):
        camera_config(f"replay:clip.npy?hfov_deg={value}")


def test_the_file_counts_more_than_the_device() -> None:
    camera: Any = HandCamera()
    assert focal_of(camera) is None
    camera.focal = 0.7
    assert focal_of(camera) == focal_of(camera, CameraConfig(uri="v4l2:")) == 0.7
    assert focal_of(camera, CameraConfig(uri="v4l2:", hfov_deg=90)) == pytest.approx(0.5)
    for wrong in (0.0, "0.7", 30.0, float("nan")):
        camera.focal = wrong
        with pytest.raises(CameraError, match="has focal"):
            focal_of(camera)


@pytest.fixture
def model(make_model: Any) -> Path:
    path, _ = make_model(preprocess=SPEC, dtype="uint16", band="depth", clip_seconds=0.4)
    return Path(path)


def labelled(model: Path, camera: str, **options: Any) -> np.ndarray:
    with stream(model=model, camera=camera, **options) as labels:
        return np.stack([prediction.probabilities for prediction in labels])


def test_a_stream_takes_what_the_camera_file_says(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wide, long = scene()
    np.save(tmp_path / "wide.npy", wide)
    np.save(tmp_path / "long.npy", long)
    at_long = f"replay:{tmp_path}/long.npy?hfov_deg=53.13010235415598&band=depth"
    with caplog.at_level(logging.WARNING):
        expected = labelled(model, f"replay:{tmp_path}/wide.npy?hfov_deg=90&band=depth")
        through_long = labelled(model, at_long)
    assert "reports no field of view" not in caplog.text
    assert expected.any(), "there are labels"
    np.testing.assert_allclose(through_long, expected, atol=1e-6)
    with caplog.at_level(logging.WARNING):
        assumed = labelled(model, f"replay:{tmp_path}/long.npy?band=depth")
    assert "long.npy reports no field of view; this model's crop is in metres and assumes the 90.0" in caplog.text
    assert not np.allclose(assumed, expected, atol=1e-3)


def test_a_recording_remembers_the_lens(model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    np.save(tmp_path / "long.npy", scene()[1])
    first = labelled(model, f"replay:{tmp_path}/long.npy?hfov_deg=53&band=depth", record=tmp_path / "a.mcap")
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        again = labelled(model, f"replay:{tmp_path}/a.mcap")
    assert np.array_equal(again, first)
    assert "how wide it sees" not in caplog.text
    other = labelled(model, f"replay:{tmp_path}/a.mcap?hfov_deg=90")
    assert not np.array_equal(other, first), "what is said of it counts more"


def test_a_recogniser_of_ones_own_is_told(model: Path) -> None:
    wide, long = scene()
    with Recognizer.load(model) as recognizer:
        recognizer.expect(["wide"], focal=WIDE)
        recognizer.expect(["long"], focal=LONG)
        for k in range(24):
            frames = {"wide": (wide[k], k * 35 * MS), "long": (long[k], k * 35 * MS)}
            made = recognizer.push_many(frames)
        of_wide, of_long = made["wide"], made["long"]
        assert of_wide is not None
        assert of_long is not None
        assert of_wide.index >= 0
        np.testing.assert_allclose(of_wide.probabilities, of_long.probabilities, atol=1e-6)
        with pytest.raises(ConfigError, match="focal length"):
            recognizer.expect(["third"], focal=0.0)
        recognizer.expect(["wide", "long"], focal={"wide": WIDE, "long": LONG})
        with pytest.raises(ConfigError, match="for source 'long', which has"):
            recognizer.expect(["fourth", "long"], focal=WIDE)
        recognizer.forget("long")
        recognizer.expect(["long"], focal=WIDE)


def test_the_cameras_doctor_says_what_is_assumed(tmp_path: Path) -> None:
    np.save(tmp_path / "long.npy", scene()[1])
    manifest = tiny_manifest(preprocess=SPEC, dtype="uint16", band="depth")

    def lens(uri: str) -> tuple[str, str, tuple[str, ...]]:
        found = next(a for a in diagnose(uri, 0.1, manifest).advice if a.topic == "lens")
        return found.level, found.found, found.lines

    level, found, lines = lens(f"replay:{tmp_path}/long.npy")
    assert (level, lines) == ("note", ("hfov_deg = 90.0",))
    assumed = "'tiny' crops in metres and was trained with 90.0 degrees"
    assert found == f"the camera's field of view is not known; {assumed}, which are assumed"
    level, found, _ = lens(f"replay:{tmp_path}/long.npy?hfov_deg=60")
    assert (level, found) == ("ok", f"60.0 degrees wide; {assumed}")
    assert focal_of_view(60) == pytest.approx(0.8660254)
