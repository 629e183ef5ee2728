"""Class examples: which frames are taken, how they are made visible, and the sheet they are put on."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from kd_edge.data import FilesData, ImageFormat, NtuRgbdData, Sample, SyntheticData, open_dataset
from kd_edge.errors import DataError
from kd_edge.pictures.examples import class_examples, contact_sheet, draw_examples, viewable
from kd_edge.types import Clip

RGB = ImageFormat("rgb", "uint8", 3, "intensity", (0.0, 255.0), 30)
NIR = ImageFormat("nir", "uint8", 1, "grey level", (0.0, 255.0), 30)
DEPTH = ImageFormat("depth", "uint16", 1, "mm", (0.0, 4000.0), 30)


class Numbered:
    """Two classes; the images of a clip carry the frame's number, infrared has half as many as colour."""

    name = "numbered"
    labels = ("wave", "clap")
    modalities = ("rgb", "ir", "inertial")

    def __init__(self, broken: tuple[str, ...] = ()) -> None:
        self.samples = tuple(Sample(f"{label}{i}", "1", "front", "1", label) for label in (0, 1) for i in (1, 2))
        self._broken = broken

    def open(self, sample: Sample, modality: str) -> Clip:
        if f"{sample.id} {modality}" in self._broken:
            raise DataError(f"{sample.id}_{modality}.avi is damaged", "a video", "fetch it")
        count, shape = (12, (40, 60, 3)) if modality == "rgb" else (6, (20, 20))
        frames = np.stack([np.full(shape, 20 * i, dtype=np.uint8) for i in range(count)])
        return Clip(frames, np.arange(count, dtype=np.int64) * 33_000_000)

    def image_format(self, modality: str) -> ImageFormat:
        if modality == "inertial":
            raise DataError("modality 'inertial' is a signal", "an image modality", "use rgb or ir")
        return {"rgb": RGB, "ir": NIR}[modality]


def test_every_class_shows_the_same_moments_in_every_camera() -> None:
    examples = class_examples(Numbered(), frames=3, height_px=10)  # type: ignore[arg-type]
    assert [(e.label, e.modality, e.sample) for e in examples] == [
        ("wave", "rgb", "01"), ("wave", "ir", "01"), ("clap", "rgb", "11"), ("clap", "ir", "11"),
    ]  # fmt: skip
    rgb, ir = examples[0].frames, examples[1].frames
    assert rgb.shape == (3, 10, 15, 3)
    assert ir.shape == (3, 10, 10, 3)
    assert rgb[:, 0, 0, 0].tolist() == [40, 120, 200]  # frames 2, 6, 10 of 12
    assert ir[:, 0, 0, 0].tolist() == [0, 128, 255]  # frames 1, 3, 5 of 6, windowed


def test_classes_and_modalities_are_chosen_in_the_given_order() -> None:
    examples = class_examples(Numbered(), classes=["clap"], modalities=["ir", "rgb"], frames=1)  # type: ignore[arg-type]
    assert [(e.label, e.modality) for e in examples] == [("clap", "ir"), ("clap", "rgb")]
    assert len(class_examples(Numbered(), most_classes=1)) == 2  # type: ignore[arg-type]


def test_an_unreadable_sample_gives_way_to_the_next() -> None:
    examples = class_examples(Numbered(("01 ir",)), classes=["wave"])  # type: ignore[arg-type]
    assert {e.sample for e in examples} == {"02"}


def test_of_an_incomplete_copy_what_is_there_is_drawn_and_the_rest_named() -> None:
    lacking: dict[str, str] = {}
    copy = Numbered(("01 ir", "02 ir", "11 rgb", "12 ir"))
    examples = class_examples(copy, lacking=lacking)  # type: ignore[arg-type]
    assert [(e.label, e.modality, e.sample) for e in examples] == [
        ("wave", "rgb", "01"), ("clap", "rgb", "12"), ("clap", "ir", "11"),
    ]  # fmt: skip
    assert lacking == {"wave, ir": "01_ir.avi is damaged"}
    copy.samples = copy.samples[:2]
    lacking.clear()
    assert len(class_examples(copy, lacking=lacking)) == 1  # type: ignore[arg-type]
    assert lacking["clap, rgb"] == lacking["clap, ir"] == "no sample is here"


def test_a_copy_without_anything_to_draw_is_refused() -> None:
    with pytest.raises(DataError, match=r"no clip of numbered can be drawn \(first: wave, ir: 01_ir.avi is damaged"):
        class_examples(Numbered(("01 ir", "02 ir")), classes=["wave"], modalities=["ir"])  # type: ignore[arg-type]


