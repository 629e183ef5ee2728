"""Fixtures for all rooms: the real data where it is, and a guard against leaks."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

# pytest itself, and what OpenCV and torch set when they are imported
SET_BY_LIBRARIES = {"PYTEST_CURRENT_TEST", "LD_LIBRARY_PATH", "QT_QPA_FONTDIR", "QT_QPA_PLATFORM_PLUGIN_PATH"} | {
    "KMP_DUPLICATE_LIB_OK",
    "KMP_INIT_AT_FORK",
    "PYTORCH_NVML_BASED_CUDA_CHECK",
    "TORCHINDUCTOR_CACHE_DIR",
    "TRITON_CACHE_DIR",
}


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of the real data sets; the test is skipped where there is none."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    root = Path(os.environ.get("KD_EDGE_DATA", beside))
    if not root.is_dir():
        pytest.skip(f"no real data: neither KD_EDGE_DATA nor {beside.parent.name}/{beside.name} beside the checkout")
    return root


@pytest.fixture(scope="session")
def utd_root(data_root: Path) -> Path:
    """UTD-MHAD in its official layout."""
    root = data_root / "utd-mhad"
    if not (root / "Depth").is_dir():
        pytest.skip("no UTD-MHAD: its Depth folder is absent")
    return root


def _write_video(
    path: Path,
    images: list[np.ndarray],
    *,
    codec: str = "ffv1",
    gop: int = 12,
    fps: int = 30,
    b_frames: int = 0,
    options: dict[str, str] | None = None,
) -> Path:
    """Write (H, W) or (H, W, 3) uint8 images as a video; ffv1 is lossless, with a key frame every ``gop`` frames."""
    import av

    gray = images[0].ndim == 2
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(fps))
        stream.height, stream.width = images[0].shape[:2]
        lossless = "gray" if gray else "bgr0"
        stream.pix_fmt = {"ffv1": lossless, "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
        stream.options = options or {}
        stream.codec_context.gop_size = gop
        stream.codec_context.max_b_frames = b_frames
        for image in images:
            frame = av.VideoFrame.from_ndarray(image, format="gray" if gray else "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="session")
def write_video() -> Callable[..., Path]:
    """Write a small video file."""
    pytest.importorskip("av")
    return _write_video


@pytest.fixture(scope="session")
def _ntu_master(tmp_path_factory: pytest.TempPathFactory, write_video: Callable[..., Path]) -> Path:
    root = tmp_path_factory.mktemp("ntu") / "ntu-rgbd"
    for view in (1, 2, 3):
        for subject in (1, 2, 3):
            for action in range(1, 11):
                name = f"S001C{view:03d}P{subject:03d}R001A{action:03d}"
                frames = 8 + subject
                ir = [np.full((53, 64), 20 * subject, np.uint8) for _ in range(frames)]
                for t, image in enumerate(ir):  # a bar whose place is the action and which moves a little
                    image[:, 6 * (action - 1) + t % 4 : 6 * (action - 1) + t % 4 + 4] = 200
                rgb = [np.repeat(image[:36, :, None], 3, axis=2) * np.uint8([1, 0, 1]) for image in ir]
                write_video(root / "nturgb+d_rgb" / f"{name}_rgb.avi", rgb)
                write_video(root / "nturgb+d_ir" / f"{name}_ir.avi", ir)
    return root


@pytest.fixture
def ntu_tree(_ntu_master: Path, tmp_path: Path) -> Path:
    """NTU RGB+D in miniature: ten actions by subjects P001, P002 (training) and P003 (test), three views."""
    return Path(shutil.copytree(_ntu_master, tmp_path / "ntu-rgbd"))


@pytest.fixture(scope="session")
def _pku_master(tmp_path_factory: pytest.TempPathFactory, write_video: Callable[..., Path]) -> Path:
    root = tmp_path_factory.mktemp("pku") / "pku-mmd"
    actions = {1: range(1, 27), 2: range(27, 52), 3: range(1, 52, 5), 4: range(2, 52, 5)}  # by number of the video
    ir = [np.full((53, 64), 2 * n, np.uint8) for n in range(120)]
    rgb = [np.full((36, 64, 3), (2 * n, 0, 255 - 2 * n), np.uint8) for n in range(120)]
    for number, chosen in actions.items():
        for view in "LMR":
            name = f"{number:04d}-{view}"
            write_video(root / "Data" / "RGB_VIDEO" / f"{name}.avi", rgb)
            write_video(root / "Data" / "IR_VIDEO" / f"{name}-infrared.avi", ir)
            rows = [f"{action},{4 * k + 3},{4 * k + 6},2" for k, action in enumerate(chosen)]
            (root / "Label").mkdir(exist_ok=True)
            (root / "Label" / f"{name}.txt").write_text("\n".join(rows) + "\n")
    videos = [f"{number:04d}-{view}" for number in actions for view in "LMR"]
    sides = {
        "cross-subject": [[v for v in videos if v[:4] != "0003"], [v for v in videos if v[:4] == "0003"]],
        "cross-view": [[v for v in videos if v[-1] != "L"], [v for v in videos if v[-1] == "L"]],
    }
    (root / "Split").mkdir()
    for name, (train, test) in sides.items():
        lists = ["Training videos:", ", ".join(train) + ",", "Validataion videos:", ", ".join(test) + ","]  # official
        (root / "Split" / f"{name}.txt").write_text("\n".join(lists) + "\n")
    return root


@pytest.fixture
def pku_tree(_pku_master: Path, tmp_path: Path) -> Path:
    """PKU-MMD in miniature: four performances from three views, 120 frames each; frame n is 2n gray in infrared.

    Videos 0001 and 0002 have the 51 actions between them, 0003 is the test side of cross-subject, 0004 may be held out
    for validation. Actions are four frames long and follow one another from frame 3 on.
    """
    return Path(shutil.copytree(_pku_master, tmp_path / "pku-mmd"))


@pytest.fixture(autouse=True)
def _leaks() -> Iterator[None]:
    """A test must not leave threads or environment variables behind."""
    threads = set(threading.enumerate())
    environment = dict(os.environ)
    yield
    deadline = time.monotonic() + 2
    while left := [t for t in threading.enumerate() if t not in threads and t.name.startswith("kd-edge")]:
        if time.monotonic() > deadline:
            pytest.fail(f"threads left running: {left}")
        time.sleep(0.01)
    changed = {k for k in environment.keys() | os.environ.keys() if environment.get(k) != os.environ.get(k)}
    changed -= SET_BY_LIBRARIES
    if changed:
        pytest.fail(f"environment changed: {sorted(changed)}")
