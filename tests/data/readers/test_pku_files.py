from __future__ import annotations

from pathlib import Path

import pytest

from kd_edge.data.dataset import ActionInterval
from kd_edge.data.readers.pku_files import find_files, read_labels, read_split
from kd_edge.errors import DataError


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_rows_of_a_labels_file(tmp_path: Path) -> None:
    path = write(tmp_path / "0002-L.txt", "12,10,90,2\r\n\r\n 51 , 200 , 100 , 1\r\n1,7,7\r\n\r\n")
    labels = read_labels(path, classes=51)
    assert labels.actions == (ActionInterval(11, 10, 90), ActionInterval(50, 100, 200), ActionInterval(0, 7, 7))
    assert labels.reversed_rows == (3,)
    assert read_labels(write(tmp_path / "0003-L.txt", "\ufeff3,1,2,1"), classes=51).actions == (
        ActionInterval(2, 1, 2),
    )
    assert read_labels(write(tmp_path / "0004-L.txt", ""), classes=51).actions == ()


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("52,1,2,1", r"action 52\. Expected 1 to 51"),
        ("0,1,2,1", r"action 0\. Expected 1 to 51"),
        ("-3,1,2,1", "action -3"),
        ("5,-1,2,1", "frames -1 to 2"),
        ("5,1", "'5,1'"),
        ("five,1,2,1", "'five,1,2,1'"),
        ("5 1 2 1", "action,start,end,confidence"),
        ("5,1.5,2,1", "whole numbers"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, row: str, reason: str) -> None:
    path = write(tmp_path / "0002-L.txt", f"1,1,2,1\n\n{row}\n")
    with pytest.raises(DataError, match=reason) as caught:
        read_labels(path, classes=51)
    assert f"{path}, line 3" in caught.value.found


def test_what_is_no_text_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "0002-L.txt", b"\xff\xfe\x00\x01")
    with pytest.raises(DataError, match=r"cannot read .*0002-L\.txt"):
        read_labels(path, classes=51)


@pytest.mark.parametrize(
    "text",
    [
        "Training videos:\n0002-L, 0002-M, 0007-R, \nValidataion videos:\n0003-L, 0003-R, \n",  # the official spelling
        "Training videos:\n0002-L, 0002-M, 0007-R,\nValidation videos:\n0003-L, 0003-R,\n",
        "Training videos:\r\n0002-L, 0002-M, \r\n0007-R\r\n\r\nTesting videos:\r\n0003-L,0003-R\r\n",
        "training videos: 0002-l 0002-m 0007-r\nTest videos\n0003-L 0003-R",
        "\ufeffValidation videos:\n0003-L,0003-R,\nTraining videos:\n0002-L,0002-M,0007-R,",
    ],
)
def test_spellings_of_a_split_file(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "cross-view.txt", text)
    assert read_split(path) == (("0002-L", "0002-M", "0007-R"), ("0003-L", "0003-R"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("0002-L,\nValidation videos:\n0003-L,", r"line 1: '0002-L'.*a heading 'Training videos:'"),
        ("Training videos:\n0002-L, 0002-X,\nValidation videos:\n0003-L,", "line 2: '0002-X'"),
        ("Training videos:\n0002-L,\n", "no video below 'Validation videos:'"),
        ("Training videos:\nValidation videos:\n0002-L", "no video below 'Training videos:'"),
        ("", "no video below 'Training videos:'"),
        ("Training videos:\n0002-L,\nInvalidated videos:\n0003-L,", "line 3: 'Invalidated'"),
    ],
)
def test_a_wrong_split_file_is_named(tmp_path: Path, text: str, reason: str) -> None:
    path = write(tmp_path / "cross-view.txt", text)
    with pytest.raises(DataError, match=reason) as caught:
        read_split(path)
    assert str(path) in caught.value.found


@pytest.mark.parametrize(
    ("rgb", "ir", "label", "split"),
    [
        ("Data/RGB_VIDEO/0002-L.avi", "Data/IR_VIDEO/0002-L-infrared.avi", "Label/0002-L.txt", "Split/cross-view.txt"),
        ("data/rgb_video/0002-L.AVI", "data/ir_video/0002-L.avi", "label/0002-l.txt", "cross_view.txt"),
        ("RGB_VIDEO/0002-L.avi", "IR/0002-L-Infrared.avi", "Train_Label_PKU_final/0002-L.txt", "split/Cross_View.txt"),
        ("0002-L.avi", "0002-L-infrared.avi", "Label_PKU_final/0002-L.label", "Label_PKU_final/cross-view.txt"),
    ],
)
def test_spellings_of_the_layout(tmp_path: Path, rgb: str, ir: str, label: str, split: str) -> None:
    for name in (rgb, ir, label, split):
        write(tmp_path / name, "")
    write(tmp_path / "Data" / "SKELETON" / "0002-L.txt", "0 0 0")  # of the same name as the labels
    write(tmp_path / "Data" / "DEPTH_VIDEO" / "0002-L-depth.avi", "")
    write(tmp_path / "Data" / "RGB" / "0009-L" / "0009-L.avi", "")  # a folder of single pictures is not entered
    found = find_files(tmp_path)
    assert found.videos == {"rgb": {"0002-L": tmp_path / rgb}, "ir": {"0002-L": tmp_path / ir}}
    assert found.labels == {"0002-L": tmp_path / label}
    assert found.splits == {"cross_view": tmp_path / split}


def test_wrong_folders_say_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no folder .*nowhere"):
        find_files(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"no PKU-MMD video .*it contains nothing.*Data/RGB_VIDEO/0002-L\.avi"):
        find_files(tmp_path)
    write(tmp_path / "Data" / "RGB_VIDEO" / "0002-L.avi", "")
    with pytest.raises(DataError, match=r"no PKU-MMD labels file .*it contains Data"):
        find_files(tmp_path)
