"""The streaming step, which classifies the current window with one backbone pass per new frame."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kd_edge.errors import ExportError, TrainingError
from kd_edge.models.clip import ClipModel
from kd_edge.models.shift import run_with_states, shifts


class StreamingStep(nn.Module):
    """A clip model unrolled over time: it encodes the newest segment frame and reuses the features of older ones.

    Stepping through the T frames of a clip yields the clip model's logits at the last frame (in eval mode, up to
    rounding). With causal shifts, previous frames reach the backbone through one state tensor per shifted convolution,
    which is zero before the first frame. In that case only the T-th step equals the clip model: later steps see further
    back than a clip does, by one segment per shifted convolution, and compute a different function. The weights are
    shared with the clip model.

    Args:
        model: The clip model, in eval mode.

    Raises:
        ExportError: The backbone needs future frames.
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
            states: (B, fold, h, w) float32 per shifted convolution, in the order of ``state_shapes``.

        Returns:
            Feature (B, D) of the new frame, logits (B, K), and the states for the next frame.

        Raises:
            TrainingError: The past does not consist of T - 1 features of size D.
        """
        if past.ndim != 3 or past.shape[1:] != self._past:
            raise TrainingError(
                f"past features of shape {tuple(past.shape)}",
                f"(batch, {self._past[0]} segments, {self._past[1]})",
                "pass the features of as many older segments as the model was built for",
            )
        feature, after = run_with_states(self.backbone, frame, states)
        window = torch.cat([past, feature.unsqueeze(1)], dim=1)  # (B, T, D)
        return feature, self.head(window), *after


def check_causal(model: ClipModel) -> None:
    """Check that a model's backbone does not need the next segment.

    Raises:
        ExportError: The backbone's channels are shifted in both directions.
    """
    if any(not module.causal for _, module in shifts(model.backbone)):
        raise ExportError(
            "a streaming step of a bidirectional TSM, which needs the frame after the newest one",
            "a backbone that sees the past only",
            "train with temporal 'tsm_causal', or export the clip model with --graph clip",
        )
