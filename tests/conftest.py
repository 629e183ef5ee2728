"""Fixtures for all rooms: the real data where it is, and a guard against leaks."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from tests.packages import gestures, install
from tests.recordings import data_root, pytest_terminal_summary, utd_root
from tests.shared import cache_folder, causal_reference, drawn, frugal, once, shared_folder, trained

__all__ = [  # pytest finds them here
    "cache_folder",
    "causal_reference",
    "data_root",
    "drawn",
    "frugal",
    "gestures",
    "install",
    "once",
    "pytest_terminal_summary",
    "shared_folder",
    "trained",
    "utd_root",
]

# pytest itself, and what OpenCV and torch set when they are imported
SET_BY_LIBRARIES = {"PYTEST_CURRENT_TEST", "LD_LIBRARY_PATH", "QT_QPA_FONTDIR", "QT_QPA_PLATFORM_PLUGIN_PATH"} | {
    "KMP_DUPLICATE_LIB_OK",
    "KMP_INIT_AT_FORK",
    "PYTORCH_NVML_BASED_CUDA_CHECK",
    "TORCHINDUCTOR_CACHE_DIR",
    "TRITON_CACHE_DIR",
}


# One run is as another: the examples are the same in every run, and no run remembers those of another one.
# HYPOTHESIS_PROFILE=search draws new ones.
settings.register_profile("repeatable", derandomize=True, database=None, deadline=None)
settings.register_profile("search", database=None, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

# A shell's background job begins with Ctrl-C ignored, and so would every program that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


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


@pytest.fixture(scope="session")
def _berkeley_master(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("berkeley") / "berkeley-mhad"
    for subject, action in product((1, 2, 8), range(1, 12)):
        name = f"s{subject:02d}_a{action:02d}_r01"
        times = [1.3e9 + 10 + n / 20 for n in range(6)]
        correspondences = root / "Camera" / "Correspondences" / f"corr_moc_img_{name}.txt"
        correspondences.parent.mkdir(parents=True, exist_ok=True)
        correspondences.write_text("".join(f"{n} {t:.6f} {24 * n}\n" for n, t in enumerate(times)))
        for cluster, camera in ((1, 1), (3, 2)):
            folders = f"Cluster{cluster:02d}/Cam{camera:02d}/S{subject:02d}/A{action:02d}/R01"
            folder = root / "Camera" / folders
            folder.mkdir(parents=True)
            for n in range(6):
                raw = np.zeros((24, 32), np.uint8)
                raw[0::2, 1::2] = 200  # red: the second of every first line
                raw[:, 2 * action : 2 * action + 4] = 10 * n + subject
                picture = folder / f"img_l{cluster:02d}_c{camera:02d}_{name}_{n:05d}.pgm"
                picture.write_bytes(b"P5\n32 24\n255\n" + raw.tobytes())
        for sensor in range(1, 7):
            path = root / "Accelerometer" / f"Shimmer{sensor:02d}" / f"acc_h{sensor:02d}_{name}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = [f"{sensor / 100} {action / 100} 9.8 {1.3e9 + 9.9 + n / 25:.6f}\n" for n in range(12)]
            path.write_text("".join(lines))
    return root


@pytest.fixture
def berkeley_tree(_berkeley_master: Path, tmp_path: Path) -> Path:
    """Berkeley MHAD in miniature: eleven actions by subjects 1, 2 (training) and 8 (test), views c1_1 and c3_2.

    Six pictures at 20 Hz; accelerometers of 12 samples at 25 Hz, the third of them 20 ms before the first picture.
    """
    return Path(shutil.copytree(_berkeley_master, tmp_path / "berkeley-mhad"))


MMACT_ACTIONS = {1: ("carrying", "using_phone", "Carrying_light"), 2: ("carrying",), 3: ("using_phone", "using_pc")}


@pytest.fixture(scope="session")
def _mmact_master(tmp_path_factory: pytest.TempPathFactory, write_video: Callable[..., Path]) -> Path:
    root = tmp_path_factory.mktemp("mmact") / "mmact"
    colours = {name: 40 * n for n, name in enumerate(("carrying", "using_phone", "Carrying_light", "using_pc"), 1)}
    videos = {
        name: write_video(root.parent / f"{name}.mp4", [np.full((36, 64, 3), colour, np.uint8)] * 10, codec="mpeg4")
        for name, colour in colours.items()
    }
    for subject, scene, session in product((1, 2, 17), MMACT_ACTIONS, (1, 5)):
        for action in MMACT_ACTIONS[scene]:
            for camera in (1, 4):
                video = root / "trimmed" / f"subject{subject}/cam{camera}/scene{scene}/session{session}/{action}.mp4"
                video.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(videos[action], video)
            for folder, rate in (("acc_phone", 100), ("acc_watch", 100), ("gyro", 50), ("orientation", 50)):
                path = root / f"{folder}_clip" / f"subject{subject}/scene{scene}/session{session}/{action}.csv"
                path.parent.mkdir(parents=True, exist_ok=True)
                rows = [f"20181016_13:37:{28 + n / rate:09.6f},{n},{subject},-9.5\n" for n in range(rate // 3)]
                path.write_text("".join(rows))
    return root


@pytest.fixture
def mmact_tree(_mmact_master: Path, tmp_path: Path) -> Path:
    """MMAct in miniature: subjects 1, 2 (training), 17 (test); cameras 1 and 4, scenes 1 to 3, sessions 1 and 5.

    Five of its classes: at the desk of scene 3 ``using_phone`` is ``using_phone_desk``. Ten frames at 30 Hz and a third
    of a second of every sensor.
    """
    return Path(shutil.copytree(_mmact_master, tmp_path / "mmact"))


@pytest.fixture
def no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container that runs under a user id without a name, 12345, and without HOME or a folder of kd-edge's."""

    def unknown(key: object) -> None:
        raise KeyError(f"getpwuid(): uid not found: {key}")

    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "KD_EDGE_CACHE", "KD_EDGE_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(os, "getuid", lambda: 12345)


@pytest.fixture(autouse=True)
def _leaks() -> Iterator[None]:
    """A test must not leave threads or environment variables behind."""
    threads = set(threading.enumerate())
    environment = dict(os.environ)
    yield
    started = [t for t in threading.enumerate() if t not in threads and t.name.startswith("kd-edge")]
    for thread in started:
        thread.join(timeout=60)  # on a busy machine a thread that ends may take a while to
    if left := [t for t in started if t.is_alive()]:
        pytest.fail(f"threads left running: {left}")
    changed = {k for k in environment.keys() | os.environ.keys() if environment.get(k) != os.environ.get(k)}
    changed -= SET_BY_LIBRARIES
    if changed:
        pytest.fail(f"environment changed: {sorted(changed)}")
