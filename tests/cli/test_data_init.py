"""``data init`` and ``train --data`` of somebody's own recordings."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from kd_edge import files as house_files
from kd_edge import recipes
from kd_edge.data import survey
from kd_edge.data.readers.files import Files
from kd_edge.train.recipe import Recipe
from kd_edge.train.recipe import folder as folder_module
from kd_edge.train.recipe import proposal as proposal_module
from kd_edge.window import FixedWindow
from tests.cli.conftest import Kd, one_line

TINY = [
    *("--set", "student.epochs=1"),
    *("--set", "student.model.backbone=tiny"),
    *("--set", "student.preprocess.resize_px=24"),
    *("--set", "student.preprocess.input_px=24"),
]


class Own:
    """Somebody's folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def clip(self, name: str, frames: int = 30, dtype: Any = np.uint8, value: int = 40) -> Path:
        """An array (T, 40, 48) in which a bright square moves."""
        images = np.full((frames, 40, 48), value, dtype)
        for t, image in enumerate(images):
            image[10:26, t % 32 : t % 32 + 12] = 220
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, images)
        return path

    def classes(self, *labels: str, people: int = 4, takes: int = 2, modality: str = "ir") -> Own:
        for label in labels:
            for who in range(people):
                for take in range(takes):
                    self.clip(f"{label}/s{who}_t{take}_{modality}.npy")
        return self

    def manifest(self, *lines: str) -> None:
        (self.root / "manifest.csv").write_text("\n".join(lines) + "\n")

    def content(self) -> dict[str, bytes]:
        """Every file's bytes."""
        found = sorted(path for path in self.root.rglob("*") if path.is_file())
        return {str(path.relative_to(self.root)): path.read_bytes() for path in found}


@pytest.fixture
def own(tmp_path: Path) -> Own:
    root = tmp_path / "gestures"
    root.mkdir()
    return Own(root)


