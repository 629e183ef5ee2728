from __future__ import annotations

import pytest

from kd_edge.data.readers.files.names import fields_from_names, strays
from kd_edge.errors import DataError
from tests.data.files.conftest import Folder

KICK_WAVE = ["kick"] * 4 + ["wave"] * 4


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("s03_t1", {"subject": "03", "trial": "1"}),
        ("subject12_trial3", {"subject": "12", "trial": "3"}),
        ("person-2_take 4", {"subject": "2", "trial": "4"}),
        ("subject_anna_trial_2", {"subject": "anna", "trial": "2"}),
        ("S001C002P003R001", {"subject": "003", "view": "002", "trial": "001"}),
        ("v_Wave_g08_c01", {"subject": "08", "view": "01"}),
        ("p7/cam2", {"subject": "7", "view": "2"}),
        ("0001", {}),
        ("20260101-120000", {}),
    ],
)
def test_letters_and_words_before_numbers(name: str, told: dict[str, str]) -> None:
    assert fields_from_names(["kick", "wave"], [name, name], "mine") == [told, told]


@pytest.mark.parametrize("form", ["{}_{:02d}", "{}/{:02d}", "take {1}, {0}"])
def test_words_that_come_back_in_other_classes_are_people(form: str) -> None:
    names = [form.format(who, k) for who in ("anna", "ben") for k in (1, 2)] * 2
    assert [its.get("subject") for its in fields_from_names(KICK_WAVE, names, "mine")] == [
        "anna",
        "anna",
        "ben",
        "ben",
    ] * 2


@pytest.mark.parametrize(
    "names",
    [
        ["slow_01", "slow_02", "fast_01", "fast_02", "high_01", "high_02", "low_01", "low_02"],  # each of one class
        ["anna_01", "ben_01", "carl_01", "dora_01", "eve_01", "finn_01", "gina_01", "hugo_01"],  # each once
        ["anna_01", "anna_02", "ben", "ben_02"] * 2,  # names of one and of two parts
    ],
)
def test_other_words_are_nobody(names: list[str]) -> None:
    assert fields_from_names(KICK_WAVE, names, "mine") == [{}] * 8


def test_a_stray_name_takes_nobody_from_the_others() -> None:
    numbered = [f"subject{k}_{t}" for k in range(5) for t in (1, 2)]
    told = fields_from_names(["kick"] * 11, [*numbered, "final take"], "mine")
    assert told == [{"subject": str(k)} for k in range(5) for _ in (1, 2)] + [{}]
    words = ["anna_1", "ben_1", "anna_2", "ben_2", "anna_3"]
    told = fields_from_names(["kick"] * 5 + ["wave"] * 6, [*words, *words, "the_final_take"], "mine")
    assert [its.get("subject", "") for its in told] == ["anna", "ben", "anna", "ben", "anna"] * 2 + [""]


def test_names_that_keep_people_from_being_known_are_told() -> None:
    labels, numbered = ["kick"] * 3 + ["wave"] * 3, ["s1_1", "s2_1", "s1_2", "s2_2"]
    assert strays(labels, [*numbered, "final", "take 2"]) == ["final", "take 2"]
    assert strays(labels, ["anna_1", "ben_1", "old", "anna_1", "ben_1", "new"]) == ["old", "new"]
    assert strays(labels, ["one", "two", "three", "four", "five", "s1_1"]) == []  # most tell nobody
    assert strays(["kick"] * 11, [*(f"s{k}_1" for k in range(10)), "final"]) == []  # the others' people are known


def test_people_of_the_folder_with_a_stray_name(folder: Folder) -> None:
    for label in ("kick", "wave"):
        for who in ("subject1", "subject01", "subject2", "subject3"):
            folder.clip(f"{label}/{who}_1_ir.npy")
    folder.clip("wave/subject3_2_ir.npy")
    folder.clip("wave/final take_ir.npy")
    dataset = folder.open()
    people = {row.id.removeprefix("wave/"): row.subject for row in dataset.rows if row.label == "wave"}
    assert people == {
        "final take": "", "subject01_1": "01", "subject1_1": "01",
        "subject2_1": "2", "subject3_1": "3", "subject3_2": "3",
    }  # fmt: skip
    assert [s.id for s in dataset.split("default").test] == ["kick/subject3_1", "wave/subject3_1", "wave/subject3_2"]
    remarks = "\n".join(dataset.remarks())
    assert "differ only by capitals or leading zeros are one person: '1 is 01'" in remarks
    assert "recordings of an unknown subject: 1, for example wave/final take" in remarks
    folder.clip("wave/other take_ir.npy")
    remarks = "\n".join(folder.open().remarks())
    assert "most names contain a subject, but 2 of 11 do not: 'final take', 'other take'; rename them" in remarks


