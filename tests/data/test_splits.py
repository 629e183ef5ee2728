from __future__ import annotations

import pytest

from kd_edge.data.dataset import Sample, Split
from kd_edge.data.splits import check_split, split_by_subject, training_sides, validation_split
from kd_edge.errors import DataError


def sample(label: int, subject: str, trial: str = "1") -> Sample:
    return Sample(f"a{label}_s{subject}_t{trial}", subject, "front", trial, label)


SAMPLES = tuple(sample(label, subject) for label in (0, 1) for subject in "1234")
LABELS = ("wave", "clap")


def test_split_by_subject_keeps_the_order() -> None:
    split = split_by_subject("half", SAMPLES, ["2", "4"])
    assert [s.id for s in split.train] == ["a0_s1_t1", "a0_s3_t1", "a1_s1_t1", "a1_s3_t1"]
    assert [s.id for s in split.test] == ["a0_s2_t1", "a0_s4_t1", "a1_s2_t1", "a1_s4_t1"]
    check_split(split, LABELS)


def test_a_class_without_training_sample_is_named() -> None:
    split = Split("odd", train=(sample(0, "1"),), test=(sample(1, "2"),))
    with pytest.raises(DataError, match="no training sample of 'clap'"):
        check_split(split, LABELS)


def test_an_empty_test_side_is_an_error() -> None:
    with pytest.raises(DataError, match="no test sample"):
        check_split(Split("all", SAMPLES, ()), LABELS)


def test_a_sample_on_both_sides_is_an_error() -> None:
    with pytest.raises(DataError, match="'a0_s1_t1' on both sides"):
        check_split(Split("leak", SAMPLES, SAMPLES[:1]), LABELS)


def test_a_subject_on_both_sides_is_an_error_only_where_the_protocol_says_so() -> None:
    split = Split("trials", SAMPLES, (sample(0, "1", "3"),))
    check_split(split, LABELS, by_subject=False)
    with pytest.raises(DataError, match="'1' on both sides"):
        check_split(split, LABELS)


def test_validation_takes_whole_subjects() -> None:
    train, validation = validation_split(SAMPLES, ["3"])
    assert {s.subject for s in validation} == {"3"}
    assert {s.subject for s in train} == {"1", "2", "4"}
    assert len(train) + len(validation) == len(SAMPLES)
    assert validation_split(SAMPLES, []) == (SAMPLES, ())


def test_validation_subject_must_be_on_the_training_side() -> None:
    with pytest.raises(DataError, match="'9' is not on the training side"):
        validation_split(SAMPLES, ["9"])


def test_validation_must_leave_every_class_a_sample() -> None:
    with pytest.raises(DataError, match="leaves no training sample of class '1'"):
        validation_split((*SAMPLES[:4], sample(1, "1")), ["1"])
    split = Split("own", train=(*SAMPLES[:4], sample(1, "1")), test=())
    with pytest.raises(DataError, match="holding out '1' leaves no training sample of class 'wave'"):
        training_sides(split, ["1"], labels=("kick", "wave"))


def test_a_split_may_bring_its_validation_side_and_a_recipe_hold_out_another() -> None:
    one, two, three, four = ([s for s in SAMPLES if s.subject == subject] for subject in "1234")
    split = Split("own", train=(*one, *two), test=tuple(four), validation=tuple(three))
    assert training_sides(split, ()) == (split.train, split.validation)
    assert training_sides(split, ["1"]) == ((*two, *three), tuple(one))
    with pytest.raises(DataError, match="on both sides"):
        check_split(Split("leak", split.train, split.test, validation=split.test), LABELS)
