"""Training of a comparator's network as a classifier: AdamW, one cycle, batches of equal size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_edge.types import Int64


class Schedule(Protocol):
    """What of a comparator's settings decides its training."""

    @property
    def epochs(self) -> int:
        """Passes over the inputs."""
        ...

    @property
    def learning_rate(self) -> float:
        """Highest learning rate of the schedule."""
        ...

    @property
    def weight_decay(self) -> float:
        """Weight decay of all weights."""
        ...


def fit(
    network: nn.Module,
    config: Schedule,
    examples: Int64,
    batches: int,
    given: Callable[[Any], Tensor],
    labels: Int64,
    rng: np.random.Generator,
    progress: Callable[[int], None],
) -> dict[str, float]:
    """Train a network in place, on its device.

    Args:
        network: Inputs to logits (N, K).
        config: Epochs and the optimiser's settings.
        examples: What an epoch shuffles: positions in ``labels``, a position as often as it is drawn.
        batches: Number of batches of an epoch, of equal size: batch normalisation needs more than one input.
        given: The inputs of some examples, anew each time.
        labels: (clips,) of the training clips.
        rng: Random generator of the shuffling.
        progress: Called with the epochs done.

    Returns:
        ``loss`` and ``accuracy`` on the training inputs, averaged over the last epoch.
    """
    device = next(network.parameters()).device
    optimiser = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=config.learning_rate, total_steps=batches * config.epochs + 1
    )
    network.train()
    loss_sum, right = 0.0, 0
    for epoch in range(1, config.epochs + 1):
        loss_sum, right = 0.0, 0
        for batch in np.array_split(rng.permutation(examples), batches):
            truth = torch.from_numpy(labels[batch]).to(device)
            logits = network(given(batch).to(device))
            loss = F.cross_entropy(logits, truth)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            loss_sum += loss.item() * len(batch)
            right += int((logits.argmax(1) == truth).sum())
        progress(epoch)
    return {"loss": loss_sum / len(examples), "accuracy": right / len(examples)}
