"""UTD-MHAD: 27 actions, 8 subjects, 4 trials; depth, skeleton, inertial, and RGB if the user has it.

Source: Chen, Jafari, Kehtarnavaz, "UTD-MHAD: A multimodal dataset for human action recognition utilizing a depth
camera and a wearable inertial sensor", ICIP 2015. The depth images have their background removed: they are depth, not
infrared. The skeleton leads the depth image by about two frames (60 ms): over all subjects more joints fall on the
foreground of the depth image two frames later (95.5 % instead of 93.2 %). Both keep their recorded indices here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kd_edge.data.dataset import ImageFormat, Sample, SignalFormat, Split, require_modality
from kd_edge.data.readers.hashes import FileHashes
from kd_edge.data.splits import check_split, require_split
from kd_edge.data.splits import split_by_subject as by_subject
from kd_edge.errors import DataError, reason
from kd_edge.packages import import_extra
from kd_edge.types import Clip, Int64

FPS = 30
"""Frame rate of the depth and colour streams (Kinect), 1/s."""

SENSOR_HZ = 79.0
"""Rate of the worn sensors on the clock of the depth images, 1/s (72 to 138, median 79.4). The published rates are 50
for the sensors and 30 for the images; one of them is wrong, because a recording has 2.65 times as many samples as
images."""

LABELS = (
    "swipe left", "swipe right", "wave", "clap", "throw", "arm cross", "basketball shoot", "draw x",
    "draw circle clockwise", "draw circle counter-clockwise", "draw triangle", "bowling", "boxing", "baseball swing",
    "tennis swing", "arm curl", "tennis serve", "push", "knock", "catch", "pickup and throw", "jog", "walk",
    "sit to stand", "stand to sit", "lunge", "squat",
)  # fmt: skip

NEVER_RECORDED = ("a8_s1_t4", "a23_s6_t4", "a27_s8_t4")
"""The three of 27 x 8 x 4 combinations that the data set lacks."""

SUBJECTS = tuple(str(s) for s in range(1, 9))

_POSES = ("pose", "pose_centred")
_FILES = {  # modality: folder, end of the file name, key in the .mat, shape with None for time
    "depth": ("Depth", "_depth.mat", "d_depth", (240, 320, None)),
    "pose": ("Skeleton", "_skeleton.mat", "d_skel", (20, 3, None)),
    "pose_centred": ("Skeleton", "_skeleton.mat", "d_skel", (20, 3, None)),
    "skeleton": ("Skeleton", "_skeleton.mat", "d_skel", (20, 3, None)),
    "inertial": ("Inertial", "_inertial.mat", "d_iner", (None, 6)),
    "accelerometer": ("Inertial", "_inertial.mat", "d_iner", (None, 6)),
    "gyroscope": ("Inertial", "_inertial.mat", "d_iner", (None, 6)),
    "rgb": ("RGB", "_color.avi", "", ()),
}
_FORMATS = {
    "depth": ImageFormat("depth", "uint16", 1, "mm", (0.0, 4000.0), FPS),
    "pose": ImageFormat("rgb", "uint8", 3, "intensity", (0.0, 255.0), FPS),
    "pose_centred": ImageFormat("rgb", "uint8", 3, "intensity", (0.0, 255.0), FPS),
    "rgb": ImageFormat("rgb", "uint8", 3, "intensity", (0.0, 255.0), FPS),
}
_SENSORS = {  # sensor: columns of the inertial file, format
    "accelerometer": (slice(0, 3), SignalFormat("g", (-8.0, 8.0), SENSOR_HZ)),
    "gyroscope": (slice(3, 6), SignalFormat("degree/s", (-1000.0, 1000.0), SENSOR_HZ)),
}
_NAME = re.compile(r"a(\d+)_s(\d+)_t(\d+)_")


class UtdMhad:
    """Reader of the original layout ``Depth/aA_sS_tT_depth.mat``, ``Skeleton/``, ``Inertial/``, ``RGB/``.

    Modalities: ``depth`` (T, 240, 320) uint16 mm, 0 = no measurement; ``pose`` (T, 240, 320, 3) uint8, the skeleton
    drawn in the depth camera's view; ``pose_centred``, the same centred on the person; ``skeleton`` (T, 20, 3) float32
    m; ``inertial`` (T, 6) float32, acceleration in g and angular rate in degree/s; ``accelerometer`` and ``gyroscope``
    (T, 3) float32, either half of it; ``rgb`` (T, 480, 640, 3) uint8, only if ``RGB/`` has files.

    Mirroring changes the class of swipes (left, right) and circles (clockwise, counter-clockwise): ``flip_labels``
    swaps them. The worn sensors are not mirrored.

    Args:
        root: The data set's folder.
        hash_memo: File that caches content hashes between runs; None hashes the files each time.

    Raises:
        DataError: The folder is missing, empty or of something else.
    """

    name = "utd_mhad"
    labels = LABELS
    sensors = tuple(_SENSORS)
    flip_labels: tuple[int, ...] | None = (1, 0, *range(2, 8), 9, 8, *range(10, len(LABELS)))

    def __init__(self, root: Path, hash_memo: Path | None = None) -> None:
        self.root = root
        self._hashes = FileHashes(hash_memo)
        found = _recorded(root)
        self.samples = tuple(_sample(*key) for key in sorted(found))
        has_rgb = any((root / "RGB").glob("a*_color.avi"))
        self.modalities = ("depth", *_POSES, "skeleton", "inertial", *_SENSORS) + (("rgb",) if has_rgb else ())

    def path(self, sample: Sample, modality: str) -> Path:
        """Return the file of a sample's modality, whether it exists or not."""
        require_modality(modality, self.modalities, self.name)
        folder, ending, _, _ = _FILES[modality]
        return self.root / folder / f"{sample.id}{ending}"

    def open(self, sample: Sample, modality: str) -> Clip:
        """Decode one clip; see ``Dataset.open``."""
        path = self.path(sample, modality)
        if modality == "rgb":
            from kd_edge.data.readers.video import read_video

            return read_video(path, whole=True)
        values = _read_mat(path, _FILES[modality][2], _FILES[modality][3])
        if modality == "depth":
            return Clip(depth_frames(values, path), _stamps(values.shape[2]))
        if modality == "inertial" or modality in _SENSORS:
            columns = _SENSORS[modality][0] if modality in _SENSORS else slice(None)
            signal = np.ascontiguousarray(values[:, columns], dtype=np.float32)
            return Clip(signal, self._inertial_stamps(sample, len(values)))
        joints = np.ascontiguousarray(values.transpose(2, 0, 1), dtype=np.float32)  # (T, 20, 3)
        stamps = _stamps(len(joints))
        if modality == "skeleton":
            return Clip(joints, stamps)
        from kd_edge.data.readers.utd_pose import centred, render

        return Clip(render(centred(joints) if modality == "pose_centred" else joints), stamps)

    def content_key(self, sample: Sample, modality: str) -> str:
        """Hash of the file and of the other inputs of ``open``; see ``Dataset.content_key``.

        These are the version of the drawing for poses and, for signals, the skeleton, whose length decides the stamps.
        """
        digest = self._hashes.sha256(self.path(sample, modality))
        if modality == "inertial" or modality in _SENSORS:
            return f"{digest}-{modality}-{self._hashes.sha256(self.path(sample, 'skeleton'))}"
        if modality == "rgb":
            from kd_edge.data.readers.video import decoder_key

            return f"{digest}-{decoder_key()}"
        if modality not in _POSES:
            return digest
        from kd_edge.data.readers.utd_pose import VERSION

        return f"{digest}-{modality}{VERSION}"

    def image_format(self, modality: str) -> ImageFormat:
        """See ``Dataset.image_format``."""
        require_modality(modality, self.modalities, self.name)
        if modality not in _FORMATS:
            raise DataError(
                f"modality '{modality}' of {self.name} is a signal",
                "an image modality",
                f"use depth, {', '.join(_POSES)} or rgb",
            )
        return _FORMATS[modality]

    def signal_format(self, sensor: str) -> SignalFormat:
        """See ``Wearables.signal_format``."""
        require_modality(sensor, self.sensors, self.name)
        return _SENSORS[sensor][1]

    def gaps(self) -> dict[str, str]:
        """See ``Dataset.gaps``; three combinations were never recorded."""
        present = {s.id for s in self.samples}
        every = (f"a{a}_s{s}_t{t}" for a in range(1, len(LABELS) + 1) for s in SUBJECTS for t in range(1, 5))
        return {i: "never recorded" if i in NEVER_RECORDED else "no file" for i in every if i not in present}

    def remarks(self) -> tuple[str, ...]:
        """See ``Dataset.remarks``; missing recordings are listed in ``gaps``."""
        return ()

    def splits(self) -> tuple[str, ...]:
        """``trials`` (1-2 / 3-4), ``odd_even`` subjects (the standard protocol), and ``subject_N`` left out."""
        return ("trials", "odd_even", *(f"subject_{s}" for s in SUBJECTS))

    def split(self, name: str) -> Split:
        """See ``Dataset.split``."""
        require_split(name, self.splits(), self.name)
        if name == "trials":
            train = tuple(s for s in self.samples if s.trial in ("1", "2"))
            test = tuple(s for s in self.samples if s.trial not in ("1", "2"))
            split = Split(name, train, test)
        elif name == "odd_even":
            split = by_subject(name, self.samples, SUBJECTS[1::2])
        else:
            split = by_subject(name, self.samples, [name.removeprefix("subject_")])
        check_split(split, self.labels, by_subject=name != "trials")
        return split

    def _inertial_stamps(self, sample: Sample, frames: int) -> Int64:
        """Stamps spread evenly over the duration of the depth clip, because the sensor's own clock is not recorded."""
        path = self.path(sample, "skeleton")  # as long as the depth clip, and ten times smaller
        depth_frames = _read_mat(path, "d_skel", (20, 3, None)).shape[2]
        return np.linspace(0, _stamps(depth_frames)[-1], frames).round().astype(np.int64)


