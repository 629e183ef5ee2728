from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kd_edge.data.check import check
from kd_edge.data.dataset import ImageFormat
from kd_edge.data.readers.files import Files
from kd_edge.data.synthetic.dataset import Synthetic
from kd_edge.data.synthetic.writing import write_synthetic
from kd_edge.errors import DataError

SMALL = Synthetic(clips_per_class=3, subjects=3, height_px=32, width_px=40)
"""Three people, each action once."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It, written."""
    out = tmp_path_factory.mktemp("synth") / "out"
    written = write_synthetic(out, SMALL)
    assert sorted(p.name for p in out.iterdir()) == sorted(p.name for p in written)
    return out


@pytest.mark.slow
def test_what_is_read_is_what_was_generated(folder: Path) -> None:
    files, small = Files(folder), SMALL
    assert files.labels == small.labels
    assert sorted(files.modalities) == sorted((*small.modalities, "pose"))  # it is drawn of the skeletons
    assert sorted(files.sensors) == sorted(small.sensors)
    assert files.flip_labels == small.flip_labels == tuple(range(10))
    assert sorted(files.samples, key=lambda s: s.id) == sorted(small.samples, key=lambda s: s.id)
    for sample in small.samples[::7]:
        for modality in small.modalities:
            read, generated = files.open(sample, modality), small.open(sample, modality)
            assert read.frames.dtype == generated.frames.dtype
            assert np.array_equal(read.frames, generated.frames), (sample.id, modality)
            assert np.array_equal(read.stamps_ns, generated.stamps_ns), (sample.id, modality)
    assert files.image_format("nir") == ImageFormat("nir", "uint8", 1, "intensity", (0.0, 255.0), 30.0)
    assert all(files.image_format(name) == small.image_format(name) for name in ("rgb", "nir"))
    assert all(files.signal_format(name) == small.signal_format(name) for name in small.sensors)


@pytest.mark.slow
def test_sides_are_those_of_the_generated_set(folder: Path) -> None:
    files = Files(folder)
    expected, split = SMALL.split("subjects"), files.split("default")
    assert {s.id for s in split.test} == {s.id for s in expected.test}
    assert {s.id for s in (*split.train, *split.validation)} == {s.id for s in expected.train}
    assert {s.subject for s in split.validation} == {"2"}
    report = check(files, ["rgb", "nir", *files.sensors], split="default")
    assert (report.complete, report.trainable, report.remarks) == (30, True, ())


def test_a_few_of_one_person(tmp_path: Path) -> None:
    dataset = Synthetic(clips_per_class=1, subjects=1, height_px=48, width_px=64, fps=10)
    out = tmp_path / "deep" / "recordings"
    files = write_synthetic(out, dataset, dataset.samples[:3])
    assert [p.name for p in files[-4:]] == [
        "a3_s1_t1_gyroscope.csv",
        "a3_s1_t1_accelerometer_phone.csv",
        "manifest.csv",
        "dataset.toml",
    ]
    assert np.array_equal(np.load(out / "a2_s1_t1_nir.npy"), dataset.open(dataset.samples[1], "nir").frames)
    with pytest.raises(DataError, match="is not an empty folder"):
        write_synthetic(out, dataset)


def test_an_interrupted_writing_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(done: int, _: int) -> None:
        raise KeyboardInterrupt

    dataset = Synthetic(clips_per_class=1, subjects=1, height_px=48, width_px=64, fps=10)
    with pytest.raises(KeyboardInterrupt):
        write_synthetic(tmp_path / "out", dataset, None, interrupt)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot write"):
        write_synthetic(tmp_path / "file" / "out", dataset)
