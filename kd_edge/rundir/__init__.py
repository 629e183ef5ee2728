"""The run directory, the output of a training run: typed records, one reader and one writer, without torch.

recipe.toml            the resolved recipe
student.safetensors    the student's weights
teachers/teacher.safetensors
dense.safetensors      the student's backbone after its dense stage
folds/fold1.safetensors   students trained without some subjects, if the head is cross-fitted
metrics.jsonl          a ``MetricsLine`` per epoch
summary.json           a ``Summary``, written last; "complete": true
plots/*.png
state.pt               state for resuming, see ``kd_edge.train.results.run``
"""

from kd_edge.rundir.files import (
    DENSE,
    FOLDS,
    METRICS,
    RECIPE,
    STAGES,
    STATE,
    STUDENT,
    SUMMARY,
    TEACHER,
    append_metrics,
    check_free,
    check_run,
    complete_summary,
    new_run_path,
    read_metrics,
    read_summary,
    run_folders,
    truncate_metrics,
    write_summary,
)
from kd_edge.rundir.records import (
    DenseReport,
    FoldReport,
    Marks,
    MetricsLine,
    Protocol,
    RecipeNote,
    Record,
    Scores,
    Selection,
    SemanticsNote,
    SourceNote,
    Spread,
    StageName,
    StageReport,
    Summary,
    first_fault,
)

__all__ = [
    "DENSE",
    "FOLDS",
    "METRICS",
    "RECIPE",
    "STAGES",
    "STATE",
    "STUDENT",
    "SUMMARY",
    "TEACHER",
    "DenseReport",
    "FoldReport",
    "Marks",
    "MetricsLine",
    "Protocol",
    "RecipeNote",
    "Record",
    "Scores",
    "Selection",
    "SemanticsNote",
    "SourceNote",
    "Spread",
    "StageName",
    "StageReport",
    "Summary",
    "append_metrics",
    "check_free",
    "check_run",
    "complete_summary",
    "first_fault",
    "new_run_path",
    "read_metrics",
    "read_summary",
    "run_folders",
    "truncate_metrics",
    "write_summary",
]
