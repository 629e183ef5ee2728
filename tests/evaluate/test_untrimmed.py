"""Long videos watched by a tiny student whose probabilities can be worked out by hand, scored by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from kd_edge import artifact, evaluate
from kd_edge.artifact import Artifact, Manifest
from kd_edge.data.dataset import ActionInterval, LongVideo
from kd_edge.data.readers.pku_mmd import LABELS as PKU_LABELS
from kd_edge.engines import open_engine
from kd_edge.errors import ConfigError, DataError
from kd_edge.evaluate import clips, untrimmed
from kd_edge.evaluate.spotting import Spotting
from kd_edge.preprocess import Preprocess
from kd_edge.runtime import Recognizer
from kd_edge.types import Image
from kd_edge.window import FixedWindow

LABELS = ("wave", "clap", "stand")
GREY = (0, 128, 255)
"""The grey level that each class is seen by."""
PERIOD_NS = 100_000_000
PLAIN = Spotting(smooth_seconds=0, gap_seconds=0, shortest_seconds=0)

ACTIONS = (ActionInterval(0, 10, 24), ActionInterval(1, 35, 49))
SEEN = [2] * 10 + [0] * 15 + [2] * 10 + [1] * 15 + [2] * 10


def write_model(
    path: Path, levels: Sequence[int] = GREY, reach: int = 10, doubt: float = 1e-9, **changes: Any
) -> Artifact:
    """A step whose probabilities are in proportion to ``doubt`` + the share of frames that show a class's grey."""
    values: dict[str, Any] = {
        "name": "grey levels", "labels": LABELS, "modality": "ir", "band": "nir", "dtype": "uint8",
        "value_unit": "grey level", "value_range": (0, 255),
        "preprocess": Preprocess(resize_px=8, input_px=8, window=FixedWindow(), mean=(0.0,), std=(1.0,)),
        "segments": 5, "clip_seconds": 0.5, "feature_size": len(levels), "temporal": "tsn", "split": "cross_view",
        "dataset": {"kind": "synthetic"},
    }  # fmt: skip
    manifest = Manifest.model_validate({**values, **changes})
    value = helper.make_tensor_value_info
    constants = {
        "axis": np.array([1], dtype=np.int64),
        "pixels": np.array([1, 2, 3], dtype=np.int64),
        "levels": np.array(levels, dtype=np.float32)[None] / 255,  # (1, K)
        "reach": np.array(reach / 255, dtype=np.float32),
        "doubt": np.array(doubt, dtype=np.float32),
    }
    nodes = [
        helper.make_node("ReduceMean", ["frame", "pixels"], ["brightness4"], keepdims=1),  # (B, 1, 1, 1)
        helper.make_node("Flatten", ["brightness4"], ["brightness"]),  # (B, 1)
        helper.make_node("Sub", ["brightness", "levels"], ["off"]),
        helper.make_node("Abs", ["off"], ["distance"]),
        helper.make_node("Sub", ["reach", "distance"], ["near"]),
        helper.make_node("Relu", ["near"], ["nearness"]),
        helper.make_node("Sign", ["nearness"], ["feature"]),  # (B, K), 1 near the level of a class, else 0
        helper.make_node("Unsqueeze", ["feature", "axis"], ["newest"]),
        helper.make_node("Concat", ["past", "newest"], ["window"], axis=1),  # (B, T, K)
        helper.make_node("ReduceMean", ["window", "axis"], ["share"], keepdims=0),
        helper.make_node("Add", ["share", "doubt"], ["positive"]),
        helper.make_node("Log", ["positive"], ["logits"]),
    ]
    frame, past = ["batch", 1, 8, 8], ["batch", manifest.segments - 1, len(levels)]
    per_class = ["batch", len(levels)]
    graph = helper.make_graph(
        nodes,
        "grey",
        [value("frame", TensorProto.FLOAT, frame), value("past", TensorProto.FLOAT, past)],
        [value("feature", TensorProto.FLOAT, per_class), value("logits", TensorProto.FLOAT, per_class)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    artifact.write(model.SerializeToString(), manifest, None, path)
    return artifact.load(path)


class Videos:
    """Long videos of one grey level per frame."""

    name = "grey videos"
    labels = LABELS

    def __init__(self, videos: dict[str, tuple[ActionInterval, ...]], seen: dict[str, list[int]]) -> None:
        self._videos, self._seen = videos, seen

    def long_videos(self, split: str) -> tuple[LongVideo, ...]:
        assert split == "cross_view"
        return tuple(LongVideo(name, "L", actions) for name, actions in self._videos.items())

    def frames(self, video: LongVideo, modality: str) -> Iterator[tuple[Image, int]]:
        assert modality == "ir"
        if video.id not in self._seen:
            raise DataError(f"{video.id}.avi is damaged", "a readable video", "fetch it again")
        for position, label in enumerate(self._seen[video.id]):
            yield np.full((12, 16), GREY[label], dtype=np.uint8), position * PERIOD_NS


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return write_model(tmp_path_factory.mktemp("model") / "grey.onnx", unknown_threshold=0.9)


def watch(model: Artifact, seen: list[int], *, seconds: float = 0.5, period_ns: int = PERIOD_NS) -> np.ndarray:
    manifest = model.manifest.model_copy(update={"clip_seconds": seconds})
    frames = ((np.full((12, 16), GREY[label], dtype=np.uint8), i * period_ns) for i, label in enumerate(seen))
    scores = untrimmed.watch([Recognizer(manifest, open_engine(model), smooth_ms=0)], frames)
    assert scores.window_seconds == (seconds,)
    return scores.probabilities[0]


# ------------------------------------------------------------------------------------------------- probabilities


def test_a_frame_has_the_probabilities_of_the_window_around_it(model: Artifact) -> None:
    table = watch(model, SEEN)
    assert table.shape == (60, 3)
    shown = np.eye(3)[SEEN]
    middle = [shown[i - 2 : i + 3].mean(0) for i in range(2, 58)]
    np.testing.assert_allclose(table, [middle[0]] * 2 + middle + [middle[-1]] * 2, atol=1e-5)


def test_a_longer_window_reaches_further(model: Artifact) -> None:
    table = watch(model, SEEN, seconds=1.0)  # 5 segments 200 ms apart
    shown = np.eye(3)[SEEN]
    for frame in (8, 9, 10, 30, 51):
        np.testing.assert_allclose(table[frame], shown[frame - 4 : frame + 5 : 2].mean(0), atol=1e-5)


def test_a_video_shorter_than_the_window_has_no_probabilities(model: Artifact) -> None:
    assert not watch(model, SEEN[:4]).any()


def test_frames_far_from_any_window_have_none(model: Artifact) -> None:
    """A recording with a hole of a second: the window fills anew behind it."""
    stamps = [i * PERIOD_NS + (1_000_000_000 if i >= 10 else 0) for i in range(20)]
    frames = ((np.full((12, 16), 0, dtype=np.uint8), stamp) for stamp in stamps[:10] + stamps[10:12])
    scores = untrimmed.watch([Recognizer(model.manifest, open_engine(model))], frames)
    table = scores.probabilities[0]
    assert table[:10, 0].min() > 0.99
    assert not table[10:].any()


def test_no_memory_of_a_video_is_left(model: Artifact) -> None:
    recognizers = [Recognizer(model.manifest, open_engine(model), max_sources=1)]
    source = Videos({"a": (), "b": ()}, {"a": [0] * 8, "b": [1] * 8})
    for name, label in (("a", 0), ("b", 1), ("a", 0)):
        scores = untrimmed.watch(recognizers, source.frames(LongVideo(name, "L", ()), "ir"))
        np.testing.assert_allclose(scores.probabilities[0], np.eye(3)[[label] * 8], atol=1e-5)
    with pytest.raises(DataError, match="without a frame"):
        untrimmed.watch(recognizers, iter(()))


# ------------------------------------------------------------------------------------------------------- figures


def test_intervals_and_figures_are_those_worked_out_by_hand(model: Artifact, tmp_path: Path) -> None:
    """Five proposals: [10, 24] and [35, 49] exactly, and "stand" three times, which no label names.

    At the ends of an action the window shows it in 3 and 4 of 5 frames: (13 of 15 frames at 1) the mean is
    (2 x 0.6 + 2 x 0.8 + 11) / 15 = 0.92.
    """
    source = Videos({"0002-L": ACTIONS}, {"0002-L": SEEN})
    seen: list[tuple[int, int, int]] = []
    result = untrimmed.detect(
        model, source, source.name, "cross_view", settings=PLAIN, write=tmp_path / "found",
        progress=lambda *counts: seen.append(counts),
    )  # fmt: skip
    lines = (tmp_path / "found" / "0002-L.txt").read_text().splitlines()
    expected = ["1,10,24,0.920000", "2,35,49,0.920000", "3,0,9,0.940000", "3,25,34,0.880000", "3,50,59,0.940000"]
    assert sorted(lines) == expected
    assert [float(line.split(",")[3]) for line in lines] == [0.94, 0.94, 0.92, 0.92, 0.88]
    # ascending scores: leave .88 (wrong), then the two right ones at the precisions 2/4 -> 1/3 -> 0 of those left;
    # the largest precision before each is that of the full list, 2/5
    assert (result.videos, result.actions, result.without_proposal) == (1, 2, 0)
    assert result.every.proposals == 5
    assert result.every.ap == pytest.approx(2 / 5)
    assert result.every.f1 == pytest.approx(2 * (2 / 5) / (2 / 5 + 1))
    assert result.every.map_action == pytest.approx(2 / 3)  # 1 and 1, and 0 for the class without an action
    assert result.every.map_video == pytest.approx(2 / 5)
    assert result.every.two_d_ap == pytest.approx(2 / 5)  # both ends are exact: the same at every overlap
    assert result.per_class == pytest.approx({"wave": 1.0, "clap": 1.0})
    assert result.confident is not None  # 0.9 and above: the .88 one is gone
    assert result.confident.proposals == 4
    assert result.confident.f1 == pytest.approx(2 * (2 / 4) / (2 / 4 + 1))
    assert result.frames == 60
    assert seen == [(32, 0, 1)]


def test_a_video_that_cannot_be_read_is_named_and_counts_zero(model: Artifact, tmp_path: Path) -> None:
    source = Videos({"a": ACTIONS, "broken": (ActionInterval(0, 5, 9),)}, {"a": SEEN})
    result = untrimmed.detect(model, source, source.name, "cross_view", settings=PLAIN, write=tmp_path / "found")
    assert result.skipped == {"broken": "broken.avi is damaged"}
    assert result.without_proposal == 1
    assert result.every.map_video == pytest.approx((2 / 5 + 0) / 2)
    assert result.every.f1 == pytest.approx(2 * (2 / 5) * (2 / 3) / (2 / 5 + 2 / 3))
    assert (tmp_path / "found" / "broken.txt").read_text() == ""
    with pytest.raises(DataError, match=r"no long video of split cross_view can be read \(first: a: a.avi is damaged"):
        untrimmed.detect(model, Videos({"a": ACTIONS}, {}), "grey", "cross_view", settings=PLAIN)


def test_proposals_in_a_video_without_actions_are_wrong_ones(model: Artifact) -> None:
    source = Videos({"a": ACTIONS, "idle": ()}, {"a": SEEN, "idle": [2] * 20})
    result = untrimmed.detect(model, source, source.name, "cross_view", settings=PLAIN)
    assert result.every.proposals == 6
    assert result.every.f1 == pytest.approx(2 * (2 / 6) / (2 / 6 + 1))
    assert result.every.map_video == pytest.approx(2 / 5)  # a mean over the videos with an action


def test_a_threshold_that_nothing_reaches_finds_nothing(model: Artifact) -> None:
    source = Videos({"a": ACTIONS}, {"a": [0, 1, 2] * 10})
    strict = PLAIN.model_copy(update={"threshold": 0.9})
    result = untrimmed.detect(model, source, source.name, "cross_view", settings=strict)
    assert result.without_proposal == 1
    assert result.every == untrimmed.DetectionScore(0, 0.0, 0.0, 0.0, 0.0, 0.0)


def test_a_model_without_a_fitted_threshold_has_no_confident_proposals(tmp_path: Path) -> None:
    plain = write_model(tmp_path / "plain.onnx")
    source = Videos({"a": ACTIONS}, {"a": SEEN})
    assert untrimmed.detect(plain, source, source.name, "cross_view", settings=PLAIN).confident is None


def test_mistakes_are_noticed_before_any_video_is_watched(model: Artifact, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    nothing = Videos({"a": ACTIONS}, {})
    with pytest.raises(DataError, match="is not an empty folder"):
        untrimmed.detect(model, nothing, "grey", "cross_view", settings=PLAIN, write=tmp_path)
    for iou in (0.0, 1.5):
        with pytest.raises(ConfigError, match=f"an overlap of {iou:g}"):
            untrimmed.detect(model, nothing, "grey", "cross_view", settings=PLAIN, iou=iou)


# ------------------------------------------------------------------------------------------- through a model file


def test_a_model_file_leads_to_its_data_set(model: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Videos({"0002-L": ACTIONS}, {"0002-L": SEEN})
    monkeypatch.setattr(clips, "open_dataset", lambda config, root: source)
    result = evaluate.detect(model.path, settings=PLAIN, iou=0.5)
    assert (result.dataset, result.split, result.model) == ("grey videos", "cross_view", str(model.path))
    assert result.every.f1 == pytest.approx(2 * (2 / 5) / (2 / 5 + 1))


def test_a_data_set_of_trimmed_clips_is_refused() -> None:
    with pytest.raises(DataError, match="data set synthetic has no long videos"):
        evaluate.detect(artifact.BUNDLED)


def test_pku_mmd_from_its_files_to_the_official_text_format(pku_tree: Path, tmp_path: Path) -> None:
    """In the miniature, frame n is 2n grey and the k-th action takes frames 4k + 3 to 4k + 6.

    A student that knows the grey levels of video 0003 and has a doubt of 0.1 finds its eleven actions exactly, in all
    three views: a window that shows an action in n of 3 frames gives it (n / 3 + 0.1) / (1 + 51 x 0.1) where another
    action follows, so 0.180 inside, 0.126 at its ends and 0.071 beyond, which is less than half.
    """
    levels = [-1000] * len(PKU_LABELS)
    for k in range(11):
        levels[5 * k] = 8 * k + 9
    path = tmp_path / "pku.onnx"
    write_model(
        path, levels, reach=4, doubt=0.1, labels=PKU_LABELS, segments=3, clip_seconds=0.1, split="cross_subject",
        dataset={"kind": "pku_mmd"},
    )  # fmt: skip
    result = evaluate.detect(path, data_root=pku_tree, settings=PLAIN, write=tmp_path / "found")
    assert (result.videos, result.actions, result.frames) == (3, 33, 360)
    perfect = untrimmed.DetectionScore(33, 1.0, 1.0, 11 / 51, 1.0, 1.0)
    assert asdict(result.every) == pytest.approx(asdict(perfect))
    for view in "LMR":
        found = (tmp_path / "found" / f"0003-{view}.txt").read_text().splitlines()
        labelled = (pku_tree / "Label" / f"0003-{view}.txt").read_text().splitlines()
        assert sorted(row.rsplit(",", 1)[0] for row in found) == sorted(row.rsplit(",", 1)[0] for row in labelled)
        between = {row.rsplit(",", 1)[1] for row in found if row.split(",")[0] not in ("1", "51")}
        assert between == {f"{(2 / 3 + 0.1 + 1.1) / 2 / 6.1:.6f}"}


def test_a_window_whose_probabilities_are_not_finite_says_nothing(model: Artifact) -> None:
    rows = [np.full(3, np.nan, dtype=np.float32), np.array([0.1, 0.7, 0.2], dtype=np.float32)]
    table = untrimmed._per_frame(np.array([0, PERIOD_NS]), [0, PERIOD_NS], rows, model.manifest)
    np.testing.assert_array_equal(table, np.array([[0, 0, 0], [0.1, 0.7, 0.2]], dtype=np.float32))
