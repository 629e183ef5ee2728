"""The streaming step: one new frame costs one backbone pass."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kd_edge.errors import ExportError, TrainingError
from kd_edge.models.clip import ClipModel
from kd_edge.models.shift import run_with_states, shifts


class StreamingStep(nn.Module):
    """A clip model unrolled over time: it encodes the newest segment frame and reuses the older ones' features.

    Stepping through the T frames of a clip gives the clip model's logits at the last one (in eval mode, to rounding).
    With causal shifts the frames before reach the backbone through one state tensor per shifted convolution, zeros
    before the first frame. Then only the T-th step from there is the clip model's: later ones see further back than a
    clip does, one segment for every shifted convolution, a function of its own. The weights are shared with the clip
    model.

    Args:
        model: The clip model, in eval mode.

    Raises:
        ExportError: Its backbone looks into the future.
    """

    def __init__(self, model: ClipModel) -> None:
        super().__init__()
        check_causal(model)
        self.backbone = model.backbone
        self.head = model.head
        self._past = (model.segments - 1, model.backbone.feature_size)

    def forward(self, frame: Tensor, past: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """Encode one frame and classify the window that ends with it.

        Args:
            frame: (B, C, S, S) float32, the newest segment frame.
            past: (B, T-1, D) float32, features of the older segment frames, oldest first.
            states: (B, fold, h, w) float32 for every shifted convolution, in the order of ``state_shapes``.

        Returns:
            feature (B, D) of the new frame, logits (B, K), and the states for the next frame.

        Raises:
            TrainingError: Another number of older features than T - 1, or of another size.
        """
        if past.ndim != 3 or past.shape[1:] != self._past:
            raise TrainingError(
                f"past features of shape {tuple(past.shape)}",
                f"(batch, {self._past[0]} segments, {self._past[1]})",
                "give the features of as many older segments as the model was built for",
            )
        feature, after = run_with_states(self.backbone, frame, states)
        window = torch.cat([past, feature.unsqueeze(1)], dim=1)  # (B, T, D)
        return feature, self.head(window), *after


def check_causal(model: ClipModel) -> None:
    """Refuse a model whose backbone needs the next segment.

    Raises:
        ExportError: Its channels are shifted in both directions.
    """
    if any(not module.causal for _, module in shifts(model.backbone)):
        raise ExportError(
            "a streaming step of a bidirectional TSM, which needs the frame after the newest one",
            "a backbone that sees the past only",
            "train with temporal 'tsm_causal', or export the clip model with --graph clip",
        )
