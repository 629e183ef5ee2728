"""The run directory: what a training run leaves behind. Typed, one reader, one writer; no torch.

recipe.toml            as resolved
student.safetensors    the student's weights
teachers/teacher.safetensors
dense.safetensors      the student's backbone after its dense stage
folds/fold1.safetensors   students that saw not every subject, where the head is cross-fitted
metrics.jsonl          a ``MetricsLine`` per epoch
summary.json           a ``Summary``, written last; "complete": true
plots/*.png
state.pt               to resume, see ``kd_edge.train.results.run``
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
