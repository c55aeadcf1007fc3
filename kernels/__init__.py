"""Kernels of the stochastic transition, each with a plain PyTorch reference."""
