"""The far-infrared action set: a small one written here in its format, and the real one where it is."""

from __future__ import annotations

import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from kd_edge.data import FirActionData, Sample, open_dataset
from kd_edge.data.check import check
from kd_edge.data.config import known_kind
from kd_edge.data.dataset import ActionInterval, Sequences
from kd_edge.data.readers.fir_action import LABELS, FirAction, recording_of
from kd_edge.data.readers.thermal_csv import read_thermal, start_up
from kd_edge.data.splits import validation_split
from kd_edge.errors import DataError
from tests.recordings import absent
from tests.thermal import csv_lines, write_set

FIRST = "20170203_p1_light1"


@pytest.fixture
def fir_tree(tmp_path: Path) -> Path:
    """Two days of two recordings each; see ``tests.thermal``."""
    write_set(tmp_path / "fir-action")
    return tmp_path / "fir-action"


def one(dataset: FirAction, sample_id: str) -> Sample:
    return next(s for s in dataset.samples if s.id == sample_id)


def message(caught: pytest.ExceptionInfo[DataError]) -> str:
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_sample_is_a_line_of_the_annotation(fir_tree: Path) -> None:
    dataset = FirAction(fir_tree)
    assert LABELS == ("walking", "sitting down", "standing up", "falling down", "stopping")
    assert len(dataset.samples) == 4 * 5
    assert dataset.samples[5:10] == (  # in the order of time; the lines of the file are not
        Sample(f"{FIRST}_01", "1", "ceiling", "p1_light1", 0),
        Sample(f"{FIRST}_02", "1", "ceiling", "p1_light1", 1),
        Sample(f"{FIRST}_03", "1", "ceiling", "p1_light1", 4),
        Sample(f"{FIRST}_04", "2", "ceiling", "p1_light1", 2),
        Sample(f"{FIRST}_05", "2", "ceiling", "p1_light1", 3),
    )
    assert dataset.modalities == ("fir",)
    form = dataset.image_format("fir")
    assert (form.band, form.dtype, form.channels, form.value_unit) == ("lwir", "uint16", 1, "cK")
    assert dataset.flip_labels == (0, 1, 2, 3, 4)
    assert isinstance(dataset, Sequences)


def test_frames_count_from_one_and_pixels_are_hundredths_of_a_kelvin(fir_tree: Path) -> None:
    """Frame n of the file is ``tests.thermal.celsius(n)``: 20 deg C, pixel 5 warmer by n hundredths."""
    dataset = FirAction(fir_tree)
    sample = one(dataset, f"{FIRST}_02")  # annotated 30 to 34
    assert dataset.interval(sample) == ActionInterval(1, 29, 33)
    clip = dataset.open(sample, "fir")
    assert clip.frames.shape == (5, 16, 16)
    assert clip.frames.dtype == np.uint16
    assert clip.frames[:, 0, 5].tolist() == [29_345, 29_346, 29_347, 29_348, 29_349]  # 293.15 K and 0.30 to 0.34
    assert clip.frames[:, 0, 4].tolist() == [29_315] * 5
    assert clip.frames[:, 15, 15].tolist() == [29_415] * 5  # the last pixel is the last column
    assert clip.stamps_ns.tolist() == [0, 100_000_000, 200_000_000, 300_000_000, 700_000_000]  # one gap of 0.4 s


def test_a_whole_recording_begins_when_the_sensor_has_settled(fir_tree: Path) -> None:
    dataset = FirAction(fir_tree)
    recordings = dataset.sequences(dataset.samples[::-1])
    assert [(recording_of(group[0]), len(group)) for group in recordings] == [
        ("20170203_p1_dark1", 5),
        (FIRST, 5),
        ("20170206_p1_dark1", 5),
        ("20170206_p1_light1", 5),
    ]
    first = recordings[1]
    clip, actions = dataset.sequence(first, "fir")
    assert len(clip) == 80 - 9  # the values of the first nine frames climb
    assert clip.stamps_ns[0] == 0
    assert clip.frames[0, 0, 5] == 29_315 + 10
    assert actions[1] == ActionInterval(1, 29 - 9, 33 - 9)
    assert clip.frames[actions[1].start, 0, 5] == dataset.open(first[1], "fir").frames[0, 0, 5]


