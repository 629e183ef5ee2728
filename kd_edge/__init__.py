"""kd-edge: train a small infrared or RGB action recogniser by distillation, export it, run it on a robot."""

__version__ = "0.1.0"
