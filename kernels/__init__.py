"""Kernels: one file is one Triton kernel, its PyTorch reference and its test inputs."""