def rows(own: Own) -> list[dict[str, str]]:
    with (own.root / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_folder_of_classes(kd: Kd, own: Own) -> None:
    own.classes("wave", "kick")
    own.clip("wave/s1_t9_ir.npy", frames=60)
    code, text, error = kd("data", "init", "gestures")
    assert (code, error) == (0, "")
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[0] == ("gestures, by folders and names: 17 clips, 2 classes, 4 subjects, 17 clips with every modality")
    assert "kick 8 4 1.0 / 1.0 / 1.0" in lines
    assert "wave 9 4 1.0 / 1.0 / 1.6" in lines
    assert "ir nir 48x40 uint8 30 17 1.0 / 1.0 / 1.2" in lines
    assert [line for line in lines if line.startswith(("train:", "validation:", "test:"))] == [
        "train: 9 clips: 0, 1",
        "validation: 4 clips: 2",
        "test: 4 clips: 3",
        "train: kd-edge train --data gestures",
    ]
    assert "written: gestures/manifest.csv, gestures/recipe.toml" in lines
    assert rows(own)[0] == {
        "id": "kick/s0_t0", "label": "kick", "subject": "0", "view": "", "trial": "0", "split": "", "start_s": "",
        "end_s": "", "ir": "kick/s0_t0_ir.npy",
    }  # fmt: skip
    before = Files(own.root)
    (own.root / "manifest.csv").unlink()
    assert Files(own.root).samples == before.samples, "without a manifest the folder is the same data set"


def test_the_recipe_is_by_what_there_is(kd: Kd, own: Own) -> None:
    own.classes("wave", "kick", takes=5)
    kd("data", "init", "gestures")
    recipe = recipes.load("train", str(own.root / "recipe.toml"), Recipe)
    assert (recipe.name, recipe.data.kind, recipe.split, recipe.teacher) == ("gestures", "files", "default", None)
    assert (recipe.segments, recipe.windows, recipe.clip_seconds) == (8, "stream", 1.0)
    student = recipe.student
    assert (student.modality, student.epochs, student.batch_size, student.augment.flip) == ("ir", 40, 8, False)
    assert (student.class_weights, student.repeat) == (None, 2)
    assert (student.preprocess.channels, student.preprocess.motion_offsets_ms) == (1, (0, 70, 140))
    assert "train 20 (0, 1); validation 10 (2); test 10 (3)" in (own.root / "recipe.toml").read_text()


@pytest.mark.parametrize(("takes", "repeat", "epochs", "said"), [(2, 4, 40, "4 steps"), (25, 1, 38, "12 steps")])
def test_few_clips_come_several_times_an_epoch(
    kd: Kd, own: Own, takes: int, repeat: int, epochs: int, said: str
) -> None:
    own.classes("wave", "kick", takes=takes)  # half of the people are trained on: 8 and 100 clips
    _, text, _ = kd("data", "init", "gestures")
    student = recipes.load("train", str(own.root / "recipe.toml"), Recipe).student
    assert (student.repeat, student.epochs) == (repeat, epochs)
    assert f"8 clips per step, {said} per epoch" in text
    assert (f", which draws every clip {repeat} times" in text) == (repeat > 1)


@pytest.mark.parametrize(("fast", "precision"), [(True, "bf16-mixed"), (False, "32-true")])
def test_precision_is_the_machines(
    kd: Kd, own: Own, monkeypatch: pytest.MonkeyPatch, fast: bool, precision: str
) -> None:
    monkeypatch.setattr(proposal_module, "has_bfloat16", lambda: fast)
    own.classes("wave", "kick")
    kd("data", "init", "gestures")
    assert recipes.load("train", str(own.root / "recipe.toml"), Recipe).precision == precision


def test_colour_of_the_same_clips_teaches(kd: Kd, own: Own) -> None:
    own.classes("wave", "kick").classes("wave", "kick", modality="rgb")
    code, text, _ = kd("data", "init", "gestures", "--json")
    report = json.loads(text)
    assert (code, report["complete"]) == (0, 16)
    recipe = recipes.load("train", str(own.root / "recipe.toml"), Recipe)
    assert recipe.teacher is not None
    assert (recipe.student.modality, recipe.teacher.modality) == ("ir", "rgb")
    assert [loss.kind for loss in recipe.losses] == ["dkd", "mgcam"]
    assert recipe.image_stages["teacher"].preprocess.channels == 3


def test_drawn_skeletons_teach_where_there_is_no_colour(kd: Kd, own: Own) -> None:
    own.classes("wave", "kick")
    for path in own.root.rglob("*_ir.npy"):
        joints = np.random.default_rng(0).normal(size=(30, 20, 3)).astype(np.float32)
        np.save(str(path).replace("_ir", "_skeleton"), joints)
    kd("data", "init", "gestures")
    recipe = recipes.load("train", str(own.root / "recipe.toml"), Recipe)
    assert recipe.teacher is not None
    assert (recipe.student.modality, recipe.teacher.modality) == ("ir", "pose")
    assert recipe.image_stages["teacher"].preprocess.window == FixedWindow(low=0.0, high=255.0)


def test_a_modality_that_half_of_the_clips_have(kd: Kd, own: Own) -> None:
    own.classes("wave", "kick", people=8)
    for path in sorted(own.root.rglob("*_ir.npy"))[::2]:
        shutil.copy(path, str(path).replace("_ir", "_rgb"))
    code, text, _ = kd("data", "init", "gestures")
    assert code == 0
    assert "rgb exists for 16 of 32 recordings" in text
    assert "no teacher: too few clips have colour pictures" in text
    code, text, _ = kd("data", "init", "gestures", "--student", "rgb", "--force")
    assert code == 0
    assert "the student sees rgb (rgb)" in text
    assert "16 clips without rgb are not used" in text
    assert recipes.load("train", str(own.root / "recipe.toml"), Recipe).student.preprocess.channels == 3


def test_a_teacher_that_has_not_seen_every_class_does_not_teach(kd: Kd, own: Own) -> None:
    own.classes("wave", "kick", takes=5).classes("wave", "kick", takes=5, modality="rgb").classes("jump", takes=1)
    kd("data", "init", "gestures")
    assert recipes.load("train", str(own.root / "recipe.toml"), Recipe).teacher is None


def test_rare_classes_count_as_much_as_frequent_ones(kd: Kd, own: Own) -> None:
    own.classes("wave", "kick", takes=4).classes("jump", takes=1)
    _, text, _ = kd("data", "init", "gestures")
    assert "rare classes count as much as frequent ones" in text
    assert recipes.load("train", str(own.root / "recipe.toml"), Recipe).student.class_weights == "balanced"


def test_depth_is_seen_between_the_distances_that_occur(kd: Kd, own: Own) -> None:
    """From 1503 to 2496 mm, and half of that span on either side for what was not looked at."""
    for label in ("wave", "kick"):
        for who in range(4):
            images = np.zeros((20, 40, 48), np.uint16)
            images[:, 10:30] = np.linspace(1503, 2496, 48, dtype=np.uint16)
            path = own.root / label / f"s{who}_depth.npy"
            path.parent.mkdir(exist_ok=True)
            np.save(path, images)
    kd("data", "init", "gestures")
    recipe = recipes.load("train", str(own.root / "recipe.toml"), Recipe)
    assert recipe.student.preprocess.window == FixedWindow(low=1000.0, high=3000.0)
    assert recipe.student.preprocess.holes == "left_out"


def test_long_clips_get_a_shorter_window(kd: Kd, own: Own) -> None:
    for label in ("walk", "run"):
        for who in range(4):
            own.clip(f"{label}/s{who}_ir.npy", frames=300)
    kd("data", "init", "gestures")
    recipe = recipes.load("train", str(own.root / "recipe.toml"), Recipe)
    assert (recipe.windows, recipe.clip_seconds) == ("random", 3.0)


def test_gaps_of_long_recordings_become_a_class(kd: Kd, own: Own) -> None:
    for who in range(4):
        own.clip(f"long{who}.npy", frames=300)
    lines = ["label,subject,start_s,end_s,ir"]
    for who in range(4):
        lines += [f"wave,p{who},2,3,long{who}.npy", f"kick,p{who},5,6,long{who}.npy"]
    own.manifest(*lines)
    before = (own.root / "manifest.csv").read_bytes()
    code, text, _ = kd("data", "init", "gestures")
    assert code == 0
    assert "gaps between labelled pieces: 32, 32 s; class 'none'" in text
    assert "written: gestures/dataset.toml, gestures/recipe.toml" in text
    assert (own.root / "manifest.csv").read_bytes() == before
    assert Files(own.root).labels == ("kick", "none", "wave")


def test_the_window_is_that_of_actions_not_of_what_lies_between(kd: Kd, own: Own) -> None:
    lines = ["label,subject,start_s,end_s,ir"]
    for who in range(4):
        own.clip(f"long{who}.npy", frames=225)
        lines += [f"wave,p{who},1,3,long{who}.npy", f"kick,p{who},4,6,long{who}.npy"]  # gaps: 1 s, 1 s, 1.5 s
    own.manifest(*lines)
    assert kd("data", "init", "gestures")[0] == 0
    assert recipes.load("train", str(own.root / "recipe.toml"), Recipe).clip_seconds == 2.0


def test_a_manifest_stays_as_it_is_and_says_what_it_does_not_name(kd: Kd, own: Own) -> None:
    own.classes("wave", "kick", people=2)
    own.clip("wave/new_ir.npy")
    names = [f"{label}/s{who}_t{take}" for label in ("wave", "kick") for who in (0, 1) for take in (0, 1)]
    own.manifest("label,mood,ir", *(f"{name.split('/')[0]},good,{name}_ir.npy" for name in names))
    before = (own.root / "manifest.csv").read_bytes()
    code, text, _ = kd("data", "init", "gestures")
    assert code == 0
    assert "columns that are not read: mood" in text
    assert "1 recording that manifest.csv does not name, not used: wave/new_ir.npy; to use them add rows" in text
    assert (own.root / "manifest.csv").read_bytes() == before


@pytest.mark.slow
def test_recordings_that_came_later_are_told_and_can_be_taken_in(kd: Kd, own: Own) -> None:
    own.classes("wave", "kick")
    assert kd("data", "init", "gestures")[0] == 0
    assert "does not name" not in kd("data", "check", "files", "--data", "gestures", "--quick")[1]
    for take in (8, 9):
        own.clip(f"wave/s1_t{take}_ir.npy")
    said = "2 recordings that manifest.csv does not name, not used: wave/s1_t8_ir.npy, wave/s1_t9_ir.npy; to use them"
    code, text, _ = kd("data", "check", "files", "--data", "gestures", "--quick")
    assert (code, said in text) == (0, True)
    code, _, error = kd("train", "--data", "gestures", "--dry-run", *TINY)
    assert (code, f"note: {said}" in error) == (0, True)
    (own.root / "manifest.csv").unlink()
    assert kd("data", "init", "gestures", "--force")[0] == 0
    assert len(rows(own)) == 18
    _, text, error = kd("train", "--data", "gestures", "--dry-run", *TINY)
    assert "does not name" not in text + error


def test_a_list_of_another_tool_becomes_the_manifest(kd: Kd, own: Own) -> None:
    lines = ["file_name,label"]
    for label in ("wave", "kick"):
        for k in range(4):
            own.clip(f"data/{label}{k}.npy")
            lines.append(f"data/{label}{k}.npy,{label}")
    (own.root / "metadata.csv").write_text("\n".join(lines) + "\n")
    code, _, error = kd("train", "--data", "gestures")
    assert (code, "gestures is described by metadata.csv" in one_line(error)) == (2, True)
    code, text, error = kd("data", "init", "gestures")
    assert (code, error) == (0, "")
    assert text.startswith("gestures, by metadata.csv: 8 clips, 2 classes, subjects not known")
    assert {row["label"] for row in rows(own)} == {"wave", "kick"}


def test_names_of_any_bytes(kd: Kd, own: Own) -> None:
    """A name that is no UTF-8, a blank at its end, an escape sequence: written, read again, and shown harmlessly."""
    own.classes("wave", "kick", people=2)
    for name in (b"odd \xff name_ir.npy", b"\x1b[31mred_ir.npy"):
        shutil.copy(own.root / "wave/s0_t0_ir.npy", os.fsencode(own.root / "wave") + b"/" + name)
    (own.root / "wave" / os.fsdecode(b"odd \xff name_ir.npy")).write_bytes(b"junk")
    code, text, error = kd("data", "init", "gestures")
    assert (code, error) == (0, "")
    assert (
        "files that cannot be read, training continues without them: 1, gestures/wave/odd \\udcff name_ir.npy" in text
    )
    assert "\x1b" not in text
    assert len(Files(own.root).samples) == 10
    code, text, error = kd("data", "check", "files", "--data", "gestures")
    assert (code, error) == (1, "")
    assert "gestures/wave/odd \\udcff name_ir.npy is damaged" in text


def test_of_very_many_files_some_are_opened_and_it_is_said(kd: Kd, own: Own, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "MOST_HEADERS", 5)
    own.classes("wave", "kick")
    code, text, _ = kd("data", "init", "gestures")
    assert code == 0
    assert "ir: 4 of 16 files were opened, evenly spread" in text
    assert len(rows(own)) == 16


@pytest.mark.slow
def test_nothing_is_overwritten_in_silence(kd: Kd, own: Own) -> None:
    own.classes("wave", "kick")
    assert kd("data", "init", "gestures")[0] == 0
    (own.root / "recipe.toml").write_text("# mine\n")
    before = own.content()
    code, text, error = kd("data", "init", "gestures")
    assert (code, text) == (2, "")
    assert "gestures/recipe.toml exists already" in one_line(error)
    assert own.content() == before
    assert kd("data", "init", "gestures", "--dry-run")[0] == 0
    assert own.content() == before
    assert kd("data", "init", "gestures", "--force")[0] == 0
    changed = {name for name, content in own.content().items() if before[name] != content}
    assert changed == {"recipe.toml"}


# ------------------------------------------------------------------------------------------- faults, one line each


def _empty(own: Own) -> None:
    pass


def _one_class(own: Own) -> None:
    own.classes("wave")


def _outside(own: Own) -> None:
    own.clip("../secret.npy")
    own.manifest("label,ir", "wave,../secret.npy")


def _missing(own: Own) -> None:
    own.manifest("label,ir", "wave,gone.npy")


def _beyond(own: Own) -> None:
    own.clip("long.npy")
    own.manifest("label,start_s,end_s,ir", "wave,0,0.4,long.npy", "kick,0.5,9,long.npy")


def _reversed(own: Own) -> None:
    own.clip("long.npy")
    own.manifest("label,start_s,end_s,ir", "wave,0.5,0.2,long.npy")


def _twice(own: Own) -> None:
    own.clip("a.npy")
    own.manifest("id,label,ir", "1,wave,a.npy", "1,wave,a.npy")


def _capitals(own: Own) -> None:
    own.clip("a.npy")
    own.clip("b.npy")
    own.manifest("label,ir", "sit down,a.npy", "Sit_down,b.npy")


def _folders_by_capitals(own: Own) -> None:
    own.classes("wave", "Wave")


def _mixed(own: Own) -> None:
    own.classes("wave", "kick")
    own.clip("wave/s9_t9_ir.npy", dtype=np.uint16)


def _mixed_kinds(own: Own) -> None:
    own.classes("wave", "kick", people=1)
    np.save(own.root / "wave" / "s9_t9_ir.npy", np.zeros((9, 3), np.float32))


def _all_damaged(own: Own) -> None:
    own.classes("wave", "kick", people=1)
    for path in own.root.rglob("*.npy"):
        path.write_bytes(b"\x93NUMPY junk")


def _signals_only(own: Own) -> None:
    for label in ("wave", "kick"):
        (own.root / label).mkdir()
        (own.root / label / "1_acc.csv").write_text("time,x,y,z\n0,1,2,3\n0.02,4,5,6\n")


def _two_words(own: Own) -> None:
    for label in ("wave", "kick"):
        for who in ("anna", "ben"):
            for take in range(2):
                own.clip(f"{label}_{who}_{take}.npy")


def _class_without_pictures(own: Own) -> None:
    own.classes("wave", "kick")
    for who in range(4):
        (own.root / "jump").mkdir(exist_ok=True)
        (own.root / "jump" / f"s{who}_t0_acc.csv").write_text("time,x,y,z\n0,1,2,3\n0.02,4,5,6\n")


def _faulty_settings(own: Own) -> None:
    own.classes("wave", "kick")
    (own.root / "dataset.toml").write_text("labls = []\n")


def _another_type(own: Own) -> None:
    own.classes("wave", "kick")
    (own.root / "dataset.toml").write_text('[modality.ir]\ndtype = "uint16"\n')


def _unknown_test_subject(own: Own) -> None:
    own.classes("wave", "kick")
    (own.root / "dataset.toml").write_text('test_subjects = ["s9"]\n')


def _test_subjects_leave_no_class(own: Own) -> None:
    own.classes("wave", "kick")
    own.clip("jump/s2_t0_ir.npy")
    own.clip("jump/s2_t1_ir.npy")
    (own.root / "dataset.toml").write_text('test_subjects = ["2"]\n')


FAULTS: dict[Callable[[Own], None], str] = {
    _empty: "gestures contains no recording",
    _one_class: "gestures has one class, 'wave'",
    _outside: "line 2: ir '../secret.npy' lies outside the folder",
    _missing: "line 2: no ir file gone.npy",
    _beyond: "line 3: long.npy lasts 0.97 s, its piece extends from 0.5 s to 9 s",
    _reversed: "line 2: the piece ends at 0.2 s, before it begins at 0.5 s",
    _twice: "lines 2 and 3: two rows with id '1'",
    _capitals: "lines 2 and 3: labels 'sit down' and 'Sit_down' differ by capitals or blanks only",
    _folders_by_capitals: "the classes 'Wave' and 'wave'",
    _mixed: "16 of uint8 pictures (kick/s0_t0_ir.npy); 1 of uint16 pictures (wave/s9_t9_ir.npy)",
    _mixed_kinds: "1 of float32 signals (wave/s9_t9_ir.npy)",
    _all_damaged: "no picture of gestures can be read: 4 damaged files",
    _signals_only: "gestures contains only signals (acc)",
    _two_words: "two words that vary: 'kick' and 'anna'",
    _class_without_pictures: "ir of gestures has no readable training clip of 'jump'",
    _faulty_settings: "labls: unknown key (did you mean 'labels'?)",
    _another_type: "dtype of [modality.ir] in dataset.toml is uint16, its 16 files contain uint8",
    _unknown_test_subject: "test_subjects in dataset.toml names 's9'",
    _test_subjects_leave_no_class: "split 'default' has no training sample of 'jump'",
}


@pytest.mark.parametrize(("make", "said"), FAULTS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_a_fault_is_one_line_and_nothing_is_written(kd: Kd, own: Own, make: Callable[[Own], None], said: str) -> None:
    make(own)
    before = own.content()
    code, text, error = kd("data", "init", "gestures")
    assert (code, text) == (2, "")
    assert said in one_line(error)
    assert own.content() == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nowhere",), "no folder nowhere"),
        (("gestures", "--student", "rbg"), "no pictures called 'rbg'. Expected one of ir"),
        (("gestures", "--pattern", "{who}"), "pattern '{who}'"),
    ],
)
def test_a_wrong_word_is_one_line(kd: Kd, own: Own, words: tuple[str, ...], said: str) -> None:
    own.classes("wave", "kick", people=2)
    code, _, error = kd("data", "init", *words)
    assert (code, said in one_line(error)) == (2, True)


