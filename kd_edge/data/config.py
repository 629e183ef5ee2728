"""Settings models of the data sets, and the function that opens them."""

from __future__ import annotations

import os
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, ValidationError, ValidatorFunctionWrapHandler
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from kd_edge import recipes
from kd_edge.data.dataset import Dataset
from kd_edge.data.installed import OwnData, check_no_clash, installed_kinds, load_kind, open_own
from kd_edge.errors import ConfigError, DataError, did_you_mean, printable
from kd_edge.files import cache_folder, expanded

DATA_VARIABLE = "KD_EDGE_DATA"
"""Environment variable: the folder that contains the data sets, or the data set's own folder."""


BerkeleyView = Literal[
    "c1_1", "c1_2", "c1_3", "c1_4", "c2_1", "c2_2", "c2_3", "c2_4", "c3_1", "c3_2", "c4_1", "c4_2"
]  # fmt: skip


class SyntheticData(BaseModel):
    """The generated data set: an articulated figure performs ten actions, in RGB, near infrared and joints.

    Attributes:
        clips_per_class: Clips of each action, dealt evenly over the subjects.
        subjects: Number of different bodies; the last quarter of them, or every second one, is the test side.
        seed: Seed of everything random.
        height_px: Image height.
        width_px: Image width.
        fps: Frame rate, 1/s.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["synthetic"] = "synthetic"
    clips_per_class: int = Field(48, ge=1, le=10_000)
    subjects: int = Field(12, ge=2, le=1000)
    seed: int = Field(0, ge=0)
    height_px: int = Field(120, ge=32, le=1080)
    width_px: int = Field(160, ge=32, le=1920)
    fps: float = Field(30.0, ge=5, le=120)


class UtdMhadData(BaseModel):
    """UTD-MHAD (Chen, Jafari, Kehtarnavaz, ICIP 2015): depth, skeleton, inertial and, where present, RGB.

    Attributes:
        root: The folder with ``Depth/``, ``Skeleton/`` and ``Inertial/``; None for ``--data`` or ``KD_EDGE_DATA``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["utd_mhad"] = "utd_mhad"
    root: Path | None = None


class NtuRgbdData(BaseModel):
    """NTU RGB+D 60 (Shahroudy, Liu, Ng, Wang, CVPR 2016): RGB and near infrared video, skeletons.

    Attributes:
        root: The folder with ``nturgb+d_rgb/``, ``nturgb+d_ir/`` and ``nturgb+d_skeletons/``; None for ``--data`` or
            ``KD_EDGE_DATA``.
        actions: ``ten`` reads A001 to A010, ``all`` A001 to A060.
        exclude: Text file of sample names to leave out, such as the official list of missing skeletons. A relative path
            is resolved against the data set's folder first, then against the current one.
        decode_height_px: Higher pictures are scaled down to this height while decoding.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["ntu_rgbd"] = "ntu_rgbd"
    root: Path | None = None
    actions: Literal["ten", "all"] = "ten"
    exclude: Path | None = None
    decode_height_px: int = Field(480, ge=32, le=1080)


class PkuMmdData(BaseModel):
    """PKU-MMD (Liu, Hu, Li, Song, Liu, 2017): RGB, near infrared, skeletons; long videos, cut into actions.

    Attributes:
        root: The folder with ``Data/``, ``Label/`` and ``Split/``; None for ``--data`` or ``KD_EDGE_DATA``.
        decode_height_px: Higher pictures are scaled down to this height while decoding.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["pku_mmd"] = "pku_mmd"
    root: Path | None = None
    decode_height_px: int = Field(480, ge=32, le=1080)


class BerkeleyMhadData(BaseModel):
    """Berkeley MHAD (Ofli, Chaudhry, Kurillo, Vidal, Bajcsy, WACV 2013): twelve cameras, six accelerometers.

    Attributes:
        root: The folder with ``Camera/`` and ``Accelerometer/``; None for ``--data`` or ``KD_EDGE_DATA``.
        views: Cameras to read, for example ``c1_2`` (cluster 1, camera 2); None reads all twelve.
        decode_height_px: Higher pictures are scaled down to this height while decoding.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["berkeley_mhad"] = "berkeley_mhad"
    root: Path | None = None
    views: Annotated[tuple[BerkeleyView, ...], Field(min_length=1)] | None = None
    decode_height_px: int = Field(480, ge=32, le=1080)


class MMActData(BaseModel):
    """MMAct (Kong, Wu, Deng, Klinkigt, Tong, Murakami, ICCV 2019): four cameras, four wearable sensors.

    Attributes:
        root: The folder with the videos, ``acc_phone_clip/`` etc.; None for ``--data`` or ``KD_EDGE_DATA``.
        desk: Whether ``using_phone`` and ``talking_on_phone`` at scene 3's desk are separate classes.
        decode_height_px: Higher pictures are scaled down to this height while decoding.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["mmact"] = "mmact"
    root: Path | None = None
    desk: bool = True
    decode_height_px: int = Field(480, ge=32, le=1080)


