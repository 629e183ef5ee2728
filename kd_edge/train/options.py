"""Options of the losses, shared by recipes and functions. Does not import torch."""

from __future__ import annotations

from typing import Literal

Segments = Literal["mean", "fold"]
"""Samples of a clip: the mean over its segments, or every segment."""

Reduction = Literal["mean", "sum"]
"""Reduction over the elements of a sample."""

Scale = Literal["mean", "l2norm", "median", "sum"]
"""Distance in the sample graphs of MGCAM."""

Graph = Literal["intra", "cross"]
"""Edges between the samples of one network, or from the student's to the teacher's."""

Pairs = Literal["matched", "all"]
"""Stages of two networks that are compared."""

Align = Literal["conv", "channel_mean"]
"""Comparison of maps with different numbers of channels."""

AttentionVariant = Literal["squared", "paper", "sakdn"]
"""Forms of attention transfer."""

CorrelationVariant = Literal["rbf", "delta"]
"""Forms of correlation congruence."""

CcskdVariant = Literal["always", "cifar"]
"""Schedules of CCSKD."""

Slope = Literal["official", "stable", "norm"]
"""Division in Eq. 15 of GSDM."""

ClassEmbedding = Literal["hard", "soft"]
"""Class vector of a sample: that of the most likely class, or the expected one."""

Weighting = Literal["scalar", "channel"]
"""Channel weights in Eq. 16 of GSDM."""

Ablation = Literal["zeros", "black"]
"""Clip without content: zeros after normalisation, or black pixels."""

Teachers = Literal["mean", "attention"]
"""Weights of several teachers."""
