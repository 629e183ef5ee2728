"""PKU-MMD, phase 1: 51 actions in 1,076 long videos of a Kinect v2; RGB and near infrared paired by name.

Source: Liu, Hu, Li, Song, Liu, "PKU-MMD: A large scale benchmark for continuous multi-modal human action
understanding", 2017 (arXiv 1703.07475). The samples here are the labelled intervals, cut out while decoding; the long
videos are available for action detection. The two streams differ in field of view: they are paired in time, not pixel
by pixel.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kd_edge.data.dataset import ActionInterval, ImageFormat, LongVideo, Probe, Sample, Split, listed
from kd_edge.data.readers.hashes import FileHashes
from kd_edge.data.readers.kinect import FORMATS, MODALITIES, no_picture, require_recorded
from kd_edge.data.readers.kinect_skeletons import SKELETON, VERSION, main_body, read_pku
from kd_edge.data.readers.pku_files import find_files, read_labels, read_split
from kd_edge.data.readers.video import VideoInfo, decoder_key, iterate_video, read_video, video_info
from kd_edge.data.splits import check_split, require_split
from kd_edge.errors import DataError
from kd_edge.types import Clip, Float32, Image

LABELS = (
    "bow", "brushing hair", "brushing teeth", "check time (from watch)", "cheer up", "clapping",
    "cross hands in front (say stop)", "drink water", "drop", "eat meal/snack", "falling",
    "giving something to other person", "hand waving", "handshaking", "hopping (one foot jumping)",
    "hugging other person", "jump up", "kicking other person", "kicking something", "make a phone call/answer phone",
    "pat on back of other person", "pickup", "playing with phone/tablet", "point finger at the other person",
    "pointing to something with finger", "punching/slapping other person", "pushing other person", "put on a hat/cap",
    "put something inside pocket", "reading", "rub two hands together", "salute", "sitting down", "standing up",
    "take off a hat/cap", "take off glasses", "take off jacket", "take out something from pocket", "taking a selfie",
    "tear up paper", "throw", "touch back (backache)", "touch chest (stomachache/heart pain)",
    "touch head (headache)", "touch neck (neckache)", "typing on a keyboard",
    "use a fan (with hand or paper)/feeling warm", "wear jacket", "wear on glasses", "wipe face", "writing",
)  # fmt: skip
"""Names of the actions 1 to 51."""

OFFICIAL_VIDEOS = 1076
OFFICIAL_ACTIONS = 21_545
OFFICIAL_SIDES = {"cross_subject": (944, 132), "cross_view": (717, 359)}
"""Training and test videos of the complete data set."""

TEST_VIEW = "L"
"""Test camera of the cross-view protocol; the other two train."""

_RECORDED = (*MODALITIES, SKELETON)
_FOLDERS = {"rgb": "Data/RGB_VIDEO", "ir": "Data/IR_VIDEO", SKELETON: "Data/Skeleton"}
_ENDINGS = {"rgb": ".avi", "ir": "-infrared.avi", SKELETON: ".txt"}


class PkuMmd:
    """Reader of the official files, whatever the spelling of their folders (``pku_files.find_files``).

    Modalities, if at least one file has them: ``rgb`` (T, H, W, 3) and ``ir`` (T, H, W), uint8; ``skeleton`` (T, 25, 3)
    float32 m of the body that moves most in the sample, see ``kinect_skeletons``. A sample is one row of a labels file;
    its id consists of the video, the row and the action: ``0002-L_03_A12``. Its view is L, M or R, its trial the row.
    Its subject is the number of the video, because the files do not name the performers: holding out subject ``0002``
    for validation holds out one performance from all three views. Mirroring changes no class.

    Args:
        root: The data set's folder.
        decode_height_px: Higher pictures are scaled down to this height while decoding.
        hash_memo: File that caches content hashes between runs; None hashes the files each time.

    Raises:
        DataError: The folder is missing, empty or of something else; a labels or split file is invalid.
    """

    name = "pku_mmd"
    labels = LABELS
    flip_labels: tuple[int, ...] | None = tuple(range(len(LABELS)))

    def __init__(self, root: Path, *, decode_height_px: int = 480, hash_memo: Path | None = None) -> None:
        self.root = root
        self._height = decode_height_px
        self._hashes = FileHashes(hash_memo, sampled=True)
        self._infos: dict[Path, VideoInfo] = {}
        found = find_files(root)
        self._label_files, self._split_files = found.labels, found.splits
        self._files = {**found.videos, SKELETON: found.skeletons}
        self._skeletons: tuple[Path, Float32] | None = None  # of the long video that was read last
        self._labels = {video: read_labels(path, len(LABELS)) for video, path in sorted(found.labels.items())}
        self._actions: dict[str, ActionInterval] = {}
        self._video_of: dict[str, str] = {}
        self._samples_of = {
            video: tuple(self._add(video, row, action) for row, action in enumerate(labels.actions, 1))
            for video, labels in self._labels.items()
        }
        self.samples = tuple(s for video in self._recorded() for s in self._samples_of[video])
        self.modalities = tuple(m for m in _RECORDED if self._files[m])

    def path(self, sample: Sample, modality: str) -> Path:
        """Return the file of the long video that a sample's modality is cut from, or its expected path."""
        return self._path(self._video_of[sample.id], modality)

    def interval(self, sample: Sample) -> ActionInterval:
        """Return the frame range of a sample in its long video."""
        return self._actions[sample.id]

    def open(self, sample: Sample, modality: str) -> Clip:
        """Decode only the labelled interval, clipped to the end of the video. See ``Dataset.open``.

        Raises:
            DataError: Also if the interval lies entirely outside the video.
        """
        path, action = self.path(sample, modality), self.interval(sample)
        if modality == SKELETON:
            bodies = self._bodies(path)[:, action.start : action.end + 1]
            if not bodies.size:
                raise _ends_before(path, sample, action)
            return main_body(bodies, path)
        return read_video(
            path,
            gray=modality == "ir",
            start=action.start,
            stop=action.end + 1,
            max_height_px=self._height,
            whole=True,
        )

    def probe(self, sample: Sample, modality: str) -> Probe:
        """See ``Probed.probe``."""
        path, action = self.path(sample, modality), self.interval(sample)
        if modality == SKELETON:  # has no header and is read as a whole
            clip = self.open(sample, modality)
            return Probe(len(clip), clip.seconds)
        info = self._info(path)
        frames = action.end + 1 - action.start
        if info.frames:
            frames = min(action.end + 1, info.frames) - action.start
        if frames < 1:
            raise DataError(
                f"{path} has {info.frames} frames, {sample.id} begins at frame {action.start}",
                "an interval inside the video",
                "fetch the video or its labels again; training continues without it",
            )
        return Probe(frames, (frames - 1) / info.fps)

    def content_key(self, sample: Sample, modality: str) -> str:
        """Sampled hash of the long video (``FileHashes``), interval and decoding; see ``Dataset.content_key``."""
        action = self.interval(sample)
        digest = self._hashes.sha256(self.path(sample, modality))
        if modality == SKELETON:
            return f"{digest}-{action.start}-{action.end}-skeleton{VERSION}"
        return f"{digest}-{action.start}-{action.end}-h{self._height}-{decoder_key()}"

    def image_format(self, modality: str) -> ImageFormat:
        """See ``Dataset.image_format``."""
        self._require(modality)
        return no_picture(self.name) if modality == SKELETON else FORMATS[modality]

    def gaps(self) -> dict[str, str]:
        """Labelled intervals whose video is missing in every modality; see ``Dataset.gaps``."""
        present = {s.id for s in self.samples}
        return {s.id: "no video" for found in self._samples_of.values() for s in found if s.id not in present}

    def remarks(self) -> tuple[str, ...]:
        """Counts against the complete data set, repaired labels, intervals past the end of their video.

        Reads the header of every video. See ``Dataset.remarks``.
        """
        recorded = self._recorded()
        remarks = [
            f"{len(recorded):,} of {OFFICIAL_VIDEOS:,} long videos, {len(self.samples):,} of {OFFICIAL_ACTIONS:,} "
            "labelled actions of the complete data set"
        ]
        for name in self.splits():
            remarks += self._split_remarks(name)
        for modality in (*MODALITIES, *(m for m in self.modalities if m == SKELETON)):
            missing = [video for video in recorded if video not in self._files[modality]]
            if missing:
                remarks.append(
                    f"{modality} is missing in {len(missing):,} of {len(recorded):,} videos: {listed(missing)}"
                )
        unlabelled = sorted((self._files["rgb"].keys() | self._files["ir"].keys()) - self._labels.keys())
        if unlabelled:
            remarks.append(f"not read, without labels file: {listed(unlabelled)}")
        for video, labels in self._labels.items():
            remarks += [
                f"{self._label_files[video].name}, line {line}: start and end are swapped"
                for line in labels.reversed_rows
            ]
        return (*remarks, *self._overhanging())

    def splits(self) -> tuple[str, ...]:
        """``cross_subject`` and ``cross_view``, the official protocols."""
        return ("cross_subject", "cross_view")

    def split(self, name: str) -> Split:
        """See ``Dataset.split``.

        Raises:
            DataError: Also if the split file is missing; only cross-view does not need it.
        """
        train, test = self._sides(name)
        recorded = self._recorded()
        split = Split(
            name,
            train=tuple(s for video in recorded if video in train for s in self._samples_of[video]),
            test=tuple(s for video in recorded if video in test for s in self._samples_of[video]),
        )
        check_split(split, self.labels, by_subject=False)  # a "subject" is one performance from three views
        return split

    def long_videos(self, split: str) -> tuple[LongVideo, ...]:
        """See ``LongVideos.long_videos``; the intervals are those of the labels file."""
        _, test = self._sides(split)
        return tuple(
            LongVideo(video, video[-1], self._labels[video].actions) for video in self._recorded() if video in test
        )

    def frames(self, video: LongVideo, modality: str) -> Iterator[tuple[Image, int]]:
        """See ``LongVideos.frames``."""
        path = self._path(video.id, modality)
        for frame in iterate_video(path, gray=modality == "ir", max_height_px=self._height, whole=True):
            yield frame.image, frame.stamp_ns

    def _add(self, video: str, row: int, action: ActionInterval) -> Sample:
        sample = Sample(f"{video}_{row:02d}_A{action.label + 1:02d}", video[:4], video[-1], f"{row:02d}", action.label)
        self._actions[sample.id] = action
        self._video_of[sample.id] = video
        return sample

    def _recorded(self) -> tuple[str, ...]:
        """Labelled long videos with at least one image modality, in order."""
        return tuple(v for v in self._labels if v in self._files["rgb"] or v in self._files["ir"])

    def _require(self, modality: str) -> None:
        ending = _ENDINGS.get(modality, "")
        require_recorded(modality, _RECORDED, self.modalities, self.name, f"{_FOLDERS.get(modality)}/XXXX-V{ending}")

    def _path(self, video: str, modality: str) -> Path:
        self._require(modality)
        return self._files[modality].get(video, self.root / _FOLDERS[modality] / f"{video}{_ENDINGS[modality]}")

    def _bodies(self, path: Path) -> Float32:
        """(2, T, 25, 3) of a long video; the last one is kept because its samples are usually opened in turn."""
        if self._skeletons is None or self._skeletons[0] != path:
            self._skeletons = path, read_pku(path)
        return self._skeletons[1]

    def _info(self, path: Path) -> VideoInfo:
        if path not in self._infos:
            self._infos[path] = video_info(path)
        return self._infos[path]

    def _sides(self, name: str) -> tuple[frozenset[str], frozenset[str]]:
        """Names of the training and test videos of a protocol."""
        require_split(name, self.splits(), self.name)
        if name in self._split_files:
            train, test = read_split(self._split_files[name])
            return frozenset(train), frozenset(test)
        if name == "cross_view":
            test_side = frozenset(v for v in self._labels if v[-1] == TEST_VIEW)
            return frozenset(self._labels) - test_side, test_side
        raise DataError(
            f"no file cross-subject.txt below {self.root}",
            "the data set's own list, the only source of who performs",
            "put it into Split/, or choose the split cross_view",
        )

    def _split_remarks(self, name: str) -> list[str]:
        try:
            sides = self._sides(name)
        except DataError as error:
            return [f"{name} is not possible: {error.found}"]
        recorded = set(self._recorded())
        counts = [
            f"{len(side & recorded):,} of {official:,} {kind}"
            for side, official, kind in zip(sides, OFFICIAL_SIDES[name], ("training", "test"), strict=True)
        ]
        remarks = [f"{name}: {counts[0]} and {counts[1]} videos"]
        if name not in self._split_files:
            remarks.append(f"{name} is derived from the views (test {TEST_VIEW}): no file cross-view.txt")
        both = sorted({v[:4] for v in sides[0]} & {v[:4] for v in sides[1]})
        if name == "cross_subject" and both:
            remarks.append(f"{name}: performances on both sides: {listed(both)}")
        neither = sorted(recorded - sides[0] - sides[1])
        if neither:
            remarks.append(f"{name}: on neither side: {listed(neither)}")
        return remarks

    def _overhanging(self) -> Iterator[str]:
        """Remarks on intervals that extend past their video; those entirely outside are reported by the check."""
        for sample in self.samples:
            for modality in (m for m in self.modalities if m in MODALITIES):
                path, action = self.path(sample, modality), self.interval(sample)
                try:
                    frames = self._info(path).frames
                except DataError:
                    continue
                if action.start < frames <= action.end:
                    yield f"{sample.id} ends at frame {action.end}, {path.name} has {frames}: existing ones are used"


def _ends_before(path: Path, sample: Sample, action: ActionInterval) -> DataError:
    return DataError(
        f"{path} is damaged: it ends before frame {action.start}, where {sample.id} begins",
        "an interval inside the video",
        "fetch the skeletons or the labels again; training continues without it",
    )
