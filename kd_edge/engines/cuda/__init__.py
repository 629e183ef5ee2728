"""NVIDIA GPUs: what the driver says of them, and memory and streams through cuda-python or pycuda."""
