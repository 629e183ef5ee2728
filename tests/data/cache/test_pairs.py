from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kd_edge.data.cache.frames import prepare
from kd_edge.data.cache.pairs import PairedClips
from kd_edge.data.readers.utd_mhad import UtdMhad
from kd_edge.errors import DataError


def test_samples_with_every_modality_are_paired_by_id(small_utd: Path, tmp_path: Path) -> None:
    dataset = UtdMhad(small_utd)
    no_depth, no_skeleton = dataset.samples[2], dataset.samples[4]
    dataset.path(no_depth, "depth").unlink()
    dataset.path(no_skeleton, "skeleton").write_bytes(b"damaged")
    depth, pose = (prepare(dataset, dataset.samples, m, 24, None, tmp_path / "c") for m in ("depth", "pose"))
    pairs = PairedClips([depth, pose])
    assert set(pairs.dropped) == {no_skeleton.id}  # the wanted samples are the first cache's
    wanted = PairedClips([depth, pose], dataset.samples)
    assert set(wanted.dropped) == {no_depth.id, no_skeleton.id}
    assert wanted.dropped[no_depth.id].startswith("depth: no file")
    assert "a2_s1_t1_skeleton.mat" in wanted.dropped[no_skeleton.id]
    assert len(wanted) == 6
    for i, sample in enumerate(wanted.samples):
        image, drawing = wanted.clips(i)
        assert np.array_equal(image.frames, depth.clip(sample.id).frames)
        assert np.array_equal(drawing.frames, pose.clip(sample.id).frames)
        assert np.array_equal(image.stamps_ns, drawing.stamps_ns)


def test_one_side_of_a_split(small_utd: Path, tmp_path: Path) -> None:
    dataset = UtdMhad(small_utd)
    depth = prepare(dataset, dataset.samples, "depth", 24, None, tmp_path / "c")
    side = tuple(s for s in dataset.samples if s.subject == "2")
    pairs = PairedClips([depth], side)
    assert pairs.samples == side
    assert pairs.dropped == {}


def test_no_pair_at_all_is_an_error(small_utd: Path, tmp_path: Path) -> None:
    dataset = UtdMhad(small_utd)
    depth = prepare(dataset, dataset.samples[:2], "depth", 24, None, tmp_path / "c")
    pose = prepare(dataset, dataset.samples[2:], "pose", 24, None, tmp_path / "c")
    with pytest.raises(DataError, match=r"no sample has all of depth, pose; the first lacks pose: not prepared"):
        PairedClips([depth, pose])