class FirActionData(BaseModel):
    """Nagoya University far-infrared actions (Kawashima et al., AVSS 2017): a 16x16 thermal array on the ceiling.

    Attributes:
        root: The folder with ``20170203/raw/`` etc. and ``annotation/``; None for ``--data`` or ``KD_EDGE_DATA``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["fir_action"] = "fir_action"
    root: Path | None = None


class FilesData(BaseModel):
    """Your own recordings: class folders or a manifest; see the README.

    Attributes:
        root: The folder itself; None for ``--data``.
        decode_height_px: Higher pictures, except depth, are scaled down to this height while decoding.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["files"] = "files"
    root: Path | None = None
    decode_height_px: int = Field(480, ge=32, le=1080)


BuiltInData = (
    SyntheticData | UtdMhadData | NtuRgbdData | PkuMmdData | BerkeleyMhadData | MMActData | FirActionData | FilesData
)
AnyData = BuiltInData | OwnData
KINDS: tuple[str, ...] = tuple(str(model.model_fields["kind"].default) for model in typing.get_args(BuiltInData))
"""The kinds of data sets built into kd-edge."""


def _chosen(value: Any, built_in: ValidatorFunctionWrapHandler) -> Any:
    if isinstance(value, OwnData):
        return value
    kind = value.get("kind") if isinstance(value, Mapping) else None
    if not isinstance(kind, str) or kind in KINDS:
        return built_in(value)
    model = load_kind(kind)
    if model is None:
        fault = PydanticCustomError("unknown_kind", "{message}", {"message": unknown_kind(kind)})
        raise ValidationError.from_exception_data("data", [InitErrorDetails(type=fault, loc=("kind",), input=kind)])
    return model.model_validate(value)


