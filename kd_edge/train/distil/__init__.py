"""Distillation: the learner, its terms, the layers they look at."""