def test_a_day_is_left_out_with_its_people(fir_tree: Path) -> None:
    dataset = FirAction(fir_tree)
    assert dataset.splits() == ("day_20170203", "day_20170206", "day_20170209", "day_20170210", "dark")
    split = dataset.split("day_20170203")
    assert ({s.subject for s in split.train}, {s.subject for s in split.test}) == ({"3", "4"}, {"1", "2"})
    dark = dataset.split("dark")
    assert {s.trial for s in dark.train} == {"p1_light1"}
    assert {s.trial for s in dark.test} == {"p1_dark1"}
    with pytest.raises(DataError, match="leaves no training sample of class 'walking', 'sitting down', 'stopping'"):
        validation_split(split.train, ["3"], labels=LABELS)
    with pytest.raises(DataError, match="split 'day_20170210' has no test sample"):
        dataset.split("day_20170210")
    with pytest.raises(DataError, match=r"no split 'day_2017020' \(did you mean 'day_20170210'"):
        dataset.split("day_2017020")


def test_it_is_opened_as_a_kind_of_data_set(fir_tree: Path) -> None:
    for root in (fir_tree, fir_tree.parent):
        assert open_dataset(FirActionData(root=root)).labels == LABELS
        assert known_kind(root) == "fir_action"
    report = check(FirAction(fir_tree), ["fir"])
    assert (report.samples, report.complete, report.modalities[0].frames) == (20, 20, (5, 5, 5))
    assert report.remarks[0] == "2 of 4 days, 20 of 2,520 annotated actions of the complete data set"
    assert "CC BY-NC-SA 4.0" in report.remarks[1]


def test_what_is_not_there_is_told(fir_tree: Path) -> None:
    (fir_tree / "20170203" / "raw" / f"{FIRST}.csv").unlink()
    (fir_tree / "20170206" / "raw" / "20170206_p9_light1.csv").write_text("")
    dataset = FirAction(fir_tree)
    assert dataset.gaps() == {f"{FIRST}_{k:02d}": "no file" for k in range(1, 6)}
    assert dataset.remarks()[-1] == "not read, without annotations: '20170206_p9_light1'"
    gone = Sample(f"{FIRST}_01", "1", "ceiling", "p1_light1", 0)
    with pytest.raises(DataError, match=rf"no file .*{FIRST}\.csv") as caught:
        dataset.open(gone, "fir")
    message(caught)
    with pytest.raises(DataError, match="fir_action has no modality 'rgb'"):
        dataset.open(gone, "rgb")


def test_a_recording_that_ends_before_its_annotation_does(fir_tree: Path) -> None:
    path = fir_tree / "20170203" / "raw" / f"{FIRST}.csv"
    path.write_text("\n".join(path.read_text().splitlines()[: 2 + 60]) + "\n")
    dataset = FirAction(fir_tree)
    assert len(dataset.open(one(dataset, f"{FIRST}_04"), "fir")) == 5
    with pytest.raises(DataError, match=rf"{FIRST}\.csv has 60 frames, {FIRST}_05 ends at frame 74") as caught:
        dataset.open(one(dataset, f"{FIRST}_05"), "fir")
    message(caught)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (f"{FIRST}.csv,20,24,walk", r"line 1: 4 fields\. Expected file,start,end,action,subject"),
        (f"{FIRST}.csv,20,24,jump,human1", r"line 1: action 'jump'\. Expected one of walk, walk1, walk2, sitdown"),
        (f"{FIRST}.csv,20,24,walk3,human1", r"line 1: action 'walk3' \(did you mean 'walk1'\?|'walk2'|'walk'"),
        (f"{FIRST}.csv,24,20,walk,human1", r"line 1: frames 24 to 20\. Expected two frame numbers from 1"),
        (f"{FIRST}.csv,0,20,walk,human1", r"line 1: frames 0 to 20\. Expected two frame numbers from 1"),
        (f"{FIRST}.csv,a,20,walk,human1", r"line 1: frames a to 20\. "),
        (f"{FIRST}.csv,1,99999999999,walk,human1", r"line 1: frames 1 to 99999999999\. "),
        (f"{FIRST}.csv,20,24,walk,nobody", r"line 1: subject 'nobody'\. Expected human and a number"),
        (
            "../../etc/passwd,20,24,walk,human1",
            r"line 1: file '\.\./\.\./etc/passwd'\. Expected 20170203_pN_light1\.csv",
        ),
        ("20170206_p1_light1.csv,20,24,walk,human1", r"line 1: file '20170206_p1_light1\.csv'\. Expected 20170203_pN"),
        ('"a', r"cannot read .*unexpected end of data"),
    ],
)
def test_a_wrong_annotation_is_one_line(fir_tree: Path, line: str, told: str) -> None:
    (fir_tree / "annotation" / "annotation_20170203_human.csv").write_text(line)
    with pytest.raises(DataError, match=told) as caught:
        FirAction(fir_tree)
    assert "annotation_20170203_human.csv" in message(caught)


