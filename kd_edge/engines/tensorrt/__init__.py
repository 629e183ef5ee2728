"""TensorRT and TensorRT-RTX: plans built from an artifact's graph, kept for this machine, run on its GPU."""
