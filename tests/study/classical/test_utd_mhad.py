"""The comparators on real recordings."""

from __future__ import annotations

from pathlib import Path

from kd_edge.data import UtdMhadData, open_dataset
from kd_edge.study.classical import CnnLstmConfig, CrcConfig, check_comparator
from kd_edge.study.classical.fusion.depth_motion import motion_maps


def test_clips_are_counted(utd_root: Path) -> None:
    values = {"data": {"kind": "utd_mhad"}, "split": "odd_even"}
    assert check_comparator(CrcConfig.model_validate(values), utd_root) == (431, 430)
    assert check_comparator(CnnLstmConfig.model_validate(values | {"split": "trials"}), utd_root) == (432, 429)


def test_walking_moves_the_lower_half_and_waving_the_upper(utd_root: Path) -> None:
    """Share of the side view's changes below row 140 of 240, about the hip of who stands there."""
    dataset = open_dataset(UtdMhadData(), utd_root)
    samples = {s.id: s for s in dataset.samples}

    def below(sample_id: str) -> float:
        frames = dataset.open(samples[sample_id], "depth").frames
        rows = motion_maps(frames, bin_mm=30, range_mm=4000).side.sum(axis=1)
        return float(rows[140:].sum() / rows.sum())

    assert below("a23_s1_t1") > 0.6
    assert below("a3_s1_t1") < 0.5
