"""Readers of recorded data sets, one file each, and of the files they are made of."""
