"""The choices that the losses offer, each named once: recipes offer them, functions check them. Imports no torch."""

from __future__ import annotations

from typing import Literal

Segments = Literal["mean", "fold"]
"""What of a clip is a sample: the mean over its segments, or every segment."""

Reduction = Literal["mean", "sum"]
"""Over the elements of one sample."""

Scale = Literal["mean", "l2norm", "median", "sum"]
"""Distance of the sample graphs of MGCAM."""

Graph = Literal["intra", "cross"]
"""Edges between the samples of one network, or from the student's to the teacher's."""

Pairs = Literal["matched", "all"]
"""Which of two networks' stages are compared."""

Align = Literal["conv", "channel_mean"]
"""How maps of different channel counts are compared."""

AttentionVariant = Literal["squared", "paper", "sakdn"]
"""Forms of attention transfer."""

CorrelationVariant = Literal["rbf", "delta"]
"""Forms of correlation congruence."""

CcskdVariant = Literal["always", "cifar"]
"""Schedules of CCSKD."""

Slope = Literal["official", "stable", "norm"]
"""How Eq. 15 of GSDM divides."""

ClassEmbedding = Literal["hard", "soft"]
"""A sample's class vector: the likeliest class' or the expected one."""

Weighting = Literal["scalar", "channel"]
"""How Eq. 16 of GSDM weighs a map's channels."""

Ablation = Literal["zeros", "black"]
"""A clip without content: zeros of the normalised input, or black pixels."""

Teachers = Literal["mean", "attention"]
"""How several teachers count."""
