"""The streaming step: one new frame costs one backbone pass."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kd_edge.models.clip import ClipModel


class StreamingStep(nn.Module):
    """A clip model unrolled over time: it encodes the newest segment frame and reuses the older ones' features.

    Stepping through the T frames of a clip gives the clip model's logits at the last one (in eval mode, to rounding).
    The weights are shared with the clip model.

    Args:
        model: The clip model, in eval mode.
    """

    def __init__(self, model: ClipModel) -> None:
        super().__init__()
        self.backbone = model.backbone
        self.head = model.head

    def forward(self, frame: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """Encode one frame and classify the window that ends with it.

        Args:
            frame: (B, C, S, S) float32, the newest segment frame.
            past: (B, T-1, D) float32, features of the older segment frames, oldest first.

        Returns:
            feature (B, D) of the new frame, and logits (B, K).
        """
        feature = self.backbone(frame)
        window = torch.cat([past, feature.unsqueeze(1)], dim=1)  # (B, T, D)
        return feature, self.head(window)
