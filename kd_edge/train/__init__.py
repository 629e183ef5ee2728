"""Training: recipe, losses, the student/teacher step, the trainer and its run directory."""
