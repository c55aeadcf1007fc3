"""The engine: scheduler, slot pool and runner, each ignorant of the others, and the loop that joins them."""
