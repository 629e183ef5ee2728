"""NTU RGB+D 60: 60 actions, 40 subjects, three Kinect v2 cameras; RGB and near-infrared video paired by name.

Source: Shahroudy, Liu, Ng, Wang, "NTU RGB+D: A large scale dataset for 3D human activity analysis", CVPR 2016. Ten of
its classes, A001 to A010, are those of Quan et al., "A cross-modal knowledge distillation approach for RGB-to-infrared
video action recognition". The two streams differ in field of view: they are paired in time, not pixel by pixel.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, NamedTuple

from kd_edge.data.dataset import ImageFormat, Probe, Sample, Split, listed
from kd_edge.data.readers.hashes import FileHashes
from kd_edge.data.readers.kinect import FORMATS, MODALITIES, held, no_picture, require_recorded, walk
from kd_edge.data.readers.kinect_skeletons import SKELETON, VERSION, main_body, read_ntu
from kd_edge.data.readers.video import decoder_key, read_video, video_info
from kd_edge.data.splits import check_split, require_split
from kd_edge.errors import DataError
from kd_edge.files import expanded
from kd_edge.types import Clip

LABELS = (
    "drink water", "eat meal/snack", "brushing teeth", "brushing hair", "drop", "pickup", "throw", "sitting down",
    "standing up (from sitting position)", "clapping", "reading", "writing", "tear up paper", "wear jacket",
    "take off jacket", "wear a shoe", "take off a shoe", "wear on glasses", "take off glasses", "put on a hat/cap",
    "take off a hat/cap", "cheer up", "hand waving", "kicking something",
    "put something inside pocket / take out something from pocket", "hopping (one foot jumping)", "jump up",
    "make a phone call/answer phone", "playing with phone/tablet", "typing on a keyboard",
    "pointing to something with finger", "taking a selfie", "check time (from watch)", "rub two hands together",
    "nod head/bow", "shake head", "wipe face", "salute", "put the palms together", "cross hands in front (say stop)",
    "sneeze/cough", "staggering", "falling", "touch head (headache)", "touch chest (stomachache/heart pain)",
    "touch back (backache)", "touch neck (neckache)", "nausea or vomiting condition",
    "use a fan (with hand or paper)/feeling warm", "punching/slapping other person", "kicking other person",
    "pushing other person", "pat on back of other person", "point finger at the other person",
    "hugging other person", "giving something to other person", "touch other person's pocket", "handshaking",
    "walking towards each other", "walking apart from each other",
)  # fmt: skip
"""Names of the actions A001 to A060."""

ACTIONS = {"ten": 10, "all": 60}
"""Choice of classes -> number of labels, from A001 on."""

TRAINING_SUBJECTS = frozenset(
    f"P{n:03d}" for n in (1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38)
)
"""Training side of the cross-subject protocol; every other subject tests."""

TEST_VIEW = "C001"
"""Test camera of the cross-view protocol; the other two train."""

OFFICIAL_PER_CLASS = {"cross_subject": (672, 276), "cross_view": (632, 316)}
"""Training and test samples of every class in the complete data set: 40,320 / 16,560 and 37,920 / 18,960 in all."""

_LAYOUT = "nturgb+d_rgb/SsssCcccPpppRrrrAaaa_rgb.avi and nturgb+d_ir/SsssCcccPpppRrrrAaaa_ir.avi"
_FILE = re.compile(r"(S\d{3}C\d{3}P\d{3}R\d{3}A\d{3})(?:_(rgb|ir)\.avi|\.(skeleton))", re.IGNORECASE)
_RECORDED = (*MODALITIES, SKELETON)
_FOLDERS = {"rgb": "nturgb+d_rgb", "ir": "nturgb+d_ir", SKELETON: "nturgb+d_skeletons"}
_NAME = re.compile(r"(?<![A-Z0-9])S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})(?!\d)", re.IGNORECASE)


class NtuRgbd:
    """Reader of the official files, in their folders or anywhere below the root.

    Modalities, if at least one file has them: ``rgb`` (T, H, W, 3) and ``ir`` (T, H, W), uint8; ``skeleton`` (T, 25, 3)
    float32 m of the body that moves most, see ``kinect_skeletons``. A sample has at least one video. Its id is its
    official name, its subject ``P001``, its view ``C001``, its trial setup and replication, ``S001R001``. Mirroring
    changes no class.

    Args:
        root: The data set's folder.
        actions: ``ten`` (A001 to A010) or ``all`` (A001 to A060).
        exclude: Text file of sample names to leave out, for example the official list of samples with missing
            skeletons; every name on a line counts, other text is ignored. A relative path is resolved against ``root``
            first, then against the current folder.
        decode_height_px: Higher pictures are scaled down to this height while decoding.
        hash_memo: File that caches content hashes between runs; None hashes the files each time.

    Raises:
        DataError: The folder is missing, empty or of something else, or the list names no sample.
    """

    name = "ntu_rgbd"

    def __init__(
        self,
        root: Path,
        *,
        actions: Literal["ten", "all"] = "ten",
        exclude: Path | None = None,
        decode_height_px: int = 480,
        hash_memo: Path | None = None,
    ) -> None:
        self.root = root
        self.labels = LABELS[: ACTIONS[actions]]
        self.flip_labels: tuple[int, ...] | None = tuple(range(len(self.labels)))
        self._height = decode_height_px
        self._hashes = FileHashes(hash_memo)
        found = _recorded(root, len(self.labels))
        self._files, self._duplicates, self._foreign = found
        self.modalities = tuple(m for m in _RECORDED if self._files[m])
        listed_names = _excluded(root, exclude) if exclude else frozenset()
        recorded = self._files["rgb"].keys() | self._files["ir"].keys()
        self._left_out = dict.fromkeys(sorted(recorded & listed_names), f"excluded by {exclude}")
        self.samples = tuple(_sample(sample_id) for sample_id in sorted(recorded - listed_names))

    def path(self, sample: Sample, modality: str) -> Path:
        """Return the file of a sample's modality, or its expected path."""
        self._require(modality)
        name = f"{sample.id}.skeleton" if modality == SKELETON else f"{sample.id}_{modality}.avi"
        return self._files[modality].get(sample.id, self.root / _FOLDERS[modality] / name)

    def open(self, sample: Sample, modality: str) -> Clip:
        """Decode one clip; a file that ends before its header says is damaged. See ``Dataset.open``."""
        path = self.path(sample, modality)
        if modality == SKELETON:
            return main_body(read_ntu(path), path)
        return read_video(path, gray=modality == "ir", max_height_px=self._height, whole=True)

    def probe(self, sample: Sample, modality: str) -> Probe:
        """See ``Probed.probe``; a skeleton has no header and is read."""
        if modality == SKELETON:
            clip = self.open(sample, modality)
            return Probe(len(clip), clip.seconds)
        info = video_info(self.path(sample, modality))
        return Probe(info.frames, max(0, info.frames - 1) / info.fps)

    def content_key(self, sample: Sample, modality: str) -> str:
        """Hash of the whole file (a few MB) and the decoding; see ``Dataset.content_key``."""
        digest = self._hashes.sha256(self.path(sample, modality))
        return f"{digest}-skeleton{VERSION}" if modality == SKELETON else f"{digest}-h{self._height}-{decoder_key()}"

    def image_format(self, modality: str) -> ImageFormat:
        """See ``Dataset.image_format``."""
        self._require(modality)
        return no_picture(self.name) if modality == SKELETON else FORMATS[modality]

    def gaps(self) -> dict[str, str]:
        """Samples left out by ``exclude``, and those missing in every modality; see ``Dataset.gaps``.

        In the complete data set every performance (setup, subject, replication) has every action from every camera.
        Setups, subjects, cameras and actions that this copy lacks entirely are not expected.
        """
        present = {s.id for s in self.samples} | self._left_out.keys()
        parts = [_parts(sample_id) for sample_id in present]
        cameras, actions = sorted({p.camera for p in parts}), sorted({p.action for p in parts})
        every = (
            f"S{setup}C{camera}P{subject}R{replication}A{action}"
            for setup, subject, replication in sorted({(p.setup, p.subject, p.replication) for p in parts})
            for camera in cameras
            for action in actions
        )
        return {**self._left_out, **{name: "no file" for name in every if name not in present}}

    def remarks(self) -> tuple[str, ...]:
        """Counts against the complete data set, and irregularities; see ``Dataset.remarks``."""
        official = len(self.labels) * sum(OFFICIAL_PER_CLASS["cross_view"])
        remarks = [f"{len(self.samples):,} of {official:,} samples of the complete data set"]
        for name in self.splits():
            split, (train, test) = self._split(name), OFFICIAL_PER_CLASS[name]
            remarks.append(
                f"{name}: {len(split.train):,} of {train * len(self.labels):,} training and {len(split.test):,} of "
                f"{test * len(self.labels):,} test samples"
            )
        for modality in (*MODALITIES, *(m for m in self.modalities if m == SKELETON)):
            missing = [s.id for s in self.samples if s.id not in self._files[modality]]
            if missing:
                remarks.append(f"{modality} is missing in {len(missing):,} of {len(self.samples):,}: {listed(missing)}")
        if self._left_out:
            remarks.append(f"excluded: {listed(self._left_out)}")
        if self._duplicates:
            remarks.append(f"found twice, the first is read: {listed(self._duplicates)}")
        if self._foreign:
            remarks.append(f"not read: {self._foreign:,} of NTU RGB+D 120 (A061 and higher)")
        return tuple(remarks)

    def splits(self) -> tuple[str, ...]:
        """``cross_subject`` and ``cross_view``, the official protocols."""
        return ("cross_subject", "cross_view")

    def split(self, name: str) -> Split:
        """See ``Dataset.split``."""
        require_split(name, self.splits(), self.name)
        split = self._split(name)
        check_split(split, self.labels, by_subject=name == "cross_subject")
        return split

    def _require(self, modality: str) -> None:
        ending = ".skeleton" if modality == SKELETON else f"_{modality}.avi"
        place = f"{_FOLDERS.get(modality)}/*{ending}"
        require_recorded(modality, _RECORDED, self.modalities, self.name, place)

    def _split(self, name: str) -> Split:
        def trains(sample: Sample) -> bool:
            return sample.subject in TRAINING_SUBJECTS if name == "cross_subject" else sample.view != TEST_VIEW

        train = tuple(s for s in self.samples if trains(s))
        return Split(name, train, tuple(s for s in self.samples if not trains(s)))


