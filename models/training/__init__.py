"""Training: amortised variational inference, then training on the prior's own states, then the heads."""
