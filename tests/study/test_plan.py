from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kd_edge import recipes
from kd_edge.errors import ConfigError
from kd_edge.models import ClipModel, build_model
from kd_edge.models.bninception import CAFFE_MEAN, CAFFE_STD
from kd_edge.study import robustness, shipped
from kd_edge.study.classical import CnnLstmConfig, CrcConfig, TstddsConfig
from kd_edge.study.plan import ChangesConfig, StudyConfig, load_study, merged, plan
from kd_edge.study.report import report
from kd_edge.train.distil.methods import GsdmLoss
from kd_edge.train.recipe import Recipe
from kd_edge.train.teachers.images import image_places
from kd_edge.train.teachers.sensors import BLOCKS

SHIPPED = sorted((Path(__file__).parents[2] / "train" / "studies").glob("*.toml"))


def test_rows_splits_and_seeds_are_multiplied_in_the_order_of_the_table(study: StudyConfig) -> None:
    assert [run.name for run in plan(study, seeds=[0, 3], rows=["at", "st"])] == [
        "st-subjects-s0",
        "st-subjects-s3",
        "at-subjects-s0",
        "at-subjects-s3",
    ]


def test_what_is_asked_for_twice_is_run_and_counted_once(study: StudyConfig, tmp_path: Path) -> None:
    twice = plan(study, rows=["st", "st"], splits=["subjects", "subjects"], seeds=[1, 0, 1])
    assert [run.name for run in twice] == ["st-subjects-s1", "st-subjects-s0"]
    lines = report(study, tmp_path / "studies" / "tiny", seeds=[0, 0])
    assert [line.cells["subjects"].missing for line in lines] == [1, 1, 1]


def test_a_row_may_have_seeds_of_its_own(study: StudyConfig, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"name": "a", "title": "a"}, {"name": "b", "title": "b", "seeds": [4, 2]}]
    rows += [{"name": "b_teacher", "title": "t", "of": "b", "network": "teacher"}]
    changed = recipes.validate(study.model_dump() | {"rows": rows, "seeds": [0, 1, 2]}, StudyConfig, "study")
    assert [(run.row.name, run.seed) for run in plan(changed)] == [("a", 0), ("a", 1), ("a", 2), ("b", 4), ("b", 2)]
    assert [(run.row.name, run.seed) for run in plan(changed, seeds=[7])] == [("a", 7), ("b", 7)]
    assert [line.cells["subjects"].missing for line in report(changed, tmp_path / "studies" / "tiny")] == [3, 2, 2]


def test_a_rows_changes_come_after_the_studys_and_overrides_last(study: StudyConfig) -> None:
    alone, taught, _ = (run.config for run in plan(study, seeds=[7], overrides=["student.batch_size=3"]))
    assert isinstance(alone, Recipe)
    assert isinstance(taught, Recipe)
    assert alone.teacher is None
    assert alone.losses == ()
    assert taught.teacher is not None
    assert (taught.student.epochs, taught.teacher.epochs, taught.student.batch_size, taught.seed) == (1, 1, 3, 7)
    assert taught.student.model.hidden == 8, "what nobody changes stays"
    assert [loss.kind for loss in taught.losses] == ["soft_target"]
    assert taught.name == "tiny-st"


def test_a_row_is_its_parts_in_their_order_and_then_its_own_changes(study: StudyConfig) -> None:
    parts = {
        "alone": {"without": ["teacher"], "set": {"losses": [], "student": {"epochs": 5, "batch_size": 3}}},
        "long": {"set": {"student": {"epochs": 9}}},
    }
    orders = {"a": ["alone", "long"], "b": ["long", "alone"], "c": ["long"]}
    rows: list[dict[str, Any]] = [{"name": name, "title": name, "parts": order} for name, order in orders.items()]
    rows += [{"name": "d", "title": "d", "parts": ["alone"], "set": {"student": {"epochs": 2}}}]
    changed = recipes.validate(study.model_dump() | {"parts": parts, "rows": rows}, StudyConfig, "study")
    configs = {run.row.name: run.config for run in plan(changed)}
    a, b, c, d = (config for config in configs.values() if isinstance(config, Recipe))
    assert [config.student.epochs for config in (a, b, c, d)] == [9, 5, 9, 2]
    assert [config.student.batch_size == 3 for config in (a, b, c, d)] == [True, True, False, True]
    assert [config.teacher is None for config in (a, b, c, d)] == [True, True, False, True]


