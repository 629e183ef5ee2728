from __future__ import annotations

from pathlib import Path

import pytest

from kd_edge import recipes
from kd_edge.errors import ConfigError
from kd_edge.study.plan import load_study, plan
from kd_edge.train.distil.methods import DkdLoss, MgcamLoss
from kd_edge.train.recipe import Recipe
from tests.runs import tiny_values

SHIPPED = sorted((Path(__file__).parents[3] / "train" / "recipes").glob("*.toml"))
MINIMAL = {"name": "x", "split": "subjects", "student": {"modality": "nir"}, "teacher": {"modality": "rgb"}}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_every_shipped_recipe_validates_and_is_named_like_its_file(path: Path) -> None:
    recipe = recipes.load("train", str(path), Recipe)
    assert recipe.name == path.stem
    assert path.read_text(encoding="utf-8").startswith("#"), "a recipe says in its first line what it is for"


def test_the_shipped_recipes_are_there() -> None:
    assert {"quickstart", "bundled", "utd_mhad_pose_to_depth", "utd_mhad_depth_alone"} <= {p.stem for p in SHIPPED}


def test_whatever_does_not_go_together_is_told_at_once() -> None:
    values = tiny_values(cache_every=2, losses=[{"kind": "dkd", "warmup_epochs": 99}], stages=[{"kind": "head"}])
    values["student"]["preprocess"] |= {"motion_offsets_ms": [0, 67, 133]}
    with pytest.raises(ConfigError) as told:
        recipes.validate(values, Recipe, "recipe x")
    for part in (
        "recipe x has 4 faults: loss 'dkd' warms up longer than student.epochs",
        "; cache_every drops the frames that motion stacks need",
        "; stages are head: use each of",
        "; losses apply to the labels stage, which is missing",
    ):
        assert part in str(told.value)


PRINTS = {
    "ntu_rgb_to_ir": (
        "f22e0a82fe604b78083b20570f6c295e1ae7e8c2c50b71a30d002f2419498134",
        "c45df414d926a6e99b0db382604ae6af0898891b7769bcd2e96283f4e6272e51",
    ),
    "pku_rgb_to_ir": (
        "a2f2484bf808a07961af3cd1bc0ce29eb8819ae9eca1fb98ca22ab52b38d1fec",
        "5d463c79d31737adf5f0de52a4965d2c27dd8a0ddb9318e69ff993ced9941d8a",
    ),
    "sakdn_berkeley_mhad": (
        "73a06d1d0eedd3620b1a28aadb9f444ac89f0bd2021257883f5ef2ec85e0266e",
        "46e2a0d7bb72046b39f35e6f05bb808c67235bebaf72b42886c059244bc430ed",
    ),
    "sakdn_mmact": (
        "17754190e5f55fe5268f8ec747b4a4d37af63f0f3efcd1adaf2855d7c346d621",
        "2e4578aaf4483f2fc105aadc720d18d0677d5c047ff0f94940bbb810c6c730e5",
    ),
    "sakdn_utd_mhad": (
        "0a18c9e4cccddfd6b55b3a3b98be8e126724ea4729935bd4f49bd0ad1a352a39",
        "f2486ce709fa8a5c7adccd425da333d4285ca283c7c4d21457238aef74037648",
    ),
    "utd_mhad_pose_to_depth_alone": (
        "56e7bf5a05789ab7282f324b936a8c14dfb954dc820d9c95cc8f42d022d39cd3",
        "a3b2295fbb1e4f938eb0baa475345f7b10781da2189e88d79f57d6e01bc372e1",
    ),
    "utd_mhad_pose_to_depth": (
        "8f9862cc92ecbd03d1c534da8dee9ac3cfb661a4ec098a579fbc2710cfe2407d",
        "e14a8cba044c658c3a58894b52968b43892e822a9b98d58cb7fb0f9c942627b2",
    ),
    "utd_mhad_sensors_to_depth": (
        "aa15da4a73d439ae921581ef142f2f4c38582f920b691fe94064aa5b18a17566",
        "2fa2a15200c0b4732a85b3aa38c28c8ca86569dffac38afa092a1af1da588e76",
    ),
}
"""Fingerprint of each recipe of real recordings and of its teacher: those of all runs there are."""
PRINTS_BEFORE = {
    "sakdn_berkeley_mhad": "d3bcffe163a683722db8b4c681ab7193eb57fb5a640c4e8b69e11c574b514f15",
    "sakdn_mmact": "0b219cd93602983e51c6f39bf7d5b5e8ea218412c44f06304f70b37a4277949f",
    "sakdn_utd_mhad": "0257e8865d4ffb29037f63900ae59d5355eb6d7ca27aa92e11c0410e574352f2",
    "utd_mhad_sensors_to_depth": "a27a7b1f13f440b63d05d62f24c3f9f719b5b4c1d08577bb4f3f9be7068f5f26",
}
"""Fingerprints of those whose TRN dropped out twice and had no hidden size of its own, of runs of that time."""
MINIMAL_PRINT = "7fc2c451c90d8a2a0e700f390e407ff85523da57429e39ea8dc6f0abfe4a9e9d"
"""Fingerprint of ``MINIMAL`` before there were samplers and class weights."""
DENSE = {
    "teacher": None,
    "losses": [],
    "stages": [
        {"kind": "dense", "targets": [{"kind": "joints"}, {"kind": "signals", "sensors": ["gyroscope"]}]},
        {"kind": "head"},
    ],
}
DENSE_PRINT = "722ed7d0565033d60fdd4cf20ae7dac1737fd8896c3e90ae7877585112943ee3"
"""Fingerprint of ``MINIMAL`` with these stages before targets could be shuffled."""


