"""Evaluation: scores of a checkpoint, and the reports and plots of them."""