def test_what_a_later_part_drops_an_earlier_one_did_not_set() -> None:
    taught = ChangesConfig(set={"teacher": {"epochs": 3}, "segments": 4})
    alone = ChangesConfig(without=("teacher",), set={"losses": []})
    base = {"teacher": {"epochs": 9, "batch_size": 2}}
    assert alone.applied(taught.applied(base, "a"), "b") == {"segments": 4, "losses": []}
    assert taught.applied(alone.applied(base, "a"), "b") == {"losses": [], "teacher": {"epochs": 3}, "segments": 4}


def test_a_table_after_a_word_is_not_the_studys_table(study: StudyConfig) -> None:
    parts = {"balanced": {"set": {"student": {"class_weights": "balanced"}}}}
    row = {"name": "a", "title": "a", "parts": ["balanced"], "set": {"student": {"class_weights": {"clap": 3.0}}}}
    values = study.model_dump() | {"set": {"student": {"class_weights": {"wave": 2.0}}}, "parts": parts, "rows": [row]}
    (run,) = plan(recipes.validate(values, StudyConfig, "study"))
    assert isinstance(run.config, Recipe)
    assert run.config.student.class_weights == {"clap": 3.0}


def test_tables_are_merged_and_lists_replaced() -> None:
    base: dict[str, Any] = {"a": {"x": 1, "y": {"z": 2}}, "b": [1, 2]}
    assert merged(base, {"a": {"y": {"w": 3}}, "b": [5], "c": 1}, "set") == {
        "a": {"x": 1, "y": {"z": 2, "w": 3}},
        "b": [5],
        "c": 1,
    }
    assert base == {"a": {"x": 1, "y": {"z": 2}}, "b": [1, 2]}


def test_a_rows_change_of_one_stage_leaves_the_others(study: StudyConfig) -> None:
    stages = [{"kind": "labels"}, {"kind": "head", "epochs": 7, "passes": 2}]
    rows: list[dict[str, Any]] = [{"name": "a", "title": "a"}, {"name": "b", "title": "b"}]
    rows[1]["set"] = {"stages": {"head": {"epochs": 9}}, "losses": {"0": {"weight": 3.0}}}
    values = study.model_dump() | {"set": {"stages": stages}, "rows": rows}
    a, b = (run.config for run in plan(recipes.validate(values, StudyConfig, "study")))
    assert isinstance(a, Recipe)
    assert isinstance(b, Recipe)
    assert [(stage.kind, stage.epochs, stage.passes) for stage in (a.stages[1], b.stages[1])] == [
        ("head", 7, 2),
        ("head", 9, 2),
    ]
    assert (a.losses[0].weight, b.losses[0].weight, b.losses[1:]) == (0.1, 3.0, a.losses[1:])
    with pytest.raises(ConfigError, match=r"row 'a': --set stages\.head\.x\.y=1|row 'a' has 1 fault: stages\.1\.x"):
        plan(recipes.validate(values, StudyConfig, "study"), overrides=["stages.head.x.y=1"])
    with pytest.raises(ConfigError, match=r"row 'a': --set stages\.dense\.epochs=1: 'dense' in a list of 2"):
        plan(recipes.validate(values, StudyConfig, "study"), overrides=["stages.dense.epochs=1"])
    rows[1]["set"] = {"stages": {"head": {"epochs": 9}, "1": {"passes": 3}}}
    with pytest.raises(ConfigError, match=r"row 'b': set\.stages changes one table twice, as head and 1"):
        plan(recipes.validate(values, StudyConfig, "study"))
    rows[1]["set"] = {"stages": {"dense": {"epochs": 9}}}
    with pytest.raises(ConfigError, match=r"row 'b': set.stages: 'dense' in a list of 2\. Expected the kind of one"):
        plan(recipes.validate(values, StudyConfig, "study"))


def test_a_comparator_sees_the_recordings_as_the_student_does(study: StudyConfig) -> None:
    rows = [{"name": "classical", "title": "x", "comparator": {"kind": "tstdds", "frame_px": 32}}]
    changed = recipes.validate(study.model_dump() | {"rows": rows}, StudyConfig, "study")
    config = plan(changed, seeds=[5])[0].config
    assert isinstance(config, TstddsConfig)
    assert (config.kind, config.modality, config.split, config.seed, config.frame_px) == (
        "tstdds",
        "nir",
        "subjects",
        5,
        32,
    )
    assert config.data.kind == "synthetic"


