"""GRAM itself: the network, its tasks, its checkpoints, its training and its evaluation."""
