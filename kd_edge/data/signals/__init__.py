"""Signals of wearable sensors: cache files, resampling, loading."""
