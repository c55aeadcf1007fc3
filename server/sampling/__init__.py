"""A request and its answer: how to sample, and what comes of it. Without torch and HTTP."""