def sample_of(path: Path) -> Sample | None:
    """Return the sample of a UTD-MHAD file by its name (``a4_s2_t1_depth.mat``), or None for any other name."""
    match = _NAME.match(path.name)
    if match is None:
        return None
    key = tuple(int(part) for part in match.groups())
    return _sample(*key) if 1 <= key[0] <= len(LABELS) else None


def depth_clip(path: Path) -> Clip:
    """Read one ``aA_sS_tT_depth.mat``: (T, 240, 320) uint16 in mm at 30 frames per second.

    Raises:
        DataError: The file is missing, damaged or of another kind; the message names it.
    """
    values = _read_mat(path, "d_depth", (240, 320, None))
    return Clip(depth_frames(values, path), _stamps(values.shape[2]))


def depth_frames(values: npt.NDArray[Any], path: Path) -> npt.NDArray[np.uint16]:
    """Reorder stored frames: (240, 320, T) -> (T, 240, 320) contiguous."""
    if values.dtype != np.uint16:
        raise _damaged(path, f"d_depth is {values.dtype}", "uint16")
    return np.ascontiguousarray(values.transpose(2, 0, 1))


def _sample(action: int, subject: int, trial: int) -> Sample:
    return Sample(f"a{action}_s{subject}_t{trial}", str(subject), "front", str(trial), action - 1)


