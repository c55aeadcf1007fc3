"""Triton kernels: each module holds what its namesake in the folder above does, with the same signatures.

A row's result depends on the row alone, to the bit: block shapes follow from the sizes of the model, never from the number
of rows, every row's sums run in one order, and nothing is tuned at run time. Arithmetic is in float32 whatever the dtype,
and rounded once, when a result is stored; the PyTorch path rounds its intermediate results too. Offsets are 32-bit.
"""
