"""The frame cache: decoded once, resized, read by every epoch."""