@pytest.mark.parametrize("name", PRINTS)
def test_fingerprints_of_the_shipped_recipes_stay(name: str) -> None:
    """The runs there are held nobody out and saw whole clips, as the studies still do."""
    recipe = recipes.load("train", name, Recipe, ["validation_subjects=[]", "windows=clip"])
    assert (recipe.fingerprint(), recipe.teacher_fingerprint()) == PRINTS[name]


def test_the_strong_student_alone_is_the_row_that_the_dense_teachers_are_held_against() -> None:
    recipe = recipes.load("train", "utd_mhad_depth_alone", Recipe, ["validation_subjects=[]"])
    row = plan(load_study("utd_mhad_dense"), rows=["alone_holes"])[0].config
    assert isinstance(row, Recipe)
    assert recipe.fingerprint() == row.fingerprint()
    best = recipes.load("train", "utd_mhad_best", Recipe)
    assert recipe.student == best.student, "the same student throughout: only the stages differ"


def test_the_last_step_to_the_strong_student_is_what_it_learns_of_labels() -> None:
    alone = plan(load_study("utd_mhad_dense"), rows=["alone"])[0].config
    person = plan(load_study("utd_mhad_steps"), rows=["person"])[0].config
    assert isinstance(person, Recipe)
    assert isinstance(alone, Recipe)
    assert person.student == alone.student
    assert (person.segments, person.windows) == (alone.stages[0].segments, alone.windows)


def test_features_that_are_regressed_beside_the_labels_keep_their_fingerprint() -> None:
    """As it was before they could be shuffled."""
    values = recipes.overridden(
        recipes.read("train", "quickstart"), ["student.augment.flip=false", "teacher.augment.flip=false"]
    )
    prints = {}
    for shuffle in (None, "class"):
        loss = {"kind": "dense", "targets": [{"kind": "features", "shuffle": shuffle}]}
        prints[shuffle] = recipes.validate(values | {"losses": [loss]}, Recipe, "r").fingerprint()
    assert prints[None].startswith("9e0858513535e947")
    assert prints["class"] != prints[None]


