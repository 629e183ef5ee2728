"""The frame cache: frames decoded and resized once, read in every epoch."""
