"""Triton kernels. Each module is the twin of the module with the same name in the folder above, with the same signatures;
step.py alone has none, and makes a whole supervision step (layout.py: of what networks).

A row's result depends on the row alone, to the bit: block shapes follow from the sizes of the model and never from the number
of rows, the sums of every row run in one order, and nothing is tuned at run time. Arithmetic is in float32 whatever the dtype,
and rounded once, when a result is stored. (The PyTorch path rounds its intermediate results, too.) Offsets are 32-bit.
"""
