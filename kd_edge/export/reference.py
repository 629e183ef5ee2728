"""Create artifacts with random weights, to measure speed and memory of an architecture before training."""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path

import torch
from pydantic import ValidationError

from kd_edge.data import ImageFormat, SyntheticData
from kd_edge.errors import ConfigError, did_you_mean
from kd_edge.export.exporter import Exported, build_graph, describe, draw_golden, finish, versions
from kd_edge.export.ncnn import to_ncnn
from kd_edge.export.precision.fp16 import to_half
from kd_edge.export.profile import ExportProfile, Precision
from kd_edge.models import BACKBONES, ModelConfig, Temporal, build_model
from kd_edge.models.saved import StudentSpec
from kd_edge.preprocess import Preprocess


def make_reference_artifact(
    backbone: str,
    input_px: int,
    path: Path,
    *,
    temporal: Temporal = "tsn",
    motion: bool = False,
    precision: Precision = "fp32",
    segments: int = 8,
    clip_seconds: float = 2.0,
    carry: Collection[str] = (),
) -> Exported:
    """Write the streaming step of an untrained student for 8-bit near-infrared frames.

    Args:
        backbone: One of ``BACKBONES``.
        input_px: Side of the input in pixels; frames are resized to 8/7 of it (256 for 224).
        path: The artifact to write.
        temporal: Temporal model; not ``tsm``, which has no streaming step.
        motion: Whether the channels are three frames 70 ms apart instead of three copies of one frame.
        precision: Arithmetic inside the graph.
        segments: Number T of segments.
        clip_seconds: Length of the window.
        carry: ``ncnn`` to include a converted model for that engine.

    Raises:
        ConfigError: The precision is int8, whose ranges need recordings, the backbone is unknown or lacks the residual
            blocks that ``tsm_causal`` needs, or the input is not 8 to 1792 pixels.
    """
    started = time.monotonic()
    if precision not in ("fp32", "fp16"):
        raise ConfigError(
            f"an untrained network in {precision}, whose ranges come from training recordings",
            "fp32 or fp16",
            "train a student first",
        )
    if backbone not in BACKBONES:
        raise ConfigError(
            f"backbone '{backbone}'{did_you_mean(backbone, BACKBONES)}", f"one of {', '.join(BACKBONES)}", "change it"
        )
    try:
        frames = {"motion_offsets_ms": (0, 70, 140)} if motion else {"replicate": 3}
        preprocess = Preprocess.model_validate({"resize_px": input_px * 8 // 7, "input_px": input_px, **frames})
    except ValidationError as error:
        raise ConfigError(f"input of {input_px} pixels", "8 to 1792 pixels", "change the input size") from error
    try:
        architecture = ModelConfig.model_validate({"backbone": backbone, "temporal": temporal})
    except ValidationError as error:
        raise ConfigError(
            error.errors()[0]["msg"].removeprefix("Value error, "), "a model that can be built", "change it"
        ) from error
    spec = StudentSpec(
        model=architecture,
        preprocess=preprocess,
        segments=segments,
        clip_seconds=clip_seconds,
        labels=tuple(f"class {k}" for k in range(10)),
        modality="nir",
        data=SyntheticData(),
        image_format=ImageFormat("nir", "uint8", 1, "grey level", (0.0, 255.0), 30.0),
        split="subjects",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_model(spec.model, preprocess.input_channels, len(spec.labels), segments).eval()
    profile = ExportProfile(name=f"reference {precision}", precision=precision)
    proto = build_graph(model, spec, profile)
    manifest = describe(model, spec, profile, name=f"{backbone}@{input_px} (random weights)", versions=versions())
    if precision == "fp16":
        proto = to_half(proto)
    attachments = {}
    if "ncnn" in carry:
        half = precision == "fp16"
        attachments = to_ncnn(model, in_channels=preprocess.input_channels, input_px=input_px, half=half).attachments
    return finish(model, spec, proto, manifest, draw_golden(model.answer, spec, profile), attachments, path, started)
