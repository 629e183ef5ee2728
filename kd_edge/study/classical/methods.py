"""Every comparator by its kind: one way to check it and one to run it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from kd_edge.data import open_dataset
from kd_edge.errors import ConfigError, did_you_mean
from kd_edge.study.classical.fusion.config import CnnLstmConfig, CrcConfig
from kd_edge.study.classical.tstdds.config import TstddsConfig

if TYPE_CHECKING:  # settings are read without torch and OpenCV
    from kd_edge.rundir import Summary
    from kd_edge.study.classical.results import Progress

AnyComparator = TstddsConfig | CrcConfig | CnnLstmConfig
ComparatorConfig = Annotated[AnyComparator, Field(discriminator="kind")]

MODELS: dict[str, type[AnyComparator]] = {"tstdds": TstddsConfig, "crc": CrcConfig, "cnn_lstm": CnnLstmConfig}


def comparator_model(kind: str, what: str) -> type[AnyComparator]:
    """The settings of a kind of comparator.

    Args:
        kind: ``tstdds``, ``crc`` or ``cnn_lstm``.
        what: Whose settings they are, for the message.

    Raises:
        ConfigError: No such kind.
    """
    if str(kind) not in MODELS:  # a study file may say anything
        raise ConfigError(
            f"{what}: comparator.kind: unknown '{kind}'{did_you_mean(str(kind), MODELS)}",
            f"one of {', '.join(MODELS)}",
            "correct it",
        )
    return MODELS[kind]


def run_comparator(
    config: AnyComparator, run_dir: Path, *, data_root: Path | None = None, progress: Progress | None = None
) -> Summary:
    """Fit or train a comparator, and test it; writes ``recipe.toml`` first and ``summary.json`` last.

    Args:
        config: The run.
        run_dir: Where to write; must not hold a run yet.
        data_root: Folder with the recordings.
        progress: Called with (what, done, in all) as the work goes on.

    Returns:
        What ``summary.json`` says: as of a training run whose student is the comparator.

    Raises:
        TrainingError: There is a finished or another run already, the folder cannot be written, or nothing can be
            learned from the clips.
        DataError: Recordings, modality, split or subjects missing.
    """
    from kd_edge.study.classical.results import run_method

    if isinstance(config, TstddsConfig):
        from kd_edge.study.classical.tstdds.run import train_tstdds

        return run_method(train_tstdds, config, run_dir, data_root, progress)
    if isinstance(config, CrcConfig):
        from kd_edge.study.classical.fusion.crc import fit_crc

        return run_method(fit_crc, config, run_dir, data_root, progress)
    from kd_edge.study.classical.fusion.cnn_lstm import train_cnn_lstm

    return run_method(train_cnn_lstm, config, run_dir, data_root, progress)


def comparator_fingerprints(config: AnyComparator, data_root: Path | None = None) -> dict[str, str]:
    """What ``data_fingerprints`` of a run's summary is or would be; nothing is decoded.

    Raises:
        DataError: No recordings there.
    """
    from kd_edge.study.classical.results import recordings_fingerprints

    return recordings_fingerprints(open_dataset(config.data, data_root), config.modalities)


def check_comparator(config: AnyComparator, data_root: Path | None = None) -> tuple[int, int]:
    """Look at what a run would find, decoding as little as possible.

    Returns:
        Numbers of training and test clips of the protocol.

    Raises:
        DataError: What would stop the run at its start: recordings, modality, split or subjects missing.
    """
    if isinstance(config, TstddsConfig):
        from kd_edge.study.classical.tstdds.run import check_tstdds

        return check_tstdds(config, data_root)
    from kd_edge.study.classical.fusion.recordings import check_fusion

    return check_fusion(config, data_root)
