"""Signals of wearable sensors: files, resampling, what a run loads of them."""
