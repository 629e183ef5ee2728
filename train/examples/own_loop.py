"""kd-edge's distillation losses in a training loop of your own: any two networks that give logits and stage maps.

python train/examples/own_loop.py
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_edge.train.losses import MgcamAdapters, dkd, mgcam


class Network(nn.Module):
    """Two convolution stages and a classifier; gives its stage maps beside the logits."""

    def __init__(self, in_channels: int, widths: tuple[int, int], classes: int) -> None:
        super().__init__()
        self.stage1 = nn.Sequential(nn.Conv2d(in_channels, widths[0], 3, 2, 1), nn.ReLU())
        self.stage2 = nn.Sequential(nn.Conv2d(widths[0], widths[1], 3, 2, 1), nn.ReLU())
        self.classifier = nn.Linear(widths[1], classes)

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits (N, K), and the maps of both stages."""
        first = self.stage1(images)
        second = self.stage2(first)
        return self.classifier(second.mean((2, 3))), [first, second]


def paired_images(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Made-up pairs: four kinds of stripes, in colour for the teacher and in one noisy channel for the student."""
    labels = torch.randint(0, 4, (count,))
    stripes = (torch.arange(16) // 2 % 2).float()
    wide = (torch.arange(16) // 4 % 2).float()
    patterns = torch.stack(
        [stripes.expand(16, 16), stripes.expand(16, 16).T, wide.expand(16, 16), wide.expand(16, 16).T]
    )
    clean = patterns[labels]
    return clean[:, None].expand(-1, 3, -1, -1), clean[:, None] + 0.5 * torch.randn(count, 1, 16, 16), labels


def main(steps: int = 150) -> float:
    """Train a teacher, then a student on labels and teacher; returns the student's accuracy on new images."""
    torch.manual_seed(0)
    teacher, student = Network(3, (16, 32), 4), Network(1, (8, 16), 4)
    adapters = MgcamAdapters((8, 16), (16, 32))  # 1x1 convolutions from student to teacher channels; dropped afterwards

    optimiser = torch.optim.AdamW(teacher.parameters(), lr=0.01)
    for _ in range(steps):
        rgb, _, labels = paired_images(32)
        optimiser.zero_grad()
        F.cross_entropy(teacher(rgb)[0], labels).backward()
        optimiser.step()
    teacher.eval()

    optimiser = torch.optim.AdamW([*student.parameters(), *adapters.parameters()], lr=0.01)
    for step in range(steps):
        rgb, infrared, labels = paired_images(32)
        with torch.no_grad():
            teacher_logits, teacher_maps = teacher(rgb)
        logits, maps = student(infrared)
        loss_ce = F.cross_entropy(logits, labels)
        loss_dkd = dkd(logits, teacher_logits, labels, target_weight=0.7, nontarget_weight=0.35, temperature=4.0)
        loss_mgcam = mgcam(maps, teacher_maps, adapters=adapters)
        optimiser.zero_grad()
        (loss_ce + 0.1 * loss_dkd + 1.0 * loss_mgcam).backward()
        optimiser.step()
        if step % 30 == 0:
            print(f"step {step}: ce {loss_ce:.3f}  dkd {loss_dkd:.3f}  mgcam {loss_mgcam:.3f}")

    _, infrared, labels = paired_images(256)
    with torch.no_grad():
        accuracy = (student.eval()(infrared)[0].argmax(1) == labels).float().mean().item()
    print(f"student accuracy on new images: {accuracy:.2f}")
    return accuracy


if __name__ == "__main__":
    main()
