"""The engine. The scheduler, the slot pool and the runner do not know each other; a lane joins them for one model."""
