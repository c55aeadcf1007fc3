"""The hash by which graphs are held out together with all that are the same but for the order of their vertices."""

import numpy as np

from gram.models.tasks.base import Tokens
from gram.models.tasks.symmetry import Words, mix


def isomorphism_hash(adjacency: Tokens) -> Words:
    """A hash [B] of graphs, given as matrices of 0 and 1 [B, n, n]. Isomorphic graphs share it, others hardly ever do.

    It refines colours of pairs of vertices (two-dimensional Weisfeiler-Leman): the label of a pair takes in the labels of the
    pairs to each third vertex. Sums do not depend on the order of the vertices, and all arithmetic is exact.
    """
    labels = mix(adjacency.astype(np.uint64) + np.uint64(2) * np.eye(adjacency.shape[-1], dtype=np.uint64))
    for _ in range(3):
        triangles = labels[:, :, None, :] + np.uint64(3) * labels[:, None, :, :]
        labels = mix(labels + np.sum(mix(triangles), axis=-1))
    return mix(np.sum(labels, axis=(1, 2)))
