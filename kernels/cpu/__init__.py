"""Kernels in C++, for processors with AVX-512."""
