"""One picture of each camera; one that fails or hangs does not stop the others."""

from __future__ import annotations

import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from kd_edge.errors import ConfigError
from kd_edge.runtime.cameras import stills
from kd_edge.runtime.cameras.stills import grab_stills
from tests.waiting import PATIENCE_SECONDS


def test_pictures_of_8_and_16_bits_and_of_colour(tmp_path: Path) -> None:
    heat = np.tile(np.arange(8000, 8064, dtype=np.uint16), (48, 1))
    np.save(tmp_path / "heat.npy", heat[None])
    figure = "synthetic:?height_px=48&width_px=64&realtime=false"
    uris = (f"replay:{tmp_path}/heat.npy", "nope", figure, f"{figure}&modality=rgb")
    taken = grab_stills(uris, tmp_path / "pictures")
    sixteen, none, eight, colour = taken
    np.testing.assert_array_equal(cv2.imread(str(sixteen.file), cv2.IMREAD_UNCHANGED), heat)
    preview = cv2.imread(str(sixteen.preview), cv2.IMREAD_UNCHANGED)
    assert (preview.dtype, preview.min(), preview.max()) == (np.uint8, 0, 255)
    assert (sixteen.what, eight.what) == ("uint16 64x48", "uint8 64x48")
    assert "unknown camera 'nope'" in none.fault
    assert (none.file, eight.preview) == (None, None)
    assert cv2.imread(str(eight.file), cv2.IMREAD_UNCHANGED).shape == (48, 64)
    assert cv2.imread(str(colour.file), cv2.IMREAD_UNCHANGED).shape == (48, 64, 3)
    assert len({still.file for still in taken if still.file}) == 3


@pytest.mark.slow
def test_a_camera_that_hangs_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs, made = threading.Event(), stills.make_camera

    def make(name: str, config: object) -> object:
        if "seed=1" in name:
            hangs.wait()
        return made(name, config)

    monkeypatch.setattr(stills, "make_camera", make)
    figure = "synthetic:?height_px=48&width_px=64&realtime=false"
    hung, good = grab_stills((f"{figure}&seed=1", f"{figure}&seed=2"), tmp_path, seconds=2.0)
    hangs.set()
    assert hung.fault == "no picture within 2 s"
    assert good.file.exists()


def test_a_bug_in_a_camera_is_in_the_log_with_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bug = KeyError("exposure")

    def make(name: str, config: object) -> object:
        raise bug

    monkeypatch.setattr(stills, "make_camera", make)
    (still,) = grab_stills(("synthetic:",), tmp_path, seconds=PATIENCE_SECONDS)
    assert still.fault.startswith("synthetic: fails ('exposure')")
    (trace,) = caplog.records
    assert (trace.levelname, trace.exc_info and trace.exc_info[1]) == ("ERROR", bug)


def test_a_folder_that_cannot_be_written_is_told_before_any_camera_is_opened(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="--stills"):
        grab_stills(("synthetic:",), tmp_path / "file" / "pictures")