class _Parts(NamedTuple):
    """Digits of a sample's name."""

    setup: str
    camera: str
    subject: str
    replication: str
    action: str


class _Recorded(NamedTuple):
    """Modality -> sample id -> file; names of duplicate files; number of files of the larger data set."""

    files: dict[str, dict[str, Path]]
    duplicates: list[str]
    foreign: int


def _parts(sample_id: str) -> _Parts:
    match = _NAME.match(sample_id)
    assert match is not None, "ids come from file names of this form"
    return _Parts(*match.groups())


def _sample(sample_id: str) -> Sample:
    p = _parts(sample_id)
    return Sample(sample_id, f"P{p.subject}", f"C{p.camera}", f"S{p.setup}R{p.replication}", int(p.action) - 1)


def _recorded(root: Path, classes: int) -> _Recorded:
    """Find every file of the requested classes."""
    found = _Recorded({m: {} for m in _RECORDED}, [], 0)
    others, foreign = 0, 0
    for path in walk(root, f"the folder of NTU RGB+D, with {_LAYOUT}"):
        match = _FILE.fullmatch(path.name)
        if match is None:
            continue
        sample_id, modality = match[1].upper(), (match[2] or match[3]).lower()
        action = int(_parts(sample_id).action)
        if not 1 <= action <= classes:
            others, foreign = others + 1, foreign + (action > len(LABELS))
        elif sample_id in found.files[modality]:
            found.duplicates.append(path.name)
        else:
            found.files[modality][sample_id] = path
    if not any(found.files[m] for m in MODALITIES):
        what = f"{others} files of other classes" if others else held(root)
        raise DataError(
            f"no NTU RGB+D recording of A001 to A{classes:03d} in {root} (it contains {what})",
            _LAYOUT,
            "give the data set's own folder as --data, or one that contains it as ntu-rgbd/",
        )
    return found._replace(foreign=foreign)


def _excluded(root: Path, given: Path) -> frozenset[str]:
    """Sample names in a text file, whose path may be relative to the data set's folder."""
    path = expanded(given)
    below = root / path  # an absolute path stays unchanged
    try:
        text = (below if below.exists() else path).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        place = "" if path.is_absolute() else f", neither in {root} nor in {Path.cwd()}"
        raise DataError(
            f"cannot read {given} ({error.strerror}{place})",
            "a text file of sample names",
            "correct exclude in the recipe",
        ) from error
    names = frozenset(match[0].upper() for match in _NAME.finditer(text))
    if not names:
        raise DataError(f"{given} names no sample", "lines like S001C002P005R002A008", "correct exclude in the recipe")
    return names
