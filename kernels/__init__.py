"""Kernels of the recursion. Each is a plain PyTorch function here and a Triton kernel of the same name and signature in gpu/;
callers take them from `dispatch`, which chooses. A whole step is in cpu/ and in gpu/step.py: see models/serving.py."""