def test_own_recordings_with_a_missing_modality_and_a_damaged_file(tmp_path: Path) -> None:
    """The infrared of a class is missing, of another damaged; nobody can tell what the depth is."""
    for label in ("wave", "clap", "walk"):
        (tmp_path / label).mkdir()
        np.save(tmp_path / label / "1_rgb.npy", np.full((6, 20, 20, 3), 90, np.uint8))
    np.save(tmp_path / "wave" / "1_ir.npy", np.tile(np.arange(20, dtype=np.uint8), (6, 20, 1)))
    (tmp_path / "clap" / "1_ir.npy").write_bytes(b"damaged")
    (tmp_path / "walk" / "1_depth.npy").write_bytes(b"damaged")
    lacking: dict[str, str] = {}
    examples = class_examples(open_dataset(FilesData(), tmp_path), frames=2, lacking=lacking)
    assert {(e.label, e.modality) for e in examples} == {
        ("wave", "rgb"), ("clap", "rgb"), ("walk", "rgb"), ("wave", "ir"),
    }  # fmt: skip
    assert sorted(lacking) == ["clap, ir", "depth", "walk, ir"]
    assert "1_ir.npy" in lacking["clap, ir"]
    assert "1_depth.npy" in lacking["depth"]
    assert "has no ir" in lacking["walk, ir"]


def test_unknown_names_are_answered_with_the_closest() -> None:
    with pytest.raises(DataError, match=r"numbered has no class 'wavw' \(did you mean 'wave'\?\)"):
        class_examples(Numbered(), classes=["wavw"])  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"no modality 'rbg' \(did you mean 'rgb'\?\)"):
        class_examples(Numbered(), modalities=["rbg"])  # type: ignore[arg-type]
    with pytest.raises(DataError, match="'inertial' is a signal"):
        class_examples(Numbered(), modalities=["inertial"])  # type: ignore[arg-type]


def test_colour_stays_as_it_is() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)
    np.testing.assert_array_equal(viewable(frames, RGB), frames)


def test_infrared_is_stretched_and_a_hot_pixel_does_not_darken_the_rest() -> None:
    frames = np.tile(np.arange(50, 150, dtype=np.uint8), (1, 10, 1))  # (1, 10, 100), 50 .. 149
    frames[0, 0, 0] = 255
    shown = viewable(frames, NIR)
    assert shown.shape == (1, 10, 100, 3)
    assert shown[0, 1, 0, 0] == 0
    assert shown[0, 1, -1, 0] >= 253
    assert shown[0, 1, 50, 0] == pytest.approx(255 * 50 / 99, abs=3)


def test_depth_without_a_measurement_stays_black_below_all_measured_values() -> None:
    frames = np.zeros((1, 10, 20), dtype=np.uint16)
    frames[:, :, 5:15] = np.linspace(2000, 3000, 10).astype(np.uint16)
    shown = viewable(frames, DEPTH)[0, 5, :, 0]
    assert (shown[:5] == 0).all()
    assert shown[5] == 40
    assert shown[14] == 255
    assert (np.diff(shown[5:15].astype(int)) > 0).all()
    assert not viewable(np.zeros((1, 4, 4), dtype=np.uint16), DEPTH).any()
    assert (viewable(np.full((1, 4, 4), 700, dtype=np.uint16), DEPTH) == 40).all()  # no contrast, no division by zero


def test_the_sheet_puts_rows_below_each_other() -> None:
    wide, high = np.full((2, 4, 6, 3), 10, dtype=np.uint8), np.full((3, 8, 2, 3), 20, dtype=np.uint8)
    sheet, middles = contact_sheet([wide, high])
    assert sheet.shape == (4 + 2 + 8 + 2, 16, 3)
    assert middles == [1.5, 6 + 3.5]
    expected = np.full((16, 16), 255)
    expected[0:4, 0:6] = expected[0:4, 8:14] = 10
    for left in (0, 4, 8):
        expected[6:14, left : left + 2] = 20
    np.testing.assert_array_equal(sheet[:, :, 0], expected)


def test_the_picture_holds_the_frames_pixel_by_pixel(tmp_path: Path) -> None:
    dataset = open_dataset(SyntheticData(clips_per_class=2, subjects=2, height_px=48, width_px=64))
    examples = class_examples(dataset, classes=["clap"], frames=4)
    draw_examples(examples, "synthetic", tmp_path / "deep" / "sheet.png")
    image = cv2.imread(str(tmp_path / "deep" / "sheet.png"))
    assert image is not None
    sheet, _ = contact_sheet([e.frames for e in examples])
    height, width = sheet.shape[:2]
    assert np.abs(image[-height:, -width:, ::-1].astype(int) - sheet).max() <= 1
    assert image[:, : image.shape[1] - width].min() < 128  # names at the left
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["sheet.png"]


def test_the_ten_classes_of_ntu_rgbd_in_both_cameras(ntu_tree: Path) -> None:
    """In the miniature a bar stands further right the higher the action's number is."""
    examples = class_examples(open_dataset(NtuRgbdData(), ntu_tree), frames=2, height_px=53)
    assert len(examples) == 20
    assert [e.modality for e in examples] == ["rgb", "ir"] * 10
    bars = [int(e.frames[0, 26, :, 0].astype(int).argmax()) for e in examples if e.modality == "ir"]
    assert bars == sorted(bars)
    assert bars[-1] - bars[0] == 9 * 6