def test_a_comparator_that_fuses_sensors_names_its_modalities_itself(study: StudyConfig) -> None:
    rows = [
        {"name": "crc", "title": "CRC", "comparator": {"kind": "crc", "sensors": ["wrist"], "fusion": "decisions"}},
        {"name": "lstm", "title": "CNN + LSTM", "comparator": {"kind": "cnn_lstm", "depth": ""}},
    ]
    changed = recipes.validate(study.model_dump() | {"rows": rows}, StudyConfig, "study")
    crc, lstm = (run.config for run in plan(changed, seeds=[5], overrides=["data.clips_per_class=2"]))
    assert isinstance(crc, CrcConfig)
    assert isinstance(lstm, CnnLstmConfig)
    assert (crc.modality, crc.split, crc.seed, crc.fusion) == ("depth+wrist", "subjects", 5, "decisions")
    assert lstm.modality == "accelerometer+gyroscope"
    assert [config.data.clips_per_class for config in (crc, lstm)] == [2, 2]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("comparator", "message"),
    [
        ({"kind": "crcc"}, "row 'a': comparator.kind: unknown 'crcc' .did you mean 'crc'"),
        ({"kind": ["crc"]}, "row 'a': comparator.kind: unknown"),
        ({"kind": "crc", "window": 6}, "row 'a' has 1 fault: window: unknown key .did you mean 'windows'"),
        ({"kind": "cnn_lstm", "modality": "depth"}, "row 'a' has 1 fault: modality: unknown key"),
        ({"frame_px": 8}, "row 'a' has 1 fault: frame_px"),
    ],
)
def test_faults_of_a_comparator_are_found(study: StudyConfig, comparator: dict[str, Any], message: str) -> None:
    rows = [{"name": "a", "title": "a", "comparator": comparator}]
    changed = recipes.validate(study.model_dump() | {"rows": rows}, StudyConfig, "study")
    with pytest.raises(ConfigError, match=message):
        plan(changed)


def test_the_classical_rows_of_table_3_plan() -> None:
    runs = plan(load_study("utd_mhad_classical"))
    assert [run.name for run in runs] == [
        f"{row}-{split}-s0"
        for row in ("crc_depth", "crc_inertial", "crc_plain", "crc", "crc2", "cnn_lstm")
        for split in ("odd_even", "trials")
    ]
    configs = {run.row.name: run.config for run in runs}
    crc, crc2 = configs["crc"], configs["crc2"]
    assert isinstance(crc, CrcConfig)
    assert isinstance(crc2, CrcConfig)
    assert (crc.fusion, crc2.fusion) == ("features", "decisions")
    assert {name: config.modality for name, config in configs.items()} == {  # type: ignore[union-attr]
        "crc_depth": "depth",
        "crc_inertial": "accelerometer+gyroscope",
        "crc_plain": "depth+inertial",
        "crc": "depth+accelerometer+gyroscope",
        "crc2": "depth+accelerometer+gyroscope",
        "cnn_lstm": "depth+accelerometer+gyroscope",
    }


def test_overrides_reach_a_comparator_through_the_base_recipe(study: StudyConfig) -> None:
    rows = [{"name": "classical", "title": "x", "comparator": {"kind": "tstdds"}}]
    changed = recipes.validate(study.model_dump() | {"rows": rows}, StudyConfig, "study")
    config = plan(changed, overrides=["data.clips_per_class=2", 'validation_subjects=["1"]'])[0].config
    assert (config.data.clips_per_class, config.validation_subjects) == (2, ("1",))  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match="unknown key"):
        plan(changed, overrides=["studnet.epochs=3"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rows": ["aat"]}, "no row 'aat' .did you mean 'at'"),
        ({"splits": ["views"]}, "no split 'views'"),
        ({"rows": ["mkl"]}, "row 'mkl' cannot be run, it needs depth"),
        ({"rows": ["st", "taught"]}, "row 'taught' is read of row 'st' .teacher.*run 'st'"),
        ({"overrides": ["student.epochs=0"]}, "row 'alone'.*student.epochs"),
        ({"overrides": ["student"]}, "key=value"),
        ({"overrides": ["seed=7"]}, "--set seed=7.*--seeds"),
        ({"overrides": ["split=views"]}, "--set split=views"),
    ],
)
def test_faults_are_found_before_anything_is_trained(
    study: StudyConfig, arguments: dict[str, Any], message: str
) -> None:
    study = with_rows(study, MKL, {"name": "taught", "title": "x", "of": "st", "network": "teacher"})
    with pytest.raises(ConfigError, match=message):
        plan(study, **arguments)