def test_a_missing_annotation_and_foreign_folders(fir_tree: Path, tmp_path: Path) -> None:
    (fir_tree / "annotation" / "annotation_20170206_human.csv").unlink()
    with pytest.raises(
        DataError, match=r"no file .*annotation_20170206_human\.csv.*fetch the folder annotation"
    ) as caught:
        FirAction(fir_tree)
    message(caught)
    with pytest.raises(DataError, match="no folder"):
        FirAction(tmp_path / "nowhere")
    packed = tmp_path / "packed"
    packed.mkdir()
    (packed / "fir-action-3days.tar.xz").write_bytes(b"")
    with pytest.raises(DataError, match=r"extract the archive .*tar -xf fir-action-3days\.tar\.xz -C FOLDER") as caught:
        FirAction(packed)
    message(caught)


def test_content_keys_follow_file_and_interval(fir_tree: Path) -> None:
    dataset = FirAction(fir_tree)
    before = [dataset.content_key(s, "fir") for s in dataset.samples]
    assert len(set(before)) == 5  # the recordings are alike
    path = fir_tree / "20170203" / "raw" / f"{FIRST}.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:-1], lines[-1].replace("20.0", "20.1")]) + "\n")
    after = [FirAction(fir_tree).content_key(s, "fir") for s in dataset.samples]
    changed = {s.id for s, a, b in zip(dataset.samples, before, after, strict=True) if a != b}
    assert changed == {f"{FIRST}_{k:02d}" for k in range(1, 6)}


# ------------------------------------------------------------------------------------------------ the text itself


def lines_with(tmp_path: Path, number: int, line: str) -> Path:
    """A recording with another line 'number', counted from 1."""
    path, lines = tmp_path / "a.csv", csv_lines(20)
    lines[number - 1] = line
    path.write_text("\r\n".join(lines) + "\r\n")
    return path


def pixels(*first: str) -> str:
    return ",".join([*first, *["20.0"] * (256 - len(first))])