class _ByKind:
    """Validates settings by their ``kind``: a built-in one, or one of an installed package."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        built_in = handler.generate_schema(Annotated[BuiltInData, Field(discriminator="kind")])
        by_its_own_model = core_schema.simple_ser_schema("any")
        return core_schema.no_info_wrap_validator_function(_chosen, built_in, serialization=by_its_own_model)


DataConfig = Annotated[AnyData, _ByKind()]
"""The table ``[data]`` of a recipe."""


def known_kinds() -> tuple[str, ...]:
    """Return all available kinds of data sets: the built-in ones, then those of installed packages."""
    return (*KINDS, *(kind for kind in installed_kinds() if kind not in KINDS))


def unknown_kind(kind: object) -> str:
    """Return the message for an unknown kind, which lists the known ones."""
    known, shown = known_kinds(), printable(str(kind)[:80])
    others = "packages may add others (entry points kd_edge.datasets)"
    return f"unknown '{shown}'{did_you_mean(shown, known)}, known here: {', '.join(known)}; {others}"


def data_config(values: Mapping[str, Any], what: str) -> AnyData:
    """Validate the settings of a data set.

    Args:
        values: Plain values, with ``kind``.
        what: Source of the values, for messages.

    Raises:
        ConfigError: The kind is unknown, or the settings are invalid for it.
    """
    return recipes.validate({"data": dict(values)}, _Wanted, what).data


def data_of_model(values: Mapping[str, Any], what: str) -> AnyData:
    """Validate the settings of the data set that a run or an artifact was trained on.

    Args:
        values: Plain values with ``kind``, possibly written by another release or with another package installed.
        what: The run or artifact, for messages.

    Raises:
        ConfigError: The kind is unknown, or the settings are invalid for it.
    """
    kind = values.get("kind")
    if isinstance(kind, str) and kind not in known_kinds():
        raise ConfigError(
            f"{what} was trained on data of a kind that is unknown here: {unknown_kind(kind)}",
            "a kind that is known here",
            "install the package that provides it, or the release it was trained with; cameras (kd-edge run) and "
            "recordings (kd-edge evaluate MODEL --recording FILE) can be labelled without it",
        )
    return data_config(values, what)


class _Wanted(BaseModel):
    data: DataConfig


_LAYOUTS = {
    "utd_mhad": ("Depth/a*_s*_t*_depth.mat", "Skeleton/a*_s*_t*_skeleton.mat", "Inertial/a*_s*_t*_inertial.mat"),
    "ntu_rgbd": ("nturgb+d_rgb", "nturgb+d_ir"),
    "pku_mmd": ("Data/RGB_VIDEO", "Data/IR_VIDEO"),
    "berkeley_mhad": ("Camera/Cluster*", "Accelerometer/Shimmer*"),
    "mmact": ("*_clip/subject*", "trimmed/subject*"),
    "fir_action": ("2017*/raw/*_p*_*.csv",),
}


def known_kind(root: Path) -> str | None:
    """Return the kind whose layout a folder, or its subfolder of that name, has; None for your own recordings."""
    for kind, patterns in _LAYOUTS.items():
        for folder in (root, root / kind.replace("_", "-")):
            if any(next(folder.glob(pattern), None) is not None for pattern in patterns):
                return kind
    return None


def open_dataset(config: AnyData, data_root: Path | None = None) -> Dataset:
    """Open the configured data set; nothing is decoded yet.

    Args:
        config: Settings of the data set.
        data_root: Folder with the recordings; overrides the configured one and ``KD_EDGE_DATA``. Either the data set's
            own folder, or one that contains it as ``utd-mhad/``, ``ntu-rgbd/``, ``pku-mmd/``, ``berkeley-mhad/``,
            ``mmact/`` or ``fir-action/``, or under the name of an installed package's kind. For your own recordings
            it is the folder itself, and ``KD_EDGE_DATA`` is not used.

    Raises:
        DataError: No folder was given, or it is not one of the data set.
        ConfigError: A folder was given for generated data, or an installed package's data set is invalid.
    """
    if isinstance(config, OwnData):
        return _opened(config, data_root)
    check_no_clash(config.kind)
    # Imported here because reading a configuration must not need OpenCV or SciPy.
    if isinstance(config, SyntheticData):
        _require_no_folder(data_root, config.kind)
        from kd_edge.data.synthetic.dataset import Synthetic

        return Synthetic(**config.model_dump(exclude={"kind"}))
    settings = config.model_dump(exclude={"kind", "root"})
    folder = cache_folder()
    memo = None if folder is None else folder / "hashes.jsonl"
    if isinstance(config, FilesData):
        from kd_edge.data.readers.files import Files

        return Files(_own(data_root or config.root), **settings, hash_memo=memo)
    root = _recordings(data_root or config.root, config.kind.replace("_", "-"))
    if isinstance(config, NtuRgbdData):
        from kd_edge.data.readers.ntu_rgbd import NtuRgbd

        return NtuRgbd(root, **settings, hash_memo=memo)
    if isinstance(config, PkuMmdData):
        from kd_edge.data.readers.pku_mmd import PkuMmd

        return PkuMmd(root, **settings, hash_memo=memo and memo.with_name("sampled-hashes.jsonl"))
    if isinstance(config, BerkeleyMhadData):
        from kd_edge.data.readers.berkeley_mhad import BerkeleyMhad

        return BerkeleyMhad(root, **settings, hash_memo=memo)
    if isinstance(config, MMActData):
        from kd_edge.data.readers.mmact import MMAct

        return MMAct(root, **settings, hash_memo=memo)
    if isinstance(config, FirActionData):
        from kd_edge.data.readers.fir_action import FirAction

        return FirAction(root, hash_memo=memo)
    from kd_edge.data.readers.utd_mhad import UtdMhad

    return UtdMhad(root, hash_memo=memo)


def _opened(config: OwnData, data_root: Path | None) -> Dataset:
    """Open a data set of an installed package."""
    if not config.reads_folder:
        _require_no_folder(data_root, config.kind)
        return open_own(config, Path())
    return open_own(config, _recordings(data_root or config.root, config.kind))


def _require_no_folder(data_root: Path | None, kind: str) -> None:
    """Refuse a folder, so that figures of generated data are not mistaken for those of recordings."""
    if data_root is not None:
        raise ConfigError(
            f"--data {data_root} with generated data (kind = '{kind}'), which reads no folder",
            "a recipe or artifact of recordings",
            "leave --data out, or set kind = 'files' below [data] in the recipe to train on that folder",
        )


def _own(given: Path | None) -> Path:
    if given is None:
        raise DataError("no folder given for your own recordings", "--data DIR", "add --data DIR")
    return expanded(given)


def _recordings(given: Path | None, folder: str) -> Path:
    """The data set's folder: the given path or that of the environment, or its subfolder of that name."""
    root = given or (Path(os.environ[DATA_VARIABLE]) if os.environ.get(DATA_VARIABLE) else None)
    if root is None:
        raise DataError(
            f"no folder given for the recordings of {folder}",
            f"--data DIR, or {DATA_VARIABLE} set to it",
            f"add --data DIR, where DIR or DIR/{folder} contains the recordings",
        )
    root = expanded(root)
    return root / folder if (root / folder).is_dir() else root
