"""Fine-tuning: sources of weights, which of them fit, what is new, and what is frozen."""