def test_capitals_make_no_other_person(folder: Folder) -> None:
    for label in ("kick", "wave"):
        for name in ("Anna_1", "ben_1", "ben_2"):
            folder.clip(f"{label}/{name}_ir.npy")
    folder.clip("wave/anna_2_ir.npy")
    dataset = folder.open()
    assert {row.subject for row in dataset.rows} == {"Anna", "ben"}


def test_spellings_in_a_manifest_are_remarked(folder: Folder) -> None:
    for name in ("1", "2", "3", "4"):
        folder.clip(f"{name}.npy")
    folder.manifest("label,subject,ir", "kick,Anna,1.npy", "wave,anna,2.npy", "kick,ben,3.npy", "wave,ben,4.npy")
    dataset = folder.open()
    assert "subjects that may be one person, written in two ways: 'anna and Anna'" in dataset.remarks()
    assert {row.subject for row in dataset.rows} == {"Anna", "anna", "ben"}


def test_what_only_some_names_tell_is_not_taken() -> None:
    assert fields_from_names(["kick", "wave"], ["s1_t1", "s2"], "mine") == [{"subject": "1"}, {"subject": "2"}]


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["wave_01", "wave_02", "kick_01", "kick_02"], ["wave", "wave", "kick", "kick"]),
        (["sit_down_01", "sit_down_02", "kick_01", "kick_02"], ["sit_down", "sit_down", "kick", "kick"]),
        (["a1_s1_t1", "a1_s2_t1", "a2_s1_t1", "a2_s2_t1"], ["a1", "a1", "a2", "a2"]),
        (["s1_wave", "s2_wave", "s1_kick", "s2_kick"], ["wave", "wave", "kick", "kick"]),
        (["clip01", "clip02", "clip03", "clip04"], [None] * 4),
        (["wave_01", "kick_01", "sit_01", "run_01"], [None] * 4),
    ],
)
def test_files_without_folders_of_classes(names: list[str], labels: list[str | None]) -> None:
    assert [its.get("label") for its in fields_from_names([""] * 4, names, "mine")] == labels


def test_two_words_that_could_be_the_class_are_asked_for() -> None:
    names = [f"{label}_{who}_{k}" for label in ("wave", "kick") for who in ("anna", "ben") for k in range(2)]
    with pytest.raises(DataError, match="two words that vary: 'wave' and 'anna' in 'wave_anna_0'") as fault:
        fields_from_names([""] * 8, names, "mine")
    assert "--pattern '{label}_{subject}_{trial}'" in str(fault.value)


def test_folders_of_modalities_and_of_people_above_the_classes(folder: Folder) -> None:
    for who in ("s01", "s02"):
        for label in ("wave", "kick"):
            for modality in ("ir", "depth"):
                folder.clip(f"{modality}/{label}/{who}_1.npy")
    dataset = folder.open()
    assert (dataset.labels, dataset.modalities) == (("kick", "wave"), ("depth", "ir"))
    assert [(row.id, row.subject, sorted(row.files)) for row in dataset.rows][:2] == [
        ("kick/s01_1", "01", ["depth", "ir"]),
        ("kick/s02_1", "02", ["depth", "ir"]),
    ]


def test_numbered_people_above_the_classes(folder: Folder) -> None:
    for who in ("subject_1", "subject_2"):
        for label in ("wave", "kick"):
            folder.clip(f"{who}/{label}/1_ir.npy")
    dataset = folder.open()
    assert [(s.id, s.subject, dataset.labels[s.label]) for s in dataset.samples] == [
        ("kick/subject_1/1", "subject_1", "kick"),
        ("kick/subject_2/1", "subject_2", "kick"),
        ("wave/subject_1/1", "subject_1", "wave"),
        ("wave/subject_2/1", "subject_2", "wave"),
    ]


@pytest.mark.parametrize(("dtype", "name", "band"), [("uint8", "ir", "nir"), ("uint16", "thermal", "lwir")])
def test_grey_files_that_do_not_say_what_they_are(folder: Folder, dtype: str, name: str, band: str) -> None:
    folder.clip("wave/1.npy", dtype=dtype)
    folder.clip("kick/1.npy", dtype=dtype)
    dataset = folder.open()
    assert dataset.modalities == (name,)
    assert dataset.image_format(name).band == band


def test_a_modality_may_be_the_whole_name_of_a_file(folder: Folder) -> None:
    for label in ("wave", "kick"):
        folder.clip(f"{label}/7/ir.npy")
        folder.clip(f"{label}/7/rgb.npy")
    dataset = folder.open()
    assert [(s.id, sorted(dataset.rows[k].files)) for k, s in enumerate(dataset.samples)] == [
        ("kick/7", ["ir", "rgb"]),
        ("wave/7", ["ir", "rgb"]),
    ]


def test_classes_that_differ_by_capitals_or_blanks_are_refused(folder: Folder) -> None:
    for label in ("sit down", "Sit_Down", "wave"):
        folder.clip(f"{label}/1_ir.npy")
    with pytest.raises(DataError, match="the classes 'Sit_Down' and 'sit down'"):
        folder.open()
