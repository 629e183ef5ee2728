"""A student that goes on from trained weights: what a source is, what of it fits, what is new, and what is frozen."""
