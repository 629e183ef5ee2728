"""What users import and type: no name may get lost. A name is added here in the change that adds it."""

from __future__ import annotations

import importlib
import inspect
from types import ModuleType
from typing import Any

import pytest
import typer.main

from kd_edge.cli import app

MODULES = {
    "kd_edge.artifact": """
        ActivationRanges AddedClass Artifact BUNDLED BUNDLED_NAME Band FORMAT ForeignFileError GOLDEN_BYTES GOLDEN_KEY
        GoldenClip MANIFEST_KEY Manifest Parity Precision SigningKey StageFigures StateSpec StreamFigures Trust
        UNCALIBRATED artifact_path beside default_model load new_keys rewrite sign sign_beside write
    """,
    "kd_edge.data": """
        ActionInterval AnyData BerkeleyMhadData DataConfig Dataset FilesData FirActionData ImageFormat LongVideo
        LongVideos MMActData NtuRgbdData OwnData PkuMmdData Sample SignalFormat Split SyntheticData UtdMhadData
        Wearables check_split data_config data_of_model known_kinds open_dataset split_by_subject training_sides
        unknown_kind validation_split
    """,
    "kd_edge.engines": """
        Binding Choice CudaBinding ENGINES Engine EngineName Ladder Provider StepEngine carry engine_ladder engine_name
        open_engine provider_name state_names
    """,
    "kd_edge.metrics": """
        Detection Interval Reliability accuracy average_precision confusion detection_average_precision detection_f1
        expected_calibration_error figures fit_temperature fit_unknown_threshold interval_overlap log_softmax
        macro_f1 map_action map_video mean_average_precision negative_log_likelihood paired_interval
        per_class_accuracy proportion_interval reliability row_shares sakdn_fmeasure softmax top_k
        two_d_average_precision worst_confusions
    """,
    "kd_edge.models": """
        BACKBONES Backbone ClipModel ModelConfig StreamingStep Temporal build_backbone build_model
    """,
    "kd_edge.runtime": """
        Recognizer Watchdog stream
    """,
    "kd_edge.sampling": """
        gather motion_indices nearest nearest_one segment_indices
    """,
    "kd_edge.train.losses": """
        CcskdConnectors CcskdRates CcskdSchedule CorrelationEmbedding HintRegressor MgcamAdapters
        attention_transfer ccskd ccskd_schedule class_weights contrastive correlation_congruence cross_entropy
        cross_graph dense_regression dkd
        dkd_terms gsdm
        hint_mse logit_mse map_distance mgcam normalize_graph rkd_angle rkd_distance sample_graph
        selective_soft_target semantic_map semantic_maps semantic_preserving semantic_weights
        similarity_preserving soft_target
    """,
    "kd_edge.train.recipe": """
        DenseStage HeadStage LabelsStage OnnxTeacherConfig Recipe SensorTeacherConfig Stage StudentConfig TeacherConfig
    """,
}

VERBS = {
    "adapt": "MODEL --add --force --json --keep --key --out --threads",
    "bench": "MODEL --camera --data --engine --frames --input --json --motion --overload --reference --seconds --set "
    "--size --soak --threads --training",
    "cameras": "--force --json --of --ros --stills --write",
    "cameras doctor": "CAMERA --json --model -m --seconds",
    "data check": "KIND --data --json --modality --quick --set",
    "data examples": "SOURCE --classes --data --frames --modalities --out",
    "data glove": "NAME --data --from --json --out --set",
    "data import": "SOURCES --force --json --label --modality --names --root --skip-missing",
    "data init": "FOLDER --dry-run --force --json --pattern --student --without-damaged",
    "data prepare": "RECIPE --data --set",
    "data synth": "--clips-per-class --out --seed --subjects",
    "demo": "--out --seconds",
    "doctor": "--hardware --json --model -m --only",
    "evaluate": "MODEL --data --detection --engine --iou --json --labels --orders --proposals --recording --scale "
    "--smooth-ms --split --streaming --threads --threshold --write",
    "explain": "RUN --data --json --layer --out --sample --wrong",
    "export": "RUN --auto-precision --data --fp16 --graph --int8 --json --matrix --out --profile --report --set "
    "--sign --tensorrt --tensorrt-rtx --with",
    "install-service": "--camera -c --dry-run --json --model -m --name --ros --sink --topics --uninstall --user "
    "--with-model",
    "label": "FOLDER --fresh --open --port",
    "recipes copy": "NAME",
    "recipes layers": "NAME --data --depth --json --set --teacher",
    "recipes list": "--json",
    "recipes show": "NAME",
    "record": "--camera -c --count --countdown --duration --json --keep-free-gb --key --label --max-gb --no-wait --out "
    "--pause --seconds --session --subject --trial --view",
    "run": "--accept-self-test --camera -c --cuda-binding --duration --engine --max-age-ms --model -m --notify "
    "--provider --realtime --record --record-dir --record-max-mb --record-on --sink --smooth-ms "
    "--strict --threads --trust --valid-ms",
    "sign": "FILE --bundle --key --new-key",
    "study confusion": "RUN --against --json --out --pairs --stage",
    "study ledger": "NAME --json --ledger --out --seeds --set",
    "study list": "--json",
    "study report": "NAME --against --into --json --ledger --out --place --rows --seeds --set",
    "study robustness": "MODELS --against --data --into --json --ledger --place --rows --split",
    "study run": "NAME --data --dry-run --out --rows --seeds --set --splits",
    "study sensitivity": "NAME --colour --json --out --polar --published --runs --seeds --set --x --y",
    "study shipped": "ARTIFACTS --data --into --json --ledger --place --rows",
    "study show": "NAME --row",
    "study table": "RUNS --into --json --place",
    "train": "RECIPE --data --devices --dry-run --export --from --json --nodes --out --resume --seed --set",
}


def exported(module: ModuleType) -> set[str]:
    """The names of ``__all__``; of a module without one, the functions and classes it defines."""
    if hasattr(module, "__all__"):
        return set(module.__all__)
    return {
        name
        for name, value in vars(module).items()
        if (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__ == module.__name__
        and not name.startswith("_")
    }


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_is_there_and_no_other(name: str) -> None:
    module = importlib.import_module(name)
    assert exported(module) == set(MODULES[name].split())
    assert [missing for missing in exported(module) if not hasattr(module, missing)] == []


def verbs(command: Any, path: tuple[str, ...] = ()) -> dict[str, set[str]]:
    """Every verb with the names of its arguments and options."""
    if hasattr(command, "commands"):
        below = {k: v for name, each in command.commands.items() for k, v in verbs(each, (*path, name)).items()}
        return below | (parameters(command, path) if path and command.invoke_without_command else {})
    return parameters(command, path)


def parameters(command: Any, path: tuple[str, ...]) -> dict[str, set[str]]:
    given = command.params
    names = [[p.name.upper()] if p.param_type_name == "argument" else [*p.opts, *p.secondary_opts] for p in given]
    return {" ".join(path): {name for each in names for name in each}}


def test_every_verb_and_option_is_there_and_no_other() -> None:
    assert verbs(typer.main.get_command(app)) == {verb: set(names.split()) for verb, names in VERBS.items()}
