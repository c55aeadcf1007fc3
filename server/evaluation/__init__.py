"""`gram eval`: measures checkpoints through the engine that serves them."""