SET = {"set": {"student": {"epochs": 2}}}
MKL = {"name": "mkl", "title": "MKL", "needs": "depth, and a method without public code"}


def with_rows(study: StudyConfig, *rows: dict[str, Any]) -> StudyConfig:
    values = study.model_dump()
    return recipes.validate(values | {"rows": [*values["rows"], *rows]}, StudyConfig, "study")


def test_rows_that_are_only_read_are_never_planned(study: StudyConfig) -> None:
    read = {"name": "taught", "title": "x", "of": "st", "network": "teacher"}
    changed = with_rows(study, MKL, read)
    assert [run.row.name for run in plan(changed)] == ["alone", "st", "at"]
    assert [row.runs for row in changed.rows] == [True, True, True, False, False]


@pytest.mark.parametrize(
    ("of", "network", "message"),
    [
        ("alone", "teacher", "row 'taught' is read of teacher of row 'alone', which has none"),
        ("st", "teacher/gyroscope", "teacher/gyroscope of row 'st', which has none"),  # its teacher sees images
    ],
)
def test_a_network_that_the_other_row_lacks_is_refused(study: StudyConfig, of: str, network: str, message: str) -> None:
    changed = with_rows(study, {"name": "taught", "title": "x", "of": of, "network": network})
    with pytest.raises(ConfigError, match=message):
        plan(changed)


