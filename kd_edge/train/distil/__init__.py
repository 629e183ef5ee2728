"""Distillation: the learner, its terms and the layers they use."""