def _stamps(frames: int) -> Int64:
    return np.arange(frames, dtype=np.int64) * 1_000_000_000 // FPS


def _recorded(root: Path) -> set[tuple[int, int, int]]:
    """(action, subject, trial) of every recording with at least one modality."""
    if not root.is_dir():
        raise DataError(f"no folder {root}", "the folder of UTD-MHAD, with Depth/ and Skeleton/", "correct --data")
    found = set()
    for folder in sorted({entry[0] for entry in _FILES.values()}):
        for path in (root / folder).glob("a*_s*_t*_*"):
            match = _NAME.match(path.name)
            if match and 1 <= int(match[1]) <= len(LABELS):
                found.add((int(match[1]), int(match[2]), int(match[3])))
    if not found:
        inside = ", ".join(sorted(p.name for p in root.iterdir())[:5]) or "nothing"
        raise DataError(
            f"no UTD-MHAD recording in {root} (it contains {inside})",
            "Depth/aA_sS_tT_depth.mat, Skeleton/aA_sS_tT_skeleton.mat, Inertial/aA_sS_tT_inertial.mat",
            "give the data set's own folder as --data, or one that contains it as utd-mhad/",
        )
    return found


def _read_mat(path: Path, key: str, shape: tuple[int | None, ...]) -> npt.NDArray[Any]:
    """One array of a MATLAB file, its shape checked (None stands for time) and its values finite."""
    if not path.is_file():
        raise DataError(f"no file {path}", "the recording", "complete the data set (kd-edge data check)")
    io = import_extra("scipy.io", "train")
    try:
        values = io.loadmat(path, variable_names=[key]).get(key)
    except MemoryError:
        raise
    except Exception as error:  # SciPy raises a dozen types on damaged files, among them plain Exception
        if isinstance(error, OSError) and error.errno is not None:
            raise  # a fault of the machine: the file must not be recorded as damaged
        raise _damaged(path, reason(error), "a MATLAB 5 file") from error
    if not isinstance(values, np.ndarray):
        raise _damaged(path, f"it has no array '{key}'", f"'{key}'")
    fits = values.ndim == len(shape) and all(s in (None, n) for s, n in zip(shape, values.shape, strict=True))
    if not fits or 0 in values.shape:
        raise _damaged(path, f"'{key}' has shape {values.shape}", f"{shape}, None for time")
    if values.dtype.kind not in "uif" or (values.dtype.kind == "f" and not np.isfinite(values).all()):
        raise _damaged(path, f"'{key}' ({values.dtype}) is not made of finite numbers", "finite numbers")
    return values


def _damaged(path: Path, found: str, expected: str) -> DataError:
    return DataError(f"{path} is damaged: {found}", expected, "fetch this file again; training continues without it")