@pytest.mark.parametrize("name", PRINTS_BEFORE)
def test_recipes_of_before_keep_their_fingerprints(name: str) -> None:
    """As a run's folder holds them: they know nothing of what came later."""
    values = recipes.overridden(recipes.read("train", name), ["validation_subjects=[]", "windows=clip"])
    del values["student"]["model"]["dropout_at"], values["student"]["model"]["relation_hidden"]
    recipe = recipes.validate(values, Recipe, "recipe")
    assert (recipe.fingerprint(), recipe.teacher_fingerprint()) == (PRINTS_BEFORE[name], PRINTS[name][1])


def test_what_a_head_does_not_read_is_in_no_fingerprint() -> None:
    def of(temporal: str, **model: object) -> str:
        values = MINIMAL | {"student": {"modality": "nir", "model": {"temporal": temporal, **model}}}
        return recipes.validate(values, Recipe, "recipe").fingerprint()

    later = {"dropout_at": "features", "relation_hidden": 64}
    assert of("tsn", **later) == of("tsn")
    assert of("tconv", relation_hidden=64) == of("tconv") != of("tconv", dropout_at="features")
    assert len({of("trn"), of("trn", relation_hidden=64), of("trn", dropout_at="features")}) == 3


def test_the_defaults_are_the_papers() -> None:
    recipe = recipes.validate(MINIMAL, Recipe, "recipe")
    assert recipe.teacher is not None
    assert (recipe.student.model.backbone, recipe.teacher.model.backbone) == ("resnet18", "resnet50")
    assert (recipe.student.batch_size, recipe.teacher.batch_size) == (8, 16)
    assert (recipe.segments, recipe.student.epochs, recipe.student.learning_rate) == (8, 80, 0.001)
    assert (recipe.student.momentum, recipe.student.weight_decay, recipe.student.model.dropout) == (0.9, 5e-4, 0.5)
    dkd, mgcam = recipe.losses
    assert isinstance(dkd, DkdLoss)
    assert isinstance(mgcam, MgcamLoss)
    assert (dkd.weight, dkd.target_weight, dkd.nontarget_weight, mgcam.weight) == (0.1, 0.7, 0.35, 1.0)