def test_a_pattern_says_which_word_is_the_class(kd: Kd, own: Own) -> None:
    _two_words(own)
    code, _, error = kd("data", "init", "gestures", "--pattern", "{subject}_{label}_{trial}")
    assert (code, error) == (0, "")
    assert {row["label"] for row in rows(own)} == {"anna", "ben"}
    code, _, error = kd("data", "init", "gestures", "--pattern", "{label}_{subject}_{trial}", "--force")
    assert "--pattern with gestures/manifest.csv" in one_line(error)


def test_one_subject_alone_is_warned_of(kd: Kd, own: Own) -> None:
    own.classes("wave", "kick")
    own.clip("jump/s1_t0_ir.npy")
    own.clip("jump/s1_t1_ir.npy")
    for who in (0, 1):
        own.clip(f"sit/s{who}_t0_ir.npy")
    code, text, _ = kd("data", "init", "gestures")
    assert code == 0
    assert "classes performed by only one subject: 'jump'" in text
    assert "classes performed by fewer than 3 subjects: 'sit'" in text
    assert "'kick' has 8 recordings, 'sit' 2" in text
    assert "classes without a test clip: 'jump', 'sit'" in text


def test_a_class_that_only_the_test_subject_performs(kd: Kd, own: Own) -> None:
    own.classes("wave", "kick")
    own.clip("jump/s3_t0_ir.npy")
    own.clip("jump/s3_t1_ir.npy")
    code, text, _ = kd("data", "init", "gestures")
    assert code == 0
    assert (
        "split 'default' cannot be trained: split 'default' has no training sample of 'jump'; split 'clips' is" in text
    )
    assert "one person's clips may be on both sides" in text
    assert recipes.load("train", str(own.root / "recipe.toml"), Recipe).split == "clips"


