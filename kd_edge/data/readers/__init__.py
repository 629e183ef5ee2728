"""Readers of recorded data sets, one module each, and of their file formats."""