@pytest.mark.parametrize(
    ("number", "line", "told"),
    [
        (2, "a,b", "line 2: 'a'. Expected the names of the columns: Time (sec), PTAT, P000, P001 and so on"),
        (2, "Time (sec),PTAT," + ",".join(["P"] * 255), "line 2: 255 pixels. Expected a square or 3:4 array"),
        (5, f"0.3,22.0,{pixels()},1", "line 5: 259 values. Expected 258: time, PTAT and 256 pixels"),
        (5, "0.3,22.0,20.0", "line 5: 3 values. Expected 258"),
        (5, f"0.3,22.0,{pixels('20.0', 'x')}", "line 5: pixel 1 is 'x'. Expected deg C from -273.15 to 382.20"),
        (5, f"0.3,22.0,{pixels('nan')}", "line 5: pixel 0 is 'nan'"),
        (5, f"0.3,22.0,{pixels('inf')}", "line 5: pixel 0 is 'inf'"),
        (5, f"0.3,22.0,{pixels('-273.2')}", "line 5: pixel 0 is '-273.2'"),
        (5, f"0.3,22.0,{pixels('382.3')}", "line 5: pixel 0 is '382.3'"),
        (5, f"x,22.0,{pixels()}", "line 5: time 'x'. Expected seconds"),
        (5, f"nan,22.0,{pixels()}", "line 5: time 'nan'. Expected seconds"),
        (5, f"0.1,22.0,{pixels()}", "line 5: 0.1 s after 0.2 s. Expected a later time than the line before"),
        (5, "1" * (1 << 18), "line 5: more than 262,144 bytes"),
        (5, "\x1b[31m", "line 5: 1 values"),
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, number: int, line: str, told: str) -> None:
    with pytest.raises(DataError) as caught:
        read_thermal(lines_with(tmp_path, number, line))
    assert f"a.csv, {told}" in message(caught)


def test_hottest_and_coldest_pixels(tmp_path: Path) -> None:
    clip = read_thermal(lines_with(tmp_path, 3, f"-0.5,22.0,{pixels('-273.15', '382.2', '0', '23.4640625')}"))
    assert clip.frames[0, 0, :4].tolist() == [0, 65_535, 27_315, 29_661]


@pytest.mark.parametrize(("pixels", "shape"), [(16, (4, 4)), (64, (8, 8)), (768, (24, 32)), (4800, (60, 80))])
def test_other_arrays(tmp_path: Path, pixels: int, shape: tuple[int, int]) -> None:
    names = ",".join(f"P{k:03d}" for k in range(pixels))
    values = ",".join(f"{k / 100:.2f}" for k in range(pixels))
    (tmp_path / "b.csv").write_text(f"2026/01/01 00:00:00\nTime (sec),PTAT,{names}\n0.1,20,{values}\n")
    clip = read_thermal(tmp_path / "b.csv")
    assert clip.frames.shape == (1, *shape)
    assert clip.frames[0, 1, 0] == 27_315 + shape[1]  # row by row


def test_an_empty_recording_and_none_at_all(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("\n".join(csv_lines(0)) + "\n")
    with pytest.raises(DataError, match=r"line 3: no frame\. Expected one line per frame"):
        read_thermal(tmp_path / "a.csv")
    with pytest.raises(DataError, match=r"cannot read .* \(not a regular file\)"):
        read_thermal(tmp_path)


def test_how_long_a_sensor_takes_to_settle() -> None:
    climbing = np.array([27_500, 29_000, 29_949, 29_950, 29_990, *[30_000] * 20], dtype=np.uint16)
    frames = np.broadcast_to(climbing[:, None, None], (25, 16, 16))
    assert start_up(frames) == 3  # 29,949 is 51 hundredths of a kelvin below the last
    assert start_up(frames[1:]) == 2
    assert start_up(frames[3:]) == 0
    assert start_up(frames[:1]) == 0


# --------------------------------------------------------------------------------------------------- the real set


@pytest.fixture(scope="session")
def real_fir(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Annotations and one day's first layout, from the extracted set or from the archive."""
    root = data_root / "fir-action"
    if (root / "annotation").is_dir():
        return root
    archive = next(root.glob("*.tar.xz"), None) if root.is_dir() else None
    if archive is None:
        absent("no fir-action")
    folder = tmp_path_factory.mktemp("fir")
    with tarfile.open(archive) as packed:
        for member in packed:
            if member.name.startswith("annotation/") or "/raw/" in member.name:
                wanted = member.name.startswith("annotation/") or member.name.startswith("20170203/raw/20170203_p1_")
                target = folder / member.name if wanted else (folder / member.name).parent / "absent"
                if wanted and member.isreg():
                    packed.extract(member, folder, filter="data")
                else:
                    target.parent.mkdir(parents=True, exist_ok=True)
    return folder


def test_the_real_set(real_fir: Path) -> None:
    """Counts by line of the annotation files: 280 actions of each person, twice 12 of walking and so on a day."""
    dataset = FirAction(real_fir)
    every = (*dataset.samples, *(Sample(i, "", "", "", -1) for i in dataset.gaps()))
    assert len(every) == 560 * len({s.id[:8] for s in every})
    mine = [s for s in dataset.samples if s.trial in ("p1_light1", "p1_light2") and s.id.startswith("20170203")]
    assert Counter(LABELS[s.label] for s in mine) == {"walking": 2, "sitting down": 2, "standing up": 2, "stopping": 4}
    assert {s.subject for s in mine} == {"1", "2"}
    first = one(dataset, "20170203_p1_light1_01")
    assert dataset.interval(first) == ActionInterval(0, 189, 201)
    clip = dataset.open(first, "fir")
    assert clip.frames.shape == (13, 16, 16)
    assert 29_500 < clip.frames.min() < clip.frames.max() < 30_000
    whole, actions = dataset.sequence(dataset.sequences(mine)[1], "fir")
    assert len(actions) == 8
    assert 6 <= dataset.interval(dataset.sequences(mine)[1][0]).start - actions[0].start <= 15  # start-up frames
    assert 6.6 <= (len(whole) - 1) / whole.seconds <= 9.5  # frames a second, not the documentation's 10