@pytest.mark.slow
def test_damaged_files_are_named_and_stay_unless_said(kd: Kd, own: Own) -> None:
    own.classes("wave", "kick")
    (own.root / "wave" / "s1_t1_ir.npy").write_bytes(b"\x93NUMPY junk")
    code, text, _ = kd("data", "init", "gestures", "--dry-run")
    assert code == 0
    assert (
        "files that cannot be read, training continues without them: 1, gestures/wave/s1_t1_ir.npy is damaged" in text
    )
    assert kd("data", "init", "gestures")[0] == 0
    assert len(rows(own)) == 16
    (own.root / "manifest.csv").unlink()
    assert kd("data", "init", "gestures", "--without-damaged", "--force")[0] == 0
    assert [row["id"] for row in rows(own) if row["id"].startswith("wave/s1")] == ["wave/s1_t0"]
    assert kd("data", "init", "gestures", "--force")[0] == 0


def test_a_read_only_file_system(kd: Kd, own: Own, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    own.classes("wave", "kick")
    before = own.content()
    monkeypatch.setattr(house_files.tempfile, "TemporaryFile", refused)
    code, text, error = kd("data", "init", "gestures")
    assert (code, text) == (2, "")
    assert "recipe.toml cannot be written (Read-only file system)" in one_line(error)
    assert own.content() == before


@pytest.mark.parametrize("after", [0, 1])
def test_a_full_disk_leaves_nothing_behind(kd: Kd, own: Own, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    own.classes("wave", "kick")
    before = own.content()
    real, calls = os.fsync, []

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) > after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    monkeypatch.setattr(house_files.os, "fsync", full)
    code, text, error = kd("data", "init", "gestures")
    assert (code, text) == (2, "")
    assert "cannot be written (No space left on device)" in one_line(error)
    assert own.content() == before


@pytest.mark.parametrize("where", ["looking", "writing"])
def test_ctrl_c_leaves_nothing_behind(kd: Kd, own: Own, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    own.classes("wave", "kick")
    before = own.content()
    if where == "looking":
        monkeypatch.setattr(survey, "_modality", interrupted)
    else:
        monkeypatch.setattr(folder_module, "_write_text", interrupted)
    code, _, _ = kd("data", "init", "gestures")
    assert code != 0
    assert own.content() == before


# ------------------------------------------------------------------------------------------- train --data DIR


def test_training_takes_the_folders_own_recipe(kd: Kd, own: Own) -> None:
    own.classes("wave", "kick")
    assert kd("data", "init", "gestures")[0] == 0
    code, text, error = kd("train", "--data", "gestures", "--out", "run", *TINY)
    assert code == 0, error
    assert error.startswith("recipe: gestures/recipe.toml\n")
    assert "gestures, split default, 4 test clips" in text
    summary = json.loads(Path("run/summary.json").read_text())
    assert (summary["recipe"]["student"]["modality"], summary["complete"]) == ("ir", True)


def test_training_proposes_where_there_is_no_recipe(kd: Kd, own: Own) -> None:
    own.classes("wave", "kick")
    before = own.content()
    code, text, error = kd("train", "--data", "gestures", "--dry-run", *TINY)
    assert code == 0, error
    assert error.startswith(
        "no recipe in gestures: proposed one (the student sees ir (nir)); kd-edge data init gestures keeps it\n"
    )
    assert text.startswith("8 training, ")
    assert own.content() == before


def test_a_proposed_teacher_can_be_trained(kd: Kd, own: Own) -> None:
    own.classes("wave", "kick", takes=1).classes("wave", "kick", takes=1, modality="rgb")
    settings = [*TINY[2:], *(word.replace("student", "teacher") for word in TINY[2:])]
    code, text, error = kd("train", "--data", "gestures", "--dry-run", *settings)
    assert code == 0, error
    assert "student: clips (4, 8, 3, 24, 24)" in text
    assert "teacher: clips (4, 8, 9, 24, 24)" in text
    assert "mgcam" in text


def test_a_known_data_set_still_wants_a_recipe(kd: Kd, own: Own) -> None:
    (own.root / "Depth").mkdir()
    (own.root / "Depth" / "a1_s1_t1_depth.mat").touch()
    code, _, error = kd("train", "--data", "gestures")
    assert (code, "generated data (kind = 'synthetic'), which reads no folder" in one_line(error)) == (2, True)


def test_images_in_folders_with_another_size(kd: Kd, own: Own) -> None:
    for label in ("wave", "kick"):
        for who in range(4):
            folder = own.root / label / f"s{who}_ir"
            folder.mkdir(parents=True)
            for k in range(9):
                cv2.imwrite(str(folder / f"{k}.png"), np.full((40 + 8 * (who > 2), 48), 90, np.uint8))
    code, text, _ = kd("data", "init", "gestures", "--json")
    modality = json.loads(text)["modalities"][0]
    assert code == 0
    assert modality["sizes"] == [[40, 48, 6], [48, 48, 2]]
    assert (modality["frames"], modality["fps"]) == (9, [30.0, 30.0, 30.0])