def test_a_sensor_that_the_teachers_lack_is_refused() -> None:
    study = with_rows(
        load_study("sakdn_table6"), {"name": "x", "title": "x", "of": "sakdn", "network": "teacher/gyroscop"}
    )
    with pytest.raises(ConfigError, match=r"teacher/gyroscop of row 'sakdn', which has none .did you mean 'gyroscope'"):
        plan(study)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": [{"name": "a", "title": "a", "of": "b", "network": "teacher"}]}, "is of 'b', no trained row"),
        (
            {"rows": [MKL, {"name": "a", "title": "a", "of": "mkl", "network": "teacher"}]},
            "is of 'mkl', no trained row",
        ),
        ({"rows": [{"name": "a", "title": "a", "of": "a"}]}, "of and network go together"),
        ({"rows": [{"name": "a", "title": "a", "network": "teacher"}]}, "of and network go together"),
        ({"rows": [{"name": "a", "title": "a", "of": "a", "network": "student"}]}, "network"),
        ({"rows": [MKL | {"of": "a", "network": "teacher"}]}, "either needs something or is read"),
        ({"rows": [MKL | {"without": ["teacher"]}]}, "only read runs nothing"),
        ({"rows": [MKL | {"comparator": {"kind": "crc"}}]}, "only read runs nothing"),
        (
            {"rows": [{"name": "a", "title": "a"}, {"name": "b", "title": "b", "of": "a", "network": "teacher"} | SET]},
            "only read runs nothing",
        ),
        ({"rows": [{"name": "a", "title": "a", "published": {"views": 1.0}}]}, "not in splits"),
        ({"rows": [{"name": "a", "title": "a", "comparator": {}, "without": ["teacher"]}]}, "takes no recipe"),
        ({"metric": "auc"}, "metric"),
        ({"seeds": [0, 1, 0]}, "seeds names one twice: each is run and counted once"),
        ({"rows": [{"name": "a", "title": "a", "seeds": [1, 1]}]}, "seeds of row 'a' names one twice"),
        ({"rows": [{"name": "a", "title": "a", "seeds": []}]}, "seeds"),
        ({"rows": [{"name": "a", "title": "a", "seeds": [True]}]}, "seeds"),
        ({"seeds": [2**32]}, "seeds"),
        ({"rows": [MKL | {"seeds": [0]}]}, "only read runs nothing"),
        ({"splits": ["subjects", "subjects"]}, "splits names one twice"),
        ({"rows": [{"name": "a", "title": "a"}, {"name": "a", "title": "b"}]}, "two rows have the same name 'a'"),
        ({"rows": [{"name": "a-s1", "title": "a"}]}, "name"),  # or a run's name would not tell row, split and seed
        (
            {"rows": [{"name": "a", "title": "a", "parts": ["loud"]}]},
            "row 'a' has the part 'loud', none of the study's",
        ),
        ({"parts": {"loud": {}}}, "no row has the part 'loud'"),
        (
            {"parts": {"loud": {}}, "rows": [{"name": "a", "title": "a", "parts": ["laud"]}]},
            r"none of the study's \(did you mean 'loud'",
        ),
        ({"parts": {"loud": {}}, "rows": [{"name": "a", "title": "a", "parts": ["loud", "loud"]}]}, "names one twice"),
        ({"parts": {"loud": {"rows": []}}}, "unknown key"),
        ({"rows": [{"name": "a", "title": "a", "comparator": {}, "parts": ["loud"]}]}, "takes no recipe"),
        ({"rows": [MKL | {"parts": ["loud"]}]}, "only read runs nothing"),
    ],
)
def test_a_study_with_faults_is_refused(study: StudyConfig, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        recipes.validate(study.model_dump() | changes, StudyConfig, "study")


def test_the_papers_tables_are_there() -> None:
    assert {path.stem for path in SHIPPED} >= {f"mgcam_table{n}" for n in (1, 2, 3, 4)}
    assert {path.stem for path in SHIPPED} >= {f"sakdn_table{n}" for n in range(2, 9)}


def test_a_rows_change_of_a_list_that_nobody_wrote_is_of_the_recipes_own(study: StudyConfig) -> None:
    rows = [{"name": "a", "title": "a", "without": ["losses"], "set": {"losses": {"mgcam": {"weight": 2.0}}}}]
    (run,) = plan(recipes.validate(study.model_dump() | {"rows": rows}, StudyConfig, "study"))
    assert isinstance(run.config, Recipe)
    assert [(loss.kind, loss.weight) for loss in run.config.losses if loss.kind == "mgcam"] == [("mgcam", 2.0)]


def test_an_override_is_of_the_rows_that_were_asked_for() -> None:
    """Row ``ours``, of which row ``teacher`` is read, has no dense stage."""
    study = load_study("generated_dense")
    (run,) = plan(study, rows=["joints"], seeds=[0], overrides=["stages.dense.epochs=1"])
    assert isinstance(run.config, Recipe)
    assert run.config.stages[0].epochs == 1
    with pytest.raises(ConfigError, match=r"row 'alone': --set stages\.dense\.epochs=1"):
        plan(study, overrides=["stages.dense.epochs=1"])


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_row_of_every_shipped_study_validates(path: Path) -> None:
    study = load_study(path.stem)
    runs = plan(study)
    seeds = sum(len(row.seeds or study.seeds) for row in study.rows if row.runs)
    assert len(runs) == seeds * len(study.splits)
    assert len({run.config.fingerprint() for run in runs}) == len(runs)


@pytest.mark.parametrize(("table", "alpha", "epochs"), [("mgcam_table1", 0.1, 80), ("mgcam_table2", 0.01, 120)])
def test_the_papers_hyper_parameters(table: str, alpha: float, epochs: int) -> None:
    config = plan(load_study(table), rows=["ours"])[0].config
    assert isinstance(config, Recipe)
    assert config.teacher is not None
    dkd, mgcam = config.losses
    assert (dkd.kind, dkd.weight, mgcam.kind, mgcam.weight) == ("dkd", alpha, "mgcam", 1.0)
    assert (getattr(dkd, "target_weight", None), getattr(dkd, "nontarget_weight", None)) == (0.7, 0.35)
    assert (config.student.epochs, config.teacher.epochs) == (epochs, epochs)
    assert (config.student.batch_size, config.teacher.batch_size, config.segments) == (8, 16, 8)
    assert (config.student.learning_rate, config.teacher.learning_rate) == (0.001, 0.001)
    assert (config.student.model.backbone, config.teacher.model.backbone) == ("resnet18", "resnet50")
    assert (config.student.modality, config.teacher.modality) == ("ir", "rgb")


@pytest.mark.parametrize(
    ("table", "rows", "runs", "teachers"),
    [
        ("sakdn_table2", 3 + 3 + 7 + 1, 11, 1),  # MKL, MPE and MOCAP are only read
        ("sakdn_table3", 3 + 4 + 7 + 1, 14, 1),  # MFLF is only read
        ("sakdn_table4", 3 + 3 + 7 + 1, 14 * 4, 4 * 4),  # those of SMD, MMD and MMAD beside SAKDN's, for every split
        ("sakdn_table5", 6 * 3 + 3 + 6, 6, 3),  # SKDN's, AKDN's and SAKDN's
        ("sakdn_table6", 2 * 3 + 3 + 6, 6, 3),
        ("sakdn_table7", 4 * 3 + 3 + 6, 6 * 4, 3 * 4),
        ("sakdn_table8", 14, 14, 1),
        ("sakdn_table9_berkeley_mhad", 12, 12, 1),
        ("sakdn_table9_utd_mhad", 12, 12, 1),
        ("sakdn_table9_mmact", 12, 12, 1),
    ],
)
def test_rows_runs_and_teachers_of_the_sakdn_tables(table: str, rows: int, runs: int, teachers: int) -> None:
    study = load_study(table)
    planned = plan(study)
    assert (len(study.rows), len(planned)) == (rows, runs)
    configs = [run.config for run in planned if isinstance(run.config, Recipe)]
    assert len({config.teacher_fingerprint() for config in configs if config.teacher is not None}) == teachers


def test_the_methods_on_recordings_at_hand_are_those_of_the_tables() -> None:
    """Tables II to VII on depth; methods that differ in their losses alone share one teacher."""
    study = load_study("utd_mhad_sensors")
    wanted = {row.name for table in ("sakdn_table4", "sakdn_table6") for row in load_study(table).rows if row.runs}
    assert {row.name for row in study.rows} >= wanted - {"baseline"}  # it is the row trn
    shared = ["logits", "fitnet", "st", "at", "rkd", "sp", "cc", "kdn", "sadn", "sakdn", "sakdn_class"]
    configs = [run.config for run in plan(study, rows=shared, seeds=[0])]
    assert len({config.teacher_fingerprint() for config in configs if isinstance(config, Recipe)}) == 1
    assert len({config.fingerprint() for config in configs}) == len(shared)


def test_the_published_figures_of_the_sakdn_tables() -> None:
    """Every row has one for every split, and columns add up to what the paper's add up to."""
    totals = {}
    for path in SHIPPED:
        if not path.stem.startswith("sakdn_"):
            continue
        study = load_study(path.stem)
        assert all(row.published.keys() == set(study.splits) for row in study.rows), path.stem
        totals[path.stem] = [round(sum(row.published[split] for row in study.rows), 2) for split in study.splits]
    assert totals == {
        "sakdn_table2": [1352.68],
        "sakdn_table3": [1410.98],
        "sakdn_table4": [893.44, 859.2, 795.52, 1005.11],
        "sakdn_table5": [2078.19],
        "sakdn_table6": [1441.66],
        "sakdn_table7": [1164.21, 1202.74, 1271.82, 1242.35],
        "sakdn_table8": [1363.57],
        "sakdn_table9_berkeley_mhad": [1181.66],
        "sakdn_table9_mmact": [716.38],
        "sakdn_table9_utd_mhad": [1163.35],
    }


@pytest.mark.parametrize(
    ("base", "segments", "teacher", "student", "weights"),
    [
        ("sakdn_berkeley_mhad", 8, (8, 0.0001, 0.5, 50, 100), (8, 0.001, 0.1, 20, 30), (0.1, 0.1, 1.0)),
        ("sakdn_utd_mhad", 8, (16, 0.0002, 0.5, 50, 100), (16, 0.001, 0.5, 50, 100), (0.1, 1.0, 1.0)),
        ("sakdn_mmact", 3, (16, 0.0001, 0.5, 50, 70), (32, 0.001, 0.5, 30, 60), (0.1, 1.0, 1.0)),
    ],
)
def test_the_sakdn_papers_hyper_parameters(
    base: str, segments: int, teacher: tuple[float, ...], student: tuple[float, ...], weights: tuple[float, ...]
) -> None:
    recipe = recipes.load("train", base, Recipe)
    assert recipe.teacher is not None
    for stage, expected in ((recipe.teacher, teacher), (recipe.student, student)):
        steps = (stage.decay, stage.decay_epochs, stage.epochs)
        assert (stage.batch_size, stage.learning_rate, *steps, stage.schedule) == (*expected, "step")
    assert recipe.segments == segments
    assert [loss.kind for loss in recipe.losses] == ["soft_target", "gsdm", "semantic"]
    assert tuple(loss.weight for loss in recipe.losses) == weights
    assert getattr(recipe.losses[0], "temperature", None) == 4.0
    model = recipe.student.model
    assert (model.backbone, model.temporal, model.bottleneck, model.dropout) == ("bninception", "trn", 300, 0.8)
    assert (model.dropout_at, model.relation_hidden) == ("features", 256)
    assert (recipe.student.preprocess.mean, recipe.student.preprocess.std) == (CAFFE_MEAN, CAFFE_STD)
    assert not recipe.student.augment.flip


def test_table_nine_has_every_pair_of_weights_once_and_the_recipes_own_among_them() -> None:
    grid = {(a, b, c) for a in (1.0, 0.1, 0.01) for b in (1.0, 0.1) for c in (1.0, 0.1)}
    for data in ("berkeley_mhad", "utd_mhad", "mmact"):
        study = load_study(f"sakdn_table9_{data}")
        runs = {run.config.fingerprint(): run for run in plan(study)}
        weights = [tuple(loss.weight for loss in run.config.losses) for run in runs.values()]  # type: ignore[union-attr]
        assert (set(weights), len(weights)) == (grid, 12)
        own = recipes.load("train", f"sakdn_{data}", Recipe, [f"split={study.splits[0]}"])
        best = max(study.rows, key=lambda row: row.published[study.splits[0]])
        assert runs[own.fingerprint()].row.name == best.name, "the paper's choice, trained once for all tables"


@pytest.mark.slow
def test_the_layers_of_table_eight_are_there() -> None:
    models: dict[str, ClipModel] = {}
    for run in plan(load_study("sakdn_table8")):
        config = run.config
        assert isinstance(config, Recipe)
        name = config.student.model.backbone
        if name not in models:
            models[name] = build_model(config.student.model, 3, 27, 8)
        gsdm = config.losses[1]
        assert isinstance(gsdm, GsdmLoss)
        mine = gsdm.layers(image_places(models[name]), "student")
        assert len(mine) == len(gsdm.teacher_layers or BLOCKS), run.name
        assert set(gsdm.teacher_layers) <= set(BLOCKS)


def test_an_override_does_not_bring_back_what_a_row_does_without(study: StudyConfig) -> None:
    overrides = ["teacher.epochs=5", "student.epochs=3"]
    alone, taught = plan(study, rows=["alone", "st"], overrides=overrides)
    assert isinstance(alone.config, Recipe)
    assert isinstance(taught.config, Recipe)
    assert (alone.config.teacher, alone.config.student.epochs) == (None, 3)
    assert taught.config.teacher is not None
    assert taught.config.teacher.epochs == 5


def test_a_base_recipe_without_a_name_is_told(tmp_path: Path, study: StudyConfig) -> None:
    (tmp_path / "base.toml").write_text("seed = 1\n")
    nameless = study.model_copy(update={"base": str(tmp_path / "base.toml")})
    with pytest.raises(ConfigError, match=r"base\.toml' has no name"):
        plan(nameless)


def test_weights_of_at_and_rkd_are_chosen_by_a_subject_that_no_row_trains_on() -> None:
    study = load_study("utd_mhad_weights")
    assert study.metric == "validation_accuracy"
    weights: dict[str, list[float]] = {"at": [], "rkd": []}
    teachers = set()
    for run in plan(study):
        assert isinstance(run.config, Recipe)
        assert run.config.validation_subjects == ("7",)
        teachers |= {run.config.teacher_fingerprint()} if run.config.teacher is not None else set()
        for loss in run.config.losses:
            weights[loss.kind].append(loss.weight)
    assert weights == {"at": [1000, 100, 10, 1, 0.1], "rkd": [1, 0.1, 0.04, 0.01, 0.001]}
    assert len(teachers) == 1, "one teacher serves all rows"


@pytest.mark.parametrize("name", [robustness.NAME, shipped.NAME])
def test_a_study_does_not_take_the_ledger_of_models_measured_one_by_one(name: str, tmp_path: Path) -> None:
    place = tmp_path / f"{name}.toml"
    place.write_text("title = 'mine'")
    with pytest.raises(ConfigError, match=f"a study called '{name}', whose ledger is that of kd-edge study {name}"):
        load_study(str(place))