def test_toml_written_is_the_recipe_read(tmp_path: Path) -> None:
    recipe = recipes.validate(MINIMAL, Recipe, "recipe")
    (tmp_path / "r.toml").write_text(recipes.to_toml(recipe), encoding="utf-8")
    assert recipes.load("train", str(tmp_path / "r.toml"), Recipe) == recipe


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"losses": []}, "a teacher without losses"),
        ({"losses": [{"kind": "rkd", "distance_weight": 0, "angle_weight": 0}]}, "both 0"),
        ({"losses": [{"kind": "dkd", "target_weight": 0, "nontarget_weight": 0}]}, "both 0"),
        ({"losses": [{"kind": "mgcam", "tau": float("inf")}]}, "finite"),
        ({"losses": [{"kind": "dkd", "warmup_epochs": 500}]}, "warms up longer"),
        ({"losses": [{"kind": "sp", "student_layers": ["a", "b"]}]}, "one layer of each network"),
        (
            {"cache_every": 3, "student": {"modality": "nir", "preprocess": {"motion_offsets_ms": [0, 70]}}},
            "motion stacks need",
        ),
        ({"losses": [{"kind": "rkd"}], "student": {"modality": "nir", "batch_size": 1}}, "at least 2"),
        ({"losses": 5}, "losses: input should be a valid tuple"),
        ({"losses": 5, "teacher": None}, "losses: input should be a valid tuple"),
        ({"losses": None, "teacher": None}, "losses: input should be a valid tuple"),
        ({"losses": [{"kind": "dkdd"}]}, "did you mean 'dkd'"),
        ({"studnet": {}}, "did you mean 'student'"),
        ({"name": "../x"}, "name"),
        ({"clip_seconds": 3601}, "clip_seconds: input should be less than or equal to 3600"),
        ({"student": {"modality": "nir", "weights": "a.safetensors"}}, "weights is for the teacher"),
        ({"student": {"modality": "nir", "augment": {"crop_scale": [1.0, 0.5]}}}, "smaller value first"),
        ({"student": {"modality": "nir", "learning_rate": 0}}, "learning_rate"),
        (
            {"student": {"modality": "nir", "class_weights": "ballanced"}},
            "class_weights must be 'balanced', or a table of",
        ),
        ({"student": {"modality": "nir", "class_weights": {}}}, "class_weights must be 'balanced', or a table of"),
        ({"student": {"modality": "nir", "class_weights": {"jump": 0}}}, "with a positive number each"),
        ({"student": {"modality": "nir", "class_weights": {"jump": float("inf")}}}, "with a positive number each"),
        ({"student": {"modality": "nir", "class_weights": "balanced", "sampler": "balanced"}}, "keep one of them"),
        ({"student": {"modality": "nir", "repeat": 0}}, "student.repeat: input should be greater than or equal to 1"),
    ],
)
def test_faults_are_told_in_one_line(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        recipes.validate(MINIMAL | changes, Recipe, "recipe")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_losses_need_a_teacher() -> None:
    alone = {key: value for key, value in MINIMAL.items() if key != "teacher"}
    with pytest.raises(ConfigError, match="has 1 fault: losses need a teacher"):
        recipes.validate(alone, Recipe, "recipe")


def test_a_teacher_that_is_taken_away_takes_its_losses_with_it() -> None:
    recipe = recipes.load("train", "quickstart", Recipe, ["teacher=null"])
    assert (recipe.teacher, recipe.losses) == (None, ())
    assert recipe == recipes.load("train", "quickstart", Recipe, ["teacher=null", "losses=[]"])


OPTIONAL = (
    "clip_seconds",
    "threads",
    "semantics",
    "data.root",
    "teacher.weights",
    "student.weights",
    "student.clip_gradient",
    "student.decay_epochs",
    "student.initial_weights",
    "student.class_weights",
)


@pytest.mark.parametrize("key", OPTIONAL)
def test_null_takes_away_what_is_optional(key: str) -> None:
    base = recipes.read("train", "quickstart") | {"data": {"kind": "files"}, "split": "default"}
    recipe = recipes.validate(recipes.overridden(base, [f"{key}=null"]), Recipe, "recipe")
    value: object = recipe
    for part in key.split("."):
        value = getattr(value, part)
    assert value is None


@pytest.mark.parametrize(
    ("name", "stage", "before"),
    [("sakdn_utd_mhad", "student", "bn_inception.pth"), ("ntu_rgb_to_ir", "teacher", "imagenet")],
)
def test_initial_weights_of_a_recipe_can_be_taken_away(name: str, stage: str, before: str) -> None:
    recipe = recipes.load("train", name, Recipe)
    assert recipe.image_stages[stage].initial_weights == before
    random = recipes.load("train", name, Recipe, [f"{stage}.initial_weights=null"])
    assert random.image_stages[stage].initial_weights is None
    assert random.fingerprint() != recipe.fingerprint()


def test_null_for_what_must_be_there_is_told() -> None:
    with pytest.raises(
        ConfigError, match=r"student\.epochs: input should be a valid integer, got null, which is for op"
    ):
        recipes.load("train", "quickstart", Recipe, ["student.epochs=null"])


def test_fingerprint_follows_what_decides_the_weights_only() -> None:
    recipe = recipes.validate(MINIMAL, Recipe, "recipe")
    assert recipes.validate(MINIMAL | {"name": "y", "workers": 2}, Recipe, "r").fingerprint() == recipe.fingerprint()
    assert recipes.validate(MINIMAL | {"seed": 1}, Recipe, "r").fingerprint() != recipe.fingerprint()
    utd = [{"data": {"kind": "utd_mhad", "root": root}} for root in ("/a", "/b")]
    prints = {recipes.validate(MINIMAL | u, Recipe, "r").fingerprint() for u in utd}
    assert len(prints) == 1


@pytest.mark.parametrize(
    "changes", [{"class_weights": "balanced"}, {"class_weights": {"jump": 2.0}}, {"sampler": "balanced"}, {"repeat": 4}]
)
def test_what_a_stage_draws_and_weighs_is_in_its_fingerprints(changes: dict[str, object]) -> None:
    recipe = recipes.validate(MINIMAL, Recipe, "recipe")
    student = recipes.validate(MINIMAL | {"student": {"modality": "nir", **changes}}, Recipe, "r")
    teacher = recipes.validate(MINIMAL | {"teacher": {"modality": "rgb", **changes}}, Recipe, "r")
    assert len({recipe.fingerprint(), student.fingerprint(), teacher.fingerprint()}) == 3
    assert student.teacher_fingerprint() == recipe.teacher_fingerprint()
    assert teacher.teacher_fingerprint() != recipe.teacher_fingerprint()


def test_defaults_of_keys_that_came_later_change_no_fingerprint() -> None:
    defaults = {"class_weights": None, "sampler": "shuffled", "repeat": 1}
    recipe = recipes.validate(MINIMAL, Recipe, "recipe")
    said = recipes.validate(MINIMAL | {"student": {"modality": "nir", **defaults}}, Recipe, "r")
    assert said.fingerprint() == recipe.fingerprint() == MINIMAL_PRINT


def dense_print(**changes: object) -> str:
    """Fingerprint of ``DENSE`` whose first target has these changes."""
    dense, head = DENSE["stages"]
    targets = [{"kind": "joints"} | changes, *dense["targets"][1:]]
    return recipes.validate(
        MINIMAL | DENSE | {"stages": [dense | {"targets": targets}, head]}, Recipe, "r"
    ).fingerprint()


def test_stages_keep_their_fingerprints_and_controls_have_their_own() -> None:
    assert dense_print() == dense_print(shuffle=None) == DENSE_PRINT
    pixels = {"kind": "pixels"}
    others: list[dict[str, object]] = [{"shuffle": how} for how in ("class", "time", "all")]
    others += [pixels, pixels | {"ahead_ms": 200.0}, pixels | {"side_px": 16}, pixels | {"shuffle": "all"}]
    others += [{"kind": "random", "of": {"kind": "joints"}}, {"kind": "random", "of": pixels}]
    assert len({DENSE_PRINT, *(dense_print(**changes) for changes in others)}) == 10


def test_only_what_decides_the_teacher_is_in_its_fingerprint() -> None:
    recipe = recipes.validate(MINIMAL, Recipe, "recipe")
    same = [{"losses": [{"kind": "at"}]}, {"student": {"modality": "nir", "epochs": 3}}, {"name": "y"}]
    other = [{"seed": 1}, {"segments": 4}, {"teacher": {"modality": "rgb", "epochs": 3}}, {"split": "views"}]
    for changes in same:
        changed = recipes.validate(MINIMAL | changes, Recipe, "r")
        assert changed.teacher_fingerprint() == recipe.teacher_fingerprint()
    for changes in other:
        changed = recipes.validate(MINIMAL | changes, Recipe, "r")
        assert changed.teacher_fingerprint() != recipe.teacher_fingerprint()


def test_the_students_modality_decides_what_sensors_see() -> None:
    """Their signals are resampled onto its clips; all else of the student does not matter to them."""
    teacher = {"kind": "sensors", "sensors": ["gyroscope"], "semantic_weight": 0}
    values = MINIMAL | {"teacher": teacher, "losses": [{"kind": "soft_target"}]}
    recipe = recipes.validate(values, Recipe, "recipe")
    other = recipes.validate(values | {"student": {"modality": "rgb"}}, Recipe, "recipe")
    longer = recipes.validate(values | {"student": {"modality": "nir", "epochs": 3}}, Recipe, "recipe")
    assert other.teacher_fingerprint() != recipe.teacher_fingerprint()
    assert longer.teacher_fingerprint() == recipe.teacher_fingerprint()


def test_shapes_of_the_clips() -> None:
    recipe = recipes.validate(MINIMAL, Recipe, "recipe")
    assert recipe.clip_shapes == ((8, 1, 224, 224), (8, 1, 224, 224))
    assert recipes.validate(MINIMAL | {"teacher": None, "losses": []}, Recipe, "r").clip_shapes is None
