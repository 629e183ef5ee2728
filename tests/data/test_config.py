from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from kd_edge.data import DataConfig, NtuRgbdData, PkuMmdData, SyntheticData, UtdMhadData, open_dataset
from kd_edge.data.readers.video import decoder_key
from kd_edge.errors import ConfigError, DataError


def test_the_kind_chooses_the_configuration() -> None:
    adapter: TypeAdapter[SyntheticData | UtdMhadData] = TypeAdapter(DataConfig)
    assert adapter.validate_python({"kind": "synthetic", "subjects": 4}) == SyntheticData(subjects=4)
    assert adapter.validate_python({"kind": "utd_mhad"}) == UtdMhadData()
    with pytest.raises(ValidationError, match="subjcts"):
        adapter.validate_python({"kind": "synthetic", "subjcts": 4})


def test_generated_data_needs_no_folder() -> None:
    dataset = open_dataset(SyntheticData(clips_per_class=2, subjects=2, height_px=48, width_px=64))
    assert len(dataset.samples) == 20
    assert dataset.open(dataset.samples[0], "nir").frames.shape[1:] == (48, 64)


@pytest.mark.parametrize("above", [True, False], ids=["folder that holds it", "its own folder"])
@pytest.mark.parametrize("way", ["argument", "config", "environment"])
def test_the_folder_may_be_given_in_three_ways(
    small_utd: Path, monkeypatch: pytest.MonkeyPatch, above: bool, way: str
) -> None:
    monkeypatch.setenv("KD_EDGE_CACHE", str(small_utd.parent / "cache"))
    monkeypatch.delenv("KD_EDGE_DATA", raising=False)
    root = small_utd.parent if above else small_utd
    if way == "environment":
        monkeypatch.setenv("KD_EDGE_DATA", str(root))
    config = UtdMhadData(root=root if way == "config" else None)
    assert len(open_dataset(config, root if way == "argument" else None).samples) == 8


@pytest.mark.parametrize("above", [True, False], ids=["folder that holds it", "its own folder"])
def test_video_sets_with_their_settings(
    ntu_tree: Path, pku_tree: Path, monkeypatch: pytest.MonkeyPatch, above: bool
) -> None:
    monkeypatch.setenv("KD_EDGE_CACHE", str(ntu_tree.parent / "cache"))
    ntu = open_dataset(NtuRgbdData(actions="all", decode_height_px=32), ntu_tree.parent if above else ntu_tree)
    assert (ntu.name, len(ntu.samples), len(ntu.labels)) == ("ntu_rgbd", 90, 60)
    assert ntu.open(ntu.samples[0], "ir").frames.shape[1:] == (32, 39)
    pku = open_dataset(PkuMmdData(root=pku_tree.parent if above else pku_tree, decode_height_px=32))
    assert (pku.name, len(pku.samples), len(pku.labels)) == ("pku_mmd", 216, 51)
    assert pku.open(pku.samples[0], "rgb").frames.shape[1:] == (32, 57, 3)
    assert pku.content_key(pku.samples[0], "rgb") == pku.content_key(pku.samples[0], "rgb")
    assert ntu.content_key(ntu.samples[0], "rgb").endswith(f"-h32-{decoder_key()}")
    memos = sorted(p.name for p in (ntu_tree.parent / "cache").iterdir())
    assert memos == ["hashes.jsonl", "sampled-hashes.jsonl"]


@pytest.mark.usefixtures("no_home")
def test_without_a_home_hashes_are_remembered_in_memory_only(ntu_tree: Path, pku_tree: Path, small_utd: Path) -> None:
    ntu, pku, utd = (
        open_dataset(config)
        for config in (NtuRgbdData(root=ntu_tree), PkuMmdData(root=pku_tree), UtdMhadData(root=small_utd))
    )
    for dataset, modality in ((ntu, "rgb"), (pku, "rgb"), (utd, "depth")):
        key = dataset.content_key(dataset.samples[0], modality)
        assert key == dataset.content_key(dataset.samples[0], modality)
    with pytest.raises(ConfigError, match=r"^~/data: no home folder is known"):
        open_dataset(UtdMhadData(root=Path("~/data")))


def test_settings_out_of_range() -> None:
    adapter: TypeAdapter[object] = TypeAdapter(DataConfig)
    assert adapter.validate_python({"kind": "ntu_rgbd", "actions": "all"}) == NtuRgbdData(actions="all")
    for wrong in (
        {"kind": "ntu_rgbd", "actions": "five"},
        {"kind": "pku_mmd", "decode_height_px": 10},
        {"kind": "ntu"},
    ):
        with pytest.raises(ValidationError):
            adapter.validate_python(wrong)


def test_no_folder_says_how_to_give_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KD_EDGE_DATA", raising=False)
    with pytest.raises(DataError, match=r"--data DIR, or KD_EDGE_DATA"):
        open_dataset(UtdMhadData())
    with pytest.raises(DataError, match=r"recordings of ntu-rgbd.*DIR/ntu-rgbd"):
        open_dataset(NtuRgbdData())


def test_reading_a_configuration_loads_neither_opencv_nor_scipy() -> None:
    code = "import sys, kd_edge.data; print([m for m in ('cv2', 'scipy', 'torch', 'onnx', 'av') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
